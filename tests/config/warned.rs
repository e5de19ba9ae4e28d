//! Likely mistakes that do not prevent a start.

use crate::{BASE, lines, plan, warnings};

#[test]
fn an_upstream_that_is_our_own_listener_is_left_out() {
    let text = format!(
        "[server]\nlisten = [\"0.0.0.0:53\"]\n{}",
        BASE.replace("\"10.20.1.10\"", "\"10.20.1.10\", \"127.0.0.1\"")
    );
    let ours = plan(&text);
    assert_eq!(
        lines(&ours.warnings),
        ["t.toml:4:26: server 127.0.0.1 of upstream \"vpc\" is our own listener: it is left out"]
    );
    assert_eq!(ours.live.groups[0].tiers[0].len(), 1);
    let alone = plan(&BASE.replace("10.20.1.10", "127.0.0.1"));
    assert_eq!(alone.live.groups[0].tiers, [vec![]]);
    assert_eq!(
        lines(&alone.warnings),
        [
            "t.toml:1:11: upstream \"vpc\" has no server left: every name sent there gets SERVFAIL",
            "t.toml:2:12: server 127.0.0.1 of upstream \"vpc\" is our own listener: it is left out",
        ]
    );
}

/// `BASE` and a rule with these keys.
fn another_rule(keys: &str) -> String {
    format!("{BASE}[upstream.aws]\nservers = [\"10.9.9.9\"]\n[[forward]]\nto = \"aws\"\n{keys}\n")
}

#[test]
fn likely_mistakes_are_warned_of_with_their_place() {
    for (text, message) in [
        (
            another_rule("zones = [\"cloudfront.net\"]\nprivate = [\"10.0.0.0/8\"]\non_public = \"log\""),
            "t.toml:11:11: \
             rule \"cloudfront.net\" guards \"cloudfront.net\", and names there exist in public only \
             (cloudfront.net: CloudFront distributions)",
        ),
        (
            another_rule("zones = [\"a.example\"]\nexcept = [\"b.example\"]"),
            "t.toml:11:11: rule \"a.example\" excepts \
             \"b.example\", which is below none of its zones",
        ),
        (
            another_rule("zones = [\"a.example\"]\nclients = [\"8.8.8.0/24\"]"),
            "t.toml:11:12: rule \"a.example\" is for \
             clients 8.8.8.0/24, which server.allow does not serve",
        ),
        (format!("{BASE}[upstream.idle]\nservers = [\"10.9.9.9\"]"), "t.toml:6:11: no rule sends to upstream \"idle\""),
        (
            BASE.replace("servers", "backup = [[\"10.20.1.10\"]]\nservers"),
            "t.toml:1:11: upstream \"vpc\" has \
             10.20.1.10 in two tiers over the same path: what cuts one cuts both",
        ),
        (
            format!("{BASE}[cache]\nstale_after = \"5s\""),
            "t.toml:7:15: stale_after is not before deadline: a \
             stale answer would come too late",
        ),
        (
            format!("[server]\nallow = [\"loopback\"]\n{}", BASE.replace(", \"reverse:private\"", "")),
            "t.toml:2:9: no rule covers the reverse names of private networks 10.0.0.0/8, 172.16.0.0/12, \
             192.168.0.0/16, fd00::/8: they are NXDOMAIN here",
        ),
        (format!("[server]\nallow = []\n{BASE}"), "t.toml:2:9: allow is empty: every client will be REFUSED"),
        (String::new(), "there is no rule and no local zone: every query will be REFUSED"),
        (
            BASE.replace(", \"reverse:private\"", ""),
            "no rule covers the reverse names of the clients' networks \
             10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fd00::/8: they are NXDOMAIN here",
        ),
        (
            "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[special]\nenabled = false\n[[local]]\nzone = \".\"\n\
             records = []\n[[forward]]\nzones = [\"preset:aws\", \"reverse:10.0.0.0/8\"]\nto = \"vpc\"\nprivate = [\"10.0.0.0/8\"]\non_public = \"log\"\n"
                .to_owned(),
            "t.toml:9:24: rule \
             \"preset:aws\" sends the reverse names of all of 10.0.0.0/8 to upstream \"vpc\", which answers AWS names: \
             the site's own reverse names there will be lost",
        ),
        (
            format!(
                "[server]\nallow = [\"10.0.0.0/8\"]\n{BASE}[[forward]]\nzones = [\".\", \"reverse:private\"]\n\
                 clients = [\"10.0.0.0/8\"]\nto = \"vpc\"\n"
            ),
            "t.toml:5:1: rule \".\" is never used: rules with \
             clients take all who are served",
        ),
    ] {
        assert_eq!(warnings(&text), [message], "{text}");
    }
}

#[test]
fn a_server_whose_name_is_within_its_own_zone_is_warned_of() {
    let text = another_rule("zones = [\"corp.example\"]")
        .replace("\"10.9.9.9\"]", "\"dc.corp.example\"]\nbootstrap = [\"10.1.1.53\"]");
    let message = "t.toml:7:12: server dc.corp.example has a name within corp.example, which rule \"corp.example\" sends to this \
             very upstream \"aws\": its bootstrap servers must know it without asking this tidegate";
    assert_eq!(warnings(&text), [message], "{text}");
}

/// Rules for AWS names and for the rest, with `keys` for the former and `more` behind all.
fn aws(server: &str, keys: &str, more: &str) -> String {
    format!(
        "[server]\nallow = [\"10.0.0.0/8\"]\n{server}\n[special]\nenabled = false\n[upstream.vpc]\nservers = \
         [\"10.20.1.10\"]\nbackup = [[\"10.60.1.10\"]]\n[upstream.site]\nservers = [\"10.1.1.53\"]\n[[forward]]\nname = \
         \"rest\"\nzones = [\".\"]\nto = \"site\"\n[[forward]]\nname = \"aws\"\nto = \"vpc\"\n{keys}\n{more}\n"
    )
}

/// The warnings without their places.
fn messages(text: &str) -> Vec<String> {
    let warnings = warnings(text);
    let bare = |line: &String| line.splitn(4, ':').nth(3).unwrap_or(line).trim().to_owned();
    warnings.iter().map(bare).collect()
}

#[test]
fn a_guard_above_names_that_are_public_only_is_warned_of_unless_they_are_spared() {
    let guard = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";
    let found = messages(&aws("", &format!("zones = [\"aws.amazon.com\"]\n{guard}"), ""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("public only (signin.aws.amazon.com"), "{found:?}");
    let spared = "except = [\"signin.aws.amazon.com\", \"console.aws.amazon.com\"]";
    let found = messages(&aws("", &format!("zones = [\"aws.amazon.com\"]\n{guard}\n{spared}"), ""));
    assert_eq!(found, [""; 0]);
    let elsewhere = "[[forward]]\nzones = [\"signin.aws.amazon.com\", \"console.aws.amazon.com\"]\nto = \"site\"";
    let found = messages(&aws("", &format!("zones = [\"aws.amazon.com\"]\n{guard}"), elsewhere));
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_later_tier_outside_the_guards_networks_is_warned_of() {
    let keys =
        |private: &str, zones: &str| format!("zones = [\"{zones}\"]\nprivate = [{private}]\non_public = \"refuse\"");
    let found = messages(&aws("", &keys("\"10.20.0.0/16\"", "preset:aws"), ""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("falls back from upstream \"vpc\" to 10.60.1.10"), "{found:?}");
    // Both VPCs; not the network of either endpoint, which tells nothing; a shared private hosted zone.
    for (private, zones) in [
        ("\"10.20.0.0/16\", \"10.60.0.0/16\"", "preset:aws"),
        ("\"10.99.0.0/16\"", "preset:aws"),
        ("\"10.20.0.0/16\"", "cloud.corp.example"),
    ] {
        assert_eq!(messages(&aws("", &keys(private, zones), "")), [""; 0], "{private} {zones}");
    }
    let fallback = aws(
        "",
        "zones = [\"api.aws\"]\nprivate = [\"10.20.0.0/16\", \"10.60.0.0/16\"]\non_public = \"log\"\nwhen_down = \"upstream:site\"",
        "",
    );
    assert!(messages(&fallback)[0].contains("to 10.1.1.53"), "{:?}", messages(&fallback));
}

#[test]
fn a_rule_that_no_client_can_reach_is_warned_of() {
    let view = |clients: &str| format!("zones = [\"a.example\"]\nclients = [{clients}]");
    let denied = "deny = [\"10.9.0.0/16\"]";
    for (server, clients, message) in [
        ("", "\"192.168.0.0/16\"", Some("which server.allow does not serve")),
        (denied, "\"10.9.1.0/24\"", Some("which server.deny refuses")),
        (denied, "\"10.8.0.0/15\"", None),
        ("", "\"10.9.1.0/24\"", None),
    ] {
        let found = messages(&aws(server, &view(clients), ""));
        assert_eq!(found.len(), usize::from(message.is_some()), "{server} {clients}: {found:?}");
        assert!(message.is_none_or(|message| found[0].contains(message)), "{found:?}");
    }
    let again = aws("", &view("\"10.9.1.0/24\""), "")
        .replace("[\"10.0.0.0/8\"]\n\n", "[\"10.9.1.0/24\"]\ndeny = [\"10.9.0.0/16\"]\n");
    assert_eq!(messages(&again), [""; 0], "the longer prefix decides");
}

#[test]
fn rules_that_together_shadow_another_are_found() {
    let view = |name: &str, clients: &str| {
        format!("[[forward]]\nname = \"{name}\"\nzones = [\"a.example\"]\nclients = [\"{clients}\"]\nto = \"site\"\n")
    };
    let halves = view("low", "10.0.0.0/9") + &view("high", "10.128.0.0/9");
    for (keys, more, shadowed) in [
        ("zones = [\"a.example\"]", halves.clone(), true),
        ("zones = [\"a.example\"]", view("low", "10.0.0.0/9"), false),
        ("zones = [\"a.example\", \"b.example\"]", halves.clone(), false),
        ("zones = [\"a.example\"]\nclients = [\"10.0.0.0/8\"]", halves, true),
        ("zones = [\"a.example\"]\nclients = [\"10.0.0.0/9\"]", view("wide", "10.0.0.0/8"), false),
        ("zones = [\"a.example\"]\nclients = [\"10.0.0.0/8\", \"10.1.0.0/16\"]", String::new(), false),
    ] {
        let found = messages(&aws("", keys, &more));
        let expected: &[&str] =
            if shadowed { &["rule \"aws\" is never used: rules with clients take all who are served"] } else { &[] };
        assert_eq!(found, expected, "{keys}\n{more}");
    }
}
