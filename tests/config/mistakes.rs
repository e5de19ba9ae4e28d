//! Every kind of mistake, by its message and its place.

use rstest::rstest;
use tidegate::config::{Color, Plan};

use crate::problems;

const MISTAKES: &[(&str, &str, &str)] = &[
    ("syntax", "[server\n", "t.toml:1:8: not TOML: unclosed table, expected `]`"),
    ("unknown key", "[server]\nlisen = []", "t.toml:2:1: [server] has no key \"lisen\"; did you mean \"listen\"?"),
    ("unknown table", "[caches]\n", "t.toml:1:2: the file has no key \"caches\"; did you mean \"cache\"?"),
    (
        "key of another table",
        "[server]\nmax_ttl = \"1d\"",
        "t.toml:2:1: [server] has no key \"max_ttl\"; it belongs in [cache]",
    ),
    (
        "type",
        "[server]\nlisten = \"127.0.0.1:53\"",
        "t.toml:2:10: server.listen must be a list of texts in quotes, not a text",
    ),
    (
        "type in a list",
        "[server]\nallow = [1]",
        "t.toml:2:10: server.allow must be a text in quotes, not a whole number",
    ),
    (
        "a duration without quotes",
        "[server]\ndeadline = 5",
        "t.toml:2:12: server.deadline must be a duration in quotes, with its unit, not a whole number",
    ),
    (
        "a size without quotes",
        "[cache]\nsize = 64",
        "t.toml:2:8: cache.size must be a size in quotes, with its unit, not a whole number",
    ),
    ("no tables", "upstream = 1", "t.toml:1:12: upstream must be tables, each with a name of its own"),
    (
        "single brackets",
        "[forward]\nzones = []",
        "t.toml:1:2: write [[forward]] with two brackets: there may be several",
    ),
    (
        "duration",
        "[server]\ndeadline = \"3.5s\"",
        "t.toml:2:12: deadline \"3.5s\" is no duration: it has a unit that is none of these",
    ),
    (
        "duration bounds",
        "[server]\ndeadline = \"1ms\"",
        "t.toml:2:12: deadline is 1ms, and must lie between 100ms and 60s",
    ),
    ("size", "[cache]\nsize = \"128MB\"", "t.toml:2:8: size \"128MB\" is no size: it has a unit that is none of these"),
    ("size bounds", "[cache]\nsize = \"1KiB\"", "t.toml:2:8: size is 1KiB, and must lie between 1MiB and 1TiB"),
    (
        "number bounds",
        "[server]\nudp_payload = 100",
        "t.toml:2:15: udp_payload is 100, and must lie between 512 and 4096",
    ),
    (
        "negative number",
        "[limits]\nin_flight = -1",
        "t.toml:2:13: in_flight is -1, and must lie between 1 and 16777216",
    ),
    (
        "a device for a file",
        "[cache]\nsnapshot = \"/dev/null\"",
        "t.toml:2:12: snapshot \"/dev/null\" cannot be used: it is a device, not a regular file",
    ),
    ("workers", "[server]\nworkers = 0", "t.toml:2:11: workers is 0, and must lie between 1 and 1024"),
    (
        "workers word",
        "[server]\nworkers = \"all\"",
        "t.toml:2:11: workers cannot be \"all\"; it is a number, or \"auto\"",
    ),
    (
        "a dnstap target by name",
        "[log]\ndnstap = \"tcp:collector.example:6000\"",
        "t.toml:2:10: dnstap \"tcp:collector.example:6000\" is no collector",
    ),
    (
        "word",
        "[log]\nlevel = \"warning\"",
        "t.toml:2:9: level cannot be \"warning\"; it is one of error, warn, info, debug, trace",
    ),
    ("near word", "[log]\nformat = \"jsn\"", "t.toml:2:10: format cannot be \"jsn\"; did you mean \"json\"?"),
    ("ttls crossed", "[cache]\nmin_ttl = \"10m\"\nmax_ttl = \"1m\"", "t.toml:2:11: min_ttl is longer than max_ttl"),
    (
        "listen address",
        "[server]\nlisten = [\"localhost:53\"]",
        "t.toml:2:11: listen \"localhost:53\" is no address to listen on: it is not an IPv4 or IPv6 address",
    ),
    ("nothing to listen on", "[server]\nlisten = []", "t.toml:2:10: listen names no address"),
    (
        "listen twice",
        "[server]\nlisten = [\"127.0.0.1\", \"127.0.0.1:53\"]",
        "t.toml:2:24: listen names 127.0.0.1:53 twice",
    ),
    (
        "network",
        "[server]\nallow = [\"10.0.0.0/33\"]",
        "t.toml:2:10: \"10.0.0.0/33\" is not loopback, private, any or a network",
    ),
    (
        "bits beyond the prefix",
        "[server]\ndeny = [\"10.1.2.3/8\"]",
        "t.toml:2:9: network \"10.1.2.3/8\" has bits beyond its prefix",
    ),
    (
        "scope in a network",
        "[server]\nallow = [\"fe80::%eth0/64\"]",
        "t.toml:2:10: network \"fe80::%eth0/64\" has a scope; networks have none",
    ),
    (
        "link-local server without an interface",
        "[upstream.a]\nservers = [\"tls://[fe80::1]#dns.example\"]",
        "t.toml:2:12: server tls://[fe80::1]#dns.example is on one link alone, and it is not said which",
    ),
    (
        "server address",
        "[upstream.a]\nservers = [\"dns.example\"]",
        "t.toml:2:12: server dns.example is given by name, and upstream \"a\" has no bootstrap",
    ),
    (
        "server by a name of one label",
        "[upstream.a]\nservers = [\"tls://dns\"]\nbootstrap = [\"10.1.1.53\"]",
        "t.toml:2:12: server \"tls://dns\" cannot be used: a name of one label is never completed by a search domain: write \
         the full name, as in dc.corp.example",
    ),
    (
        "bootstrap by name",
        "[upstream.a]\nservers = [\"dns.example\"]\nbootstrap = [\"ns.example\"]",
        "t.toml:3:14: bootstrap server \"ns.example\" cannot be used: it is not an IPv4 or IPv6 address, and a name would \
         need one too",
    ),
    (
        "bootstrap without a host",
        "[upstream.a]\nservers = [\"dns.example\"]\nbootstrap = [\"0.0.0.0\"]",
        "t.toml:3:14: bootstrap server \"0.0.0.0\" cannot be used: no server has this address",
    ),
    (
        "bootstrap twice",
        "[upstream.a]\nservers = [\"dns.example\"]\nbootstrap = [\"10.1.1.53\", \"10.1.1.53:53\"]",
        "t.toml:3:27: bootstrap names 10.1.1.53:53 twice",
    ),
    (
        "bootstrap is our own listener",
        "[server]\nlisten = [\"127.0.0.1:53\"]\n[upstream.a]\nservers = [\"dns.example\"]\nbootstrap = [\"127.0.0.1\"]",
        "t.toml:5:14: bootstrap server 127.0.0.1 is our own listener",
    ),
    (
        "more servers than a query can go to",
        "[upstream.a]\nservers = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\", \
         \"10.0.0.7\", \"10.0.0.8\", \"10.0.0.9\"]\nbackup = [[\"10.0.1.1\", \"10.0.1.2\", \"10.0.1.3\", \"10.0.1.4\", \
         \"10.0.1.5\", \"10.0.1.6\", \"10.0.1.7\", \"10.0.1.8\"]]",
        "t.toml:1:11: upstream \"a\" has 17 servers; a group has at most 16",
    ),
    ("no servers", "[upstream.a]\n", "t.toml:1:11: upstream \"a\" has no servers"),
    (
        "empty server list",
        "[upstream.a]\nservers = []",
        "t.toml:2:11: upstream \"a\" has no servers: the list is empty",
    ),
    (
        "empty tier",
        "[upstream.a]\nservers = [\"10.1.1.1\"]\nbackup = [[]]",
        "t.toml:3:11: a backup tier of upstream \"a\" has no servers: the list is empty",
    ),
    (
        "tiers as one list",
        "[upstream.a]\nservers = [\"10.1.1.1\"]\nbackup = [\"10.1.1.2\"]",
        "t.toml:3:11: upstream.a.backup must be a list of server addresses in quotes, not a text",
    ),
    (
        "server twice",
        "[upstream.a]\nservers = [\"10.1.1.1\", \"10.1.1.1:53\"]",
        "t.toml:2:24: upstream \"a\" names 10.1.1.1 twice",
    ),
    (
        "families",
        "[upstream.a]\nsource = \"10.0.0.1\"\nservers = [\"2001:db8::1\"]",
        "t.toml:3:12: server 2001:db8::1 cannot be reached from source 10.0.0.1: one is IPv4, one IPv6",
    ),
    (
        "probe",
        "[upstream.a]\nservers = [\"10.1.1.1\"]\nhealth.probe = \"example.com\"",
        "t.toml:3:16: probe \"example.com\" is not a name and a type",
    ),
    (
        "probe type",
        "[upstream.a]\nservers = [\"10.1.1.1\"]\nhealth.probe = \"example.com ANY\"",
        "t.toml:3:16: probe \"example.com ANY\" asks for no record type",
    ),
    (
        "expect without addresses",
        "[upstream.a]\nservers = [\"10.1.1.1\"]\nhealth.expect = [\"10.0.0.0/8\"]",
        "t.toml:3:17: expect needs a probe for A or AAAA, and the probe is \". NS\"",
    ),
    (
        "local without records",
        "[[local]]\nzone = \"a.example\"",
        "t.toml:2:8: local zone \"a.example\" has neither a file nor records",
    ),
    (
        "local with both",
        "[[local]]\nzone = \"a.example\"\nfile = \"a\"\nrecords = []",
        "t.toml:4:11: local zone \"a.example\" has a file and records; it takes one of them",
    ),
    (
        "local zone twice",
        "[[local]]\nzone = \"a.example\"\nfile = \"a\"\n[[local]]\nzone = \"A.example.\"\nfile = \"b\"",
        "t.toml:5:8: zone \"a.example\" belongs to the local zone \"a.example\" at t.toml:2:8 already",
    ),
    (
        "include of nothing",
        "include = [\"nowhere/x.toml\"]",
        "t.toml:1:12: nowhere/x.toml: cannot be read: no such file or directory",
    ),
    (
        "wildcard directory",
        "include = [\"*/x.toml\"]",
        "t.toml:1:12: * and ? may stand in the last part of an include only",
    ),
];

#[test]
fn every_kind_of_mistake_is_reported_by_file_line_and_column() {
    for (name, text, message) in MISTAKES {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        assert_eq!(found[0], *message, "{name}");
    }
}

const MISTAKES_IN_RULES: &[(&str, &str)] = &[
    (
        "name = \"aws\"\nzones = [\".\"]\nto = \"r53\"",
        "t.toml:6:6: rule \"aws\" sends to \"r53\", and there is no [upstream.r53]; there is [upstream.vpc]",
    ),
    ("zones = [\".\"]", "t.toml:3:1: rule \".\" has no `to`"),
    ("to = \"vpc\"", "t.toml:3:1: rule \"forward\" has no zones"),
    ("zones = []\nto = \"vpc\"", "t.toml:4:9: rule \"forward\" has no zones"),
    ("zones = [\"a..b\"]\nto = \"vpc\"", "t.toml:4:10: \"a..b\" is no name: it has an empty label"),
    (
        "zones = [\"*.example\"]\nto = \"vpc\"",
        "t.toml:4:10: \"*.example\" is no domain: a domain covers all names below it as it is",
    ),
    ("zones = [\"10.0.0.0/8\"]\nto = \"vpc\"", "t.toml:4:10: \"10.0.0.0/8\" is a network, not a domain"),
    (
        "zones = [\"10.in-addr.arpa\"]\nexcept = [\"10.1.0.0/16\"]\nto = \"vpc\"",
        "t.toml:5:11: \"10.1.0.0/16\" is a network, not a domain",
    ),
    (
        "zones = [\".\"]\nexcept = [\"preset:aws\"]\nto = \"vpc\"",
        "t.toml:5:11: \"preset:aws\" is no domain: only the `zones` of a rule take such words",
    ),
    (
        "zones = [\"reverse:10.0.0.1/8\"]\nto = \"vpc\"",
        "t.toml:4:10: network \"10.0.0.1/8\" has bits beyond its prefix",
    ),
    ("zones = [\"reverse:site\"]\nto = \"vpc\"", "t.toml:4:10: \"site\" is not a network"),
    (
        "zones = [\"preset:gcp\"]\nto = \"vpc\"",
        "t.toml:4:10: there is no preset \"gcp\"; there is aws, aws-cn, aws-iso, aws-iso-b, aws-iso-e, \
         aws-iso-f, aws-eusc",
    ),
    (
        "zones = [\"a.example\", \"A.example.\"]\nto = \"vpc\"",
        "t.toml:4:23: zone \"a.example\" belongs to rule \"a.example\" at t.toml:4:10 already",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nprivate = [\"10.0.0.0/8\"]",
        "t.toml:6:11: rule \".\" has `private`, and does not say what happens to public addresses",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nprivate = [\"private\"]\non_public = \"log\"",
        "t.toml:6:12: \"private\" is not a network",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nprivate = [\"10.0.0.0/8\"]\non_public = \"drop\"",
        "t.toml:7:13: on_public cannot be \"drop\"; it is one of log, strip, refuse",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nwhen_down = \"upstream:site\"",
        "t.toml:6:13: rule \".\" falls back to \"site\", and there is no [upstream.site]; there is [upstream.vpc]",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nwhen_down = \"upstream:vpc\"",
        "t.toml:6:13: rule \".\" falls back to \"vpc\", where it sends already",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\nwhen_down = \"retry\"",
        "t.toml:6:13: when_down cannot be \"retry\"; it is one of stale, fail, upstream:NAME",
    ),
    (
        "zones = [\".\"]\nto = \"vpc\"\n[[forward]]\nzones = [\".\"]\nto = \"vpc\"",
        "t.toml:7:10: zone \".\" belongs to rule \".\" at t.toml:4:10 already",
    ),
    (
        "zones = [\"reverse:private\"]\nto = \"vpc\"\n[[forward]]\nzones = [\"reverse:10.0.0.0/8\"]\nto = \"vpc\"",
        "t.toml:7:10: zone \"10.in-addr.arpa\" (of reverse:10.0.0.0/8) belongs to rule \"reverse:private\" at \
         t.toml:4:10 already",
    ),
    (
        "zones = [\"a.example\"]\nclients = [\"10.0.0.0/8\"]\nto = \"vpc\"\n[[forward]]\nzones = \
         [\"a.example\"]\nclients = [\"10.0.0.0/8\"]\nto = \"vpc\"",
        "t.toml:8:10: zone \"a.example\" for clients 10.0.0.0/8 belongs to rule \"a.example\" at t.toml:4:10 already",
    ),
    (
        "zones = [\"a.example\"]\nto = \"vpc\"\n[[local]]\nzone = \"a.example\"\nfile = \"a\"",
        "t.toml:4:10: zone \"a.example\" belongs to the local zone \"a.example\" at t.toml:7:8 already",
    ),
    (
        "name = \"x\"\nzones = [\"a.example\"]\nto = \"vpc\"\n[[forward]]\nname = \"x\"\nzones = \
         [\"b.example\"]\nto = \"vpc\"",
        "t.toml:8:8: rule \"x\" stands at t.toml:4:8 already",
    ),
];

#[test]
fn mistakes_in_rules_are_reported_at_their_place() {
    let rule = |keys: &str| format!("[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[[forward]]\n{keys}\n");
    for (keys, message) in MISTAKES_IN_RULES {
        assert_eq!(problems(&rule(keys)), [*message], "{keys}");
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let text = "[server]\nlisen = []\ndeadline = \"5\"\nallow = [\"x\", \"10.0.0.0/8\", \"y\"]\n\
        [upstream.vpc]\nservers = [\"10.20.1.10\", \"nonsense\"]\ntimeout = 5\nattempts = 99\n\
        [[forward]]\nzones = [\"a b\"]\nto = \"r53\"\nprivate = [\"10.0.0.0/8\"]\nwhen_down = \"never\"\n";
    let places: Vec<String> =
        problems(text).iter().map(|line| line.split(": ").next().unwrap_or_default().to_owned()).collect();
    let expected = ["2:1", "3:12", "4:10", "4:29", "6:26", "7:11", "8:12", "10:10", "11:6", "12:11", "13:13"];
    assert_eq!(places, expected.map(|place| format!("t.toml:{place}")));
}

#[test]
fn a_problem_shows_its_line_and_what_would_be_right() {
    let text = "[server]\nallow = [\"10.1.2.3/8\"]\n";
    let Err(problems) = Plan::from_text("t.toml", text) else { panic!("it is wrong") };
    let plain = problems.render(Color::Never);
    assert!(plain.starts_with("t.toml:2:10: error: network \"10.1.2.3/8\" has bits beyond its prefix\n"), "{plain}");
    assert!(plain.contains("2 | allow = [\"10.1.2.3/8\"]\n"), "{plain}");
    assert!(plain.contains("^^^^^^^^^^^^\n"), "{plain}");
    assert!(plain.contains("help: write \"10.0.0.0/8\", or \"10.1.2.3/32\""), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert!(problems.render(Color::Always).contains('\u{1b}'));
}

#[test]
fn what_is_off_needs_nothing() {
    let off = "[server]\nproxy_protocol = []\nchaos = \"\"\nlameduck = \"5s\"\nsandbox = \"off\"\n\
        [server.tls]\ntls = []\n\
        [log]\nqueries = \"off\"\nsample = 1.0\n[admin]\nsocket = \"/run/tidegate/control.sock\"\n";
    assert_eq!(problems(off), [""; 0]);
}

#[cfg(not(feature = "otlp"))]
#[test]
fn traces_need_a_build_with_their_feature() {
    let found = problems("[log]\notlp = \"http://127.0.0.1:4318\"");
    assert_eq!(found, ["t.toml:2:8: this build of tidegate sends no traces: it was made without the feature otlp"]);
    assert_eq!(problems("[log]\notlp = \"\""), [""; 0]);
}

#[cfg(feature = "otlp")]
#[rstest]
#[case::encrypted("https://127.0.0.1:4318", "traces go to a collector over http://")]
#[case::grpc("grpc://127.0.0.1:4317", "traces go to a collector over http://")]
#[case::name("http://collector:4318", "its host is given by address, since its name may need this server")]
#[case::no_port("http://127.0.0.1", "it names no port from 1 to 65535")]
#[case::no_url("collector", "it is no URL of a collector")]
fn a_collector_of_traces_is_a_plain_url_with_an_address(#[case] text: &str, #[case] why: &str) {
    let found = problems(&format!("[log]\notlp = {text:?}"));
    assert_eq!(found, [format!("t.toml:2:8: otlp {text:?} cannot be used: {why}")]);
}

#[test]
fn servers_by_name_are_right_with_somebody_to_ask() {
    for rules in [
        "[[forward]]\nzones = [\".\"]\nto = \"a\"",
        "[[forward]]\nzones = [\"corp.example\"]\nto = \"b\"\n[[forward]]\nzones = [\"example\", \".\"]\nto = \"a\"\n\
         [upstream.b]\nservers = [\"10.1.1.2\"]",
    ] {
        let text = format!(
            "[upstream.a]\nservers = [\"https://dns.corp.example/dns-query\", {{ server = \"dc.corp.example\", mark = 2 }}]\n\
             backup = [[\"tls://resolver.corp.example\"]]\nbootstrap = [\"10.1.1.53\", \"[fd00::53]:5353\"]\n{rules}"
        );
        assert_eq!(problems(&text), [""; 0]);
    }
}

#[rstest]
#[case::below("*.a.example", "a.example")]
#[case::a_label_within("s3.*.a.example", "a.example")]
#[case::part_of_a_label("s3-*.a.example", "a.example")]
#[case::everything("*", ".")]
fn a_wildcard_is_no_domain_wherever_one_stands(#[case] wildcard: &str, #[case] domain: &str) {
    let base = "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n";
    let guard = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";
    for text in [
        format!("{base}[[forward]]\nzones = [\"{wildcard}\"]\nto = \"vpc\""),
        format!("{base}[[forward]]\nzones = [\".\"]\nexcept = [\"{wildcard}\"]\nto = \"vpc\"\n{guard}"),
        format!("[[local]]\nzone = \"{wildcard}\"\nrecords = []"),
    ] {
        let problems = Plan::from_text("t.toml", &text).expect_err("a wildcard is refused").render(Color::Never);
        let said = format!("\"{wildcard}\" is no domain: a domain covers all names below it as it is");
        assert!(problems.contains(&said) && problems.contains(&format!("write \"{domain}\"")), "{problems}");
    }
}

#[test]
fn only_the_first_syntax_error_of_each_line_is_reported() {
    let places: Vec<String> = problems("[server]\nlisten = [\n\"x\" y z\n]\n[cache\nsize = \"1MiB\"\nlisen = 1\n")
        .iter()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(places, ["t.toml:3:5: not TOML", "t.toml:5:7: not TOML"]);
}

#[test]
fn the_advice_for_a_wrong_key_fits() {
    for (text, advice) in [
        ("[upstream.a]\nserver = [\"10.1.1.1\"]\nservers = [\"10.1.1.1\"]", "did you mean \"servers\"?"),
        (
            "[[forward]]\nzone = []\nzones = [\".\"]\nto = \"a\"\n[upstream.a]\nservers = [\"10.1.1.1\"]",
            "did you mean \"zones\"?",
        ),
        ("[server]\nquery-log = \"x\"", "[server] has no key \"query-log\""),
        ("[cache]\nudp_payload = 1", "it belongs in [server]"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(advice), "{found:?}");
    }
}

/// What an accident may leave in a file.
const DEBRIS: &str = "[\\[\\]{}\"=\\.#, \n\\\\a-zé0-9]{0,12}";

proptest::proptest! {
    /// Whatever is left of a file after an accident: an answer, never a panic, and every problem can be shown.
    #[test]
    fn no_text_panics(cut in 0_usize..14_000, length in 0_usize..400, debris in DEBRIS) {
        let mut text = std::fs::read_to_string("config/reference.toml").unwrap();
        let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (boundary(cut), boundary(cut + length));
        text.replace_range(from..to, &debris);
        if let Err(problems) = Plan::from_text("t.toml", &text) {
            proptest::prop_assert!(!problems.is_empty());
            proptest::prop_assert!(problems.render(Color::Always).contains(':'));
        }
    }
}
