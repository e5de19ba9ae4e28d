//! What a rule says besides where it goes: rebinding, AAAA, negative answers, and local names below its domains.

use rstest::rstest;

use crate::{
    Config, ONE_PATIENT_TRY, Peer, Site, ask, shows_twice,
    support::{eventually, peers::dig, tidegate::Tidegate},
};

/// Somebody's zone on the Internet that points at the company's own network.
const REBINDING_ZONE: &str = "$TTL 60
@ SOA ns h 1 7200 900 1209600 30
@ NS ns
ns A 203.0.113.53
good A 203.0.113.1
good AAAA 2001:db8::1
good HTTPS 1 . ipv4hint=203.0.113.1
ten A 10.1.2.3
two A 203.0.113.1
two A 192.168.1.1
loop A 127.0.0.1
any A 0.0.0.0
shared A 100.64.1.1
link A 169.254.169.254
local6 AAAA fd00:1::3
link6 AAAA fe80::1
self6 AAAA ::1
site6 AAAA fec0::1
local-nat AAAA 64:ff9b:1::808:808
mapped AAAA ::ffff:10.1.2.3
compatible AAAA ::10.1.2.3
translated AAAA 64:ff9b::10.1.2.3
tunnelled AAAA 2002:a01:203::1
outer-translated AAAA 64:ff9b::203.0.113.1
hint HTTPS 1 . ipv4hint=10.1.2.3
alias CNAME ten
lure CNAME www.corp.example.
home CNAME db.edge.example.
vpc CNAME sts.us-east-1.amazonaws.com.
spared A 10.1.2.4
below.spared A 10.1.2.5
to-spared CNAME spared
";

const NEGATIVE_ZONE: &str = "$TTL 60
@ SOA ns h 1 7200 900 1209600 40
@ 20 NS ns
ns A 203.0.113.53
www A 203.0.113.1
alias 25 CNAME gone
";

fn one_group(peer: &Peer, lines: &str) -> Config {
    Config::new().servers("site", &[peer.address.to_string()], ONE_PATIENT_TRY).forward("rest", &["."], "site", lines)
}

#[rstest]
#[case("ten", "A", "10.1.2.3")]
#[case("two", "A", "192.168.1.1")]
#[case("loop", "A", "127.0.0.1")]
#[case("any", "A", "0.0.0.0")]
#[case("shared", "A", "100.64.1.1")]
#[case("link", "A", "169.254.169.254")]
#[case("local6", "AAAA", "fd00:1::3")]
#[case("link6", "AAAA", "fe80::1")]
#[case("self6", "AAAA", "::1")]
#[case("site6", "AAAA", "fec0::1")]
#[case("local-nat", "AAAA", "64:ff9b:1::808:808")]
#[case("mapped", "AAAA", "::ffff:10.1.2.3")]
#[case("compatible", "AAAA", "::a01:203")]
#[case("translated", "AAAA", "64:ff9b::a01:203")]
#[case("tunnelled", "AAAA", "2002:a01:203::1")]
#[case("hint", "HTTPS", "10.1.2.3")]
#[case("alias", "A", "10.1.2.3")]
#[case::through_another_rule("lure", "A", "10.1.2.3")]
#[case::through_a_local_zone("home", "A", "10.3.0.1")]
#[case::to_a_name_that_may("to-spared", "A", "10.1.2.4")]
fn rebinding_is_refused(#[case] label: &str, #[case] qtype: &str, #[case] address: &str) {
    let internet = Peer::named(&[("evil.example", REBINDING_ZONE)]);
    let site = Site::start();
    let config = site
        .config_with_open_chains("")
        .servers("internet", &[internet.address.to_string()], ONE_PATIENT_TRY)
        .forward(
            "internet",
            &["evil.example"],
            "internet",
            "rebind = \"refuse\"\nexcept = [\"spared.evil.example\", \"vpc.evil.example\"]",
        )
        .raw("[[local]]\nzone = \"edge.example\"\nrecords = [\"db 60 A 10.3.0.1\"]");
    let tidegate = Tidegate::start(&config);
    let name = format!("{label}.evil.example");
    for turn in 1..=2 {
        ask(&tidegate, &name, qtype)
            .shows(&["SERVFAIL qr rd ra", &format!("EDE 15 (Blocked): (rule internet: {address} is private)")]);
        let counted = [("rule", "internet"), ("action", "refuse")];
        assert!(tidegate.metric("tidegate_guard_violations_total", &counted) >= f64::from(turn));
    }
}

#[rstest]
#[case("good", "A", &["good.evil.example. 60 A 203.0.113.1"])]
#[case("good", "AAAA", &["good.evil.example. 60 AAAA 2001:db8::1"])]
#[case("good", "HTTPS", &["good.evil.example. 60 HTTPS 1 . ipv4hint=203.0.113.1"])]
#[case("outer-translated", "AAAA", &["outer-translated.evil.example. 60 AAAA 64:ff9b::cb00:7101"])]
#[case("spared", "A", &["spared.evil.example. 60 A 10.1.2.4"])]
#[case("below.spared", "A", &["below.spared.evil.example. 60 A 10.1.2.5"])]
#[case("vpc", "A", &[
    "vpc.evil.example. 60 CNAME sts.us-east-1.amazonaws.com.",
    "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11",
])]
fn harmless_answers_pass_the_rebinding_guard(#[case] label: &str, #[case] qtype: &str, #[case] records: &[&str]) {
    let internet = Peer::named(&[("evil.example", REBINDING_ZONE)]);
    let site = Site::start();
    let except = "except = [\"spared.evil.example\", \"vpc.evil.example\"]";
    for rebind in ["refuse", "allow"] {
        let lines = if rebind == "refuse" { format!("rebind = \"refuse\"\n{except}") } else { String::new() };
        let config = site.config("").servers("internet", &[internet.address.to_string()], ONE_PATIENT_TRY).forward(
            "internet",
            &["evil.example"],
            "internet",
            &lines,
        );
        let tidegate = Tidegate::start(&config);
        let name = format!("{label}.evil.example");
        shows_twice(&tidegate, &name, qtype, &[&["NOERROR qr rd ra"], records].concat());
    }
}

#[test]
fn aaaa_is_empty_where_the_link_has_no_ipv6() {
    let mut site = Site::start();
    let tidegate = Tidegate::start(&site.config("aaaa = \"empty\""));
    for _ in 0..2 {
        dig(tidegate.address(), "sts.us-east-1.amazonaws.com", &["AAAA"]).shows(&["NOERROR qr rd ra"]);
        dig(tidegate.address(), "none.us-east-1.amazonaws.com", &["AAAA", "+tcp"]).shows(&["NOERROR qr rd ra"]);
        ask(&tidegate, "login.corp.example", "AAAA")
            .shows_aged(&["NOERROR qr rd ra", "login.corp.example. 15 CNAME STS.US-EAST-1.AmazonAWS.com."]);
    }
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A")
        .shows(&["NOERROR qr rd ra", "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11"]);
    assert_eq!(tidegate.metric("tidegate_negative_without_soa_total", &[]), 0.0);
    site.endpoint.kill();
    dig(tidegate.address(), "other.us-east-1.amazonaws.com", &["AAAA"]).shows(&["NOERROR qr rd ra"]);
}

/// The lesser of the SOA's TTL and MINIMUM, the rule's cap, the cache's; the SOA goes out with it.
#[rstest]
#[case::the_zones_own("", "", 40)]
#[case::the_caches_cap("", "negative_ttl = \"30s\"", 30)]
#[case::the_rules_cap("negative_ttl = \"10s\"", "negative_ttl = \"30s\"", 10)]
#[case::the_rules_cap_may_be_longer_than_the_caches("negative_ttl = \"35s\"", "negative_ttl = \"5s\"", 35)]
fn negative_answers_live_as_the_soa_says(#[case] rule: &str, #[case] cache: &str, #[case] ttl: u32) {
    let peer = Peer::named(&[("corp.example", NEGATIVE_ZONE)]);
    let tidegate = Tidegate::start(&one_group(&peer, rule).section("cache", cache));
    let soa =
        |ttl: u32| format!("authority: corp.example. {ttl} SOA ns.corp.example. h.corp.example. 1 7200 900 1209600 40");
    for (label, qtype, status) in [("none", "A", "NXDOMAIN"), ("www", "TXT", "NOERROR")] {
        let name = format!("{label}.corp.example");
        let status = format!("{status} qr rd ra");
        ask(&tidegate, &name, qtype).shows(&[&status, &soa(ttl)]);
        ask(&tidegate, &name, qtype).shows_aged(&[&status, &soa(ttl)]);
        dig(tidegate.address(), &name, &[qtype, "+dnssec", "+cd"]).shows_aged(&[&format!("{status} cd"), &soa(ttl)]);
    }
    // Behind an alias no longer than the alias itself.
    let least = ttl.min(25);
    let alias = format!("alias.corp.example. {least} CNAME gone.corp.example.");
    shows_twice(&tidegate, "alias.corp.example", "A", &["NXDOMAIN qr rd ra", &alias, &soa(least)]);
}

/// Unbound's `always_nodata` and `always_nxdomain` answer without an SOA, as the VPC resolver's cache does.
#[test]
fn negative_answers_without_an_soa_are_short_and_counted() {
    let zones = " local-zone: \"corp.example.\" always_nxdomain\n local-zone: \"empty.example.\" always_nodata\n";
    let peer = Peer::unbound(zones, "", &crate::Query::a("corp.example"));
    let config = one_group(&peer, "").section("cache", "no_soa_ttl = \"1s\"");
    let tidegate = Tidegate::start(&config);
    let lone = |name: &str| ask(&tidegate, name, "A").shown();
    let asked = || tidegate.metric("tidegate_upstream_queries_total", &[("group", "site"), ("result", "ok")]);
    assert_eq!(lone("www.empty.example"), ["NOERROR qr rd ra"]);
    assert_eq!(lone("www.corp.example"), ["NXDOMAIN qr rd ra"]);
    let counted = [("rule", "rest")];
    assert_eq!(tidegate.metric("tidegate_negative_without_soa_total", &counted), 2.0);
    let before = asked();
    eventually("it is asked for again", || lone("www.corp.example").len() == 1 && asked() > before);
    assert!(tidegate.hits() > 0.0 || tidegate.metric("tidegate_negative_without_soa_total", &counted) < 10.0);
}

const OVERRIDES: &str = "[[local]]
zone = \"override.us-east-1.amazonaws.com\"
records = [\"@ 60 SOA ns.corp.example. h.corp.example. 1 2 3 4 30\", \"@ 60 A 10.9.0.1\"]
[[local]]
zone = \"sts.us-east-1.amazonaws.com\"
records = [\"@ 60 SOA ns.corp.example. h.corp.example. 1 2 3 4 30\", \"@ 60 A 10.9.0.3\"]
[[local]]
zone = \"own.s3.us-east-1.amazonaws.com\"
records = [\"@ 60 SOA ns.corp.example. h.corp.example. 1 2 3 4 30\", \"box 60 A 10.9.0.2\"]";

/// Records and a zone below amazonaws.com take their names out; what is beside them is forwarded.
#[rstest]
#[case::the_record("override.us-east-1.amazonaws.com", "A", &[
    "NOERROR qr aa rd ra",
    "override.us-east-1.amazonaws.com. 60 A 10.9.0.1",
])]
#[case::its_other_types("override.us-east-1.amazonaws.com", "AAAA", &[
    "NOERROR qr aa rd ra",
    "authority: override.us-east-1.amazonaws.com. 30 SOA ns.corp.example. h.corp.example. 1 2 3 4 30",
])]
#[case::below_the_record("x.override.us-east-1.amazonaws.com", "A", &[
    "NXDOMAIN qr aa rd ra",
    "authority: override.us-east-1.amazonaws.com. 30 SOA ns.corp.example. h.corp.example. 1 2 3 4 30",
])]
#[case::a_name_that_the_vpc_has_too("sts.us-east-1.amazonaws.com", "A", &[
    "NOERROR qr aa rd ra",
    "sts.us-east-1.amazonaws.com. 60 A 10.9.0.3",
])]
#[case::and_its_other_types("sts.us-east-1.amazonaws.com", "HTTPS", &[
    "NOERROR qr aa rd ra",
    "authority: sts.us-east-1.amazonaws.com. 30 SOA ns.corp.example. h.corp.example. 1 2 3 4 30",
])]
#[case::in_the_zone("box.own.s3.us-east-1.amazonaws.com", "A", &[
    "NOERROR qr aa rd ra",
    "box.own.s3.us-east-1.amazonaws.com. 60 A 10.9.0.2",
])]
#[case::not_in_the_zone("none.own.s3.us-east-1.amazonaws.com", "A", &[
    "NXDOMAIN qr aa rd ra",
    "authority: own.s3.us-east-1.amazonaws.com. 30 SOA ns.corp.example. h.corp.example. 1 2 3 4 30",
])]
#[case::a_sibling("box.s3.us-east-1.amazonaws.com", "A", &[
    "NOERROR qr rd ra",
    "box.s3.us-east-1.amazonaws.com. 60 A 10.20.1.10",
])]
#[case::a_name_above("s3.us-east-1.amazonaws.com", "TXT", &[
    "NOERROR qr rd ra",
    "authority: amazonaws.com. 30 SOA ns.amazonaws.com. hostmaster.amazonaws.com. 1 7200 900 1209600 30",
])]
#[case::a_name_that_ends_alike("xoverride.us-east-1.amazonaws.com", "A", &[
    "NXDOMAIN qr rd ra",
    "authority: amazonaws.com. 30 SOA ns.amazonaws.com. hostmaster.amazonaws.com. 1 7200 900 1209600 30",
])]
#[case::an_alias_to_it("login.corp.example", "A", &[
    "NOERROR qr rd ra",
    "login.corp.example. 120 CNAME STS.US-EAST-1.AmazonAWS.com.",
    "STS.US-EAST-1.AmazonAWS.com. 60 A 10.9.0.3",
])]
fn local_names_below_a_forwarded_domain(#[case] name: &str, #[case] qtype: &str, #[case] lines: &[&str]) {
    let site = Site::start();
    // The guard is the forwarding rule's, and none of theirs.
    let config = site.config("private = [\"10.20.0.0/16\"]\non_public = \"refuse\"").raw(OVERRIDES);
    shows_twice(&Tidegate::start(&config), name, qtype, lines);
}
