//! Sockets for queries to upstreams.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::mmsg::{self, Family};

/// Responses to a batch of queries arrive together; the kernel's default holds about 280 small ones.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The local path of a query: what this host decides about its route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Egress {
    /// The source address; by default the routing table's choice.
    pub source: Option<IpAddr>,
    /// The network device (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// The firewall mark for policy routing, 0 for none (`SO_MARK`, needs `CAP_NET_ADMIN`).
    pub mark: u32,
    /// The interface whose link a link-local peer is on (RFC 4007), by name: its index may change.
    pub scope: Option<String>,
}

impl Egress {
    /// The peer with the index that its interface has now.
    ///
    /// # Errors
    /// There is no such interface (ENODEV).
    pub fn locate(&self, peer: SocketAddr) -> io::Result<SocketAddr> {
        match (peer, &self.scope) {
            (SocketAddr::V6(v6), Some(scope)) => {
                Ok(SocketAddrV6::new(*v6.ip(), v6.port(), 0, mmsg::interface_index(scope)?).into())
            }
            _ => Ok(peer),
        }
    }
}

/// A UDP socket connected to `peer`, so that the kernel drops what comes from elsewhere and reports refusals. The local
/// port is the kernel's random choice from `net.ipv4.ip_local_port_range`, without those reserved.
///
/// # Errors
/// No route, no such source or device, no permission for a mark, no free port or descriptor.
pub fn upstream_udp(peer: SocketAddr, egress: &Egress) -> io::Result<UdpSocket> {
    let peer = egress.locate(peer)?;
    let socket = prepare(peer, Type::DGRAM, Protocol::UDP, egress)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let family = if peer.is_ipv4() { Family::V4 } else { Family::V6 };
    mmsg::ignore_path_mtu(socket.as_fd(), family)?;
    if let Some(source) = egress.source {
        socket.bind(&local(source, peer).into())?;
    }
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// A TCP socket on which the caller may start to connect to `peer`, [as located](Egress::locate): non-blocking, without
/// delay for small segments.
///
/// # Errors
/// No such source or device, no permission for a mark, no free descriptor.
pub fn upstream_tcp(peer: SocketAddr, egress: &Egress) -> io::Result<Socket> {
    let socket = prepare(peer, Type::STREAM, Protocol::TCP, egress)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = egress.source {
        mmsg::bind_late(socket.as_fd())?;
        socket.bind(&local(source, peer).into())?;
    }
    Ok(socket)
}

fn prepare(peer: SocketAddr, kind: Type, protocol: Protocol, egress: &Egress) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(device) = &egress.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if egress.mark != 0 {
        socket.set_mark(egress.mark)?;
    }
    Ok(socket)
}

/// The source with any port; a link-local one is on the peer's link.
fn local(source: IpAddr, peer: SocketAddr) -> SocketAddr {
    match (source, peer) {
        (IpAddr::V6(source), SocketAddr::V6(peer)) if source.is_unicast_link_local() => {
            SocketAddrV6::new(source, 0, 0, peer.scope_id()).into()
        }
        _ => SocketAddr::new(source, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn peer() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn question_leaves_from_the_source() {
        let peer = peer();
        let egress = Egress { source: Some("127.0.0.7".parse().unwrap()), ..Egress::default() };
        let socket = upstream_udp(peer.local_addr().unwrap(), &egress).unwrap();
        socket.send(b"question").unwrap();
        let (_, from) = peer.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, socket.local_addr().unwrap());
        assert_eq!(from.ip(), egress.source.unwrap());
    }

    #[test]
    fn local_ports_do_not_follow_each_other() {
        let peer = peer().local_addr().unwrap();
        let sockets: Vec<UdpSocket> = (0..32).map(|_| upstream_udp(peer, &Egress::default()).unwrap()).collect();
        let ports: Vec<i32> = sockets.iter().map(|socket| socket.local_addr().unwrap().port().into()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 32);
        let neighbours = ports.windows(2).filter(|pair| (pair[0] - pair[1]).abs() <= 2).count();
        assert!(neighbours < 4, "{ports:?}");
    }

    #[test]
    fn answers_from_elsewhere_are_not_heard() {
        let peer = peer();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = upstream_udp(peer.local_addr().unwrap(), &Egress::default()).unwrap();
        stranger.send_to(b"forged", socket.local_addr().unwrap()).unwrap();
        peer.send_to(b"true", socket.local_addr().unwrap()).unwrap();
        // Loopback delivers within the call that sends: what is there now is all there will be.
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
        assert_eq!(socket.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn device_and_source_that_are_not_there_are_errors() {
        let peer = peer().local_addr().unwrap();
        let source = Egress { source: Some("192.0.2.1".parse().unwrap()), ..Egress::default() };
        let device = Egress { device: Some("nowhere0".into()), ..Egress::default() };
        for egress in [source, device] {
            assert!(upstream_udp(peer, &egress).is_err());
            assert!(upstream_tcp(peer, &Egress { source: egress.source, ..egress.clone() }).is_err());
        }
    }

    #[test]
    fn tcp_socket_is_ready_to_connect_from_its_source() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let egress = Egress { source: Some("127.0.0.9".parse().unwrap()), ..Egress::default() };
        let socket = upstream_tcp(peer, &egress).unwrap();
        let in_progress = socket.connect(&peer.into());
        assert!(in_progress.is_ok() || in_progress.unwrap_err().raw_os_error() == Some(115), "EINPROGRESS");
        assert_eq!(listener.accept().unwrap().1.ip(), egress.source.unwrap());
    }
}
