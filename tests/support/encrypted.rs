//! A DNS server that is asked over an encrypted transport, and does what a test tells it to.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use hickory_proto::op::Message;
use rustls::{HandshakeKind, ServerConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex as Turns, Notify, oneshot},
};
use tokio_rustls::TlsAcceptor;

use super::{
    authority::Certificate,
    records::{Fault, Reply},
    upstream::frame,
};

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Tls,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers with [`address_of`] the name.
    Answers,
    /// Answers as if another name had been asked, with 10.0.0.66.
    AnswersAnother,
    /// Answers, and then closes the connection.
    OneEach,
    /// Waits for so many questions, and answers the last one first.
    Backwards(usize),
    /// Shakes hands, and never reads.
    Deaf,
    /// Takes connections and says nothing, not even in the handshake.
    Mute,
}

/// The address that the server gives for a name: 10.0.0.1, and 10.0.1.N for one that begins with "nN.".
pub fn address_of(name: &str) -> String {
    let number = name.strip_prefix('n').and_then(|rest| rest.split('.').next()).and_then(|n| n.parse::<u8>().ok());
    number.map_or_else(|| "10.0.0.1".to_owned(), |number| format!("10.0.1.{number}"))
}

/// The server. It stops when it is dropped.
pub struct Encrypted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    connections: AtomicUsize,
    resumed: AtomicUsize,
    failed: AtomicUsize,
    queries: AtomicUsize,
    greetings: Mutex<Vec<Greeting>>,
    /// Of [`Manner::Backwards`].
    answered: AtomicUsize,
    arrived: AtomicUsize,
    changed: Notify,
}

/// What a client said in its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub name: Option<String>,
    pub protocol: Option<String>,
}

impl Encrypted {
    pub fn start(speaks: Speaks, certificate: &Certificate, manner: Manner) -> Self {
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            connections: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            greetings: Mutex::default(),
            answered: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let (place, placed) = std::sync::mpsc::channel();
        let Speaks::Tls = speaks;
        let acceptor = TlsAcceptor::from(certificate.server(b"dot"));
        let in_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let serving = async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                place.send(listener.local_addr().expect("it is bound")).expect("the test waits for it");
                tokio::select! {
                    () = accept(listener, acceptor, in_thread) => {}
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

    /// What it does from the next question on.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no holder panics") = manner;
    }

    /// Connections with a finished handshake.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Those of them that resumed a session.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(SeqCst)
    }

    /// Handshakes that came to nothing.
    pub fn failed_handshakes(&self) -> usize {
        self.shared.failed.load(SeqCst)
    }

    pub fn queries(&self) -> usize {
        self.shared.queries.load(SeqCst)
    }

    /// What the clients said in their handshakes.
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

    fn greeted(&self, connection: &ServerConnection) {
        let protocol = connection.alpn_protocol().map(|id| String::from_utf8_lossy(id).into_owned());
        let greeting = Greeting { name: connection.server_name().map(str::to_owned), protocol };
        self.greetings.lock().expect("no holder panics").push(greeting);
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, SeqCst);
        }
        self.connections.fetch_add(1, SeqCst);
    }

    /// The answer, in its turn; none for silence.
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.queries.fetch_add(1, SeqCst);
        let message = Message::from_vec(query).ok()?;
        let name = message.queries.first()?.name().to_ascii();
        let end = 12 + query[12..].iter().position(|&octet| octet == 0)? + 5;
        let mut reply = Reply::a(&address_of(&name));
        match self.manner() {
            Manner::Answers | Manner::OneEach => {}
            Manner::AnswersAnother => {
                reply = Reply::a("10.0.0.66").but(Fault::WrongQuestion("another.example.".to_owned()));
            }
            Manner::Backwards(count) => self.wait_for_turn(count).await,
            Manner::Deaf | Manner::Mute => return None,
        }
        Some(reply.bytes(query, end, usize::from(u16::MAX)))
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

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::task::spawn_local(serve_tls(stream, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn serve_tls(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    if shared.manner() == Manner::Mute {
        return std::future::pending().await;
    }
    let Ok(tls) = acceptor.accept(stream).await else {
        shared.failed.fetch_add(1, SeqCst);
        return;
    };
    shared.greeted(tls.get_ref().1);
    let (mut reader, writer) = tokio::io::split(tls);
    let writer = Rc::new(Turns::new(writer));
    loop {
        if shared.manner() == Manner::Deaf {
            return std::future::pending().await;
        }
        let Ok(length) = reader.read_u16().await else { return };
        let mut query = vec![0; usize::from(length)];
        if reader.read_exact(&mut query).await.is_err() {
            return;
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
