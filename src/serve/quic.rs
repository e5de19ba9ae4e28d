//! DNS over QUIC (RFC 9250), by quinn: a stream for each query, two octets of length before each message.
//!
//! Policy:
//! - The number of streams is limited to queries in flight (`pipeline`), with no unidirectional ones; windows are no
//!   larger than these need. A connection without traffic for `tcp_idle` ends; an evicted one is told so.
//! - Responses that a client does not read, and queries that it does not finish, are counted with those of other
//!   connections (`connections`): a connection with too many gets no further ones until it has read some, and a stream
//!   that finds no room is reset.
//! - Protocol errors end the connection (4.3.3): an id other than 0, not exactly one message on a stream, or the
//!   edns-tcp-keepalive option.
//! - Early data is not accepted. Once half of the places for connections are taken, clients must prove their address
//!   first (Retry, RFC 9000 8.1.2).
//!
//! Each worker has an endpoint of its own, and the kernel chooses it by addresses and ports. So a client whose address
//! changes must connect again. `succession` says how connections end when the sockets go to another process.

mod succession;

use std::{
    cell::{Cell, RefCell},
    io,
    net::UdpSocket,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use quinn::{
    Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tracing::debug;

use self::succession::{SharedSocket, endpoint_config};
use super::{
    accept::ConnectionLimits,
    connections::{Admission, Connections, MAX_UNSENT},
    lifetime::{ListenerLife, Predecessor},
};
use crate::{
    clock::Moment,
    engine::{ClientChannel, Context},
    metrics::DropReason,
    tls,
    wire::{MAX_MESSAGE, Transport, doq},
};

/// Error codes for connections and streams (RFC 9250 4.3).
const NO_ERROR: VarInt = VarInt::from_u32(0);
const INTERNAL_ERROR: VarInt = VarInt::from_u32(1);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);
/// A whole stream: the length and the longest message.
const LONGEST_STREAM: usize = 2 + MAX_MESSAGE;
/// How long a client may take to acknowledge a response before its connection is closed.
const DELIVERY: Duration = Duration::from_secs(1);
/// Octets that may be in flight to one client.
const SEND_WINDOW: u64 = 256 * 1024;
/// Octets that may be in flight from one client.
const RECEIVE_WINDOW: u32 = 128 * 1024;

/// What all endpoints of one address have in common.
#[derive(Debug, Clone)]
pub struct QuicServer {
    /// The handshake.
    pub tls: tls::TlsServer,
    /// The key of stateless resets.
    pub reset_key: Arc<tls::ResetKey>,
    /// Makes the connection ids of this process recognizable: random, and the same for all its workers.
    pub id_key: u64,
}

/// Serves a socket until the worker ends.
///
/// # Errors
/// The socket cannot be used, or the TLS configuration does not suit QUIC.
pub async fn serve(
    socket: UdpSocket,
    server: QuicServer,
    context: Rc<Context>,
    connections: Arc<Connections>,
    limits: ConnectionLimits,
    mut lifetime: ListenerLife,
) -> io::Result<()> {
    let mut config = ServerConfig::with_crypto(server.tls.quic()?);
    config.transport_config(Arc::new(transport(limits))).migration(false);
    tokio::select! {
        _ = lifetime.predecessor.wait_for(|before| *before != Predecessor::Reads) => {}
        _ = lifetime.stop.wait_for(|stopping| *stopping) => return Ok(()),
    }
    let socket = SharedSocket::new(socket, lifetime.clone())?;
    let endpoint_config = endpoint_config(&server, &lifetime);
    let endpoint = Endpoint::new_with_abstract_socket(endpoint_config, Some(config), socket, Arc::new(TokioRuntime))?;
    let mut clients = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(_) = clients.join_next() => continue,
            _ = lifetime.stop.wait_for(|stopping| *stopping) => break,
        };
        let Some(incoming) = incoming else { return Err(io::Error::other("the QUIC endpoint ended")) };
        if !incoming.remote_address_validated() && connections.is_crowded() {
            // A forged address never comes back.
            drop(incoming.retry());
            continue;
        }
        let client = incoming.remote_address().ip();
        let Some(admission) = connections.admit(client, Transport::Quic, Moment::now()) else {
            incoming.refuse();
            continue;
        };
        clients.spawn_local(run(incoming, admission, Rc::clone(&context), limits, lifetime.clone()));
    }
    // Queries that were read are answered first.
    let is_outlived = lifetime.is_outlived();
    loop {
        tokio::select! {
            ended = clients.join_next() => if ended.is_none() { break },
            Some(incoming) = endpoint.accept() => {
                // A client that hears nothing sends again, and another process reads it.
                if is_outlived { incoming.ignore() } else { incoming.refuse() }
            }
            _ = lifetime.cut.wait_for(|cut| *cut) => break,
        }
    }
    endpoint.close(NO_ERROR, b"");
    if is_outlived {
        // Lets every connection send its close.
        tokio::task::yield_now().await;
    } else {
        endpoint.wait_idle().await;
    }
    Ok(())
}

fn transport(limits: ConnectionLimits) -> TransportConfig {
    let mut config = TransportConfig::default();
    let streams = u32::try_from(limits.pipeline).unwrap_or(u32::MAX);
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(RECEIVE_WINDOW.into())
        .stream_receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(limits.idle.try_into().ok());
    config
}

async fn run(
    incoming: Incoming,
    admission: Admission,
    context: Rc<Context>,
    limits: ConnectionLimits,
    mut lifetime: ListenerLife,
) {
    let shaking = async { timeout(limits.idle, incoming.into_future()).await };
    let connection = tokio::select! {
        shaken = shaking => match shaken {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return debug!(%error, "a QUIC handshake failed"),
            Err(_) => return debug!("a QUIC handshake took too long"),
        },
        () = admission.evicted() => return,
        _ = lifetime.stop.wait_for(|stopping| *stopping) => return,
    };
    let eviction = admission.eviction();
    let client = Rc::new(Client {
        context,
        connection,
        waiting: Cell::new(0),
        unfinished: Cell::new(0),
        unsent: Cell::new(0),
        sent: Notify::new(),
        admission: RefCell::new(admission),
        limits,
        lifetime: lifetime.clone(),
    });
    let mut queries = JoinSet::new();
    let code = loop {
        tokio::select! {
            accepted = client.connection.accept_bi() => match accepted {
                Ok((sender, receiver)) => drop(queries.spawn_local(Rc::clone(&client).answer(sender, receiver))),
                // The client closed it, or it was silent for too long.
                Err(_) => return,
            },
            Some(_) = queries.join_next() => {}
            () = eviction.told() => break EXCESSIVE_LOAD,
            _ = lifetime.stop.wait_for(|stopping| *stopping) => break NO_ERROR,
        }
    };
    if code == NO_ERROR {
        // What was read before the stop is answered.
        let arrived = std::iter::from_fn(|| client.connection.accept_bi().now_or_never()?.ok());
        for (sender, receiver) in arrived.take(limits.pipeline) {
            queries.spawn_local(Rc::clone(&client).answer(sender, receiver));
        }
    }
    while queries.join_next().await.is_some() {}
    // Closing drops what is not sent yet.
    tokio::task::yield_now().await;
    client.connection.close(code, b"");
}

/// One client's connection.
struct Client {
    context: Rc<Context>,
    connection: Connection,
    /// Queries that wait for their answers.
    waiting: Cell<usize>,
    /// Octets of queries that are not whole yet.
    unfinished: Cell<usize>,
    /// Octets of responses that are not sent yet.
    unsent: Cell<usize>,
    /// Told when some were sent.
    sent: Notify,
    admission: RefCell<Admission>,
    limits: ConnectionLimits,
    lifetime: ListenerLife,
}

impl Client {
    /// Counts what is held for the connection. Returns false and changes nothing if that exceeds a limit.
    fn hold(&self, unsent: usize, unfinished: usize) -> bool {
        let fits = self.admission.borrow_mut().hold(unsent + unfinished);
        if fits {
            self.unsent.set(unsent);
            self.unfinished.set(unfinished);
        }
        fits
    }

    async fn answer(self: Rc<Self>, mut sender: SendStream, mut receiver: RecvStream) {
        let mut stop = self.lifetime.stop.clone();
        let mut unfinished = Unfinished { client: &self, octets: Vec::new() };
        let read = tokio::select! {
            biased;
            read = timeout(self.limits.idle, unfinished.read(&mut receiver)) => read,
            _ = stop.wait_for(|stopping| *stopping) => return,
        };
        match read {
            Ok(Ok(())) => {}
            Ok(Err(Unread::TooLong)) => return self.connection.close(PROTOCOL_ERROR, b"too long"),
            Ok(Err(Unread::GivenUp)) => return,
            Ok(Err(Unread::NoRoom)) | Err(_) => {
                self.context.counters.dropped(DropReason::Overload);
                drop(sender.reset(EXCESSIVE_LOAD));
                return drop(receiver.stop(EXCESSIVE_LOAD));
            }
        }
        let message = match doq::read_query(&unfinished.octets) {
            Ok(message) => message,
            Err(error) => return self.connection.close(PROTOCOL_ERROR, error.to_string().as_bytes()),
        };
        while self.unsent.get() >= MAX_UNSENT {
            self.sent.notified().await;
        }
        self.waiting.set(self.waiting.get() + 1);
        self.admission.borrow().mark_busy();
        let carrier = ClientChannel::stream(Transport::Quic, self.limits.idle);
        let address = self.connection.remote_address().ip();
        let response = super::answer(&self.context, message, address, carrier).await;
        drop(unfinished);
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0 {
            self.admission.borrow().mark_idle(Moment::now());
        }
        let Some(response) = response else { return drop(sender.reset(INTERNAL_ERROR)) };
        let Some(_unsent) = Unsent::new(&self, 2 + response.len()) else {
            self.context.counters.dropped(DropReason::Overload);
            return drop(sender.reset(EXCESSIVE_LOAD));
        };
        let length = u16::try_from(response.len()).unwrap_or(u16::MAX).to_be_bytes();
        let sending = async {
            sender.write_all(&[&length[..], &response].concat()).await?;
            sender.finish().map_err(io::Error::from)?;
            if *self.lifetime.stop.borrow() && !self.lifetime.is_outlived() {
                // The connection closes after this, which drops what has not arrived.
                drop(timeout(DELIVERY, sender.stopped()).await);
            }
            Ok::<(), io::Error>(())
        };
        // A client that does not read holds its own streams only.
        if timeout(self.limits.idle, sending).await.is_err() {
            self.context.counters.dropped(DropReason::Overload);
            drop(sender.reset(EXCESSIVE_LOAD));
        }
    }
}

/// Why a stream was not read to its end.
enum Unread {
    TooLong,
    /// The client gave it up.
    GivenUp,
    /// The client's share of memory is used up.
    NoRoom,
}

/// A query that is read, and counted until it is answered.
struct Unfinished<'a> {
    client: &'a Client,
    octets: Vec<u8>,
}

impl Unfinished<'_> {
    async fn read(&mut self, receiver: &mut RecvStream) -> Result<(), Unread> {
        while let Some(chunk) = receiver.read_chunk(LONGEST_STREAM, true).await.map_err(|_| Unread::GivenUp)? {
            if self.octets.len() + chunk.bytes.len() > LONGEST_STREAM {
                return Err(Unread::TooLong);
            }
            if !self.client.hold(self.client.unsent.get(), self.client.unfinished.get() + chunk.bytes.len()) {
                return Err(Unread::NoRoom);
            }
            self.octets.extend_from_slice(&chunk.bytes);
        }
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.client.hold(self.client.unsent.get(), self.client.unfinished.get() - self.octets.len());
    }
}

/// A response that is not sent yet.
struct Unsent<'a> {
    client: &'a Client,
    octets: usize,
}

impl<'a> Unsent<'a> {
    /// None if the client's share of memory is used up.
    fn new(client: &'a Client, octets: usize) -> Option<Self> {
        let fits = client.hold(client.unsent.get() + octets, client.unfinished.get());
        fits.then_some(Self { client, octets })
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.client.hold(self.client.unsent.get() - self.octets, self.client.unfinished.get());
        self.client.sent.notify_waiters();
    }
}
