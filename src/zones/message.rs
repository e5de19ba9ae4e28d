//! Writes an answer of ours: a header, the question, then record sets.
//!
//! A record set that does not fit a message is left out whole. TC would be of no use: it would not fit over TCP either.

use std::hash::BuildHasher;

use smallvec::SmallVec;

use super::{LocalQuery, zone::RrSet};
use crate::wire::{
    Class, Flags, Header, Malformed, MessageId, Rcode, RecordType, name,
    record::{Record, Section},
    writer::Writer,
};

/// Room for a message with a few records.
const CAPACITY: usize = 256;

/// A message being written, its sections in order.
pub(super) struct Draft {
    writer: Writer,
    /// The record sets in the message so far.
    present: SmallVec<[Present; 4]>,
    flags: u16,
    is_cut: bool,
}

/// A record set in the message.
#[derive(Debug, Clone, Copy)]
struct Present {
    rtype: RecordType,
    /// A hash of its owner: an answer may have thousands of sets.
    hash: u64,
    /// Where its owner stands.
    at: usize,
}

impl Draft {
    /// A message with the question in it.
    pub(super) fn new(question: &LocalQuery<'_>) -> Self {
        let writer = Writer::new(question.name.as_wire(), question.qtype, question.qclass, CAPACITY);
        Self { writer, present: SmallVec::new(), flags: Flags::QR, is_cut: false }
    }

    /// Sets the bits of `mask` among the flags.
    pub(super) const fn flag(&mut self, mask: u16) {
        self.flags |= mask;
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
        let at = self.writer.written().len();
        let set = Present { rtype, hash: foldhash::fast::FixedState::default().hash_one(owner), at };
        if self.holds(&set, owner) {
            return;
        }
        let before = self.writer.mark();
        if rdata.into_iter().try_for_each(|rdata| self.record(section, owner, (rtype, ttl), rdata)).is_ok() {
            self.present.push(set);
        } else {
            self.writer.rewind(before);
            self.is_cut |= section != Section::Additional;
        }
    }

    fn holds(&self, set: &Present, owner: &[u8]) -> bool {
        let is_same = |at: usize| name::stands_at(self.writer.written(), at, owner) == Ok(true);
        self.present.iter().any(|other| (other.rtype, other.hash) == (set.rtype, set.hash) && is_same(other.at))
    }

    fn record(
        &mut self,
        section: Section,
        owner: &[u8],
        (rtype, ttl): (RecordType, u32),
        rdata: &[u8],
    ) -> Result<(), Malformed> {
        let (class, rdata_end) = (Class::IN, rdata.len());
        let record = Record { section, owner_at: 0, rtype, class, ttl_at: 0, raw_ttl: ttl, rdata_at: 0, rdata_end };
        self.writer.copy(rdata, &record, owner).map(drop)
    }

    /// Whether a record set of the answer or the authority section did not fit.
    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The finished message.
    pub(super) fn finish(self, rcode: Rcode) -> Vec<u8> {
        let flags = Flags(self.flags | (rcode.0 & 0x000f));
        self.writer.finish(Header { id: MessageId(0), flags, counts: [0; 4] })
    }

    /// Removes all records; the question stays.
    pub(super) fn clear(&mut self, question: &LocalQuery<'_>) {
        *self = Self::new(question);
    }
}
