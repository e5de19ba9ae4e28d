//! HTTP/2 used against its server, in raw frames (RFC 9113).

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Version,
    body::{Bytes, Frame},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rstest::rstest;
use rustls::{ClientConnection, StreamOwned};

use crate::support::{
    PATIENCE, eventually, now,
    query::Query,
    site::{NAME, Site},
};

/// An encrypted stream to one of the site's listeners.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn tls(site: &Site, transport: &str, alpn: &[u8]) -> Tls {
    let stream = TcpStream::connect(site.address(transport)).expect("it accepts");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("a positive time-out");
    }
    let name = NAME.try_into().expect("a name");
    let connection = ClientConnection::new(Arc::new(site.authority.client(alpn)), name).expect("it is sound");
    StreamOwned::new(connection, stream)
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET of a query for www.example, in HPACK without Huffman codes (RFC 7541).
fn get() -> Vec<u8> {
    let literal =
        |index: u8, text: &str| [&[index, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let path = "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlAAABAAE";
    [vec![0x82, 0x87], literal(0x04, path), literal(0x01, NAME)].concat()
}

/// The preface and the first SETTINGS.
fn open(site: &Site) -> Tls {
    let mut stream = tls(site, "https", b"h2");
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    stream.write_all(&preface).expect("it takes the preface");
    stream
}

/// Requests that are taken back as soon as they are made.
fn rapid_reset(turn: u32) -> Vec<u8> {
    let streams = (0..100).map(|n| 2 * (100 * turn + n) + 1);
    let pair = |stream| {
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &get()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    streams.flat_map(pair).collect()
}

/// One header list that never ends.
fn continuations(turn: u32) -> Vec<u8> {
    let first = if turn == 0 { frame(HEADERS, END_STREAM, 1, &get()) } else { Vec::new() };
    // A literal header, not indexed: its name is one octet, its value 100.
    let header = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    [first, frame(CONTINUATION, 0, 1, &header.repeat(150)).repeat(4)].concat()
}

/// Empty ones, which cost no octets of a limit on header lists.
fn empty_continuations(turn: u32) -> Vec<u8> {
    let first = if turn == 0 { frame(HEADERS, END_STREAM, 1, &get()) } else { Vec::new() };
    [first, frame(CONTINUATION, 0, 1, &[]).repeat(1000)].concat()
}

/// Pings and settings, each of which wants an answer, by a client that reads none.
fn pings(_: u32) -> Vec<u8> {
    [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(500)
}

/// Writes until the server ends the connection; the octets that it took. `None` if it takes them for ever.
fn flood(mut stream: Tls, frames: fn(u32) -> Vec<u8>) -> Option<usize> {
    let mut taken = 0;
    let mut buffer = [0; 4096];
    for turn in 0..2000 {
        let octets = frames(turn);
        if stream.write_all(&octets).and_then(|()| stream.flush()).is_err() {
            return Some(taken);
        }
        taken += octets.len();
    }
    // All was taken by buffers on the way; the server has its say now.
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(taken),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return None,
            Err(_) => return Some(taken),
        }
    }
}

/// Rapid reset, CVE-2023-44487 (RUSTSEC-2024-0003 in h2); CONTINUATION floods, CVE-2023-45288 (Go) and RUSTSEC-2024-0332
/// (h2): a client that costs much and is never cut off. Here it is, after little; and meanwhile others are answered,
/// in a process that does not grow.
#[rstest]
#[case::rapid_reset(rapid_reset)]
#[case::continuation_flood(continuations)]
#[case::empty_continuations(empty_continuations)]
#[case::pings_that_nobody_reads(pings)]
fn a_flood_of_frames_ends_its_own_connection_alone(#[case] frames: fn(u32) -> Vec<u8>) {
    let site = Site::start_with("", "tcp_idle = \"2s\"");
    site.tidegate.client().ask(&Query::a("www.example."));
    let before = site.tidegate.resident_kib();
    let attacker = open(&site);
    let flooding = std::thread::spawn(move || flood(attacker, frames));
    while !flooding.is_finished() {
        let start = now();
        assert_eq!(site.tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert!(flooding.join().expect("it ends").is_some(), "the connection is never closed");
    let after = site.tidegate.resident_kib();
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    eventually("its place is free", || site.tidegate.metric("tidegate_connections", &[("transport", "https")]) < 0.5);
}

/// A client that does not acknowledge the end: a flood of them would hold descriptors beyond the limit on connections.
#[test]
fn a_connection_that_makes_room_is_closed_though_its_client_says_nothing() {
    let site = Site::start_with("", "tcp_connections = 1");
    let mut first = open(&site);
    first.read_exact(&mut [0; 9]).expect("the server's settings");
    let start = now();
    let mut second = open(&site);
    second.read_exact(&mut [0; 9]).expect("the server's settings");
    // Whatever is said before: it is closed in order (RFC 8446 6.1).
    first.read_to_end(&mut Vec::new()).expect("close_notify");
    assert!(start.elapsed() < Duration::from_secs(3), "not the 5 s for queries that wait: {:?}", start.elapsed());
}

type Requests = hyper::client::conn::http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>>;

/// A connection over HTTP/2, and the task that drives it.
async fn connect(site: &Site) -> (Requests, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(site.address("https")).await.expect("it accepts");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(site.authority.client(b"h2")));
    let stream = connector.connect(NAME.try_into().expect("a name"), stream).await.expect("a handshake");
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    (requests, tokio::spawn(connection))
}

fn post(body: UnsyncBoxBody<Bytes, Infallible>) -> Request<UnsyncBoxBody<Bytes, Infallible>> {
    let request = Request::post(format!("https://{NAME}/dns-query")).version(Version::HTTP_2);
    request.header("content-type", "application/dns-message").body(body).expect("it is sound")
}

/// A body that never ends.
fn half(octets: Bytes) -> UnsyncBoxBody<Bytes, Infallible> {
    UnsyncBoxBody::new(StreamBody::new(stream::iter([Ok(Frame::data(octets))]).chain(stream::pending())))
}

fn within(patience: Duration, work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(patience, work).await.expect("it ends in time") });
}

/// Long queries that nobody finishes: a connection holds a few of them, and refuses the others.
#[test]
fn unfinished_bodies_hold_little_and_are_refused() {
    const OCTETS: Bytes = Bytes::from_static(&[0xff; 60_000]);
    let site = Site::start_with("", "tcp_idle = \"1m\"");
    let whole = || post(UnsyncBoxBody::new(Full::new(OCTETS)));
    within(PATIENCE * 4, async {
        let (mut requests, driver) = connect(&site).await;
        let mut unfinished = tokio::task::JoinSet::new();
        for _ in 0..20 {
            unfinished.spawn(requests.send_request(post(half(OCTETS))));
        }
        // Until so much of the others has come that there is no room.
        while requests.send_request(whole()).await.expect("a response").status() != 503 {}
        assert_eq!(site.tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        unfinished.abort_all();
        while requests.send_request(whole()).await.expect("a response").status() == 503 {}
        driver.abort();
    });
}

/// Many requests that nobody finishes, of one octet each: what is kept for each of them counts too, so that of one client
/// only some thousand stay open; its older connections make room for its new ones, and everybody is answered.
#[test]
fn open_requests_count_however_short_they_are() {
    const MOST: usize = 2_200;
    let site = Site::start_with("", "tcp_idle = \"1m\"");
    within(PATIENCE * 4, async {
        let (mut unfinished, mut connections) = (tokio::task::JoinSet::new(), Vec::new());
        for _ in 0..60 {
            let (mut requests, driver) = connect(&site).await;
            for _ in 0..64 {
                unfinished.spawn(requests.send_request(post(half(Bytes::from_static(b"x")))));
            }
            connections.push((requests, driver));
        }
        while unfinished.len() > MOST {
            let ended = unfinished.join_next().await.expect("there are some").expect("it runs");
            assert!(ended.is_err() || ended.is_ok_and(|response| response.status() == 503));
        }
        assert_eq!(site.tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        connections.iter().for_each(|(_, driver)| driver.abort());
    });
}

/// Header bombs, in HPACK (CVE-2016-6581) and plainly: one header of 4 KB is put into the table and then named by one octet,
/// ten thousand times. The list is refused before it is unpacked.
#[test]
fn a_header_bomb_is_refused_before_it_is_unpacked() {
    let site = Site::start();
    site.tidegate.client().ask(&Query::a("www.example."));
    let before = site.tidegate.resident_kib();
    for _ in 0..20 {
        let mut stream = open(&site);
        // Literal with indexing: a name of one octet, a value of 3,800 (127 + 3,673 in 7-bit groups).
        let planted = [&[0x40, 1, b'x', 0x7f, 0xd9, 0x1c][..], &[b'y'; 3800]].concat();
        let bomb = [get(), planted, vec![0xbe; 10_000]].concat();
        let written = stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
        drop(written.and_then(|()| stream.flush()));
        // A status, a reset or the end: an answer with data would have a DATA frame (0) for stream 1.
        let mut octets = vec![0; 1024];
        let read = stream.read(&mut octets).unwrap_or_default();
        assert!(!octets[..read].windows(4).any(|window| window == [10, 0, 0, 1]), "it is answered");
    }
    let after = site.tidegate.resident_kib();
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    let mut stream = tls(&site, "https", b"http/1.1");
    let long =
        format!("GET /dns-query HTTP/1.1\r\nHost: x\r\n{}", "X-Long: yyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(40_000));
    drop(stream.write_all(long.as_bytes()).and_then(|()| stream.flush()));
    let mut response = Vec::new();
    drop(stream.read_to_end(&mut response));
    let status = String::from_utf8_lossy(&response);
    assert!(response.is_empty() || status.starts_with("HTTP/1.1 431"), "{status}");
    assert_eq!(site.tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
}
