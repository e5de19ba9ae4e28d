//! Large zones, hosts files and configurations: memory grows by little with each line.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fmt::Write as _, fs, path::Path};

use tidegate::{
    cache::Cache,
    config::Plan,
    daemon,
    engine::snapshot::Target,
    wire::{Class, Name, Rcode, RecordType},
    zones::{LocalQuery, LocalSpec, RecordPlace, SpecialUse, ZoneSource, Zones},
};

const HEAD: &str = "$TTL 300\n@ SOA ns h 1 7200 900 1209600 300\n@ NS ns\n";

/// The most octets in use at once, per line, while a file with this many lines is read and kept.
fn octets_a_line(lines: u32, head: &str, line: fn(u32) -> String, build: fn(&Path) -> Zones, name: &str) -> u64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut text = head.to_owned();
    (0..lines).for_each(|n| writeln!(text, "{}", line(n)).unwrap());
    fs::write(file.path(), &text).unwrap();
    let mut built = None;
    let counted = allocation_counter::measure(|| built = Some(build(file.path())));
    let zones = built.unwrap();
    assert!(zones.errors().is_empty() && zones.warnings().next().is_none());
    let name: Name = name.parse().unwrap();
    let question = LocalQuery { name: &name, qtype: RecordType::A, qclass: Class::IN };
    assert_eq!(zones.answer(&question, |_| true).unwrap().rcode, Rcode::NOERROR, "the last line is answered from");
    counted.bytes_max / u64::from(lines)
}

fn address(n: u32) -> String {
    format!("10.{}.{}.{}", n / 65536 % 256, n / 256 % 256, n % 256)
}

#[test]
fn a_zone_costs_little_for_each_record() {
    let build = |path: &Path| {
        let place = RecordPlace { file: "tidegate.toml".into(), line: 1 };
        let spec =
            LocalSpec { zone: "corp.example".parse().unwrap(), place, source: ZoneSource::File(path.to_owned()) };
        Zones::build(&[spec], None, SpecialUse::Ignored, None).unwrap()
    };
    let line = |n| format!("host{n} A {}", address(n));
    let few = octets_a_line(50_000, HEAD, line, build, "host49999.corp.example");
    let many = octets_a_line(400_000, HEAD, line, build, "host399999.corp.example");
    assert!(few < 200 && many < 200, "{few} octets a record, {many} of eight times as many");
}

#[test]
fn a_hosts_file_costs_little_for_each_line() {
    let build = |path: &Path| Zones::build(&[], Some(path), SpecialUse::Ignored, None).unwrap();
    let line = |n| format!("{} host{n}.corp.example host{n}", address(n));
    let few = octets_a_line(50_000, "", line, build, "host49999");
    let many = octets_a_line(400_000, "", line, build, "host399999.corp.example");
    assert!(few < 300 && many < 300, "{few} octets a line of two names, {many} of eight times as many");
}

/// A plan of so many rules for a domain each, and one more for some clients.
fn plan_of_rules(rules: u32) -> Plan {
    let mut text =
        "[upstream.site]\nservers = [\"192.0.2.1\"]\n[upstream.other]\nservers = [\"192.0.2.2\"]\n".to_owned();
    for n in 0..rules {
        writeln!(text, "[[forward]]\nto = \"site\"\nzones = [\"zone{n}.example\"]").unwrap();
    }
    text += "[[forward]]\nto = \"other\"\nzones = [\"last.example\"]\nclients = [\"10.0.0.0/8\"]\n";
    Plan::from_text("t.toml", &text).unwrap()
}

#[test]
fn a_rule_costs_little() {
    let octets_a_rule = |rules| {
        let mut rows = 0;
        let counted = allocation_counter::measure(|| {
            plan_of_rules(rules).write_routing_table(|piece| rows += piece.lines().count());
        });
        assert!(rows > rules as usize);
        counted.bytes_max / u64::from(rules)
    };
    let (few, many) = (octets_a_rule(5_000), octets_a_rule(40_000));
    assert!(few < 700 && many < 700, "{few} octets a rule, {many} of eight times as many");
}

#[test]
fn rules_are_used_however_many_there_are() {
    let plan = plan_of_rules(70_000);
    let engine = daemon::offline_engine(&plan, Cache::new(0)).unwrap();
    let snapshot = engine.snapshot();
    let rule_of = |name: &str| {
        let name: Name = name.parse().unwrap();
        let found = snapshot.find(name.as_wire(), RecordType::A, [10, 0, 0, 1].into()).unwrap();
        let Target::Rule(rule) = found.target else { panic!("{name} is forwarded") };
        (snapshot.rule(rule).name.to_string(), found.view)
    };
    assert_eq!(rule_of("www.zone69999.example"), ("zone69999.example".to_owned(), 0));
    assert_eq!(rule_of("www.last.example"), ("last.example".to_owned(), 70_001));
}
