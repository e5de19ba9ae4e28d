//! Opens connections to servers: the socket, its way out of this host, and the handshake.

use tokio::net::{TcpSocket, TcpStream};

use crate::{net::socket::upstream_tcp, tls::Connected};

use super::{obstacle::Obstacle, server::Server, spec::Transport};

/// An open connection, by how questions go over it.
pub(super) enum Carrier {
    /// Messages behind their lengths.
    Tcp(TcpStream),
    /// The same, encrypted.
    Tls(Box<Connected<TcpStream>>),
}

/// Opens a connection. The caller bounds the time.
pub(super) async fn open(server: &Server, transport: Transport) -> Result<Carrier, Obstacle> {
    match transport {
        Transport::Udp | Transport::Tcp => Ok(Carrier::Tcp(tcp(server).await?)),
        Transport::Tls => {
            let client = server.tls().ok_or(Obstacle::Unidentified)?;
            Ok(Carrier::Tls(Box::new(client.connect(tcp(server).await?).await?)))
        }
    }
}

async fn tcp(server: &Server) -> Result<TcpStream, Obstacle> {
    let spec = server.spec();
    let socket = upstream_tcp(spec.address, &spec.via)?;
    Ok(TcpSocket::from_std_stream(socket.into()).connect(spec.address).await?)
}
