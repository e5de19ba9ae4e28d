//! A newer answer takes the place of the older one, whether it can be stored or not (RFC 8767 4).

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::Upstream,
};

const CACHE: &str = "prefetch = false\nfailure_ttl = \"1s\"\nstale_after = \"200ms\"\n";

fn brief(address: &str, ttl: u32) -> Reply {
    Reply::of([Record::a("@", ttl, address)])
}

fn start(upstream: &Upstream, cache: &str) -> Tidegate {
    Tidegate::start(&Config::forwarding_to(&[upstream]).section("cache", &format!("{CACHE}{cache}")))
}

#[rstest]
#[case::ttl_0("", brief("10.0.0.2", 0))]
#[case::negative_ttl_0("negative_ttl = \"0s\"", Reply::nxdomain(300))]
#[case::no_soa_ttl_0("no_soa_ttl = \"0s\"", Reply::rcode(3))]
#[case::a_negative_answer_good_for_nothing("", Reply::nodata(0))]
#[case::too_large("size = \"1MiB\"", Reply::addresses(3900))]
fn an_answer_that_cannot_be_stored_still_replaces_the_older_one(#[case] cache: &str, #[case] newer: Reply) {
    let mut upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, brief("10.0.0.1", 1));
    let tidegate = start(&upstream, cache);
    let addresses = || tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts();
    assert_eq!(addresses(), ["10.0.0.1"]);
    upstream.on("www.example.", rtype::A, newer);
    eventually("the newer answer", || addresses() != ["10.0.0.1"]);
    upstream.stop();
    let answer = tidegate.client().ask_over_tcp(&Query::a("www.example.").edns());
    assert_eq!(answer.rcode(), ResponseCode::ServFail, "nothing is left to be served stale: {answer:?}");
}

/// A slow answer that must not be cached still reaches clients, in place of the stale one.
#[test]
fn a_slow_answer_that_is_not_kept_gets_through() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, brief("10.0.0.1", 1));
    let tidegate = start(&upstream, "");
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    upstream.on("www.example.", rtype::A, Script::late(Duration::from_millis(600), brief("10.0.0.2", 0)));
    eventually("the new address", || tidegate.client().ask(&Query::a("www.example.")).address_texts() == ["10.0.0.2"]);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.2"], "and so from then on");
}

/// `flush --zone` also forgets what an alias leads into the zone.
#[test]
fn a_flushed_zone_is_forgotten_by_way_of_aliases_too() {
    use tidegate::cache::{Cache, CacheKey, Hash, Integrity, New, Stamp};
    use tidegate::wire::{Class, Flags, Header, MessageId, Name, RecordType, Ttl, record::Section, writer::Writer};

    let cache = Cache::new(1 << 20);
    let store = |name: &str, target: Option<&str>| {
        let name: Name = name.parse().unwrap();
        let mut writer = Writer::new(name.as_wire(), RecordType::A, Class::IN, 512);
        let ttl = Ttl::from_wire(60);
        if let Some(target) = target {
            let target: Name = target.parse().unwrap();
            writer.plain(Section::Answer, name.as_wire(), RecordType::CNAME, Class::IN, ttl, target.as_wire()).unwrap();
        }
        let message = writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] });
        let key = CacheKey {
            name: name.as_wire(),
            qtype: RecordType::A,
            qclass: Class::IN,
            do_bit: false,
            cd: false,
            view: 0,
        };
        let hash: Hash = key.hash();
        let stamp = Stamp { generation: 1, fingerprint: 1, rule: 0 };
        let new = New { message: &message, ttl_offsets: &[], lifetime: 60, now: 1, stamp, integrity: Integrity::Whole };
        cache.insert(&key, hash, new, |_| false);
    };
    store("a.flushed.example", None);
    store("alias.example", Some("b.Flushed.example"));
    store("other.example", Some("notflushed.example"));
    store("flushed.example.org", None);
    let zone: Name = "flushed.example".parse().unwrap();
    assert_eq!(cache.remove_domain(zone.as_wire()), 2);
    assert_eq!(cache.stats().entries, 2);
}
