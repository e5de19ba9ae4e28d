//! A chain that enters another rule's domain is cut there and asked again through that rule.

use rstest::rstest;

use crate::{
    Site, ask, shows_twice,
    support::tidegate::Tidegate,
    support::{eventually, peers::dig},
};

const EDGE: &str = "[[local]]
zone = \"edge.example\"
records = [
    \"@ 300 SOA ns hostmaster 1 7200 900 1209600 30\",
    \"@ NS ns\",
    \"ns A 10.3.0.53\",
    \"login 300 CNAME sts.us-east-1.amazonaws.com.\",
    \"brief 300 CNAME brief.us-east-1.amazonaws.com.\",
    \"gone 300 CNAME none.us-east-1.amazonaws.com.\",
    \"shop 300 CNAME shop.cdn.example.\",
    \"round 300 CNAME hop.corp.example.\",
    \"db 60 A 10.3.0.1\",
    \"old 300 DNAME s3.us-east-1.amazonaws.com.\",
    \"across 300 CNAME across.corp.example.\",
    \"self 300 CNAME self\",
    \"l9 CNAME l8\", \"l8 CNAME l7\", \"l7 CNAME l6\", \"l6 CNAME l5\", \"l5 CNAME l4\", \"l4 CNAME l3\", \"l3 CNAME l2\",
    \"l2 CNAME l1\", \"l1 CNAME db\",
    \"z9 CNAME z8.corp.example.\", \"z7 CNAME z6.corp.example.\", \"z5 CNAME z4.corp.example.\",
    \"z3 CNAME z2.corp.example.\", \"z1 A 10.3.0.2\",
]";

/// The answer when a chain cannot be followed to its end.
const ENDLESS: [&str; 2] = ["SERVFAIL qr rd ra", "EDE 0 (Other): (the CNAME chain is a loop or too long)"];

#[rstest]
#[case::alias("backups.corp.example", "A", &[
    "NOERROR qr rd ra",
    "backups.corp.example. 120 CNAME backups.s3.us-east-1.amazonaws.com.",
    "backups.s3.us-east-1.amazonaws.com. 60 A 10.20.1.10",
])]
#[case::no_such_data("backups.corp.example", "AAAA", &[
    "NOERROR qr rd ra",
    "backups.corp.example. 30 CNAME backups.s3.us-east-1.amazonaws.com.",
    "authority: amazonaws.com. 30 SOA ns.amazonaws.com. hostmaster.amazonaws.com. 1 7200 900 1209600 30",
])]
#[case::no_such_name("nowhere.corp.example", "A", &[
    "NXDOMAIN qr rd ra",
    "nowhere.corp.example. 30 CNAME none.us-east-1.amazonaws.com.",
    "authority: amazonaws.com. 30 SOA ns.amazonaws.com. hostmaster.amazonaws.com. 1 7200 900 1209600 30",
])]
#[case::mixed_case("LOGIN.Corp.Example", "A", &[
    "NOERROR qr rd ra",
    "LOGIN.Corp.Example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 300 A 10.20.1.11",
])]
#[case::ipv6("login.corp.example", "AAAA", &[
    "NOERROR qr rd ra",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 60 AAAA fd20::11",
])]
#[case::https("login.corp.example", "HTTPS", &[
    "NOERROR qr rd ra",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=10.20.1.11 ipv6hint=fd20::11",
])]
#[case::https_by_number("login.corp.example", "TYPE65", &[
    "NOERROR qr rd ra",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=10.20.1.11 ipv6hint=fd20::11",
])]
#[case::by_steps("by-steps.corp.example", "A", &[
    "NOERROR qr rd ra",
    "by-steps.corp.example. 120 CNAME login.corp.example.",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 300 A 10.20.1.11",
])]
#[case::dname("box.old.corp.example", "A", &[
    "NOERROR qr rd ra",
    "old.corp.example. 120 DNAME s3.us-east-1.amazonaws.com.",
    "box.old.corp.example. 120 CNAME box.s3.us-east-1.amazonaws.com.",
    "box.s3.us-east-1.amazonaws.com. 60 A 10.20.1.10",
])]
#[case::the_alias_itself("login.corp.example", "CNAME", &[
    "NOERROR qr rd ra",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
])]
#[case::alias_form_of_https("_svc.corp.example", "HTTPS", &[
    "NOERROR qr rd ra",
    "_svc.corp.example. 120 HTTPS 0 sts.us-east-1.amazonaws.com.",
])]
#[case::stays_at_home("intranet.corp.example", "A", &[
    "NOERROR qr rd ra",
    "intranet.corp.example. 120 CNAME www.corp.example.",
    "www.corp.example. 120 A 10.1.2.3",
])]
#[case::only_the_root_covers("shop.corp.example", "A", &[
    "NOERROR qr rd ra",
    "shop.corp.example. 120 CNAME shop.cdn.example.",
    "shop.cdn.example. 90 A 203.0.113.80",
])]
#[case::eight("a8.corp.example", "A", &[
    "NOERROR qr rd ra",
    "a8.corp.example. 120 CNAME a7.corp.example.",
    "a7.corp.example. 120 CNAME a6.corp.example.",
    "a6.corp.example. 120 CNAME a5.corp.example.",
    "a5.corp.example. 120 CNAME a4.corp.example.",
    "a4.corp.example. 120 CNAME a3.corp.example.",
    "a3.corp.example. 120 CNAME a2.corp.example.",
    "a2.corp.example. 120 CNAME a1.corp.example.",
    "a1.corp.example. 120 CNAME sts.us-east-1.amazonaws.com.",
    "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11",
])]
fn records_behind_a_corporate_alias_are_not_believed(#[case] name: &str, #[case] qtype: &str, #[case] lines: &[&str]) {
    let site = Site::start();
    if qtype != "CNAME" && lines.iter().any(|line| line.contains("10.20.1.") || line.contains("fd20::")) {
        let public = dig(site.resolver.address, name, &[qtype]).text;
        assert!(public.contains("203.0.113.1") || public.contains("2001:db8::1"), "the lure is there: {public}");
    }
    // The resolver leaves chains whole, the company's own server leaves them open.
    for config in [site.config(""), site.config_with_open_chains("")] {
        shows_twice(&Tidegate::start(&config), name, qtype, lines);
    }
}

#[rstest]
#[case::into_a_forwarded_domain("login.edge.example", "A", &[
    "NOERROR qr rd ra",
    "login.edge.example. 300 CNAME sts.us-east-1.amazonaws.com.",
    "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11",
])]
#[case::https("login.edge.example", "HTTPS", &[
    "NOERROR qr rd ra",
    "login.edge.example. 300 CNAME sts.us-east-1.amazonaws.com.",
    "sts.us-east-1.amazonaws.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=10.20.1.11 ipv6hint=fd20::11",
])]
#[case::no_such_name("gone.edge.example", "A", &[
    "NXDOMAIN qr rd ra",
    "gone.edge.example. 30 CNAME none.us-east-1.amazonaws.com.",
    "authority: amazonaws.com. 30 SOA ns.amazonaws.com. hostmaster.amazonaws.com. 1 7200 900 1209600 30",
])]
#[case::what_only_the_root_covers("shop.edge.example", "A", &[
    "NOERROR qr rd ra",
    "shop.edge.example. 300 CNAME shop.cdn.example.",
    "shop.cdn.example. 90 A 203.0.113.80",
])]
#[case::out_and_home_again("round.edge.example", "A", &[
    "NOERROR qr rd ra",
    "round.edge.example. 300 CNAME hop.corp.example.",
    "hop.corp.example. 120 CNAME db.edge.example.",
    "db.edge.example. 60 A 10.3.0.1",
])]
#[case::dname("box.old.edge.example", "A", &[
    "NOERROR qr rd ra",
    "old.edge.example. 300 DNAME s3.us-east-1.amazonaws.com.",
    "box.old.edge.example. 300 CNAME box.s3.us-east-1.amazonaws.com.",
    "box.s3.us-east-1.amazonaws.com. 60 A 10.20.1.10",
])]
#[case::forwarded_into_the_zone("hop.corp.example", "A", &[
    "NOERROR qr rd ra",
    "hop.corp.example. 120 CNAME db.edge.example.",
    "db.edge.example. 60 A 10.3.0.1",
])]
#[case::eight_times_across("z9.edge.example", "A", &[
    "NOERROR qr rd ra",
    "z9.edge.example. 300 CNAME z8.corp.example.",
    "z8.corp.example. 120 CNAME z7.edge.example.",
    "z7.edge.example. 300 CNAME z6.corp.example.",
    "z6.corp.example. 120 CNAME z5.edge.example.",
    "z5.edge.example. 300 CNAME z4.corp.example.",
    "z4.corp.example. 120 CNAME z3.edge.example.",
    "z3.edge.example. 300 CNAME z2.corp.example.",
    "z2.corp.example. 120 CNAME z1.edge.example.",
    "z1.edge.example. 300 A 10.3.0.2",
])]
fn chains_go_through_local_zones(#[case] name: &str, #[case] qtype: &str, #[case] lines: &[&str]) {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config_with_open_chains("").raw(EDGE));
    shows_twice(&tidegate, name, qtype, lines);
}

#[rstest]
#[case::at_the_resolver("c9.corp.example", 10, "www.corp.example. 120 A 10.1.2.3")]
#[case::into_aws("a9.corp.example", 10, "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11")]
fn nine_aliases_in_one_answer_are_followed(#[case] name: &str, #[case] records: usize, #[case] last: &str) {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config_with_open_chains(""));
    let shown = ask(&tidegate, name, "A").shown();
    assert_eq!(
        (shown.len(), shown[records].to_ascii_lowercase()),
        (records + 1, last.to_ascii_lowercase()),
        "{shown:?}"
    );
}

#[test]
fn a_chain_inside_the_local_zone_is_its_own() {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config("").raw(EDGE));
    let dig = ask(&tidegate, "l9.edge.example", "A");
    let shown = dig.shown();
    assert_eq!((shown[0].as_str(), shown.len()), ("NOERROR qr aa rd ra", 11), "{}", dig.text);
    assert_eq!(shown[10], "db.edge.example. 60 A 10.3.0.1");
}

#[rstest]
#[case::nine_times_across("z10.corp.example")]
#[case::loop_in_a_local_zone("self.edge.example")]
#[case::loop_across("across.corp.example")]
#[case::loop_across_from_here("across.edge.example")]
fn a_chain_without_an_end_is_a_failure_in_words(#[case] name: &str) {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config_with_open_chains("").raw(EDGE));
    for qtype in ["A", "AAAA", "HTTPS"] {
        ask(&tidegate, name, qtype).shows(&ENDLESS);
        ask(&tidegate, name, qtype).shows(&ENDLESS);
    }
}

/// BIND answers SERVFAIL to a loop of its own, which is no better than any other failure of a server.
#[test]
fn a_loop_that_the_server_sees_itself_is_its_failure() {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config_with_open_chains(""));
    let theirs = format!("EDE 0 (Other): (upstream {} (corp): max. restarts reached)", site.outside.address);
    ask(&tidegate, "ping.corp.example", "A").shows(&[
        "SERVFAIL qr rd ra",
        "EDE 22 (No Reachable Authority): (rule corp)",
        &theirs,
    ]);
    ask(&tidegate, "ping.corp.example", "A").shows(&[
        "SERVFAIL qr rd ra",
        "EDE 13 (Cached Error): (rule corp)",
        &theirs,
    ]);
}

#[test]
fn without_follow_the_answer_passes_as_it_is() {
    let site = Site::start();
    let config = crate::Config::new()
        .servers("vpc", &[site.endpoint.address.to_string()], crate::ONE_PATIENT_TRY)
        .servers("site", &[site.resolver.address.to_string()], crate::ONE_PATIENT_TRY)
        .forward("aws", &["preset:aws"], "vpc", "")
        .forward("rest", &["."], "site", "follow = false");
    let tidegate = Tidegate::start(&config);
    shows_twice(
        &tidegate,
        "backups.corp.example",
        "A",
        &[
            "NOERROR qr rd ra",
            "backups.corp.example. 120 CNAME backups.s3.us-east-1.amazonaws.com.",
            "backups.s3.us-east-1.amazonaws.com. 60 A 203.0.113.10",
        ],
    );
}

/// The whole lives as long as its shortest part, whatever stands in front.
#[test]
fn the_whole_lives_as_long_as_its_shortest_part() {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config_with_open_chains("").raw(EDGE));
    for name in ["brief.corp.example", "brief.edge.example", "brief.us-east-1.amazonaws.com"] {
        let asked = || tidegate.metric("tidegate_upstream_queries_total", &[("group", "vpc")]);
        let before = asked();
        eventually("it is asked for again", || {
            let shown = ask(&tidegate, name, "A").shown();
            assert!(shown.last().is_some_and(|line| line.ends_with(" A 10.20.1.12")), "{shown:?}");
            let ttl = shown.last().and_then(|line| line.split(' ').nth(1)?.parse::<u32>().ok());
            assert!(ttl.is_some_and(|ttl| ttl <= 1), "{shown:?}");
            asked() >= before + 3.0
        });
    }
}

/// An outage of the endpoint: what was there before is served on, in whatever chain it stands.
#[rstest]
#[case::alone("brief.us-east-1.amazonaws.com", &[])]
#[case::behind_a_corporate_alias("brief.corp.example", &["brief.corp.example. 30 CNAME brief.us-east-1.amazonaws.com."])]
#[case::behind_a_local_alias("brief.edge.example", &["brief.edge.example. 300 CNAME brief.us-east-1.amazonaws.com."])]
fn a_stale_part_serves_on(#[case] name: &str, #[case] alias: &[&str], #[values(true, false)] was_asked_before: bool) {
    let mut site = Site::start();
    let config = site.config("").section("cache", "failure_ttl = \"1s\"\nstale_after = \"200ms\"").raw(EDGE);
    let tidegate = Tidegate::start(&config);
    assert_eq!(ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").status, "NOERROR");
    if was_asked_before {
        assert_eq!(ask(&tidegate, name, "A").status, "NOERROR");
    }
    site.endpoint.kill();
    eventually("the last address is over", || {
        ask(&tidegate, "brief.us-east-1.amazonaws.com", "A").shown().last().is_some_and(|line| line.starts_with("EDE"))
    });

    let mut lines = vec!["NOERROR qr rd ra"];
    lines.extend(alias);
    lines.extend(["brief.us-east-1.amazonaws.com. 30 A 10.20.1.12", "EDE 3 (Stale Answer)"]);
    for _ in 0..3 {
        let shown = ask(&tidegate, name, "A").shown();
        // How long the alias itself has to live does not matter here.
        let without_ttl = |line: &str| {
            line.split(' ')
                .enumerate()
                .filter(|(at, _)| *at != 1 || !line.contains("CNAME"))
                .map(|(_, word)| word.to_owned())
                .collect::<Vec<_>>()
        };
        let shown: Vec<_> = shown.iter().map(|line| without_ttl(line)).collect();
        let expected: Vec<_> = lines.iter().map(|line| without_ttl(line)).collect();
        assert_eq!(shown, expected);
    }
}
