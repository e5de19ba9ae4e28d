//! How much one client query can make us send.

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype, wire_name},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::{Seen, Upstream},
};

/// Without health probes, which ask for a zone or the root, and probes for loops, whose names begin with a tag.
fn of_clients(upstream: &Upstream, domain: &str) -> Vec<Seen> {
    upstream.all_seen().into_iter().filter(|seen| seen.qtype == rtype::A && seen.name.ends_with(domain)).collect()
}

/// NXNSAttack, CVE-2020-8616 (BIND), CVE-2020-12662 (Unbound), CVE-2020-10995 (PowerDNS); NRDelegation, CVE-2022-3204
/// (Unbound): a referral to hundreds of servers without addresses, each of which was looked up. We look up none.
#[test]
fn a_referral_to_many_servers_costs_one_query() {
    let upstream = Upstream::start();
    let servers =
        (0..200).map(|n| Record::raw("victim.example.", rtype::NS, 300, wire_name(&format!("ns{n}.example."))));
    let referral = servers.fold(Reply::default(), Reply::authority);
    upstream.on_type(rtype::A, referral);
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let answer = tidegate.client().ask_over_tcp(&Query::a("www.victim.example."));
    assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::ServFail, 0));
    let names: Vec<String> = of_clients(&upstream, ".victim.example.").into_iter().map(|seen| seen.name).collect();
    assert!(names.iter().all(|name| name == "www.victim.example.") && names.len() <= 2, "{names:?}");
}

/// CAMP (composed amplification): an alias in one zone leads to an alias in the other and back, each name new. After
/// the eighth turn the query fails; that costs nine queries, however long the chain is.
#[test]
fn aliases_from_rule_to_rule_cost_nine_queries() {
    let (one, two) = (Upstream::start(), Upstream::start());
    for number in 0..60 {
        let (here, there) = if number % 2 == 0 { ("one", "two") } else { ("two", "one") };
        let upstream = if here == "one" { &one } else { &two };
        let alias = Record::cname("@", 300, &format!("n{}.{there}.example.", number + 1));
        upstream.on(&format!("n{number}.{here}.example."), rtype::A, Reply::of([alias]));
    }
    let config = Config::new()
        .upstream("one", &[&one], ONE_PATIENT_TRY)
        .upstream("two", &[&two], ONE_PATIENT_TRY)
        .forward("one", &["one.example"], "one", "")
        .forward("two", &["two.example"], "two", "");
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&Query::a("n0.one.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)));
    let asked = || {
        let all = of_clients(&one, ".one.example.").into_iter().chain(of_clients(&two, ".two.example."));
        all.map(|seen| seen.name).filter(|name| name.starts_with('n')).count()
    };
    let first = asked();
    assert!((2..=9).contains(&first), "{first} queries");
    // Asked again at once, it costs nothing: the failure is remembered.
    tidegate.client().ask(&Query::a("n0.one.example."));
    assert_eq!(asked(), first);
}
