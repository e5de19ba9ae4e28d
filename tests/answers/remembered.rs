//! What leads to no answer is remembered for `failure_ttl`, and not asked again and again (RFC 9520): refusals of the guard
//! and loops too. Upstream queries are billed.

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const GUARD: &str = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";

fn start(aliases: &Upstream, targets: &Upstream, failure_ttl: &str) -> Tidegate {
    let config = Config::new()
        .section("cache", &format!("failure_ttl = {failure_ttl:?}"))
        .upstream("aliases", &[aliases], ONE_PATIENT_TRY)
        .upstream("targets", &[targets], ONE_PATIENT_TRY)
        .forward("aliases", &["example"], "aliases", "")
        .forward("aws", &["test"], "targets", GUARD);
    Tidegate::start(&config)
}

#[rstest]
#[case::asked_itself("www.test.")]
#[case::by_an_alias("www.example.")]
fn a_refusal_of_the_guard_is_remembered_in_its_own_words(#[case] name: &str) {
    let (aliases, targets) = (Upstream::start(), Upstream::answering("192.0.2.1"));
    aliases.on("www.example.", rtype::A, Reply::of([Record::cname("@", 300, "www.test.")]));
    let tidegate = start(&aliases, &targets, "60s");
    for turn in 0..20 {
        let answer = tidegate.client().ask(&Query::a(name).edns());
        assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(15)), "{turn}");
        let text = answer.ede_text();
        assert!(text.contains("aws") && text.contains("192.0.2.1"), "{turn}: {text}");
    }
    assert_eq!(targets.count("www.test."), 1);
    assert!(aliases.count("www.example.") <= 1);
}

#[test]
fn a_refusal_is_forgotten_in_time() {
    let (aliases, targets) = (Upstream::start(), Upstream::answering("192.0.2.1"));
    let tidegate = start(&aliases, &targets, "1s");
    assert_eq!(tidegate.client().ask(&Query::a("www.test.").edns()).verdict(), (ResponseCode::ServFail, Some(15)));
    targets.on("www.test.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the private address", || tidegate.client().ask(&Query::a("www.test.")).address_texts() == ["10.0.0.1"]);
}

#[rstest]
#[case::within_an_answer(&[("a.example.", &["b.example.", "a.example."][..])])]
#[case::across_rules(&[("a.example.", &["a.test."][..]), ("a.test.", &["a.example."][..])])]
fn a_loop_is_remembered(#[case] answers: &[(&str, &[&str])]) {
    let (aliases, targets) = (Upstream::start(), Upstream::start());
    for (name, chain) in answers {
        let owners = std::iter::once("@").chain(chain.iter().copied());
        let reply = Reply::of(owners.zip(*chain).map(|(owner, target)| Record::cname(owner, 300, target)));
        if name.ends_with("test.") { &targets } else { &aliases }.on(name, rtype::A, reply);
    }
    let tidegate = start(&aliases, &targets, "60s");
    for turn in 0..20 {
        let answer = tidegate.client().ask(&Query::a("a.example.").edns());
        assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)), "{turn}");
        assert!(answer.ede_text().contains("loop"), "{:?}", answer.ede());
    }
    assert_eq!(aliases.count("a.example."), 1);
    assert!(targets.count("a.test.") <= 1);
}
