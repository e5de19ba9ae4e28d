//! NXDOMAIN and NODATA are answers, kept by their SOA or without one (RFC 2308).

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record as Parsed},
};
use rstest::rstest;

use crate::support::{
    client::Answer,
    config::Config,
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

fn start(cache: &str) -> (Upstream, Tidegate) {
    let upstream = Upstream::start();
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("cache", cache));
    (upstream, tidegate)
}

fn soa(answer: &Answer) -> Option<&Parsed> {
    answer.message.authorities.iter().find(|record| matches!(record.data, RData::SOA(_)))
}

#[rstest]
#[case::nxdomain(Reply::nxdomain(60), ResponseCode::NXDomain)]
#[case::nodata(Reply::nodata(60), ResponseCode::NoError)]
fn a_negative_answer_is_kept_by_the_least_of_its_soa(#[case] reply: Reply, #[case] rcode: ResponseCode) {
    let (upstream, tidegate) = start("");
    upstream.on("none.example.", rtype::A, reply);

    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::a("none.example."));
        assert_eq!((answer.rcode(), answer.answers().len()), (rcode, 0), "{turn}");
        let ttl = soa(&answer).unwrap_or_else(|| panic!("an SOA, {turn}: {answer:?}")).ttl;
        assert!((55..=60).contains(&ttl), "the SOA's TTL is 3600, its minimum 60, here {ttl}, {turn}");
    }
    assert_eq!(upstream.count("none.example."), 1);
}

#[test]
fn a_negative_answer_expires_by_its_soa() {
    let (upstream, tidegate) = start("prefetch = false");
    upstream.on("soon.example.", rtype::A, Reply::nxdomain(1));
    assert_eq!(tidegate.client().ask(&Query::a("soon.example.")).rcode(), ResponseCode::NXDomain);
    upstream.on("soon.example.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the record that was created", || {
        tidegate.client().ask(&Query::a("soon.example.")).address_texts() == ["10.0.0.1"]
    });
}

#[test]
fn the_cap_for_negatives_shortens_an_soa() {
    let (upstream, tidegate) = start("negative_ttl = \"1s\"\nprefetch = false");
    upstream.on("soon.example.", rtype::A, Reply::nodata(900));
    let answer = tidegate.client().ask(&Query::a("soon.example."));
    assert!(soa(&answer).is_some_and(|soa| soa.ttl <= 1), "{answer:?}");
    upstream.on("soon.example.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the record that was created", || {
        tidegate.client().ask(&Query::a("soon.example.")).address_texts() == ["10.0.0.1"]
    });
}

#[test]
fn a_rule_has_its_own_cap_for_negatives() {
    let upstream = Upstream::start();
    let config = Config::new().upstream("site", &[&upstream], "").forward(
        "everything",
        &["."],
        "site",
        "negative_ttl = \"30s\"",
    );
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&Query::a("none.example."));
    assert!(soa(&answer).is_some_and(|soa| soa.ttl <= 30), "{answer:?}");
}

#[rstest]
#[case::nxdomain(Reply::rcode(3), ResponseCode::NXDomain)]
#[case::nodata(Reply::default(), ResponseCode::NoError)]
fn a_negative_answer_without_soa_is_kept_a_while_and_counted(#[case] reply: Reply, #[case] rcode: ResponseCode) {
    let (upstream, tidegate) = start("no_soa_ttl = \"10s\"");
    upstream.on("none.example.", rtype::A, reply);
    for _ in 0..2 {
        let answer = tidegate.client().ask(&Query::a("none.example."));
        assert_eq!((answer.rcode(), answer.answers().len()), (rcode, 0));
    }
    assert_eq!(upstream.count("none.example."), 1);
    tidegate.await_metric("tidegate_negative_without_soa_total", &[("rule", "everything")], 1.0);
}

#[test]
fn a_negative_answer_without_soa_is_asked_for_again_soon() {
    let (upstream, tidegate) = start("no_soa_ttl = \"1s\"\nprefetch = false");
    upstream.on("none.example.", rtype::A, Reply::rcode(3));
    assert_eq!(tidegate.client().ask(&Query::a("none.example.")).rcode(), ResponseCode::NXDomain);
    upstream.on("none.example.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the record that was created", || {
        tidegate.client().ask(&Query::a("none.example.")).address_texts() == ["10.0.0.1"]
    });
}

#[test]
fn an_alias_to_a_name_that_does_not_exist_keeps_its_alias() {
    let (upstream, tidegate) = start("");
    upstream.on("www.example.", rtype::A, Reply::nxdomain(60).answer(Record::cname("@", 300, "gone.example.")));

    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::a("www.example."));
        assert_eq!(answer.rcode(), ResponseCode::NXDomain, "{turn}");
        assert_eq!(answer.aliases(), ["gone.example."], "{turn}");
    }
    assert_eq!(upstream.count("www.example."), 1);
}
