//! Every address that a message hands to a client: A, AAAA, and the hints of SVCB and HTTPS (RFC 9460 7.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Class, Malformed, RecordType, name, read_u16,
    record::{Record, Records},
};

/// SvcParamKey ipv4hint (RFC 9460 14.3.2).
const IPV4_HINT: u16 = 4;
/// SvcParamKey ipv6hint.
const IPV6_HINT: u16 = 6;

/// Calls `see` with each address in the message, in every section, until one call gives a value.
pub fn find_address<T>(message: &[u8], mut see: impl FnMut(IpAddr) -> Option<T>) -> Result<Option<T>, Malformed> {
    for record in Records::of(message)? {
        let record = record?;
        if let Some(found) = find_in_record(message, &record, &mut see)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Calls `see` with each address in one record, until one call gives a value.
pub fn find_in_record<T>(
    message: &[u8],
    record: &Record,
    see: &mut impl FnMut(IpAddr) -> Option<T>,
) -> Result<Option<T>, Malformed> {
    if record.class != Class::IN {
        return Ok(None);
    }
    let rdata = record.rdata(message);
    match record.rtype {
        RecordType::A => Ok(see(ipv4(rdata)?)),
        RecordType::AAAA => Ok(see(ipv6(rdata)?)),
        RecordType::SVCB | RecordType::HTTPS => find_in_hints(rdata, see),
        _ => Ok(None),
    }
}

/// Whether the record is the signature (RFC 4034 3.1) of records that hold addresses.
pub fn is_signature_of_addresses(message: &[u8], record: &Record) -> bool {
    let covered = record.rdata(message).first_chunk::<2>().map(|octets| RecordType(u16::from_be_bytes(*octets)));
    record.rtype == RecordType::RRSIG
        && matches!(covered, Some(RecordType::A | RecordType::AAAA | RecordType::SVCB | RecordType::HTTPS))
}

fn ipv4(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let octets: [u8; 4] = octets.try_into().map_err(|_| Malformed::Rdata)?;
    Ok(Ipv4Addr::from(octets).into())
}

fn ipv6(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let octets: [u8; 16] = octets.try_into().map_err(|_| Malformed::Rdata)?;
    Ok(Ipv6Addr::from(octets).into())
}

/// SvcPriority, TargetName without compression, then keys, lengths and values (RFC 9460 2.2).
fn find_in_hints<T>(rdata: &[u8], see: &mut impl FnMut(IpAddr) -> Option<T>) -> Result<Option<T>, Malformed> {
    let mut at = name::skip_uncompressed(rdata, 2).map_err(|_| Malformed::Rdata)?;
    while at < rdata.len() {
        let key = read_u16(rdata, at).map_err(|_| Malformed::Rdata)?;
        let length = usize::from(read_u16(rdata, at + 2).map_err(|_| Malformed::Rdata)?);
        let value = rdata.get(at + 4..at + 4 + length).ok_or(Malformed::Rdata)?;
        at += 4 + length;
        let size = match key {
            IPV4_HINT => 4,
            IPV6_HINT => 16,
            _ => continue,
        };
        for octets in value.chunks(size) {
            let address = if size == 4 { ipv4(octets) } else { ipv6(octets) };
            if let Some(found) = see(address?) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Flags, Header, MessageId, Ttl, record::Section, writer::Writer};

    #[test]
    fn hints_are_addresses_too() {
        let rdata = b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x08\x0a\0\0\x01\x0a\0\0\x02\0\x06\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        let mut seen = Vec::new();
        find_in_hints(rdata, &mut |address| {
            seen.push(address.to_string());
            None::<()>
        })
        .unwrap();
        assert_eq!(seen, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(find_in_hints(&rdata[..14], &mut |_| Some(())), Err(Malformed::Rdata));
        assert_eq!(find_in_hints(b"\0\x01\0\0\x04\0\x03abc", &mut |_| Some(())), Err(Malformed::Rdata));
    }

    /// A record at the root with this RDATA, and where it stands in a message.
    fn record(rtype: RecordType, class: Class, rdata: &[u8]) -> (Vec<u8>, Record) {
        let mut writer = Writer::new(b"\0", rtype, Class::IN, 512);
        writer.plain(Section::Answer, b"\0", rtype, class, Ttl::ZERO, rdata).unwrap();
        let message = writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] });
        let record = Records::of(&message).unwrap().next().unwrap().unwrap();
        (message, record)
    }

    #[test]
    fn addresses_are_found_in_every_type_that_has_them() {
        let hint = b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01";
        let v6 = [&[0xfd][..], &[0; 14], &[1]].concat();
        for (rtype, class, rdata, expected) in [
            (RecordType::A, Class::IN, &[10, 0, 0, 1][..], Some("10.0.0.1")),
            (RecordType::AAAA, Class::IN, &v6, Some("fd00::1")),
            (RecordType::HTTPS, Class::IN, hint, Some("10.0.0.1")),
            (RecordType::SVCB, Class::IN, hint, Some("10.0.0.1")),
            (RecordType::TXT, Class::IN, &[3, 10, 0, 0], None),
            (RecordType::A, Class::CH, &[10, 0, 0, 1], None),
        ] {
            let (message, record) = record(rtype, class, rdata);
            let found = find_in_record(&message, &record, &mut |address| Some(address.to_string()));
            assert_eq!(found.unwrap().as_deref(), expected, "{rtype} {class:?}");
        }
    }

    #[test]
    fn only_a_signature_is_one() {
        for (rtype, covered, expected) in [
            (RecordType::RRSIG, RecordType::A, true),
            (RecordType::RRSIG, RecordType::HTTPS, true),
            (RecordType::RRSIG, RecordType::TXT, false),
            (RecordType::TXT, RecordType::A, false),
        ] {
            let (message, record) = record(rtype, Class::IN, &[&covered.0.to_be_bytes()[..], &[0; 17]].concat());
            assert_eq!(is_signature_of_addresses(&message, &record), expected, "{rtype} {covered}");
        }
    }
}
