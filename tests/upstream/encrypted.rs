//! Servers over encrypted transports: which are trusted, which connections are kept, and that no query fails for
//! either.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use hickory_proto::op::Message;
use rstest::rstest;
use tidegate::{
    clock::Moment,
    tls::{HandshakeError, Roots},
    upstream::{
        ConnectError, Group, HealthState, Identity, ServerSpec, TierMember,
        tally::{MismatchReason, QueryResult},
    },
    wire::Transport,
};

use crate::{
    address, ask, build, client, on_a_worker, server, spec,
    support::{
        authority::{Authority, Validity},
        encrypted::{Encrypted, Manner, Speaks, address_of},
    },
};

const NAME: &str = "dns.corp.example";
const CA: &str = "the site's CA";

/// An authority and a good server.
struct Site {
    speaks: Speaks,
    authority: Authority,
    good: Encrypted,
}

impl Site {
    fn new(speaks: Speaks) -> Self {
        let authority = Authority::new(CA);
        let good = Encrypted::start(speaks, &authority.issue(NAME, Validity::Now), Manner::Answers);
        Self { speaks, authority, good }
    }

    fn server(&self, manner: Manner) -> Encrypted {
        Encrypted::start(self.speaks, &self.authority.issue(NAME, Validity::Now), manner)
    }

    fn entry(&self, server: &Encrypted) -> TierMember {
        entry(self.speaks, server, Some(NAME), &self.authority)
    }

    /// A group of this server, and the good one behind it.
    fn behind(&self, server: &Encrypted) -> Arc<Group> {
        build(&spec(&[&[self.entry(server), self.entry(&self.good)]]))
    }
}

fn entry(speaks: Speaks, server: &Encrypted, name: Option<&str>, authority: &Authority) -> TierMember {
    let roots = Roots::from_pem(authority.pem().as_bytes()).unwrap();
    let identity = Identity { name: name.map(str::to_owned), roots };
    TierMember::Server(ServerSpec::encrypted(transport(speaks), server.address, identity))
}

/// A group of only this server.
fn alone(entry: TierMember) -> Arc<Group> {
    build(&spec(&[&[entry]]))
}

const fn transport(speaks: Speaks) -> Transport {
    match speaks {
        Speaks::Tls => Transport::Tls,
        Speaks::Https => Transport::Https,
        Speaks::Quic => Transport::Quic,
    }
}

fn expected(name: &str) -> Ipv4Addr {
    address_of(name).parse().unwrap()
}

#[rstest]
fn a_query_is_answered_on_one_kept_connection(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let group = alone(site.entry(&site.good));
    on_a_worker(async {
        let client = client();
        for at in 0..10 {
            let name = format!("n{at}.example");
            let exchanged = ask(&client, &group, &name).await.unwrap();
            assert_eq!((address(&exchanged), exchanged.transport), (expected(&name), transport(speaks)));
        }
    });
    assert_eq!(site.good.connections(), 1);
    let protocol = match speaks {
        Speaks::Tls => "dot",
        Speaks::Https => "h2",
        Speaks::Quic => "doq",
    };
    let greeting = &site.good.greetings()[0];
    assert_eq!((greeting.name.as_deref(), greeting.protocol.as_deref()), (Some(NAME), Some(protocol)));
    assert_eq!(server(&group, 0).tally.queries(transport(speaks), QueryResult::Ok), 10);
    assert_eq!(server(&group, 0).connect_error(), None);
}

/// RFC 8467 4.1.
#[rstest]
fn queries_are_padded_to_a_multiple_of_128_octets(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let group = build(&spec(&[&[site.entry(&site.good)]]));
    on_a_worker(async {
        let client = client();
        for name in ["a.example".to_owned(), format!("{}example", "abcdefghi.".repeat(9))] {
            ask(&client, &group, &name).await.unwrap();
            let query = site.good.last_query();
            assert_eq!(query.len() % 128, 0);
            let edns = Message::from_vec(&query).unwrap().edns.unwrap();
            assert!(edns.options().as_ref().iter().any(|(code, _)| u16::from(*code) == 12));
        }
    });
}

#[rstest]
fn queries_leave_from_the_source(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let TierMember::Server(mut server) = site.entry(&site.good) else { panic!("it is one") };
    server.via.source = Some("127.0.0.9".parse().unwrap());
    let group = build(&spec(&[&[TierMember::Server(server)]]));
    on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    assert_eq!(site.good.greetings()[0].from.to_string(), "127.0.0.9");
}

#[rstest]
fn without_a_name_the_address_is_what_the_certificate_must_be_for(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let authority = Authority::new(CA);
    let by_address = Encrypted::start(speaks, &authority.issue("127.0.0.1", Validity::Now), Manner::Answers);
    let by_name = Encrypted::start(speaks, &authority.issue(NAME, Validity::Now), Manner::Answers);
    let good = build(&spec(&[&[entry(speaks, &by_address, None, &authority)]]));
    let bad = build(&spec(&[&[entry(speaks, &by_name, None, &authority)]]));
    on_a_worker(async {
        ask(&client(), &good, "a.example").await.unwrap();
        ask(&client(), &bad, "a.example").await.unwrap_err();
    });
    assert_eq!(by_address.greetings()[0].name, None, "SNI has no addresses");
    let told = server(&bad, 0).connect_error().unwrap().to_string();
    match speaks {
        Speaks::Tls | Speaks::Https => {
            assert_eq!(told, "its certificate is not for 127.0.0.1, but for dns.corp.example");
        }
        Speaks::Quic => assert!(told.contains("not valid for name \"127.0.0.1\""), "{told}"),
    }
}

#[rstest]
#[case::another_name(CA, "other.example", Validity::Now, None)]
#[case::another_ca("another CA", NAME, Validity::Now, Some(HandshakeError::UnknownIssuer))]
#[case::another_key_of_the_ca(CA, NAME, Validity::Now, Some(HandshakeError::OtherKey))]
#[case::expired(CA, NAME, Validity::Past, Some(HandshakeError::Expired))]
#[case::not_yet(CA, NAME, Validity::Future, Some(HandshakeError::NotYetValid))]
fn a_server_that_is_not_who_it_should_be_gets_no_query(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
    #[case] ca: &str,
    #[case] name: &str,
    #[case] validity: Validity,
    #[case] fault: Option<HandshakeError>,
) {
    let site = Site::new(speaks);
    let stranger = Authority::new(ca);
    let is_foreign = matches!(fault, Some(HandshakeError::UnknownIssuer | HandshakeError::OtherKey));
    let issuer = if is_foreign { &stranger } else { &site.authority };
    let bad = Encrypted::start(speaks, &issuer.issue(name, validity), Manner::Answers);
    let group = site.behind(&bad);
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(exchanged.server.spec().address, site.good.address);
    });
    let bad_server = server(&group, 0);
    assert_eq!(bad.queries(), 0);
    assert_eq!(bad_server.tally.queries(transport(speaks), QueryResult::Network), 1);
    assert_eq!(bad_server.state(), HealthState::Down);
    let presented = vec![name.to_owned()];
    let fault = fault.unwrap_or(HandshakeError::OtherName { wanted: NAME.to_owned(), presented });
    match (speaks, bad_server.connect_error()) {
        (Speaks::Quic, Some(ConnectError::Handshake(told))) => assert!(told.is_about_identity(), "{told}"),
        (_, error) => assert_eq!(error, Some(ConnectError::Handshake(fault))),
    }
}

#[rstest]
fn a_connection_closed_behind_each_answer_is_renewed_and_the_session_resumed(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new(speaks);
    let closing = site.server(Manner::OneEach);
    let group = alone(site.entry(&closing));
    on_a_worker(async {
        let client = client();
        for at in 0..10 {
            ask(&client, &group, &format!("n{at}.example")).await.unwrap();
        }
    });
    // The goodbye of HTTP/2 may cross the next query, which is then answered.
    let least = if speaks == Speaks::Https { 2 } else { 10 };
    assert!(closing.connections() >= least, "{}", closing.connections());
    assert_eq!(closing.resumed(), closing.connections() - 1);
}

#[rstest]
fn another_courier_resumes_the_session_too(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let group = build(&spec(&[&[site.entry(&site.good)]]));
    for _ in 0..3 {
        on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    }
    assert_eq!((site.good.connections(), site.good.resumed()), (3, 2));
}

#[rstest]
fn anothers_answer_is_a_mismatch_and_the_other_server_answers(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new(speaks);
    let bad = site.server(Manner::AnswersAnother);
    let group = site.behind(&bad);
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(address(&exchanged), expected("a.example"));
        assert_eq!(exchanged.server.spec().address, site.good.address);
    });
    assert_eq!(server(&group, 0).tally.mismatches(MismatchReason::Question), 1);
}

#[rstest]
fn answers_out_of_order_find_their_queries(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let backwards = site.server(Manner::Backwards(20));
    let mut spec = spec(&[&[site.entry(&backwards)]]);
    // They wait for the last of them.
    (spec.limits.attempts, spec.limits.timeout) = (1, Duration::from_secs(3));
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..20 {
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move {
                let name = format!("n{at}.example");
                assert_eq!(address(&ask(&client, &group, &name).await.unwrap()), expected(&name));
            });
        }
        assert_eq!(asking.join_all().await.len(), 20);
    });
    assert_eq!((backwards.connections(), backwards.queries()), (1, 20));
}

#[rstest]
#[case::deaf(Manner::Deaf)]
#[case::mute(Manner::Mute)]
fn a_server_that_stops_reading_holds_no_query_up(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
    #[case] manner: Manner,
) {
    let site = Site::new(speaks);
    let bad = site.server(manner);
    let mut spec = spec(&[&[site.entry(&bad), site.entry(&site.good)]]);
    // A busy machine takes its time for two handshakes.
    spec.limits.timeout = Duration::from_secs(3);
    let group = build(&spec);
    on_a_worker(async {
        let start = Moment::now();
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(exchanged.server.spec().address, site.good.address);
        assert!(Moment::now().since(start) < group.limits().timeout, "within the try's limit");
    });
}

#[rstest]
fn a_connection_that_died_is_given_up_and_another_one_serves(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new(speaks);
    let moody = site.server(Manner::Answers);
    let group = build(&spec(&[&[site.entry(&moody)]]));
    on_a_worker(async {
        let client = client();
        ask(&client, &group, "a.example").await.unwrap();
        moody.behave(Manner::Deaf);
        ask(&client, &group, "b.example").await.unwrap_err();
        moody.behave(Manner::Answers);
        for _ in 0..20 {
            if ask(&client, &group, "c.example").await.is_ok() {
                break;
            }
        }
        ask(&client, &group, "d.example").await.unwrap();
    });
    assert!(moody.connections() > 1);
}

#[rstest]
fn no_query_is_lost_to_a_connection_that_closes_meanwhile(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new(speaks);
    let moody = site.server(Manner::Answers);
    let group = build(&spec(&[&[site.entry(&moody)]]));
    on_a_worker(async {
        let client = client();
        for round in 0..50 {
            // The connection may be closing while the next query is sent.
            moody.behave(if round % 2 == 0 { Manner::OneEach } else { Manner::Answers });
            let exchanged = ask(&client, &group, &format!("n{round}.example")).await.unwrap();
            assert_eq!(address(&exchanged), expected(&format!("n{round}.example")));
        }
    });
    assert!(moody.connections() > 10, "{}", moody.connections());
}

#[test]
fn an_http_status_that_is_no_answer_sends_the_query_elsewhere() {
    let site = Site::new(Speaks::Https);
    let bad = site.server(Manner::Status(503));
    let group = site.behind(&bad);
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(exchanged.server.spec().address, site.good.address);
    });
    assert_eq!(server(&group, 0).connect_error(), Some(ConnectError::Status(503)));
    assert_eq!(server(&group, 0).tally.queries(Transport::Https, QueryResult::Malformed), 1);
    assert_eq!(server(&group, 0).state(), HealthState::Suspect);
}

#[rstest]
#[case::some(100, 200)]
#[case::all(1000, 0)]
fn time_in_a_cache_of_http_is_off_the_ttl(#[case] age: u32, #[case] left: u32) {
    let site = Site::new(Speaks::Https);
    let cached = site.server(Manner::Aged(age));
    let group = build(&spec(&[&[site.entry(&cached)]]));
    let exchanged = on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    assert_eq!(exchanged.response.least_ttl().map(|ttl| ttl.seconds()), Some(left));
}

/// They are handled below DNS and HTTP, and cost a key derivation each.
#[rstest]
fn a_server_that_sends_session_tickets_on_and_on_is_cut_off(#[values(Speaks::Tls, Speaks::Https)] speaks: Speaks) {
    let site = Site::new(speaks);
    let exchange = |tickets: usize| {
        let server = site.server(Manner::Tickets(tickets));
        let mut spec = spec(&[&[site.entry(&server)]]);
        // A machine under load is to be given time.
        (spec.limits.attempts, spec.limits.timeout) = (1, Duration::from_secs(4));
        let group = build(&spec);
        on_a_worker(async { ask(&client(), &group, "a.example").await.is_ok() })
    };
    assert!(exchange(100));
    assert!(!exchange(10_000));
}

#[rstest]
fn many_queries_at_once_share_one_connection(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let mut spec = spec(&[&[site.entry(&site.good)]]);
    // A machine under load is to be given time.
    (spec.limits.attempts, spec.limits.timeout) = (1, Duration::from_secs(3));
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..500 {
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move {
                let name = format!("n{at}.example");
                assert_eq!(address(&ask(&client, &group, &name).await.unwrap()), expected(&name));
            });
        }
        assert_eq!(asking.join_all().await.len(), 500);
    });
    assert_eq!((site.good.connections(), site.good.queries()), (1, 500));
}

#[rstest]
fn a_server_that_only_listens_holds_no_query_up(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new(speaks);
    let bad = site.server(Manner::Silent);
    let group = site.behind(&bad);
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(exchanged.server.spec().address, site.good.address);
    });
}

#[test]
fn a_request_that_is_given_up_sends_the_query_elsewhere() {
    let site = Site::new(Speaks::Https);
    let bad = site.server(Manner::Resets);
    let group = site.behind(&bad);
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(exchanged.server.spec().address, site.good.address);
    });
    assert_eq!(server(&group, 0).tally.queries(Transport::Https, QueryResult::Network), 1);
}

#[rstest]
fn a_stream_that_is_reset_again_and_again_is_asked_within_attempts_and_budget(
    #[values(Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new(speaks);
    let moody = site.server(Manner::Answers);
    let group = alone(site.entry(&moody));
    on_a_worker(async {
        let client = client();
        ask(&client, &group, "a.example").await.unwrap();
        moody.behave(Manner::Resets);
        ask(&client, &group, "b.example").await.unwrap_err();
    });
    let resets = server(&group, 0).tally.queries(transport(speaks), QueryResult::Network);
    assert!(moody.queries() <= 4, "{} requests for two queries", moody.queries());
    assert!((1..=3).contains(&resets), "{resets} queries for one");
}

#[test]
fn behind_a_goodbye_over_http_queries_go_on_a_new_connection() {
    let site = Site::new(Speaks::Https);
    let moody = site.server(Manner::Answers);
    let group = alone(site.entry(&moody));
    on_a_worker(async {
        let client = client();
        ask(&client, &group, "a.example").await.unwrap();
        moody.behave(Manner::Leaves);
        let held = tokio::task::spawn_local({
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            async move { ask(&client, &group, "b.example").await }
        });
        crate::until("the held query", || moody.queries() == 2).await;
        moody.behave(Manner::Answers);
        for at in 0..10 {
            ask(&client, &group, &format!("n{at}.example")).await.unwrap();
        }
        held.abort();
    });
    assert_eq!(moody.connections(), 2);
}

/// Between a client and a server, losing the client's first datagrams.
fn lossy_relay(server: SocketAddr, lost: usize) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
    back.connect(server).unwrap();
    let address = front.local_addr().unwrap();
    let client = Arc::new(std::sync::Mutex::new(None));
    let (to_client, from_server, known) = (front.try_clone().unwrap(), back.try_clone().unwrap(), Arc::clone(&client));
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length) = from_server.recv(&mut buffer) {
            let Some(client) = *known.lock().unwrap() else { continue };
            drop(to_client.send_to(&buffer[..length], client));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        for number in 0.. {
            let Ok((length, from)) = front.recv_from(&mut buffer) else { return };
            *client.lock().unwrap() = Some(from);
            if number >= lost {
                drop(back.send(&buffer[..length]));
            }
        }
    });
    address
}

#[test]
fn a_lost_first_packet_over_quic_is_no_lost_query() {
    let site = Site::new(Speaks::Quic);
    let TierMember::Server(mut relayed) = site.entry(&site.good) else { panic!("it is one") };
    relayed.address = lossy_relay(site.good.address, 1);
    let mut spec = spec(&[&[TierMember::Server(relayed)]]);
    // A busy machine is late by itself.
    spec.limits.timeout = Duration::from_secs(3);
    let group = build(&spec);
    on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
}
