//! Writes an answer of ours: a header, the question, then records, names compressed (RFC 1035 4.1.4).
//!
//! Names in RDATA are compressed only for the types of RFC 1035 (RFC 3597 4). A record set that does not fit 65,535
//! octets is left out whole. TC would be of no use: it would not fit over TCP either.

use hashbrown::HashMap;

use super::{LocalQuery, rdata, zone::RrSet};
use crate::wire::{Class, Flags, Header, MAX_MESSAGE, MessageId, Rcode, RecordType, header::HEADER, record::Section};

/// The first offset that a compression pointer cannot hold.
const POINTER_LIMIT: usize = 0x4000;

/// A message being written, its sections in order.
pub(super) struct Draft {
    bytes: Vec<u8>,
    counts: [u16; 4],
    /// Names in lower case that stand in the message, and where.
    places: HashMap<Box<[u8]>, u16>,
    /// The record sets in the message so far: owner and type.
    present: Vec<(Box<[u8]>, RecordType)>,
    flags: u16,
    is_cut: bool,
}

impl Draft {
    /// A message with the question in it.
    pub(super) fn new(question: &LocalQuery<'_>) -> Self {
        let mut draft = Self {
            bytes: vec![0; HEADER],
            counts: [1, 0, 0, 0],
            places: HashMap::new(),
            present: Vec::new(),
            flags: Flags::QR,
            is_cut: false,
        };
        draft.name(question.name.as_wire());
        draft.bytes.extend(question.qtype.0.to_be_bytes());
        draft.bytes.extend(question.qclass.0.to_be_bytes());
        draft
    }

    /// Sets the bits of `mask` among the flags.
    pub(super) const fn flag(&mut self, mask: u16) {
        self.flags |= mask;
    }

    /// Whether a set of `owner` and `rtype` is in the message.
    pub(super) fn holds(&self, owner: &[u8], rtype: RecordType) -> bool {
        self.present.iter().any(|(present, of)| *of == rtype && **present == *owner)
    }

    /// Adds a record set under the name `owner` with the TTL `ttl`, once.
    pub(super) fn set(&mut self, section: Section, owner: &[u8], set: &RrSet<'_>, ttl: u32) {
        self.records(section, owner, (set.rtype, ttl), set.rdata());
    }

    /// Adds records of one owner, type and TTL, once.
    pub(super) fn records<'r>(
        &mut self,
        section: Section,
        owner: &[u8],
        (rtype, ttl): (RecordType, u32),
        rdata: impl IntoIterator<Item = &'r [u8]>,
    ) {
        if self.holds(owner, rtype) {
            return;
        }
        let (length, counts) = (self.bytes.len(), self.counts);
        for rdata in rdata {
            self.record(section, owner, rtype, ttl, rdata);
            if self.bytes.len() > MAX_MESSAGE {
                self.bytes.truncate(length);
                self.counts = counts;
                self.places.retain(|_, place| usize::from(*place) < length);
                self.is_cut |= section != Section::Additional;
                return;
            }
        }
        self.present.push((owner.into(), rtype));
    }

    fn record(&mut self, section: Section, owner: &[u8], rtype: RecordType, ttl: u32, rdata: &[u8]) {
        let count = match section {
            Section::Answer => 1,
            Section::Authority => 2,
            Section::Additional => 3,
        };
        self.counts[count] = self.counts[count].saturating_add(1);
        self.name(owner);
        self.bytes.extend(rtype.0.to_be_bytes());
        self.bytes.extend(Class::IN.0.to_be_bytes());
        self.bytes.extend(ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.rdata(rtype, rdata);
        // RDATA of 65,535 octets at most was checked when the zone was read; compression only shortens it.
        let length = u16::try_from(self.bytes.len() - length_at - 2).unwrap_or(u16::MAX);
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn rdata(&mut self, rtype: RecordType, rdata: &[u8]) {
        let Some((prefix, names)) = rdata::compressible(rtype) else {
            self.bytes.extend_from_slice(rdata);
            return;
        };
        let (head, mut rest) = rdata.split_at(prefix.min(rdata.len()));
        self.bytes.extend_from_slice(head);
        for _ in 0..names {
            let (name, behind) = rest.split_at(rdata::name_length(rest));
            self.name(name);
            rest = behind;
        }
        self.bytes.extend_from_slice(rest);
    }

    /// Writes an uncompressed name, its longest tail that stands in the message already as a pointer.
    fn name(&mut self, name: &[u8]) {
        let key = name.to_ascii_lowercase();
        let mut at = 0;
        while name.get(at).is_some_and(|&length| length > 0) {
            if let Some(place) = self.places.get(&key[at..]) {
                self.bytes.extend((0xc000 | place).to_be_bytes());
                return;
            }
            if let Some(place) = u16::try_from(self.bytes.len()).ok().filter(|&p| usize::from(p) < POINTER_LIMIT) {
                self.places.insert(key[at..].into(), place);
            }
            let end = at + 1 + usize::from(name[at]);
            self.bytes.extend_from_slice(&name[at..end]);
            at = end;
        }
        self.bytes.push(0);
    }

    /// Whether a record set of the answer or the authority section did not fit.
    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The finished message.
    pub(super) fn finish(mut self, rcode: Rcode) -> Vec<u8> {
        let flags = Flags(self.flags | (rcode.0 & 0x000f));
        let header = Header { id: MessageId(0), flags, counts: self.counts };
        self.bytes[..HEADER].copy_from_slice(&header.to_bytes());
        self.bytes
    }

    /// Removes all records; the question stays.
    pub(super) fn clear(&mut self, question: &LocalQuery<'_>) {
        *self = Self::new(question);
    }
}
