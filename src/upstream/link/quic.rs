//! DNS over QUIC (RFC 9250), over quinn: a stream for each query, two octets of length before each message.
//!
//! Not hickory-resolver's exchange: besides decoding each answer, it does not see that a connection was closed until the
//! next query fails on it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig,
    VarInt,
};

use crate::{
    net::socket::{Egress, upstream_udp},
    tls::{HandshakeError, TlsClient},
    upstream::server::connect_error::ConnectError,
    wire::MAX_MESSAGE,
};

use super::requests::{Reply, RequestError, RequestResult};

/// Until the path is measured a lost packet of the handshake is sent again after three of these. With the 333 ms of
/// RFC 9002 6.2.2 that is a second, and a query's time is over.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Longer than we keep an idle connection: what ends here is dead.
const SILENCE: Duration = Duration::from_secs(75);

/// An open connection.
pub(super) struct Quic {
    pub(super) connection: Connection,
    /// Drives its socket.
    pub(super) endpoint: Endpoint,
}

/// Shakes hands over a socket of its own, at a random port.
pub(super) async fn open(address: SocketAddr, egress: &Egress, tls: &TlsClient) -> Result<Quic, ConnectError> {
    let socket = upstream_udp(address, egress)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    let mut config = ClientConfig::new(tls.quic());
    config.transport_config(Arc::new(transport()));
    let connecting = endpoint.connect_with(config, address, &tls.name()).map_err(|_| ConnectError::Unidentified)?;
    let connection = connecting.await.map_err(connect_error)?;
    Ok(Quic { connection, endpoint })
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    // A server has nothing to ask.
    config.max_concurrent_bidi_streams(VarInt::from_u32(0)).max_concurrent_uni_streams(VarInt::from_u32(0));
    config.initial_rtt(FIRST_RTT).max_idle_timeout(IdleTimeout::try_from(SILENCE).ok());
    config
}

fn connect_error(error: ConnectionError) -> ConnectError {
    match error {
        ConnectionError::TransportError(error) => HandshakeError::of_quic(u64::from(error.code), error.reason).into(),
        ConnectionError::ConnectionClosed(close) => HandshakeError::refused_in_quic(u64::from(close.error_code)).into(),
        ConnectionError::TimedOut => ConnectError::Slow,
        ConnectionError::VersionMismatch => ConnectError::Handshake(HandshakeError::Io(io::ErrorKind::Unsupported)),
        _ => ConnectError::Network(io::ErrorKind::ConnectionReset),
    }
}

/// Asks one query.
pub(super) async fn ask(connection: Connection, query: Vec<u8>) -> RequestResult {
    let (mut sender, mut receiver) = connection.open_bi().await.map_err(|_| RequestError::Closed)?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    sender.write_all(&[&length[..], &query].concat()).await.map_err(|_| RequestError::Closed)?;
    // The end of the stream is the end of the query (RFC 9250 4.2).
    sender.finish().map_err(|_| RequestError::Closed)?;
    let framed = receiver.read_to_end(2 + MAX_MESSAGE).await.map_err(|_| RequestError::Closed)?;
    let whole =
        framed.split_first_chunk::<2>().filter(|(head, rest)| rest.len() == usize::from(u16::from_be_bytes(**head)));
    // What is no framed message is shown to the check of answers, which counts it.
    Ok(Reply { message: whole.map_or_else(Vec::new, |(_, message)| message.to_vec()), age: 0 })
}
