//! Clients of the encrypted listeners when a process ends and another gets its sockets: their queries are answered,
//! their connections closed in order, and new ones reach the new process.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};
use rstest::rstest;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    restart::{ANY_PORT, Systemd, TAKEOVER, with_socket},
    support::{
        PATIENCE,
        authority::{Authority, Validity},
        config::Config,
        query::{Query, rtype},
        records::Reply,
        script::{Gate, Script},
        site::{NAME, certify},
        tidegate::Tidegate,
        upstream::{Upstream, frame},
    },
};

/// How a process comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Takeover,
    /// A restart with the descriptor store.
    Store,
    /// A restart under socket activation.
    Activation,
    /// Nobody follows.
    Stop,
}

/// A certificate, an upstream, and the process of the moment.
struct Site {
    end: End,
    authority: Authority,
    folder: TempDir,
    upstream: Upstream,
    systemd: Systemd,
    tidegate: Tidegate,
    quic: SocketAddr,
    tls: SocketAddr,
    https: SocketAddr,
}

impl Site {
    fn start(end: End) -> Self {
        let authority = Authority::new("the site's CA");
        let folder = tempfile::tempdir().expect("a temporary folder");
        certify(&authority, folder.path(), Validity::Now);
        let upstream = Upstream::answering("10.0.0.1");
        let any: SocketAddr = ANY_PORT.parse().expect("an address");
        let socket = UdpSocket::bind(any).expect("a free port");
        let (mut systemd, quic) = match end {
            End::Activation => {
                let quic = socket.local_addr().expect("it is bound");
                (Systemd::with([("quic", OwnedFd::from(socket))]), quic)
            }
            _ => (Systemd::new(), any),
        };
        let config = config(&upstream, &folder, None, [quic, any, any]);
        let tidegate = match end {
            End::Store | End::Activation => systemd.start(&config),
            End::Takeover | End::Stop => Tidegate::start(&config),
        };
        let [quic, tls, https] = ["quic", "tls", "https"].map(|transport| tidegate.encrypted_address(transport));
        Self { end, authority, folder, upstream, systemd, tidegate, quic, tls, https }
    }

    /// The configuration of a process on the addresses of this one.
    fn config(&self) -> Config {
        let ports = (self.tidegate.address(), self.tidegate.admin_address());
        config(&self.upstream, &self.folder, Some(ports), [self.quic, self.tls, self.https])
    }

    /// Ends the process, with another after it or not. The gate opens once it has been told to end.
    fn replace(&mut self, gate: &Gate) {
        let config = self.config();
        if self.end == End::Takeover {
            let next = thread::scope(|scope| {
                scope.spawn(|| {
                    self.tidegate.await_logged("INFO", "another process took over");
                    gate.open();
                });
                Tidegate::start_by(&TAKEOVER, &config)
            });
            assert_eq!(self.tidegate.wait().code(), Some(0), "the one before ends");
            self.tidegate = next;
            return;
        }
        self.tidegate.signal("TERM");
        gate.open();
        assert_eq!(self.tidegate.wait().code(), Some(0));
        if self.end != End::Stop {
            self.tidegate = self.systemd.start(&config);
        }
    }

    /// A client that asks for this name over QUIC and keeps its connection until that ends.
    fn quic_client(&self, name: &str) -> QuicClient {
        let (authority, address) = (QuicClient::config(&self.authority), self.quic);
        let query = framed(name);
        let (told, has_asked) = mpsc::channel();
        let (more, asks_again) = oneshot::channel::<()>();
        let asking = async move || {
            let (_endpoint, connection) = QuicClient::connect(authority, address).await;
            let (mut sender, mut receiver) = connection.open_bi().await.expect("a stream");
            sender.write_all(&query).await.expect("it takes a query");
            sender.finish().expect("it is open");
            told.send(()).expect("the test waits for it");
            let response = receiver.read_to_end(65_537).await.ok();
            // The first end counts: what it still sends after a close may meet the next process, which resets it.
            let end = tokio::select! {
                biased;
                end = connection.closed() => end,
                more = asks_again => {
                    if more.is_ok() && let Ok((mut sender, _receiver)) = connection.open_bi().await {
                        drop(sender.write_all(&query).await);
                    }
                    connection.closed().await
                }
            };
            (response, end)
        };
        let thread = thread::spawn(move || on_a_runtime(asking()));
        has_asked.recv_timeout(PATIENCE).expect("it asks");
        QuicClient { more, thread }
    }

    /// Asks once over QUIC on a connection of its own.
    fn ask_over_quic(&self, name: &str) -> Vec<u8> {
        let client = QuicClient::config(&self.authority);
        on_a_runtime(async {
            let (_endpoint, connection) = QuicClient::connect(client, self.quic).await;
            let (mut sender, mut receiver) = connection.open_bi().await.expect("a stream");
            sender.write_all(&framed(name)).await.expect("it takes a query");
            sender.finish().expect("it is open");
            receiver.read_to_end(65_537).await.expect("a response")
        })
    }
}

fn config(
    upstream: &Upstream,
    folder: &TempDir,
    ports: Option<(SocketAddr, SocketAddr)>,
    [quic, tls, https]: [SocketAddr; 3],
) -> Config {
    let [chain, key, socket] = ["chain.pem", "key.pem", "control.sock"].map(|name| folder.path().join(name));
    with_socket(upstream, &socket, ports).raw(&format!(
        "[server.tls]\nquic = [\"{quic}\"]\ntls = [\"{tls}\"]\nhttps = [\"{https}\"]\n\
         certificate = {chain:?}\nkey = {key:?}"
    ))
}

/// A query without an id, as a stream of QUIC and a message over TLS.
fn framed(name: &str) -> Vec<u8> {
    let mut query = Query::a(name);
    query.id = 0;
    frame(&query.bytes())
}

fn on_a_runtime<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE * 4, work).await.expect("it ends in time") })
}

struct QuicClient {
    more: oneshot::Sender<()>,
    thread: JoinHandle<(Option<Vec<u8>>, ConnectionError)>,
}

impl QuicClient {
    fn config(authority: &Authority) -> ClientConfig {
        let tls = QuicClientConfig::try_from(authority.client(b"doq")).expect("TLS 1.3");
        ClientConfig::new(Arc::new(tls))
    }

    async fn connect(config: ClientConfig, address: SocketAddr) -> (Endpoint, Connection) {
        let mut endpoint = Endpoint::client(ANY_PORT.parse().expect("an address")).expect("a free port");
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(address, NAME).expect("a name").await.expect("it accepts");
        (endpoint, connection)
    }

    /// Sends another query, if `more`; returns the first response and the end of the connection.
    fn wait(self, asks_again: bool) -> (Option<Vec<u8>>, ConnectionError) {
        if asks_again {
            // It may have met the end already, by what it had to repeat.
            self.more.send(()).ok();
        } else {
            drop(self.more);
        }
        self.thread.join().expect("the client does not panic")
    }
}

#[track_caller]
fn assert_closed_in_order(end: &ConnectionError) {
    // DOQ_NO_ERROR (RFC 9250 4.3).
    assert!(matches!(end, ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0), "{end:?}");
}

#[rstest]
#[case::takeover(End::Takeover)]
#[case::store(End::Store)]
#[case::activation(End::Activation)]
#[case::stop(End::Stop)]
fn a_quic_client_has_its_answer_and_then_the_end(#[case] end: End) {
    let mut site = Site::start(end);
    let rounds = if end == End::Stop { 1 } else { 5 };
    // Where the sockets live on, a busy machine may need longer than the 300 ms for an answer; the end is in order anyway.
    let is_answered = (0..rounds).any(|round| {
        let (gate, name) = (Gate::default(), format!("slow{round}.example."));
        site.upstream.on(&name, rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
        let client = site.quic_client(&name);
        site.upstream.wait_for(&name, 1);
        site.replace(&gate);
        let (response, end) = client.wait(false);
        assert_closed_in_order(&end);
        response.is_some_and(|response| response.ends_with(&[10, 0, 0, 9]))
    });
    assert!(is_answered, "in none of {rounds} rounds");
    if end != End::Stop {
        assert!(site.ask_over_quic("www.example.").ends_with(&[10, 0, 0, 1]), "the next process serves");
    }
}

#[test]
fn a_new_quic_client_reaches_the_successor_while_the_one_before_it_answers() {
    let mut site = Site::start(End::Takeover);
    site.upstream.on("silent.example.", rtype::A, Script::silence());
    let client = site.quic_client("silent.example.");
    site.upstream.wait_for("silent.example.", 1);
    let next = Tidegate::start_by(&TAKEOVER, &site.config());
    // Until it has heard that the next one is ready, it serves new clients too.
    site.tidegate.await_logged("INFO", "another process took over");
    for _ in 0..5 {
        assert!(site.ask_over_quic("www.example.").ends_with(&[10, 0, 0, 1]));
    }
    assert_eq!(site.tidegate.wait().code(), Some(0), "the one before ends");
    let (response, end) = client.wait(false);
    assert_eq!(response, None);
    assert_closed_in_order(&end);
    let served = next.metric("tidegate_queries_total", &[("transport", "quic"), ("family", "4")]);
    // Both may have the first of them.
    assert!((4.0..=5.0).contains(&served), "{served} of 5 queries");
}

/// Without a stateless reset (RFC 9000 10.3) it would wait for its idle time-out.
#[test]
fn a_quic_client_learns_at_once_that_its_server_has_crashed() {
    let mut site = Site::start(End::Store);
    let client = site.quic_client("www.example.");
    site.upstream.wait_for("www.example.", 1);
    site.tidegate.signal("KILL");
    site.tidegate.wait();
    site.tidegate = site.systemd.start(&site.config());
    let (_, end) = client.wait(true);
    assert_eq!(end, ConnectionError::Reset);
    assert!(site.ask_over_quic("www.example.").ends_with(&[10, 0, 0, 1]));
}

#[rstest]
#[case::takeover(End::Takeover)]
#[case::store(End::Store)]
#[case::activation(End::Activation)]
fn a_client_over_tls_gets_a_goodbye_whatever_it_waits_for(#[case] end: End) {
    let mut site = Site::start(end);
    site.upstream.on_type(rtype::A, Script::silence());
    let message = Query::a("silent.example.").bytes();
    let request = format!(
        "POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    let request = [request.as_bytes(), &message].concat();
    let query = framed("other.example.");
    let clients: [(SocketAddr, &[u8], &[u8]); 6] = [
        (site.tls, b"dot", &query),
        (site.tls, b"dot", b""),
        (site.https, b"http/1.1", &request),
        (site.https, b"http/1.1", b""),
        // It has said that it speaks HTTP/2, and not begun to.
        (site.https, b"h2", b""),
        (site.https, b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut streams = Vec::new();
    for (address, alpn, octets) in clients {
        let connector = TlsConnector::from(Arc::new(site.authority.client(alpn)));
        streams.push(runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("it accepts");
            let mut stream =
                connector.connect(ServerName::try_from(NAME).expect("a name"), stream).await.expect("a handshake");
            stream.write_all(octets).await.expect("it takes them");
            stream.flush().await.expect("it takes them");
            stream
        }));
    }
    site.upstream.wait_for("other.example.", 1);
    site.upstream.wait_for("silent.example.", 1);
    site.replace(&Gate::default());
    runtime.block_on(async {
        for mut stream in streams {
            // Without close_notify this is an error (RFC 8446 6.1).
            let read = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("it ends in time");
            read.expect("it ends in order");
        }
    });
}
