//! Sockets towards a server, by its source, device and mark.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::spec::ServerSpec;

/// A connected UDP socket on a port that the kernel picks at random.
pub(super) fn datagram(server: &ServerSpec) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server.address), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, server)?;
    socket.connect(&server.address.into())?;
    Ok(socket.into())
}

/// A TCP socket, ready to connect.
pub(super) fn stream(server: &ServerSpec) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(server.address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket, server)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn prepare(socket: &Socket, server: &ServerSpec) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if let Some(device) = &server.via.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if server.via.mark != 0 {
        socket.set_mark(server.via.mark)?;
    }
    if let Some(source) = server.via.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(())
}
