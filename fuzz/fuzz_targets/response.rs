//! An upstream's datagram: what is accepted is written anew once and for all, and can be cut, joined and searched.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::{
    Class, MessageId, RecordType, Response, Ttl, UpstreamQuery, addresses::find_address, record::Records, splice,
};

/// Id, flags, counts and question come right, so that what stands behind them is read.
const HEAD: &[u8] = b"\0\x07\x81\x80\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";

/// What is asked for: the types that are treated apart, and one that is not.
const TYPES: [RecordType; 6] =
    [RecordType::A, RecordType::CNAME, RecordType::DNAME, RecordType::ANY, RecordType::RRSIG, RecordType::SRV];

fuzz_target!(|input: (u8, [u8; 3], u16, &[u8])| {
    let (rcode, counts, number, rest) = input;
    let name = "www.example".parse().expect("it is a name");
    let qtype = TYPES[usize::from(number) % TYPES.len()];
    let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: false, cd: false };
    let mut message = HEAD.to_vec();
    message[3] |= rcode & 3;
    for (at, count) in [7, 9, 11].into_iter().zip(counts) {
        message[at] = count;
    }
    let type_at = HEAD.len() - 4;
    message[type_at..type_at + 2].copy_from_slice(&qtype.0.to_be_bytes());
    message.extend_from_slice(rest);
    let Ok(response) = Response::read(&message, &query, MessageId(7), None) else { return };
    if !response.is_answer() {
        // It has a body that can be sent all the same.
        assert!(Records::of(response.message()).expect("it was written here").all(|record| record.is_ok()));
        return;
    }
    let again = Response::ours(response.message(), &query).expect("it was written here");
    // The target of a CNAME that was synthesized for a DNAME is compressed only when it is read again.
    assert!(again.message().len() <= response.message().len());
    let settled = Response::ours(again.message(), &query).expect("it was written here");
    assert_eq!(settled.message(), again.message());
    let places: Vec<u16> = Records::of(response.message())
        .expect("it was written here")
        .map(|record| u16::try_from(record.expect("it was written here").ttl_at).expect("it is a message"))
        .collect();
    assert_eq!(places, response.ttl_offsets());
    let _ = find_address(response.message(), |_| None::<()>);
    // Not at each: a chain of 64 names takes a second under instrumentation.
    let length = response.chain().len();
    for cut in [0, length / 2, length] {
        let _ = splice::join(&response, cut, &response, &query);
    }
    let _ = splice::retain(&response, &query, |_, record| record.rtype == RecordType::CNAME);
    again.clone().map_ttls(|ttl| ttl.clamp(Ttl::from_wire(5), Ttl::from_wire(60)));
});
