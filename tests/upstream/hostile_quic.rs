//! QUIC servers that send what nobody asked for: each is cut off after a few, whatever it sends.

use std::{net::SocketAddr, sync::Arc, thread};

use quinn::{Connection, Endpoint, VarInt, crypto::rustls::QuicServerConfig};
use tidegate::{
    clock::Moment,
    tls::Roots,
    upstream::{Identity, ServerSpec, TierMember},
    wire::Transport,
};
use tokio::sync::mpsc;

use crate::{
    address, ask, build, client, on_a_worker, server, spec,
    support::{
        PATIENCE,
        authority::{Authority, Validity},
        encrypted::{Encrypted, Manner, Speaks},
    },
};

const NAME: &str = "dns.corp.example";
/// Far more than one query allows, and more than any buffer on the way takes.
const FLOOD: u64 = 16 << 20;

/// A server that does `hostile` on each of its connections; its findings are received.
fn hostile<F: Future<Output = String> + 'static>(
    authority: &Authority,
    hostile: fn(Connection) -> F,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let tls = authority.issue(NAME, Validity::Now).server(b"doq", Arc::default());
    let (told, findings) = mpsc::unbounded_channel();
    let (place, placed) = std::sync::mpsc::channel();
    thread::spawn(move || {
        on_a_worker(async move {
            let crypto = QuicServerConfig::try_from(tls).unwrap();
            let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
            // Small, so that it can grow by a frame for each octet.
            let mut transport = quinn::TransportConfig::default();
            transport.receive_window(VarInt::from_u32(1 << 20));
            config.transport_config(Arc::new(transport));
            let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
            place.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                let told = told.clone();
                tokio::task::spawn_local(async move {
                    let Ok(connection) = incoming.await else { return };
                    let found = hostile(connection).await;
                    // Nobody receives it once the test is over.
                    told.send(found).ok();
                });
            }
        });
    });
    (placed.recv().unwrap(), findings)
}

fn entry(authority: &Authority, address: SocketAddr) -> TierMember {
    let roots = Roots::from_pem(authority.pem().as_bytes()).unwrap();
    let identity = Identity { name: Some(NAME.to_owned()), roots };
    TierMember::Server(ServerSpec::encrypted(Transport::Quic, address, identity))
}

/// Asks the hostile server, with a good one behind it; returns what the hostile one found.
fn found_by<F: Future<Output = String> + 'static>(act: fn(Connection) -> F) -> String {
    let authority = Authority::new("the site's CA");
    let good = Encrypted::start(Speaks::Quic, &authority.issue(NAME, Validity::Now), Manner::Answers);
    let (at, mut findings) = hostile(&authority, act);
    let group = build(&spec(&[&[entry(&authority, at), entry(&authority, good.address)]]));
    on_a_worker(async {
        let client = client();
        assert_eq!(address(&ask(&client, &group, "a.example").await.unwrap()).to_string(), "10.0.0.1");
        tokio::time::timeout(PATIENCE, findings.recv()).await.expect("it is cut off in time").unwrap()
    })
}

/// Frames that belong to no stream: each is small, and their number is what costs.
#[test]
fn a_server_that_sends_frames_without_end_is_cut_off_after_a_few() {
    let found = found_by(|connection| async move {
        let mut window = 1 << 20;
        while connection.stats().udp_tx.bytes < FLOOD {
            if let Some(reason) = connection.close_reason() {
                return format!("{reason} after {} octets", connection.stats().udp_tx.bytes);
            }
            window += 1;
            connection.set_receive_window(VarInt::from_u32(window));
            tokio::task::yield_now().await;
        }
        "read to the end".to_owned()
    });
    // Where a busy machine sends the frames too slowly for that, the server is left for its silence.
    let reasons = ["more came than was asked for", "closed by peer: 0"];
    assert!(reasons.iter().any(|reason| found.contains(reason)), "{found}");
    let octets: u64 = found.split(' ').rev().nth(1).unwrap().parse().unwrap();
    // The allowance, and what was under way.
    assert!(octets < 1 << 20, "{found}");
}

#[test]
fn a_server_whose_answer_never_ends_is_stopped_and_another_is_asked() {
    let found = found_by(|connection| async move {
        let (mut sender, _receiver) = connection.accept_bi().await.unwrap();
        let message = vec![0; 64 * 1024];
        for _ in 0..FLOOD / 65_536 {
            if let Err(error) = sender.write_all(&message).await {
                return error.to_string();
            }
        }
        "read to the end".to_owned()
    });
    assert!(found.starts_with("sending stopped by peer"), "{found}");
}

#[test]
fn a_server_may_open_no_stream_and_send_no_datagram() {
    let found = found_by(|connection| async move {
        let mut opened = std::pin::pin!(connection.open_uni());
        let mut opened_both_ways = std::pin::pin!(connection.open_bi());
        let (sender, _receiver) = tokio::select! {
            _ = &mut opened => return "it may open a stream".to_owned(),
            _ = &mut opened_both_ways => return "it may open a stream of both directions".to_owned(),
            accepted = connection.accept_bi() => accepted.unwrap(),
        };
        drop(sender);
        connection.send_datagram(vec![0].into()).map_or_else(|error| error.to_string(), |()| "it may".to_owned())
    });
    assert_eq!(found, "datagrams not supported by peer");
}

/// The allowance grows with the queries: a busy connection is never taken for a hostile one.
#[test]
fn a_server_that_answers_many_queries_keeps_its_connection() {
    let authority = Authority::new("the site's CA");
    let good = Encrypted::start(Speaks::Quic, &authority.issue(NAME, Validity::Now), Manner::Answers);
    let group = build(&spec(&[&[entry(&authority, good.address)]]));
    on_a_worker(async {
        let (client, start) = (client(), Moment::now());
        for at in 0..1000 {
            ask(&client, &group, &format!("n{at}.example")).await.unwrap();
            assert!(Moment::now().since(start) < PATIENCE * 4, "{at} of 1,000 queries");
        }
    });
    assert_eq!(good.connections(), 1);
    assert!(server(&group, 0).connect_error().is_none());
}
