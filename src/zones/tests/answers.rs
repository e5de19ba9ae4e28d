//! What one zone answers, section by section.

use super::*;
use crate::wire::record::Section;

const CORP: [&str; 23] = [
    "@ NS ns1",
    "@ MX 10 mail",
    "ns1 A 10.0.0.53",
    "ns1 AAAA fd00::53",
    "mail A 10.0.0.25",
    "outside MX 10 mail.elsewhere.",
    "anywhere MX 10 any.wild",
    "below MX 10 ns.sub",
    "*.wild A 10.0.0.7",
    "web HTTPS 1 .",
    "web A 10.0.0.80",
    "other HTTPS 1 web",
    "apex HTTPS 0 .",
    "apex A 10.0.0.81",
    "toweb CNAME web",
    "a.ent A 10.0.0.9",
    "old DNAME new",
    "a.new A 10.0.0.10",
    "sub NS ns.sub",
    "sub NS NS1",
    "sub NS ns.elsewhere.",
    "sub DS 1 8 2 0a",
    "ns.sub A 10.0.1.53",
];

/// AA, the response code, and section, owner and type of each record.
fn sections(zones: &Zones, name: &str, qtype: RecordType) -> String {
    let name = format!("{name}.corp.example").replace("@.", "");
    let LocalAnswer { message, rcode, .. } = ask(zones, &name, qtype).unwrap();
    let mut text = format!("{}{rcode}", if Header::read(&message).unwrap().flags.has(Flags::AA) { "AA " } else { "" });
    for record in Records::of(&message).unwrap() {
        let record = record.unwrap();
        let mut owner = NameBuf::new();
        owner.expand(&message, record.owner_at).unwrap();
        let owner = owner.to_name().to_string();
        let section = match record.section {
            Section::Answer => "answer",
            Section::Authority => "authority",
            Section::Additional => "additional",
        };
        text += &format!(", {section} {} {}", owner.replace("corp.example.", "").trim_end_matches('.'), record.rtype);
    }
    text
}

#[test]
fn each_section_has_what_belongs_there() {
    let zones = build(&[inline("corp.example", &CORP)], "", SpecialUse::Ignored);
    let referral = "NOERROR, authority sub NS, authority sub NS, authority sub NS, additional ns.sub A, \
                    additional ns1 A, additional ns1 AAAA";
    for (name, qtype, expected) in [
        // Addresses of what an answer points to, as far as they are this zone's.
        ("@", RecordType::NS, "AA NOERROR, answer  NS, additional ns1 A, additional ns1 AAAA"),
        ("@", RecordType::MX, "AA NOERROR, answer  MX, additional mail A"),
        ("outside", RecordType::MX, "AA NOERROR, answer outside MX"),
        ("anywhere", RecordType::MX, "AA NOERROR, answer anywhere MX, additional any.wild A"),
        ("below", RecordType::MX, "AA NOERROR, answer below MX"),
        ("web", RecordType::HTTPS, "AA NOERROR, answer web HTTPS, additional web A"),
        ("other", RecordType::HTTPS, "AA NOERROR, answer other HTTPS, additional web A"),
        // In alias mode the root is no service (RFC 9460 2.5.1).
        ("apex", RecordType::HTTPS, "AA NOERROR, answer apex HTTPS"),
        // Aliases, and what stands beside them.
        ("toweb", RecordType::A, "AA NOERROR, answer toweb CNAME, answer web A"),
        ("toweb", RecordType::CNAME, "AA NOERROR, answer toweb CNAME"),
        ("toweb", RecordType::NSEC, "AA NOERROR, authority  SOA"),
        ("toweb", RecordType::ANY, "AA NOERROR, answer toweb CNAME"),
        ("a.old", RecordType::A, "AA NOERROR, answer old DNAME, answer a.old CNAME, answer a.new A"),
        ("a.old", RecordType::CNAME, "AA NOERROR, answer old DNAME, answer a.old CNAME"),
        ("a.old", RecordType::ANY, "AA NOERROR, answer old DNAME, answer a.old CNAME"),
        ("b.old", RecordType::A, "AA NXDOMAIN, answer old DNAME, answer b.old CNAME, authority  SOA"),
        // Names that own nothing, and names that are not there.
        ("ent", RecordType::A, "AA NOERROR, authority  SOA"),
        ("ent", RecordType::ANY, "AA NOERROR, authority  SOA"),
        ("a.ent", RecordType::ANY, "AA NOERROR, answer a.ent A"),
        ("b.ent", RecordType::ANY, "AA NXDOMAIN, authority  SOA"),
        // A zone cut: all but its DS is the other zone's.
        ("sub", RecordType::A, referral),
        ("sub", RecordType::NS, referral),
        ("ns.sub", RecordType::A, referral),
        ("ns.sub", RecordType::DS, referral),
        ("sub", RecordType::DS, "AA NOERROR, answer sub DS"),
    ] {
        assert_eq!(sections(&zones, name, qtype), expected, "{name} {qtype}");
    }
}

#[test]
fn a_delegation_has_its_servers_and_such_addresses_as_the_zone_knows() {
    let zones = build(&[inline("corp.example", &CORP)], "", SpecialUse::Ignored);
    let [delegation] = &zones.delegations()[..] else { panic!("{:?}", zones.delegations()) };
    let name = |text: &str| text.parse::<Name>().unwrap();
    assert_eq!((&delegation.zone, &delegation.cut), (&name("corp.example"), &name("sub.corp.example")));
    let names: std::collections::BTreeSet<String> = delegation.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["ns.sub.corp.example.", "ns1.corp.example.", "ns.elsewhere."].map(str::to_owned).into());
    let servers: std::collections::BTreeSet<String> = delegation.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.1.53", "10.0.0.53", "fd00::53"].map(str::to_owned).into());
}
