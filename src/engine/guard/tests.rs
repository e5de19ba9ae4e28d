use super::*;
use crate::{
    config::Plan,
    wire::{
        Class, Flags, Header, MessageId, RecordType, Ttl,
        record::{Records, Section},
        writer::Writer,
    },
};

fn guard(rule: &str) -> Guard {
    guard_of(&["example"], rule)
}

fn guard_of(zones: &[&str], rule: &str) -> Guard {
    let text = format!("[upstream.x]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = {zones:?}\nto = \"x\"\n{rule}");
    Guard::of(&Plan::from_text("t.toml", &text).unwrap().live.rules[0])
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn query(name: &str) -> UpstreamQuery {
    UpstreamQuery { name: name.parse().unwrap(), qtype: RecordType::A, qclass: Class::IN, do_bit: true, cd: false }
}

/// A response with these addresses and a signature over them.
fn signed(query: &UpstreamQuery, addresses: &[&str]) -> Response {
    let name = query.name.as_wire();
    let mut writer = Writer::new(name, query.qtype, query.qclass, 512);
    let mut add = |rtype, rdata: &[u8]| {
        writer.plain(Section::Answer, name, rtype, Class::IN, Ttl::from_wire(60), rdata).unwrap();
    };
    for text in addresses {
        let IpAddr::V4(address) = address(text) else { panic!("an A record holds {text}") };
        add(RecordType::A, &address.octets());
    }
    // Type covered A, algorithm, two labels, three times, key tag; the signer is the root.
    let times = [0; 12];
    add(RecordType::RRSIG, &[&[0, 1, 8, 2, 0, 0, 0, 60][..], &times[..8], &[0, 7, 0], &[5; 16]].concat());
    let header = Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] };
    Response::ours(&writer.finish(header), query).unwrap()
}

/// The verdict in a word, the address it is about, and the types of what is left.
fn judged(guard: &Guard, name: &str, addresses: &[&str]) -> (&'static str, Option<IpAddr>, Vec<RecordType>) {
    let query = query(name);
    match guard.judge(&query, &signed(&query, addresses)).unwrap() {
        GuardVerdict::Pass => ("pass", None, Vec::new()),
        GuardVerdict::Log(address) => ("log", Some(address), Vec::new()),
        GuardVerdict::Refuse(address) => ("refuse", Some(address), Vec::new()),
        GuardVerdict::Strip(address, rest) => {
            let types = Records::of(rest.message()).unwrap().map(|record| record.unwrap().rtype).collect();
            ("strip", Some(address), types)
        }
    }
}

#[test]
fn an_address_outside_is_treated_as_the_rule_says() {
    let mixed = ["10.1.1.1", "203.0.113.1", "10.1.1.2"];
    for (word, action, left) in [
        ("log", OnPublic::Log, vec![]),
        ("strip", OnPublic::Strip, vec![RecordType::A; 2]),
        ("refuse", OnPublic::Refuse, vec![]),
    ] {
        let guard = guard(&format!("private = [\"10.0.0.0/8\"]\non_public = \"{word}\""));
        let expected = (word, Some(address("203.0.113.1")), left);
        assert_eq!(judged(&guard, "www.example", &mixed), expected, "without the signature that covered all of them");
        assert_eq!(judged(&guard, "www.example", &mixed[..1]).0, "pass");
        assert_eq!(guard.stops(address("203.0.113.1")), word != "log");
        assert!(!guard.stops(address("10.1.1.1")));
        assert_eq!(
            (guard.reaches(address("10.1.1.1")), guard.reaches(address("203.0.113.1"))),
            (Some(true), Some(false))
        );
        assert!(guard.has_networks() && !guard.refuses_rebinding());
        assert_eq!(guard.on_public(), Some(action));
    }
}

#[test]
fn a_rule_without_networks_lets_everything_pass() {
    let guard = guard("");
    assert_eq!(judged(&guard, "www.example", &["203.0.113.1", "10.0.0.1"]).0, "pass");
    assert_eq!((guard.reaches(address("10.1.1.1")), guard.on_public()), (None, None));
    assert!(!guard.has_networks() && !guard.stops(address("203.0.113.1")) && !guard.is_rebinding(address("10.0.0.1")));
}

#[test]
fn names_in_except_are_spared_and_no_others() {
    let rule =
        "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"\nexcept = [\"free.example\", \"elsewhere\", \"test\"]";
    let guard = guard_of(&["example", "a.test"], rule);
    for (name, word) in [
        ("free.example", "pass"),
        ("www.free.example", "pass"),
        ("www.example", "refuse"),
        ("notfree.example", "refuse"),
        ("example", "refuse"),
        // Above a zone of the rule or beside all of them, it spares nothing.
        ("www.a.test", "refuse"),
        ("www.elsewhere", "refuse"),
    ] {
        assert_eq!(judged(&guard, name, &["203.0.113.1"]).0, word, "{name}");
    }
}

#[test]
fn rebinding_is_refused_also_where_an_address_is_translated_on_its_way() {
    let guard = guard("rebind = \"refuse\"");
    assert!(guard.refuses_rebinding() && !guard.has_networks());
    let (private, public) = (
        [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.31.0.1",
            "192.168.0.1",
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "64:ff9b:1::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::1",
            "::10.0.0.1",
        ],
        [
            "11.0.0.1",
            "203.0.113.1",
            "2001:db8::1",
            "64:ff9b::203.0.113.1",
            "2002:cb00:7101::1",
            "::203.0.113.1",
            // One bit beside the prefixes whose last octets are an IPv4 address.
            "64:ff9b:0:1::10.0.0.1",
            "64:ff9b::1:0:0:10.0.0.1",
            "64:ff9b::1:0:10.0.0.1",
            "64:ff9b::1:10.0.0.1",
            "0:0:1::10.0.0.1",
            "::1:0:0:10.0.0.1",
            "::1:0:10.0.0.1",
            "::1:10.0.0.1",
            "2003:a00:1::1",
        ],
    );
    for (texts, is_private) in [(&private[..], true), (&public[..], false)] {
        for text in texts {
            assert_eq!(guard.is_rebinding(address(text)), is_private, "{text}");
            assert_eq!(guard.stops(address(text)), is_private, "{text}");
        }
    }
    assert_eq!(judged(&guard, "www.example", &["203.0.113.1"]).0, "pass");
    assert_eq!(judged(&guard, "www.example", &["203.0.113.1", "10.0.0.1"]).0, "refuse");
}

#[test]
fn the_address_that_is_refused_whatever_becomes_of_others_decides() {
    let guard = guard("private = [\"203.0.113.0/24\"]\non_public = \"log\"\nrebind = \"refuse\"");
    assert_eq!(judged(&guard, "www.example", &["198.51.100.1"]), ("log", Some(address("198.51.100.1")), vec![]));
    let both = judged(&guard, "www.example", &["198.51.100.1", "10.0.0.1"]);
    assert_eq!(both, ("refuse", Some(address("10.0.0.1")), vec![]));
    assert_eq!(judged(&guard, "www.example", &["203.0.113.1"]).0, "pass");
}
