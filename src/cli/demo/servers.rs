//! The demo's servers: hickory-server, an independent implementation, behind a link that can be cut.
//!
//! They run on a thread of their own. Queries are counted and logged, so that scenes and the relay can tell which
//! server answered.

use std::{
    collections::VecDeque,
    io,
    net::{self, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use hickory_server::{
    Server,
    net::{NetError, runtime::Time, xfer::Protocol},
    proto::op::{Header, HeaderCounts},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::Catalog,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
};

use super::certificates::{Authority, CertificateError};
use crate::{
    clock::Moment,
    upstream::loops::is_probe,
    wire::{Name, NameBuf, Question, RecordType},
};

/// Ports tried until one is free for UDP and TCP.
const PORTS: usize = 16;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// Responses that may wait on one TCP connection.
const RESPONSES: usize = 64;
/// The name in the encrypted servers' certificates.
const TLS_NAME: &str = "dns.demo.example";
/// Number of queries that are remembered.
const LOG_LENGTH: usize = 256;

/// The thread on which the servers run.
#[derive(Debug)]
pub(super) struct Servers {
    handle: Handle,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    log: Arc<QueryLog>,
}

/// One simulated server.
#[derive(Debug, Clone)]
pub(super) struct Simulated {
    /// The name shown to people.
    pub(super) name: &'static str,
    /// The address it listens on.
    pub(super) address: SocketAddr,
    /// The server as a configuration names it.
    pub(super) url: String,
    shared: Arc<ServerState>,
}

/// A server's role in the demo.
pub(super) struct Role<'a> {
    pub(super) name: &'static str,
    pub(super) ip: Ipv4Addr,
    pub(super) transport: DemoTransport<'a>,
}

/// How a server is reached.
#[derive(Clone, Copy)]
pub(super) enum DemoTransport<'a> {
    /// UDP and TCP.
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls(&'a Authority),
    /// DNS over HTTPS (RFC 8484).
    Https(&'a Authority),
    /// DNS over QUIC (RFC 9250).
    Quic(&'a Authority),
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error("its sockets: {0}")]
    Io(#[from] io::Error),
    #[error("its certificates: {0}")]
    Certificate(#[from] CertificateError),
    #[error("its listener: {0}")]
    Listener(#[from] NetError),
}

/// How a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// From its own zone.
    Normal,
    /// Not at all: queries arrive, but nothing is sent.
    Cut,
    /// As the internet does, like a VPC without private DNS.
    Public,
}

#[derive(Debug)]
struct ServerState {
    mode: watch::Sender<Mode>,
    queries: AtomicU64,
    probes: AtomicU64,
}

/// The latest queries of clients that reached a simulated server.
#[derive(Debug, Default)]
pub(super) struct QueryLog(Mutex<VecDeque<LoggedQuery>>);

#[derive(Debug)]
struct LoggedQuery {
    server: &'static str,
    name: Name,
    at: Moment,
}

struct Handler {
    name: &'static str,
    own: Catalog,
    public: Arc<Catalog>,
    shared: Arc<ServerState>,
    log: Arc<QueryLog>,
}

impl Servers {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("demo-servers".to_owned()).spawn(move || {
            // Told to end, or the demo is gone: the servers end either way.
            drop(runtime.block_on(ended));
        })?;
        Ok(Self { handle, end, thread, log: Arc::default() })
    }

    /// The runtime for other tasks of the demo.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The log of client queries.
    pub(super) fn log(&self) -> &Arc<QueryLog> {
        &self.log
    }

    /// Starts a server on a free port of `ip`.
    pub(super) fn add(&self, role: Role, zone: Catalog, public: &Arc<Catalog>) -> Result<Simulated, ServerError> {
        let Role { name, ip, transport } = role;
        let (udp, tcp) = bind(ip)?;
        let address = udp.local_addr()?;
        let (mode, _) = watch::channel(Mode::Normal);
        let shared = Arc::new(ServerState { mode, queries: AtomicU64::new(0), probes: AtomicU64::new(0) });
        let log = Arc::clone(&self.log);
        let handler = Handler { name, own: zone, public: Arc::clone(public), shared: Arc::clone(&shared), log };
        let _context = self.handle.enter();
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let mut server = Server::new(handler);
        let url = match transport {
            DemoTransport::Plain => {
                server.register_socket(udp);
                server.register_listener(tcp, IDLE, RESPONSES);
                address.to_string()
            }
            DemoTransport::Tls(authority) => {
                server.register_tls_listener_with_tls_config(tcp, IDLE, authority.server(TLS_NAME, b"dot")?)?;
                format!("tls://{address}#{TLS_NAME}")
            }
            DemoTransport::Https(authority) => {
                let (tls, path) = (authority.server(TLS_NAME, b"h2")?, "/dns-query");
                server.register_https_listener_with_tls_config(tcp, IDLE, tls, None, path.to_owned())?;
                format!("https://{address}{path}#{TLS_NAME}")
            }
            DemoTransport::Quic(authority) => {
                server.register_quic_listener_and_tls_config(udp, IDLE, authority.server(TLS_NAME, b"doq")?)?;
                format!("quic://{address}#{TLS_NAME}")
            }
        };
        self.handle.spawn(async move {
            if let Err(error) = server.block_until_done().await {
                tracing::warn!("the simulated server {name} ended: {error}");
            }
        });
        Ok(Simulated { name, address, url, shared })
    }

    /// Ends all servers.
    pub(super) fn end(self) {
        self.end.send(()).ok();
        drop(self.thread.join());
    }
}

impl Simulated {
    /// The current mode.
    pub(super) fn mode(&self) -> Mode {
        *self.shared.mode.borrow()
    }

    /// Sets the mode.
    pub(super) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Client queries that arrived, also while the link was cut.
    pub(super) fn queries(&self) -> u64 {
        self.shared.queries.load(Ordering::Relaxed)
    }

    /// Probes that arrived: every query that tidegate sends on its own.
    pub(super) fn probes(&self) -> u64 {
        self.shared.probes.load(Ordering::Relaxed)
    }
}

impl QueryLog {
    /// The servers that were asked for one of these names since `since`, each once, in order.
    pub(super) fn servers_asked(&self, names: &[Name], since: Moment) -> Vec<&'static str> {
        let mut servers = Vec::new();
        for seen in self.0.lock().iter().filter(|seen| seen.at >= since && names.contains(&seen.name)) {
            if !servers.contains(&seen.server) {
                servers.push(seen.server);
            }
        }
        servers
    }

    /// Whether this server was asked for a name in the domain.
    pub(super) fn has_reached(&self, server: &str, domain: &Name) -> bool {
        self.0.lock().iter().any(|seen| seen.server == server && seen.name.is_within(domain))
    }

    fn record(&self, server: &'static str, name: Name) {
        let mut log = self.0.lock();
        if log.len() == LOG_LENGTH {
            log.pop_front();
        }
        log.push_back(LoggedQuery { server, name, at: Moment::now() });
    }
}

impl Handler {
    /// Counts a message. Clients ask for addresses; tidegate's own probes ask for other types, or for names of their
    /// own.
    fn count(&self, message: &[u8]) {
        match Question::read(message) {
            Ok(question) if question.qtype == RecordType::A && !is_probe(question.name()) => {
                self.shared.queries.fetch_add(1, Ordering::Relaxed);
                self.log.record(self.name, NameBuf::lowercase_of(question.name()).to_name());
            }
            _ => {
                self.shared.probes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Keeps a connection silent while the link is cut; a datagram is just lost.
    async fn hold_silent(&self, protocol: Protocol) {
        if protocol != Protocol::Udp {
            // The sender lives as long as the handler.
            drop(self.shared.mode.subscribe().wait_for(|mode| *mode != Mode::Cut).await);
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        self.count(request.as_slice());
        let mode = *self.shared.mode.borrow();
        match mode {
            Mode::Normal => self.own.handle_request::<R, T>(request, response).await,
            Mode::Public => self.public.handle_request::<R, T>(request, response).await,
            Mode::Cut => {
                self.hold_silent(request.protocol()).await;
                Header { metadata: request.metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}

/// Binds one port of `ip` that is free for both UDP and TCP.
pub(super) fn bind(ip: Ipv4Addr) -> io::Result<(net::UdpSocket, net::TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORTS {
        let tcp = net::TcpListener::bind((ip, 0))?;
        match net::UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
