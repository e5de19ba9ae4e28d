//! QUIC streams used against their server (RFC 9250).

use std::sync::Arc;

use quinn::{
    ClientConfig, Connection, Endpoint, ReadError, ReadToEndError, RecvStream, SendStream,
    crypto::rustls::QuicClientConfig,
};
use tokio::{runtime, task::JoinSet, time::timeout};

use crate::support::{
    PATIENCE,
    query::{Query, rtype},
    records::Reply,
    site::{NAME, Site},
    upstream::frame,
};

fn on_a_runtime<F: Future>(work: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE * 4, work).await.expect("it ends in time") })
}

async fn connect(site: &Site) -> (Endpoint, Connection) {
    let config = QuicClientConfig::try_from(site.authority.client(b"doq")).expect("TLS 1.3");
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(config)));
    let connection = endpoint.connect(site.address("quic"), NAME).expect("a name").await.expect("it accepts");
    (endpoint, connection)
}

async fn exchange(connection: &Connection, message: &[u8]) -> Vec<u8> {
    let (mut sender, mut receiver) = connection.open_bi().await.expect("a stream");
    sender.write_all(&frame(message)).await.expect("it takes the message");
    sender.finish().expect("it is open");
    receiver.read_to_end(65_537).await.expect("a response").split_off(2)
}

/// The response to a message, whose id must be 0, on a connection of its own.
pub(crate) fn ask(site: &Site, message: &[u8]) -> Vec<u8> {
    on_a_runtime(async {
        let (_endpoint, connection) = connect(site).await;
        exchange(&connection, message).await
    })
}

fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut query = Query::new(name, qtype);
    query.id = 0;
    query.bytes()
}

async fn honest_client_is_answered(site: &Site) {
    let (_endpoint, connection) = connect(site).await;
    let response = exchange(&connection, &query("www.example.", rtype::A)).await;
    assert!(response.ends_with(&[10, 0, 0, 1]), "{response:?}");
}

/// Streams of one octet that never end, as many as are allowed: each is given up after `tcp_idle`, no more are taken
/// meanwhile, and nobody else waits for it.
#[test]
fn streams_of_one_octet_are_limited_and_given_up() {
    let site = Site::start_with("", "pipeline = 16\ntcp_idle = \"3s\"");
    on_a_runtime(async {
        let (_endpoint, connection) = connect(&site).await;
        let mut kept: Vec<(SendStream, RecvStream)> = Vec::new();
        for _ in 0..16 {
            let (mut sender, receiver) = connection.open_bi().await.expect("a stream");
            sender.write_all(&[0]).await.expect("it takes an octet");
            kept.push((sender, receiver));
        }
        {
            let mut more = std::pin::pin!(connection.open_bi());
            tokio::select! {
                biased;
                _ = &mut more => panic!("more than `pipeline` streams"),
                () = honest_client_is_answered(&site) => {}
            }
        }
        for (_sender, mut receiver) in kept {
            // Ended or reset by the server, or with the connection.
            assert!(!receiver.read_to_end(100).await.is_ok_and(|octets| !octets.is_empty()), "nothing was asked");
        }
        honest_client_is_answered(&site).await;
    });
}

/// Long queries that nobody finishes: a connection holds a few of them, and refuses the streams of the others.
#[test]
fn unfinished_queries_hold_little_and_are_refused() {
    let site = Site::start_with("", "tcp_idle = \"1m\"");
    on_a_runtime(async {
        let (_endpoint, connection) = connect(&site).await;
        let (mut senders, mut refused) = (Vec::new(), JoinSet::new());
        for _ in 0..20 {
            let (mut sender, mut receiver) = connection.open_bi().await.expect("a stream");
            // It may be refused before all is written.
            drop(sender.write_all(&[0xff; 60_000]).await);
            senders.push(sender);
            refused.spawn(async move { receiver.read_to_end(100).await });
        }
        let end = refused.join_next().await.expect("there are streams").expect("no panic");
        // DOQ_EXCESSIVE_LOAD (RFC 9250 4.3).
        assert_eq!(end, Err(ReadToEndError::Read(ReadError::Reset(4_u32.into()))));
        honest_client_is_answered(&site).await;
        for mut sender in senders {
            // The server may have stopped it.
            drop(sender.reset(0_u32.into()));
        }
        let response = exchange(&connection, &query("www.example.", rtype::A)).await;
        assert!(response.ends_with(&[10, 0, 0, 1]), "what was given up makes room: {response:?}");
    });
}

/// Large responses that nobody reads, on every stream of many connections: what is held stays within the windows.
#[test]
fn unread_responses_hold_little_and_are_dropped() {
    let site = Site::start();
    site.upstream.on("big.example.", rtype::A, Reply::addresses(3000));
    on_a_runtime(async {
        let (_endpoint, first) = connect(&site).await;
        exchange(&first, &query("big.example.", rtype::A)).await;
        let before = site.tidegate.resident_kib();
        let mut kept = Vec::new();
        for _ in 0..16 {
            let (endpoint, connection) = connect(&site).await;
            for _ in 0..64 {
                let (mut sender, receiver) = connection.open_bi().await.expect("a stream");
                sender.write_all(&frame(&query("big.example.", rtype::A))).await.expect("it takes the query");
                sender.finish().expect("it is open");
                kept.push((endpoint.clone(), receiver));
            }
        }
        honest_client_is_answered(&site).await;
        let after = site.tidegate.resident_kib();
        // 1,024 responses of 48 KB are 48 MB.
        assert!(after < before + 40 * 1024, "{before} KiB, then {after} KiB");
        drop(kept);
    });
}
