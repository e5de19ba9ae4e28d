//! Remembers failures of resolution, and until when they are not retried (RFC 9520 3.2). They are kept apart from the
//! cache, so that no failure evicts an answer or hides a stale one.
//!
//! The memory is fixed: sets of `WAYS` slots, and a new failure takes the slot whose time ends first. Forgetting one
//! early costs a query upstream, no more. A slot holds 128 bits of the key's hash, from a secret seed, so that no name
//! answers for another's failure. The engine calls it on a miss, before it asks upstream, and after it has failed.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::{clock::Moment, wire::name::MAX_NAME};

use super::CacheKey;

/// Slots in a set.
const WAYS: usize = 8;
/// Sets behind one lock.
const SETS: usize = 64;
/// Locks. With the above: room for 8,192 failures in 256 KiB. At the default of 2 s that is 4,096 failing queries a
/// second, each asked upstream only once in that time.
const SHARDS: usize = 16;
/// The longest time a failure may be remembered (RFC 9520 3.2).
pub const LONGEST: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
struct Slot<T> {
    key: u128,
    /// When the name may be asked again; the origin in an unused slot. Not in whole seconds: RFC 9520 3.2 demands at
    /// least one second, and a second that has nearly passed would count as one.
    until: Moment,
    /// The failure.
    what: Option<T>,
}

impl<T> Slot<T> {
    const FREE: Self = Self { key: 0, until: Moment::from_micros(0), what: None };
}

type Set<T> = [Slot<T>; WAYS];

type Shard<T> = CachePadded<Mutex<Box<[Set<T>]>>>;

/// Failures by key; shared by all workers.
#[derive(Debug)]
pub struct Failures<T> {
    shards: [Shard<T>; SHARDS],
    seed: u64,
    /// When the last failure expires, in microseconds. Most of the time that has passed, and no look-up is needed.
    nothing_from: AtomicU64,
}

impl<T: Clone> Default for Failures<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Failures<T> {
    /// An empty memory.
    pub fn new() -> Self {
        let shard = |_| CachePadded::new(Mutex::new((0..SETS).map(|_| [Slot::FREE; WAYS]).collect()));
        Self { shards: array::from_fn(shard), seed: rand::random(), nothing_from: AtomicU64::new(0) }
    }

    /// Remembers that `key` failed at `now`, for `time`, at most [`LONGEST`]. A `time` of zero forgets it.
    pub fn remember(&self, key: &CacheKey<'_>, now: Moment, time: Duration, what: T) {
        let until = now + time.min(LONGEST);
        self.nothing_from.fetch_max(until.micros(), Ordering::Relaxed);
        self.with_set(key, |set, key| {
            let same = set.iter().position(|slot| slot.key == key && slot.what.is_some());
            let first = (0..WAYS).min_by_key(|&way| set[way].until);
            if let Some(way) = same.or(first) {
                set[way] = Slot { key, until, what: Some(what) };
            }
        });
    }

    /// Whether no failure is remembered at `now`, as is mostly the case.
    pub fn is_empty(&self, now: Moment) -> bool {
        now.micros() >= self.nothing_from.load(Ordering::Relaxed)
    }

    /// The failure of `key`, if it is still remembered at `now`.
    pub fn find(&self, key: &CacheKey<'_>, now: Moment) -> Option<T> {
        if self.is_empty(now) {
            return None;
        }
        self.with_set(key, |set, key| set.iter().find(|slot| slot.key == key && slot.until > now)?.what.clone())
    }

    /// Forgets that `key` failed: it has been answered.
    pub fn forget(&self, key: &CacheKey<'_>) {
        self.with_set(key, |set, key| {
            for slot in set.iter_mut().filter(|slot| slot.key == key) {
                *slot = Slot::FREE;
            }
        });
    }

    /// Forgets everything: other rules are in force, or a group is up again.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.lock().fill_with(|| [Slot::FREE; WAYS]);
        }
    }

    /// How many failures are remembered at `now`.
    pub fn count(&self, now: Moment) -> usize {
        let fresh = |set: &Set<T>| set.iter().filter(|slot| slot.until > now).count();
        self.shards.iter().map(|shard| shard.lock().iter().map(fresh).sum::<usize>()).sum()
    }

    fn with_set<R>(&self, key: &CacheKey<'_>, action: impl FnOnce(&mut Set<T>, u128) -> R) -> R {
        let hash = hash(key, self.seed);
        let bytes = hash.to_le_bytes();
        let mut shard = self.shards[usize::from(bytes[0]) % SHARDS].lock();
        action(&mut shard[usize::from(bytes[1]) % SETS], hash)
    }
}

fn hash(key: &CacheKey<'_>, seed: u64) -> u128 {
    const NUMBERS: usize = 9;
    let mut buffer = [0; NUMBERS + MAX_NAME];
    buffer[..2].copy_from_slice(&key.qtype.0.to_be_bytes());
    buffer[2..4].copy_from_slice(&key.qclass.0.to_be_bytes());
    buffer[4..8].copy_from_slice(&key.view.to_be_bytes());
    buffer[8] = u8::from(key.do_bit) << 1 | u8::from(key.cd);
    let length = key.name.len().min(MAX_NAME);
    buffer[NUMBERS..NUMBERS + length].copy_from_slice(&key.name[..length]);
    xxh3_128_with_seed(&buffer[..NUMBERS + length], seed)
}

#[cfg(test)]
mod tests {
    use crate::wire::{Class, Name, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: f64) -> Moment {
        Moment::at(Duration::from_secs_f64(seconds))
    }

    fn key(name: &Name) -> CacheKey<'_> {
        CacheKey { name: name.as_wire(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false, view: 0 }
    }

    #[test]
    fn a_failure_is_remembered_for_its_time_and_no_longer() {
        let (failures, name) = (Failures::new(), name("broken.example"));
        // Even if it failed near the end of a second, it is remembered for a whole one.
        failures.remember(&key(&name), at(100.9), SECOND, ());
        assert!(failures.find(&key(&name), at(101.8)).is_some());
        assert!(failures.find(&key(&name), at(101.9)).is_none());
        failures.remember(&key(&name), at(102.0), Duration::MAX, ());
        assert!(failures.find(&key(&name), at(102.0) + LONGEST - SECOND).is_some());
        assert!(failures.find(&key(&name), at(102.0) + LONGEST).is_none());
    }

    #[test]
    fn an_answer_forgets_the_failure() {
        let (failures, name) = (Failures::new(), name("mended.example"));
        failures.remember(&key(&name), at(100.0), 60 * SECOND, ());
        failures.forget(&key(&name));
        assert!(failures.find(&key(&name), at(100.0)).is_none());
        failures.remember(&key(&name), at(100.0), 60 * SECOND, ());
        failures.remember(&key(&name), at(100.0), Duration::ZERO, ());
        assert!(failures.find(&key(&name), at(100.0)).is_none());
        failures.remember(&key(&name), at(100.0), 60 * SECOND, ());
        failures.clear();
        assert_eq!(failures.count(at(100.0)), 0);
    }

    #[test]
    fn every_part_of_the_key_tells_failures_apart() {
        let (failures, name, other) = (Failures::new(), name("a.example"), name("b.example"));
        let failed = key(&name);
        failures.remember(&failed, at(100.0), 60 * SECOND, ());
        for key in [
            key(&other),
            CacheKey { qtype: RecordType::AAAA, ..failed },
            CacheKey { qclass: Class::CH, ..failed },
            CacheKey { do_bit: true, ..failed },
            CacheKey { cd: true, ..failed },
            CacheKey { view: 1, ..failed },
        ] {
            assert!(failures.find(&key, at(100.0)).is_none(), "{key:?}");
        }
    }

    #[test]
    fn more_failures_than_there_are_slots_push_out_the_oldest() {
        let failures = Failures::new();
        let slots = WAYS * SETS * SHARDS;
        for index in 0..4 * slots {
            let name = name(&format!("n{index}.example"));
            let now = at(100.0) + SECOND * u32::try_from(index * 100 / slots).unwrap();
            failures.remember(&key(&name), now, LONGEST, ());
            assert!(failures.find(&key(&name), now).is_some(), "the latest is always known");
        }
        assert_eq!(failures.count(at(100.0)), slots, "every slot is in use");
    }
}
