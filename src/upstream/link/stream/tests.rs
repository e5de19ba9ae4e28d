//! Behaviour that depends on time alone.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    tls::Roots,
    upstream::{
        Alarm, Group, GroupLimits, GroupSpec, HealthSpec, Identity, Marks, OwnAddresses, Policy, ServerSpec,
        TierMember, UpstreamClient, WorkerNumber,
    },
    wire::{Class, Name, RecordType},
};

fn group_of(server: ServerSpec) -> Arc<Group> {
    let spec = GroupSpec {
        name: "vpc".into(),
        tiers: vec![vec![TierMember::Server(server)]],
        policy: Policy::Ordered,
        limits: GroupLimits::default(),
        health: HealthSpec::probing(Name::root(), RecordType::NS),
    };
    Arc::new(Group::build(&spec, &OwnAddresses::default(), &Arc::new(Alarm::new())))
}

fn query() -> Arc<UpstreamQuery> {
    let (name, qtype) = ("a.example".parse().unwrap(), RecordType::A);
    Arc::new(UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: false, cd: false })
}

#[test]
fn the_end_of_a_query_is_not_taken_for_that_of_another_with_its_id() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let group = group_of(ServerSpec::plain(Transport::Tcp, listener.local_addr().unwrap()));
        let client = UpstreamClient::new(WorkerNumber::ALONE);
        let link = client.link(group.servers().next().unwrap());
        let (race, now) = (Race::new(&query(), &group, Role::Traffic, Moment::default()), Moment::now());
        let leg = Leg { slot: 0, number: 1 };
        link.post(&race, leg, Transport::Tcp, EdnsUse::With, now).unwrap();
        let stream = Rc::clone(&link.streams.borrow().0[0]);
        let mut framed = Vec::new();
        stream.queue.take(&mut framed);
        let newer = stream.in_flight.borrow().key(u16::from_be_bytes([framed[2], framed[3]])).unwrap();
        let older = FlightKey { sender: newer.sender - 1, ..newer };
        link.receive_alone(&stream, older, Err(RequestError::Closed), now);
        assert_eq!(stream.in_flight.borrow().len(), 1, "it is still asked");
        link.receive_alone(&stream, newer, Err(RequestError::Closed), now);
        assert!(stream.in_flight.borrow().is_empty());
    });
}

#[test]
fn a_server_that_sends_what_nobody_asked_for_is_cut_off_after_a_few() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let group = group_of(ServerSpec::plain(Transport::Tcp, listener.local_addr().unwrap()));
        let client = UpstreamClient::new(WorkerNumber::ALONE);
        let link = client.link(group.servers().next().unwrap());
        let (race, now) = (Race::new(&query(), &group, Role::Traffic, Moment::default()), Moment::now());
        link.post(&race, Leg { slot: 0, number: 1 }, Transport::Tcp, EdnsUse::With, now).unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.read_u16().await.unwrap();
        // Empty frames: far more than any buffer on the way takes, so that only an end of the connection ends this.
        let frames = vec![0; 1 << 20];
        let flood = async {
            for _ in 0..64 {
                if server.write_all(&frames).await.is_err() {
                    return true;
                }
            }
            false
        };
        let is_cut_off = tokio::time::timeout(Duration::from_secs(30), flood).await.unwrap();
        assert!(is_cut_off, "it was read to the end");
    });
}

#[test]
fn an_idle_encrypted_connection_ends_with_a_goodbye() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = Identity { name: None, roots: Roots::from_pem(certificate.pem().as_bytes()).unwrap() };
        let server = ServerSpec::encrypted(Transport::Tls, listener.local_addr().unwrap(), identity);
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let far_end = tokio::task::spawn_local(async move {
            let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut framed = vec![0; usize::from(tls.read_u16().await.unwrap())];
            tls.read_exact(&mut framed).await.unwrap();
            // An empty NOERROR answer: the question without its OPT.
            let name = framed[12..].iter().position(|&octet| octet == 0).unwrap();
            framed.truncate(12 + name + 5);
            (framed[2], framed[3], framed[11]) = (0x81, 0x80, 0);
            tls.write_u16(framed.len().try_into().unwrap()).await.unwrap();
            tls.write_all(&framed).await.unwrap();
            tls.flush().await.unwrap();
            // Without a goodbye this is an error.
            tls.read(&mut [0]).await.unwrap()
        });
        let group = group_of(server);
        let client = UpstreamClient::new(WorkerNumber::ALONE);
        let now = Moment::now();
        client.exchange(&group, &Marks::default(), &query(), now, now + Duration::from_secs(5)).await.unwrap();
        let link = client.link(group.servers().next().unwrap());
        tend(&link, Duration::from_secs(1), Moment::now() + IDLE_ENCRYPTED - Duration::from_secs(1));
        assert!(link.has_stream(), "it is not idle for long yet");
        tend(&link, Duration::from_secs(1), Moment::now() + IDLE_ENCRYPTED);
        assert!(!link.has_stream(), "no query goes on it any more");
        assert_eq!(far_end.await.unwrap(), 0);
    });
}
