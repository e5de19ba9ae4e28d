//! Upstreams that fail: the next one is asked, and if there is none, the client gets an error in time (RFC 9520).

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually, now,
    query::{Query, rtype},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

/// The keys of a group that gives a server up quickly.
const HASTY: &str = "timeout = \"200ms\"";

fn start(servers: &[&Upstream], group: &str) -> Tidegate {
    let config = Config::new().upstream("site", servers, group).forward("everything", &["."], "site", "");
    Tidegate::start(&config.section("server", "deadline = \"2s\""))
}

#[rstest]
#[case::servfail(Reply::servfail().into())]
#[case::refused(Reply::refused().into())]
#[case::not_implemented(Reply::rcode(4).into())]
#[case::silence(Script::silence())]
fn a_name_that_no_server_answers_is_servfail_naming_the_rule(#[case] script: Script) {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, script);
    let tidegate = start(&[&upstream], HASTY);

    let start = now();
    let query = Query::a("www.example.").edns();
    let answer = tidegate.client().ask(&query);
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    assert!(answer.ede_text().contains("everything"), "{:?}", answer.ede());
    assert!(answer.repeats(&query));
    assert!(start.elapsed() < Duration::from_secs(3), "the deadline is 2 s, this took {:?}", start.elapsed());
}

#[test]
fn a_dead_upstream_is_servfail_in_time_and_forgotten_once_it_is_back() {
    let mut upstream = Upstream::answering("10.0.0.1");
    let tidegate = start(&[&upstream], "[upstream.site.health]\ninterval_down = \"100ms\"");
    assert_eq!(tidegate.client().ask(&Query::a("before.example.")).rcode(), ResponseCode::NoError);
    upstream.stop();

    let start = now();
    let answer = tidegate.client().ask(&Query::a("www.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    upstream.start_again();
    eventually("an answer from the server that is back", || {
        tidegate.client().ask(&Query::a("www.example.")).rcode() == ResponseCode::NoError
    });
}

/// A server that only had the remaining time of another query has not failed.
#[test]
fn a_name_that_an_alias_left_no_time_for_is_not_remembered_as_failed() {
    let (slow, fair) = (Upstream::start(), Upstream::start());
    let [alias, other] = ["www", "other"].map(|n| Reply::of([Record::cname("@", 300, &format!("{n}.fair.example."))]));
    slow.on("alias.example.", rtype::A, Script::late(Duration::from_millis(2600), alias));
    fair.on("www.fair.example.", rtype::A, Script::late(Duration::from_secs(1), Reply::a("10.0.0.1")));
    let config = Config::new()
        .section("server", "deadline = \"3s\"")
        .section("cache", "failure_ttl = \"5m\"")
        .upstream("slow", &[&slow], ONE_PATIENT_TRY)
        .upstream("fair", &[&fair], ONE_PATIENT_TRY)
        .forward("slow", &["."], "slow", "")
        .forward("fair", &["fair.example"], "fair", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    let through_alias = client.socket();
    through_alias.send(&Query::a("alias.example."));
    fair.wait_for("www.fair.example.", 1);
    let meanwhile = client.ask(&Query::a("www.fair.example."));
    assert_eq!(through_alias.receive().rcode(), ResponseCode::ServFail, "it took too long");
    assert_eq!(meanwhile.address_texts(), ["10.0.0.1"], "who waited for the same has time of its own");

    // Once more, with no query in between.
    slow.on("other.example.", rtype::A, Script::late(Duration::from_millis(2600), other));
    fair.on("other.fair.example.", rtype::A, Script::late(Duration::from_secs(1), Reply::a("10.0.0.1")));
    assert_eq!(client.ask(&Query::a("other.example.")).rcode(), ResponseCode::ServFail, "it took too long");
    let answer = client.ask(&Query::a("www.fair.example.").edns());
    assert_eq!(
        (answer.verdict(), answer.address_texts()),
        ((ResponseCode::NoError, None), vec!["10.0.0.1".to_owned()])
    );
}

#[test]
fn a_failure_is_remembered_for_a_while_and_never_as_an_answer() {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, Reply::servfail());
    let tidegate = start(&[&upstream], HASTY);
    let client = tidegate.client();

    assert_eq!(client.ask(&Query::a("www.example.").edns()).verdict(), (ResponseCode::ServFail, Some(22)));
    let asked = upstream.count("www.example.");
    let again = client.ask(&Query::a("www.example.").edns());
    assert_eq!(again.verdict(), (ResponseCode::ServFail, Some(13)));
    assert_eq!(upstream.count("www.example."), asked, "the upstream is left alone for failure_ttl");

    upstream.on("www.example.", rtype::A, Reply::a("10.0.0.1"));
    eventually("the answer after the failure", || {
        client.ask(&Query::a("www.example.")).address_texts() == ["10.0.0.1"]
    });
}

#[test]
fn a_failure_of_one_name_is_no_failure_of_another() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = start(&[&upstream], HASTY);
    for broken in 0..40 {
        let name = format!("broken{broken}.example.");
        upstream.on(&name, rtype::A, Reply::servfail());
        assert_eq!(tidegate.client().ask(&Query::a(&name)).rcode(), ResponseCode::ServFail, "{name}");
    }
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
}

#[rstest]
#[case::servfail(Reply::servfail().into())]
#[case::refused(Reply::refused().into())]
#[case::silence(Script::silence())]
fn the_next_server_answers_when_one_fails(#[case] script: Script) {
    let (broken, sound) = (Upstream::start(), Upstream::answering("10.0.0.2"));
    broken.on_type(rtype::A, script);
    let tidegate = start(&[&broken, &sound], HASTY);

    for number in 0..20 {
        let name = format!("n{number}.example.");
        let answer = tidegate.client().ask(&Query::a(&name).edns());
        assert_eq!(answer.address_texts(), ["10.0.0.2"], "{name}: {answer:?}");
    }
}

#[test]
fn the_next_server_answers_when_one_is_gone() {
    let (mut gone, sound) = (Upstream::start(), Upstream::answering("10.0.0.2"));
    gone.stop();
    let tidegate = start(&[&gone, &sound], "");
    for number in 0..20 {
        let name = format!("n{number}.example.");
        assert_eq!(tidegate.client().ask(&Query::a(&name)).address_texts(), ["10.0.0.2"], "{name}");
    }
}

#[test]
fn the_next_server_answers_when_one_truncates_and_has_no_tcp() {
    let (broken, sound) = (Upstream::start(), Upstream::answering("10.0.0.2"));
    for number in 0..10 {
        let name = format!("n{number}.example.");
        broken.on_transport(&name, rtype::A, Transport::Udp, Reply::a("10.0.0.1").truncated());
        broken.on_transport(&name, rtype::A, Transport::Tcp, Script::close());
    }
    let tidegate = start(&[&broken, &sound], HASTY);
    for number in 0..10 {
        let name = format!("n{number}.example.");
        assert_eq!(tidegate.client().ask(&Query::a(&name)).address_texts(), ["10.0.0.2"], "{name}");
    }
}

#[rstest]
#[case::nxdomain(Reply::nxdomain(300), ResponseCode::NXDomain)]
#[case::nodata(Reply::nodata(300), ResponseCode::NoError)]
fn a_negative_answer_is_no_failure(#[case] reply: Reply, #[case] rcode: ResponseCode) {
    let (one, two) = (Upstream::start(), Upstream::start());
    for upstream in [&one, &two] {
        upstream.on_type(rtype::A, reply.clone());
    }
    let tidegate = start(&[&one, &two], ONE_PATIENT_TRY);
    for number in 0..10 {
        let name = format!("n{number}.example.");
        assert_eq!(tidegate.client().ask(&Query::a(&name)).rcode(), rcode, "{name}");
        assert_eq!(one.count(&name) + two.count(&name), 1, "{name}");
    }
}

#[test]
fn a_query_costs_a_bounded_number_of_upstream_messages() {
    let servers = [Upstream::start(), Upstream::start(), Upstream::start(), Upstream::start(), Upstream::start()];
    for server in &servers {
        server.on_type(rtype::A, Reply::servfail());
    }
    let tidegate = start(&servers.each_ref(), "attempts = 3\nhedge = false");
    let answer = tidegate.client().ask(&Query::a("www.example."));

    assert_eq!(answer.rcode(), ResponseCode::ServFail);
    let counts = servers.each_ref().map(|server| server.count("www.example."));
    assert_eq!(counts.iter().sum::<usize>(), 3, "attempts = 3, over all servers: {counts:?}");
    assert!(counts.iter().all(|&count| count <= 1), "another server each time: {counts:?}");
}

#[test]
fn an_upstream_that_is_our_own_listener_is_left_out() {
    let sound = Upstream::answering("10.0.0.1");
    let port = crate::support::peers::free_port();
    let own = format!("127.0.0.1:{port}");
    let config = Config::new()
        .listen(&[&own])
        .servers("mirror", std::slice::from_ref(&own), "")
        .upstream("site", &[&sound], "")
        .forward("looped", &["loop.example"], "mirror", "")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);

    assert!(!tidegate.logged("WARN", &own).is_empty(), "a warning names {own}: {:?}", tidegate.log());
    let answer = tidegate.client().ask(&Query::a("www.loop.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
}
