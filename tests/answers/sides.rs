//! DS belongs to the parent's side of a cut (RFC 4035 3.1.4.1), and what proves a wildcard stays where a chain is cut.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype, wire_name},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const DS: u16 = 43;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;

#[rstest]
#[case::between_rules("child.example.", "parent")]
#[case::below_the_cut("sub.child.example.", "child")]
#[case::of_a_local_zone("zone.example.", "parent")]
#[case::of_a_name_that_is_no_cut("www.example.", "parent")]
#[case::without_a_rule_for_the_parent("lone.org.", "lone")]
fn ds_is_asked_for_at_the_parent(#[case] name: &str, #[case] expected: &str) {
    let groups = ["parent", "child", "lone"];
    let upstreams = groups.map(|_| Upstream::start());
    for upstream in &upstreams {
        upstream.on_type(DS, Reply::of([Record::raw("@", DS, 300, vec![0, 1, 8, 2, 1])]));
    }
    let mut config = Config::new();
    for (group, upstream) in groups.iter().zip(&upstreams) {
        config = config.upstream(group, &[upstream], ONE_PATIENT_TRY);
    }
    let config = config
        .forward("parent", &["example"], "parent", "")
        .forward("child", &["child.example"], "child", "")
        .forward("lone", &["lone.org"], "lone", "")
        .raw("[[local]]\nzone = \"zone.example\"\nrecords = [\"www A 10.0.0.1\"]");
    let tidegate = Tidegate::start(&config);
    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::new(name, DS).dnssec_ok());
        assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::NoError, 1), "{turn}");
    }
    let asked: Vec<_> = groups
        .iter()
        .zip(&upstreams)
        .filter(|(_, upstream)| upstream.seen(name).iter().any(|seen| seen.qtype == DS))
        .collect();
    assert_eq!(asked.iter().map(|(group, _)| **group).collect::<Vec<_>>(), [expected]);
}

#[test]
fn the_proof_of_a_wildcard_survives_a_cut() {
    let (aliases, targets) = (Upstream::start(), Upstream::answering("10.0.0.1"));
    let signature = |covered: u16, labels: u8| {
        let mut data = covered.to_be_bytes().to_vec();
        data.extend([8, labels]);
        data.extend([0; 14]);
        data.extend(wire_name("example."));
        data.extend(b"signature");
        data
    };
    let proof = [&wire_name("z.example.")[..], &[0, 1, 0x40]].concat();
    let reply = |labels| {
        Reply::of([Record::cname("@", 300, "www.test."), Record::raw("@", RRSIG, 300, signature(rtype::CNAME, labels))])
            .authority(Record::raw("a.example.", NSEC, 300, proof.clone()))
            .authority(Record::raw("a.example.", RRSIG, 300, signature(NSEC, 2)))
    };
    aliases.on("made.example.", rtype::A, reply(1));
    aliases.on("own.example.", rtype::A, reply(2));
    let config = Config::new()
        .upstream("aliases", &[&aliases], ONE_PATIENT_TRY)
        .upstream("targets", &[&targets], ONE_PATIENT_TRY)
        .forward("aliases", &["example"], "aliases", "")
        .forward("targets", &["test"], "targets", "");
    let tidegate = Tidegate::start(&config);
    for (name, has_proof) in [("made.example.", true), ("own.example.", false)] {
        for turn in ["fresh", "cached"] {
            let answer = tidegate.client().ask(&Query::a(name).dnssec_ok());
            assert_eq!(answer.address_texts(), ["10.0.0.1"], "{name} {turn}");
            let proofs: Vec<_> = answer.message.authorities.iter().map(|record| record.record_type()).collect();
            let expected: &[RecordType] = if has_proof { &[RecordType::NSEC, RecordType::RRSIG] } else { &[] };
            assert_eq!(proofs, expected, "{name} {turn}");
        }
    }
}
