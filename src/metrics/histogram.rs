//! A histogram of durations with fixed buckets from 10 µs to 10 s.

use std::time::Duration;

use super::counter::Counter;

/// Upper bounds of the buckets, in microseconds. One more bucket counts longer durations.
pub const BOUNDS_MICROS: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// Durations, counted by one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_MICROS.len() + 1],
    nanoseconds: Counter,
}

/// The values of a histogram when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Observations by bucket, not cumulative; the last bucket has no upper bound.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// The sum of all durations.
    pub nanoseconds: u64,
}

impl Histogram {
    /// Counts `count` observations of this duration each.
    pub fn record(&self, duration: Duration, count: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(count);
        self.nanoseconds.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).saturating_mul(count));
    }

    /// Reads the current values.
    pub fn read(&self) -> Reading {
        Reading { buckets: std::array::from_fn(|at| self.buckets[at].value()), nanoseconds: self.nanoseconds.value() }
    }
}

impl Reading {
    /// Adds another thread's reading.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }
}
