//! Other implementations as judges: the queries that we take, `domain` and hickory-proto read as we do; the answers that we
//! write anew, both can read, with the same records.
#![no_main]

use domain::base::{Message, Rtype};
use hickory_proto::op;
use libfuzzer_sys::fuzz_target;
use tidegate::wire::{Class, MessageId, Name, Question, RecordType, Response, UpstreamQuery};

/// Types whose RDATA we read to its end: what others make of the rest is theirs.
const READ: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::SOA,
    RecordType::PTR,
    RecordType::MX,
    RecordType::DNAME,
];

fuzz_target!(|message: &[u8]| {
    if let Ok(question) = Question::read(message) {
        let other = Message::from_octets(message).expect("it has a header");
        let asked = other.sole_question().expect("it has one question");
        assert_eq!(asked.qname().to_vec().as_slice(), question.name());
        assert_eq!((asked.qtype().to_int(), asked.qclass().to_int()), (question.qtype.0, question.qclass.0));
        // Less than 512 counts as 512 (RFC 6891 6.2.3).
        let opt = other.opt().map(|opt| (opt.udp_payload_size().max(512), opt.dnssec_ok()));
        assert_eq!(opt, question.edns.as_ref().map(|edns| (edns.payload, edns.do_bit)));
        if let Ok(other) = op::Message::from_vec(message) {
            let asked = &other.queries[0];
            assert_eq!(u16::from(asked.query_type), question.qtype.0);
            assert_eq!(other.metadata.checking_disabled, question.cd());
        }
    }
    let Ok(other) = Message::from_octets(message) else { return };
    let Ok(asked) = other.sole_question() else { return };
    let Ok(name) = Name::from_wire(asked.qname().to_vec().as_slice()) else { return };
    let (qtype, qclass) = (RecordType(asked.qtype().to_int()), Class(asked.qclass().to_int()));
    let query = UpstreamQuery { name, qtype, qclass, do_bit: true, cd: false };
    let Ok(response) = Response::read(message, &query, MessageId(other.header().id()), None) else { return };
    if !response.is_answer() {
        return;
    }
    let ours = Message::from_octets(response.message()).expect("it has a header");
    let mut plain = true;
    let mut count = 0;
    for record in ours.iter() {
        let (record, _) = record.expect("domain reads every record");
        count += 1;
        plain &= READ.contains(&RecordType(record.rtype().to_int())) && record.rtype() != Rtype::OPT;
    }
    assert_eq!(count, response.ttl_offsets().len(), "a TTL a record");
    match op::Message::from_vec(response.message()) {
        Ok(read) => assert_eq!(read.answers.len() + read.authorities.len() + read.additionals.len(), count),
        Err(error) => assert!(!plain, "hickory-proto: {error}"),
    }
});

use domain::base::name::ToName as _;
