//! How long clients may keep what they get: limits hold for every record, and begin only once along a chain.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use rstest::rstest;

use crate::support::{
    client::Answer,
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

fn ttls(answer: &Answer) -> Vec<(RecordType, u32)> {
    let records = answer.message.answers.iter().chain(&answer.message.authorities);
    records.map(|record| (record.record_type(), record.ttl)).collect()
}

#[rstest]
#[case::beside_a_record_that_is_not_kept(&[604_800, 0], &[3600, 0])]
#[case::with_the_highest_bit_set(&[0x8000_0001], &[3600])]
#[case::with_all_bits_set(&[u32::MAX], &[3600])]
#[case::both(&[u32::MAX, 0, 60], &[3600, 0, 60])]
fn no_record_is_told_longer_than_the_cap(#[case] sent: &[u32], #[case] told: &[u32]) {
    let upstream = Upstream::start();
    let records = sent.iter().zip(1..).map(|(ttl, n)| Record::a("@", *ttl, &format!("10.0.0.{n}")));
    upstream.on("www.example.", rtype::A, Reply::of(records));
    let config = Config::forwarding_to(&[&upstream]).section("cache", "max_ttl = \"1h\"\nrotate = false");
    let answer = Tidegate::start(&config).client().ask(&Query::a("www.example."));
    assert_eq!(answer.answers().iter().map(|record| record.ttl).collect::<Vec<_>>(), told);
}

#[rstest]
#[case::nxdomain(Reply::nxdomain(300), ResponseCode::NXDomain)]
#[case::nodata(Reply::nodata(300), ResponseCode::NoError)]
fn clients_keep_no_negative_answer_where_none_is_kept(#[case] reply: Reply, #[case] rcode: ResponseCode) {
    let upstream = Upstream::start();
    upstream.on("none.example.", rtype::A, reply);
    let config = Config::forwarding_to(&[&upstream]).section("cache", "negative_ttl = \"0s\"");
    let tidegate = Tidegate::start(&config);
    for _ in 0..2 {
        let answer = tidegate.client().ask(&Query::a("none.example."));
        assert_eq!((answer.rcode(), ttls(&answer)), (rcode, vec![(RecordType::SOA, 0)]));
    }
    assert_eq!(upstream.count("none.example."), 2);
}

/// Two rules: aliases below example, their targets below test.
fn start(cache: &str) -> (Upstream, Upstream, Tidegate) {
    let (aliases, targets) = (Upstream::start(), Upstream::start());
    for name in ["one", "two", "three"] {
        let alias = Record::cname("@", 3600, "target.test.");
        aliases.on(&format!("{name}.example."), rtype::A, Reply::of([alias]));
    }
    let config = Config::new()
        .section("cache", cache)
        .upstream("aliases", &[&aliases], ONE_PATIENT_TRY)
        .upstream("targets", &[&targets], ONE_PATIENT_TRY)
        .forward("aliases", &["example"], "aliases", "")
        .forward("targets", &["test"], "targets", "");
    let tidegate = Tidegate::start(&config);
    (aliases, targets, tidegate)
}

#[rstest]
#[case::raised(Reply::of([Record::a("@", 1, "10.0.0.1")]), "min_ttl = \"20s\"\nprefetch = false", 20)]
#[case::without_soa(Reply::rcode(3), "no_soa_ttl = \"20s\"\nprefetch = false", 20)]
fn limits_do_not_begin_again_where_a_chain_is_joined(#[case] reply: Reply, #[case] cache: &str, #[case] limit: u32) {
    let (_aliases, targets, tidegate) = start(cache);
    targets.on("target.test.", rtype::A, reply);
    let remaining = |name: &str| {
        let answer = tidegate.client().ask(&Query::a(name));
        ttls(&answer).into_iter().map(|(_, ttl)| ttl).min().expect("a record")
    };
    let first = remaining("one.example.");
    assert!(first <= limit, "{first}");
    // The target has grown older: so has whatever leads to it.
    eventually("an aged target", || {
        let two = tidegate.client().ask(&Query::a("target.test."));
        two.answers().first().map_or_else(
            || !two.message.authorities.is_empty() || remaining_of(&tidegate) < limit - 1,
            |record| record.ttl < limit - 1,
        )
    });
    let late = remaining("three.example.");
    assert!(late < limit, "{late} for an answer that was good for {limit} s a while ago");
}

/// What is left of the lifetime of one.example's entry, which has no record but its alias: by the alias's own TTL.
fn remaining_of(tidegate: &Tidegate) -> u32 {
    tidegate.client().ask(&Query::a("one.example.")).ttl()
}

#[test]
fn the_end_of_a_chain_bounds_what_is_kept_of_it() {
    let (_aliases, targets, tidegate) = start("prefetch = false");
    targets.on("target.test.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    assert_eq!(tidegate.client().ask(&Query::a("one.example.")).address_texts(), ["10.0.0.1"]);
    targets.on("target.test.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.2")]));
    eventually("the new address, by way of each alias", || {
        ["one", "two"]
            .iter()
            .all(|name| tidegate.client().ask(&Query::a(&format!("{name}.example."))).address_texts() == ["10.0.0.2"])
    });
}

#[test]
fn a_tail_that_is_not_kept_is_asked_for_by_each() {
    let (_aliases, targets, tidegate) = start("");
    targets.on("target.test.", rtype::A, Reply::of([Record::a("@", 0, "10.0.0.1")]));
    for n in 1..=3 {
        let answer = tidegate.client().ask(&Query::a("one.example."));
        assert_eq!(answer.answers().last().expect("an address").ttl, 0);
        assert_eq!(targets.count("target.test."), n);
    }
}
