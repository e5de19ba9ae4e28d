//! What does not fit a datagram says so and comes whole over TCP (RFC 2181 9, RFC 6891 6.2.5).

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::Config,
    eventually,
    query::{Query, rtype},
    records::Reply,
    script::Script,
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

fn start() -> (Upstream, Tidegate) {
    let upstream = Upstream::start();
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    (upstream, tidegate)
}

#[test]
fn an_answer_that_does_not_fit_is_truncated_and_whole_over_tcp() {
    let (upstream, tidegate) = start();
    upstream.on("small.example.", rtype::A, Reply::addresses(20));
    upstream.on("middle.example.", rtype::A, Reply::addresses(60));
    upstream.on("large.example.", rtype::A, Reply::addresses(200));
    let client = tidegate.client();
    let fits = |name: &str, payload: Option<u16>| {
        let query = Query::a(name);
        let query = payload.map_or_else(|| query.clone(), |payload| query.clone().payload(payload));
        let answer = client.ask(&query);
        assert_eq!(answer.rcode(), ResponseCode::NoError, "{name} {payload:?}");
        let limit = usize::from(payload.unwrap_or(512)).clamp(512, 1232);
        assert!(answer.bytes.len() <= limit, "{name} {payload:?}: {} octets", answer.bytes.len());
        assert!(answer.repeats(&query), "{name} {payload:?}");
        !answer.truncated()
    };

    for turn in ["fresh", "cached"] {
        assert!(fits("small.example.", None), "{turn}");
        assert!(!fits("middle.example.", None), "{turn}");
        assert!(!fits("middle.example.", Some(512)), "{turn}");
        assert!(!fits("middle.example.", Some(100)), "less than 512 means 512, {turn}");
        assert!(fits("middle.example.", Some(1232)), "{turn}");
        assert!(fits("middle.example.", Some(65_535)), "{turn}");
        assert!(!fits("large.example.", Some(1232)), "{turn}");
        assert!(!fits("large.example.", Some(4096)), "never above udp_payload, {turn}");
        for (name, count) in [("middle.example.", 60), ("large.example.", 200)] {
            let whole = client.ask_over_tcp(&Query::a(name));
            assert!(!whole.truncated(), "{name} {turn}");
            assert_eq!(whole.addresses().len(), count, "{name} {turn}");
        }
    }
    let over_tcp = upstream.seen("large.example.").iter().filter(|seen| seen.transport == Transport::Tcp).count();
    assert_eq!(over_tcp, 1, "TC sent us to TCP once, then the cache had it");
}

#[test]
fn an_answer_with_tc_is_asked_for_again_over_tcp() {
    let (upstream, tidegate) = start();
    upstream.on_transport("www.example.", rtype::A, Transport::Udp, Reply::a("10.0.0.1").truncated());
    upstream.on_transport("www.example.", rtype::A, Transport::Tcp, Reply::addresses(3));
    let answer = tidegate.client().ask(&Query::a("www.example."));

    assert!(!answer.truncated());
    assert_eq!(answer.addresses().len(), 3);
    let transports: Vec<Transport> = upstream.seen("www.example.").iter().map(|seen| seen.transport).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
}

#[test]
fn a_truncated_answer_is_never_cached() {
    let (upstream, tidegate) = start();
    upstream.on_transport("www.example.", rtype::A, Transport::Udp, Reply::a("10.0.0.1").truncated());
    upstream.on_transport("www.example.", rtype::A, Transport::Tcp, Script::close());
    let client = tidegate.client();

    let first = client.ask(&Query::a("www.example."));
    assert!(first.truncated() || first.rcode() == ResponseCode::ServFail, "a part is not the whole: {first:?}");
    upstream.on_transport("www.example.", rtype::A, Transport::Tcp, Reply::addresses(3));
    // The failure is remembered for two seconds; what must never come is the part.
    eventually("the whole answer", || {
        let answer = client.ask(&Query::a("www.example."));
        let whole = answer.addresses().len() == 3;
        assert!(whole || answer.truncated() || answer.rcode() == ResponseCode::ServFail, "{answer:?}");
        whole
    });
}

#[test]
fn a_larger_udp_payload_is_honoured_and_advertised() {
    let upstream = Upstream::start();
    upstream.on("large.example.", rtype::A, Reply::addresses(200));
    let config = Config::forwarding_to(&[&upstream]).section("server", "udp_payload = 4096");
    let tidegate = Tidegate::start(&config);

    let answer = tidegate.client().ask(&Query::a("large.example.").payload(4096));
    assert_eq!(answer.addresses().len(), 200);
    assert_eq!(answer.message.edns.as_ref().map(|edns| edns.max_payload()), Some(4096));
    assert!(tidegate.client().ask(&Query::a("large.example.").payload(1232)).truncated());
    let asked_with = upstream.seen("large.example.")[0].message().edns.map(|edns| edns.max_payload());
    assert_eq!(asked_with, Some(4096));
}
