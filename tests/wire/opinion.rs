//! What two other implementations read in our octets.

use std::collections::BTreeSet;

use domain::{
    base::{
        Message, Record,
        iana::Rtype,
        message::Section,
        name::{ParsedName, ToName},
        rdata::ComposeRecordData,
    },
    rdata::AllRecordData,
};
use hickory_proto::{
    op,
    rr::Record as HickoryRecord,
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};
use tidegate::wire::RecordType;

use crate::generate::Line;

/// A message as somebody reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// QNAME in the letter case it came in, QTYPE, QCLASS.
    pub(crate) question: Option<(Vec<u8>, u16, u16)>,
    /// Without OPT.
    pub(crate) lines: Vec<Line>,
    pub(crate) rcode: u16,
    pub(crate) has_opt: bool,
}

impl Reading {
    pub(crate) fn set(&self) -> BTreeSet<Line> {
        self.lines.iter().cloned().collect()
    }
}

/// How much of RDATA is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Of every type that is known.
    All,
    /// Of the types that the wire room takes apart; the others are octets.
    Names,
}

/// What NLnet Labs' `domain` reads.
pub(crate) fn domain(octets: &[u8], depth: Depth) -> Result<Reading, String> {
    let message = Message::from_octets(octets).map_err(|error| error.to_string())?;
    let question = match message.header_counts().qdcount() {
        0 => None,
        _ => {
            let question = message.sole_question().map_err(|error| error.to_string())?;
            let name = question.qname().to_vec().as_slice().to_vec();
            Some((name, question.qtype().to_int(), question.qclass().to_int()))
        }
    };
    let mut reading =
        Reading { question, lines: Vec::new(), rcode: message.opt_rcode().to_int(), has_opt: message.opt().is_some() };
    for item in message.iter() {
        let (record, section) = item.map_err(|error| error.to_string())?;
        if record.rtype() == Rtype::OPT {
            continue;
        }
        let section = match section {
            Section::Answer => 0,
            Section::Authority => 1,
            _ => 2,
        };
        let rtype = record.rtype().to_int();
        let mut rdata = Vec::new();
        if depth == Depth::All || is_read_to_the_end(rtype) {
            let known: Record<ParsedName<_>, AllRecordData<_, ParsedName<_>>> =
                record.to_any_record().map_err(|error| format!("{rtype}: {error}"))?;
            known.data().compose_rdata(&mut rdata).unwrap();
        }
        let owner = record.owner().to_vec().as_slice().to_ascii_lowercase();
        let class = record.class().to_int();
        reading.lines.push((section, owner, rtype, class, record.ttl().as_secs(), rdata.to_ascii_lowercase()));
    }
    Ok(reading)
}

/// What hickory-proto reads.
pub(crate) fn hickory(octets: &[u8]) -> Result<Reading, String> {
    let message = op::Message::from_vec(octets).map_err(|error| error.to_string())?;
    let question = message.queries.first().map(|query| {
        let mut name = Vec::new();
        query.name.emit(&mut BinEncoder::new(&mut name)).unwrap();
        (name, query.query_type.into(), query.query_class.into())
    });
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let lines =
        sections.iter().enumerate().flat_map(|(section, records)| records.iter().map(move |r| line(section, r)));
    let rcode = u16::from(message.metadata.response_code);
    Ok(Reading { question, lines: lines.collect(), rcode, has_opt: message.edns.is_some() })
}

fn line(section: usize, record: &HickoryRecord) -> Line {
    let plain = |value: &dyn Fn(&mut BinEncoder<'_>)| {
        let mut octets = Vec::new();
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        value(&mut encoder);
        octets.to_ascii_lowercase()
    };
    let owner = plain(&|encoder| record.name.emit(encoder).unwrap());
    let rdata = plain(&|encoder| record.data.emit(encoder).unwrap());
    (section, owner, record.record_type().into(), record.dns_class.into(), record.ttl, rdata)
}

/// Whether the wire room reads every octet of this type's RDATA, so that everybody must be able to.
pub(crate) fn is_read_to_the_end(rtype: u16) -> bool {
    matches!(
        RecordType(rtype),
        RecordType::A
            | RecordType::AAAA
            | RecordType::NS
            | RecordType::CNAME
            | RecordType::SOA
            | RecordType::PTR
            | RecordType::MX
            | RecordType::SRV
            | RecordType::DNAME
            | RecordType::MINFO
            | RecordType::RP
            | RecordType::MB
            | RecordType::MD
            | RecordType::MF
            | RecordType::MG
            | RecordType::MR
    )
}
