//! Messages that are small to send and large to handle.

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    query::{Query, flag, rtype, wire_name},
    records::{Fault, Record, Reply},
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

const DNSKEY: u16 = 48;

/// Truncated over UDP, this over TCP.
fn large(upstream: &Upstream, name: &str, qtype: u16, reply: &Reply) {
    upstream.on_transport(name, qtype, Transport::Udp, Reply::default().truncated());
    upstream.on_transport(name, qtype, Transport::Tcp, reply.clone());
}

/// A response of this type whose records stand in `records`, whatever they are.
fn message(name: &str, qtype: u16, count: u16, records: &[u8]) -> Reply {
    let mut message = Vec::new();
    for word in [flag::QR | flag::RD | flag::RA, 1, count, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(Query::new(name, qtype).question_bytes());
    message.extend(records);
    Reply::default().but(Fault::Garbage(message))
}

/// A record of class IN with a TTL of 300 s.
fn record(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a short record").to_be_bytes();
    [owner, &rtype.to_be_bytes(), &[0, 1, 0, 0, 1, 44], &length, data].concat()
}

/// A pointer to this octet of the message.
fn pointer(to: usize) -> [u8; 2] {
    (0xC000 | u16::try_from(to).expect("within a pointer's reach")).to_be_bytes()
}

/// CVE-2024-8508 (Unbound): names that are compressed again and again took minutes. 4,000 records whose data points to
/// a name of 255 octets: unpacked they are a megabyte, and no message holds that.
fn a_megabyte_in_pointers(name: &str) -> (u16, Reply) {
    let first = 12 + Query::new(name, rtype::PTR).question_bytes().len();
    let label = [&[63][..], &[b'a'; 63]].concat();
    let long = [&label[..], &label, &label, &[61], &[b'b'; 61], &[0]].concat();
    let mut records = record(&pointer(12), rtype::PTR, &long);
    for _ in 1..4000 {
        records.extend(record(&pointer(12), rtype::PTR, &pointer(first + 12)));
    }
    (rtype::PTR, message(name, rtype::PTR, 4000, &records))
}

/// Each owner is a pointer to the owner before it: reading the last one takes as many hops as there are records.
fn pointers_to_pointers(name: &str) -> (u16, Reply) {
    let first = 12 + Query::a(name).question_bytes().len();
    let mut records = Vec::new();
    // A pointer reaches 16,383 octets.
    for number in 0..1000 {
        let owner = if number == 0 { 12 } else { first + 16 * (number - 1) };
        records.extend(record(&pointer(owner), rtype::A, &[10, 9, 0, 1]));
    }
    (rtype::A, message(name, rtype::A, 1000, &records))
}

/// KeyTrap, CVE-2023-50387 (and CVE-2023-50868): keys and signatures without number, each to be tried with each. A
/// forwarder that does not validate copies them.
fn keys_and_signatures(_: &str) -> (u16, Reply) {
    let key = |n: u16| Record::raw("@", DNSKEY, 300, [&[1, 1, 3, 13], &n.to_be_bytes()[..], &[7; 26]].concat());
    let signature = |n: u16| {
        let signed = [&DNSKEY.to_be_bytes()[..], &[13, 2, 0, 0, 1, 44], &[0x70; 4], &[0; 4], &n.to_be_bytes()].concat();
        Record::raw("@", 46, 300, [signed, wire_name("example."), vec![7; 32]].concat())
    };
    (DNSKEY, Reply::of((0..500).map(key).chain((0..500).map(signature))))
}

#[rstest]
#[case::pointers_to_one_long_name(a_megabyte_in_pointers)]
#[case::pointers_to_pointers(pointers_to_pointers)]
#[case::keys_and_signatures(keys_and_signatures)]
fn unpack_blow_up_takes_little_time_and_memory(#[case] reply: fn(&str) -> (u16, Reply)) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let client = tidegate.client();
    client.ask(&Query::a("warm.example."));
    let before = tidegate.resident_kib();
    for number in 10..40 {
        let name = format!("n{number}.example.");
        let (qtype, reply) = reply(&name);
        large(&upstream, &name, qtype, &reply);
        let answer = client.ask_over_tcp(&Query::new(&name, qtype).dnssec_ok());
        let whole = (answer.rcode(), answer.answers().is_empty());
        let failed = (ResponseCode::ServFail, true);
        assert!(whole == failed || whole == (ResponseCode::NoError, false), "{name}: {whole:?}");
        assert_eq!(client.ask(&Query::a("warm.example.")).address_texts(), ["10.0.0.1"], "others are answered");
    }
    let after = tidegate.resident_kib();
    assert!(after < before + 32 * 1024, "{before} KiB, then {after} KiB");
}

/// TXT as long as a message may be (tunnels and reflectors use them): whole over TCP, TC over UDP, never in part.
#[test]
fn huge_txt_is_whole_over_tcp_and_truncated_over_udp() {
    let upstream = Upstream::start();
    let string = [&[255][..], &[b'x'; 255]].concat();
    let reply = Reply::of([Record::raw("@", rtype::TXT, 300, string.repeat(250))]);
    large(&upstream, "big.example.", rtype::TXT, &reply);
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let query = Query::new("big.example.", rtype::TXT);
    for turn in ["fresh", "cached"] {
        let whole = tidegate.client().ask_over_tcp(&query);
        assert!(whole.answers().len() == 1 && whole.bytes.len() > 250 * 256, "{turn}");
        for query in [query.clone(), query.clone().edns(), query.clone().payload(65_535)] {
            let cut = tidegate.client().ask(&query);
            assert!(cut.truncated() && cut.answers().is_empty(), "{turn}");
            assert!(cut.bytes.len() <= 1232, "{turn}: {} octets", cut.bytes.len());
        }
    }
}
