//! Which addresses get through `private`, `on_public` and `except`, for everything that BIND can put into an answer.

use rstest::rstest;

use crate::{
    Config, ONE_PATIENT_TRY, Peer, ask, resolver_before, shows_twice,
    support::{eventually, peers::dig, tidegate::Tidegate},
};

/// The VPC's zone with holes: names that the inbound endpoint answers with public addresses.
const LEAKY_ZONE: &str = "$TTL 60
@ SOA ns hostmaster 1 7200 900 1209600 30
@ NS ns
ns A 203.0.113.2
inside A 10.20.1.10
inside AAAA fd20::10
inside HTTPS 1 . alpn=h2 ipv4hint=10.20.1.10 ipv6hint=fd20::10 key65400=abc
outside A 203.0.113.10
outside AAAA 2001:db8::10
outside HTTPS 1 . alpn=h2 key65400=abc ipv4hint=203.0.113.10
outside SVCB 1 . alpn=h2 ipv6hint=fd20::10,2001:db8::10
outside TXT \"a text\"
mixed A 10.20.1.10
mixed A 203.0.113.10
mixed AAAA fd20::10
mixed AAAA 2001:db8::10
mixed HTTPS 1 . alpn=h2 ipv4hint=10.20.1.10
mixed HTTPS 2 . alpn=h2 ipv4hint=203.0.113.10
alias CNAME outside
steps CNAME alias
away CNAME shop.cdn.example.
home CNAME www.corp.example.
mapped AAAA ::ffff:203.0.113.10
mapped-inside AAAA ::ffff:10.20.1.10
translated AAAA 64:ff9b::203.0.113.10
spared A 203.0.113.20
deep.spared A 203.0.113.21
to-spared CNAME spared
_sip._tcp SRV 1 1 443 outside
mail MX 1 outside
service HTTPS 1 outside
brief 1 A 203.0.113.30
brief 1 A 10.20.1.30
";

const GUARD: &str = "private = [\"10.20.0.0/16\", \"fd20::/16\"]\nexcept = [\"spared.amazonaws.com\"]\n";

/// Aliases of the site's own that lead behind the guard.
const EDGE: &str = "[[local]]
zone = \"edge.example\"
records = [\"outside 300 CNAME outside.amazonaws.com.\", \"mixed 300 CNAME mixed.amazonaws.com.\"]";

struct Leaky {
    endpoint: Peer,
    _outside: Peer,
    resolver: Peer,
}

impl Leaky {
    #[track_caller]
    fn start() -> Self {
        let endpoint = Peer::named_with("minimal-responses no;", &[("amazonaws.com", LEAKY_ZONE)]);
        let outside = Peer::named(&crate::OUTSIDE);
        let resolver = resolver_before(&outside);
        Self { endpoint, _outside: outside, resolver }
    }

    fn config(&self, on_public: &str) -> Config {
        let guard = if on_public.is_empty() { String::new() } else { format!("{GUARD}on_public = \"{on_public}\"") };
        Config::new()
            .section("cache", "failure_ttl = \"1s\"\nstale_after = \"200ms\"")
            .servers("vpc", &[self.endpoint.address.to_string()], ONE_PATIENT_TRY)
            .servers("site", &[self.resolver.address.to_string()], ONE_PATIENT_TRY)
            .forward("aws", &["preset:aws"], "vpc", &guard)
            .forward("rest", &["."], "site", "")
            .raw(EDGE)
    }
}

/// How often the guard did this.
fn violations(tidegate: &Tidegate, action: &str) -> f64 {
    tidegate.metric("tidegate_guard_violations_total", &[("rule", "aws"), ("action", action)])
}

fn is_public(text: &str) -> bool {
    text.contains("203.0.113.") || text.contains("2001:db8:")
}

#[rstest]
#[case::ipv4("outside", "A", "203.0.113.10")]
#[case::ipv6("outside", "AAAA", "2001:db8::10")]
#[case::hint_behind_an_unknown_key("outside", "HTTPS", "203.0.113.10")]
#[case::https_by_number("outside", "TYPE65", "203.0.113.10")]
#[case::second_hint("outside", "SVCB", "2001:db8::10")]
#[case::one_of_two("mixed", "A", "203.0.113.10")]
#[case::one_of_two_in_ipv6("mixed", "AAAA", "2001:db8::10")]
#[case::second_https("mixed", "HTTPS", "203.0.113.10")]
#[case::behind_an_alias("alias", "A", "203.0.113.10")]
#[case::behind_two_aliases("steps", "HTTPS", "203.0.113.10")]
#[case::behind_an_alias_that_leaves_aws("away", "A", "203.0.113.80")]
#[case::behind_an_alias_into_the_company("home", "A", "10.1.2.3")]
#[case::ipv4_as_ipv6("mapped", "AAAA", "::ffff:203.0.113.10")]
#[case::ipv4_translated("translated", "AAAA", "64:ff9b::cb00:710a")]
#[case::behind_an_alias_to_a_spared_name("to-spared", "A", "203.0.113.20")]
#[case::a_name_of_the_zone_itself("ns", "A", "203.0.113.2")]
fn refused(#[case] label: &str, #[case] qtype: &str, #[case] address: &str) {
    let leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config("refuse"));
    let name = format!("{label}.amazonaws.com");
    let ede = format!("EDE 15 (Blocked): (rule aws: {address} is not private)");
    for turn in 1..=3 {
        let dig = ask(&tidegate, &name, qtype);
        let first = dig.shown().last().cloned().unwrap_or_default();
        // Of several addresses any may be the first.
        let is_told = first == ede || (label == "mixed" && first.starts_with("EDE 15 (Blocked): (rule aws: "));
        assert!(dig.shown().len() == 2 && is_told && dig.shown()[0] == "SERVFAIL qr rd ra", "{}", dig.text);
        assert!(violations(&tidegate, "refuse") >= f64::from(turn), "each refusal counts");
    }
    let over_tcp = dig(tidegate.address(), &name, &[qtype, "+tcp"]);
    assert_eq!(over_tcp.shown()[0], "SERVFAIL qr rd ra", "{}", over_tcp.text);
    tidegate.logged_once("WARN", "an answer is not private");
    assert_eq!(tidegate.hits(), 0.0, "nothing of it is kept");
}

#[rstest]
#[case::ipv4("inside", "A", &["inside.amazonaws.com. 60 A 10.20.1.10"])]
#[case::ipv6("inside", "AAAA", &["inside.amazonaws.com. 60 AAAA fd20::10"])]
#[case::hints("inside", "HTTPS", &[
    "inside.amazonaws.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=10.20.1.10 ipv6hint=fd20::10 key65400=\"abc\"",
])]
#[case::ipv4_as_ipv6("mapped-inside", "AAAA", &["mapped-inside.amazonaws.com. 60 AAAA ::ffff:10.20.1.10"])]
#[case::spared("spared", "A", &["spared.amazonaws.com. 60 A 203.0.113.20"])]
#[case::below_a_spared_name("deep.spared", "A", &["deep.spared.amazonaws.com. 60 A 203.0.113.21"])]
// What stands beside the answer stays behind: an address there would come past the guard.
#[case::srv("_sip._tcp", "SRV", &["_sip._tcp.amazonaws.com. 60 SRV 1 1 443 outside.amazonaws.com."])]
#[case::mx("mail", "MX", &["mail.amazonaws.com. 60 MX 1 outside.amazonaws.com."])]
#[case::service("service", "HTTPS", &["service.amazonaws.com. 60 HTTPS 1 outside.amazonaws.com."])]
#[case::text("outside", "TXT", &["outside.amazonaws.com. 60 TXT \"a text\""])]
#[case::the_alias_alone("away", "CNAME", &["away.amazonaws.com. 60 CNAME shop.cdn.example."])]
fn passed(#[case] label: &str, #[case] qtype: &str, #[case] records: &[&str]) {
    let leaky = Leaky::start();
    let name = format!("{label}.amazonaws.com");
    if matches!(qtype, "SRV" | "MX") {
        assert!(is_public(&dig(leaky.endpoint.address, &name, &[qtype]).text), "the lure is there");
    }
    for on_public in ["refuse", "strip", "log"] {
        let tidegate = Tidegate::start(&leaky.config(on_public));
        shows_twice(&tidegate, &name, qtype, &[&["NOERROR qr rd ra"], records].concat());
        assert_eq!(violations(&tidegate, on_public), 0.0);
    }
}

/// EDE 15 fresh and cached; the fresh one with an address.
#[rstest]
#[case::nothing_left("outside", "A", &[])]
#[case::no_hint_left("outside", "HTTPS", &[])]
#[case::one_left("mixed", "A", &["mixed.amazonaws.com. 60 A 10.20.1.10"])]
#[case::one_left_in_ipv6("mixed", "AAAA", &["mixed.amazonaws.com. 60 AAAA fd20::10"])]
#[case::one_service_left("mixed", "HTTPS", &["mixed.amazonaws.com. 60 HTTPS 1 . alpn=\"h2\" ipv4hint=10.20.1.10"])]
#[case::behind_an_alias("alias", "A", &["alias.amazonaws.com. 15 CNAME outside.amazonaws.com."])]
#[case::behind_an_alias_that_leaves_aws("away", "A", &["away.amazonaws.com. 15 CNAME shop.cdn.example."])]
fn stripped(#[case] label: &str, #[case] qtype: &str, #[case] records: &[&str]) {
    let leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config("strip"));
    let name = format!("{label}.amazonaws.com");
    let mut lines: Vec<&str> = [&["NOERROR qr rd ra"], records].concat();
    let fresh = ask(&tidegate, &name, qtype).shown();
    let (told, rest) = fresh.split_last().expect("a status at least");
    assert_eq!(rest, lines);
    assert!(told.starts_with("EDE 15 (Blocked): (rule aws: ") && is_public(told), "{told}");
    assert_eq!(violations(&tidegate, "strip"), 1.0);

    lines.push("EDE 15 (Blocked): (addresses that are not private were left out)");
    ask(&tidegate, &name, qtype).shows_aged(&lines);
    tidegate.await_metric("tidegate_cache_hits_total", &[], 1.0);
    assert_eq!(violations(&tidegate, "strip"), 1.0, "what is kept was judged");
    assert_eq!(tidegate.metric("tidegate_negative_without_soa_total", &[]), 0.0, "the upstream did nothing wrong");
}

#[test]
fn everything_at_once_over_tcp() {
    let leaky = Leaky::start();
    for (on_public, status) in [("refuse", "SERVFAIL"), ("strip", "NOERROR"), ("log", "NOERROR")] {
        let tidegate = Tidegate::start(&leaky.config(on_public));
        for turn in 0..2 {
            let any = dig(tidegate.address(), "outside.amazonaws.com", &["ANY", "+tcp"]);
            assert_eq!(any.status, status, "{}", any.text);
            let records: Vec<String> = any.shown().into_iter().filter(|line| line.starts_with("outside")).collect();
            assert_eq!(is_public(&records.join("\n")), on_public == "log", "turn {turn}: {}", any.text);
            let count = match on_public {
                "refuse" => 0,
                "strip" => 1,
                _ => 5,
            };
            assert_eq!(records.len(), count, "turn {turn}: {}", any.text);
        }
        dig(tidegate.address(), "outside.amazonaws.com", &["ANY", "+notcp"])
            .shows(&["NOERROR qr rd ra", "outside.amazonaws.com. 3600 HINFO \"RFC8482\" \"\""]);
    }
}

#[test]
fn on_public_log_passes_answers_and_counts_them() {
    let leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config("log"));
    shows_twice(
        &tidegate,
        "outside.amazonaws.com",
        "A",
        &["NOERROR qr rd ra", "outside.amazonaws.com. 60 A 203.0.113.10"],
    );
    assert_eq!(violations(&tidegate, "log"), 1.0);
    tidegate.await_logged("WARN", "an answer is not private");
    let warned = tidegate.logged("WARN", "an answer is not private");
    assert_eq!(warned.len(), 1, "{warned:?}");
    for part in ["\"rule\":\"aws\"", "outside.amazonaws.com.", "203.0.113.10", "\"action\":\"log\""] {
        assert!(warned[0].contains(part), "{part} in {}", warned[0]);
    }
    ask(&tidegate, "away.amazonaws.com", "A").shows_aged(&[
        "NOERROR qr rd ra",
        "away.amazonaws.com. 60 CNAME shop.cdn.example.",
        "shop.cdn.example. 90 A 203.0.113.80",
    ]);
    assert_eq!(violations(&tidegate, "log"), 2.0);
}

/// From wherever a chain comes: the corporate resolver's idea of AWS names, and the site's own aliases.
#[rstest]
#[case("login.corp.example")]
#[case("backups.corp.example")]
#[case("outside.edge.example")]
#[case("mixed.edge.example")]
fn aliases_lead_to_the_guard(#[case] name: &str, #[values("refuse", "strip")] on_public: &str) {
    let leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config(on_public));
    for qtype in ["A", "AAAA", "HTTPS", "A", "AAAA", "HTTPS"] {
        let answer = ask(&tidegate, name, qtype);
        let shown = answer.shown();
        let records = shown.iter().filter(|line| !line.starts_with("EDE")).cloned().collect::<Vec<_>>();
        assert!(!is_public(&records.join("\n")), "{name} {qtype}: {shown:?}");
        if name.contains("edge") {
            assert!(shown.iter().any(|line| line.starts_with("EDE 15 (Blocked)")), "{qtype}: {}", answer.text);
        }
    }
}

/// What is fresh, cached and stale, with the endpoint gone in the end.
#[test]
fn stripped_answers_stay_stripped_when_stale() {
    let mut leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config("strip"));
    let look = || ask(&tidegate, "brief.amazonaws.com", "A").shown();
    assert_eq!(look()[..2], ["NOERROR qr rd ra", "brief.amazonaws.com. 1 A 10.20.1.30"]);
    leaky.endpoint.kill();
    eventually("a stale answer", || {
        let shown = look();
        let records: Vec<&String> = shown.iter().filter(|line| line.starts_with("brief")).collect();
        assert!(records.iter().all(|line| line.ends_with("10.20.1.30")) && records.len() == 1, "{shown:?}");
        shown == ["NOERROR qr rd ra", "brief.amazonaws.com. 30 A 10.20.1.30", "EDE 3 (Stale Answer)"]
    });
}

#[test]
fn a_guard_that_comes_with_a_reload_holds_what_was_kept_before() {
    let mut leaky = Leaky::start();
    let tidegate = Tidegate::start(&leaky.config(""));
    let names = ["outside.amazonaws.com", "brief.amazonaws.com", "outside.edge.example", "away.amazonaws.com"];
    for name in names {
        assert!(is_public(&ask(&tidegate, name, "A").text), "{name} is kept with a public address");
    }
    leaky.endpoint.kill();
    assert!(tidegate.reload(&leaky.config("refuse")));
    for _ in 0..2 {
        for name in names {
            let dig = ask(&tidegate, name, "A");
            assert!(dig.status == "SERVFAIL" && !is_public(&dig.text), "{}", dig.text);
        }
    }
}
