//! Zones, hosts files and special-use names together.

mod answers;
mod files;

use std::{fs, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::Moment,
    wire::{Flags, Header, NameBuf, record::Records},
};

fn place(line: usize) -> RecordPlace {
    RecordPlace { file: "tidegate.toml".into(), line }
}

fn inline(zone: &str, records: &[&str]) -> LocalSpec {
    let records = records.iter().map(|text| InlineRecord { text: (*text).to_owned(), place: place(2) });
    LocalSpec { zone: zone.parse().unwrap(), place: place(1), source: ZoneSource::Records(records.collect()) }
}

fn build(specs: &[LocalSpec], hosts: &str, special_use: SpecialUse) -> Zones {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), hosts).unwrap();
    Zones::build(specs, Some(file.path()), special_use, None).unwrap()
}

fn ask(zones: &Zones, name: &str, qtype: RecordType) -> Option<LocalAnswer> {
    let name: Name = name.parse().unwrap();
    zones.answer(&LocalQuery { name: &name, qtype, qclass: Class::IN }, |_| true)
}

/// The response code, and each record as "owner type first-name-or-octets".
fn shown(answer: Option<LocalAnswer>) -> String {
    let Some(LocalAnswer { message, rcode, .. }) = answer else { return "none".to_owned() };
    let mut text = rcode.to_string();
    assert_eq!(Header::read(&message).unwrap().flags.rcode(), rcode);
    for record in Records::of(&message).unwrap() {
        let record = record.unwrap();
        let mut name = NameBuf::new();
        name.expand(&message, record.owner_at).unwrap();
        let owner = name.to_name();
        let rdata = match record.rtype {
            RecordType::A => format!("{:?}", record.rdata(&message)),
            RecordType::CNAME | RecordType::PTR | RecordType::NS => {
                name.expand(&message, record.rdata_at).unwrap();
                name.to_name().to_string()
            }
            _ => String::new(),
        };
        text += format!(", {owner} {} {rdata}", record.rtype).trim_end();
    }
    text
}

#[test]
fn special_use_names_are_answered_as_their_rfcs_say() {
    let zones = build(&[], "", SpecialUse::Answered);
    for (name, qtype, expected) in [
        ("localhost", RecordType::A, "NOERROR, localhost. A [127, 0, 0, 1]"),
        ("a.b.localhost", RecordType::A, "NOERROR, a.b.localhost. A [127, 0, 0, 1]"),
        ("localhost", RecordType::AAAA, "NOERROR, localhost. AAAA"),
        ("localhost", RecordType::MX, "NOERROR, localhost. SOA"),
        ("invalid", RecordType::A, "NXDOMAIN, invalid. SOA"),
        ("x.test", RecordType::AAAA, "NXDOMAIN, test. SOA"),
        ("facebookcorewwwi.onion", RecordType::A, "NXDOMAIN, onion. SOA"),
        ("printer.home.arpa", RecordType::A, "NXDOMAIN, home.arpa. SOA"),
        ("home.arpa", RecordType::NS, "NOERROR, home.arpa. NS home.arpa."),
        ("_dns.resolver.arpa", RecordType::SVCB, "NOERROR, resolver.arpa. SOA"),
        ("1.0.0.127.in-addr.arpa", RecordType::PTR, "NOERROR, 1.0.0.127.in-addr.arpa. PTR localhost."),
        ("2.0.0.127.in-addr.arpa", RecordType::PTR, "NXDOMAIN, 127.in-addr.arpa. SOA"),
        ("4.3.2.10.in-addr.arpa", RecordType::PTR, "NXDOMAIN, 10.in-addr.arpa. SOA"),
        ("31.172.in-addr.arpa", RecordType::SOA, "NOERROR, 31.172.in-addr.arpa. SOA"),
        ("32.172.in-addr.arpa", RecordType::SOA, "none"),
        ("1.127.100.in-addr.arpa", RecordType::PTR, "NXDOMAIN, 127.100.in-addr.arpa. SOA"),
        ("0.0.d.f.ip6.arpa", RecordType::PTR, "NXDOMAIN, d.f.ip6.arpa. SOA"),
        ("dc1.corp.local", RecordType::A, "none"),
        ("example.com", RecordType::A, "none"),
    ] {
        assert_eq!(shown(ask(&zones, name, qtype)), expected, "{name} {qtype}");
    }
    assert_eq!(zones.special_domains().count(), special::domains().count());
    let ignored = build(&[], "", SpecialUse::Ignored);
    assert_eq!((ask(&ignored, "localhost", RecordType::A), ignored.special_domains().count()), (None, 0));
}

#[test]
fn the_longest_domain_decides_between_zones_hosts_and_special_use_names() {
    let specs = [
        inline("corp.example", &["www A 10.0.0.1", "*.w A 10.0.0.2", "eu NS ns.elsewhere.", "eu DS 1 8 2 aa"]),
        inline("eu.corp.example", &["www A 10.0.0.3"]),
        inline("10.in-addr.arpa", &["1.0.0 PTR www.corp.example."]),
        inline("x.localhost", &["@ A 10.0.0.4"]),
        inline("host.example", &["mail A 10.0.0.5"]),
    ];
    let hosts =
        "10.9.9.9 www.corp.example alias # comment\n\nfd00::9\talias\n10.9.9.8 host.example\n0.0.0.0 ads.example\n";
    let zones = build(&specs, hosts, SpecialUse::Answered);
    for (name, qtype, expected) in [
        ("www.corp.example", RecordType::A, "NOERROR, www.corp.example. A [10, 9, 9, 9]"),
        ("www.corp.example", RecordType::AAAA, "NOERROR, www.corp.example. SOA"),
        ("below.www.corp.example", RecordType::A, "NXDOMAIN, corp.example. SOA"),
        ("www.eu.corp.example", RecordType::A, "NOERROR, www.eu.corp.example. A [10, 0, 0, 3]"),
        ("eu.corp.example", RecordType::DS, "NOERROR, eu.corp.example. DS"),
        ("eu.corp.example", RecordType::NS, "NOERROR, eu.corp.example. NS eu.corp.example."),
        ("1.0.0.10.in-addr.arpa", RecordType::PTR, "NOERROR, 1.0.0.10.in-addr.arpa. PTR www.corp.example."),
        ("9.9.9.10.in-addr.arpa", RecordType::PTR, "NOERROR, 9.9.9.10.in-addr.arpa. PTR www.corp.example."),
        ("alias", RecordType::AAAA, "NOERROR, alias. AAAA"),
        ("alias", RecordType::ANY, "NOERROR, alias. A [10, 9, 9, 9], alias. AAAA"),
        ("below.alias", RecordType::A, "none"),
        ("x.localhost", RecordType::A, "NOERROR, x.localhost. A [10, 0, 0, 4]"),
        ("host.example", RecordType::A, "NOERROR, host.example. SOA"),
        ("ads.example", RecordType::A, "NOERROR, ads.example. A [0, 0, 0, 0]"),
        ("0.0.0.0.in-addr.arpa", RecordType::PTR, "NXDOMAIN, 0.in-addr.arpa. SOA"),
    ] {
        assert_eq!(shown(ask(&zones, name, qtype)), expected, "{name} {qtype}");
    }
    let domains: Vec<_> = zones.domains().map(|domain| domain.name.to_string()).collect();
    assert!(domains.contains(&"eu.corp.example.".to_owned()) && !domains.contains(&"alias.".to_owned()));
    let is_host = |name: &str| zones.is_host(name.parse::<Name>().unwrap().as_wire());
    assert!(is_host("alias") && is_host("9.9.9.10.in-addr.arpa") && !is_host("below.alias"));
    assert!(!is_host("host.example"), "at its own name a zone answers");
}

#[test]
fn a_local_root_zone_leaves_special_use_names_alone() {
    let zones = build(&[inline(".", &["com A 10.0.0.1"])], "", SpecialUse::Answered);
    assert_eq!(shown(ask(&zones, "com", RecordType::A)), "NOERROR, com. A [10, 0, 0, 1]");
    assert_eq!(shown(ask(&zones, "org", RecordType::A)), "NXDOMAIN, . SOA");
    assert_eq!(shown(ask(&zones, "x.test", RecordType::A)), "NXDOMAIN, test. SOA");
}

#[test]
fn an_alias_is_followed_to_where_it_is_not_ours() {
    let records = [
        "out CNAME bucket.amazonaws.com.",
        "one CNAME two",
        "two CNAME a.cloud",
        "a.cloud A 10.0.0.1",
        "sub NS ns.elsewhere.",
        "tosub CNAME x.sub",
        "tohost CNAME host",
        "toeu CNAME www.eu",
        "d DNAME elsewhere.",
        "loop CNAME loop",
    ];
    let specs = [inline("corp.example", &records), inline("eu.corp.example", &["www A 10.0.0.3"])];
    let zones = build(&specs, "10.0.0.9 host.corp.example", SpecialUse::Ignored);
    let cloud: Name = "cloud.corp.example".parse().unwrap();
    let outcome = |name: &str| {
        let name: Name = format!("{name}.corp.example").parse().unwrap();
        let question = LocalQuery { name: &name, qtype: RecordType::A, qclass: Class::IN };
        let answer = zones.answer(&question, |target| !target.is_within(&cloud)).unwrap();
        (answer.outcome.clone(), answer.aliases, shown(Some(answer)))
    };
    let leaves = |target: &str| LocalOutcome::Leaves { target: target.parse().unwrap() };
    assert_eq!(outcome("out").0, leaves("bucket.amazonaws.com"));
    let chain = "NOERROR, one.corp.example. CNAME two.corp.example., two.corp.example. CNAME a.cloud.corp.example.";
    assert_eq!(outcome("one"), (leaves("a.cloud.corp.example"), 2, chain.to_owned()), "a rule has it");
    assert_eq!(outcome("tohost").0, leaves("host.corp.example"));
    assert_eq!(outcome("toeu").0, leaves("www.eu.corp.example"));
    assert_eq!(outcome("x.d").0, leaves("x.elsewhere"));
    assert_eq!(outcome("loop").0, LocalOutcome::Endless);
    assert_eq!(outcome("loop").2, "SERVFAIL");
    let (cut, target) = ("sub.corp.example".parse().unwrap(), "x.sub.corp.example".parse().unwrap());
    assert_eq!(outcome("tosub").0, LocalOutcome::Delegated { cut, target });
}

#[test]
fn a_chain_of_64_is_an_answer_and_a_longer_one_is_not() {
    let records: Vec<String> =
        (1..66).map(|n| format!("c{n} CNAME c{}", n - 1)).chain(["c0 A 10.0.0.1".to_owned()]).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let zones = build(&[inline("corp.example", &records)], "", SpecialUse::Ignored);
    let longest = ask(&zones, "c64.corp.example", RecordType::A).unwrap();
    assert_eq!((longest.outcome, longest.aliases, longest.rcode), (LocalOutcome::Done, 64, Rcode::NOERROR));
    let longer = ask(&zones, "c65.corp.example", RecordType::A).unwrap();
    assert_eq!((longer.outcome, longer.rcode), (LocalOutcome::Endless, Rcode::SERVFAIL));
}

#[test]
fn every_error_of_the_configuration_is_told() {
    let specs = [inline("a.example", &["x A nonsense"]), inline("a.example", &[]), inline("b.example", &["x FOO"])];
    let errors = Zones::build(&specs, None, SpecialUse::Answered, None).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| (error.place.line, error.kind.to_string())).collect();
    let expected = [
        (2, "A: \"nonsense\" is not an IPv4 address"),
        (1, "zone a.example. is here twice; keep one of them"),
        (2, "\"FOO\" is not a record type; unknown types are written TYPE123 \\# LENGTH HEX (RFC 3597)"),
    ];
    assert_eq!(lines, expected.map(|(line, kind)| (line, kind.to_owned())));
}

#[test]
fn a_fingerprint_is_that_of_the_content() {
    let fingerprint = |records: &[&str]| {
        let zones = build(&[inline("corp.example", records)], "", SpecialUse::Ignored);
        zones.domains().next().unwrap().fingerprint
    };
    let one = fingerprint(&["a A 10.0.0.1", "a A 10.0.0.2", "b A 10.0.0.3"]);
    assert_eq!(one, fingerprint(&["b A 10.0.0.3", "a A 10.0.0.2", "a A 10.0.0.1"]), "order is nothing");
    assert_ne!(one, fingerprint(&["a A 10.0.0.1", "a A 10.0.0.2", "b A 10.0.0.4"]));
    assert_ne!(one, fingerprint(&["a 301 A 10.0.0.1", "a 301 A 10.0.0.2", "b A 10.0.0.3"]));
}

/// DS belongs to the parent's side of a cut (RFC 4035 3.1.4.1), so what changes there changes it.
#[test]
fn the_fingerprint_of_a_ds_is_that_of_the_zone_above_the_cut() {
    let name: Name = "child.example".parse().unwrap();
    let fingerprints = |parent: &str, child: &str| {
        let parent = inline("example", &["child NS ns.child", "ns.child A 10.0.0.53", parent]);
        let zones = build(&[parent, inline("child.example", &[child])], "", SpecialUse::Ignored);
        [RecordType::DS, RecordType::A].map(|qtype| zones.fingerprint(name.as_wire(), qtype))
    };
    let [ds, a] = fingerprints("child DS 1 8 2 0a", "@ A 10.0.0.1");
    let [other_ds, same_a] = fingerprints("child DS 2 8 2 0b", "@ A 10.0.0.1");
    assert!(ds != other_ds && a == same_a);
    let [same_ds, other_a] = fingerprints("child DS 1 8 2 0a", "@ A 10.0.0.2");
    assert!(ds == same_ds && a != other_a);
}

#[test]
fn a_changed_file_is_seen_once() {
    let folder = tempfile::tempdir().unwrap();
    let (zone, part) = (folder.path().join("zone"), folder.path().join("part"));
    fs::write(&zone, "@ 60 SOA a b 1 2 3 4 5\n@ 60 NS a\n$INCLUDE part\n").unwrap();
    fs::write(&part, "a 60 A 10.0.0.1\n").unwrap();
    let spec = LocalSpec { zone: "x".parse().unwrap(), place: place(1), source: ZoneSource::File(zone.clone()) };
    let zones = Zones::build(&[spec], None, SpecialUse::Ignored, None).unwrap();
    let mut watch = zones.watch().clone();
    assert_eq!(watch.files().count(), 2);
    assert!(!zones.changed() && !watch.poll());
    fs::write(&part, "a 60 A 10.0.0.1\nb 60 A 10.0.0.2\n").unwrap();
    assert!(zones.changed() && watch.poll() && !watch.poll());
    fs::remove_file(&zone).unwrap();
    assert!(watch.poll() && !watch.poll() && zones.changed());
}

#[test]
fn absent_names_among_100_000_are_found_out_as_fast_as_existing_ones() {
    const NAMES: u32 = 100_000;
    let records: Vec<String> = (0..NAMES).map(|n| format!("h{n}.r{} A 10.0.0.1", n % 1000)).collect();
    let spec = inline("corp.example", &[&records.join("\n")]);
    let zones = Zones::build(&[spec], None, SpecialUse::Answered, None).unwrap();
    let time = |prefix: &str| {
        let names: Vec<Name> =
            (0..2000).map(|n| format!("{prefix}{n}.r{}.corp.example", n % 1000).parse().unwrap()).collect();
        let start = Moment::now();
        for name in &names {
            let question = LocalQuery { name, qtype: RecordType::A, qclass: Class::IN };
            assert!(zones.answer(&question, |_| true).is_some());
        }
        Moment::now().since(start) / 2000
    };
    let (hit, miss) = (time("h"), time("no"));
    // Unoptimised and on a busy machine; a scan of the names would take milliseconds.
    assert!(miss < Duration::from_micros(500) && hit < Duration::from_micros(500), "{miss:?}, a hit {hit:?}");
}

#[test]
fn any_gives_the_record_sets_that_fit_a_message_and_each_whole() {
    let records: Vec<String> = (0..3000)
        .map(|n| format!("big A 10.{}.{}.1", n / 250, n % 250))
        .chain((0..200).map(|n| format!("big TXT {n}{}", "x".repeat(200))))
        .collect();
    let spec = inline("corp.example", &[&records.join("\n")]);
    let zones = Zones::build(&[spec], None, SpecialUse::Ignored, None).unwrap();
    let answer = ask(&zones, "big.corp.example", RecordType::ANY).unwrap();
    let header = Header::read(&answer.message).unwrap();
    assert!(header.flags.has(Flags::AA) && !header.flags.has(Flags::TC), "TCP would hold no more (RFC 8482 4.1)");
    assert!(answer.message.len() <= 65_535);
    let records: Vec<_> = Records::of(&answer.message).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(records.len() == 3000 && records.iter().all(|record| record.rtype == RecordType::A), "{}", records.len());
}

#[test]
fn an_answer_that_fits_no_message_behind_its_chain_is_servfail() {
    let long = "l".repeat(60);
    let alias = |n: u32| format!("{long}{n}.{long}{n}.{long}{n}");
    let records: Vec<String> = (0..4031)
        .map(|n| format!("big A 10.{}.{}.1", n / 250, n % 250))
        .chain((1..7).map(|n| format!("{} CNAME {}", alias(n), alias(n - 1))))
        .chain([format!("{} CNAME big", alias(0))])
        .collect();
    let spec = inline("corp.example", &[&records.join("\n")]);
    let zones = Zones::build(&[spec], None, SpecialUse::Ignored, None).unwrap();
    assert_eq!(ask(&zones, "big.corp.example", RecordType::A).unwrap().rcode, Rcode::NOERROR);
    let behind = ask(&zones, &format!("{}.corp.example", alias(6)), RecordType::A).unwrap();
    assert_eq!((behind.rcode, Header::read(&behind.message).unwrap().counts[1]), (Rcode::SERVFAIL, 0));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\t\n]{0,200}", tail in "(\\$[A-Z]{3,8}|@|a|\\\\|\\(|\\)|\"|;| |\n|A|TXT|HTTPS|SVCB|1|h2|=|key|SOA|CNAME|\\.|#){0,40}") {
        let spec = inline("corp.example", &[&text, &tail]);
        if let Ok(zones) = Zones::build(&[spec], None, SpecialUse::Ignored, None) {
            let answer = ask(&zones, "a.corp.example", RecordType::ANY).unwrap();
            prop_assert!(Records::of(&answer.message).unwrap().all(|record| record.is_ok()));
        }
    }
}
