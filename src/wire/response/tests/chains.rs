//! CNAME and DNAME chains.

use super::*;

#[test]
fn a_chain_is_put_in_order_and_what_is_beside_it_left_out() {
    let response = Upstream::answers("a.example", RecordType::A)
        .address("c.example")
        .address("evil.example")
        .alias("b.example", RecordType::CNAME, "C.example")
        .alias("a.example", RecordType::CNAME, "b.example")
        .alias("x.example", RecordType::CNAME, "y.example")
        .read();
    assert_eq!(response.kind(), ResponseKind::Positive);
    assert_eq!(response.chain(), [name("b.example"), name("c.example")]);
    assert_eq!(records(&response), ["Answer a.example. CNAME", "Answer b.example. CNAME", "Answer c.example. A"]);
}

#[test]
fn only_the_first_cname_at_a_name_counts() {
    let response = Upstream::answers("a.example", RecordType::A)
        .alias("a.example", RecordType::CNAME, "b.example")
        .alias("a.example", RecordType::CNAME, "s3.amazonaws.com")
        .alias("a.example", RecordType::CNAME, "b.example")
        .address("b.example")
        .read();
    assert_eq!(records(&response), ["Answer a.example. CNAME", "Answer b.example. A"]);
    assert_eq!(response.chain(), [name("b.example")]);
}

#[test]
fn signatures_stay_beside_what_they_sign() {
    let response = Upstream::answers("a.b.example", RecordType::A)
        .address("b.example")
        .signature(Section::Answer, "b.example", RecordType::A)
        .signature(Section::Answer, "b.example", RecordType::TXT)
        .signature(Section::Answer, "example", RecordType::A)
        .alias("a.b.example", RecordType::CNAME, "b.example")
        .signature(Section::Answer, "a.b.example", RecordType::CNAME)
        .read();
    assert_eq!(
        records(&response),
        ["Answer a.b.example. CNAME", "Answer a.b.example. RRSIG", "Answer b.example. A", "Answer b.example. RRSIG"]
    );
    let signatures = Upstream::answers("a.b.example", RecordType::RRSIG)
        .alias("a.b.example", RecordType::CNAME, "b.example")
        .signature(Section::Answer, "b.example", RecordType::TXT)
        .read();
    assert_eq!(signatures.kind(), ResponseKind::Positive);
}

#[test]
fn a_dname_stays_only_where_it_made_the_link() {
    let response = Upstream::answers("a.old.example", RecordType::A)
        .alias("old.example", RecordType::DNAME, "new.example")
        .signature(Section::Answer, "old.example", RecordType::DNAME)
        .alias("example", RecordType::DNAME, "evil.test")
        .signature(Section::Answer, "example", RecordType::DNAME)
        .alias("a.old.example", RecordType::CNAME, "a.new.example")
        .address("a.new.example")
        .read();
    assert_eq!(
        records(&response),
        [
            "Answer old.example. DNAME",
            "Answer old.example. RRSIG",
            "Answer a.old.example. CNAME",
            "Answer a.new.example. A"
        ]
    );
    let beside = Upstream::answers("www.example", RecordType::A)
        .alias("other.example", RecordType::DNAME, "evil.test")
        .soa("example", Class::IN)
        .read();
    assert_eq!((beside.kind(), records(&beside)), (ResponseKind::NoData, vec!["Authority example. SOA".to_owned()]));
    let asked = Upstream::answers("old.example", RecordType::DNAME)
        .alias("old.example", RecordType::DNAME, "new.example")
        .read();
    assert_eq!(asked.kind(), ResponseKind::Positive);
}

#[test]
fn a_chain_in_a_circle_is_endless_and_not_open() {
    for targets in [&["a.example"][..], &["b.example", "a.example"], &["b.example", "c.example", "b.example"]] {
        let mut upstream = Upstream::answers("a.example", RecordType::A);
        let mut owner = "a.example";
        for target in targets {
            upstream = upstream.alias(owner, RecordType::CNAME, target);
            owner = target;
        }
        let response = upstream.read();
        assert_eq!(response.kind(), ResponseKind::NoData, "{targets:?}");
        assert!(response.is_endless() && !response.is_open(), "{targets:?}");
    }
}

#[test]
fn a_chain_of_64_links_has_an_end_and_a_longer_one_none() {
    for (links, is_endless) in [(8, false), (12, false), (64, false), (65, true)] {
        let mut upstream = Upstream::answers("n0.example", RecordType::A);
        for link in 0..links {
            let (owner, target) = (format!("n{link}.example"), format!("n{}.example", link + 1));
            upstream = upstream.alias(&owner, RecordType::CNAME, &target);
        }
        let response = upstream.address(&format!("n{links}.example")).read();
        assert_eq!((response.is_endless(), response.is_positive()), (is_endless, !is_endless), "{links}");
    }
}

/// The writer remembers a limited number of names to point to.
#[test]
fn the_owner_of_many_records_stands_once_behind_a_long_chain_too() {
    let target = |link: usize| format!("a{link}.b{link}.c{link}.example");
    let length = |addresses: u8| {
        let mut upstream = Upstream::answers(&target(0), RecordType::A);
        for link in 0..60 {
            upstream = upstream.alias(&target(link), RecordType::CNAME, &target(link + 1));
        }
        for last in 0..addresses {
            upstream = upstream.answer(&target(60), RecordType::A, &[10, 0, 0, last]);
        }
        upstream.read().message().len()
    };
    assert_eq!(length(9) - length(1), 8 * 16);
}

#[test]
fn a_dname_without_its_cname_is_given_one() {
    let response = Upstream::answers("a.b.old.example", RecordType::A)
        .alias("example", RecordType::DNAME, "far.test")
        .alias("old.example", RecordType::DNAME, "new.example")
        .signature(Section::Answer, "old.example", RecordType::DNAME)
        .address("a.b.new.example")
        .read();
    assert_eq!(
        records(&response),
        [
            "Answer old.example. DNAME",
            "Answer old.example. RRSIG",
            "Answer a.b.old.example. CNAME",
            "Answer a.b.new.example. A"
        ]
    );
    assert_eq!((response.kind(), response.chain()), (ResponseKind::Positive, &[name("a.b.new.example")][..]));
    assert_eq!(response.ttl_offsets().len(), 4);
    for qtype in [RecordType::CNAME, RecordType::ANY] {
        let asked =
            Upstream::answers("a.old.example", qtype).alias("old.example", RecordType::DNAME, "new.example").read();
        assert_eq!(records(&asked), ["Answer old.example. DNAME", "Answer a.old.example. CNAME"]);
        assert_eq!((asked.kind(), asked.chain().len()), (ResponseKind::Positive, 0), "{qtype}");
    }
    let open =
        Upstream::answers("a.old.example", RecordType::A).alias("old.example", RecordType::DNAME, "new.test").read();
    assert!(open.is_open(), "its target is asked for");
}

#[test]
fn a_dname_that_leads_to_a_name_too_long_is_yxdomain() {
    let long = format!("{}.old.example", ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join("."));
    let target = format!("{}.{}.test", "t".repeat(63), "u".repeat(9));
    for flags in [0, 6] {
        let response =
            Upstream::answers(&long, RecordType::A).alias("old.example", RecordType::DNAME, &target).with(flags).read();
        assert_eq!((response.kind(), response.rcode()), (ResponseKind::YxDomain, Rcode::YXDOMAIN));
        assert_eq!(records(&response), ["Answer old.example. DNAME"]);
        assert!(response.is_answer() && response.message()[3] & 0x0f == 6);
        let again = Response::ours(response.message(), &query(&long, RecordType::A)).unwrap();
        assert_eq!((again.kind(), records(&again)), (ResponseKind::YxDomain, records(&response)));
    }
}

#[test]
fn an_alias_whose_own_zone_says_nothing_of_its_target_is_open() {
    let open = Upstream::answers("a.example", RecordType::A)
        .alias("a.example", RecordType::CNAME, "b.test")
        .soa("example", Class::IN);
    assert!(open.read().is_open());
    let closed = Upstream::answers("a.example", RecordType::A)
        .alias("a.example", RecordType::CNAME, "b.test")
        .soa("test", Class::IN);
    assert!(!closed.read().is_open());
}

#[test]
fn a_chain_cut_and_joined_keeps_its_head_up_to_the_cut() {
    let (message, query) = Upstream::answers("a.old.example", RecordType::A)
        .alias("old.example", RecordType::DNAME, "new.example")
        .alias("a.old.example", RecordType::CNAME, "a.new.example")
        .alias("a.new.example", RecordType::CNAME, "s3.amazonaws.com")
        .address("s3.amazonaws.com")
        .with(Flags::AD)
        .message();
    let head = Response::read(&message, &query, ID, None).unwrap();
    let tail = Upstream::answers("s3.amazonaws.com", RecordType::A).soa("amazonaws.com", Class::IN).read();
    let joined = splice::join(&head, 1, &tail, &query).unwrap();
    assert_eq!((joined.kind(), joined.negative_ttl()), (ResponseKind::NoData, Some(Ttl::from_wire(60))));
    assert_eq!(
        records(&joined),
        [
            "Answer old.example. DNAME",
            "Answer a.old.example. CNAME",
            "Answer a.new.example. CNAME",
            "Authority amazonaws.com. SOA"
        ]
    );
    assert_eq!(Header::read(joined.message()).unwrap().flags.0 & Flags::AD, 0, "the tail is not authentic");
    let failed =
        Response::read(&Header { id: ID, flags: Flags(0x8002), counts: [0; 4] }.to_bytes(), &tail_query(), ID, None);
    assert!(!splice::join(&head, 1, &failed.unwrap(), &query).unwrap().is_answer());
    assert_eq!(splice::join(&head, 9, &tail, &query).err(), Some(Malformed::Counts));
}

fn tail_query() -> UpstreamQuery {
    query("s3.amazonaws.com", RecordType::A)
}
