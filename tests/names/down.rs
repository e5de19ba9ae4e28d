//! What a rule does when none of its servers answers: the last known answer, none, or another group's.

use rstest::rstest;

use hickory_proto::op::ResponseCode;

use crate::{
    Config, ONE_PATIENT_TRY, Site, ask,
    support::{eventually, query::Query, tidegate::Tidegate, upstream::Upstream},
};

const UNREACHABLE: [&str; 2] = ["SERVFAIL qr rd ra", "EDE 22 (No Reachable Authority): (rule aws)"];
const REMEMBERED: [&str; 2] = ["SERVFAIL qr rd ra", "EDE 13 (Cached Error): (rule aws)"];
const GUARD: &str = "private = [\"10.20.0.0/16\", \"fd20::/16\"]\n";

/// The aws rule with these lines; its endpoint, and `public` that has the public answers.
fn config(site: &Site, aws: &str) -> Config {
    site.config(aws)
        .servers("public", &[site.outside.address.to_string()], ONE_PATIENT_TRY)
        .section("cache", "failure_ttl = \"30s\"\nstale_after = \"100ms\"")
}

#[test]
fn fail_means_no_answer() {
    let mut site = Site::start();
    let tidegate = Tidegate::start(&config(&site, "when_down = \"fail\""));
    let known = ["NOERROR qr rd ra", "brief.us-east-1.amazonaws.com. 1 A 10.20.1.12"];
    ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").shows(&known);
    assert_eq!(ask(&tidegate, "brief.corp.example", "A").answers.len(), 2);
    site.endpoint.kill();
    let is_failure = |shown: &[String]| shown == UNREACHABLE || shown == REMEMBERED;
    for name in ["brief.us-east-1.amazonaws.com", "brief.corp.example"] {
        eventually("the answer is over", || is_failure(&ask(&tidegate, name, "A").shown()));
        for _ in 0..3 {
            let shown = ask(&tidegate, name, "A").shown();
            assert!(is_failure(&shown), "{name}: {shown:?}");
        }
    }
    assert_eq!(tidegate.metric("tidegate_cache_stale_total", &[]), 0.0);
}

#[test]
fn names_seen_before_are_served_stale_and_others_fail() {
    let mut site = Site::start();
    let tidegate = Tidegate::start(&config(&site, ""));
    assert_eq!(ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").status, "NOERROR");
    site.endpoint.kill();
    let stale = ["NOERROR qr rd ra", "brief.us-east-1.amazonaws.com. 30 A 10.20.1.12", "EDE 3 (Stale Answer)"];
    eventually("a stale answer", || ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").shown() == stale);
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A").shows(&UNREACHABLE);
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A").shows(&REMEMBERED);
}

/// To fail open, knowingly: the other group answers, without a guard with whatever it has.
#[test]
fn another_group_answers() {
    let mut site = Site::start();
    let tidegate = Tidegate::start(&config(&site, "when_down = \"upstream:public\""));
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "AAAA")
        .shows(&["NOERROR qr rd ra", "sts.us-east-1.amazonaws.com. 60 AAAA fd20::11"]);
    site.endpoint.kill();
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A")
        .shows(&["NOERROR qr rd ra", "sts.us-east-1.amazonaws.com. 60 A 203.0.113.11"]);
    ask(&tidegate, "login.corp.example", "HTTPS").shows(&[
        "NOERROR qr rd ra",
        "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
        "STS.US-EAST-1.AmazonAWS.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=203.0.113.11 ipv6hint=2001:db8::11",
    ]);
    site.outside.kill();
    ask(&tidegate, "queue.us-east-1.amazonaws.com", "A").shows(&UNREACHABLE);
}

/// Servers that are silent for as long as a client may wait leave the other group time.
#[test]
fn another_group_answers_in_time_behind_silence() {
    let (silent, other) = (Upstream::start(), Upstream::answering("10.20.1.1"));
    silent.go_silent();
    let config = Config::new()
        .section("server", "deadline = \"3s\"")
        .upstream("silent", &[&silent], "timeout = \"3s\"")
        .upstream("other", &[&other], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "silent", "when_down = \"upstream:other\"");
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&Query::a("sts.us-east-1.amazonaws.com."));
    assert_eq!(answer.address_texts(), ["10.20.1.1"]);
}

/// Busy is not down.
#[test]
fn a_group_over_its_budget_does_not_fall_back() {
    let (busy, other) = (Upstream::answering("10.20.1.1"), Upstream::answering("203.0.113.1"));
    let config = Config::new()
        .upstream("busy", &[&busy], &format!("max_qps = 1\n{ONE_PATIENT_TRY}"))
        .upstream("other", &[&other], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "busy", "when_down = \"upstream:other\"");
    let tidegate = Tidegate::start(&config);
    let is_over = |number: usize| {
        let answer = tidegate.client().ask(&Query::a(&format!("n{number}.us-east-1.amazonaws.com.")).edns());
        match answer.rcode() {
            ResponseCode::NoError => assert_eq!(answer.address_texts(), ["10.20.1.1"]),
            _ => assert_eq!(answer.ede(), Some((0, "upstream budget".to_owned()))),
        }
        answer.rcode() == ResponseCode::ServFail
    };
    assert!((0..50).any(is_over), "four at once, then one a second");
    let is_question = |name: &str| name.starts_with('n') && name.contains("us-east-1");
    assert!(!other.all_seen().iter().any(|seen| is_question(&seen.name)));
}

/// The guard is the rule's, whoever answers for it.
#[rstest]
#[case::refuse("refuse", &["SERVFAIL qr rd ra"])]
#[case::strip("strip", &["NOERROR qr rd ra"])]
fn the_guard_holds_for_the_other_group(#[case] on_public: &str, #[case] lines: &[&str]) {
    let mut site = Site::start();
    let rule = format!(
        "{GUARD}on_public = \"{on_public}\"\nwhen_down = \"upstream:public\"\nexcept = [\"queue.us-east-1.amazonaws.com\"]"
    );
    let tidegate = Tidegate::start(&config(&site, &rule));
    assert_eq!(ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").answers, ["10.20.1.12"]);
    site.endpoint.kill();
    for (name, qtype) in [
        ("sts.us-east-1.amazonaws.com", "A"),
        ("sts.us-east-1.amazonaws.com", "AAAA"),
        ("sts.us-east-1.amazonaws.com", "HTTPS"),
        ("box.s3.us-east-1.amazonaws.com", "A"),
    ] {
        for _ in 0..2 {
            let shown = ask(&tidegate, name, qtype).shown();
            let (told, rest) = shown.split_last().expect("a status");
            assert!(rest == lines && told.starts_with("EDE 15 (Blocked): ("), "{name} {qtype}: {shown:?}");
        }
    }
    // What had a private answer keeps it no longer than it lives: the other group's is judged like the first.
    eventually("the private answer is over", || {
        let dig = ask(&tidegate, "brief.us-east-1.amazonaws.com", "A");
        let records = dig.shown().into_iter().filter(|line| !line.starts_with("EDE")).collect::<Vec<_>>();
        assert!(!records.join("\n").contains("203.0.113."), "{}", dig.text);
        dig.answers.is_empty() || dig.text.contains("EDE: 3")
    });
    ask(&tidegate, "queue.us-east-1.amazonaws.com", "A")
        .shows(&["NOERROR qr rd ra", "queue.us-east-1.amazonaws.com. 60 A 203.0.113.13"]);
}

/// Another fall-back is another rule: what the first one brought is not served after a reload.
#[test]
fn a_reload_that_changes_the_other_group_drops_what_it_brought() {
    let mut site = Site::start();
    let before = config(&site, "when_down = \"upstream:public\"");
    let tidegate = Tidegate::start(&before);
    site.endpoint.kill();
    let known = ["NOERROR qr rd ra", "sts.us-east-1.amazonaws.com. 60 A 203.0.113.11"];
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A").shows(&known);
    assert!(tidegate.reload(&before));
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A").shows_aged(&known);

    let text = before.text().replace(&site.outside.address.to_string(), &format!("{}", site.endpoint.address));
    assert!(tidegate.reload_text(&text));
    let shown = ask(&tidegate, "sts.us-east-1.amazonaws.com", "A").shown();
    assert_eq!(shown, UNREACHABLE);
}
