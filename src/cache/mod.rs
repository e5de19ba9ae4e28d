//! Whole answers as wire bytes, bounded in bytes with everything counted.
//!
//! A cache is [shards](shard); a shard is a ring of octets with a table of offsets into it. New entries go in at the
//! head, room is made at the tail. What [`policy`] lets in lives until its room is needed: an entry past its lifetime
//! is a miss, and still there for who must serve stale (RFC 8767). Failures are remembered apart, in [`failures`].

pub mod failures;
pub mod policy;
pub mod shard;

mod entry;
mod key;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

pub use self::{
    entry::{EntryView, Stamp},
    key::{Hash, Key},
    shard::{Found, Lookup, New, Prefetch, Stored},
};
use self::{key::Tag, shard::Shard};

/// The least size of a shard in octets, so that the longest answer takes an eighth of it at most.
const SHARD_LEAST: usize = 512 * 1024;
/// More shards than this do not make meetings rarer in any way that can be measured.
const SHARDS_MOST: usize = 256;

/// Answers, for all workers.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    capacity: usize,
}

/// What the cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, expired ones included.
    pub entries: usize,
    /// Octets in use: entries, their keys, what is dead among them, and the tables.
    pub bytes: usize,
    /// The bound on `bytes`.
    pub capacity: usize,
    /// Entries that had to go before their time.
    pub evictions: u64,
}

impl Cache {
    /// A cache of at most `capacity` octets; with 0 everything is a miss.
    pub fn new(capacity: usize) -> Self {
        let shards = match (capacity / SHARD_LEAST).clamp(1, SHARDS_MOST) {
            _ if capacity == 0 => 0,
            most => 1 << most.ilog2(),
        };
        let shard = || CachePadded::new(Mutex::new(Shard::new(capacity / shards)));
        Self { shards: (0..shards).map(|_| shard()).collect(), capacity }
    }

    /// Looks `key` up and copies a fresh answer into `reply`, its TTLs counted down. `now` is in seconds.
    ///
    /// An entry of another `generation` is shown to `revalidate` with its stamp first: none makes it a miss for good, a
    /// new stamp is kept.
    pub fn get(
        &self,
        key: &Key<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Lookup {
        let Some(shard) = self.shard(hash) else { return Lookup::Miss };
        shard.lock().get(&Tag::new(key, hash), now, generation, reply, revalidate)
    }

    /// Copies an expired answer into `reply` with every TTL set to `ttl` seconds, if it is no more than `most_past`
    /// seconds past its lifetime.
    #[expect(clippy::too_many_arguments, reason = "a look-up with the three numbers that make it stale")]
    pub fn stale(
        &self,
        key: &Key<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        most_past: u32,
        ttl: u32,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<Found> {
        let tag = Tag::new(key, hash);
        self.shard(hash)?.lock().stale(&tag, now, generation, (most_past, ttl), reply, revalidate)
    }

    /// Keeps an answer, in place of the one that `key` had.
    pub fn insert(&self, key: &Key<'_>, hash: Hash, new: &New<'_>) -> Stored {
        let Some(shard) = self.shard(hash) else { return Stored::No };
        shard.lock().insert(&Tag::new(key, hash), new)
    }

    /// Removes every entry for which `matches` holds; gives their number.
    pub fn remove(&self, mut matches: impl FnMut(&EntryView<'_>) -> bool) -> usize {
        self.shards.iter().map(|shard| shard.lock().remove(&mut matches)).sum()
    }

    /// Shows every entry, one shard locked at a time.
    pub fn for_each(&self, mut see: impl FnMut(&EntryView<'_>)) {
        for shard in &self.shards {
            shard.lock().for_each(&mut see);
        }
    }

    /// What it holds, added up over the shards.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { capacity: self.capacity, ..Stats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.entries += shard.entries();
            stats.bytes += shard.bytes();
            stats.evictions += shard.evictions();
        }
        stats
    }

    fn shard(&self, hash: Hash) -> Option<&Mutex<Shard>> {
        // A power of two, or none.
        let mask = self.shards.len().checked_sub(1)?;
        let high = usize::try_from(hash.0 >> 32).unwrap_or(0);
        self.shards.get(high & mask).map(|shard| &**shard)
    }
}
