//! DNS over QUIC (RFC 9250), over quinn: a stream for each query, each message after its length in two octets.
//!
//! A server may open no stream, send no datagram (RFC 9221) and at most one message on a stream: quinn closes the
//! connection on the first two, and the third is no answer. What else it sends counts against the [`Allowance`] of the
//! connection, if it carries our connection id: others cannot use it up.
//!
//! Why not hickory-resolver's exchange: besides decoding each answer, it does not notice that a connection was closed
//! until the next query fails on it.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadToEndError,
    Runtime, TokioRuntime, TransportConfig, UdpPoller, VarInt,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::sync::Notify;

use crate::{
    net::socket::{Egress, upstream_udp},
    system_error::ErrorCause,
    tls::{HandshakeError, TlsClient, certificate_of},
    upstream::server::connect_error::{ConnectError, is_local},
    wire::{MAX_MESSAGE, doq},
};

use super::{
    allowance::Allowance,
    requests::{Reply, RequestError, RequestResult},
};

/// Assumed RTT until the path is measured: a lost packet of the handshake is sent again after three of these. With the
/// 333 ms of RFC 9002 6.2.2 that would be a second, longer than a query may wait.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Idle time-out of a connection. It is longer than we keep idle connections, so it only ends dead ones.
const SILENCE: Duration = Duration::from_secs(75);
/// A whole stream: the length and the longest message. A server may send no more before we have read some of it.
const LONGEST_STREAM: usize = 2 + MAX_MESSAGE;
/// After this many octets from the socket, the allowance is looked at.
const LOOK_AFTER: usize = 64 * 1024;
/// The error code for a connection whose server sends more than was asked for (RFC 9250 4.3).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

/// An open connection.
pub(super) struct Quic {
    connection: Connection,
    /// Drives its socket.
    endpoint: Endpoint,
    news: Arc<SocketNews>,
    allowance: Allowance,
}

/// Sends queries on a connection.
#[derive(Clone)]
pub(super) struct Sender {
    connection: Connection,
}

/// Opens a connection, with a socket of its own at a random port.
pub(super) async fn open(
    address: SocketAddr,
    egress: &Egress,
    tls: &TlsClient,
    allowance: Allowance,
) -> Result<Quic, ConnectError> {
    let address = egress.locate(address)?;
    let socket = upstream_udp(address, egress)?;
    let news = Arc::<SocketNews>::default();
    let socket = Arc::new(QuicSocket::new(socket, Arc::clone(&news))?);
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime)?;
    let mut config = ClientConfig::new(tls.quic());
    config.transport_config(Arc::new(transport()));
    let connecting = endpoint.connect_with(config, address, &tls.name()).map_err(|_| ConnectError::Unidentified)?;
    let connection = tokio::select! {
        connection = connecting => connection.map_err(connect_error)?,
        error = news.send_error() => return Err(error.into()),
    };
    Ok(Quic { connection, endpoint, news, allowance })
}

impl Quic {
    /// The server's own certificate, in DER.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        certificate_of(self.connection.peer_identity()?)
    }

    /// The sender of queries, a future that ends with the connection, and what must be kept alive meanwhile. The future
    /// closes a connection that cannot send, or whose server sends more than is allowed.
    pub(super) fn into_parts(self) -> (Sender, impl Future<Output = ()>, impl Sized) {
        let Self { connection, endpoint, news, allowance } = self;
        let sender = Sender { connection: connection.clone() };
        let ended = async move {
            let mut counted = 0;
            loop {
                tokio::select! {
                    _ = connection.closed() => return,
                    _ = news.send_error() => return,
                    () = news.much.notified() => {}
                }
                // Only what has our connection id: anybody can send us datagrams that look like the server's.
                let received = usize::try_from(connection.stats().udp_rx.bytes).unwrap_or(usize::MAX);
                if let Err(error) = allowance.take(received - counted) {
                    return connection.close(EXCESSIVE_LOAD, error.to_string().as_bytes());
                }
                counted = received;
            }
        };
        (sender, ended, endpoint)
    }
}

/// What quinn does not tell of its socket.
#[derive(Debug, Default)]
struct SocketNews {
    /// The last local error in sending a packet. quinn treats each as packet loss and waits until the server seems
    /// silent.
    send_error: Mutex<Option<io::Error>>,
    failed: Notify,
    /// Octets received since the last look at the allowance.
    received: AtomicUsize,
    /// Told after every [`LOOK_AFTER`] of them.
    much: Notify,
}

impl SocketNews {
    fn note_send_error(&self, error: io::Error) {
        *self.send_error.lock() = Some(error);
        self.failed.notify_one();
    }

    /// Waits for an error in sending.
    async fn send_error(&self) -> io::Error {
        loop {
            if let Some(error) = self.send_error.lock().take() {
                return error;
            }
            self.failed.notified().await;
        }
    }

    fn note_received(&self, octets: usize) {
        if self.received.fetch_add(octets, Relaxed) + octets >= LOOK_AFTER {
            self.received.store(0, Relaxed);
            self.much.notify_one();
        }
    }
}

/// A socket for quinn that reports why it cannot send, and how much it receives.
#[derive(Debug)]
struct QuicSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// A second handle of the socket, for sending.
    sender: UdpSocket,
    state: UdpSocketState,
    news: Arc<SocketNews>,
}

impl QuicSocket {
    fn new(socket: UdpSocket, news: Arc<SocketNews>) -> io::Result<Self> {
        let sender = socket.try_clone()?;
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let state = UdpSocketState::new((&sender).into())?;
        Ok(Self { inner, sender, state, news })
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
                    self.news.note_send_error(error);
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
        let datagrams = ready!(self.inner.poll_recv(context, buffers, meta))?;
        self.news.note_received(meta[..datagrams].iter().map(|datagram| datagram.len).sum());
        Poll::Ready(Ok(datagrams))
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
    // A server has no reason to open streams or to send datagrams.
    config.max_concurrent_bidi_streams(VarInt::from_u32(0)).max_concurrent_uni_streams(VarInt::from_u32(0));
    let window = u32::try_from(LONGEST_STREAM).unwrap_or(u32::MAX);
    config.datagram_receive_buffer_size(None).stream_receive_window(window.into());
    config.initial_rtt(FIRST_RTT).max_idle_timeout(IdleTimeout::try_from(SILENCE).ok());
    config
}

fn connect_error(error: ConnectionError) -> ConnectError {
    match error {
        ConnectionError::TransportError(error) => HandshakeError::of_quic(u64::from(error.code), error.reason).into(),
        ConnectionError::ConnectionClosed(close) => HandshakeError::refused_in_quic(u64::from(close.error_code)).into(),
        ConnectionError::TimedOut => ConnectError::Slow,
        ConnectionError::VersionMismatch => {
            ConnectError::Handshake(HandshakeError::Io(ErrorCause::Kind(io::ErrorKind::Unsupported)))
        }
        _ => ConnectError::Network(ErrorCause::Kind(io::ErrorKind::ConnectionReset)),
    }
}

/// Sends one query and waits for the response.
pub(super) async fn ask(sender: Sender, query: Vec<u8>) -> RequestResult {
    let (mut sender, mut receiver) = sender.connection.open_bi().await.map_err(|_| RequestError::Closed)?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    sender.write_all(&[&length[..], &query].concat()).await.map_err(|_| RequestError::Closed)?;
    // The end of the stream is the end of the query (RFC 9250 4.2).
    sender.finish().map_err(|_| RequestError::Closed)?;
    let framed = match receiver.read_to_end(LONGEST_STREAM).await {
        Ok(framed) => framed,
        Err(ReadToEndError::TooLong) => Vec::new(),
        Err(ReadToEndError::Read(_)) => return Err(RequestError::Closed),
    };
    // Something that is not a framed message is passed on too: the check of answers counts it.
    Ok(Reply { message: doq::read_response(&framed).unwrap_or_default().to_vec(), age: 0 })
}
