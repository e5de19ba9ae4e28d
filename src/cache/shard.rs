//! One shard: a ring of entries and a table of where they begin.
//!
//! Policy: entries go in at the head in the order they come. When room is needed the oldest goes, unless it was asked
//! for since it was last at the head: then it moves there once more, its mark cleared (FIFO with reinsertion, the clock
//! algorithm). At most [`MOVES_MOST`] are moved for one insertion, so that it takes a bounded time. What an answer
//! replaces stays as dead octets until the tail comes by.
//!
//! Invariants:
//! - From tail to head the ring is a sequence of entries without gaps; `used` is their sum.
//! - The table holds the offset of each entry that is not dead, and no other.
//! - An entry never wraps; what is left at the end of the ring is a dead entry of at least [`ALIGN`] octets.

use hashbrown::HashTable;

use super::{
    entry::{
        ALIGN, CLAIMED, DEAD, Entry, EntryView, POPULAR, Stamp, VISITED, add_flags, clear_flags, mark, size_of, write,
        write_stamp,
    },
    key::{Tag, spread},
};
use crate::wire::header::HEADER;

/// How many entries one insertion moves at most.
const MOVES_MOST: usize = 16;
/// Octets of ring for each place in the table: small entries take no fewer, so the table is seldom what is full.
const OCTETS_A_PLACE: usize = 110;
/// What a place in the table takes: four octets of offset and one of control.
const PLACE: usize = 5;
/// The shortest lifetime in seconds for which fetching again before its end is worth it.
const PREFETCH_LEAST: u32 = 10;

/// An answer to be kept.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The whole message, QNAME that of the key.
    pub message: &'a [u8],
    /// Where in the message its TTLs stand.
    pub ttl_offsets: &'a [u16],
    /// How long it is fresh, in seconds.
    pub lifetime: u32,
    /// Now, in seconds.
    pub now: u32,
    /// What shaped it.
    pub stamp: Stamp,
}

/// Whether an answer was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was.
    Yes,
    /// It is too long for this cache, or there is none.
    No,
}

/// Whether an entry should be fetched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// Not now, or somebody else was told to.
    NotDue,
    /// By whom this is told.
    Due,
}

/// An entry that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The message's length in octets.
    pub length: usize,
    /// The rule that brought it.
    pub rule: u16,
    /// Seconds since it was stored.
    pub age: u32,
    /// Seconds until its lifetime is over.
    pub remaining: u32,
    /// Whether to fetch it again.
    pub prefetch: Prefetch,
}

/// What a look-up gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Miss,
    /// The message is in the reply.
    Hit(Found),
    /// There is an entry past its lifetime; nothing was copied.
    Expired(Found),
    /// The reply has no room for it; header and question alone were copied.
    TooLarge(Found),
}

/// A part of the cache under one lock.
#[derive(Debug)]
pub struct Shard {
    ring: Vec<u8>,
    table: HashTable<u32>,
    places: usize,
    head: usize,
    tail: usize,
    used: usize,
    evictions: u64,
}

impl Shard {
    pub(super) fn new(capacity: usize) -> Self {
        // hashbrown's tables are powers of two and filled to seven eighths.
        let most_places = capacity / (OCTETS_A_PLACE + PLACE);
        let buckets = if most_places == 0 { 0 } else { 1 << most_places.ilog2() };
        let ring = (capacity - (buckets * PLACE).min(capacity)) / ALIGN * ALIGN;
        Self {
            ring: vec![0; ring],
            table: HashTable::new(),
            places: buckets / 8 * 7,
            head: 0,
            tail: 0,
            used: 0,
            evictions: 0,
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.used + self.table.allocation_size()
    }

    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    fn entry(&self, at: usize) -> Entry<'_> {
        Entry(&self.ring[at..])
    }

    fn find(&self, tag: &Tag<'_, '_>) -> Option<usize> {
        let found = self.table.find(spread(tag.hash), |&offset| Entry(&self.ring[place(offset)..]).is_for(tag));
        found.map(|&offset| place(offset))
    }

    /// The entry's place if it is valid in this generation; one that is not is removed.
    fn find_valid(
        &mut self,
        tag: &Tag<'_, '_>,
        generation: u32,
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<usize> {
        let at = self.find(tag)?;
        let entry = self.entry(at);
        if entry.generation() == generation {
            return Some(at);
        }
        match revalidate(entry.message(), entry.stamp()) {
            Some(stamp) => {
                write_stamp(&mut self.ring[at..], stamp);
                Some(at)
            }
            None => {
                self.forget(at);
                None
            }
        }
    }

    pub(super) fn get(
        &mut self,
        tag: &Tag<'_, '_>,
        now: u32,
        generation: u32,
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Lookup {
        let Some(at) = self.find_valid(tag, generation, revalidate) else { return Lookup::Miss };
        let entry = self.entry(at);
        let age = now.saturating_sub(entry.stored_at());
        let lifetime = entry.lifetime();
        let message = entry.message();
        let remaining = lifetime.saturating_sub(age);
        let found = Found { length: message.len(), rule: entry.rule(), age, remaining, prefetch: Prefetch::NotDue };
        if remaining == 0 {
            return Lookup::Expired(found);
        }
        let Some(copy) = reply.get_mut(..message.len()) else {
            let end = (HEADER + tag.key.name.len() + 4).min(reply.len());
            reply[..end].copy_from_slice(&message[..end]);
            return Lookup::TooLarge(found);
        };
        copy.copy_from_slice(message);
        if age > 0 {
            set_ttls(copy, entry, |ttl| ttl.saturating_sub(age));
        }
        Lookup::Hit(Found { prefetch: self.visit(at, remaining), ..found })
    }

    /// Marks the entry as asked for, and says whether to fetch it again.
    fn visit(&mut self, at: usize, remaining: u32) -> Prefetch {
        let entry = self.entry(at);
        let (flags, lifetime) = (entry.flags(), entry.lifetime());
        let next = if flags & VISITED == 0 { VISITED } else { VISITED | POPULAR };
        if flags & next != next {
            add_flags(&mut self.ring[at..], next);
        }
        let is_due =
            flags & (POPULAR | CLAIMED) == POPULAR && lifetime >= PREFETCH_LEAST && remaining < lifetime.div_ceil(10);
        if !is_due {
            return Prefetch::NotDue;
        }
        add_flags(&mut self.ring[at..], CLAIMED);
        Prefetch::Due
    }

    pub(super) fn stale(
        &mut self,
        tag: &Tag<'_, '_>,
        now: u32,
        generation: u32,
        (most_past, ttl): (u32, u32),
        reply: &mut [u8],
        revalidate: impl FnOnce(&[u8], Stamp) -> Option<Stamp>,
    ) -> Option<Found> {
        let at = self.find_valid(tag, generation, revalidate)?;
        let entry = self.entry(at);
        let age = now.saturating_sub(entry.stored_at());
        let past = age.checked_sub(entry.lifetime())?;
        if past > most_past {
            return None;
        }
        let message = entry.message();
        let copy = reply.get_mut(..message.len())?;
        copy.copy_from_slice(message);
        set_ttls(copy, entry, |_| ttl);
        let found = Found { length: message.len(), rule: entry.rule(), age, remaining: 0, prefetch: Prefetch::NotDue };
        add_flags(&mut self.ring[at..], VISITED);
        Some(found)
    }

    pub(super) fn insert(&mut self, tag: &Tag<'_, '_>, new: &New<'_>) -> Stored {
        let size = size_of(new.ttl_offsets.len(), new.message.len());
        // No single answer may push out more than an eighth of the rest.
        let fits = size <= self.ring.len() / 8 && new.message.len() <= crate::wire::MAX_MESSAGE && self.places > 0;
        if let Some(at) = self.find(tag) {
            self.forget(at);
        }
        if !fits {
            return Stored::No;
        }
        let at = self.make_room(size);
        write(&mut self.ring[at..at + size], tag, new);
        self.enter(at, tag.hash);
        Stored::Yes
    }

    /// Evicts at the tail until an entry of `size` can begin at the place that is given back, which the head has passed.
    fn make_room(&mut self, size: usize) -> usize {
        let mut moves = MOVES_MOST;
        loop {
            if self.table.len() < self.places
                && let Some(at) = self.advance(size)
            {
                return at;
            }
            self.evict(&mut moves);
        }
    }

    /// Moves the head past `size` octets without a wrap among them, if the room is free.
    fn advance(&mut self, size: usize) -> Option<usize> {
        let free = self.ring.len() - self.used;
        let to_end = self.ring.len() - self.head;
        if size <= to_end {
            if size > free {
                return None;
            }
        } else if size + to_end > free {
            return None;
        } else {
            if to_end > 0 {
                mark(&mut self.ring[self.head..], to_end, DEAD);
            }
            self.used += to_end;
            self.head = 0;
        }
        let at = self.head;
        self.head += size;
        self.used += size;
        if self.head == self.ring.len() {
            self.head = 0;
        }
        Some(at)
    }

    /// Takes the entry at the tail away, or moves it to the head.
    fn evict(&mut self, moves: &mut usize) {
        let at = self.tail;
        let entry = self.entry(at);
        let (size, flags, hash) = (entry.size(), entry.flags(), entry.hash());
        self.tail = if at + size >= self.ring.len() { 0 } else { at + size };
        self.used -= size;
        if flags & DEAD != 0 {
            return;
        }
        self.leave(at, hash);
        let may_move = flags & VISITED != 0 && *moves > 0 && self.head + size <= self.ring.len();
        if may_move && let Some(to) = self.advance(size) {
            *moves -= 1;
            self.ring.copy_within(at..at + size, to);
            clear_flags(&mut self.ring[to..], VISITED);
            self.enter(to, hash);
            return;
        }
        self.evictions += 1;
    }

    fn enter(&mut self, at: usize, hash: u32) {
        let ring = &self.ring;
        let rehash = |&offset: &u32| spread(Entry(&ring[place(offset)..]).hash());
        self.table.insert_unique(spread(hash), offset(at), rehash);
    }

    fn leave(&mut self, at: usize, hash: u32) {
        if let Ok(slot) = self.table.find_entry(spread(hash), |&other| other == offset(at)) {
            slot.remove();
        }
    }

    fn forget(&mut self, at: usize) {
        let hash = self.entry(at).hash();
        self.leave(at, hash);
        add_flags(&mut self.ring[at..], DEAD);
    }

    pub(super) fn remove(&mut self, matches: &mut impl FnMut(&EntryView<'_>) -> bool) -> usize {
        let places: Vec<usize> = self.table.iter().map(|&offset| place(offset)).collect();
        let mut removed = 0;
        for at in places {
            if matches(&EntryView::new(self.entry(at))) {
                self.forget(at);
                removed += 1;
            }
        }
        removed
    }

    pub(super) fn for_each(&self, see: &mut impl FnMut(&EntryView<'_>)) {
        for &offset in &self.table {
            see(&EntryView::new(self.entry(place(offset))));
        }
    }
}

fn place(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(0) * ALIGN
}

fn offset(place: usize) -> u32 {
    // A shard is far smaller than 2^32 units.
    u32::try_from(place / ALIGN).unwrap_or(0)
}

fn set_ttls(message: &mut [u8], entry: Entry<'_>, ttl: impl Fn(u32) -> u32) {
    for at in entry.ttl_offsets() {
        if let Some(field) = message.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *field = ttl(u32::from_be_bytes(*field)).to_be_bytes();
        }
    }
}
