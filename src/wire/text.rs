//! Records as text, the way a zone file has them (RFC 1035 5.1, RFC 3597 5).

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    NameBuf, RecordType,
    name::DisplayWire,
    rdata::{self, RdataField},
    record::Record,
};

/// A record of a message: owner, TTL, class, type and RDATA, with tabs between them.
pub fn line(message: &[u8], record: &Record) -> String {
    let mut owner = NameBuf::new();
    let owner = match owner.expand(message, record.owner_at) {
        Ok(_) => DisplayWire(owner.as_wire()).to_string(),
        Err(_) => "?".to_owned(),
    };
    format!("{owner}\t{}\t{}\t{}\t{}", record.raw_ttl, record.class, record.rtype, rdata(message, record))
}

/// RDATA of a record of a message: names, addresses, strings and numbers where the shape is known, RFC 3597 otherwise.
pub fn rdata(message: &[u8], record: &Record) -> String {
    let octets = record.rdata(message);
    match record.rtype {
        RecordType::A => {
            if let Some(octets) = octets.first_chunk::<4>().filter(|_| octets.len() == 4) {
                return Ipv4Addr::from(*octets).to_string();
            }
        }
        RecordType::AAAA => {
            if let Some(octets) = octets.first_chunk::<16>().filter(|_| octets.len() == 16) {
                return Ipv6Addr::from(*octets).to_string();
            }
        }
        RecordType::TXT | RecordType::HINFO => return strings(octets),
        _ => {}
    }
    fields(message, record).unwrap_or_else(|| generic(octets))
}

fn fields(message: &[u8], record: &Record) -> Option<String> {
    let mut at = record.rdata_at;
    let mut texts = Vec::new();
    for field in rdata::fields(record.rtype) {
        match field {
            RdataField::Name(_) => {
                let mut name = NameBuf::new();
                at = name.expand(message, at).ok()?;
                texts.push(DisplayWire(name.as_wire()).to_string());
            }
            RdataField::Octets(length) => {
                let octets = message.get(at..at + length)?;
                let size = if record.rtype == RecordType::SOA { 4 } else { 2 };
                texts.extend(octets.chunks(size).map(number));
                at += length;
            }
            RdataField::Text | RdataField::Rest => return None,
        }
    }
    Some(texts.join(" "))
}

fn number(octets: &[u8]) -> String {
    octets.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet)).to_string()
}

fn strings(octets: &[u8]) -> String {
    let mut rest = octets;
    let mut texts = Vec::new();
    while let Some((&length, behind)) = rest.split_first()
        && let Some((text, behind)) = behind.split_at_checked(usize::from(length))
    {
        texts.push(format!("\"{}\"", text.escape_ascii()));
        rest = behind;
    }
    texts.join(" ")
}

fn generic(octets: &[u8]) -> String {
    octets.iter().fold(format!("\\# {} ", octets.len()), |mut text, octet| {
        // Writing to a string does not fail.
        write!(text, "{octet:02x}").ok();
        text
    })
}
