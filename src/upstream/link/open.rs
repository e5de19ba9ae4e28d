//! Opens connections to servers: the socket, its path out of this host, and the handshake.
//!
//! `tidegate query` sends its one query on such a connection; `stream` keeps connections for forwarding.

use std::{io, pin::pin};

use hyper::Uri;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{
    allowance::{Allowance, Metered},
    https::{self, Https},
    quic::{self, Quic},
    requests::{RequestError, RequestResult},
};
use crate::{
    net::socket::upstream_tcp,
    system_error::ErrorCause,
    tls::{Alpn, Connected, TlsClient},
    upstream::{
        server::{connect_error::ConnectError, tls_client},
        spec::ServerSpec,
    },
    wire::Transport,
};

/// An open connection, by how queries are sent on it.
pub(super) enum Carrier {
    /// Length-prefixed messages.
    Tcp(TcpStream),
    /// Length-prefixed messages over TLS.
    Tls(Box<Connected<Metered<TcpStream>>>),
    /// POST requests to this URI.
    Https(Box<Https>, Uri),
    /// A stream for each query.
    Quic(Quic),
}

/// Opens a connection. The caller sets the time limit, and adds each query to the allowance. `tls` is none for plain DNS
/// only, where messages alone count.
pub(super) async fn open(
    spec: &ServerSpec,
    transport: Transport,
    tls: Option<&TlsClient>,
    allowance: &Allowance,
) -> Result<Carrier, ConnectError> {
    let tls = || tls.ok_or(ConnectError::Unidentified);
    let metered = async || Ok::<_, ConnectError>(Metered::new(tcp(spec).await?, allowance.clone()));
    match transport {
        Transport::Udp | Transport::Tcp => Ok(Carrier::Tcp(tcp(spec).await?)),
        Transport::Tls => Ok(Carrier::Tls(Box::new(tls()?.connect(metered().await?).await?))),
        Transport::Https => {
            let name = spec.identity.as_ref().and_then(|identity| identity.name.as_deref());
            let uri = https::uri(spec.address, name, spec.path.as_deref()).ok_or(ConnectError::Http)?;
            let connected = tls()?.connect(metered().await?).await?;
            if connected.get_ref().1.alpn_protocol() != Some(Alpn::H2.id()) {
                return Err(ConnectError::Http);
            }
            Ok(Carrier::Https(Box::new(https::open(connected).await?), uri))
        }
        Transport::Quic => Ok(Carrier::Quic(quic::open(spec.address, &spec.via, tls()?, allowance.clone()).await?)),
    }
}

async fn tcp(spec: &ServerSpec) -> Result<TcpStream, ConnectError> {
    let peer = spec.via.locate(spec.address)?;
    let socket = upstream_tcp(peer, &spec.via)?;
    Ok(TcpSocket::from_std_stream(socket.into()).connect(peer).await?)
}

/// Asks a server over its transport (TCP if that is UDP) and returns the message that came back. The query's id should
/// be 0, as HTTPS and QUIC require. The caller sets the time limit and checks the message.
///
/// # Errors
/// The connection failed, or no answer came on it.
pub async fn ask_once(spec: &ServerSpec, query: &[u8]) -> Result<Vec<u8>, ConnectError> {
    let client = tls_client(spec);
    let allowance = Allowance::default();
    allowance.add_query();
    match open(spec, spec.transport, client.as_ref(), &allowance).await? {
        Carrier::Tcp(io) => over(io, query).await,
        Carrier::Tls(io) => over(io, query).await,
        Carrier::Https(https, uri) => {
            let (sender, driver, _kept) = https.into_parts();
            let mut asking = pin!(https::ask(sender, uri, query.to_vec()));
            message(tokio::select! {
                ended = &mut asking => ended,
                // The connection may end right after its last answer.
                () = driver => asking.await,
            })
        }
        Carrier::Quic(quic) => {
            let (sender, _closed, _kept) = quic.into_parts();
            message(quic::ask(sender, query.to_vec()).await)
        }
    }
}

/// Opens a QUIC connection and returns the server's certificate, in DER; none if there is no connection. The caller sets
/// the time limit.
pub async fn quic_certificate(spec: &ServerSpec) -> Option<Vec<u8>> {
    let allowance = Allowance::default();
    quic::open(spec.address, &spec.via, &tls_client(spec)?, allowance).await.ok()?.certificate()
}

fn message(ended: RequestResult) -> Result<Vec<u8>, ConnectError> {
    match ended {
        Ok(reply) => Ok(reply.message),
        Err(RequestError::Refused(error)) => Err(error),
        Err(RequestError::Closed) => Err(ConnectError::Network(ErrorCause::Kind(io::ErrorKind::ConnectionReset))),
        Err(RequestError::Late) => Err(ConnectError::Slow),
    }
}

async fn over<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, query: &[u8]) -> Result<Vec<u8>, ConnectError> {
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    io.write_all(&[&length[..], query].concat()).await?;
    io.flush().await?;
    let mut message = vec![0; usize::from(io.read_u16().await?)];
    io.read_exact(&mut message).await?;
    Ok(message)
}
