//! What the daemon says of itself at one glance: the document, and `tidegate status` that reads it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::Query,
    tidegate::Tidegate,
    upstream::Upstream,
};
use tidegate::admin::status::{Severity, Status};

fn document(tidegate: &Tidegate) -> Status {
    let (code, text) = tidegate.get("/api/v1/status");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The findings' kinds, each with the text.
fn findings(status: &Status) -> Vec<(&str, &str)> {
    status.findings.iter().map(|finding| (finding.kind.as_str(), finding.text.as_str())).collect()
}

/// Probes that tell soon, also on a busy machine.
const PROBED_OFTEN: &str = "attempts = 1\nhedge = false\ntimeout = \"500ms\"\n[upstream.vpc.health]\ninterval = \"200ms\"\n\
                            interval_down = \"100ms\"";

fn two_groups(vpc: &[&Upstream], site: &Upstream) -> Config {
    Config::new()
        .upstream("vpc", vpc, PROBED_OFTEN)
        .upstream("site", &[site], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .forward("everything", &["."], "site", "")
}

#[test]
fn the_document_tells_who_is_down_and_why_in_words() {
    let (one, other) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let site = Upstream::answering("10.9.0.1");
    let tidegate = Tidegate::start(&two_groups(&[&one, &other], &site));
    eventually("all is well", || document(&tidegate).health == Severity::Ok);
    tidegate.client().ask(&Query::a("www.example."));
    tidegate.client().ask(&Query::a("www.example."));
    let status = document(&tidegate);
    assert_eq!((status.findings.len(), status.ready), (0, true), "{status:#?}");
    assert_eq!((status.queries["udp"], status.cache.hit_ratio), (2, Some(0.5)));
    assert_eq!(status.groups[0].words, "all 2 servers are usable");

    one.go_silent();
    other.go_silent();
    eventually("the group is down", || document(&tidegate).groups[0].usable == 0);
    let status = document(&tidegate);
    assert_eq!(status.health, Severity::Error);
    let found = findings(&status);
    assert_eq!(found[0], ("group-down", "upstream vpc: no server is usable: 2 down"), "{found:?}");
    for server in [&one, &other] {
        let expected = format!("upstream {} of group vpc is down: no answer", server.address);
        assert!(found.iter().any(|(kind, text)| *kind == "server-down" && text.starts_with(&expected)), "{found:?}");
    }
    assert!(found.iter().all(|(_, text)| !text.contains("site")), "{found:?}");
}

#[test]
fn the_document_keeps_why_a_reload_was_refused_until_one_succeeds() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]);
    let tidegate = Tidegate::start(&config);
    assert_eq!(document(&tidegate).configuration.last_reload, None);
    assert!(!tidegate.reload_text("[upstream.site\n"));
    let status = document(&tidegate);
    let last = status.configuration.last_reload.clone().unwrap();
    assert!(!last.success && last.lines[0].contains("tidegate.toml:1"), "{last:?}");
    let refused = status.findings.iter().find(|finding| finding.kind == "reload-refused").unwrap();
    assert!(refused.severity == Severity::Warning && refused.text.contains(&last.lines[0]), "{refused:?}");
    assert!(tidegate.reload(&config));
    let status = document(&tidegate);
    assert!(status.configuration.last_reload.unwrap().success);
    assert!(!status.findings.iter().any(|finding| finding.kind == "reload-refused"));
}

#[test]
fn a_public_answer_for_a_guarded_name_is_a_finding() {
    let (vpc, site) = (Upstream::answering("52.1.2.3"), Upstream::answering("10.9.0.1"));
    let tidegate = Tidegate::start(&two_groups(&[&vpc], &site));
    tidegate.client().ask(&Query::a("sts.eu-west-1.amazonaws.com."));
    let status = document(&tidegate);
    let finding = status.findings.iter().find(|finding| finding.kind == "guard").unwrap();
    assert!(finding.text.contains("sts.eu-west-1.amazonaws.com"), "{finding:?}");
    assert_eq!(status.guard["refuse"], 1);
}
