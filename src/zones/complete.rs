//! What a zone must be as a whole, once its records are read: SOA and NS at the apex, no set that fits no message.

use std::path::Path;

use super::{
    error::{Place, ZoneError, ZoneErrorKind},
    special,
    text::INLINE_TTL,
    zone::Zone,
};
use crate::wire::{MAX_MESSAGE, Name, RecordType, name::MAX_NAME};

/// The octets of a message that no record of the answer can have: header, question, and a SOA besides.
const RESERVED: usize = 12 + MAX_NAME + 4 + 3 * MAX_NAME;

/// Makes SOA and NS where they are missing: the zone itself is its server, as in RFC 6303 3.
pub(super) fn make(zone: &mut Zone) {
    let apex = zone.apex().clone();
    let has = |zone: &Zone, rtype| zone.top().is_some_and(|node| node.set(rtype).is_some());
    if !has(zone, RecordType::SOA) {
        let soa = special::soa(&apex, special::NOBODY, [1, 3600, 1200, 604_800, INLINE_TTL]);
        zone.add(&apex, RecordType::SOA, INLINE_TTL, soa);
    }
    if !has(zone, RecordType::NS) && !has(zone, RecordType::CNAME) {
        zone.add(&apex, RecordType::NS, INLINE_TTL, apex.as_wire().into());
    }
}

/// A zone file has both.
pub(super) fn demand(zone: &Zone, path: &Path, errors: &mut Vec<ZoneError>) {
    for rtype in [RecordType::SOA, RecordType::NS] {
        if zone.top().is_none_or(|node| node.set(rtype).is_none()) {
            let place = Place { file: path.to_owned(), line: 0 };
            let kind = ZoneErrorKind::Missing { zone: zone.apex().clone(), rtype };
            errors.push(ZoneError { place, kind, record: String::new() });
        }
    }
}

/// No record set may be larger than a message.
pub(super) fn bound(zone: &Zone, place: &Place, errors: &mut Vec<ZoneError>) {
    for (owner, node) in zone.nodes() {
        for set in node.sets() {
            let octets: usize = set.rdata.iter().map(|rdata| 12 + rdata.len()).sum();
            if octets + RESERVED > MAX_MESSAGE
                && let Ok(owner) = Name::from_wire(owner)
            {
                let kind = ZoneErrorKind::TooMany { owner, rtype: set.rtype };
                errors.push(ZoneError { place: place.clone(), kind, record: String::new() });
            }
        }
    }
}
