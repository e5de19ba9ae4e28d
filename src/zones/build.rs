//! Builds a [`Zone`]: takes records in any order, checks each against those before, and sorts them at the end.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    error::ZoneErrorKind,
    names::{Names, place},
    rdata,
    zone::{Zone, ZoneRecord, rdata_at},
};
use crate::wire::{Name, RecordType};

/// The types at a name that restrict which others may stand beside them, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    /// A CNAME, which stands alone.
    pub(super) const CNAME: Self = Self(1);
    /// A DNAME.
    pub(super) const DNAME: Self = Self(2);
    /// A zone cut, or the apex.
    pub(super) const NS: Self = Self(4);
    /// The apex.
    pub(super) const SOA: Self = Self(8);
    /// Any other.
    const OTHER: Self = Self(16);

    const fn of(rtype: RecordType) -> Self {
        match rtype {
            RecordType::CNAME => Self::CNAME,
            RecordType::DNAME => Self::DNAME,
            RecordType::NS => Self::NS,
            RecordType::SOA => Self::SOA,
            _ => Self::OTHER,
        }
    }

    /// Whether all of `kinds` are there.
    pub(super) const fn has(self, kinds: Self) -> bool {
        self.0 & kinds.0 == kinds.0
    }
}

/// A zone that is being read.
#[derive(Debug)]
pub(super) struct Builder {
    apex: Name,
    names: Names,
    kinds: Vec<Kinds>,
    /// For each name the place of its CNAME or DNAME, if it has one.
    singles: Vec<u32>,
    records: Vec<ZoneRecord>,
    octets: Vec<u8>,
}

impl Builder {
    /// An empty zone, without even a SOA.
    pub(super) fn new(apex: Name) -> Self {
        let mut names = Names::default();
        names.intern(&[]);
        Self { apex, names, kinds: vec![Kinds::default()], singles: vec![0], records: Vec::new(), octets: Vec::new() }
    }

    /// The name of the zone.
    pub(super) const fn apex(&self) -> &Name {
        &self.apex
    }

    /// Whether the apex owns a record of one of the types that have a bit.
    pub(super) fn apex_has(&self, kinds: Kinds) -> bool {
        self.kinds[0].has(kinds)
    }

    /// Adds a name and all names between it and the apex. The name is in wire form, in lower case, at or below the
    /// apex.
    pub(super) fn touch(&mut self, owner: &[u8]) -> Result<u32, ZoneErrorKind> {
        let depth = owner.len().saturating_sub(self.apex.as_wire().len());
        let relative = &owner[..depth];
        let before = self.names.len();
        let id = self.names.intern(relative).ok_or(ZoneErrorKind::TooLarge)?;
        let mut at = 0;
        while self.names.len() > before && at < depth {
            at += 1 + usize::from(relative[at]);
            let known = self.names.len();
            self.names.intern(&relative[at..]).ok_or(ZoneErrorKind::TooLarge)?;
            if self.names.len() == known {
                break;
            }
        }
        self.kinds.resize(self.names.len(), Kinds::default());
        self.singles.resize(self.names.len(), 0);
        Ok(id)
    }

    /// Adds a record of a name in wire form, in lower case, at or below the apex. A CNAME stands alone, and no name has
    /// two CNAMEs or two DNAMEs.
    pub(super) fn add(&mut self, owner: &[u8], rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<(), ZoneErrorKind> {
        let id = self.touch(owner)?;
        let (kind, present) = (Kinds::of(rtype), self.kinds[place(id)]);
        if present != Kinds::default() && (present == Kinds::CNAME) != (kind == Kinds::CNAME) {
            return Err(ZoneErrorKind::CnameAndOther(named(owner)));
        }
        if matches!(kind, Kinds::CNAME | Kinds::DNAME) {
            let single = self.records.get(place(self.singles[place(id)])).filter(|_| present.has(kind));
            if single.is_some_and(|single| !rdata::same(rtype, rdata_at(&self.octets, single.rdata), rdata)) {
                return Err(ZoneErrorKind::Single { owner: named(owner), rtype });
            }
            self.singles[place(id)] = u32::try_from(self.records.len()).map_err(|_| ZoneErrorKind::TooLarge)?;
        }
        self.push(id, rtype, ttl, rdata)
    }

    /// Adds a record of the apex beside whatever is there: an override of one name may be an alias, and needs its SOA.
    pub(super) fn make(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<(), ZoneErrorKind> {
        self.push(0, rtype, ttl, rdata)
    }

    fn push(&mut self, owner: u32, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<(), ZoneErrorKind> {
        let length = u16::try_from(rdata.len()).map_err(|_| ZoneErrorKind::TooLarge)?;
        let at = u32::try_from(self.octets.len()).map_err(|_| ZoneErrorKind::TooLarge)?;
        self.octets.extend(length.to_be_bytes());
        self.octets.extend_from_slice(rdata);
        self.records.push(ZoneRecord { owner, rdata: at, ttl, rtype });
        let kinds = &mut self.kinds[place(owner)];
        *kinds = Kinds(kinds.0 | Kinds::of(rtype).0);
        Ok(())
    }

    /// The finished zone. A set gets the least TTL of its records (RFC 2181 5.2); duplicate records are kept once (RFC
    /// 2181 5).
    pub(super) fn finish(self) -> Zone {
        let Self { apex, mut names, mut kinds, mut records, mut octets, singles } = self;
        drop(singles);
        let rdata = |record: &ZoneRecord| rdata_at(&octets, record.rdata);
        records.sort_unstable_by(|one, other| {
            let by_set = (one.owner, one.rtype).cmp(&(other.owner, other.rtype));
            let by_rdata = || rdata::order(one.rtype, rdata(one), rdata(other));
            by_set.then_with(by_rdata).then_with(|| one.rdata.cmp(&other.rdata))
        });
        for set in records.chunk_by_mut(|one, other| (one.owner, one.rtype) == (other.owner, other.rtype)) {
            let least = set.iter().map(|record| record.ttl).min().unwrap_or(0);
            set.iter_mut().for_each(|record| record.ttl = least);
        }
        records.dedup_by(|later, first| {
            (later.owner, later.rtype) == (first.owner, first.rtype)
                && rdata::same(later.rtype, rdata(later), rdata(first))
        });
        let mut firsts = Vec::with_capacity(names.len());
        let mut at = 0;
        for owner in 0..names.len() {
            firsts.push(u32::try_from(at).unwrap_or(u32::MAX));
            at += records[at..].iter().take_while(|record| place(record.owner) == owner).count();
        }
        names.shrink();
        kinds.shrink_to_fit();
        records.shrink_to_fit();
        octets.shrink_to_fit();
        let mut zone = Zone { apex, names, kinds, firsts, records, octets, fingerprint: 0 };
        zone.fingerprint = fingerprint(&zone);
        zone
    }
}

/// A digest of a zone's contents that does not depend on their order: the sum of the names' digests.
fn fingerprint(zone: &Zone) -> u64 {
    let mut octets = Vec::new();
    let digests = zone.nodes().map(|(owner, node)| {
        octets.clear();
        octets.push(u8::try_from(owner.len()).unwrap_or(u8::MAX));
        octets.extend_from_slice(owner);
        for set in node.sets() {
            octets.extend(set.rtype.0.to_be_bytes());
            octets.extend(set.ttl.to_be_bytes());
            octets.extend(u32::try_from(set.rdata().count()).unwrap_or(u32::MAX).to_be_bytes());
            for rdata in set.rdata() {
                octets.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
                octets.extend_from_slice(rdata);
            }
        }
        xxh3_64(&octets)
    });
    let sum = digests.fold(0_u64, u64::wrapping_add);
    xxh3_64(&[&sum.to_be_bytes(), zone.apex().as_wire()].concat())
}

/// A name for a message.
fn named(owner: &[u8]) -> Name {
    Name::from_wire(owner).unwrap_or_else(|_| Name::root())
}
