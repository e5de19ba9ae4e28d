//! One zone in memory: every name that exists, those without records too (RFC 4592 2.2.2), and the records in wire
//! form.
//!
//! A look-up walks down from the apex, so that it meets a zone cut or a DNAME before what they hide, and the last
//! name it finds is the closest encloser (RFC 4592 3.3.1). It costs one hash look-up a label, whatever the zone's size,
//! for names that do not exist as for those that do.
//!
//! A million records must cost little: names without the apex's labels are stored in one allocation ([`Names`]),
//! records in one vector, sorted by owner, type and RDATA, and their RDATA in another. The types that a walk must know
//! of (NS, DNAME) are bits beside each name.

use super::{
    build::Kinds,
    names::{Names, place},
};
use crate::wire::{Name, RecordType, name::MAX_NAME};

/// A record of a zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZoneRecord {
    /// The owner's number.
    pub(super) owner: u32,
    /// Offset of its RDATA, which two octets of length precede.
    pub(super) rdata: u32,
    /// In seconds; the same in the whole set (RFC 2181 5.2).
    pub(super) ttl: u32,
    /// The type.
    pub(super) rtype: RecordType,
}

/// RDATA with two octets of length in front.
pub(super) fn rdata_at(octets: &[u8], at: u32) -> &[u8] {
    let rest = octets.get(place(at)..).unwrap_or_default();
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return &[] };
    rest.get(..usize::from(u16::from_be_bytes(*length))).unwrap_or_default()
}

/// The records of one owner and type.
#[derive(Debug, Clone, Copy)]
pub(super) struct RrSet<'z> {
    /// The type.
    pub(super) rtype: RecordType,
    /// In seconds.
    pub(super) ttl: u32,
    records: &'z [ZoneRecord],
    octets: &'z [u8],
}

impl<'z> RrSet<'z> {
    /// Each record's RDATA, names uncompressed; no two alike.
    pub(super) fn rdata(&self) -> impl Iterator<Item = &'z [u8]> + Clone + use<'z> {
        let octets = self.octets;
        self.records.iter().map(move |record| rdata_at(octets, record.rdata))
    }

    /// The first record's RDATA.
    pub(super) fn first(&self) -> &'z [u8] {
        self.rdata().next().unwrap_or_default()
    }
}

/// Records that a name owns; none for an empty non-terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'z> {
    records: &'z [ZoneRecord],
    octets: &'z [u8],
}

impl<'z> Node<'z> {
    /// Every record set, by ascending type.
    pub(super) fn sets(&self) -> impl Iterator<Item = RrSet<'z>> + use<'z> {
        let octets = self.octets;
        let sets = self.records.chunk_by(|one, other| one.rtype == other.rtype);
        sets.map(move |records| RrSet { rtype: records[0].rtype, ttl: records[0].ttl, records, octets })
    }

    /// The record set of a type.
    pub(super) fn set(&self, rtype: RecordType) -> Option<RrSet<'z>> {
        let start = self.records.partition_point(|record| record.rtype < rtype);
        let rest = &self.records[start..];
        let records = &rest[..rest.partition_point(|record| record.rtype == rtype)];
        let first = records.first()?;
        Some(RrSet { rtype, ttl: first.ttl, records, octets: self.octets })
    }

    /// Whether the name owns nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Result of a look-up.
#[derive(Debug)]
pub(super) enum Found<'z> {
    /// The name exists.
    Exact(Node<'z>),
    /// The name does not exist, and a wildcard matches it (RFC 4592 3.3).
    Wildcard(Node<'z>),
    /// The name is at or below a zone cut (RFC 1034 4.2.1).
    Cut {
        /// Offset in the name where the cut's own name begins.
        at: usize,
        /// Records that the parent side has at the cut.
        node: Node<'z>,
    },
    /// The name is below a DNAME (RFC 6672).
    Redirected {
        /// Offset in the name where the DNAME's owner begins.
        at: usize,
        /// The DNAME record.
        dname: RrSet<'z>,
    },
    /// The name does not exist.
    Nothing,
}

/// A zone: an apex, and the names at and below it. [`Builder`](super::build::Builder) makes it.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) apex: Name,
    /// Names without the apex's labels. The apex itself is the first, and empty. Invariant: for each name, every name
    /// between it and the apex is here, too.
    pub(super) names: Names,
    /// For each name the types that a walk must know of (NS, DNAME).
    pub(super) kinds: Vec<Kinds>,
    /// For each name the index of its first record. Its records end where the next name's begin.
    pub(super) firsts: Vec<u32>,
    /// Sorted by owner, type and RDATA.
    pub(super) records: Vec<ZoneRecord>,
    pub(super) octets: Vec<u8>,
    pub(super) fingerprint: u64,
}

impl Zone {
    /// The name of the zone.
    pub(super) const fn apex(&self) -> &Name {
        &self.apex
    }

    /// Digest of everything in the zone.
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Every name, without the apex's labels, and what it owns.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&[u8], Node<'_>)> {
        (0..self.names.len()).filter_map(|id| {
            let id = u32::try_from(id).ok()?;
            Some((self.names.name(id), self.node_of(id)))
        })
    }

    /// Records that a name owns, whatever cuts are above it; for glue.
    pub(super) fn node(&self, name: &[u8]) -> Option<Node<'_>> {
        let depth = name.len().checked_sub(self.apex.as_wire().len())?;
        self.names.find(&name[..depth]).map(|id| self.node_of(id))
    }

    /// What the apex owns.
    pub(super) fn top(&self) -> Node<'_> {
        self.node_of(0)
    }

    /// The zone cuts; none is below another.
    pub(super) fn cuts(&self) -> impl Iterator<Item = Name> {
        let owners = (1_u32..).zip(self.kinds.iter().skip(1)).filter(|(_, kinds)| kinds.has(Kinds::NS));
        owners.filter_map(|(id, _)| {
            let wire = [self.names.name(id), self.apex.as_wire()].concat();
            let is_cut = matches!(self.find(&wire), Found::Cut { at: 0, .. });
            Name::from_wire(&wire).ok().filter(|_| is_cut)
        })
    }

    /// Absolute name of an owner that [`Zone::nodes`] gave.
    pub(super) fn whole(&self, owner: &[u8]) -> Option<Name> {
        Name::from_wire(&[owner, self.apex.as_wire()].concat()).ok()
    }

    fn node_of(&self, id: u32) -> Node<'_> {
        let id = place(id);
        let end = self.firsts.get(id + 1).map_or(self.records.len(), |&end| place(end));
        Node { records: &self.records[place(self.firsts[id])..end], octets: &self.octets }
    }

    fn has(&self, id: u32, kinds: Kinds) -> bool {
        self.kinds[place(id)].has(kinds)
    }

    /// Looks up `name`, a wire name at or below the apex in lower case.
    pub(super) fn find(&self, name: &[u8]) -> Found<'_> {
        let depth = name.len().saturating_sub(self.apex.as_wire().len());
        let relative = &name[..depth];
        let mut starts = [0_u8; MAX_NAME / 2 + 1];
        let mut labels = 0;
        let mut at = 0;
        while at < depth {
            // A name has at most 127 labels in 255 octets.
            starts[labels] = u8::try_from(at).unwrap_or(u8::MAX);
            labels += 1;
            at += 1 + usize::from(name[at]);
        }
        let (mut at, mut id) = (depth, 0);
        for &start in starts[..labels].iter().rev() {
            if self.has(id, Kinds::DNAME)
                && let Some(dname) = self.node_of(id).set(RecordType::DNAME)
            {
                return Found::Redirected { at, dname };
            }
            let Some(below) = self.names.find(&relative[usize::from(start)..]) else {
                return self.wildcard(&relative[at..]);
            };
            (at, id) = (usize::from(start), below);
            if self.has(id, Kinds::NS) {
                return Found::Cut { at, node: self.node_of(id) };
            }
        }
        Found::Exact(self.node_of(id))
    }

    /// Wildcard right below the closest encloser, the only one that can match a name (RFC 4592 3.3.1).
    fn wildcard(&self, encloser: &[u8]) -> Found<'_> {
        let mut source = [0; MAX_NAME + 2];
        source[..2].copy_from_slice(b"\x01*");
        let end = 2 + encloser.len();
        source[2..end].copy_from_slice(encloser);
        self.names.find(&source[..end]).map_or(Found::Nothing, |id| Found::Wildcard(self.node_of(id)))
    }
}
