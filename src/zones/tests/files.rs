//! Zone and hosts files with the faults that occur in practice: odd, broken, missing, repaired.

use super::*;

const GOOD: &str = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nwww A 10.0.0.1\n";

/// Inputs of the kinds that people run into, with what must be answered from each.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn hosts_files_as_people_have_them_are_served() {
    for (file, skipped) in [("address-without-name", 1), ("bom", 0), ("name-that-is-none", 1), ("scoped-address", 1)] {
        let path = data(&format!("hosts/{file}.hosts"));
        let zones = Zones::build(&[], Some(&path), SpecialUse::Ignored, None).unwrap();
        assert_eq!((zones.errors().len(), zones.warnings().count()), (0, skipped), "{file}");
        let answer = ask(&zones, "intranet.corp.example", RecordType::A);
        assert_eq!(shown(answer), "NOERROR, intranet.corp.example. A [10, 1, 1, 20]", "{file}");
        let reverse = ask(&zones, "20.1.1.10.in-addr.arpa", RecordType::PTR);
        assert_eq!(shown(reverse), "NOERROR, 20.1.1.10.in-addr.arpa. PTR intranet.corp.example.", "{file}");
    }
}

#[test]
fn zone_files_as_people_have_them_are_served() {
    for (file, name, answer) in [
        ("bind-dynamic", "host1", "NOERROR, host1.corp.example. A [10, 1, 1, 1]"),
        (
            "crlf-bom-tabs",
            "alias",
            "NOERROR, alias.corp.example. CNAME web.corp.example., web.corp.example. A [10, 1, 1, 9]",
        ),
        ("windows-dns", "host1", "NOERROR, host1.corp.example. A [10, 1, 1, 20], host1.corp.example. A [10, 1, 1, 21]"),
        ("delegations", "dc01", "NOERROR, dc01.corp.example. A [10, 1, 1, 10]"),
        ("generate", "dhcp-1", "NOERROR, dhcp-1.corp.example. A [10, 0, 1, 1]"),
        ("generate", "dhcp-20", "NOERROR, dhcp-20.corp.example. A [10, 0, 1, 20]"),
        ("generate", "dhcp-21", "NXDOMAIN, corp.example. SOA"),
    ] {
        let source = ZoneSource::File(data(&format!("zones/{file}.zone")));
        let spec = LocalSpec { zone: "corp.example".parse().unwrap(), place: place(1), source };
        let zones = Zones::build(&[spec], None, SpecialUse::Ignored, None).unwrap();
        assert!(zones.errors().is_empty(), "{file}: {:?}", zones.errors());
        assert_eq!(shown(ask(&zones, &format!("{name}.corp.example"), RecordType::A)), answer, "{file} {name}");
    }
}

#[test]
fn odd_lines_of_a_hosts_file_are_left_out_counted_and_the_first_is_shown() {
    const ADDRESS: &str = "is not an address; a line is an address and names";
    for (name, line, count, told) in [
        ("fe80::1%lo0 localhost", 2, 1, "\"fe80::1%lo0\" is an address of one interface".to_owned()),
        ("10.1.1.99", 2, 1, "an address without a name".to_owned()),
        ("10.1.1.99 # its name is lost", 2, 1, "an address without a name".to_owned()),
        ("10.1.1.30 bad..name", 2, 1, "\"bad..name\" is not a name: it has an empty label".to_owned()),
        ("10.1.1.30 good.other b\u{fc}ro", 2, 1, "xn--".to_owned()),
        ("10.1.1.300 other", 2, 1, format!("\"10.1.1.300\" {ADDRESS}")),
        ("<html>\n<body>\n\n10.1.1.30\n", 2, 3, format!("\"<html>\" {ADDRESS}")),
        ("# nothing\n\n \t\nfoo", 5, 1, format!("\"foo\" {ADDRESS}")),
    ] {
        for end in ["\n", "\r\n"] {
            let text = format!("\u{feff}10.1.1.20 www.corp.example\n{name}\n10.1.1.21 mail\n\x1a").replace('\n', end);
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            let zones = Zones::build(&[], Some(file.path()), SpecialUse::Ignored, None).unwrap();
            let told_of = zones.warnings().collect::<Vec<_>>();
            let [warning] = &told_of[..] else { panic!("{name}: {told_of:?}") };
            let counted =
                if count == 1 { "1 line was skipped".to_owned() } else { format!("{count} lines were skipped") };
            let place = format!("{}:{line}: ", file.path().display());
            assert!([&counted, &place, &told].iter().all(|part| warning.contains(*part)), "{name}: {warning}");
            assert!(zones.errors().is_empty(), "{name}");
            assert_eq!(shown(ask(&zones, "www.corp.example", RecordType::A)).matches("[10, 1, 1, 20]").count(), 1);
            assert_eq!(shown(ask(&zones, "mail", RecordType::A)), "NOERROR, mail. A [10, 1, 1, 21]", "{name}");
            assert_eq!(shown(ask(&zones, "good.other", RecordType::A)), "none", "a line is left out as a whole");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_takes_only_its_own_zone_out_of_service() {
    let folder = tempfile::tempdir().unwrap();
    type Write = fn(&Path);
    let files: [(&str, Write); 5] = [
        ("broken", |path| fs::write(path, format!("{GOOD}x A nonsense\n")).unwrap()),
        ("without a SOA", |path| fs::write(path, "www 60 A 10.0.0.1\n").unwrap()),
        ("binary", |path| fs::write(path, (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap()),
        ("missing", |_| {}),
        ("a folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (at, (name, write)) in files.iter().enumerate() {
        let path = folder.path().join(format!("zone{at}"));
        write(&path);
        let source = ZoneSource::File(path.clone());
        let spec = LocalSpec { zone: "corp.example".parse().unwrap(), place: place(1), source };
        let specs = [spec, inline("eu.corp.example", &["www A 10.0.0.3"]), inline("other", &["www A 10.0.0.4"])];
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "10.0.0.9 host.corp.example").unwrap();
        let build = |previous| Zones::build(&specs, Some(&hosts), SpecialUse::Ignored, previous);
        let zones = build(None).unwrap();
        assert!(zones.errors()[0].to_string().contains(path.to_str().unwrap()), "{name}: {:?}", zones.errors());
        assert!(zones.errors().len() <= 102, "{name}: {}", zones.errors().len());
        assert_eq!(zones.broken().map(ToString::to_string).collect::<Vec<_>>(), ["corp.example."]);
        for asked in ["www.corp.example", "corp.example", "x.y.corp.example"] {
            let answer = ask(&zones, asked, RecordType::A).unwrap();
            let zone = "corp.example".parse().unwrap();
            assert_eq!(
                (answer.rcode, answer.outcome),
                (Rcode::SERVFAIL, LocalOutcome::Broken { zone }),
                "{name} {asked}"
            );
        }
        let of_parent = ask(&zones, "eu.corp.example", RecordType::DS).unwrap();
        assert_eq!(of_parent.rcode, Rcode::SERVFAIL, "DS is the parent's");
        for (asked, address) in [("host.corp.example", 9), ("www.eu.corp.example", 3), ("www.other", 4)] {
            let expected = format!("NOERROR, {asked}. A [10, 0, 0, {address}]");
            assert_eq!(shown(ask(&zones, asked, RecordType::A)), expected);
        }

        // What was broken may stay so, and is not told of again as long as its file is the same.
        let again = build(Some(&zones)).unwrap();
        assert_eq!(again.broken().count(), 1, "{name}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        fs::write(&path, GOOD).unwrap();
        assert!(again.changed(), "{name}");
        let mended = build(Some(&again)).unwrap();
        assert_eq!(
            shown(ask(&mended, "www.corp.example", RecordType::A)),
            "NOERROR, www.corp.example. A [10, 0, 0, 1]"
        );
        assert_eq!((mended.broken().count(), mended.errors().len()), (0, 0), "{name}");

        // What was in force is better than a file that broke.
        fs::write(&path, "nonsense").unwrap();
        let errors = build(Some(&mended)).unwrap_err();
        assert!(!errors.is_empty(), "{name}");
    }
}

#[test]
fn a_hosts_file_that_is_missing_stops_no_start_and_replaces_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    let specs = [inline("corp.example", &["www A 10.0.0.1"])];
    let build = |previous| Zones::build(&specs, Some(&path), SpecialUse::Ignored, previous);
    let zones = build(None).unwrap();
    assert_eq!(zones.errors().len(), 1);
    assert!(ask(&zones, "www.corp.example", RecordType::A).is_some());
    fs::write(&path, "10.0.0.9 host").unwrap();
    assert!(zones.changed());
    let zones = build(Some(&zones)).unwrap();
    assert!(ask(&zones, "host", RecordType::A).is_some() && zones.errors().is_empty());
    fs::remove_file(&path).unwrap();
    assert_eq!(build(Some(&zones)).unwrap_err().len(), 1);
}
