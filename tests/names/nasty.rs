//! Answers that no correct server gives: what `dig` shows of them, and that none of their addresses gets past a guard.

use rstest::rstest;

use crate::{
    Config, ONE_PATIENT_TRY,
    support::{
        peers::{Dig, dig},
        query::{rtype, wire_name},
        records::{Record, Reply},
        script::Script,
        tidegate::Tidegate,
        upstream::{Transport, Upstream},
    },
};

const NAME: &str = "www.us-east-1.amazonaws.com.";
const ELSEWHERE: &str = "stranger.amazonaws.com.";
const INSIDE: &str = "10.20.1.1";
const OUTSIDE: &str = "203.0.113.66";
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const SRV: u16 = 33;
const CHAOS: u16 = 3;
const ANY_CLASS: u16 = 255;

/// The aws rule and the rest, both at a server that does as it is told; and an endpoint of AWS names for the chains.
struct Stage {
    vpc: Upstream,
    rest: Upstream,
    tidegate: Tidegate,
}

impl Stage {
    fn new(on_public: &str) -> Self {
        let (vpc, rest) = (Upstream::start(), Upstream::start());
        let guard = format!("private = [\"10.20.0.0/16\", \"fd20::/16\"]\non_public = \"{on_public}\"");
        let config = Config::new()
            .upstream("vpc", &[&vpc], ONE_PATIENT_TRY)
            .upstream("rest", &[&rest], ONE_PATIENT_TRY)
            .forward("aws", &["preset:aws"], "vpc", &guard)
            .forward("rest", &["."], "rest", "");
        Self { vpc, rest, tidegate: Tidegate::start(&config) }
    }

    fn dig(&self, name: &str, arguments: &[&str]) -> Dig {
        dig(self.tidegate.address(), name, arguments)
    }

    /// Over UDP, again, and over TCP.
    fn shows(&self, name: &str, qtype: &str, lines: &[&str]) {
        self.dig(name, &[qtype]).shows_aged(lines);
        self.dig(name, &[qtype]).shows_aged(lines);
        self.dig(name, &[qtype, "+tcp"]).shows_aged(lines);
    }
}

fn outside() -> Record {
    Record::a("@", 60, OUTSIDE)
}

fn inside() -> Record {
    Record::a("@", 60, INSIDE)
}

const GOOD: [&str; 2] = ["NOERROR qr rd ra", "www.us-east-1.amazonaws.com. 60 A 10.20.1.1"];
const REFUSED: [&str; 2] = ["SERVFAIL qr rd ra", "EDE 15 (Blocked): (rule aws: 203.0.113.66 is not private)"];

/// SvcPriority 1, target ".", and these keys with their values.
fn service(keys: &[(u16, &[u8])]) -> Vec<u8> {
    let mut data = [&[0, 1], &wire_name(".")[..]].concat();
    for (key, value) in keys {
        let length = u16::try_from(value.len()).expect("short");
        data.extend([key.to_be_bytes(), length.to_be_bytes()].concat());
        data.extend(*value);
    }
    data
}

/// Records next to the answer are dropped, whatever their owner, section, type or class.
#[rstest]
#[case::additional(Reply::of([inside()]).additional(Record::a(ELSEWHERE, 60, OUTSIDE)))]
#[case::additional_of_the_name(Reply::of([inside()]).additional(outside()))]
#[case::authority(Reply::of([inside()]).authority(outside()))]
#[case::a_stranger_in_the_answer(Reply::of([Record::a(ELSEWHERE, 60, OUTSIDE), inside()]))]
#[case::another_type(Reply::of([Record::aaaa("@", 60, "2001:db8::66"), inside()]))]
#[case::services(Reply::of([inside(), Record::raw("@", HTTPS, 60, service(&[(4, &[203, 0, 113, 66])]))]))]
#[case::another_class(Reply::of([outside().class(CHAOS), inside()]))]
#[case::any_class(Reply::of([inside(), outside().class(ANY_CLASS)]))]
#[case::glue_of_a_delegation(Reply::of([inside()])
    .authority(Record::raw("@", rtype::NS, 60, wire_name(ELSEWHERE)))
    .additional(Record::a(ELSEWHERE, 60, OUTSIDE)))]
fn records_beside_the_answer_are_dropped(#[case] reply: Reply, #[values("refuse", "strip", "log")] on_public: &str) {
    let stage = Stage::new(on_public);
    stage.vpc.on(NAME, rtype::A, reply);
    stage.shows(NAME, "A", &GOOD);
    assert_eq!(stage.tidegate.metric("tidegate_guard_violations_total", &[]), 0.0);
    // The stranger is not known from it either.
    let stranger = stage.dig(ELSEWHERE, &["A"]);
    assert_eq!(stranger.status, "NXDOMAIN", "{}", stranger.text);
}

/// Addresses in records of the queried type, wherever they hide in the answer.
#[rstest]
#[case::behind_others("A", rtype::A, Reply::of([inside(), Record::a("@", 60, "10.20.1.2"), outside()]))]
#[case::behind_a_chain_out_of_order("A", rtype::A, Reply::of([
    Record::a("C.us-east-1.AMAZONAWS.com.", 60, OUTSIDE),
    Record::cname("b.us-east-1.amazonaws.COM.", 60, "c.US-EAST-1.amazonaws.com."),
    Record::cname("@", 60, "B.us-east-1.amazonaws.com."),
]))]
#[case::with_nxdomain("A", rtype::A, Reply::of([outside()]).with(3))]
#[case::behind_strange_keys("HTTPS", HTTPS, Reply::of([Record::raw("@", HTTPS, 60, service(&[
    (1, b"\x02h2"), (4, &[10, 20, 1, 1, 203, 0, 113, 66]), (7, b"/{?dns}"), (65_400, b"\xff\x00"),
]))]))]
#[case::keys_out_of_order("SVCB", SVCB, Reply::of([Record::raw("@", SVCB, 60, service(&[
    (65_400, b"x"), (4, &[203, 0, 113, 66]), (1, b"\x02h2"),
]))]))]
#[case::a_key_twice("HTTPS", HTTPS, Reply::of([Record::raw("@", HTTPS, 60, service(&[
    (4, &[10, 20, 1, 1]), (4, &[203, 0, 113, 66]),
]))]))]
#[case::compressed_target("SVCB", SVCB, Reply::of([
    Record::raw("@", SVCB, 60, vec![0, 1, 0xc0, 12, 0, 4, 0, 4, 203, 0, 113, 66]),
]))]
#[case::mapped_hint("HTTPS", HTTPS, Reply::of([Record::raw("@", HTTPS, 60, service(&[
    (6, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 66]),
]))]))]
#[case::alias_form_with_hints("HTTPS", HTTPS, Reply::of([Record::raw("@", HTTPS, 60, {
    let mut data = service(&[(4, &[203, 0, 113, 66])]);
    data[1] = 0;
    data
})]))]
fn addresses_in_records_of_the_asked_type_are_judged(#[case] qtype: &str, #[case] number: u16, #[case] reply: Reply) {
    let stage = Stage::new("refuse");
    stage.vpc.on(NAME, number, reply.clone());
    for _ in 0..2 {
        let dig = stage.dig(NAME, &[qtype]);
        let address = if dig.text.contains("::ffff:") { "::ffff:203.0.113.66" } else { OUTSIDE };
        dig.shows(&[REFUSED[0], &REFUSED[1].replace(OUTSIDE, address)]);
    }
    let stage = Stage::new("strip");
    stage.vpc.on(NAME, number, reply);
    for _ in 0..2 {
        let dig = stage.dig(NAME, &[qtype]);
        let records: Vec<String> = dig.shown().into_iter().filter(|line| !line.starts_with("EDE")).collect();
        let told = dig.shown().last().is_some_and(|line| line.starts_with("EDE 15"));
        assert!(told && !records.join("\n").contains("203.0.113."), "{}", dig.text);
    }
}

/// RDATA that is not what its type says could hide anything.
#[rstest]
#[case::long_address("A", rtype::A, vec![10, 20, 1, 1, 203, 0, 113, 66])]
#[case::short_address("A", rtype::A, vec![10, 20, 1])]
#[case::no_address("A", rtype::A, Vec::new())]
#[case::long_ipv6("AAAA", rtype::AAAA, vec![0xfd; 17])]
#[case::odd_hint("HTTPS", HTTPS, service(&[(4, &[10, 20, 1, 1, 203])]))]
#[case::cut_key("HTTPS", HTTPS, { let mut data = service(&[(4, &[10, 20, 1, 1])]); data.truncate(9); data })]
#[case::no_target("SVCB", SVCB, vec![0, 1])]
fn malformed_rdata_is_no_answer(#[case] qtype: &str, #[case] number: u16, #[case] data: Vec<u8>) {
    for on_public in ["refuse", "strip", "log"] {
        let stage = Stage::new(on_public);
        stage.vpc.on(NAME, number, Reply::of([Record::raw("@", number, 60, data.clone())]));
        for _ in 0..2 {
            let dig = stage.dig(NAME, &[qtype]);
            assert!(dig.status == "SERVFAIL" && dig.answers.is_empty(), "{on_public}: {}", dig.text);
        }
    }
}

/// TC: records in a truncated message are not an answer, nor part of one.
#[rstest]
#[case::the_whole_is_inside(Reply::of([inside()]), &GOOD)]
#[case::the_whole_is_outside(Reply::of([outside()]), &REFUSED)]
fn nothing_of_a_truncated_answer_is_used(#[case] whole: Reply, #[case] lines: &[&str]) {
    let stage = Stage::new("refuse");
    let part = Reply::of([Record::a("@", 60, "10.20.9.9"), outside()]).truncated();
    stage.vpc.on_transport(NAME, rtype::A, Transport::Udp, part);
    stage.vpc.on_transport(NAME, rtype::A, Transport::Tcp, whole);
    stage.shows(NAME, "A", lines);
}

#[test]
fn a_truncated_answer_without_a_whole_one_is_a_failure() {
    let stage = Stage::new("refuse");
    stage.vpc.on_transport(NAME, rtype::A, Transport::Udp, Reply::of([inside()]).truncated());
    stage.vpc.on_transport(NAME, rtype::A, Transport::Tcp, Script::close());
    let dig = stage.dig(NAME, &["A"]);
    assert!(dig.status == "SERVFAIL" && dig.answers.is_empty(), "{}", dig.text);
}

/// A corporate resolver that puts everything it has behind its alias.
#[rstest]
#[case::in_order(&[0, 1, 2])]
#[case::backwards(&[2, 1, 0])]
#[case::address_first(&[2, 0, 1])]
fn a_chain_is_cut_in_any_order_and_letter_case(#[case] order: &[usize]) {
    let stage = Stage::new("refuse");
    stage.vpc.on("DB.us-east-1.amazonaws.com.", rtype::A, Reply::of([inside()]));
    let records = [
        // The suffix that QNAME has too is written as QNAME spells it.
        Record::cname("@", 60, "Hop.CORP.example."),
        Record::cname("hop.corp.EXAMPLE.", 60, "db.US-EAST-1.AmazonAWS.COM."),
        Record::a("db.us-east-1.amazonaws.com.", 60, OUTSIDE),
    ];
    stage.rest.on("alias.corp.example.", rtype::A, Reply::of(order.iter().map(|at| records[*at].clone())));
    stage.shows(
        "alias.corp.example.",
        "A",
        &[
            "NOERROR qr rd ra",
            "alias.corp.example. 60 CNAME Hop.corp.example.",
            "Hop.corp.example. 60 CNAME db.US-EAST-1.AmazonAWS.COM.",
            "db.US-EAST-1.AmazonAWS.COM. 60 A 10.20.1.1",
        ],
    );
}

/// An address next to a CNAME of the same name (RFC 1034 3.6.2 forbids it) is not used.
#[test]
fn an_address_beside_a_cname_is_not_given() {
    let stage = Stage::new("refuse");
    stage.vpc.on("db.us-east-1.amazonaws.com.", rtype::A, Reply::of([inside()]));
    let both = Reply::of([outside(), Record::cname("@", 60, "db.us-east-1.amazonaws.com.")]);
    stage.rest.on("alias.corp.example.", rtype::A, both.clone());
    stage.vpc.on(NAME, rtype::A, both.answer(Record::a("db.us-east-1.amazonaws.com.", 60, INSIDE)));
    stage.shows(
        "alias.corp.example.",
        "A",
        &[
            "NOERROR qr rd ra",
            "alias.corp.example. 60 CNAME db.us-east-1.amazonaws.com.",
            "db.us-east-1.amazonaws.com. 60 A 10.20.1.1",
        ],
    );
    stage.shows(
        NAME,
        "A",
        &[
            "NOERROR qr rd ra",
            "www.us-east-1.amazonaws.com. 60 CNAME db.us-east-1.amazonaws.com.",
            "db.us-east-1.amazonaws.com. 60 A 10.20.1.1",
        ],
    );
}

/// A DNAME that has nothing to do with the CNAME beside it does not come along, nor does a name longer than a name is.
#[test]
fn a_foreign_dname_is_not_given() {
    let stage = Stage::new("refuse");
    stage.vpc.on("db.us-east-1.amazonaws.com.", rtype::A, Reply::of([inside()]));
    let dname = |owner: &str, target: &str| Record::raw(owner, 39, 60, wire_name(target));
    stage.rest.on(
        "alias.corp.example.",
        rtype::A,
        Reply::of([
            dname("amazonaws.com.", "evil.example."),
            dname("example.", "evil.example."),
            Record::cname("@", 60, "db.us-east-1.amazonaws.com."),
            Record::a("db.us-east-1.amazonaws.com.", 60, OUTSIDE),
        ]),
    );
    stage.shows(
        "alias.corp.example.",
        "A",
        &[
            "NOERROR qr rd ra",
            "alias.corp.example. 60 CNAME db.us-east-1.amazonaws.com.",
            "db.us-east-1.amazonaws.com. 60 A 10.20.1.1",
        ],
    );
}

/// A server that says NOERROR to a loop, and one whose chain does not end within one answer.
#[test]
fn an_endless_chain_in_one_answer_is_a_failure() {
    let stage = Stage::new("refuse");
    let links =
        (0..65).map(|n| Record::cname(&format!("l{n}.corp.example."), 60, &format!("l{}.corp.example.", n + 1)));
    stage.rest.on("l0.corp.example.", rtype::A, Reply::of(links).answer(Record::a("l65.corp.example.", 60, INSIDE)));
    let ring =
        [Record::cname("@", 60, "pong.corp.example."), Record::cname("pong.corp.example.", 60, "ping.corp.example.")];
    stage.rest.on("ping.corp.example.", rtype::A, Reply::of(ring));
    for name in ["l0.corp.example.", "ping.corp.example."] {
        stage.shows(name, "A", &["SERVFAIL qr rd ra", "EDE 0 (Other): (the CNAME chain is a loop or too long)"]);
    }
}

/// The first address is only to be counted; what stands behind it is not let through for that.
#[rstest]
#[case::log("log")]
#[case::strip("strip")]
fn an_address_that_is_only_counted_covers_for_no_other(#[case] on_public: &str) {
    let internet = Upstream::start();
    internet.on("lure.example.", rtype::A, Reply::of([outside(), Record::a("@", 60, "127.0.0.1")]));
    let rule = format!("private = [\"198.51.100.0/24\"]\non_public = \"{on_public}\"\nrebind = \"refuse\"");
    let config =
        Config::new().upstream("internet", &[&internet], ONE_PATIENT_TRY).forward("all", &["."], "internet", &rule);
    let tidegate = Tidegate::start(&config);
    for _ in 0..2 {
        dig(tidegate.address(), "lure.example.", &["A"])
            .shows_aged(&["SERVFAIL qr rd ra", "EDE 15 (Blocked): (rule all: 127.0.0.1 is private)"]);
    }
}

/// Neither half is longer than 64; the whole is.
#[test]
fn a_chain_that_is_too_long_only_as_a_whole_is_a_failure() {
    for (length, is_whole) in [(59, true), (60, false)] {
        let stage = Stage::new("refuse");
        let head =
            (0..4).map(|n| Record::cname(&format!("h{n}.corp.example."), 60, &format!("h{}.corp.example.", n + 1)));
        let cut = Record::cname("h4.corp.example.", 60, "t0.us-east-1.amazonaws.com.");
        stage.rest.on("h0.corp.example.", rtype::A, Reply::of(head.chain([cut])));
        let name = |n| format!("t{n}.us-east-1.amazonaws.com.");
        let tail = (0..length).map(|n| Record::cname(&name(n), 60, &name(n + 1)));
        stage.vpc.on(&name(0), rtype::A, Reply::of(tail).answer(Record::a(&name(length), 60, INSIDE)));
        for _ in 0..2 {
            let dig = stage.dig("h0.corp.example.", &["A"]);
            assert_eq!(dig.status, if is_whole { "NOERROR" } else { "SERVFAIL" }, "{}", dig.text);
            assert_eq!(dig.text.contains(INSIDE), is_whole, "{}", dig.text);
        }
    }
}

/// ANY brings whatever a name has: over TCP the guard sees each record of it.
#[test]
fn any_is_judged_record_by_record() {
    let stage = Stage::new("strip");
    let hints = Record::raw("@", HTTPS, 60, service(&[(4, &[203, 0, 113, 66])]));
    stage.vpc.on(NAME, rtype::ANY, Reply::of([inside(), outside(), hints, Record::txt("@", 60, "text")]));
    let dig = stage.dig(NAME, &["ANY", "+tcp"]);
    assert_eq!(
        dig.shown()[..3],
        ["NOERROR qr rd ra", GOOD[1], "www.us-east-1.amazonaws.com. 60 TXT \"text\""],
        "{}",
        dig.text
    );
    assert!(dig.shown()[3].starts_with("EDE 15 (Blocked): (rule aws: 203.0.113.66"), "{}", dig.text);
    let stage = Stage::new("refuse");
    stage.vpc.on(NAME, rtype::ANY, Reply::of([inside(), outside()]));
    stage.dig(NAME, &["ANY", "+tcp"]).shows(&REFUSED);
}

/// A service's address in the additional section (RFC 2782) is its own name's to give.
#[test]
fn a_services_glue_stays_behind() {
    let stage = Stage::new("refuse");
    let service = [&[0, 1, 0, 1, 1, 187][..], &wire_name(ELSEWHERE)].concat();
    let reply = Reply::of([Record::raw("@", SRV, 60, service)]).additional(Record::a(ELSEWHERE, 60, OUTSIDE));
    stage.vpc.on(NAME, SRV, reply);
    stage.shows(
        NAME,
        "SRV",
        &["NOERROR qr rd ra", "www.us-east-1.amazonaws.com. 60 SRV 1 1 443 stranger.amazonaws.com."],
    );
}

/// Signatures over what was stripped go with it, and nothing is called authentic.
#[test]
fn stripped_answers_are_not_signed() {
    let stage = Stage::new("strip");
    let mut signature = [&rtype::A.to_be_bytes()[..], &[13, 4, 0, 0, 0, 60], &[0; 8], &[0, 1]].concat();
    signature.extend(wire_name("amazonaws.com."));
    signature.extend([7; 64]);
    let reply = Reply::of([inside(), outside(), Record::raw("@", 46, 60, signature)]).with(0x20);
    stage.vpc.on(NAME, rtype::A, reply);
    for _ in 0..2 {
        let dig = stage.dig(NAME, &["A", "+dnssec", "+adflag"]);
        assert!(dig.shown()[0] == GOOD[0] && dig.text.contains(INSIDE), "{}", dig.text);
        assert!(!dig.text.contains("RRSIG"), "{}", dig.text);
    }
}
