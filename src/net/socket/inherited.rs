//! Listening sockets that another process bound: systemd (activation, descriptor store), or the daemon before this one.
//!
//! A socket is identified by its protocol and address, as the kernel reports them; names are only for people. A socket
//! that no listener asks for is a [`Stranger`], and so is one that we would misread: one for IPv4 and IPv6 at once (RFC
//! 3493 section 5.3), whose IPv4 clients would look like IPv6 ones to every list of networks.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use socket2::{SockRef, Type};

use super::PortProtocol;
use crate::net::mmsg::{self, Family};

/// Sockets that wait for the listener with their address.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    strangers: Vec<Stranger>,
}

#[derive(Debug)]
struct Socket {
    name: String,
    protocol: PortProtocol,
    address: SocketAddr,
    descriptor: OwnedFd,
}

/// A descriptor that was handed over and is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// The name that it was handed over with.
    pub name: String,
    /// Why it is not used.
    pub reason: String,
}

impl Inherited {
    /// Sorts what was handed over. A socket that came twice counts once.
    pub fn new(descriptors: impl IntoIterator<Item = (OwnedFd, String)>) -> Self {
        let mut inherited = Self::default();
        let mut seen = Vec::new();
        for (descriptor, name) in descriptors {
            let inode = rustix::fs::fstat(&descriptor).map(|status| status.st_ino).ok();
            if inode.is_some() && seen.contains(&inode) {
                continue;
            }
            seen.push(inode);
            match recognize(&descriptor) {
                Ok((protocol, address)) => inherited.sockets.push(Socket { name, protocol, address, descriptor }),
                Err(error) => inherited.strangers.push(Stranger { name, reason: error.to_string() }),
            }
        }
        inherited
    }

    /// Whether a socket of this protocol and address is there.
    pub fn has(&self, protocol: PortProtocol, address: SocketAddr) -> bool {
        self.sockets.iter().any(|socket| (socket.protocol, socket.address) == (protocol, address))
    }

    /// Takes the UDP sockets of an address, with our options set; empty if there is none.
    ///
    /// # Errors
    /// An option cannot be set.
    pub fn take_udp(&mut self, address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
        let adopt = |descriptor: OwnedFd| {
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            mmsg::report_destination(descriptor.as_fd(), family)?;
            mmsg::ignore_path_mtu(descriptor.as_fd(), family)?;
            let socket = UdpSocket::from(descriptor);
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        self.take(PortProtocol::Udp, address).map(adopt).collect()
    }

    /// Takes the TCP listeners of an address, with our options set; empty if there is none.
    ///
    /// # Errors
    /// An option cannot be set.
    pub fn take_tcp(&mut self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let adopt = |descriptor: OwnedFd| {
            // Inherited by accepted connections, as for listeners of our own.
            SockRef::from(&descriptor).set_tcp_nodelay(true)?;
            let listener = TcpListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        self.take(PortProtocol::Tcp, address).map(adopt).collect()
    }

    fn take(&mut self, protocol: PortProtocol, address: SocketAddr) -> impl Iterator<Item = OwnedFd> {
        let fits = move |socket: &mut Socket| (socket.protocol, socket.address) == (protocol, address);
        let taken: Vec<Socket> = self.sockets.extract_if(.., fits).collect();
        taken.into_iter().map(|socket| socket.descriptor)
    }

    /// Closes the sockets that no listener took, and returns them.
    pub fn into_strangers(self) -> Vec<Stranger> {
        let unused = self.sockets.into_iter().map(|Socket { name, protocol, address, .. }| Stranger {
            name,
            reason: format!("the configuration does not listen on {address} ({protocol})"),
        });
        self.strangers.into_iter().chain(unused).collect()
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason } = self;
        write!(f, "the socket {name:?} was handed over and is closed: {reason}")
    }
}

/// Protocol and address of a listening socket.
fn recognize(descriptor: &OwnedFd) -> io::Result<(PortProtocol, SocketAddr)> {
    let socket = SockRef::from(descriptor);
    let kind = socket.r#type().map_err(|_| io::Error::other("it is no socket"))?;
    let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("it is no internet socket"))?;
    if address.is_ipv6() && !socket.only_v6()? {
        return Err(io::Error::other(format!(
            "{address} takes IPv4 as well as IPv6; set BindIPv6Only=ipv6-only in the socket unit, and list 0.0.0.0 beside \
             [::]"
        )));
    }
    match kind {
        Type::DGRAM => Ok((PortProtocol::Udp, address)),
        Type::STREAM if socket.is_listener()? => Ok((PortProtocol::Tcp, address)),
        _ => Err(io::Error::other(format!("{address} is no UDP socket, and does not accept TCP connections"))),
    }
}

/// Deals sockets out to `count` workers: each socket to at least one worker, each worker at least one socket. Where there
/// are too few, workers share them.
///
/// # Errors
/// There are no descriptors left.
pub fn spread<T: From<OwnedFd> + AsFd>(sockets: Vec<T>, count: usize) -> io::Result<Vec<Vec<T>>> {
    let mut workers: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    let shared = sockets.len()..count.max(sockets.len());
    let copies: io::Result<Vec<T>> = shared
        .filter(|_| !sockets.is_empty())
        .map(|at| Ok(T::from(sockets[at % sockets.len()].as_fd().try_clone_to_owned()?)))
        .collect();
    for (at, socket) in sockets.into_iter().chain(copies?).enumerate() {
        workers[at % count].push(socket);
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use socket2::Domain;

    use super::*;
    use crate::net::mmsg::Batch;

    fn named(socket: impl Into<OwnedFd>, name: &str) -> (OwnedFd, String) {
        (socket.into(), name.to_owned())
    }

    #[test]
    fn sockets_are_found_by_protocol_and_address() {
        let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let twice = udp.try_clone().unwrap();
        let mut inherited = Inherited::new([named(udp, "dns"), named(twice, "again"), named(tcp, "dns")]);
        assert!(inherited.has(PortProtocol::Udp, at_udp) && !inherited.has(PortProtocol::Tcp, at_udp));
        assert_eq!(inherited.take_udp(at_udp).unwrap().len(), 1, "the same socket twice is one");
        assert_eq!(inherited.take_tcp(at_tcp).unwrap().len(), 1);
        assert!(inherited.take_tcp(at_tcp).unwrap().is_empty());
        assert_eq!(inherited.into_strangers(), []);
    }

    #[test]
    fn strangers_are_named_with_the_reason() {
        let idle = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        idle.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let both = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        let unused = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (local, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let strangers = Inherited::new([
            named(tempfile::tempfile().unwrap(), "file"),
            named(local, "local"),
            named(idle, "idle"),
            named(both, "both"),
            named(unused, "unused"),
        ])
        .into_strangers();
        let reasons = ["no socket", "no internet socket", "does not accept", "BindIPv6Only", "does not listen on"];
        assert_eq!(strangers.len(), reasons.len(), "{strangers:?}");
        for (stranger, reason) in strangers.iter().zip(reasons) {
            assert!(stranger.reason.contains(reason), "{stranger}");
        }
    }

    #[test]
    fn every_socket_has_a_reader_and_every_worker_a_socket() {
        for (sockets, workers, expected) in
            [(4, 2, vec![2, 2]), (3, 2, vec![2, 1]), (2, 2, vec![1, 1]), (1, 3, vec![1, 1, 1]), (0, 2, vec![0, 0])]
        {
            let sockets: Vec<UdpSocket> = (0..sockets).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let bound: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
            let dealt = spread(sockets, workers).unwrap();
            assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            let read: Vec<SocketAddr> = dealt.iter().flatten().map(|socket| socket.local_addr().unwrap()).collect();
            assert!(bound.iter().all(|address| read.contains(address)));
        }
    }

    #[test]
    fn an_adopted_socket_reports_destinations() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut adopted = Inherited::new([named(socket, "dns")]).take_udp(address).unwrap();
        let socket = adopted.pop().unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"query", ("127.0.0.3", address.port())).unwrap();
        let mut batch = Batch::new(1, 16, 16);
        assert_eq!(batch.recv(socket.as_fd()).unwrap(), 1);
        let local = batch.message(0).origin.local().unwrap();
        assert_eq!(local.address, SocketAddr::from(([127, 0, 0, 3], 0)).ip());
    }
}
