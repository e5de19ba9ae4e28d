//! Whole answers are kept and given again as if they were fresh, only older.

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

fn start(cache: &str) -> (Upstream, Tidegate) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("cache", cache));
    (upstream, tidegate)
}

/// An upstream answer for one name whose record lives this long.
fn living(ttl: u32) -> Reply {
    Reply::of([Record::a("@", ttl, "10.0.0.5")])
}

#[test]
fn the_second_query_is_a_hit() {
    let (upstream, tidegate) = start("");
    let first = tidegate.client().ask(&Query::a("www.example."));
    let hits = tidegate.hits();
    let second = tidegate.client().ask(&Query::a("www.example."));

    assert_eq!(second.address_texts(), first.address_texts());
    assert_eq!(upstream.count("www.example."), 1);
    tidegate.await_metric("tidegate_cache_hits_total", &[], hits + 1.0);
    assert_eq!(tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(upstream.count("www.example."), 1, "both transports share the cache");
}

#[test]
fn letter_case_is_no_part_of_the_key_and_comes_back_as_it_was_sent() {
    let (upstream, tidegate) = start("");
    for name in ["www.example.", "WWW.EXAMPLE.", "wWw.ExAmPlE."] {
        let query = Query::a(name);
        let answer = tidegate.client().ask(&query);
        assert!(answer.repeats(&query), "{name}");
        assert_eq!(answer.address_texts(), ["10.0.0.1"], "{name}");
        assert_eq!(answer.answers()[0].name.to_ascii(), name, "the owner follows the question");
    }
    assert_eq!(upstream.count("www.example."), 1);
}

#[test]
fn types_are_kept_apart() {
    let (upstream, tidegate) = start("");
    upstream.on("www.example.", rtype::AAAA, Reply::of([Record::aaaa("@", 300, "fd00::1")]));
    for _ in 0..2 {
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        assert_eq!(tidegate.client().ask(&Query::new("www.example.", rtype::AAAA)).address_texts(), ["fd00::1"]);
    }
    assert_eq!(upstream.count("www.example."), 2);
}

#[test]
fn ttls_count_down() {
    let (upstream, tidegate) = start("");
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).ttl(), 300);
    eventually("a TTL below the first", || tidegate.client().ask(&Query::a("www.example.")).ttl() < 300);
    assert_eq!(upstream.count("www.example."), 1);
}

#[test]
fn an_expired_answer_is_asked_for_again() {
    let (upstream, tidegate) = start("prefetch = false");
    upstream.on("www.example.", rtype::A, living(1));
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.5"]);
    upstream.on("www.example.", rtype::A, Reply::a("10.0.0.6"));

    eventually("the new address", || tidegate.client().ask(&Query::a("www.example.")).address_texts() == ["10.0.0.6"]);
    assert_eq!(upstream.count("www.example."), 2);
}

#[test]
fn an_answer_with_ttl_zero_is_not_kept() {
    let (upstream, tidegate) = start("");
    upstream.on("www.example.", rtype::A, living(0));
    for asked in 1..=3 {
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).ttl(), 0);
        assert_eq!(upstream.count("www.example."), asked);
    }
}

/// RFC 8767 4: positive, and no longer than anything else.
#[test]
fn a_ttl_with_its_upper_bit_set_is_capped() {
    let (upstream, tidegate) = start("");
    upstream.on("www.example.", rtype::A, living(0x8000_0001));
    for _ in 0..2 {
        let ttl = tidegate.client().ask(&Query::a("www.example.")).ttl();
        assert!((86_395..=86_400).contains(&ttl), "{ttl}");
    }
    assert_eq!(upstream.count("www.example."), 1);
}

#[test]
fn ttls_are_held_between_min_and_max() {
    let (upstream, tidegate) = start("min_ttl = \"60s\"\nmax_ttl = \"2m\"");
    upstream.on("short.example.", rtype::A, living(1));
    upstream.on("long.example.", rtype::A, living(86_400));

    for turn in ["fresh", "cached"] {
        let ttl = |name| tidegate.client().ask(&Query::a(name)).ttl();
        assert!((55..=60).contains(&ttl("short.example.")), "{turn}");
        assert!((115..=120).contains(&ttl("long.example.")), "{turn}");
    }
    assert_eq!(upstream.count("short.example."), 1);
}

#[test]
fn a_chain_lives_as_long_as_its_shortest_record() {
    let (upstream, tidegate) = start("prefetch = false");
    let chain = [
        Record::cname("@", 300, "b.example."),
        Record::cname("b.example.", 1, "c.example."),
        Record::a("c.example.", 300, "10.0.0.7"),
    ];
    upstream.on("a.example.", rtype::A, Reply::of(chain));
    let answer = tidegate.client().ask(&Query::a("a.example."));

    assert_eq!(answer.aliases(), ["b.example.", "c.example."]);
    assert_eq!(answer.address_texts(), ["10.0.0.7"]);
    upstream.on("a.example.", rtype::A, Reply::a("10.0.0.8"));
    eventually("the chain is asked for again", || {
        tidegate.client().ask(&Query::a("a.example.")).address_texts() == ["10.0.0.8"]
    });
}

#[test]
fn without_a_cache_every_query_is_forwarded() {
    let (upstream, tidegate) = start("size = \"0\"");
    for asked in 1..=3 {
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        assert_eq!(upstream.count("www.example."), asked);
    }
}

#[test]
fn one_upstream_query_serves_all_who_ask_the_same() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("www.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let config = Config::new()
        .section("server", "workers = 2")
        .upstream("site", &[&upstream], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);

    let sockets: Vec<_> = (0..100).map(|_| tidegate.client().socket()).collect();
    let queries: Vec<Query> = sockets.iter().map(|_| Query::a("www.example.").edns()).collect();
    for (socket, query) in sockets.iter().zip(&queries) {
        socket.send(query);
    }
    tidegate.await_metric("tidegate_queries_total", &[("transport", "udp")], 100.0);
    upstream.wait_for("www.example.", 1);
    gate.open();

    for (socket, query) in sockets.iter().zip(&queries) {
        let answer = socket.receive();
        assert_eq!(answer.rcode(), ResponseCode::NoError, "{answer:?}");
        assert_eq!(answer.id(), query.id);
        assert_eq!(answer.address_texts(), ["10.0.0.1"]);
    }
    assert_eq!(upstream.count("www.example."), 1);
    tidegate.await_metric("tidegate_coalesced_total", &[], 99.0);
}

#[test]
fn only_queries_with_the_same_question_share_an_answer() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    for qtype in [rtype::A, rtype::TXT] {
        upstream.on("www.example.", qtype, Script::held(&gate, Reply::nodata(300)));
    }
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));

    let queries = [
        Query::a("www.example.").edns(),
        Query::new("www.example.", rtype::TXT).edns(),
        Query::a("www.example.").dnssec_ok(),
    ];
    let sockets = queries.each_ref().map(|query| {
        let socket = tidegate.client().socket();
        socket.send(query);
        socket
    });
    upstream.wait_for("www.example.", 3);
    gate.open();
    for (socket, query) in sockets.iter().zip(&queries) {
        assert!(socket.receive().repeats(query));
    }
}

#[test]
fn clients_of_a_view_share_nothing_with_others() {
    let (inner, outer) = (Upstream::answering("10.1.0.1"), Upstream::answering("10.2.0.1"));
    let config = Config::new()
        .upstream("inner", &[&inner], ONE_PATIENT_TRY)
        .upstream("outer", &[&outer], ONE_PATIENT_TRY)
        .forward("for-two", &["."], "inner", "clients = [\"127.0.0.2/32\"]")
        .forward("for-all", &["."], "outer", "");
    let tidegate = Tidegate::start(&config);

    let query = Query::a("www.example.");
    for turn in ["fresh", "cached"] {
        assert_eq!(tidegate.client().at("127.0.0.2").ask(&query).address_texts(), ["10.1.0.1"], "{turn}");
        assert_eq!(tidegate.client().at("127.0.0.1").ask(&query).address_texts(), ["10.2.0.1"], "{turn}");
    }
    assert_eq!((inner.count("www.example."), outer.count("www.example.")), (1, 1));
}
