//! Answers that were not asked for, in whole or in part: none gets to a client or into the cache (RFC 5452, RFC 9267).

use std::net::UdpSocket;

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, flag, rtype, wire_name},
    records::{Fault, Record, Reply},
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

const FORGED: &str = "6.6.6.6";
const TRUE: &str = "10.0.0.1";

fn start(servers: &[&Upstream]) -> Tidegate {
    Tidegate::start(&Config::forwarding_to(servers))
}

#[rstest]
#[case::wrong_id(Fault::WrongId)]
#[case::wrong_question(Fault::WrongQuestion("www.elsewhere.".to_owned()))]
#[case::not_a_response(Fault::NotAResponse)]
#[case::garbage(Fault::Garbage(vec![0xFF; 40]))]
#[case::an_id_and_no_more(Fault::Garbage(vec![]))]
fn a_datagram_that_does_not_match_is_ignored_and_the_wait_goes_on(#[case] fault: Fault) {
    let upstream = Upstream::start();
    let forged = Reply::a(FORGED).but(fault);
    upstream.on("www.example.", rtype::A, Script::from(forged.clone()).then(forged).then(Reply::a(TRUE)));
    let tidegate = start(&[&upstream]);

    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::a("www.example.").edns());
        assert_eq!(answer.address_texts(), [TRUE], "{turn}: {answer:?}");
    }
    assert_eq!(upstream.count("www.example."), 1, "it does not end a try");
    tidegate.await_metric("tidegate_upstream_mismatches_total", &[("group", "site")], 2.0);
}

#[test]
fn an_answer_from_another_address_is_ignored() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("www.example.", rtype::A, Script::held(&gate, Reply::a(TRUE)));
    let tidegate = start(&[&upstream]);

    let socket = tidegate.client().socket();
    socket.send(&Query::a("www.example."));
    upstream.wait_for("www.example.", 1);
    let seen = upstream.seen("www.example.").remove(0);
    let end = 12 + Query::a("www.example.").question_bytes().len();
    let forged = Reply::a(FORGED).bytes(&seen.bytes, end, 512);
    for forger in ["127.0.0.1:0", "127.0.0.9:0"] {
        let forger = UdpSocket::bind(forger).expect("a free port");
        forger.send_to(&forged, seen.from).expect("it leaves");
    }
    gate.open();
    assert_eq!(socket.receive().address_texts(), [TRUE]);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), [TRUE]);
}

#[test]
fn ids_and_ports_of_upstream_queries_vary() {
    let upstream = Upstream::answering(TRUE);
    let tidegate = start(&[&upstream]);
    for number in 0..100 {
        tidegate.client().ask(&Query::a(&format!("n{number}.example.")));
    }
    let seen: Vec<_> = upstream.all_seen().into_iter().filter(|seen| seen.qtype == rtype::A).collect();
    let distinct = |mut values: Vec<u16>| {
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    // Of 65,536 ids a hundred draws repeat seldom; of 256 ports they leave about 83 distinct.
    assert!(distinct(seen.iter().map(|seen| seen.id).collect()) > 90);
    assert!(distinct(seen.iter().map(|seen| seen.from.port()).collect()) > 40);
    let steps = seen.windows(2).filter(|pair| pair[1].id == pair[0].id.wrapping_add(1)).count();
    assert!(steps < 5, "ids do not count up");
}

/// The classic fault of conditional forwarders: an answer brings records for names below another rule.
#[test]
fn records_for_other_names_are_neither_passed_on_nor_kept() {
    let (attacker, victim) = (Upstream::start(), Upstream::answering("10.20.0.1"));
    let planted = "s3.us-east-1.amazonaws.com.";
    let reply = Reply::a(TRUE)
        .answer(Record::a(planted, 86_400, FORGED))
        .answer(Record::a("mail.example.", 86_400, FORGED))
        .authority(Record::raw("amazonaws.com.", rtype::NS, 86_400, wire_name("ns.evil.example.")))
        .additional(Record::a(planted, 86_400, FORGED))
        .additional(Record::a("ns.evil.example.", 86_400, FORGED));
    attacker.on("www.example.", rtype::A, reply);
    attacker.on("mail.example.", rtype::A, Reply::a("10.0.0.2"));
    let config = Config::new()
        .upstream("site", &[&attacker], "")
        .upstream("vpc", &[&victim], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "")
        .forward("aws", &["preset:aws"], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();

    for turn in ["fresh", "cached"] {
        let answer = client.ask(&Query::a("www.example."));
        assert_eq!(answer.address_texts(), [TRUE], "{turn}: only what was asked: {answer:?}");
        let forged = [6, 6, 6, 6];
        assert!(!answer.bytes.windows(4).any(|window| window == forged), "in no section, {turn}: {answer:?}");
    }
    assert_eq!(client.ask(&Query::a(planted)).address_texts(), ["10.20.0.1"]);
    assert_eq!(victim.count(planted), 1);
    assert_eq!(attacker.count(planted), 0);
    assert_eq!(client.ask(&Query::a("mail.example.")).address_texts(), ["10.0.0.2"]);
}

#[test]
fn the_links_of_a_chain_are_not_kept_under_their_own_names() {
    let upstream = Upstream::start();
    let chain = [Record::cname("@", 300, "target.example."), Record::a("target.example.", 300, FORGED)];
    upstream.on("www.example.", rtype::A, Reply::of(chain));
    upstream.on("target.example.", rtype::A, Reply::a(TRUE));
    let tidegate = start(&[&upstream]);

    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).aliases(), ["target.example."]);
    assert_eq!(tidegate.client().ask(&Query::a("target.example.")).address_texts(), [TRUE]);
    assert_eq!(upstream.count("target.example."), 1);
}

#[test]
fn an_answer_without_the_name_that_was_asked_gives_no_foreign_address() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::of([Record::a("other.example.", 300, FORGED)]));
    let tidegate = start(&[&upstream]);
    let answer = tidegate.client().ask(&Query::a("www.example."));
    assert!(answer.addresses().is_empty(), "{answer:?}");
}

#[test]
fn a_loop_of_aliases_ends_in_servfail() {
    let upstream = Upstream::start();
    let ring = [Record::cname("@", 300, "b.example."), Record::cname("b.example.", 300, "a.example.")];
    upstream.on("a.example.", rtype::A, Reply::of(ring));
    upstream.on("self.example.", rtype::A, Reply::of([Record::cname("@", 300, "self.example.")]));
    let tidegate = start(&[&upstream]);

    for name in ["a.example.", "self.example."] {
        let answer = tidegate.client().ask(&Query::a(name).edns());
        assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)), "{name}");
        assert!(!answer.ede_text().is_empty(), "{name}: in words");
    }
}

/// The right id and question, followed by octets that must not trip a parser.
#[rstest]
#[case::owner_points_to_itself(1, vec![0xC0, 29])]
#[case::owner_points_forwards(1, vec![0xC0, 60])]
#[case::reserved_label_type(1, vec![0x80, 0])]
#[case::record_cut_in_its_owner(1, vec![5, b'a'])]
#[case::record_cut_in_its_header(1, vec![0xC0, 12, 0, 1, 0, 1])]
#[case::data_beyond_the_end(1, vec![0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 200, 6, 6, 6, 6])]
#[case::address_of_three_octets(1, vec![0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 3, 6, 6, 6])]
#[case::address_of_five_octets(1, vec![0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 5, 6, 6, 6, 6, 6])]
#[case::alias_that_points_to_itself(1, vec![0xC0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, 2, 0xC0, 41])]
#[case::alias_shorter_than_its_length(1, vec![0xC0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, 9, 1, b'a', 0, 0, 0, 0, 0, 0, 0])]
#[case::more_records_than_octets(0xFFFF, vec![0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 6, 6, 6, 6])]
fn malformed_responses_are_never_relayed(#[case] answers: u16, #[case] tail: Vec<u8>) {
    let (broken, sound) = (Upstream::start(), Upstream::start());
    sound.on("www.example.", rtype::A, Reply::a(TRUE));
    let mut message = Vec::new();
    for word in [flag::QR | flag::RD | flag::RA, 1, answers, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(Query::a("www.example.").question_bytes());
    assert_eq!(message.len() + 2, 29, "the first record begins at octet 29");
    message.extend(tail);
    broken.on("www.example.", rtype::A, Reply::default().but(Fault::Garbage(message)));
    let config = Config::new()
        .section("server", "deadline = \"2s\"")
        .upstream("both", &[&broken, &sound], "timeout = \"200ms\"")
        .forward("everything", &["."], "both", "");
    let tidegate = Tidegate::start(&config);

    let answer = tidegate.client().ask(&Query::a("www.example."));
    assert_eq!(answer.address_texts(), [TRUE], "{answer:?}");

    let only = Config::forwarding_to(&[&broken]).section("server", "deadline = \"1s\"");
    let answer = Tidegate::start(&only).client().ask(&Query::a("www.example."));
    assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::ServFail, 0));
}
