//! Checks of a whole zone, once its records are read: SOA and NS at the apex, no record set larger than a message.

use std::path::Path;

use super::{
    build::{Builder, Kinds},
    error::{RecordPlace, ZoneError, ZoneErrorKind},
    special,
    text::INLINE_TTL,
    zone::Zone,
};
use crate::wire::{MAX_MESSAGE, RecordType, name::MAX_NAME};

/// The octets of a message that answer records cannot use: header, question and a SOA.
const RESERVED: usize = 12 + MAX_NAME + 4 + 3 * MAX_NAME;

/// Adds SOA and NS records if they are missing, with the zone's own name as the server (RFC 6303 3).
pub(super) fn make(zone: &mut Builder) -> Result<(), ZoneErrorKind> {
    let apex = zone.apex().clone();
    if !zone.apex_has(Kinds::SOA) {
        let soa = special::soa(&apex, special::NOBODY, [1, 3600, 1200, 604_800, INLINE_TTL]);
        zone.make(RecordType::SOA, INLINE_TTL, &soa)?;
    }
    if !zone.apex_has(Kinds::NS) && !zone.apex_has(Kinds::CNAME) {
        zone.make(RecordType::NS, INLINE_TTL, apex.as_wire())?;
    }
    Ok(())
}

/// Reports a zone file without SOA or NS.
pub(super) fn demand(zone: &Builder, path: &Path, errors: &mut Vec<ZoneError>) {
    for (rtype, kind) in [(RecordType::SOA, Kinds::SOA), (RecordType::NS, Kinds::NS)] {
        if !zone.apex_has(kind) {
            let place = RecordPlace { file: path.to_owned(), line: 0 };
            let kind = ZoneErrorKind::Missing { zone: zone.apex().clone(), rtype };
            errors.push(ZoneError { place, kind, record: String::new() });
        }
    }
}

/// Reports record sets that are larger than a message.
pub(super) fn bound(zone: &Zone, place: &RecordPlace, errors: &mut Vec<ZoneError>) {
    for (owner, node) in zone.nodes() {
        for set in node.sets() {
            let octets: usize = set.rdata().map(|rdata| 12 + rdata.len()).sum();
            if octets + RESERVED > MAX_MESSAGE
                && let Some(owner) = zone.whole(owner)
            {
                let kind = ZoneErrorKind::TooMany { owner, rtype: set.rtype };
                errors.push(ZoneError { place: place.clone(), kind, record: String::new() });
            }
        }
    }
}
