//! What an answer is found by.

use std::{
    hash::{BuildHasher, Hasher},
    sync::OnceLock,
};

use foldhash::fast::RandomState;

use crate::wire::{Class, RecordType};

/// The question an entry answers, for whom it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// QNAME in wire form, in lower case.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: RecordType,
    /// QCLASS.
    pub qclass: Class,
    /// Whether signatures were asked for: the records differ.
    pub do_bit: bool,
    /// Whether the asker checks them itself: what a validator would keep back differs.
    pub cd: bool,
    /// The view.
    pub view: u16,
}

/// A key's hash under this process's own seed: who asks cannot choose what collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub u64);

static SEED: OnceLock<RandomState> = OnceLock::new();

impl Key<'_> {
    /// The hash, made once for a question and passed along.
    pub fn hash(&self) -> Hash {
        let mut hasher = SEED.get_or_init(RandomState::default).build_hasher();
        hasher.write(self.name);
        let bits = u64::from(self.do_bit) | u64::from(self.cd) << 1;
        let numbers = u64::from(self.qtype.0) << 48 | u64::from(self.qclass.0) << 32 | u64::from(self.view) << 16;
        hasher.write_u64(numbers | bits);
        Hash(hasher.finish())
    }
}

/// A key with the part of its hash that is kept in the entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a, 'k> {
    pub(super) key: &'a Key<'k>,
    pub(super) hash: u32,
}

impl<'a, 'k> Tag<'a, 'k> {
    pub(super) fn new(key: &'a Key<'k>, hash: Hash) -> Self {
        // The upper half chooses the shard.
        Self { key, hash: u32::try_from(hash.0 & 0xffff_ffff).unwrap_or(0) }
    }
}

/// The hash that the table is given for the half that an entry keeps: both ends of it matter to the table.
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
