//! Sockets to listen on.

use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::owner::{self, Owner, PortProtocol};
use crate::net::mmsg::{self, Family};

/// How listening sockets are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Whether to bind addresses that the host does not have yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// The receive buffer of a UDP socket in bytes, for queries that wait for the worker; `net.core.rmem_max` limits
    /// it.
    pub receive_buffer: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { freebind: false, receive_buffer: RECEIVE_BUFFER }
    }
}

/// About 5,000 queries, as a small one takes 768 bytes of kernel memory: 10 ms at 500,000 a second.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Connections waiting to be accepted; the kernel lowers it to `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// How often UDP and TCP try to get the same free port.
const PORT_ATTEMPTS: usize = 32;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is in use.
    #[error("cannot listen on {address} ({protocol}): in use by {owner}; stop that, or choose another address")]
    InUse {
        /// The address wanted.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: PortProtocol,
        /// Who has it.
        owner: Owner,
    },
    /// The port needs a privilege.
    #[error(
        "cannot listen on {address}: ports below {} need CAP_NET_BIND_SERVICE; start from the systemd unit, or run \
         `setcap cap_net_bind_service=+ep` on the program, or `sysctl net.ipv4.ip_unprivileged_port_start={}`",
        unprivileged_port_start(), address.port()
    )]
    Forbidden {
        /// The address wanted.
        address: SocketAddr,
    },
    /// IPv6 is off on this host.
    #[error("cannot listen on {address}: this host has IPv6 switched off")]
    NoIpv6 {
        /// The address wanted.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error(
        "cannot listen on {address}: this host does not have the address; `freebind = true` in [server] listens on \
         addresses that come later"
    )]
    NotHere {
        /// The address wanted.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address} ({protocol})")]
    Io {
        /// The address wanted.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: PortProtocol,
        /// The kernel's error.
        source: io::Error,
    },
}

impl BindError {
    /// Finds out why the kernel refused `address`.
    pub fn explain(protocol: PortProtocol, address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, protocol, owner: owner::find(protocol, address) },
            io::ErrorKind::PermissionDenied if address.port() < unprivileged_port_start() => {
                Self::Forbidden { address }
            }
            io::ErrorKind::AddrNotAvailable if address.is_ipv6() && !has_ipv6() => Self::NoIpv6 { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            // EAFNOSUPPORT has no stable kind: no IPv6 in the kernel, so no such table.
            _ if address.is_ipv6() && !has_ipv6() => Self::NoIpv6 { address },
            _ => Self::Io { address, protocol, source },
        }
    }
}

/// The sockets of one address for both transports.
#[derive(Debug)]
pub struct Listeners {
    /// The address with its port, also where port 0 was asked for.
    pub address: SocketAddr,
    /// A UDP socket for each worker.
    pub udp: Vec<UdpSocket>,
    /// A TCP socket for each worker.
    pub tcp: Vec<TcpListener>,
}

/// UDP and TCP sockets for `count` workers on one address; with port 0 on a port that is free for both.
///
/// # Errors
/// See [`BindError`].
pub fn listeners(address: SocketAddr, count: usize, options: &ListenOptions) -> Result<Listeners, BindError> {
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let udp = udp_listeners(address, count, options)?;
        let bound = udp[0].local_addr().map_err(|source| BindError::explain(PortProtocol::Udp, address, source))?;
        match tcp_listeners(bound, count, options) {
            Err(BindError::InUse { .. }) if attempts > 0 => {}
            tcp => return Ok(Listeners { address: bound, udp, tcp: tcp? }),
        }
    }
}

/// UDP sockets for `count` workers on one address. With port 0 all of them are on a port that the kernel chooses.
///
/// # Errors
/// See [`BindError`].
pub fn udp_listeners(address: SocketAddr, count: usize, options: &ListenOptions) -> Result<Vec<UdpSocket>, BindError> {
    let bind = |address, share| bind_udp(address, share, options);
    let sockets =
        group(address, count, bind).map_err(|source| BindError::explain(PortProtocol::Udp, address, source))?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// TCP sockets for `count` workers on one address, listening. With port 0 all of them are on a port that the kernel
/// chooses.
///
/// Neither `TCP_DEFER_ACCEPT` nor `TCP_FASTOPEN` is set: a connection without a query is closed at the idle limit
/// and counted; data in a SYN may be replayed and is dropped by many middleboxes, while clients that care keep their
/// connections (RFC 7766 section 6.2.1).
///
/// # Errors
/// See [`BindError`].
pub fn tcp_listeners(
    address: SocketAddr,
    count: usize,
    options: &ListenOptions,
) -> Result<Vec<TcpListener>, BindError> {
    let bind = |address, share| bind_tcp(address, share, options);
    let sockets =
        group(address, count, bind).map_err(|source| BindError::explain(PortProtocol::Tcp, address, source))?;
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

/// Makes a listening socket of a group prefer datagrams and connections that arrived at `core` (`SO_INCOMING_CPU`).
/// This suits a worker pinned to that core if the network card spreads flows over the cores. A core without a socket of
/// its own is served by all.
///
/// # Errors
/// It is no internet socket.
pub fn prefer_core(socket: &impl AsFd, core: usize) -> io::Result<()> {
    SockRef::from(socket).set_cpu_affinity(core)
}

/// Whether a socket shares its address with the others of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortSharing {
    Alone,
    Group,
}

/// Binds the first socket exclusively, which shows whether the address is free, then lets the others share it.
fn group(
    address: SocketAddr,
    count: usize,
    bind: impl Fn(SocketAddr, PortSharing) -> io::Result<Socket>,
) -> io::Result<Vec<Socket>> {
    let first = bind(address, PortSharing::Alone)?;
    if count <= 1 {
        return Ok(vec![first]);
    }
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind(bound, PortSharing::Group)?);
    }
    Ok(sockets)
}

fn bind_udp(address: SocketAddr, share: PortSharing, options: &ListenOptions) -> io::Result<Socket> {
    let socket = prepare(address, Type::DGRAM, share, options)?;
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    mmsg::report_destination(socket.as_fd(), family)?;
    mmsg::ignore_path_mtu(socket.as_fd(), family)?;
    socket.set_recv_buffer_size(options.receive_buffer)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr, share: PortSharing, options: &ListenOptions) -> io::Result<Socket> {
    let socket = prepare(address, Type::STREAM, share, options)?;
    // Connections of a previous process in TIME_WAIT must not prevent a start.
    socket.set_reuse_address(true)?;
    // Inherited by accepted connections: an answer is written whole and has nothing to wait for.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn prepare(address: SocketAddr, kind: Type, share: PortSharing, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match (options.freebind, address) {
        (false, _) => {}
        (true, SocketAddr::V4(_)) => socket.set_freebind_v4(true)?,
        (true, SocketAddr::V6(_)) => socket.set_freebind_v6(true)?,
    }
    if share == PortSharing::Group {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

/// Whether any interface has an IPv6 address. Where the table is hidden, as in the systemd unit (ProcSubset=pid), loopback
/// stands for all: it has its address wherever IPv6 is on.
fn has_ipv6() -> bool {
    match fs::read_to_string("/proc/net/if_inet6") {
        Ok(table) => !table.is_empty(),
        Err(_) => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
    }
}

fn unprivileged_port_start() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        net::{IpAddr, TcpStream},
    };

    use super::*;

    const OPTIONS: ListenOptions = ListenOptions { freebind: false, receive_buffer: RECEIVE_BUFFER };

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn workers_share_one_port_and_each_gets_questions() {
        for text in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let sockets = udp_listeners(address(text), 3, &OPTIONS).unwrap();
            let bound: HashSet<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
            assert_eq!((sockets.len(), bound.len()), (3, 1));
            let port = bound.iter().next().unwrap().port();
            let asked: IpAddr = if text.starts_with('[') { address("[::1]:0") } else { address("127.0.0.1:0") }.ip();
            // 96 clients, spread by the kernel's hash: that one of three sockets gets none has odds of (2/3)^96.
            for _ in 0..96 {
                UdpSocket::bind((asked, 0)).unwrap().send_to(b"question", (asked, port)).unwrap();
            }
            for socket in &sockets {
                assert!(socket.recv(&mut [0; 16]).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn connections_are_spread_over_the_workers() {
        let listeners = tcp_listeners(address("127.0.0.1:0"), 2, &OPTIONS).unwrap();
        let bound = listeners[0].local_addr().unwrap();
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(bound).unwrap()).collect();
        for listener in &listeners {
            let (accepted, _) = listener.accept().unwrap();
            assert!(accepted.nodelay().unwrap(), "inherited");
        }
        drop(clients);
    }

    #[test]
    fn one_port_serves_udp_and_tcp() {
        let both = listeners(address("127.0.0.1:0"), 2, &OPTIONS).unwrap();
        assert_ne!(both.address.port(), 0);
        assert_eq!(both.udp[1].local_addr().unwrap(), both.address);
        assert_eq!(both.tcp[1].local_addr().unwrap(), both.address);
    }

    #[test]
    fn wildcards_of_both_families_do_not_collide() {
        let on_one_port = || {
            let v4 = listeners(address("0.0.0.0:0"), 1, &OPTIONS).unwrap();
            let v6 = listeners(address(&format!("[::]:{}", v4.address.port())), 1, &OPTIONS);
            v6.map(|v6| (v4, v6))
        };
        // Somebody else may have the port on [::1], but not each time.
        let (v4, v6) = (1..PORT_ATTEMPTS).find_map(|_| on_one_port().ok()).unwrap_or_else(|| on_one_port().unwrap());
        assert_eq!(v4.address.port(), v6.address.port());
    }

    #[test]
    fn address_in_use_names_its_owner_also_where_it_would_share() {
        let taken = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        taken.set_reuse_port(true).unwrap();
        taken.bind(&address("127.0.0.1:0").into()).unwrap();
        let bound = taken.local_addr().unwrap().as_socket().unwrap();
        for wanted in [bound, SocketAddr::new(address("0.0.0.0:0").ip(), bound.port())] {
            for workers in [1, 2] {
                let error = udp_listeners(wanted, workers, &OPTIONS).unwrap_err();
                let BindError::InUse { owner: Owner::This, .. } = error else { panic!("{error:?}") };
            }
        }
    }

    #[test]
    fn address_of_another_process_names_it() {
        let taken = udp_listeners(address("127.0.0.1:0"), 2, &OPTIONS).unwrap();
        let bound = taken[0].local_addr().unwrap();
        // A child that inherits one socket as its standard input, while we close ours.
        let descriptor: std::os::fd::OwnedFd = taken[0].try_clone().unwrap().into();
        let mut child = std::process::Command::new("sleep").arg("60").stdin(descriptor).spawn().unwrap();
        drop(taken);
        let error = udp_listeners(bound, 2, &OPTIONS).unwrap_err();
        child.kill().unwrap();
        child.wait().unwrap();
        let text = format!("cannot listen on {bound} (UDP): in use by sleep (pid {})", child.id());
        assert!(error.to_string().starts_with(&text), "{error}");
    }

    #[test]
    fn lone_socket_lets_nobody_join() {
        let lone = udp_listeners(address("127.0.0.1:0"), 1, &OPTIONS).unwrap();
        let thief = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        thief.set_reuse_port(true).unwrap();
        assert!(thief.bind(&lone[0].local_addr().unwrap().into()).is_err());
    }

    #[test]
    fn tcp_port_in_use_is_told() {
        let taken = tcp_listeners(address("127.0.0.1:0"), 2, &OPTIONS).unwrap();
        let error = tcp_listeners(taken[0].local_addr().unwrap(), 2, &OPTIONS).unwrap_err();
        assert!(matches!(error, BindError::InUse { protocol: PortProtocol::Tcp, owner: Owner::This, .. }), "{error:?}");
    }

    #[test]
    fn address_of_another_host_needs_freebind() {
        for text in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let error = udp_listeners(address(text), 2, &OPTIONS).unwrap_err();
            assert!(error.to_string().contains("freebind"), "{error}");
            let freebind = ListenOptions { freebind: true, ..OPTIONS };
            assert_eq!(listeners(address(text), 2, &freebind).unwrap().udp.len(), 2);
        }
    }

    #[test]
    fn low_port_says_what_it_needs() {
        let error =
            BindError::explain(PortProtocol::Udp, address("127.0.0.1:0"), io::ErrorKind::PermissionDenied.into());
        assert!(error.to_string().contains("cap_net_bind_service"), "{error}");
        let error =
            BindError::explain(PortProtocol::Udp, address("127.0.0.1:65535"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, BindError::Io { .. }), "{error:?}");
    }

    #[test]
    fn socket_may_prefer_a_core() {
        let both = listeners(address("127.0.0.1:0"), 1, &OPTIONS).unwrap();
        prefer_core(&both.udp[0], 0).unwrap();
        prefer_core(&both.tcp[0], 0).unwrap();
        assert_eq!(SockRef::from(&both.udp[0]).cpu_affinity().unwrap(), 0);
    }
}
