//! `tidegate explain`, with and without a running daemon; `random` compares it with what the engine does.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "explain/random.rs"]
mod random;
mod support;

use std::{fs, sync::Arc};

use support::{
    config::{Config, ONE_PATIENT_TRY},
    query::Query,
    tidegate::{Tidegate, run},
    upstream::Upstream,
};
use tidegate::{
    cache::Cache,
    clock::Moment,
    config::Plan,
    daemon,
    engine::{
        Engine,
        explain::{
            self, Asked, Premise,
            document::{Decision, DomainStanding, EntryState, Explanation, GuardWord},
        },
    },
    wire::Transport,
};

const SITE: &str = r#"
[server]
listen = ["127.0.0.1:0"]
allow = ["10.0.0.0/8"]
deny = ["10.9.0.0/16"]
[upstream.vpc]
servers = ["192.0.2.1", "192.0.2.2"]
backup = [["192.0.2.3"]]
[upstream.site]
servers = ["192.0.2.4"]
[upstream.lab]
servers = ["192.0.2.5"]
[[forward]]
name = "aws"
zones = ["amazonaws.com"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "refuse"
except = ["s3.amazonaws.com"]
when_down = "upstream:site"
[[forward]]
name = "lab"
zones = ["lab.amazonaws.com"]
clients = ["10.7.0.0/16"]
to = "lab"
[[forward]]
name = "rest"
zones = ["example"]
to = "site"
aaaa = "empty"
rebind = "refuse"
[[local]]
zone = "edge.example"
records = ["@ A 10.1.1.1", "away CNAME sts.amazonaws.com.", "www CNAME app", "app A 10.1.1.2"]
"#;

fn engine(text: &str) -> Arc<Engine> {
    daemon::offline_engine(&Plan::from_text("explain.toml", text).unwrap(), Cache::new(1 << 20)).unwrap()
}

fn asked(words: &str, client: &str) -> Asked {
    let (name, qtype) = words.split_once(' ').unwrap();
    Asked {
        name: name.parse().unwrap(),
        qtype: qtype.parse().unwrap(),
        client: client.parse().unwrap(),
        transport: Transport::Udp,
        do_bit: false,
    }
}

fn explained(words: &str, client: &str) -> Explanation {
    explain::explain(&engine(SITE), &asked(words, client), &Premise::None, Moment::now())
}

fn supposing(words: &str, addresses: &[&str]) -> Explanation {
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    explain::explain(&engine(SITE), &asked(words, "10.1.1.1"), &Premise::Addresses(&addresses), Moment::now())
}

fn standings(explanation: &Explanation) -> Vec<(&str, &str, DomainStanding)> {
    let domains = &explanation.steps[0].domains;
    domains.iter().map(|d| (&*d.domain, d.rules.first().map_or("", |rule| rule), d.standing)).collect()
}

#[test]
fn the_chosen_rule_is_explained_with_the_others() {
    let other = explained("ec2.lab.amazonaws.com A", "10.1.1.1");
    assert_eq!(
        standings(&other),
        [
            ("lab.amazonaws.com.", "lab", DomainStanding::OtherClients),
            ("amazonaws.com.", "aws", DomainStanding::Decides)
        ]
    );
    let step = &other.steps[0];
    assert_eq!((step.rule.as_deref(), step.view.as_deref(), step.decision), (Some("aws"), None, Decision::Forwarded));
    let groups: Vec<_> = step.groups.iter().map(|group| (&*group.name, group.fallback, group.servers.len())).collect();
    assert_eq!(groups, [("vpc", false, 3), ("site", true, 1)]);
    assert_eq!(step.groups[0].servers[2].tier, 1);
    assert_eq!((other.outcome.source.as_str(), &other.outcome.rcode), ("upstream", &None));

    let view = explained("ec2.lab.amazonaws.com A", "10.7.1.1");
    assert_eq!(
        standings(&view),
        [("lab.amazonaws.com.", "lab", DomainStanding::Decides), ("amazonaws.com.", "aws", DomainStanding::Shorter)]
    );
    assert_eq!(view.steps[0].view.as_deref(), Some("lab"));

    let parents = explained("lab.amazonaws.com DS", "10.7.1.1");
    assert_eq!(
        standings(&parents),
        [
            ("lab.amazonaws.com.", "lab", DomainStanding::ParentDecides),
            ("amazonaws.com.", "aws", DomainStanding::Decides)
        ]
    );
}

#[test]
fn a_refused_client_is_explained_by_its_network() {
    for (client, network, allowed) in
        [("10.1.1.1", Some("10.0.0.0/8"), true), ("10.9.1.1", Some("10.9.0.0/16"), false), ("192.0.2.9", None, false)]
    {
        let explanation = explained("www.example A", client);
        assert_eq!((explanation.access.network.as_deref(), explanation.access.allowed), (network, allowed), "{client}");
        assert_eq!(explanation.outcome.rcode.as_deref(), (!allowed).then_some("REFUSED"), "{client}");
    }
}

#[test]
fn answers_without_an_upstream_are_explained_with_their_code() {
    for (words, source, rcode, ede) in [
        ("www.org A", "refused", "REFUSED", Some(20)),
        ("www.example AXFR", "refused", "REFUSED", Some(20)),
        ("www.example TYPE128", "error", "FORMERR", Some(30)),
        ("www.example ANY", "local", "NOERROR", None),
        ("www.example AAAA", "upstream", "NOERROR", None),
        ("edge.example A", "local", "NOERROR", None),
        ("none.edge.example A", "local", "NXDOMAIN", None),
        ("localhost A", "local", "NOERROR", None),
    ] {
        let outcome = explained(words, "10.1.1.1").outcome;
        let said = (outcome.source.as_str(), outcome.rcode.as_deref(), outcome.ede.map(|ede| ede.code));
        assert_eq!(said, (source, Some(rcode), ede), "{words}");
    }
}

#[test]
fn each_alias_is_explained_with_its_target() {
    let within = explained("www.edge.example A", "10.1.1.1");
    assert_eq!((within.steps.len(), within.steps[0].zone.as_deref()), (1, Some("edge.example.")));
    assert_eq!(within.outcome.answer.len(), 2, "{:?}", within.outcome);
    let chain = &within.steps[0].chain;
    assert_eq!((chain[0].target.as_str(), chain[0].leaves), ("app.edge.example.", false));

    let away = explained("away.edge.example A", "10.1.1.1");
    let steps: Vec<_> = away.steps.iter().map(|step| (&*step.name, step.rule.as_deref(), step.decision)).collect();
    assert_eq!(
        steps,
        [("away.edge.example.", None, Decision::Local), ("sts.amazonaws.com.", Some("aws"), Decision::Forwarded)]
    );
    assert!(away.steps[0].chain[0].leaves);
    let whole = supposing("away.edge.example A", &["10.20.1.1"]);
    assert_eq!(whole.outcome.answer.len(), 2, "{:?}", whole.outcome);
}

#[test]
fn the_guards_verdict_on_a_supposed_answer_is_shown() {
    for (words, address, verdict, rcode) in [
        ("sts.amazonaws.com A", "10.20.1.1", GuardWord::Pass, "NOERROR"),
        ("sts.amazonaws.com A", "52.1.2.3", GuardWord::Refuse, "SERVFAIL"),
        ("s3.amazonaws.com A", "52.1.2.3", GuardWord::Pass, "NOERROR"),
        ("www.example A", "52.1.2.3", GuardWord::Pass, "NOERROR"),
        ("www.example A", "10.1.2.3", GuardWord::Refuse, "SERVFAIL"),
    ] {
        let explanation = supposing(words, &[address]);
        let guard = explanation.steps[0].guard.as_ref().unwrap();
        assert_eq!(
            (guard.verdict, explanation.outcome.rcode.as_deref()),
            (Some(verdict), Some(rcode)),
            "{words} {address}"
        );
        let objected = verdict == GuardWord::Refuse;
        assert_eq!(guard.address.as_deref(), objected.then_some(address), "{words} {address}");
        assert_eq!(explanation.outcome.ede.map(|ede| ede.code), objected.then_some(15), "{words} {address}");
    }
}

fn site(folder: &std::path::Path, vpc: &Upstream, site: &Upstream) -> Config {
    let socket = folder.join("control.sock");
    Config::without_admin()
        .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {socket:?}"))
        .upstream("vpc", &[vpc], ONE_PATIENT_TRY)
        .upstream("site", &[site], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .forward("rest", &["."], "site", "")
}

#[test]
fn explain_over_http_and_the_socket_leaves_the_cache_unchanged() {
    let (vpc, rest) = (Upstream::answering("10.0.0.1"), Upstream::answering("192.0.2.1"));
    let folder = tempfile::tempdir().unwrap();
    let tidegate = Tidegate::start(&site(folder.path(), &vpc, &rest));
    let page = |path: &str| {
        let (code, text) = tidegate.get(path);
        assert_eq!(code, 200, "{text}");
        serde_json::from_str::<Explanation>(&text).unwrap()
    };
    let before = page("/api/v1/explain?name=sts.amazonaws.com");
    assert_eq!((before.steps[0].decision, before.steps[0].cache.len()), (Decision::Forwarded, 0));
    assert_eq!(vpc.count("sts.amazonaws.com."), 0, "nobody was asked");

    tidegate.client().ask(&Query::a("sts.amazonaws.com."));
    let hits = tidegate.hits();
    let after = page("/api/v1/explain?name=STS.amazonaws.com.&type=a&client=127.0.0.1&transport=udp");
    assert_eq!(after.steps[0].decision, Decision::Cached);
    let entry = &after.steps[0].cache[0];
    assert_eq!(entry.state, EntryState::Fresh);
    assert!(entry.answer[0].ends_with("\t10.0.0.1") && entry.left > 0, "{entry:?}");
    assert_eq!(after.outcome.source, "cache");
    assert!((tidegate.hits() - hits).abs() < 0.5, "a look is no hit");

    let socket = folder.path().join("control.sock").display().to_string();
    let output = run(&["explain", "sts.amazonaws.com", "--json", "--socket", &socket]);
    let told: Explanation = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told.steps[0].decision, output.status.code()), (Decision::Cached, Some(0)));
    let output = run(&["explain", "sts.amazonaws.com", "--socket", &socket]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["domain    amazonaws.com. (rule aws) decides", "domain    . (rule rest) is shorter", "fresh, "] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let (code, why) = tidegate.get("/api/v1/explain?name=a..b");
    assert_eq!((code, why.as_str()), (400, "\"a..b\" is no name: it has an empty label\n"));
}

#[test]
fn a_configuration_is_explained_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, SITE).unwrap();
    let file = file.display().to_string();
    let words = ["explain", "sts.amazonaws.com", "--client", "10.1.1.1", "--address", "52.1.2.3", "--config", &file];
    let output = run(&words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in [
        "sts.amazonaws.com. A from 10.1.1.1 over udp",
        "client    served: 10.0.0.0/8 is in `allow`",
        "upstream  vpc (fastest), tier 0 in use",
        "fallback  site (fastest), tier 0 in use",
        "refuses 52.1.2.3",
        "outcome: SERVFAIL: Blocked, rule aws: 52.1.2.3 is not private",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for (words, head) in [
        (&["10.20.1.10"][..], "10.1.20.10.in-addr.arpa. PTR from"),
        (&["10.20.1.10", "PTR"], "10.1.20.10.in-addr.arpa. PTR from"),
        (&["10.20.1.10", "A"], "10.20.1.10. A from"),
        (&["sts.amazonaws.com"], "sts.amazonaws.com. A from"),
    ] {
        let output = run(&[&["explain"], words, &["--config", &file]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(head), "{words:?}: {text}");
    }
    let wrong = run(&["explain", "a..example", "--config", &file]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(
        (wrong.status.code(), said.as_str()),
        (Some(2), "tidegate: \"a..example\" is no name: it has an empty label\n")
    );
    let missing = run(&["explain", "a.example", "--config", "/nonexistent.toml"]);
    assert_eq!(missing.status.code(), Some(2));
}
