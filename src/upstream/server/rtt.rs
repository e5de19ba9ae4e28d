//! Smoothed round-trip times (RFC 6298 2), shared between workers.
//!
//! Every try has an id of its own, so each answer belongs to one transmission and every RTT is a valid sample (Karn's
//! ambiguity does not arise). The first may be long for reasons of its own (a neighbour to be found, a cold cache): a
//! second that is shorter takes its place, instead of an eighth of the weight. Two workers that sample at the same
//! moment may lose one sample, which does no harm.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The shortest limit of a try: below it the scheduler of a busy host looks like loss.
pub const LEAST_LIMIT: Duration = Duration::from_millis(20);
/// The limit of a try to a server that has not answered yet; probes measure it soon after the start.
pub const UNKNOWN_LIMIT: Duration = Duration::from_millis(250);
/// The earliest hedge: timers are no finer than this.
pub const LEAST_TAIL: Duration = Duration::from_millis(2);

/// A smoothed RTT and its mean deviation, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smoothed {
    /// SRTT.
    pub mean: u32,
    /// RTTVAR.
    pub deviation: u32,
    /// Whether it is the first sample.
    is_first: bool,
}

/// The longest sample: far above any time-out, it keeps sums in 32 bits and leaves bits of a half free.
const LONGEST: u32 = 3_600_000_000 / 4;
/// Marks the first sample, above the bits of the mean.
const FIRST: u64 = 1 << 63;

impl Smoothed {
    /// Returns the value with one more sample.
    #[must_use]
    pub fn with(before: Option<Self>, sample: Duration) -> Self {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX).clamp(1, LONGEST);
        let alone = |is_first| Self { mean: sample, deviation: sample / 2, is_first };
        let Some(before) = before else { return alone(true) };
        if before.is_first && sample < before.mean {
            return alone(false);
        }
        let error = before.mean.abs_diff(sample);
        Self {
            mean: (before.mean - before.mean / 8 + sample / 8).max(1),
            deviation: before.deviation - before.deviation / 4 + error / 4,
            is_first: false,
        }
    }

    /// SRTT as a duration.
    pub const fn mean(self) -> Duration {
        Duration::from_micros(self.mean as u64)
    }

    /// How long an answer may take before the next server is tried.
    pub fn limit(self, ceiling: Duration) -> Duration {
        let limit = u64::from(self.mean) + 4 * u64::from(self.deviation);
        Duration::from_micros(limit).max(LEAST_LIMIT).min(ceiling)
    }

    /// The usual tail: later answers are rare enough to hedge against.
    pub fn tail(self) -> Duration {
        Duration::from_micros(u64::from(self.mean) + 2 * u64::from(self.deviation)).max(LEAST_TAIL)
    }
}

/// The smoothed RTT of one server.
#[derive(Debug, Default)]
pub struct Rtt(AtomicU64);

impl Rtt {
    /// The current value; none before the first sample.
    pub fn load(&self) -> Option<Smoothed> {
        let packed = self.0.load(Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let is_first = packed & FIRST != 0;
        (packed != 0).then(|| Smoothed { mean: half((packed & !FIRST) >> 32), deviation: half(packed), is_first })
    }

    /// Adds a sample.
    pub fn sample(&self, rtt: Duration) {
        let next = Smoothed::with(self.load(), rtt);
        let mark = if next.is_first { FIRST } else { 0 };
        self.0.store(mark | u64::from(next.mean) << 32 | u64::from(next.deviation), Relaxed);
    }

    /// Copies the value of another server's RTT.
    pub(super) fn copy(&self, other: &Self) {
        self.0.store(other.0.load(Relaxed), Relaxed);
    }

    /// The limit of a try.
    pub fn limit(&self, ceiling: Duration) -> Duration {
        self.load().map_or_else(|| UNKNOWN_LIMIT.min(ceiling), |smoothed| smoothed.limit(ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_mean_and_deviation_between_floor_and_ceiling() {
        let ceiling = Duration::from_secs(1);
        let rtt = Rtt::default();
        assert_eq!(rtt.limit(ceiling), UNKNOWN_LIMIT);
        assert_eq!(rtt.limit(Duration::from_millis(100)), Duration::from_millis(100));
        rtt.sample(Duration::from_millis(10));
        // 10 + 4 * 5
        assert_eq!(rtt.limit(ceiling), Duration::from_millis(30));
        for _ in 0..100 {
            rtt.sample(Duration::from_millis(10));
        }
        assert_eq!(rtt.limit(ceiling), LEAST_LIMIT);
        for _ in 0..100 {
            rtt.sample(Duration::from_secs(3));
        }
        assert_eq!(rtt.limit(ceiling), ceiling);
    }

    #[test]
    fn one_slow_first_sample_is_forgotten_and_slow_ones_are_not() {
        let mean_of = |samples: &[u64]| {
            let rtt = Rtt::default();
            samples.iter().for_each(|&ms| rtt.sample(Duration::from_millis(ms)));
            rtt.load().unwrap().mean()
        };
        assert_eq!(mean_of(&[900, 10]), Duration::from_millis(10));
        assert!(mean_of(&[900, 910, 10]) > Duration::from_millis(700));
        assert!(mean_of(&[900, 890, 10]) > Duration::from_millis(700), "once");
        assert!(mean_of(&[10, 900]) < Duration::from_millis(150));
    }

    #[test]
    fn samples_of_no_time_and_of_ages_are_taken() {
        let rtt = Rtt::default();
        rtt.sample(Duration::ZERO);
        assert!(rtt.load().is_some());
        rtt.sample(Duration::MAX);
        rtt.sample(Duration::MAX);
        assert!(rtt.load().is_some_and(|smoothed| smoothed.mean > 1_000_000));
    }
}
