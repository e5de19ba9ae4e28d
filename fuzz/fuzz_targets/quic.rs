//! A client's streams of DNS over QUIC on a real connection: written piece by piece, ended, reset or left alone. Each whole
//! query gets at most one reply, and only a stream that breaks the protocol ends the connection, as RFC 9250 4.3 says.
#![no_main]

use std::{
    cell::RefCell,
    future::Future,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use fuzz::{CERTIFICATE, Live, first_frame, hold};
use libfuzzer_sys::fuzz_target;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use tidegate::wire::{MAX_MESSAGE, doq};
use tokio::{runtime::Runtime, time::timeout};

static SITE: LazyLock<Live> = LazyLock::new(Live::with_quic);

/// DOQ_PROTOCOL_ERROR (RFC 9250 4.3).
const PROTOCOL_ERROR: u64 = 2;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    /// It serves inputs until one breaks the protocol.
    static CONNECTION: RefCell<Option<(Endpoint, Connection)>> = const { RefCell::new(None) };
}

/// What a client does with a stream, once it has written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    End,
    Reset,
    /// It stops the answer.
    Stop,
}

/// Streams of an input: two octets of how, two of length, and what is written.
fn streams(mut input: &[u8]) -> Vec<(Then, usize, &[u8])> {
    let mut streams = Vec::new();
    while let Some((&[how, cut, high, low], rest)) = input.split_first_chunk::<4>() {
        let (octets, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes([high, low]))));
        let then = [Then::End, Then::End, Then::Reset, Then::Stop][usize::from(how % 4)];
        streams.push((then, octets.len().min(usize::from(cut)), octets));
        input = rest;
        if streams.len() == 8 {
            break;
        }
    }
    streams
}

async fn in_time<F: Future>(what: &str, work: F) -> F::Output {
    timeout(Duration::from_secs(8), work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn connect(address: SocketAddr) -> (Endpoint, Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CERTIFICATE.cert.der().clone()).expect("it is a certificate");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("it has suites for them");
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    let connecting = endpoint.connect(address, "dns.example").expect("a name");
    let connection = in_time("a handshake", connecting).await.expect("it accepts");
    (endpoint, connection)
}

/// Writes one stream, and returns what came back on it; nothing if the stream or the connection was closed.
async fn converse(connection: &Connection, then: Then, cut: usize, octets: &[u8]) -> Option<Vec<u8>> {
    let (mut sender, mut receiver) = connection.open_bi().await.ok()?;
    let (first, second) = octets.split_at(cut);
    sender.write_all(first).await.ok()?;
    if !first.is_empty() && !second.is_empty() {
        // What was written goes out in a packet of its own.
        tokio::task::yield_now().await;
    }
    sender.write_all(second).await.ok()?;
    match then {
        Then::End => sender.finish().ok()?,
        Then::Reset => sender.reset(VarInt::from_u32(3)).ok()?,
        Then::Stop => {
            receiver.stop(VarInt::from_u32(3)).ok()?;
            sender.finish().ok()?;
            return None;
        }
    }
    receiver.read_to_end(2 + MAX_MESSAGE).await.ok()
}

fuzz_target!(|input: &[u8]| {
    let streams = streams(input);
    let address = SITE.quic.expect("it has one");
    let (endpoint, connection) =
        CONNECTION.take().unwrap_or_else(|| RUNTIME.with(|runtime| runtime.block_on(connect(address))));
    let is_fault = |then: Then, octets: &[u8]| then != Then::Reset && doq::read_query(octets).is_err();
    let is_at_fault = streams.iter().any(|&(then, _, octets)| is_fault(then, octets));
    let end = RUNTIME.with(|runtime| {
        runtime.block_on(in_time("a conversation", async {
            for (then, cut, octets) in streams {
                let reply = converse(&connection, then, cut, octets).await;
                let Some(framed) = reply.filter(|framed| !framed.is_empty()) else { continue };
                let (reply, behind) = first_frame(&framed).expect("a whole message");
                assert!(behind.is_empty() && then == Then::End, "one reply to a query that was sent");
                hold(doq::read_query(octets).expect("a reply to a query"), reply);
            }
            if is_at_fault { Some(connection.closed().await) } else { connection.close_reason() }
        }))
    });
    match end {
        None => CONNECTION.set(Some((endpoint, connection))),
        Some(ConnectionError::ApplicationClosed(close)) => {
            assert!(is_at_fault && close.error_code.into_inner() == PROTOCOL_ERROR, "{close:?}");
        }
        Some(end) => panic!("{end:?}"),
    }
});
