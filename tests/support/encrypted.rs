//! A scripted DNS server over an encrypted transport.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use hickory_proto::op::Message;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex as Turns, Notify, oneshot},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    authority::Certificate,
    records::{Fault, Reply},
    upstream::frame,
};

/// Transport of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Tls,
    /// HTTP/2.
    Https,
    Quic,
}

/// Behaviour of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers with [`address_of`] the name.
    Answers,
    /// Answers a different name, with 10.0.0.66.
    AnswersAnother,
    /// Answers, and then closes the connection.
    OneEach,
    /// Waits for this many queries and answers them in reverse order.
    Backwards(usize),
    /// Reads queries and answers none.
    Silent,
    /// HTTP and QUIC: resets each stream.
    Resets,
    /// HTTP only: never answers the query, and sends GOAWAY.
    Leaves,
    /// Completes the handshake, and never reads.
    Deaf,
    /// Accepts connections and sends nothing, not even in the handshake.
    Mute,
    /// HTTP only: responds with this status and no answer.
    Status(u16),
    /// HTTP only: answers with this `Age`, in seconds.
    Aged(u32),
    /// TLS and HTTP: sends so many session tickets after the handshake, and then answers. To be set from the beginning.
    Tickets(usize),
}

/// The address that the server gives for a name: 10.0.0.1, and 10.0.1.N for one that begins with "nN.".
pub fn address_of(name: &str) -> String {
    let number = name.strip_prefix('n').and_then(|rest| rest.split('.').next()).and_then(|n| n.parse::<u8>().ok());
    number.map_or_else(|| "10.0.0.1".to_owned(), |number| format!("10.0.1.{number}"))
}

/// The server. Dropping it stops it.
pub struct Encrypted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    manner: Mutex<Manner>,
    connections: AtomicUsize,
    resumed: Arc<AtomicUsize>,
    failed: AtomicUsize,
    queries: AtomicUsize,
    last_query: Mutex<Vec<u8>>,
    greetings: Mutex<Vec<Greeting>>,
    /// Queries waiting for their turn in [`Manner::Backwards`].
    answered: AtomicUsize,
    arrived: AtomicUsize,
    changed: Notify,
}

/// What a client offered in its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub from: IpAddr,
}

impl Encrypted {
    pub fn start(speaks: Speaks, certificate: &Certificate, manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), speaks, certificate, manner)
    }

    /// Like [`Self::start`], on an address of the test's choice; port 0 is any free one.
    pub fn start_at(address: SocketAddr, speaks: Speaks, certificate: &Certificate, manner: Manner) -> Self {
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            connections: AtomicUsize::new(0),
            resumed: Arc::default(),
            failed: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            last_query: Mutex::default(),
            greetings: Mutex::default(),
            answered: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let (place, placed) = std::sync::mpsc::channel();
        let certificate = certificate.clone();
        let in_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let serving = async {
                let place = |address| place.send(address).expect("the test waits for it");
                tokio::select! {
                    () = serve(address, speaks, &certificate, in_thread, place) => {}
                    _ = stopped => {}
                }
            };
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default());
            runtime.expect("a runtime").block_on(serving);
        });
        let address = placed.recv().expect("the server starts");
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Sets the behaviour from the next query on.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no holder panics") = manner;
    }

    /// Connections whose handshake has finished.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Connections that resumed a session.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(SeqCst)
    }

    /// Handshakes that failed.
    pub fn failed_handshakes(&self) -> usize {
        self.shared.failed.load(SeqCst)
    }

    pub fn queries(&self) -> usize {
        self.shared.queries.load(SeqCst)
    }

    /// The last query, without its framing.
    pub fn last_query(&self) -> Vec<u8> {
        self.shared.last_query.lock().expect("no holder panics").clone()
    }

    /// What the clients offered in their handshakes.
    pub fn greetings(&self) -> Vec<Greeting> {
        self.shared.greetings.lock().expect("no holder panics").clone()
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has failed its test already.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn manner(&self) -> Manner {
        *self.manner.lock().expect("no holder panics")
    }

    fn greeted(&self, name: Option<&str>, protocol: Option<&[u8]>, from: SocketAddr) {
        let protocol = protocol.map(|id| String::from_utf8_lossy(id).into_owned());
        let greeting = Greeting { name: name.map(str::to_owned), protocol, from: from.ip() };
        self.greetings.lock().expect("no holder panics").push(greeting);
        self.connections.fetch_add(1, SeqCst);
    }

    /// The answer once its turn comes; none to stay silent.
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.queries.fetch_add(1, SeqCst);
        query.clone_into(&mut self.last_query.lock().expect("no holder panics"));
        let message = Message::from_vec(query).ok()?;
        let name = message.queries.first()?.name().to_ascii();
        let end = 12 + query[12..].iter().position(|&octet| octet == 0)? + 5;
        let mut reply = Reply::a(&address_of(&name));
        match self.manner() {
            Manner::Answers | Manner::OneEach | Manner::Aged(_) | Manner::Tickets(_) => {}
            Manner::AnswersAnother => {
                reply = Reply::a("10.0.0.66").but(Fault::WrongQuestion("another.example.".to_owned()));
            }
            Manner::Backwards(count) => self.wait_for_turn(count).await,
            Manner::Deaf | Manner::Mute | Manner::Silent | Manner::Resets | Manner::Leaves | Manner::Status(_) => {
                return None;
            }
        }
        Some(padded(reply.bytes(query, end, usize::from(u16::MAX))))
    }

    async fn wait_for_turn(&self, count: usize) {
        let place = self.arrived.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
        let is_my_turn =
            || self.arrived.load(SeqCst) >= count && self.answered.load(SeqCst) == count.saturating_sub(1 + place);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_my_turn() {
                break;
            }
            changed.await;
        }
        self.answered.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
    }
}

/// Fills the option-less OPT record at a reply's end to a multiple of 468 octets, as RFC 8467 4.1 asks of servers.
fn padded(mut reply: Vec<u8>) -> Vec<u8> {
    if !reply.ends_with(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]) {
        return reply;
    }
    let padding = (reply.len() + 4).next_multiple_of(468) - reply.len() - 4;
    let length = |octets: usize| u16::try_from(octets).expect("a short option").to_be_bytes();
    reply.truncate(reply.len() - 2);
    reply.extend([length(4 + padding), [0, 12], length(padding)].concat());
    reply.resize(reply.len() + padding, 0);
    reply
}

async fn serve(
    address: SocketAddr,
    speaks: Speaks,
    certificate: &Certificate,
    shared: Arc<Shared>,
    place: impl FnOnce(SocketAddr),
) {
    let resumed = Arc::clone(&shared.resumed);
    let alpn: &[u8] = match speaks {
        Speaks::Tls => b"dot",
        Speaks::Https => b"h2",
        Speaks::Quic => return serve_quic(address, certificate.server(b"doq", resumed), shared, place).await,
    };
    let mut config = Arc::unwrap_or_clone(certificate.server(alpn, resumed));
    if let Manner::Tickets(tickets) = shared.manner() {
        config.send_tls13_tickets = tickets;
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.expect("a free port");
    place(listener.local_addr().expect("it is bound"));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            let Some(tls) = shake_hands(stream, acceptor, &shared).await else { return };
            match speaks {
                Speaks::Https => serve_https(tls, shared).await,
                _ => serve_framed(tls, shared).await,
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> Option<TlsStream<TcpStream>> {
    if shared.manner() == Manner::Mute {
        return std::future::pending().await;
    }
    let Ok(tls) = acceptor.accept(stream).await else {
        shared.failed.fetch_add(1, SeqCst);
        return None;
    };
    let (stream, connection) = tls.get_ref();
    let from = stream.peer_addr().expect("it is connected");
    shared.greeted(connection.server_name(), connection.alpn_protocol(), from);
    if shared.manner() == Manner::Deaf {
        return std::future::pending().await;
    }
    Some(tls)
}

async fn serve_framed(tls: TlsStream<TcpStream>, shared: Arc<Shared>) {
    let (mut reader, writer) = tokio::io::split(tls);
    let writer = Rc::new(Turns::new(writer));
    loop {
        let Ok(length) = reader.read_u16().await else { return };
        let mut query = vec![0; usize::from(length)];
        if reader.read_exact(&mut query).await.is_err() {
            return;
        }
        if shared.manner() == Manner::Deaf {
            return std::future::pending().await;
        }
        let (shared, writer) = (Arc::clone(&shared), Rc::clone(&writer));
        tokio::task::spawn_local(async move {
            let Some(reply) = shared.answer(&query).await else { return };
            let mut writer = writer.lock().await;
            let _ = writer.write_all(&frame(&reply)).await;
            let _ = writer.flush().await;
            if shared.manner() == Manner::OneEach {
                let _ = writer.shutdown().await;
            }
        });
    }
}

#[derive(Clone)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

async fn serve_https(tls: TlsStream<TcpStream>, shared: Arc<Shared>) {
    let has_answered = Rc::new(Notify::new());
    let service = {
        let (shared, has_answered) = (Arc::clone(&shared), Rc::clone(&has_answered));
        hyper::service::service_fn(move |request| {
            let (shared, has_answered) = (Arc::clone(&shared), Rc::clone(&has_answered));
            async move {
                if matches!(shared.manner(), Manner::Deaf | Manner::Leaves) {
                    has_answered.notify_one();
                }
                if shared.manner() == Manner::Resets {
                    return Err(std::io::Error::other("given up"));
                }
                let response = post(request, &shared).await;
                has_answered.notify_one();
                Ok(response)
            }
        })
    };
    let mut connection =
        std::pin::pin!(hyper::server::conn::http2::Builder::new(Local).serve_connection(TokioIo::new(tls), service));
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = has_answered.notified() => match shared.manner() {
                Manner::OneEach | Manner::Leaves => connection.as_mut().graceful_shutdown(),
                Manner::Deaf => return std::future::pending().await,
                _ => {}
            },
        }
    }
}

async fn post(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let status = |code| Response::builder().status(code).body(Full::default()).expect("a status");
    let kind =
        |name| request.headers().get(name).and_then(|kind| kind.to_str().ok()) == Some("application/dns-message");
    if request.method() != "POST" || request.uri().path() != "/dns-query" || !kind("content-type") || !kind("accept") {
        return status(400);
    }
    let query = request.into_body().collect().await.expect("a whole body").to_bytes();
    if query[..2] != [0, 0] {
        return status(400);
    }
    if let Manner::Status(code) = shared.manner() {
        return status(code);
    }
    let Some(reply) = shared.answer(&query).await else { return std::future::pending().await };
    let response = Response::builder().header("content-type", "application/dns-message");
    let response = match shared.manner() {
        Manner::Aged(seconds) => response.header("age", seconds),
        _ => response,
    };
    response.body(Full::new(Bytes::from(reply))).expect("headers that are fine")
}

async fn serve_quic(
    address: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    place: impl FnOnce(SocketAddr),
) {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).expect("TLS 1.3");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, address).expect("a free port");
    place(endpoint.local_addr().expect("it is bound"));
    let mut ignored = Vec::new();
    while let Some(incoming) = endpoint.accept().await {
        if shared.manner() == Manner::Mute {
            ignored.push(incoming);
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let Ok(connection) = incoming.await else {
                shared.failed.fetch_add(1, SeqCst);
                return;
            };
            let greeting = connection.handshake_data().expect("the handshake is over");
            let greeting = greeting.downcast::<quinn::crypto::rustls::HandshakeData>().expect("it is TLS");
            let from = connection.remote_address();
            shared.greeted(greeting.server_name.as_deref(), greeting.protocol.as_deref(), from);
            while let Ok((sender, receiver)) = connection.accept_bi().await {
                if shared.manner() == Manner::Deaf {
                    return std::future::pending().await;
                }
                tokio::task::spawn_local(answer_stream(connection.clone(), sender, receiver, Arc::clone(&shared)));
            }
        });
    }
}

async fn answer_stream(
    connection: quinn::Connection,
    mut sender: quinn::SendStream,
    mut receiver: quinn::RecvStream,
    shared: Arc<Shared>,
) {
    let Ok(framed) = receiver.read_to_end(65_537).await else { return };
    let (length, query) = framed.split_first_chunk::<2>().expect("a framed query");
    assert_eq!(usize::from(u16::from_be_bytes(*length)), query.len(), "one query a stream");
    assert_eq!(query[..2], [0, 0], "the id is 0 (RFC 9250 4.2.1)");
    let Some(reply) = shared.answer(query).await else {
        if shared.manner() == Manner::Resets {
            drop(sender.reset(quinn::VarInt::from_u32(0)));
            return;
        }
        return std::future::pending().await;
    };
    let _ = sender.write_all(&frame(&reply)).await;
    let _ = sender.finish();
    if shared.manner() == Manner::OneEach {
        let _ = sender.stopped().await;
        connection.close(quinn::VarInt::from_u32(0), b"");
    }
}
