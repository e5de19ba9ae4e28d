//! A sample of the events of one worker, for the hottest names and clients.
//!
//! Policy: one event in N is kept, at random distances so that no pattern of queries hides from it, in a buffer of fixed
//! size until [`Sampler::drain`]. When the buffer is full, every other sample leaves it and N doubles, so each sample
//! stands for N events. A drain sets N to what would have filled the buffer. An event that is passed over costs a load,
//! a comparison and a store; one that is kept allocates nothing and never waits: while the buffer is being drained, the
//! next one is taken instead.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// The most samples that wait for a drain.
pub const CAPACITY: usize = 128;

/// Keeps samples.
///
/// Invariant: only the worker's own thread calls [`Sampler::is_due`] and [`Sampler::pick`].
#[derive(Debug)]
pub struct Sampler<T> {
    /// Events up to and including the next one that is kept, at least 1.
    left: AtomicU64,
    kept: Mutex<Samples<T>>,
}

/// Events that were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples<T> {
    /// The events.
    pub events: Vec<T>,
    /// How many events each of them stands for.
    pub every: u64,
}

impl<T> Default for Sampler<T> {
    fn default() -> Self {
        let kept = Samples { events: Vec::with_capacity(CAPACITY), every: 1 };
        Self { left: AtomicU64::new(1), kept: Mutex::new(kept) }
    }
}

impl<T> Sampler<T> {
    /// Whether one of the next `count` events is to be kept: then [`Self::pick`] must follow. Else they are passed over.
    #[inline]
    pub fn is_due(&self, count: usize) -> bool {
        let (left, count) = (self.left.load(Relaxed), count as u64);
        if left <= count {
            return true;
        }
        self.left.store(left - count, Relaxed);
        false
    }

    /// Keeps those that are due among `count` events; `event` gives the one with a number, if it can be read.
    #[cold]
    #[inline(never)]
    pub fn pick(&self, count: usize, mut event: impl FnMut(usize) -> Option<T>) {
        let Some(mut kept) = self.kept.try_lock() else { return self.left.store(1, Relaxed) };
        let (mut at, count) = (self.left.load(Relaxed) - 1, count as u64);
        while at < count {
            if kept.events.len() == CAPACITY {
                kept.halve();
            }
            kept.events.extend(usize::try_from(at).ok().and_then(&mut event));
            at += distance(kept.every);
        }
        self.left.store(at - count + 1, Relaxed);
    }

    /// Takes out what was kept since the last time.
    pub fn drain(&self) -> Samples<T> {
        let mut kept = self.kept.lock();
        let every = kept.every;
        // The buffer keeps its capacity.
        let events: Vec<T> = kept.events.drain(..).collect();
        kept.every = (every * events.len() as u64 / CAPACITY as u64).max(1);
        if events.is_empty() {
            // The last distance may be from a busier time. If the worker counts at this moment, the next drain does it.
            self.left.store(1, Relaxed);
        }
        Samples { events, every }
    }
}

impl<T> Samples<T> {
    fn halve(&mut self) {
        let mut stays = false;
        self.events.retain(|_| {
            stays = !stays;
            stays
        });
        self.every = self.every.saturating_mul(2);
    }
}

/// A random distance, `every` on average.
fn distance(every: u64) -> u64 {
    if every == 1 { 1 } else { rand::random_range(1..every * 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `count` events in batches of this size by a sampler.
    fn pass(sampler: &Sampler<usize>, count: usize, batch: usize) {
        for first in (0..count).step_by(batch) {
            if sampler.is_due(batch) {
                sampler.pick(batch, |at| Some(first + at));
            }
        }
    }

    #[test]
    fn few_events_are_all_kept() {
        for batch in [1, 7, 32] {
            let sampler = Sampler::default();
            pass(&sampler, 96, batch);
            let Samples { events, every } = sampler.drain();
            assert_eq!((events, every), ((0..96_usize.next_multiple_of(batch)).collect(), 1), "in batches of {batch}");
        }
    }

    #[test]
    fn of_many_events_a_bounded_number_stands_for_all() {
        let sampler = Sampler::default();
        for round in 0..100 {
            pass(&sampler, 100_000, 32);
            let Samples { events, every } = sampler.drain();
            assert!((CAPACITY / 4..=CAPACITY).contains(&events.len()), "round {round}: {}", events.len());
            let sum = events.len() as u64 * every;
            assert!((50_000..200_000).contains(&sum), "round {round}: {sum} of 100,000");
        }
    }

    #[test]
    fn a_pattern_does_not_hide_from_it() {
        let (sampler, mut odd, mut all) = (Sampler::default(), 0, 0);
        for _ in 0..50 {
            pass(&sampler, 50_000, 16);
            let events = sampler.drain().events;
            all += events.len();
            odd += events.iter().filter(|event| *event % 2 == 1).count();
        }
        assert!((all * 2 / 5..all * 3 / 5).contains(&odd), "{odd} of {all}");
    }

    #[test]
    fn after_a_busy_time_every_event_is_kept_again() {
        let sampler = Sampler::default();
        pass(&sampler, 1_000_000, 1);
        sampler.drain();
        sampler.drain();
        pass(&sampler, 50, 1);
        assert_eq!(sampler.drain(), Samples { events: (0..50).collect(), every: 1 });
    }

    #[test]
    fn the_worker_never_waits_for_the_reader() {
        let sampler = Sampler::default();
        let reader = sampler.kept.lock();
        pass(&sampler, 5, 1);
        drop(reader);
        assert_eq!(sampler.drain().events, [0; 0], "lost, not waited for");
        pass(&sampler, 1, 1);
        assert_eq!(sampler.drain().events, [0]);
    }
}
