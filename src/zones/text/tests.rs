use std::os::unix::fs::symlink;

use super::*;
use crate::zones::zone::Found;

const HEAD: &str = "@ 300 SOA ns hostmaster 1 2h 15m 2w 5m\n@ 300 NS ns\n";

fn read_file(path: &Path) -> Result<Zone, Vec<String>> {
    let place = RecordPlace { file: "tidegate.toml".into(), line: 7 };
    let zone = "corp.example".parse().unwrap();
    let spec = LocalSpec { zone, place, source: ZoneSource::File(path.to_owned()) };
    let folder = path.parent().unwrap().display().to_string();
    let shown = |errors: &[ZoneError]| errors.iter().map(|p| p.to_string().replace(&folder, "")).collect();
    read(&spec, &mut FileWatch::default()).map_err(|errors| shown(&errors))
}

fn errors(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone");
    fs::write(&path, text).unwrap();
    read_file(&path).err().unwrap_or_default()
}

fn inline(records: &[&str]) -> Result<Zone, Vec<String>> {
    let place = |line| RecordPlace { file: "tidegate.toml".into(), line };
    let records = (10..).zip(records).map(|(line, text)| InlineRecord { text: (*text).to_owned(), place: place(line) });
    let zone = "edge.example".parse().unwrap();
    let spec = LocalSpec { zone, place: place(9), source: ZoneSource::Records(records.collect()) };
    let zone = read(&spec, &mut FileWatch::default());
    zone.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn ttl(zone: &Zone, name: &str, rtype: RecordType) -> Option<u32> {
    let name: Name = name.parse().unwrap();
    let Found::Exact(node) = zone.find(name.as_wire()) else { return None };
    node.set(rtype).map(|set| set.ttl)
}

#[test]
fn every_error_names_file_line_and_record() {
    let text = "\
@ 300 SOA ns hostmaster 1 2h 15m 2w 5m
a 300 A 10.0.0.999
b 300 CNAME x
b 300 A 10.0.0.1
c 300 CNAME x
c 300 CNAME y
c 300 CNAME X
www.other. 300 A 10.0.0.1
@ 300 SOA ns hostmaster 2 2h 15m 2w 5m
sub 300 SOA ns hostmaster 2 2h 15m 2w 5m
$GENERATE 255-256 h$ A 10.0.0.$
$FOO
*.w 300 NS ns
d 300 NONSENSE 1
e 300 CH A 10.0.0.1
f 300 RRSIG A 5
g 300 MX mail
h 5x A 10.0.0.1
i..j 300 A 10.0.0.1
k 300
l 300 TXT \"open
m 300 A 10.0.0.1 10.0.0.2
n 300 TYPE1 \\# 3 0A0000
";
    let expected = [
        "/zone:2: A: \"10.0.0.999\" is not an IPv4 address, in \"a 300 A 10.0.0.999\"",
        "/zone:4: b.corp.example. has a CNAME and other data; a CNAME stands alone (RFC 1034 3.6.2), in \"b 300 A 10.0.0.1\"",
        "/zone:6: c.corp.example. has more than one CNAME, in \"c 300 CNAME y\"",
        "/zone:8: www.other. is not in the zone corp.example., in \"www.other. 300 A 10.0.0.1\"",
        "/zone:9: a second SOA; the first is at /zone:1, in \"@ 300 SOA ns hostmaster 2 2h 15m 2w 5m\"",
        "/zone:10: a SOA stands at the zone's own name, corp.example., alone, in \"sub 300 SOA ns hostmaster 2 2h 15m 2w 5m\"",
        "/zone:11: A: \"10.0.0.256\" is not an IPv4 address, in \"$GENERATE 255-256 h$ A 10.0.0.$\"",
        "/zone:12: $FOO is not supported; there are $ORIGIN, $TTL, $INCLUDE and $GENERATE, in \"$FOO\"",
        "/zone:13: a wildcard cannot have NS (RFC 4592 4), in \"*.w 300 NS ns\"",
        "/zone:14: \"NONSENSE\" is not a record type; unknown types are written TYPE123 \\# LENGTH HEX (RFC 3597), in \"d 300 NONSENSE 1\"",
        "/zone:15: class CH is not supported, zones are of class IN, in \"e 300 CH A 10.0.0.1\"",
        "/zone:16: RRSIG is not supported; zones are served unsigned, take the file from before signing, in \"f 300 RRSIG A 5\"",
        "/zone:17: MX: \"mail\" is not a number up to 65535, in \"g 300 MX mail\"",
        "/zone:18: \"5x\" is not a TTL: seconds up to 2147483647, or like 1h30m, in \"h 5x A 10.0.0.1\"",
        "/zone:19: \"i..j\" is not a name: it has an empty label, in \"i..j 300 A 10.0.0.1\"",
        "/zone:20: no record type, in \"k 300\"",
        "/zone:21: quotes are opened here and not closed",
        "/zone:22: A: \"10.0.0.2\" is one word too many, in \"m 300 A 10.0.0.1 10.0.0.2\"",
        "/zone:23: A: the octets do not fit the type, in \"n 300 TYPE1 \\# 3 0A0000\"",
    ];
    let found = errors(text);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_file_without_apex_records_or_without_a_file_says_so() {
    assert_eq!(
        errors("a 300 A 10.0.0.1"),
        ["SOA", "NS"].map(|rtype| { format!("/zone: zone corp.example. has no {rtype} at its own name") })
    );
    let missing = read_file(Path::new("/nonexistent/zone")).unwrap_err();
    assert!(missing[0].starts_with("/zone: cannot be read: no such file"), "{missing:?}");
    assert!(missing[0].ends_with("in \"zone corp.example., tidegate.toml:7\""), "{missing:?}");
}

#[test]
fn ttls_come_from_the_record_the_directive_the_record_before_or_the_soa() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone");
    let text = "@ SOA ns h 1 2 3 4 77\n NS ns\na 60 A 10.0.0.1\nb A 10.0.0.1\n$TTL 1h\nc A 10.0.0.1\nd 5 A 10.0.0.1\n\
                e A 10.0.0.1\nf 30 A 10.0.0.1\nf 20 A 10.0.0.2\n";
    fs::write(&path, text).unwrap();
    let zone = read_file(&path).unwrap();
    assert_eq!(ttl(&zone, "corp.example", RecordType::SOA), Some(77), "its own MINIMUM");
    assert_eq!(ttl(&zone, "corp.example", RecordType::NS), Some(77));
    for (name, expected) in [("a", 60), ("b", 60), ("c", 3600), ("d", 5), ("e", 3600), ("f", 20)] {
        assert_eq!(ttl(&zone, &format!("{name}.corp.example"), RecordType::A), Some(expected), "{name}");
    }
    assert!(errors("a A 10.0.0.1\n")[0].contains("no TTL here or before"));
}

#[test]
fn included_files_lie_in_the_folder_and_change_nothing_outside_them() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("zones");
    fs::create_dir_all(inside.join("sub")).unwrap();
    let path = inside.join("zone");
    fs::write(folder.path().join("outside"), "x 300 A 10.0.0.1\n").unwrap();
    fs::write(inside.join("sub/part"), "b 300 A 10.0.0.1\n$ORIGIN elsewhere.\n").unwrap();
    symlink(folder.path().join("outside"), inside.join("link-out")).unwrap();
    symlink(inside.join("sub/part"), inside.join("link-in")).unwrap();
    let body = "$INCLUDE sub/part in ; with an origin\n$INCLUDE link-in\n 300 TXT after\nc 300 A 10.0.0.2\n";
    fs::write(&path, format!("{HEAD}a 300 A 10.0.0.1\n{body}")).unwrap();
    let zone = read_file(&path).unwrap();
    assert_eq!(ttl(&zone, "b.in.corp.example", RecordType::A), Some(300));
    assert_eq!(ttl(&zone, "b.corp.example", RecordType::A), Some(300));
    assert_eq!(ttl(&zone, "a.corp.example", RecordType::TXT), Some(300), "the owner comes back");
    assert_eq!(ttl(&zone, "c.corp.example", RecordType::A), Some(300), "the origin comes back");
    let absolute = folder.path().join("outside").display().to_string();
    for (file, kind) in [
        ("../outside", "is outside the zone file's folder"),
        ("sub/../../outside", "is outside the zone file's folder"),
        ("link-out", "is outside the zone file's folder"),
        (&absolute, "is outside the zone file's folder"),
        ("none", "cannot be read"),
        ("sub", "cannot be read"),
        ("zone", "nested deeper"),
    ] {
        fs::write(&path, format!("{HEAD}$INCLUDE {file}\n")).unwrap();
        let errors = read_file(&path).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(kind) && errors[0].contains("/zone:3:"), "{file}: {errors:?}");
    }
}

#[test]
fn inline_records_get_soa_ns_and_ttl_where_they_lack_them() {
    let zone = inline(&["app 60 A 10.1.2.3", "files CNAME bucket.example.", "@ MX 10 app", "$INCLUDE x"]);
    assert_eq!(zone.unwrap_err(), ["tidegate.toml:13: $INCLUDE works in zone files only, in \"$INCLUDE x\""]);
    let zone = inline(&["app 60 A 10.1.2.3", "files CNAME bucket.example.", "@ MX 10 app"]).unwrap();
    for (name, rtype, expected) in [
        ("app.edge.example", RecordType::A, 60),
        ("files.edge.example", RecordType::CNAME, INLINE_TTL),
        ("edge.example", RecordType::MX, INLINE_TTL),
        ("edge.example", RecordType::SOA, INLINE_TTL),
        ("edge.example", RecordType::NS, INLINE_TTL),
    ] {
        assert_eq!(ttl(&zone, name, rtype), Some(expected), "{name} {rtype}");
    }
    let alias = inline(&["@ CNAME bucket.example."]).unwrap();
    assert_eq!(ttl(&alias, "edge.example", RecordType::CNAME), Some(INLINE_TTL), "an override may be an alias");
    assert_eq!(ttl(&alias, "edge.example", RecordType::NS), None);
}

#[test]
fn a_record_set_larger_than_a_message_is_refused() {
    let text: String = (0..300).map(|n| format!("a 300 TXT \"{n}{}\"\n", "x".repeat(240))).collect();
    let found = errors(&format!("{HEAD}{text}"));
    assert!(found.len() == 1 && found[0].contains("more records than a DNS message holds"), "{found:?}");
}
