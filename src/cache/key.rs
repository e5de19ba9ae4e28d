//! Cache keys and their hashes.

use std::{
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

use foldhash::{SharedSeed, quality::SeedableRandomState};

use crate::wire::{Class, RecordType};

/// The largest view: a key's hash has 30 bits for it.
pub const MAX_VIEW: u32 = (1 << 30) - 1;

/// The key of a cached answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey<'a> {
    /// The uncompressed wire name, in lower case (RFC 4343), the root label included.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: RecordType,
    /// QCLASS.
    pub qclass: Class,
    /// Whether DNSSEC records were asked for (RFC 3225).
    pub do_bit: bool,
    /// Whether checking was disabled (RFC 4035 3.2.2): such an answer may be bogus to others.
    pub cd: bool,
    /// The view of the client, at most [`MAX_VIEW`]; 0 where no rule for the name tells clients apart.
    pub view: u32,
}

/// A key's hash, from a seed that nobody outside this process knows: clients choose names, and must not choose which
/// of them collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub u64);

static SEEDED: LazyLock<SeedableRandomState> = LazyLock::new(|| {
    static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(rand::random()));
    SeedableRandomState::with_seed(rand::random(), &SHARED)
});

impl CacheKey<'_> {
    /// The hash of all parts.
    pub fn hash(&self) -> Hash {
        let mut hasher = SEEDED.build_hasher();
        let numbers = u64::from(self.qtype.0) << 48 | u64::from(self.qclass.0) << 32 | u64::from(self.view) << 2;
        hasher.write_u64(numbers | u64::from(self.do_bit) << 1 | u64::from(self.cd));
        hasher.write(self.name);
        Hash(hasher.finish())
    }
}

impl Hash {
    /// The octet that selects the shard. A shard's table goes by the lowest and the highest bits, so other bits are
    /// taken here.
    pub(super) fn shard_bits(self) -> usize {
        usize::from(self.0.to_le_bytes()[5])
    }
}
