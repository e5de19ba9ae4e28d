//! What looks like a mistake and stops nothing.

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
    let alone = BASE.replace("10.20.1.10", "127.0.0.1");
    assert_eq!(plan(&alone).live.groups[0].tiers, [vec![]]);
}

#[test]
fn what_looks_like_a_mistake_is_warned_of_by_place() {
    let aws =
        |keys: &str| format!("{BASE}[upstream.aws]\nservers = [\"10.9.9.9\"]\n[[forward]]\nto = \"aws\"\n{keys}\n");
    for (text, message) in [
        (
            aws("zones = [\"cloudfront.net\"]\nprivate = [\"10.0.0.0/8\"]\non_public = \"log\""),
            "t.toml:11:11: \
             rule \"cloudfront.net\" guards \"cloudfront.net\", and names there exist in public only \
             (cloudfront.net: CloudFront distributions)",
        ),
        (
            aws("zones = [\"a.example\"]\nexcept = [\"b.example\"]"),
            "t.toml:11:11: rule \"a.example\" excepts \
             \"b.example\", which is below none of its zones",
        ),
        (
            aws("zones = [\"a.example\"]\nclients = [\"8.8.8.0/24\"]"),
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
        (format!("[server]\nallow = []\n{BASE}"), "t.toml:2:9: allow is empty: every client will be REFUSED"),
        (String::new(), "there is no rule and no local zone: every question will be REFUSED"),
        (
            BASE.replace(", \"reverse:private\"", ""),
            "no rule covers the reverse names of the clients' networks \
             10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fd00::/8: they are NXDOMAIN here",
        ),
        (
            "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[special]\nenabled = false\n[[forward]]\nzones = \
             [\"preset:aws\", \"reverse:10.0.0.0/8\"]\nto = \"vpc\"\n"
                .to_owned(),
            "t.toml:6:24: rule \
             \"preset:aws\" sends all of 10.in-addr.arpa to upstream \"vpc\", which answers AWS names: the site's \
             own reverse names there will be lost",
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
