//! DNS over QUIC (RFC 9250), over quinn: a stream for each query, each message after its length in two octets.
//!
//! Why not hickory-resolver's exchange: besides decoding each answer, it does not notice that a connection was closed
//! until the next query fails on it.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Runtime,
    TokioRuntime, TransportConfig, UdpPoller, VarInt,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::sync::Notify;

use crate::{
    net::socket::{Egress, upstream_udp},
    tls::{HandshakeError, TlsClient},
    upstream::server::connect_error::{ConnectError, is_local},
    wire::MAX_MESSAGE,
};

use super::requests::{Reply, RequestError, RequestResult};

/// Assumed RTT until the path is measured: a lost packet of the handshake is sent again after three of these. With the
/// 333 ms of RFC 9002 6.2.2 that would be a second, longer than a query may wait.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Idle time-out of a connection. It is longer than we keep idle connections, so it only ends dead ones.
const SILENCE: Duration = Duration::from_secs(75);

/// An open connection.
pub(super) struct Quic {
    pub(super) connection: Connection,
    /// Drives its socket.
    pub(super) endpoint: Endpoint,
    /// The error that stops it from sending, once there is one.
    pub(super) send_errors: Arc<SendErrors>,
}

/// Opens a connection, with a socket of its own at a random port.
pub(super) async fn open(address: SocketAddr, egress: &Egress, tls: &TlsClient) -> Result<Quic, ConnectError> {
    let address = egress.locate(address)?;
    let socket = upstream_udp(address, egress)?;
    let send_errors = Arc::<SendErrors>::default();
    let socket = Arc::new(QuicSocket::new(socket, Arc::clone(&send_errors))?);
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime)?;
    let mut config = ClientConfig::new(tls.quic());
    config.transport_config(Arc::new(transport()));
    let connecting = endpoint.connect_with(config, address, &tls.name()).map_err(|_| ConnectError::Unidentified)?;
    let connection = tokio::select! {
        connection = connecting => connection.map_err(connect_error)?,
        error = send_errors.next() => return Err(error.into()),
    };
    Ok(Quic { connection, endpoint, send_errors })
}

/// The last local error in sending a packet. quinn treats each as packet loss and waits until the server seems silent.
#[derive(Debug, Default)]
pub(super) struct SendErrors {
    last: Mutex<Option<io::Error>>,
    news: Notify,
}

impl SendErrors {
    fn note(&self, error: io::Error) {
        *self.last.lock() = Some(error);
        self.news.notify_one();
    }

    /// Waits for an error.
    pub(super) async fn next(&self) -> io::Error {
        loop {
            if let Some(error) = self.last.lock().take() {
                return error;
            }
            self.news.notified().await;
        }
    }
}

/// A socket for quinn that reports why it cannot send.
#[derive(Debug)]
struct QuicSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// A second handle of the socket, for sending.
    sender: UdpSocket,
    state: UdpSocketState,
    send_errors: Arc<SendErrors>,
}

impl QuicSocket {
    fn new(socket: UdpSocket, send_errors: Arc<SendErrors>) -> io::Result<Self> {
        let sender = socket.try_clone()?;
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let state = UdpSocketState::new((&sender).into())?;
        Ok(Self { inner, sender, state, send_errors })
    }
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.sender).into(), transmit) {
            // Try again through the registered socket, so that the poller waits for room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.inner.try_send(transmit),
            Err(error) => {
                if is_local(&error) {
                    self.send_errors.note(error);
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    // A server has no reason to open streams.
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

/// Sends one query and waits for the response.
pub(super) async fn ask(connection: Connection, query: Vec<u8>) -> RequestResult {
    let (mut sender, mut receiver) = connection.open_bi().await.map_err(|_| RequestError::Closed)?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    sender.write_all(&[&length[..], &query].concat()).await.map_err(|_| RequestError::Closed)?;
    // The end of the stream is the end of the query (RFC 9250 4.2).
    sender.finish().map_err(|_| RequestError::Closed)?;
    let framed = receiver.read_to_end(2 + MAX_MESSAGE).await.map_err(|_| RequestError::Closed)?;
    let whole =
        framed.split_first_chunk::<2>().filter(|(head, rest)| rest.len() == usize::from(u16::from_be_bytes(**head)));
    // Something that is not a framed message is passed on too: the check of answers counts it.
    Ok(Reply { message: whole.map_or_else(Vec::new, |(_, message)| message.to_vec()), age: 0 })
}
