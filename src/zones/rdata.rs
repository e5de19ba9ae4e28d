//! Finds names in RDATA, which is stored as uncompressed wire bytes.

use std::cmp::Ordering;

use crate::wire::RecordType;

/// The name that a record points to, if its addresses belong in the additional section.
pub(super) fn target(rtype: RecordType, rdata: &[u8]) -> Option<&[u8]> {
    let name = rdata.get(target_at(rtype)?..)?;
    name.get(..name_length(name))
}

const fn target_at(rtype: RecordType) -> Option<usize> {
    match rtype {
        RecordType::NS => Some(0),
        RecordType::MX | RecordType::KX | RecordType::AFSDB | RecordType::RT | RecordType::SVCB | RecordType::HTTPS => {
            Some(2)
        }
        RecordType::SRV => Some(6),
        _ => None,
    }
}

/// Whether a record is an SVCB or HTTPS in service mode: its priority is not zero (RFC 9460 2.4.1).
pub(super) fn is_service(rtype: RecordType, rdata: &[u8]) -> bool {
    matches!(rtype, RecordType::SVCB | RecordType::HTTPS) && rdata.first_chunk().is_some_and(|head| *head != [0, 0])
}

/// The length of the uncompressed name at the start of `bytes`, at most that of `bytes`.
fn name_length(bytes: &[u8]) -> usize {
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

/// The offset of the name in RDATA whose letter case does not count.
const fn name_at(rtype: RecordType) -> Option<usize> {
    use RecordType as T;
    match rtype {
        T::CNAME | T::DNAME | T::PTR | T::SOA | T::MB | T::MG | T::MR | T::MINFO => Some(0),
        _ => target_at(rtype),
    }
}

/// The order of two records of a type; equal records are duplicates. Letter case of names does not count (RFC 4343, RFC
/// 4034 6.2).
pub(super) fn order(rtype: RecordType, one: &[u8], other: &[u8]) -> Ordering {
    let Some(at) = name_at(rtype) else { return one.cmp(other) };
    let parts = |rdata: &'_ [u8]| -> [usize; 2] {
        let at = at.min(rdata.len());
        [at, at + name_length(&rdata[at..])]
    };
    let ([at, end], [other_at, other_end]) = (parts(one), parts(other));
    let lower = |name: &[u8]| name.to_ascii_lowercase();
    let names = || lower(&one[at..end]).cmp(&lower(&other[other_at..other_end]));
    one[..at].cmp(&other[..other_at]).then_with(names).then_with(|| one[end..].cmp(&other[other_end..]))
}

/// Whether two records of a type are duplicates.
pub(super) fn same(rtype: RecordType, one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && order(rtype, one, other) == Ordering::Equal
}
