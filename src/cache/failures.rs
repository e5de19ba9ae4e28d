//! Failures, remembered beside the answers for a short while (RFC 9520): a name that fails everywhere is not asked for
//! again with every question, and a remembered failure never hides or pushes out an answer.
//!
//! Policy: a failure is found by the 64 bits of its question's hash, whose seed nobody outside knows: that two questions
//! meet is less likely than a flipped bit, and would cost one of them two seconds. The table has fixed places, several
//! for each hash; the oldest of them gives way.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Moment;

use super::Hash;

/// Sets of places; a power of two.
const SETS: usize = 1024;
/// Places in a set.
const WAYS: usize = 8;

/// Failures that are remembered.
#[derive(Debug)]
pub struct Failures {
    sets: Box<[Mutex<[Place; WAYS]>]>,
    /// When the last of them is forgotten, in microseconds: later than that there is nothing to look up.
    last_until: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    hash: u64,
    until: Moment,
}

impl Failures {
    /// Nothing failed yet.
    pub fn new() -> Self {
        let sets = (0..SETS).map(|_| Mutex::new([Place::default(); WAYS])).collect();
        Self { sets, last_until: AtomicU64::new(0) }
    }

    /// Remembers a failure until then.
    pub fn remember(&self, hash: Hash, until: Moment) {
        let mut set = self.set(hash).lock();
        let same = set.iter().position(|place| place.hash == hash.0);
        let oldest = || set.iter().enumerate().min_by_key(|(_, place)| place.until).map_or(0, |(at, _)| at);
        let at = same.unwrap_or_else(oldest);
        set[at] = Place { hash: hash.0, until };
        self.last_until.fetch_max(until.micros(), Ordering::Relaxed);
    }

    /// Whether the question failed a short while ago.
    pub fn lookup(&self, hash: Hash, now: Moment) -> bool {
        if now.micros() >= self.last_until.load(Ordering::Relaxed) {
            return false;
        }
        self.set(hash).lock().iter().any(|place| place.hash == hash.0 && place.until > now)
    }

    /// Forgets them all: the configuration changed, and with it what might be answered.
    pub fn clear(&self) {
        for set in &self.sets {
            *set.lock() = [Place::default(); WAYS];
        }
    }

    fn set(&self, hash: Hash) -> &Mutex<[Place; WAYS]> {
        let index = usize::try_from(hash.0 >> 32).unwrap_or(0) % SETS;
        &self.sets[index]
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_is_remembered_for_its_time_and_for_its_question() {
        let failures = Failures::new();
        let now = Moment::now();
        failures.remember(Hash(7), now + Duration::from_secs(2));
        assert!(failures.lookup(Hash(7), now));
        assert!(!failures.lookup(Hash(8), now));
        assert!(!failures.lookup(Hash(7), now + Duration::from_secs(2)));
    }

    #[test]
    fn more_failures_than_places_push_out_the_oldest() {
        let failures = Failures::new();
        let now = Moment::now();
        for number in 1..=9_u64 {
            failures.remember(Hash(number), now + Duration::from_secs(number));
        }
        assert!(!failures.lookup(Hash(1), now));
        assert!((2..=9).all(|number| failures.lookup(Hash(number), now)));
    }
}
