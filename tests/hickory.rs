//! Upstreams over each transport against hickory-server, an implementation that shares nothing with ours. What goes wrong
//! on a connection is tested with scripted upstreams; here it is whether two programs understand each other.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record,
        rdata::{A, CNAME, SOA, TXT},
    },
};
use hickory_server::{
    Server,
    net::runtime::TokioRuntimeProvider,
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use rstest::rstest;
use support::{
    authority::{Authority, Validity},
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    tidegate::Tidegate,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Builder,
    sync::oneshot,
};

/// The name in the server's certificate.
const TLS_NAME: &str = "dns.peer.example";
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Plain,
    Tls,
    Https,
    Quic,
}

/// A running hickory-server; it ends when it is dropped.
struct Peer {
    /// As a configuration writes it.
    url: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    fn start(carrier: Carrier, authority: &Authority) -> Self {
        let tls = |protocol| authority.issue(TLS_NAME, Validity::Now).server(protocol, Arc::default());
        let (dot, h2, doq) = (tls(b"dot"), tls(b"h2"), tls(b"doq"));
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
                let mut server = Server::new(catalog());
                let (tcp, udp) = sockets().await;
                let address = udp.local_addr().unwrap();
                let url = match carrier {
                    Carrier::Plain => {
                        server.register_socket(udp);
                        server.register_listener(tcp, IDLE, 64);
                        address.to_string()
                    }
                    Carrier::Tls => {
                        server.register_tls_listener_with_tls_config(tcp, IDLE, dot).unwrap();
                        format!("tls://{address}#{TLS_NAME}")
                    }
                    Carrier::Https => {
                        let path = "/dns-query".to_owned();
                        server.register_https_listener_with_tls_config(tcp, IDLE, h2, None, path).unwrap();
                        format!("https://{address}/dns-query#{TLS_NAME}")
                    }
                    Carrier::Quic => {
                        server.register_quic_listener_and_tls_config(udp, IDLE, doq).unwrap();
                        format!("quic://{address}#{TLS_NAME}")
                    }
                };
                tell.send(url).unwrap();
                // It ends by an order, or with the test.
                drop(ended.await);
            });
        });
        Self { url: told.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Sockets on one port that is free for both.
async fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (tcp, udp);
        }
    }
}

/// A root zone: 300 names, a chain, and one with more data than a datagram takes.
fn catalog() -> Catalog {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let root = Name::root();
    let mut zone =
        InMemoryZoneHandler::<TokioRuntimeProvider>::empty(root.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let mut add = |owner: Name, rdata| zone.upsert_mut(Record::from_rdata(owner, 300, rdata), 1);
    add(root.clone(), RData::SOA(SOA::new(name("ns.example."), name("hostmaster.example."), 1, 1, 1, 1, 60)));
    for number in 0..300_u16 {
        let [high, low] = number.to_be_bytes();
        add(name(&format!("n{number}.example.")), RData::A(A::new(10, 1, high, low)));
    }
    add(name("alias.example."), RData::CNAME(CNAME(name("middle.example."))));
    add(name("middle.example."), RData::CNAME(CNAME(name("n7.example."))));
    for number in 0..30 {
        add(name("long.example."), RData::TXT(TXT::new(vec![format!("{number:0200}")])));
    }
    let mut catalog = Catalog::new();
    catalog.upsert(root.into(), vec![Arc::new(zone)]);
    catalog
}

#[rstest]
#[case::plain(Carrier::Plain)]
#[case::tls(Carrier::Tls)]
#[case::https(Carrier::Https)]
#[case::quic(Carrier::Quic)]
fn answers_of_every_kind_come_through(#[case] carrier: Carrier) {
    let authority = Authority::new("peers");
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let peer = Peer::start(carrier, &authority);
    // A query that meets the end of a connection is asked again, which counts as a try.
    let patient = ONE_PATIENT_TRY.replace("attempts = 1", "attempts = 3");
    let lines = format!("{patient}\nca = {:?}", ca.display().to_string());
    let config =
        Config::new().servers("peer", std::slice::from_ref(&peer.url), &lines).forward("all", &["."], "peer", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();

    let chain = client.ask(&Query::a("alias.example."));
    assert_eq!((chain.rcode(), chain.address_texts()), (ResponseCode::NoError, vec!["10.1.0.7".to_owned()]));
    let missing = client.ask(&Query::a("none.example."));
    assert_eq!(missing.rcode(), ResponseCode::NXDomain);
    let no_data = client.ask(&Query::new("n7.example.", rtype::AAAA));
    assert_eq!((no_data.rcode(), no_data.address_texts().len()), (ResponseCode::NoError, 0));
    let long = client.ask_over_tcp(&Query::new("long.example.", rtype::TXT));
    assert_eq!((long.rcode(), long.answers().len()), (ResponseCode::NoError, 30));
    // hickory-server closes a QUIC connection after a hundred queries: nobody notices.
    for number in 0..300_u16 {
        let answer = client.ask(&Query::a(&format!("n{number}.example.")));
        let [high, low] = number.to_be_bytes();
        assert_eq!(answer.address_texts(), [format!("10.1.{high}.{low}")], "{number}: {:?}", answer.verdict());
    }
}

#[rstest]
#[case::tls(Carrier::Tls)]
#[case::https(Carrier::Https)]
#[case::quic(Carrier::Quic)]
fn a_server_that_our_authority_does_not_know_gets_no_query(#[case] carrier: Carrier) {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, Authority::new("ours").pem()).unwrap();
    let peer = Peer::start(carrier, &Authority::new("somebody else's"));
    let lines = format!("{ONE_PATIENT_TRY}\nca = {:?}", ca.display().to_string());
    let config =
        Config::new().servers("peer", std::slice::from_ref(&peer.url), &lines).forward("all", &["."], "peer", "");
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&Query::a("n1.example."));
    assert_eq!(answer.rcode(), ResponseCode::ServFail);
    support::eventually("the reason", || tidegate.get("/api/v1/upstreams").1.to_lowercase().contains("certificate"));
}
