//! The configuration as users meet it: example files, every kind of mistake by its message, defaults, includes, flags.

use std::{fs, path::Path, time::Duration};

use tidegate::config::{Color, Flags, Plan, Problems, ServerAddress, WhenDown, ZoneData, defaults};

/// A valid beginning for texts that test one thing.
const BASE: &str =
    "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[[forward]]\nzones = [\".\", \"reverse:private\"]\nto = \"vpc\"\n";

fn plan(text: &str) -> Plan {
    match Plan::from_text("t.toml", text) {
        Ok(plan) => plan,
        Err(problems) => panic!("{problems}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    match Plan::from_text("t.toml", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.lines().collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    plan(text).warnings.lines().collect()
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.lines().collect()
}

mod examples {
    use super::*;

    #[test]
    fn every_example_file_is_valid_and_warns_of_nothing() {
        let mut seen = 0;
        for entry in fs::read_dir("config").unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name == "reference.toml") {
                continue;
            }
            let plan = Plan::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
            // A sidecar's only client is its own host, whose reverse names are nobody's.
            assert_eq!(lines(&plan.warnings), [""; 0], "{}", path.display());
            seen += 1;
        }
        assert_eq!(seen, 4);
    }

    #[test]
    fn every_example_value_of_the_reference_is_valid_or_not_supported_yet() {
        let Err(problems) = Plan::load(Path::new("config/reference.toml")) else { return };
        for line in problems.lines() {
            assert!(line.contains(": not supported yet: "), "{line}");
        }
    }
}

mod reference {
    use toml::{Table, Value};

    use super::*;

    /// The keys of the reference that have no default, as `table.key`.
    const WITHOUT_DEFAULT: &[&str] = &[
        "upstream.servers",
        "forward.name",
        "forward.zones",
        "forward.to",
        "forward.on_public",
        "local.zone",
        "local.file",
        "local.records",
    ];

    /// `table.key` and value for each key, names of groups left out of the path, the first of several tables only.
    fn flat(table: &Table, path: &str, into: &mut Vec<(String, Value)>) {
        for (key, value) in table {
            let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(groups) if here == "upstream" => {
                    let first = groups.get("vpc").or_else(|| groups.get("NAME")).and_then(Value::as_table).unwrap();
                    flat(first, "upstream", into);
                }
                Value::Table(inner) => flat(inner, &here, into),
                Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                    for item in items.iter().take(if here == "local" { 2 } else { 1 }) {
                        flat(item.as_table().unwrap(), &here, into);
                    }
                }
                _ => into.push((here, value.clone())),
            }
        }
    }

    fn read(text: &str) -> Vec<(String, Value)> {
        let mut keys = Vec::new();
        flat(&text.parse().unwrap(), "", &mut keys);
        keys
    }

    #[test]
    fn every_default_of_the_reference_is_the_true_default() {
        let reference = read(&fs::read_to_string("config/reference.toml").unwrap());
        let truth = read(&defaults());
        let mut compared = 0;
        for (key, value) in &reference {
            if WITHOUT_DEFAULT.contains(&key.as_str()) {
                continue;
            }
            let (_, default) = truth.iter().find(|(known, _)| known == key).unwrap_or_else(|| panic!("{key} missing"));
            // The reference shows an example of tiers.
            if key != "upstream.backup" {
                assert_eq!(value, default, "{key}");
            }
            compared += 1;
        }
        assert_eq!(compared, truth.len(), "the reference lacks a key");
    }

    #[test]
    fn the_printed_defaults_change_nothing() {
        let text = defaults()
            .replace("[upstream.NAME]", "[upstream.NAME]\nservers = [\"192.0.2.1\"]")
            .replace("[[forward]]", "[[forward]]\nzones = [\".\"]\nto = \"NAME\"");
        let written = plan(&text);
        let silent = plan("[upstream.NAME]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"NAME\"");
        assert_eq!(written.live, silent.live);
        assert_eq!(written.boot.streams, silent.boot.streams);
    }
}

#[test]
fn every_kind_of_mistake_is_told_by_file_line_and_column() {
    for (name, text, message) in [
        ("syntax", "[server\n", "t.toml:1:8: not TOML: "),
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
        (
            "size",
            "[cache]\nsize = \"128MB\"",
            "t.toml:2:8: size \"128MB\" is no size: it has a unit that is none of these",
        ),
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
        ("workers", "[server]\nworkers = 0", "t.toml:2:11: workers is 0, and must lie between 1 and 1024"),
        (
            "workers word",
            "[server]\nworkers = \"all\"",
            "t.toml:2:11: workers cannot be \"all\"; it is a number, or \"auto\"",
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
            "server address",
            "[upstream.a]\nservers = [\"dns.example\"]",
            "t.toml:2:12: server \"dns.example\" cannot be used: it is not an IPv4 or IPv6 address",
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
            "t.toml:1:12: nowhere/x.toml: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "wildcard directory",
            "include = [\"*/x.toml\"]",
            "t.toml:1:12: * and ? may stand in the last part of an include only",
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        assert!(found[0].starts_with(message), "{name}:\n  found    {}\n  expected {message}", found[0]);
        assert!(found[0] == message || name == "syntax", "{name}: {}", found[0]);
    }
}

#[test]
fn mistakes_in_rules_are_told_where_they_stand() {
    let rule = |keys: &str| format!("[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[[forward]]\n{keys}\n");
    for (keys, message) in [
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
            "t.toml:4:10: \"*.example\" is no zone: a zone covers all names below it as it is",
        ),
        ("zones = [\"10.0.0.0/8\"]\nto = \"vpc\"", "t.toml:4:10: \"10.0.0.0/8\" is a network, not a zone"),
        (
            "zones = [\"reverse:10.0.0.1/8\"]\nto = \"vpc\"",
            "t.toml:4:10: network \"10.0.0.1/8\" has bits beyond its prefix",
        ),
        ("zones = [\"reverse:site\"]\nto = \"vpc\"", "t.toml:4:10: \"site\" is not a network"),
        (
            "zones = [\"preset:gcp\"]\nto = \"vpc\"",
            "t.toml:4:10: there is no preset \"gcp\"; there is aws, aws-cn, aws-iso, aws-iso-b, aws-iso-e, aws-iso-f, aws-eusc",
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
            "zones = [\".\"]\nto = \"vpc\"\non_public = \"drop\"",
            "t.toml:6:13: on_public cannot be \"drop\"; it is one of log, strip, refuse",
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
            "t.toml:7:10: zone \"10.in-addr.arpa\" (of reverse:10.0.0.0/8) belongs to rule \"reverse:private\" at t.toml:4:10 already",
        ),
        (
            "zones = [\"a.example\"]\nclients = [\"10.0.0.0/8\"]\nto = \"vpc\"\n[[forward]]\nzones = [\"a.example\"]\nclients = [\"10.0.0.0/8\"]\nto = \"vpc\"",
            "t.toml:8:10: zone \"a.example\" for clients 10.0.0.0/8 belongs to rule \"a.example\" at t.toml:4:10 already",
        ),
        (
            "zones = [\"a.example\"]\nto = \"vpc\"\n[[local]]\nzone = \"a.example\"\nfile = \"a\"",
            "t.toml:4:10: zone \"a.example\" belongs to the local zone \"a.example\" at t.toml:7:8 already",
        ),
        (
            "name = \"x\"\nzones = [\"a.example\"]\nto = \"vpc\"\n[[forward]]\nname = \"x\"\nzones = [\"b.example\"]\nto = \"vpc\"",
            "t.toml:8:8: rule \"x\" stands at t.toml:4:8 already",
        ),
    ] {
        assert_eq!(problems(&rule(keys)), [message], "{keys}");
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
    assert!(plain.starts_with("t.toml:2:10: network \"10.1.2.3/8\" has bits beyond its prefix\n"), "{plain}");
    assert!(plain.contains("2 | allow = [\"10.1.2.3/8\"]\n"), "{plain}");
    assert!(plain.contains("^^^^^^^^^^^^\n"), "{plain}");
    assert!(plain.contains("help: write \"10.0.0.0/8\", or \"10.1.2.3/32\""), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert!(problems.render(Color::Always).contains('\u{1b}'));
}

#[test]
fn keys_of_later_work_are_refused_unless_off() {
    for (text, key) in [
        ("[server]\nproxy_protocol = [\"10.0.0.0/8\"]", "server.proxy_protocol"),
        ("[server.tls]\ntls = [\"0.0.0.0:853\"]", "server.tls"),
        ("[limits]\nclient_qps = 5", "limits.client_qps"),
        ("[cache]\nsnapshot = \"x\"", "cache.snapshot"),
        ("[log]\nqueries = \"all\"", "log.queries"),
        ("[log]\nsample = 0.5", "log.sample"),
        ("[upstream.a]\nservers = [\"tls://10.1.1.1\"]", "upstream servers over tls://"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        assert!(found[0].ends_with(&format!(": not supported yet: {key}")), "{found:?}");
    }
    let off = "[server]\nproxy_protocol = []\nchaos = \"\"\nlameduck = \"5s\"\nsandbox = \"off\"\n[server.tls]\ntls = []\n\
               [log]\nqueries = \"off\"\nsample = 1.0\n[admin]\nsocket = \"/run/tidegate/control.sock\"\n";
    assert_eq!(problems(off), [""; 0]);
}

#[test]
fn cookie_secrets_are_read_from_their_files_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (new, old) = ("445536bcd2513298075a5d379663c962", "DD3BDF9344B678B185A6F5CB60FCA715");
    for (file, text) in [
        ("new", format!("{new}\n")),
        ("old", format!(" {old}")),
        ("short", new[1..].to_owned()),
        ("odd", new.replace('b', "x")),
        ("again", new.to_uppercase()),
    ] {
        fs::write(directory.path().join(file), text).unwrap();
    }
    let load = |list: &str| {
        let path = directory.path().join("t.toml");
        fs::write(&path, format!("{BASE}[server]\ncookie_secrets = {list}\n")).unwrap();
        Plan::load(&path)
    };

    let Ok(plan) = load("[\"new\", \"old\"]") else { panic!("both are secrets") };
    let secrets: Vec<_> = plan.live.cookie_secrets.iter().map(|secret| secret.secret.clone()).collect();
    assert_eq!(secrets, [new.parse().unwrap(), old.parse().unwrap()]);
    assert_eq!(plan.live.cookie_secrets[0].path, directory.path().join("new"));
    let shown = format!("{plan:?}").to_lowercase();
    assert!(shown.contains("cookie") && !shown.contains(&new[..8]) && !shown.contains("dd3b"), "{shown}");

    for (list, expected) in [
        (
            "[\"short\"]",
            "\"short\" holds no cookie secret: it has 31 characters, and a secret is 32 hexadecimal digits",
        ),
        ("[\"odd\"]", "\"odd\" holds no cookie secret: character 7 is no hexadecimal digit"),
        ("[\"none\"]", "cookie secret \"none\" cannot be read: No such file or directory (os error 2)"),
        ("[\"new\", \"again\"]", "cookie secret \"again\" stands there twice"),
        ("[\"a\", \"b\", \"c\", \"d\", \"e\"]", "cookie_secrets names 5 files, and takes 4 at most"),
    ] {
        let Err(problems) = load(list) else { panic!("{list} is wrong") };
        let lines = lines(&problems);
        assert!(lines[0].ends_with(&format!(": {expected}")), "{list}: {lines:?}");
        assert!(!lines.concat().contains(&new[1..6]), "{lines:?}");
    }
}

#[test]
fn chaos_is_a_text_that_fits_a_record() {
    let with = |length: usize| format!("{BASE}[server]\nchaos = \"{}\"\n", "é".repeat(length));
    assert_eq!(plan(&with(0)).live.chaos, None);
    assert_eq!(plan(&with(127)).live.chaos, Some("é".repeat(127)));
    let found = problems(&with(128));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(": chaos has 256 octets, and a TXT record takes 255"), "{found:?}");
}

mod includes {
    use super::*;

    fn site(main: &str, parts: &[(&str, &str)]) -> (tempfile::TempDir, Result<Plan, Problems>) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        fs::write(directory.path().join("t.toml"), main).unwrap();
        for (name, text) in parts {
            fs::write(directory.path().join("conf.d").join(name), text).unwrap();
        }
        let plan = Plan::load(&directory.path().join("t.toml"));
        (directory, plan)
    }

    /// Messages without the temporary directory.
    fn told(directory: &tempfile::TempDir, plan: Result<Plan, Problems>) -> Vec<String> {
        let Err(problems) = plan else { return Vec::new() };
        let root = format!("{}/", directory.path().display());
        problems.lines().map(|line| line.replace(&root, "")).collect()
    }

    const INCLUDE: &str = "include = [\"conf.d/*.toml\"]\n";

    #[test]
    fn files_are_read_in_name_order_and_paths_start_beside_the_file_that_names_them() {
        let local = |zone: &str| format!("[[local]]\nzone = \"{zone}\"\nfile = \"{zone}.zone\"\n");
        let parts = [("20-b.toml", &*local("b.example")), ("10-a.toml", &*local("a.example")), ("x.bak", "nonsense")];
        let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
        let plan = plan.unwrap();
        let zones: Vec<String> = plan.live.local.iter().map(|local| local.zone.to_string()).collect();
        assert_eq!(zones, ["a.example.", "b.example."]);
        let file = directory.path().join("conf.d/a.example.zone");
        assert_eq!(plan.live.local[0].data, ZoneData::File(file));
    }

    #[test]
    fn an_empty_directory_or_none_is_fine() {
        let (_directory, plan) = site(&format!("{INCLUDE}{BASE}"), &[]);
        plan.unwrap();
        let (_directory, plan) = site(&format!("include = [\"none.d/*.toml\"]\n{BASE}"), &[]);
        plan.unwrap();
    }

    #[test]
    fn the_same_table_or_zone_twice_names_both_files() {
        let parts = [
            ("a.toml", "[cache]\nsize = \"1GiB\"\n[upstream.vpc]\nservers = [\"10.0.0.1\"]\n"),
            ("b.toml", "[cache]\nsize = \"2GiB\"\n[[forward]]\nzones = [\".\"]\nto = \"vpc\"\n"),
        ];
        let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
        assert_eq!(
            told(&directory, plan),
            [
                "conf.d/a.toml:3:11: [upstream.vpc] stands at t.toml:2:11 already",
                "conf.d/b.toml:1:1: [cache] stands at conf.d/a.toml:1:1 already",
                "conf.d/b.toml:4:10: zone \".\" belongs to rule \".\" at t.toml:5:10 already",
            ]
        );
    }

    #[test]
    fn an_included_file_includes_no_others_and_its_mistakes_are_its_own() {
        let parts = [("a.toml", "include = [\"x.toml\"]\n[server]\nlisten = [\"x\"]\n")];
        let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
        assert_eq!(
            told(&directory, plan),
            [
                "conf.d/a.toml:1:11: an included file cannot include others",
                "conf.d/a.toml:3:11: listen \"x\" is no address to listen on: it is not an IPv4 or IPv6 address",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_says_what_to_do() {
        let Err(problems) = Plan::load(Path::new("/nonexistent/t.toml")) else { panic!("it is not there") };
        assert_eq!(lines(&problems), ["/nonexistent/t.toml: cannot be read: No such file or directory (os error 2)"]);
        assert!(problems.to_string().contains("--config"), "{problems}");
    }
}

mod meaning {
    use super::*;

    #[test]
    fn presets_and_reverse_networks_become_zones() {
        let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\n[[forward]]\nzones = [\"preset:aws\", \"reverse:10.20.0.0/14\"]\nto = \"a\"";
        let zones: Vec<String> = plan(text).live.rules[0].zones.iter().map(ToString::to_string).collect();
        assert_eq!(
            zones,
            [
                "amazonaws.com.",
                "api.aws.",
                "on.aws.",
                "sagemaker.aws.",
                "compute.internal.",
                "ec2.internal.",
                "compute-1.internal.",
                "20.10.in-addr.arpa.",
                "21.10.in-addr.arpa.",
                "22.10.in-addr.arpa.",
                "23.10.in-addr.arpa.",
            ]
        );
    }

    #[test]
    fn the_probe_is_what_is_written_else_a_zone_of_a_rule_else_the_root() {
        let servers = "servers = [\"10.1.1.1\"]\n";
        let text = format!(
            "[upstream.a]\n{servers}[upstream.b]\n{servers}[upstream.c]\n{servers}health.probe = \"x.example AAAA\"\n\
             [[forward]]\nzones = [\"a.example\", \"b.example\"]\nto = \"a\"\n\
             [[forward]]\nzones = [\"c.example\", \".\"]\nto = \"b\"\n"
        );
        let probes: Vec<String> = plan(&text).live.groups.iter().map(|group| group.health.probe.to_string()).collect();
        assert_eq!(probes, ["a.example. SOA", ". NS", "x.example. AAAA"]);
    }

    #[test]
    fn a_server_may_have_a_way_of_its_own() {
        let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\nbackup = [[{ address = \"10.1.1.1\", device = \"vpn0\" }]]\nmark = 7\n";
        let tiers = &plan(text).live.groups[0].tiers;
        assert_eq!((tiers[0][0].path.mark, tiers[0][0].path.device.as_deref()), (7, None));
        assert_eq!((tiers[1][0].path.mark, tiers[1][0].path.device.as_deref()), (7, Some("vpn0")));
    }

    #[test]
    fn rules_without_a_name_are_told_apart() {
        let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\n\
                    [[forward]]\nzones = [\"corp.example.\"]\nto = \"a\"\n\
                    [[forward]]\nzones = [\"corp.example\"]\nclients = [\"10.9.0.0/16\"]\nto = \"a\"\n\
                    [[forward]]\nzones = [\".\"]\nto = \"a\"\nwhen_down = \"fail\"\n";
        let plan = plan(text);
        let names: Vec<&str> = plan.live.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["corp.example", "corp.example@10.9.0.0/16", "."]);
        assert_eq!(plan.live.rules[2].when_down, WhenDown::Fail);
    }

    #[test]
    fn a_rule_has_the_caches_negative_cap_unless_it_has_its_own() {
        let text = format!(
            "{BASE}negative_ttl = \"30s\"\n[[forward]]\nzones = [\"a.example\"]\nto = \"vpc\"\n[cache]\nnegative_ttl = \"1m\"\n"
        );
        let caps: Vec<Duration> = plan(&text).live.rules.iter().map(|rule| rule.negative_ttl).collect();
        assert_eq!(caps, [Duration::from_secs(30), Duration::from_secs(60)]);
    }

    #[test]
    fn the_routing_table_shows_zones_clients_servers_and_guard() {
        let text = "[upstream.vpc]\nservers = [\"10.20.1.10\"]\nbackup = [[\"10.60.1.10:5353\"]]\n\
                    [[forward]]\nname = \"aws\"\nzones = [\"amazonaws.com\"]\nto = \"vpc\"\nprivate = [\"10.20.0.0/16\"]\non_public = \"refuse\"\n\
                    [[forward]]\nname = \"rest\"\nzones = [\".\", \"reverse:private\"]\nto = \"vpc\"\nwhen_down = \"fail\"\n\
                    [[local]]\nzone = \"edge.example\"\nrecords = [\"@ A 10.1.1.1\"]\n";
        let table = plan(text).routing_table();
        let expected = "\
ZONE                        CLIENTS  RULE  GOES TO         SERVERS                           GUARD
.                           all      rest  vpc, else fail  10.20.1.10; then 10.60.1.10:5353  -
amazonaws.com               all      aws   vpc             10.20.1.10; then 10.60.1.10:5353  refuse outside 10.20.0.0/16
edge.example                all      -     answered here   1 records                         -
reverse:private (88 zones)  all      rest  vpc, else fail  10.20.1.10; then 10.60.1.10:5353  -

";
        assert!(table.starts_with(expected), "{table}");
    }
}

mod warned {
    use super::*;

    #[test]
    fn an_upstream_that_is_our_own_listener_is_left_out() {
        let text = format!(
            "[server]\nlisten = [\"0.0.0.0:53\"]\n{}",
            BASE.replace("\"10.20.1.10\"", "\"10.20.1.10\", \"127.0.0.1\"")
        );
        let plan = plan(&text);
        assert_eq!(
            lines(&plan.warnings),
            ["t.toml:4:26: server 127.0.0.1 of upstream \"vpc\" is our own listener: it is left out"]
        );
        assert_eq!(plan.live.groups[0].tiers[0].len(), 1);
        let alone = BASE.replace("10.20.1.10", "127.0.0.1");
        let plan = super::plan(&alone);
        assert_eq!(plan.live.groups[0].tiers, [vec![]]);
    }

    #[test]
    fn what_looks_like_a_mistake_is_warned_of_by_place() {
        let aws =
            |keys: &str| format!("{BASE}[upstream.aws]\nservers = [\"10.9.9.9\"]\n[[forward]]\nto = \"aws\"\n{keys}\n");
        for (text, message) in [
            (aws("zones = [\"cloudfront.net\"]\nprivate = [\"10.0.0.0/8\"]\non_public = \"log\""), "t.toml:11:11: rule \"cloudfront.net\" guards \"cloudfront.net\", and names there exist in public only (cloudfront.net: CloudFront distributions)"),
            (aws("zones = [\"a.example\"]\nexcept = [\"b.example\"]"), "t.toml:11:11: rule \"a.example\" excepts \"b.example\", which is below none of its zones"),
            (aws("zones = [\"a.example\"]\nclients = [\"8.8.8.0/24\"]"), "t.toml:11:12: rule \"a.example\" is for clients 8.8.8.0/24, which server.allow does not serve"),
            (format!("{BASE}[upstream.idle]\nservers = [\"10.9.9.9\"]"), "t.toml:6:11: no rule sends to upstream \"idle\""),
            (BASE.replace("servers", "backup = [[\"10.20.1.10\"]]\nservers"), "t.toml:1:11: upstream \"vpc\" has 10.20.1.10 in two tiers over the same path: what cuts one cuts both"),
            (format!("{BASE}[cache]\nstale_after = \"5s\""), "t.toml:7:15: stale_after is not before deadline: a stale answer would come too late"),
            ("".to_owned(), "there is no rule and no local zone: every question will be REFUSED"),
            (BASE.replace(", \"reverse:private\"", ""), "no rule covers the reverse names of the clients' networks 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fd00::/8: they are NXDOMAIN here"),
            ("[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[special]\nenabled = false\n[[forward]]\nzones = [\"preset:aws\", \"reverse:10.0.0.0/8\"]\nto = \"vpc\"\n".to_owned(), "t.toml:6:24: rule \"preset:aws\" sends all of 10.in-addr.arpa to upstream \"vpc\", which answers AWS names: the site's own reverse names there will be lost"),
            (format!("[server]\nallow = [\"10.0.0.0/8\"]\n{BASE}[[forward]]\nzones = [\".\", \"reverse:private\"]\nclients = [\"10.0.0.0/8\"]\nto = \"vpc\"\n"), "t.toml:5:1: rule \".\" is never used: rules with clients take all who are served"),
        ] {
            assert_eq!(warnings(&text), [message], "{text}");
        }
    }
}

mod flags {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn a_sidecar_needs_no_file() {
        let flags = Flags {
            listen: list("127.0.0.1:5353"),
            aws: list("10.20.1.10,10.20.2.10"),
            default: list("system"),
            private: list("10.20.0.0/16"),
            on_public: None,
        };
        let plan = Plan::from_flags(&flags).unwrap();
        assert_eq!(plan.boot.listen.len(), 1);
        let rules: Vec<&str> = plan.live.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(rules, ["aws", "default"]);
        assert_eq!(plan.live.groups[0].tiers[0].len(), 2);
        assert_eq!(plan.live.groups[1].tiers[0][0].address, ServerAddress::System { path: None });
        let guard = plan.live.rules[0].guard.as_ref().unwrap();
        assert_eq!(guard.on_public, tidegate::config::OnPublic::Refuse);
    }

    #[test]
    fn flags_beat_the_file() {
        let flags = Flags {
            listen: list("127.0.0.1:5353"),
            aws: list("10.99.1.10"),
            private: list("10.99.0.0/16"),
            on_public: Some("strip".to_owned()),
            ..Flags::default()
        };
        let plan = Plan::load_with(Path::new("config/site.toml"), &flags).unwrap();
        assert_eq!(plan.boot.listen[0].endpoint.to_string(), "127.0.0.1:5353");
        let rule = plan.live.rules.iter().find(|rule| rule.name == "aws").unwrap();
        assert_eq!(plan.live.group(rule.to).tiers[0][0].address.to_string(), "10.99.1.10");
        let guard = rule.guard.as_ref().unwrap();
        assert_eq!(guard.networks, ["10.99.0.0/16".parse().unwrap()]);
        assert_eq!(guard.on_public, tidegate::config::OnPublic::Strip);
    }

    #[test]
    fn what_is_wrong_with_a_flag_names_the_flag() {
        let flags = Flags {
            listen: list("x"),
            aws: list("10.20.1.10,"),
            on_public: Some("drop".to_owned()),
            private: list("10.20.0.0/16,z"),
            ..Flags::default()
        };
        let Err(problems) = Plan::from_flags(&flags) else { panic!("they are wrong") };
        assert_eq!(
            lines(&problems),
            [
                "--listen: listen \"x\" is no address to listen on: it is not an IPv4 or IPv6 address",
                "--aws: server \"\" cannot be used: it is empty",
                "--on-public: on_public cannot be \"drop\"; it is one of log, strip, refuse",
                "--private: \"z\" is not a network",
            ]
        );
        let Err(problems) = Plan::from_flags(&Flags { private: list("10.0.0.0/8"), ..Flags::default() }) else {
            panic!("nothing to guard")
        };
        assert_eq!(lines(&problems), ["--private: there is no rule for preset:aws to guard"]);
    }
}
