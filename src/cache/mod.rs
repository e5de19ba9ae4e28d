//! Whole answers as wire bytes, bounded in bytes.
//!
//! An answer is kept as the message that a client gets, so that a hit is one copy and a few patches. The cache is cut
//! into shards by the key's [`struct@Hash`], each behind a lock of its own; a shard is two rings of bytes with a table of
//! places in them (`shard`, `rings`, `ring`, `entry`). [`policy`] says what may be stored and for how long, [`failures`]
//! remembers what could not be resolved, beside the cache, [`snapshot`] is the cache as a file.
//!
//! **Eviction.** Entries leave in the order they came (FIFO), but one that was asked for since it was stored or last
//! passed over is kept once more (CLOCK). An expired entry stays until the space is needed: it may still be served
//! stale (RFC 8767). Once the memory is full, new entries are on probation first, in an eighth of it: one that is asked
//! for there moves on to the others, and so does one that is asked for soon after it was given up. Names that are asked
//! for once take the place of each other so, and not of what clients use (as S3-FIFO has it; Yang and others, "FIFO
//! queues are all you need for cache eviction", SOSP 2023). Entries that the caller protects, those of a rule whose
//! upstreams are all down, are passed over too. One insertion moves at most [`MOVES`] entries. If the next one was asked
//! for as well, the new answer is not stored, since nobody knows yet whether it will be asked for again: what clients use
//! all day would be missing when its upstream fails. Since those passed over have lost their mark, there is room again
//! after a few such answers. If the next one is only protected, or if the new answer replaces one that was stored, it is
//! evicted in any case.
//!
//! **Memory.** The capacity bounds the rings, table and fingerprints at their largest, and the shards. Memory is taken
//! as it is filled, and [`Stats::bytes`] is what has been taken.
//!
//! The engine calls `get` from the hot path, `stale` and `insert` from the slow one. The cache decides nothing about
//! rules: entries carry a [`Stamp`], and the caller judges a stamp of another generation.

pub mod failures;
pub mod policy;
pub mod snapshot;

mod entry;
mod ghosts;
mod key;
mod ring;
mod rings;
mod shard;
mod view;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

pub use key::{CacheKey, Hash, MAX_VIEW};
pub use shard::MOVES;
pub use view::EntryView;

use crate::wire::{name, record::find_alias};
use shard::Shard;

/// The smallest share of the capacity that is worth a lock of its own.
const SHARD: usize = 512 << 10;
/// More shards than workers will ever contend for; one octet of the hash selects among them.
const MAX_SHARDS: usize = 256;

/// The largest number of a rule: an entry has three octets for it.
pub const MAX_RULE: u32 = (1 << 24) - 1;

/// The rules that an entry was made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The generation of the configuration snapshot that last found the entry good.
    pub generation: u32,
    /// The fingerprint of every rule that shaped the answer.
    pub fingerprint: u64,
    /// The number of the rule, in that generation, at most [`MAX_RULE`].
    pub rule: u32,
}

/// An answer to be stored.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The message: one question, which is the key's name, type and class; the name in lower case, not compressed.
    pub message: &'a [u8],
    /// Where in the message each TTL stands, that of OPT aside.
    pub ttl_offsets: &'a [u16],
    /// Seconds that the answer is good for.
    pub lifetime: u32,
    /// When the answer came, in seconds ([`crate::clock::Moment::seconds`]).
    pub now: u32,
    /// The rules that it was made under.
    pub stamp: Stamp,
    /// Whether the guard removed addresses.
    pub integrity: Integrity,
}

/// Whether the guard removed addresses from an answer before it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// Nothing was removed.
    Whole,
    /// Addresses were removed, and clients are told so.
    Stripped,
}

/// The result of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// Stored.
    Stored,
    /// Stored, replacing an entry with the same key.
    Replaced,
    /// Not stored. If it has no lifetime or is too large, an entry with the same key is removed all the same.
    Refused(Refusal),
}

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no cache.
    NoCache,
    /// It is larger than an eighth of a shard or does not fit a stretch of the ring.
    TooLarge,
    /// It has no lifetime.
    NoLifetime,
    /// Its question is not the key's, or a TTL offset lies outside.
    Mismatch,
    /// All that could make room for it was asked for lately.
    NoRoom,
}

/// The result of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// No entry.
    Miss,
    /// The answer, copied, its TTLs counted down.
    Hit(CacheHit),
    /// An answer past its lifetime; nothing is copied. [`Cache::stale`] copies it.
    Expired(CacheHit),
    /// An answer that does not fit; its header with the last three counts zero, and its question are copied.
    TooLarge(CacheHit),
}

/// An answer that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHit {
    /// Octets copied.
    pub length: usize,
    /// The rule of its stamp.
    pub rule: u32,
    /// Seconds since it was stored.
    pub age: u32,
    /// Seconds until it expires; 0 when it has.
    pub remaining: u32,
    /// Seconds since it expired; 0 while it has not.
    pub past: u32,
    /// Whether the caller is to fetch it again now.
    pub prefetch: Prefetch,
    /// Whether the guard removed addresses.
    pub integrity: Integrity,
}

/// An entry that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// Its age and what is left of it.
    pub found: CacheHit,
    /// The rules that it was made under.
    pub stamp: Stamp,
    /// The message, its id zero and its TTLs counted down.
    pub message: Vec<u8>,
}

/// Whether an entry is to be fetched again before it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// Not by this caller.
    NotDue,
    /// By this caller: it was hit twice or more (this hit counts), is in the last tenth of a lifetime of 10 s or more,
    /// and no caller was told before.
    Due,
}

/// How stale answers are served (RFC 8767).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    /// Seconds past its lifetime that an answer may be served.
    pub max: u32,
    /// The TTL that its records are given.
    pub ttl: u32,
}

/// Statistics of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Entries, expired ones included.
    pub entries: usize,
    /// Memory taken, in bytes: entries, space of entries replaced, table, shards.
    pub bytes: usize,
    /// The limit of `bytes`.
    pub capacity: usize,
    /// Entries evicted since the start.
    pub evictions: u64,
    /// Entries stored, since the start.
    pub inserts: u64,
}

/// A part of a shard.
#[derive(Debug)]
pub struct Page<'a> {
    shard: &'a Mutex<Shard>,
    stretch: (ring::Which, usize),
}

impl Page<'_> {
    /// Shows every entry of the page, the oldest first. The shard is locked meanwhile: copy and leave.
    pub fn for_each(&self, visit: impl FnMut(&EntryView<'_>)) {
        self.shard.lock().for_each_in(self.stretch, visit);
    }
}

/// Whole answers by key; shared by all workers.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    capacity: usize,
}

impl Cache {
    /// A cache that takes at most `capacity` bytes; with 0, or too few for any answer, everything is a miss.
    pub fn new(capacity: usize) -> Self {
        let count = (capacity / SHARD).clamp(1, MAX_SHARDS);
        let count = 1 << count.ilog2();
        let own = size_of::<CachePadded<Mutex<Shard>>>();
        let shard = || Shard::new((capacity / count).saturating_sub(own));
        let shards: Option<Box<[_]>> = (0..count).map(|_| shard().map(|s| CachePadded::new(Mutex::new(s)))).collect();
        Self { shards: shards.unwrap_or_default(), capacity }
    }

    /// Looks `key` up at `now` and copies the answer to the front of `reply`, its id zero. An entry whose stamp is of
    /// another generation is shown to `revalidate`, which gives it a new stamp, or none: then it is dropped and a miss.
    pub fn get(
        &self,
        key: &CacheKey<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Lookup {
        let Some(shard) = self.shard(hash) else { return Lookup::Miss };
        shard.lock().get(key, hash, now, generation, reply, revalidate)
    }

    /// Copies the answer for `key` even though it has expired, all TTLs set to those of `staleness`, unless it is too
    /// long past or does not fit. An answer that is fresh after all is copied as [`Cache::get`] does.
    #[expect(clippy::too_many_arguments, reason = "get's, and how stale")]
    pub fn stale(
        &self,
        key: &CacheKey<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        staleness: Staleness,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<CacheHit> {
        self.shard(hash)?.lock().stale(key, hash, now, generation, staleness, reply, revalidate)
    }

    /// Looks at the entry for `key`, expired or not, and leaves no trace of it.
    pub fn peek(&self, key: &CacheKey<'_>, hash: Hash, now: u32) -> Option<Peeked> {
        self.shard(hash)?.lock().peek(key, hash, now)
    }

    /// Stores an answer, in place of the one that has the key. Where others must go for it, those whose stamp
    /// `is_protected` and those that were asked for are passed over as far as [`MOVES`] allows.
    pub fn insert(
        &self,
        key: &CacheKey<'_>,
        hash: Hash,
        new: New<'_>,
        is_protected: impl Fn(Stamp) -> bool,
    ) -> Insertion {
        let Some(shard) = self.shard(hash) else { return Insertion::Refused(Refusal::NoCache) };
        shard.lock().insert(key, hash, new, is_protected)
    }

    /// When the entry with this key expires, in seconds; none if there is no such entry.
    pub fn expiry(&self, key: &CacheKey<'_>, hash: Hash) -> Option<u32> {
        self.shard(hash)?.lock().expiry(key, hash)
    }

    /// Makes the tables ready for `entries` more, as far as the capacity allows: cheaper than growing step by step.
    pub fn reserve(&self, entries: usize) {
        let share = entries.div_ceil(self.shards.len().max(1));
        // Shards fill up unevenly.
        self.shards.iter().for_each(|shard| shard.lock().reserve(share.saturating_add(share / 8)));
    }

    /// Drops the entry with this key and gives how many there were.
    pub fn remove(&self, key: &CacheKey<'_>) -> usize {
        let hash = key.hash();
        self.shard(hash).map_or(0, |shard| usize::from(shard.lock().remove(key, hash)))
    }

    /// Drops every entry for the wire name `name`, in lower case, and gives how many there were.
    pub fn remove_name(&self, name: &[u8]) -> usize {
        self.remove_where(|entry| entry.key.name == name)
    }

    /// Drops every entry at or below the wire name `domain`, in lower case, and those whose aliases lead there; gives
    /// how many there were.
    pub fn remove_domain(&self, domain: &[u8]) -> usize {
        let leads_there = |message: &[u8]| find_alias(message, |target| name::is_within(target, domain).then_some(()));
        self.remove_where(|entry| {
            name::is_within(entry.key.name, domain) || matches!(leads_there(entry.message), Ok(Some(())))
        })
    }

    /// Drops everything and gives the memory back.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    /// Every entry, in pages of at most 64 KiB that are locked one at a time: an entry that is kept once more while
    /// pages are read may be missed or shown twice.
    pub fn pages(&self) -> impl Iterator<Item = Page<'_>> {
        self.shards.iter().flat_map(|shard| {
            let stretches = shard.lock().stretches();
            stretches.map(|stretch| Page { shard, stretch })
        })
    }

    /// Shows every entry to `visit`; expired ones too. See [`Cache::pages`].
    pub fn for_each(&self, mut visit: impl FnMut(&EntryView<'_>)) {
        self.pages().for_each(|page| page.for_each(&mut visit));
    }

    /// The cache in figures; takes each shard's lock for a moment.
    pub fn stats(&self) -> Stats {
        let own = size_of_val::<[_]>(&self.shards);
        let start = Stats { bytes: own, capacity: self.capacity, ..Stats::default() };
        self.shards.iter().fold(start, |sum, shard| {
            let shard = shard.lock();
            Stats {
                entries: sum.entries + shard.entries(),
                bytes: sum.bytes + shard.bytes(),
                capacity: sum.capacity,
                evictions: sum.evictions + shard.evictions(),
                inserts: sum.inserts + shard.inserts(),
            }
        })
    }

    fn shard(&self, hash: Hash) -> Option<&Mutex<Shard>> {
        // The count is a power of two, or zero where there is no cache.
        let mask = self.shards.len().checked_sub(1)?;
        self.shards.get(hash.shard_bits() & mask).map(|padded| &**padded)
    }

    fn remove_where(&self, mut condition: impl FnMut(&EntryView<'_>) -> bool) -> usize {
        self.shards.iter().map(|shard| shard.lock().remove_where(&mut condition)).sum()
    }
}

#[cfg(test)]
mod tests;
