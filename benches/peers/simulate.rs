//! What a good eviction policy would keep: S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction",
//! SOSP 2023), simulated with a number of entries instead of bytes.

use std::collections::{HashMap, HashSet, VecDeque};

/// A name, and whether it is one that is never asked for again.
type Key = (bool, u64);

/// The share of the entries that new names get, in tenths.
const SMALL_TENTHS: usize = 1;
/// The most that is remembered of how often an entry was asked for.
const FREQUENCY_MAX: u8 = 3;

/// A cache of so many entries.
pub(crate) struct S3Fifo {
    capacity: usize,
    frequency: HashMap<Key, u8>,
    small: VecDeque<Key>,
    main: VecDeque<Key>,
    ghosts: VecDeque<Key>,
    is_ghost: HashSet<Key>,
}

impl S3Fifo {
    /// An empty cache.
    pub(crate) fn new(capacity: usize) -> Self {
        let (small, main, ghosts) = Default::default();
        Self { capacity, frequency: HashMap::new(), small, main, ghosts, is_ghost: HashSet::new() }
    }

    /// Asks for a name, and stores it if it is not there. True for a hit.
    pub(crate) fn ask(&mut self, key: Key) -> bool {
        if let Some(frequency) = self.frequency.get_mut(&key) {
            *frequency = (*frequency + 1).min(FREQUENCY_MAX);
            return true;
        }
        while self.frequency.len() >= self.capacity {
            self.evict();
        }
        self.frequency.insert(key, 0);
        if self.is_ghost.remove(&key) {
            self.main.push_back(key)
        } else {
            self.small.push_back(key)
        }
        false
    }

    fn evict(&mut self) {
        if self.small.len() >= self.capacity * SMALL_TENTHS / 10 || self.main.is_empty() {
            let Some(key) = self.small.pop_front() else { return };
            if self.frequency.get(&key).is_some_and(|frequency| *frequency > 1) {
                self.frequency.insert(key, 0);
                self.main.push_back(key);
                return;
            }
            self.frequency.remove(&key);
            self.remember(key);
        } else if let Some(key) = self.main.pop_front() {
            match self.frequency.get_mut(&key) {
                Some(frequency) if *frequency > 0 => {
                    *frequency -= 1;
                    self.main.push_back(key);
                }
                _ => drop(self.frequency.remove(&key)),
            }
        }
    }

    fn remember(&mut self, key: Key) {
        if self.is_ghost.insert(key) {
            self.ghosts.push_back(key);
        }
        while self.ghosts.len() > self.capacity {
            let Some(oldest) = self.ghosts.pop_front() else { return };
            self.is_ghost.remove(&oldest);
        }
    }
}

/// The share of `draws` that a cache of so many entries has, once it is warm. With a flood, a name that is never asked for
/// again follows each.
pub(crate) fn hit_ratio(capacity: usize, warm: &[u32], draws: &[u32], flood: bool) -> f64 {
    let mut cache = S3Fifo::new(capacity);
    let mut never = 0;
    let mut ask = |draw: &u32| {
        let hit = cache.ask((false, u64::from(*draw)));
        if flood {
            never += 1;
            cache.ask((true, never));
        }
        hit
    };
    for draw in warm {
        ask(draw);
    }
    draws.iter().filter(|draw| ask(draw)).count() as f64 / draws.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_asked_for_often_survives_many_that_are_asked_once() {
        let mut cache = S3Fifo::new(100);
        assert!(!cache.ask((false, 7)));
        for number in 0..10_000 {
            assert!(cache.ask((false, 7)), "{number}");
            assert!(!cache.ask((true, number)));
        }
        assert_eq!(cache.frequency.len(), 100);
    }
}
