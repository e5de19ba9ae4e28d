//! Opens connections to servers: the socket, its path out of this host, and the handshake.

use hyper::Uri;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    net::socket::upstream_tcp,
    tls::{Alpn, Connected, TlsClient},
    upstream::{server::connect_error::ConnectError, spec::ServerSpec},
    wire::Transport,
};

use super::{
    https::{self, Https},
    quic::{self, Quic},
};

/// An open connection, by how queries are sent on it.
pub(super) enum Carrier {
    /// Length-prefixed messages.
    Tcp(TcpStream),
    /// Length-prefixed messages over TLS.
    Tls(Box<Connected<TcpStream>>),
    /// POST requests to this URI.
    Https(Box<Https>, Uri),
    /// A stream for each query.
    Quic(Quic),
}

/// Opens a connection. The caller sets the time limit. `tls` is none for plain DNS only.
pub(super) async fn open(
    spec: &ServerSpec,
    transport: Transport,
    tls: Option<&TlsClient>,
) -> Result<Carrier, ConnectError> {
    let tls = || tls.ok_or(ConnectError::Unidentified);
    match transport {
        Transport::Udp | Transport::Tcp => Ok(Carrier::Tcp(tcp(spec).await?)),
        Transport::Tls => Ok(Carrier::Tls(Box::new(tls()?.connect(tcp(spec).await?).await?))),
        Transport::Https => {
            let name = spec.identity.as_ref().and_then(|identity| identity.name.as_deref());
            let uri = https::uri(spec.address, name, spec.path.as_deref()).ok_or(ConnectError::Http)?;
            let connected = tls()?.connect(tcp(spec).await?).await?;
            if connected.get_ref().1.alpn_protocol() != Some(Alpn::H2.id()) {
                return Err(ConnectError::Http);
            }
            Ok(Carrier::Https(Box::new(https::open(connected).await?), uri))
        }
        Transport::Quic => Ok(Carrier::Quic(quic::open(spec.address, &spec.via, tls()?).await?)),
    }
}

async fn tcp(spec: &ServerSpec) -> Result<TcpStream, ConnectError> {
    let socket = upstream_tcp(spec.address, &spec.via)?;
    Ok(TcpSocket::from_std_stream(socket.into()).connect(spec.address).await?)
}
