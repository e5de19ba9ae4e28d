//! While no server answers: whose older answer serves whom, and how often the servers are tried.

use std::{thread, time::Duration};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, flag, rtype},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::Upstream,
};

const RRSIG: u16 = 46;
const QUICK: &str = "attempts = 1\nhedge = false\ntimeout = \"1s\"\n[upstream.site.health]\ninterval_down = \"100ms\"";

/// An address that is good for a second, with a signature, said to be authentic.
fn signed() -> Reply {
    let mut signature = rtype::A.to_be_bytes().to_vec();
    signature.extend([8, 2]);
    signature.extend([0; 14]);
    signature.extend(b"\x07example\0signature");
    Reply::of([Record::a("@", 1, "10.0.0.1"), Record::raw("@", RRSIG, 1, signature)]).with(flag::AD)
}

#[rstest]
#[case::stale_answers_are_off("stale = \"0s\"", ResponseCode::ServFail)]
#[case::stale_answers_are_on("stale_after = \"100ms\"", ResponseCode::NoError)]
fn an_entry_of_the_other_kind_serves_while_no_server_answers(#[case] cache: &str, #[case] rcode: ResponseCode) {
    let mut upstream = Upstream::start();
    upstream.on("plain.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]).with(flag::AD));
    upstream.on("signed.example.", rtype::A, signed());
    let config = Config::new().upstream("site", &[&upstream], QUICK).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config.section("cache", &format!("prefetch = false\n{cache}")));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("plain.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(client.ask(&Query::a("signed.example.").dnssec_ok()).answers().len(), 2);
    upstream.stop();

    eventually("what was asked for without DO serves with DO", || {
        let answer = client.ask(&Query::a("plain.example.").dnssec_ok());
        answer.rcode() == rcode && answer.ede().is_none_or(|(code, _)| code != 22 || rcode == ResponseCode::ServFail)
    });
    if rcode == ResponseCode::ServFail {
        return;
    }
    let with = client.ask(&Query::a("plain.example.").dnssec_ok());
    assert_eq!((with.address_texts(), with.has(flag::AD)), (vec!["10.0.0.1".to_owned()], false));
    let without = client.ask(&Query::a("signed.example.").edns());
    assert_eq!((without.rcode(), without.answers().len()), (ResponseCode::NoError, 1), "{without:?}");
    eventually("the stale answer says so", || {
        client.ask(&Query::a("signed.example.").edns()).verdict() == (ResponseCode::NoError, Some(3))
    });
}

/// An entry that is fresh still, of the other kind, is no stale answer.
#[test]
fn a_fresh_entry_of_the_other_kind_serves_too() {
    let mut upstream = Upstream::answering("10.0.0.1");
    let config = Config::new().upstream("site", &[&upstream], QUICK).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    upstream.stop();
    let answer = tidegate.client().ask(&Query::a("www.example.").dnssec_ok());
    assert_eq!(
        (answer.verdict(), answer.address_texts()),
        ((ResponseCode::NoError, None), vec!["10.0.0.1".to_owned()])
    );
}

/// `when_down = "upstream:…"`: while that group can be asked, nobody gets an old answer, and nobody waits for the group that
/// is known to be down.
#[test]
fn the_group_to_fall_back_to_comes_before_a_stale_answer() {
    let (mut site, other) = (Upstream::start(), Upstream::start());
    site.on("www.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    let reply = Reply::of([Record::a("@", 1, "10.0.0.2")]);
    other.on("www.example.", rtype::A, Script::late(Duration::from_millis(200), reply));
    let config = Config::new()
        .section("cache", "prefetch = false")
        .section("server", "deadline = \"20s\"")
        .upstream("site", &[&site], QUICK)
        .upstream("other", &[&other], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "when_down = \"upstream:other\"");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    // Probes may ask for a name that was answered lately; of several within a second it is the first.
    client.ask(&Query::a("first.example."));
    assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    site.stop();
    let server = site.address.to_string();
    let down = [("server", server.as_str()), ("to", "down")];
    tidegate.await_metric("tidegate_upstream_transitions_total", &down, 1.0);
    // From now on it takes queries and answers none.
    site.go_silent();
    site.start_again();
    eventually("the other group's answer", || {
        let answer = client.ask(&Query::a("www.example.").edns());
        assert_eq!(answer.verdict(), (ResponseCode::NoError, None));
        answer.address_texts() == ["10.0.0.2"]
    });
    assert_eq!(tidegate.metric("tidegate_cache_stale_total", &[]), 0.0);
    assert_eq!(site.count("www.example."), 1, "who is known to be down is not waited for");
}

/// RFC 8767 5: not sooner than 30 s, though failures are forgotten after one; and at once when the server is back.
/// Each error response raises a doubt about a server that is not busy, and a probe clears it: that is no comeback.
#[rstest]
fn a_name_with_a_stale_answer_is_not_asked_again_after_a_failed_round(#[values(true, false)] is_busy: bool) {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    let lines = "attempts = 1\nhedge = false\ntimeout = \"500ms\"";
    let config = Config::new().upstream("site", &[&upstream], lines).forward("everything", &["."], "site", "");
    let cache = "prefetch = false\nstale_after = \"100ms\"\nfailure_ttl = \"1s\"";
    let tidegate = Tidegate::start(&config.section("cache", cache).section("server", "deadline = \"1s\""));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    // The name fails, nothing else does: the server stays up.
    upstream.on("www.example.", rtype::A, Reply::servfail());
    upstream.on("other.example.", rtype::A, Reply::of([Record::a("@", 0, "10.0.0.9")]));
    eventually("a stale answer", || {
        client.ask(&Query::a("www.example.").edns()).ede().is_some_and(|(code, _)| code == 3)
    });
    let asked = upstream.count("www.example.");
    let start = crate::support::now();
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(client.ask(&Query::a("www.example.").edns()).verdict(), (ResponseCode::NoError, Some(3)));
        // Keeps the time, and the server busy.
        if is_busy {
            client.ask(&Query::a("other.example."));
        } else {
            // Long enough for an error to count against a server that just passed a probe.
            thread::sleep(Duration::from_millis(1100));
        }
        assert!(upstream.count("www.example.") <= asked + 1, "asked again {:?} after the round", start.elapsed());
    }
}

/// What failed while no server answered is asked again as soon as one does, however long failures are remembered.
#[test]
fn the_first_answer_ends_an_outage_for_the_names_that_failed_in_it() {
    let mut upstream = Upstream::answering("10.0.0.1");
    let config = Config::new().upstream("site", &[&upstream], QUICK).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config.section("cache", "failure_ttl = \"5m\""));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("before.example.")).address_texts(), ["10.0.0.1"]);
    upstream.stop();
    let is_healthy = |is: f64| (tidegate.metric("tidegate_upstream_healthy", &[("group", "site")]) - is).abs() < 0.5;
    eventually("the server is down", || is_healthy(0.0));
    let verdict = |name: &str| client.ask(&Query::a(name).edns()).verdict();
    assert_eq!(verdict("www.example."), (ResponseCode::ServFail, Some(22)), "tried for real");
    assert_eq!(verdict("www.example."), (ResponseCode::ServFail, Some(13)), "and remembered during the outage");
    upstream.start_again();
    eventually("the server is up", || is_healthy(1.0));
    assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
}
