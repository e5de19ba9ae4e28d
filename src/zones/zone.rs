//! One zone in memory: every name that exists, those without records too (RFC 4592 2.2.2), by its wire form.
//!
//! A look-up walks down from the apex, so that it meets a zone cut or a DNAME before what they hide, and the last
//! name it finds is the closest encloser (RFC 4592 3.3.1). It costs one hash look-up a label, whatever the zone's size.

use std::hash::Hasher as _;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Default;

use super::rdata;
use crate::wire::{Name, RecordType, name::MAX_NAME};

/// The records of one owner and type. They have one TTL (RFC 2181 5.2) and no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RrSet {
    /// The type.
    pub(super) rtype: RecordType,
    /// In seconds.
    pub(super) ttl: u32,
    /// Each record's RDATA, names uncompressed; never empty, no two alike.
    pub(super) rdata: Vec<Box<[u8]>>,
}

/// What a name owns, by type; nothing if it only has names below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    sets: Vec<RrSet>,
}

impl Node {
    /// Every record set.
    pub(super) fn sets(&self) -> &[RrSet] {
        &self.sets
    }

    /// The record set of a type.
    pub(super) fn set(&self, rtype: RecordType) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// Adds a record. A set takes the least TTL of its records (RFC 2181 5.2), one that is there already is kept once
    /// (RFC 2181 5).
    pub(super) fn add(&mut self, rtype: RecordType, ttl: u32, rdata: Box<[u8]>) {
        let Some(set) = self.sets.iter_mut().find(|set| set.rtype == rtype) else {
            let at = self.sets.partition_point(|set| set.rtype < rtype);
            self.sets.insert(at, RrSet { rtype, ttl, rdata: vec![rdata] });
            return;
        };
        set.ttl = set.ttl.min(ttl);
        if !set.rdata.iter().any(|present| rdata::same(rtype, present, &rdata)) {
            set.rdata.push(rdata);
        }
    }

    /// Brings the records into the one order that fingerprints are taken in.
    pub(super) fn sort(&mut self) {
        for set in &mut self.sets {
            set.rdata.sort_unstable();
        }
    }

    /// Mixes owner and records into a fingerprint.
    pub(super) fn hash(&self, owner: &[u8], hasher: &mut Xxh3Default) {
        hasher.write(owner);
        hasher.write(&self.sets.len().to_be_bytes());
        for set in &self.sets {
            hasher.write(&set.rdata.len().to_be_bytes());
            hasher.write(&set.rtype.0.to_be_bytes());
            hasher.write(&set.ttl.to_be_bytes());
            for rdata in &set.rdata {
                hasher.write(&rdata.len().to_be_bytes());
                hasher.write(rdata);
            }
        }
    }
}

/// What a look-up finds.
#[derive(Debug)]
pub(super) enum Found<'z> {
    /// The name exists.
    Exact(&'z Node),
    /// The name does not exist, a wildcard speaks for it (RFC 4592 3.3).
    Wildcard(&'z Node),
    /// The name is at or below a zone cut (RFC 1034 4.2.1).
    Cut {
        /// The cut, in wire form.
        owner: &'z [u8],
        /// What the parent has there.
        node: &'z Node,
    },
    /// The name is below a DNAME (RFC 6672).
    Redirected {
        /// The DNAME's owner, in wire form.
        owner: &'z [u8],
        /// The DNAME.
        dname: &'z RrSet,
    },
    /// The name does not exist.
    Nothing,
}

/// A zone: an apex, and the names at and below it.
#[derive(Debug)]
pub(super) struct Zone {
    apex: Name,
    /// Invariant: with a name, every name between it and the apex; the apex itself has one SOA.
    nodes: HashMap<Box<[u8]>, Node>,
    fingerprint: u64,
}

impl Zone {
    /// A zone that has nothing yet, not even its SOA.
    pub(super) fn new(apex: Name) -> Self {
        let mut nodes = HashMap::new();
        nodes.insert(apex.as_wire().into(), Node::default());
        Self { apex, nodes, fingerprint: 0 }
    }

    /// The name of the zone.
    pub(super) const fn apex(&self) -> &Name {
        &self.apex
    }

    /// A digest of all that the zone holds.
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Adds a record of a name at or below the apex.
    pub(super) fn add(&mut self, owner: &Name, rtype: RecordType, ttl: u32, rdata: Box<[u8]>) {
        self.touch(owner).add(rtype, ttl, rdata);
    }

    /// Makes a name exist, and those between it and the apex.
    pub(super) fn touch(&mut self, owner: &Name) -> &mut Node {
        let wire = owner.as_wire();
        let depth = wire.len().saturating_sub(self.apex.as_wire().len());
        let mut at = 0;
        while at < depth {
            at += 1 + usize::from(wire[at]);
            if self.nodes.contains_key(&wire[at..]) {
                break;
            }
            self.nodes.insert(wire[at..].into(), Node::default());
        }
        self.nodes.entry(wire.into()).or_default()
    }

    /// Every name and what it owns, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(owner, node)| (&**owner, node))
    }

    /// The zone cuts in wire form, in no order; none is below another.
    pub(super) fn cuts(&self) -> impl Iterator<Item = &[u8]> {
        let apex = self.apex.as_wire();
        let has_ns = self.nodes().filter(move |(owner, node)| *owner != apex && node.set(RecordType::NS).is_some());
        let is_cut = |owner: &&[u8]| matches!(self.find(owner), Found::Cut { owner: cut, .. } if cut == *owner);
        has_ns.map(|(owner, _)| owner).filter(is_cut)
    }

    /// What a name owns, whatever stands above it: for glue.
    pub(super) fn node(&self, owner: &[u8]) -> Option<&Node> {
        self.nodes.get(owner)
    }

    /// What the apex owns.
    pub(super) fn top(&self) -> Option<&Node> {
        self.nodes.get(self.apex.as_wire())
    }

    /// Takes the digest of what the zone holds now.
    pub(super) fn seal(&mut self) {
        self.nodes.values_mut().for_each(Node::sort);
        let mut owners: Vec<_> = self.nodes.iter().collect();
        owners.sort_unstable_by_key(|(owner, _)| *owner);
        let mut hasher = Xxh3Default::new();
        for (owner, node) in owners {
            node.hash(owner, &mut hasher);
        }
        self.fingerprint = hasher.finish();
    }

    /// Looks up `name`, a wire name at or below the apex in lower case.
    pub(super) fn find(&self, name: &[u8]) -> Found<'_> {
        let depth = name.len().saturating_sub(self.apex.as_wire().len());
        let mut starts = [0_u8; MAX_NAME / 2 + 1];
        let mut labels = 0;
        let mut at = 0;
        while at < depth {
            // A name has at most 127 labels in 255 octets.
            starts[labels] = u8::try_from(at).unwrap_or(u8::MAX);
            labels += 1;
            at += 1 + usize::from(name[at]);
        }
        let Some((mut owner, mut node)) = self.nodes.get_key_value(&name[depth..]) else { return Found::Nothing };
        for &start in starts[..labels].iter().rev() {
            if let Some(dname) = node.set(RecordType::DNAME) {
                return Found::Redirected { owner, dname };
            }
            let next = self.nodes.get_key_value(&name[usize::from(start)..]);
            let Some(below) = next else { return self.wildcard(owner) };
            (owner, node) = below;
            if node.set(RecordType::NS).is_some() {
                return Found::Cut { owner, node };
            }
        }
        Found::Exact(node)
    }

    /// The wildcard right below the closest encloser, which alone can speak for a name (RFC 4592 3.3.1).
    fn wildcard(&self, encloser: &[u8]) -> Found<'_> {
        let mut source = [0; MAX_NAME + 2];
        source[..2].copy_from_slice(b"\x01*");
        let end = 2 + encloser.len();
        source[2..end].copy_from_slice(encloser);
        self.nodes.get(&source[..end]).map_or(Found::Nothing, Found::Wildcard)
    }
}
