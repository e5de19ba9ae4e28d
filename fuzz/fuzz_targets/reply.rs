//! A client's query met by a stored answer: the reply fits, and repeats id and question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::{
    Class, Ede, EdeCode, Flags, Header, MessageId, Name, Question, Response, Ttl, UpstreamQuery,
    header::HEADER,
    record::Section,
    reply::{self, Space},
    writer::Writer,
};

fuzz_target!(|input: (u16, u8, u16, &[u8])| {
    let (size, records, length, octets) = input;
    let Ok(question) = Question::read(octets) else { return };
    let name = Name::from_wire(&question.name().to_ascii_lowercase()).expect("a question has a name");
    let query = UpstreamQuery { name, qtype: question.qtype, qclass: Class::IN, do_bit: false, cd: false };
    let query = UpstreamQuery { qclass: question.qclass, ..query };
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let rdata = vec![7; usize::from(length % 300)];
    for _ in 0..records {
        let (name, ttl) = (query.name.as_wire(), Ttl::from_wire(60));
        if writer.plain(Section::Answer, name, query.qtype, query.qclass, ttl, &rdata).is_err() {
            return;
        }
    }
    let stored = writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR | Flags::RA), counts: [0; 4] });
    let Ok(response) = Response::ours(&stored, &query) else { return };
    let message = response.message();
    let mut out = vec![0; usize::from(size).max(512)];
    if message.is_empty() || message.len() > out.len() {
        return;
    }
    out[..message.len()].copy_from_slice(message);
    let space = Space::datagram(question.edns.as_ref(), 1232);
    let ede = Some(Ede::new(EdeCode::StaleAnswer, "no server answers"));
    let end = reply::finish(&mut out, message.len(), &question, ede, space);
    assert!(end <= space.limit && end <= out.len());
    assert_eq!(out[..2], octets[..2]);
    assert_eq!(&out[HEADER..HEADER + question.echo.section.len()], question.echo.section);
});
