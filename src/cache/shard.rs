//! One shard: rings of entries and a table that finds them.
//!
//! Invariants:
//! - The table holds the place of every entry that is not dead, and of nothing else.
//! - The table never has more than its `max_buckets`; a quarter of them hold no entry, so that tombstones
//!   rarely cause a rebuild and never growth.

mod eviction;

use hashbrown::HashTable;

use self::eviction::Claim;
pub use self::eviction::MOVES;
use super::{
    CacheHit, CacheKey, EntryView, Hash, Insertion, Lookup, New, Peeked, Prefetch, Refusal, Staleness, Stamp,
    entry::{self, Draft, Entry, Flag},
    ghosts::Ghosts,
    ring::{Place, Which},
    rings::Rings,
    view::Showcase,
};

/// Bytes of a shard for each bucket of its table, at most; half as many at least, since buckets come in powers of two.
/// With three quarters of them used, entries of 86 bytes fill the ring before the table in any case, and those of 43
/// at best; one A record for a name of 56 characters makes 92. The table takes from 8 to 16 % of the shard.
const BYTES_PER_BUCKET: usize = 64;
/// A place and an octet of hash for each bucket; and one group of octets more.
const BUCKET: usize = size_of::<Place>() + 1;
const GROUP: usize = 16;
/// A shard below this holds no useful answer.
const MIN_RING: usize = 512;
/// One entry may take this share of a shard.
const SHARE: usize = 8;
/// Lifetimes from which prefetching pays, in seconds.
const PREFETCH_FROM: u32 = 10;

/// One shard; the module describes it.
#[derive(Debug)]
pub(super) struct Shard {
    rings: Rings,
    ghosts: Ghosts,
    /// Whether the main ring has no more room for new entries unless others go.
    is_full: bool,
    table: HashTable<Place>,
    max_buckets: usize,
    longest: usize,
    evictions: u64,
    inserts: u64,
}

impl Shard {
    /// A shard of `capacity` bytes, its own struct aside; none if that is too little for any use.
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let max_buckets = (capacity / BYTES_PER_BUCKET).next_power_of_two().max(4);
        let beside = max_buckets * BUCKET + GROUP + Ghosts::overhead(max_buckets) + Rings::overhead(capacity);
        let room = capacity.checked_sub(beside)?;
        if room < MIN_RING {
            return None;
        }
        let rings = Rings::new(room);
        let longest = rings.longest().min(capacity / SHARE);
        let (ghosts, table) = (Ghosts::new(max_buckets), HashTable::new());
        Some(Self { rings, ghosts, is_full: false, table, max_buckets, longest, evictions: 0, inserts: 0 })
    }

    pub(super) fn entries(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rings.bytes() + self.ghosts.bytes() + self.table.allocation_size()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn inserts(&self) -> u64 {
        self.inserts
    }

    /// See [`super::Cache::get`].
    pub(super) fn get(
        &mut self,
        key: &CacheKey<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Lookup {
        let Some(place) = self.find(key, hash) else { return Lookup::Miss };
        let entry = Entry(self.rings.entry(place));
        let mut found = age(entry, now);
        if found.remaining == 0 {
            entry::set(self.rings.entry_mut(place), Flag::VISITED);
            return Lookup::Expired(found);
        }
        if entry.generation() != generation {
            let Some(rule) = self.judge(place, hash, reply, revalidate) else { return Lookup::Miss };
            found.rule = rule;
        }
        let bytes = self.rings.entry_mut(place);
        found.prefetch = visit(bytes, found.remaining);
        let entry = Entry(bytes);
        match entry.copy_to(reply, key.name.len(), |ttl| ttl.saturating_sub(found.age)) {
            Some(message) => Lookup::Hit(CacheHit { length: message.len(), ..found }),
            None => Lookup::TooLarge(CacheHit { length: entry.copy_question_to(reply), ..found }),
        }
    }

    /// See [`super::Cache::stale`].
    #[expect(clippy::too_many_arguments, reason = "get's, and how stale")]
    pub(super) fn stale(
        &mut self,
        key: &CacheKey<'_>,
        hash: Hash,
        now: u32,
        generation: u32,
        staleness: Staleness,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<CacheHit> {
        let place = self.find(key, hash)?;
        let entry = Entry(self.rings.entry(place));
        let mut found = age(entry, now);
        if found.remaining == 0 && found.past > staleness.max {
            return None;
        }
        if entry.generation() != generation {
            found.rule = self.judge(place, hash, reply, revalidate)?;
        }
        entry::set(self.rings.entry_mut(place), Flag::VISITED);
        let entry = Entry(self.rings.entry(place));
        let ttl = |ttl: u32| if found.remaining == 0 { staleness.ttl } else { ttl.saturating_sub(found.age) };
        let message = entry.copy_to(reply, key.name.len(), ttl)?;
        Some(CacheHit { length: message.len(), ..found })
    }

    /// See [`super::Cache::peek`].
    pub(super) fn peek(&self, key: &CacheKey<'_>, hash: Hash, now: u32) -> Option<Peeked> {
        let entry = Entry(self.rings.entry(self.find(key, hash)?));
        let found = age(entry, now);
        let mut message = vec![0; entry.length()];
        entry.copy_to(&mut message, key.name.len(), |ttl| ttl.saturating_sub(found.age))?;
        Some(Peeked { found: CacheHit { length: message.len(), ..found }, stamp: entry.stamp(), message })
    }

    /// See [`super::Cache::insert`].
    pub(super) fn insert(
        &mut self,
        key: &CacheKey<'_>,
        hash: Hash,
        new: New<'_>,
        is_protected: impl Fn(Stamp) -> bool,
    ) -> Insertion {
        let draft = match Draft::new(key, new) {
            Ok(draft) => draft,
            Err(refusal) => return self.refuse(key, hash, refusal),
        };
        let size = draft.size();
        if size > self.longest {
            return self.refuse(key, hash, Refusal::TooLarge);
        }
        let old = self.find(key, hash);
        if let Some(place) = old {
            let bytes = self.rings.entry_mut(place);
            if Entry(bytes).size() == size {
                // It stays where it is, perhaps next to be evicted, but it was just asked for again.
                draft.write(bytes, &[Flag::VISITED]);
                self.inserts += 1;
                return Insertion::Replaced;
            }
            self.drop_entry(place, hash);
        }
        let claim = if old.is_some() { Claim::Renewed } else { Claim::New };
        let Some(place) = self.allot(size, hash, claim, is_protected) else {
            return Insertion::Refused(Refusal::NoRoom);
        };
        draft.write(self.rings.entry_mut(place), &[]);
        self.index(place, hash);
        self.inserts += 1;
        if old.is_some() { Insertion::Replaced } else { Insertion::Stored }
    }

    /// Removes the entry that an answer supersedes which cannot be stored (RFC 8767 4).
    fn refuse(&mut self, key: &CacheKey<'_>, hash: Hash, refusal: Refusal) -> Insertion {
        if matches!(refusal, Refusal::NoLifetime | Refusal::TooLarge) {
            self.remove(key, hash);
        }
        Insertion::Refused(refusal)
    }

    /// Reserves table slots for so many more entries, within its bound.
    pub(super) fn reserve(&mut self, entries: usize) {
        let rings = &self.rings;
        let room = self.max_entries().saturating_sub(self.table.len());
        self.table.reserve(entries.min(room), |&place| Entry(rings.entry(place)).hash().0);
    }

    /// Drops the entry for `key`; true if there was one.
    pub(super) fn remove(&mut self, key: &CacheKey<'_>, hash: Hash) -> bool {
        let place = self.find(key, hash);
        if let Some(place) = place {
            self.drop_entry(place, hash);
        }
        place.is_some()
    }

    /// Drops every entry that meets the condition; returns their number.
    pub(super) fn remove_where(&mut self, mut condition: impl FnMut(&EntryView<'_>) -> bool) -> usize {
        let before = self.table.len();
        let rings = &mut self.rings;
        let mut showcase = Showcase::default();
        self.table.retain(|&mut place| {
            let bytes = rings.entry_mut(place);
            let goes = condition(&showcase.show(Entry(bytes)));
            if goes {
                entry::set(bytes, Flag::DEAD);
            }
            !goes
        });
        before - self.table.len()
    }

    /// Drops everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.table = HashTable::new();
        self.rings.clear();
        self.ghosts.clear();
        self.is_full = false;
    }

    /// The stretches of its rings, the oldest of each first.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (Which, usize)> + use<> {
        self.rings.stretches()
    }

    /// Calls the visitor with every entry in a stretch of its rings, the oldest first.
    pub(super) fn for_each_in(&self, stretch: (Which, usize), mut visit: impl FnMut(&EntryView<'_>)) {
        let mut showcase = Showcase::default();
        self.rings.walk_stretch(stretch, |_, bytes| {
            let entry = Entry(bytes);
            if !entry.has(Flag::DEAD) {
                visit(&showcase.show(entry));
            }
            entry.size()
        });
    }

    /// See [`super::Cache::expiry`].
    pub(super) fn expiry(&self, key: &CacheKey<'_>, hash: Hash) -> Option<u32> {
        let entry = Entry(self.rings.entry(self.find(key, hash)?));
        Some(entry.stored_at().saturating_add(entry.lifetime()))
    }

    fn find(&self, key: &CacheKey<'_>, hash: Hash) -> Option<Place> {
        self.table.find(hash.0, |&place| Entry(self.rings.entry(place)).is_for(key)).copied()
    }

    /// Revalidates an entry of another generation: returns its rule under the new stamp, or drops it.
    fn judge(
        &mut self,
        place: Place,
        hash: Hash,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<u32> {
        let entry = Entry(self.rings.entry(place));
        let name = entry.name_length();
        let stamp = match entry.copy_to(reply, name, |ttl| ttl) {
            Some(message) => revalidate(message, entry.stamp()),
            // Rare: once for an entry and generation, and only where the asker's limit is below the message.
            None => revalidate(&mut *entry.copy_to(&mut vec![0; entry.length()], name, |ttl| ttl)?, entry.stamp()),
        };
        match stamp {
            Some(stamp) => entry::restamp(self.rings.entry_mut(place), stamp),
            None => self.drop_entry(place, hash),
        }
        stamp.map(|stamp| stamp.rule)
    }

    fn drop_entry(&mut self, place: Place, hash: Hash) {
        entry::set(self.rings.entry_mut(place), Flag::DEAD);
        if let Ok(slot) = self.table.find_entry(hash.0, |&other| other == place) {
            slot.remove();
        }
    }

    fn max_entries(&self) -> usize {
        self.max_buckets / 4 * 3
    }

    fn index(&mut self, place: Place, hash: Hash) {
        let rings = &self.rings;
        let rehash = |&place: &Place| Entry(rings.entry(place)).hash().0;
        if self.table.len() == self.table.capacity() && self.table.num_buckets() >= self.max_buckets {
            // Only tombstones are left: an insertion would grow the table past its bound.
            let table = &mut self.table;
            table.clear();
            rings.walk(|other, bytes| {
                let entry = Entry(bytes);
                if other != place && !entry.has(Flag::DEAD) {
                    table.insert_unique(entry.hash().0, other, rehash);
                }
                entry.size()
            });
        }
        self.table.insert_unique(hash.0, place, rehash);
    }
}

/// Marks a hit of the entry that `bytes` start with, which is good for `remaining` seconds more.
fn visit(bytes: &mut [u8], remaining: u32) -> Prefetch {
    entry::set(bytes, Flag::VISITED);
    if !Entry(bytes).has(Flag::POPULAR) {
        let flag = if Entry(bytes).has(Flag::HIT) { Flag::POPULAR } else { Flag::HIT };
        entry::set(bytes, flag);
    }
    let entry = Entry(bytes);
    let lifetime = entry.lifetime();
    // remaining < lifetime / 10, without losing the fraction; lifetimes of 2^31 and more do not occur (RFC 2181 8).
    if lifetime < PREFETCH_FROM
        || remaining.saturating_mul(10) >= lifetime
        || !entry.has(Flag::POPULAR)
        || entry.has(Flag::CLAIMED)
    {
        return Prefetch::NotDue;
    }
    entry::set(bytes, Flag::CLAIMED);
    Prefetch::Due
}

fn age(entry: Entry<'_>, now: u32) -> CacheHit {
    let age = now.saturating_sub(entry.stored_at());
    let lifetime = entry.lifetime();
    CacheHit {
        length: 0,
        rule: entry.rule(),
        age,
        remaining: lifetime.saturating_sub(age),
        past: age.saturating_sub(lifetime),
        prefetch: Prefetch::NotDue,
        integrity: entry.integrity(),
    }
}
