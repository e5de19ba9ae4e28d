//! Extended errors of upstreams (RFC 8914) are passed on beside ours, with the name of their server.

use hickory_proto::op::ResponseCode;
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

fn start(upstream: &Upstream) -> Tidegate {
    let config = Config::new()
        .upstream("vpc", &[upstream], ONE_PATIENT_TRY)
        .forward("aws", &["."], "vpc", "")
        .section("cache", "prefetch = false\nstale_after = \"3s\"");
    Tidegate::start(&config)
}

/// The answer to a query for a name that the upstream answers with `reply`.
fn answer(reply: Reply) -> (Answer, String) {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, reply);
    let tidegate = start(&upstream);
    let answer = tidegate.client().ask(&Query::a("www.example.").edns());
    (answer, format!("upstream {} (vpc)", upstream.address))
}

#[rstest]
#[case::bogus(Reply::servfail(), 6)]
#[case::signature_expired(Reply::servfail(), 7)]
#[case::dnskey_missing(Reply::servfail(), 9)]
#[case::blocked(Reply::refused(), 15)]
#[case::prohibited(Reply::refused(), 18)]
#[case::no_reachable_authority(Reply::servfail(), 22)]
#[case::private_use(Reply::servfail(), 50_000)]
fn a_failure_says_what_its_upstream_said(#[case] reply: Reply, #[case] code: u16) {
    let (answer, upstream) = answer(reply.ede(code, "no SEP matching the DS".as_bytes()));
    assert_eq!(answer.rcode(), ResponseCode::ServFail);
    let ours = (22, "rule aws".to_owned());
    assert_eq!(answer.edes(), [ours, (code, format!("{upstream}: no SEP matching the DS"))], "ours first");
}

#[rstest]
#[case::empty(b"", "")]
#[case::final_nul(b"bogus\0", ": bogus")]
#[case::controls(b"a\x1b[31mred\r\nb", ": a [31mred  b")]
#[case::direction("a\u{202e}b".as_bytes(), ": a b")]
#[case::not_utf_8(b"a\xff\xfeb", ": a\u{fffd}\u{fffd}b")]
#[case::other_scripts("schl\u{fc}ssel".as_bytes(), ": schl\u{fc}ssel")]
fn the_text_of_an_upstream_is_one_printable_line(#[case] text: &[u8], #[case] told: &str) {
    let (answer, upstream) = answer(Reply::servfail().ede(6, text));
    assert_eq!(answer.edes().get(1), Some(&(6, format!("{upstream}{told}"))));
}

#[test]
fn an_enormous_text_is_cut_and_leaves_ours_whole() {
    let text = "\u{20ac}".repeat(350);
    let (answer, upstream) = answer(Reply::servfail().ede(6, text.as_bytes()));
    let [ours, theirs] = &answer.edes()[..] else { panic!("{answer:?}") };
    assert_eq!(*ours, (22, "rule aws".to_owned()));
    assert!(theirs.1.starts_with(&format!("{upstream}: \u{20ac}")) && theirs.1.len() <= 160, "{theirs:?}");
    assert!(!theirs.1.contains('\u{fffd}'), "cut between characters: {theirs:?}");
}

#[rstest]
#[case::no_code(15, &[])]
#[case::half_a_code(15, &[6])]
#[case::another_option(10, &[1, 2, 3, 4, 5, 6, 7, 8])]
fn an_option_that_is_no_extended_error_adds_nothing(#[case] code: u16, #[case] data: &[u8]) {
    let (answer, _) = answer(Reply::servfail().option(code, data));
    assert_eq!((answer.rcode(), answer.edes()), (ResponseCode::ServFail, vec![(22, "rule aws".to_owned())]));
}

#[test]
fn an_option_that_is_cut_short_is_a_malformed_response_and_no_panic() {
    let (answer, _) = answer(Reply::servfail().raw_options(&[0, 15, 0, 9, 0, 6]));
    assert_eq!((answer.rcode(), answer.edes()), (ResponseCode::ServFail, vec![(22, "rule aws".to_owned())]));
}

#[test]
fn a_client_without_edns_gets_none() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::servfail().ede(6, b"bogus"));
    let tidegate = start(&upstream);
    let answer = tidegate.client().ask(&Query::a("www.example."));
    assert_eq!((answer.rcode(), answer.edes()), (ResponseCode::ServFail, Vec::new()));
}

#[test]
fn a_remembered_failure_keeps_the_reason_and_a_later_answer_has_none() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::servfail().ede(7, b"expired"));
    let tidegate = start(&upstream);
    let client = tidegate.client();
    let ask = || client.ask(&Query::a("www.example.").edns());
    assert_eq!(ask().edes()[1].0, 7);
    let again = ask();
    let theirs = (7, format!("upstream {} (vpc): expired", upstream.address));
    assert_eq!(again.edes(), [(13, "rule aws".to_owned()), theirs]);
    upstream.on("www.example.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the answer after the failure", || ask().rcode() == ResponseCode::NoError);
    assert_eq!(ask().edes(), []);
}

#[test]
fn a_stale_answer_says_why_there_is_no_fresh_one() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    let tidegate = start(&upstream);
    let client = tidegate.client();
    let ask = || client.ask(&Query::a("www.example.").edns());
    assert_eq!(ask().address_texts(), ["10.0.0.1"]);
    upstream.on("www.example.", rtype::A, Reply::servfail().ede(9, b"no key"));
    let mut stale = Vec::new();
    eventually("a stale answer", || {
        let answer = ask();
        assert_eq!(answer.address_texts(), ["10.0.0.1"]);
        stale = answer.edes();
        !stale.is_empty()
    });
    assert_eq!(stale, [(3, String::new()), (9, format!("upstream {} (vpc): no key", upstream.address))]);
}

#[test]
fn a_reason_that_does_not_fit_the_datagram_gives_way_to_ours() {
    let upstream = Upstream::start();
    let name = format!("{0}.{0}.{0}.example.", "a".repeat(63));
    upstream.on(&name, rtype::A, Reply::servfail().ede(6, &[b'x'; 200]));
    let tidegate = start(&upstream);
    let answer = tidegate.client().ask(&Query::a(&name).payload(512));
    assert!(answer.bytes.len() <= 512);
    assert_eq!(answer.ede(), Some((22, "rule aws".to_owned())));
}
