//! Special-use names are answered here, unless a rule or a zone has them; "." is no such rule.

use rstest::rstest;

use crate::{
    Config, ONE_PATIENT_TRY, Peer,
    support::{peers::dig, tidegate::Tidegate},
};

/// What the resolver behind "." would say.
const LURE: &str = "$TTL 60\n@ SOA ns h 1 2 3 4 30\n@ NS ns\nns A 203.0.113.1\n* A 203.0.113.1\n* PTR lure.example.\n";

fn lured() -> Peer {
    Peer::named(&[
        ("localhost", LURE),
        ("invalid", LURE),
        ("test", LURE),
        ("onion", LURE),
        ("home.arpa", LURE),
        ("resolver.arpa", LURE),
        ("10.in-addr.arpa", LURE),
        ("20.172.in-addr.arpa", LURE),
        ("32.172.in-addr.arpa", LURE),
        ("100.100.in-addr.arpa", LURE),
        ("d.f.ip6.arpa", LURE),
        ("nolocalhost", LURE),
        ("local", LURE),
    ])
}

fn everything(peer: &Peer) -> Config {
    Config::new().servers("site", &[peer.address.to_string()], ONE_PATIENT_TRY).forward("rest", &["."], "site", "")
}

#[rstest]
#[case::localhost("localhost", "A", &["NOERROR qr aa rd ra", "localhost. 10800 A 127.0.0.1"])]
#[case::below_it("Any.LocalHost", "A", &["NOERROR qr aa rd ra", "Any.LocalHost. 10800 A 127.0.0.1"])]
#[case::localhost_in_ipv6("localhost", "AAAA", &["NOERROR qr aa rd ra", "localhost. 10800 AAAA ::1"])]
#[case::no_data("localhost", "HTTPS", &["NOERROR qr aa rd ra", "SOA localhost."])]
#[case::invalid("www.invalid", "A", &["NXDOMAIN qr aa rd ra", "SOA invalid."])]
#[case::for_tests("test", "A", &["NXDOMAIN qr aa rd ra", "SOA test."])]
#[case::onion("abc.onion", "AAAA", &["NXDOMAIN qr aa rd ra", "SOA onion."])]
#[case::home("nas.home.arpa", "A", &["NXDOMAIN qr aa rd ra", "SOA home.arpa."])]
#[case::home_itself("home.arpa", "A", &["NOERROR qr aa rd ra", "SOA home.arpa."])]
#[case::no_designated_resolver("_dns.resolver.arpa", "SVCB", &["NOERROR qr aa rd ra", "SOA resolver.arpa."])]
#[case::loopback("1.0.0.127.in-addr.arpa", "PTR", &["NOERROR qr aa rd ra", "1.0.0.127.in-addr.arpa. 10800 PTR localhost."])]
#[case::ten("3.2.1.10.in-addr.arpa", "PTR", &["NXDOMAIN qr aa rd ra", "SOA 10.in-addr.arpa."])]
#[case::one_seven_two("1.1.20.172.in-addr.arpa", "PTR", &["NXDOMAIN qr aa rd ra", "SOA 20.172.in-addr.arpa."])]
#[case::shared("1.1.100.100.in-addr.arpa", "PTR", &["NXDOMAIN qr aa rd ra", "SOA 100.100.in-addr.arpa."])]
#[case::unique_local("1.0.d.f.ip6.arpa", "PTR", &["NXDOMAIN qr aa rd ra", "SOA d.f.ip6.arpa."])]
// The neighbours are names like any other, and so is what Active Directory lives under.
#[case::beside_localhost("www.nolocalhost", "A", &["NOERROR qr rd ra", "www.nolocalhost. 60 A 203.0.113.1"])]
#[case::beside_one_seven_two("1.1.32.172.in-addr.arpa", "PTR", &["NOERROR qr rd ra", "1.1.32.172.in-addr.arpa. 60 PTR lure.example."])]
#[case::local("dc.local", "A", &["NOERROR qr rd ra", "dc.local. 60 A 203.0.113.1"])]
fn the_root_rule_does_not_count(#[case] name: &str, #[case] qtype: &str, #[case] lines: &[&str]) {
    let peer = lured();
    let tidegate = Tidegate::start(&everything(&peer));
    let soa = |line: &str| match line.strip_prefix("SOA ") {
        Some(zone) => format!("authority: {zone} 10800 SOA {zone} nobody.invalid. 1 3600 1200 604800 10800"),
        None => line.to_owned(),
    };
    // The cache's cap on what is negative is for these as well.
    let lines: Vec<String> = lines.iter().map(|line| soa(line).replace(" 10800 SOA", " 900 SOA")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for _ in 0..2 {
        dig(tidegate.address(), name, &[qtype]).shows_aged(&lines);
    }
}

#[test]
fn rules_and_zones_for_them_do() {
    let peer = lured();
    let config = everything(&peer)
        .forward("own", &["corp.test", "home.arpa", "reverse:private"], "site", "")
        .raw("[[local]]\nzone = \"lab.invalid\"\nrecords = [\"www 60 A 10.3.0.1\"]");
    let tidegate = Tidegate::start(&config);
    let shows = |name: &str, qtype: &str, lines: &[&str]| dig(tidegate.address(), name, &[qtype]).shows(lines);
    shows("www.corp.test", "A", &["NOERROR qr rd ra", "www.corp.test. 60 A 203.0.113.1"]);
    shows("nas.home.arpa", "A", &["NOERROR qr rd ra", "nas.home.arpa. 60 A 203.0.113.1"]);
    shows("3.2.1.10.in-addr.arpa", "PTR", &["NOERROR qr rd ra", "3.2.1.10.in-addr.arpa. 60 PTR lure.example."]);
    shows("1.0.d.f.ip6.arpa", "PTR", &["NOERROR qr rd ra", "1.0.d.f.ip6.arpa. 60 PTR lure.example."]);
    shows("www.lab.invalid", "A", &["NOERROR qr aa rd ra", "www.lab.invalid. 60 A 10.3.0.1"]);
    assert_eq!(dig(tidegate.address(), "www.other.test", &[]).status, "NXDOMAIN", "beside the rule");
    assert_eq!(dig(tidegate.address(), "www.invalid", &[]).status, "NXDOMAIN", "above the zone");
    shows("localhost", "A", &["NOERROR qr aa rd ra", "localhost. 10800 A 127.0.0.1"]);

    let off = config.section("special", "enabled = false");
    assert!(tidegate.reload(&off));
    shows("www.other.test", "A", &["NOERROR qr rd ra", "www.other.test. 60 A 203.0.113.1"]);
    shows("www.localhost", "A", &["NOERROR qr rd ra", "www.localhost. 60 A 203.0.113.1"]);
}

/// DS belongs to the parent's side (RFC 4035 3.1.4.1), and a special-use domain is no parent of anything.
#[test]
fn ds_right_below_a_special_domain_goes_where_the_name_goes() {
    let peer = lured();
    let tidegate = Tidegate::start(&everything(&peer).forward("lab", &["corp.test"], "site", ""));
    for (name, qtype, status, flags) in [
        ("corp.test", "A", "NOERROR", "qr rd ra"),
        ("corp.test", "DS", "NOERROR", "qr rd ra"),
        ("www.corp.test", "DS", "NOERROR", "qr rd ra"),
        ("other.test", "DS", "NXDOMAIN", "qr aa rd ra"),
    ] {
        assert_eq!(dig(tidegate.address(), name, &[qtype]).shown()[0], format!("{status} {flags}"), "{name} {qtype}");
    }
}

/// A hosts file as every host has it says nothing of the names below localhost.
#[test]
fn a_host_leaves_the_names_below_it_special() {
    let peer = lured();
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(hosts.path(), "127.0.0.1 localhost\n10.1.2.3 test\n").expect("it is writable");
    let config = everything(&peer).raw(&format!("[local_hosts]\nfile = {:?}", hosts.path()));
    let tidegate = Tidegate::start(&config);
    for _ in 0..2 {
        for (name, status, address) in [
            ("localhost", "NOERROR", Some("127.0.0.1")),
            ("www.localhost", "NOERROR", Some("127.0.0.1")),
            ("test", "NOERROR", Some("10.1.2.3")),
            ("www.test", "NXDOMAIN", None),
        ] {
            let dig = dig(tidegate.address(), name, &["A"]);
            assert_eq!(
                (dig.status.as_str(), dig.answers.first().map(String::as_str)),
                (status, address),
                "{}",
                dig.text
            );
        }
    }
}

/// A rule for some clients leaves the names special for all others.
#[test]
fn a_rule_for_some_clients_counts_for_them_alone() {
    let peer = lured();
    let config = everything(&peer).forward("lab", &["test"], "site", "clients = [\"127.1.0.0/16\"]");
    let tidegate = Tidegate::start(&config);
    for _ in 0..2 {
        for (client, status) in [("127.0.0.9", "NXDOMAIN"), ("127.1.0.1", "NOERROR")] {
            assert_eq!(dig(tidegate.address(), "www.test", &["A", "-b", client]).status, status, "{client}");
        }
    }
}

/// An upstream's alias into a special name does not lead to another host's localhost.
#[test]
fn an_alias_into_them_is_answered_here() {
    let zone =
        "$TTL 60\n@ SOA ns h 1 2 3 4 30\n@ NS ns\nns A 203.0.113.1\nhere CNAME localhost.\ngone CNAME www.invalid.\n";
    let peer = Peer::named(&[("corp.example", zone), ("localhost", LURE), ("invalid", LURE)]);
    let tidegate = Tidegate::start(&everything(&peer));
    dig(tidegate.address(), "here.corp.example", &["A"]).shows(&[
        "NOERROR qr rd ra",
        "here.corp.example. 60 CNAME localhost.",
        "localhost. 10800 A 127.0.0.1",
    ]);
    let gone = dig(tidegate.address(), "gone.corp.example", &["A"]);
    assert_eq!((gone.status.as_str(), gone.answers.len()), ("NXDOMAIN", 1), "{}", gone.text);
}
