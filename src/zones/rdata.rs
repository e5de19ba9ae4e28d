//! Where names stand in RDATA, which is kept as uncompressed wire bytes.

use crate::wire::RecordType;

/// For a type whose names may be compressed (RFC 1035's own, RFC 3597 4): the octets before the names, and how many
/// names follow.
pub(super) const fn compressible(rtype: RecordType) -> Option<(usize, usize)> {
    match rtype {
        RecordType::NS | RecordType::CNAME | RecordType::PTR | RecordType::MB | RecordType::MG | RecordType::MR => {
            Some((0, 1))
        }
        RecordType::MX => Some((2, 1)),
        RecordType::SOA | RecordType::MINFO => Some((0, 2)),
        _ => None,
    }
}

/// The name that a record points to and whose addresses are worth adding.
pub(super) fn target(rtype: RecordType, rdata: &[u8]) -> Option<&[u8]> {
    let at = match rtype {
        RecordType::NS => 0,
        RecordType::MX | RecordType::KX | RecordType::AFSDB | RecordType::RT | RecordType::SVCB | RecordType::HTTPS => {
            2
        }
        RecordType::SRV => 6,
        _ => return None,
    };
    let name = rdata.get(at..)?;
    name.get(..name_length(name))
}

/// Whether a record is an SVCB or HTTPS in service mode: its priority is not zero (RFC 9460 2.4.1).
pub(super) fn is_service(rtype: RecordType, rdata: &[u8]) -> bool {
    matches!(rtype, RecordType::SVCB | RecordType::HTTPS) && rdata.first_chunk().is_some_and(|head| *head != [0, 0])
}

/// The length of the uncompressed name at the start of `bytes`, or what there is of it.
pub(super) fn name_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&length) = bytes.get(at) {
        at += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    at.min(bytes.len())
}

/// The MINIMUM field of a SOA's RDATA, its last four octets.
pub(super) fn soa_minimum(rdata: &[u8]) -> u32 {
    rdata.last_chunk().map_or(0, |field| u32::from_be_bytes(*field))
}

/// Whether two records of a type are one: letter case does not count in names (RFC 4343, RFC 4034 6.2).
pub(super) fn same(rtype: RecordType, one: &[u8], other: &[u8]) -> bool {
    let at = match (compressible(rtype), target(rtype, one)) {
        (Some((prefix, _)), _) => prefix,
        (None, Some(name)) => name.as_ptr().addr() - one.as_ptr().addr(),
        (None, None) => return one == other,
    };
    if one.len() != other.len() || one.len() < at {
        return false;
    }
    let behind = at + name_length(&one[at..]);
    one[..at] == other[..at]
        && one[at..behind].eq_ignore_ascii_case(&other[at..behind])
        && one[behind..] == other[behind..]
}
