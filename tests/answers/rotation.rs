//! Several addresses of one name take turns at the front (`cache.rotate`).

use std::collections::BTreeMap;

use rstest::rstest;

use crate::support::{
    config::Config,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const ROUNDS: usize = 90;
const NAME: &str = "endpoint.example.";

fn upstream() -> Upstream {
    let upstream = Upstream::start();
    let alias = Record::cname("@", 300, "zones.example.");
    let addresses = (1..=3).map(|n| Record::a("zones.example.", 300, &format!("10.0.0.{n}")));
    upstream.on(NAME, rtype::A, Reply::of(std::iter::once(alias).chain(addresses)));
    let addresses = (1..=3).map(|n| Record::aaaa("@", 300, &format!("fd00::{n}")));
    upstream.on(NAME, rtype::AAAA, Reply::of(addresses));
    upstream
}

/// How often each address came first.
fn firsts(mut ask: impl FnMut() -> Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..ROUNDS {
        let addresses = ask();
        assert_eq!(addresses.len(), 3);
        let mut sorted = addresses.clone();
        sorted.sort_unstable();
        // A turn of the circle: the order is kept.
        let start = sorted.iter().position(|address| *address == addresses[0]).expect("it is one of them");
        sorted.rotate_left(start);
        assert_eq!(sorted, addresses);
        *counts.entry(addresses[0].clone()).or_default() += 1;
    }
    counts
}

fn is_spread(counts: &BTreeMap<String, usize>) -> bool {
    // A third of 90, and six standard deviations.
    counts.len() == 3 && counts.values().all(|count| (4..=57).contains(count))
}

#[rstest]
#[case::over_udp(false)]
#[case::over_tcp(true)]
fn cached_addresses_take_turns(#[case] is_stream: bool) {
    let upstream = upstream();
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let ask = |qtype| {
        let query = Query::new(NAME, qtype);
        let answer = if is_stream { tidegate.client().ask_over_tcp(&query) } else { tidegate.client().ask(&query) };
        answer.address_texts()
    };
    // Who asks for A and AAAA in turn meets each address of both as often.
    let mut sixes = Vec::new();
    let fours = firsts(|| {
        sixes.push(ask(rtype::AAAA));
        ask(rtype::A)
    });
    let sixes = firsts(|| sixes.pop().expect("one for each"));
    assert!(is_spread(&fours) && is_spread(&sixes), "{fours:?} {sixes:?}");
    assert_eq!(upstream.count(NAME), 2);
}

#[test]
fn addresses_of_local_zones_and_hosts_take_turns() {
    let config = Config::new().raw(
        "[[local]]\nzone = \"example\"\nrecords = [\"endpoint A 10.0.0.1\", \"endpoint A 10.0.0.2\", \"endpoint A 10.0.0.3\"]",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "10.1.0.1 many.test\n10.1.0.2 many.test\n10.1.0.3 many.test\n").expect("it is written");
    let config = config.raw(&format!("[local_hosts]\nfile = {hosts:?}"));
    let tidegate = Tidegate::start(&config);
    for name in [NAME, "many.test."] {
        let counts = firsts(|| tidegate.client().ask(&Query::a(name)).address_texts());
        assert!(is_spread(&counts), "{name}: {counts:?}");
    }
}

#[test]
fn without_rotation_the_order_is_the_upstreams() {
    let upstream = upstream();
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("cache", "rotate = false"));
    for _ in 0..12 {
        let addresses = tidegate.client().ask(&Query::a(NAME)).address_texts();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}
