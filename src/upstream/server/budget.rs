//! Budgets shared by all workers: queries a second to a server, hedges as a share of queries. One atomic each.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::clock::Moment;

/// Microseconds are too coarse for a hundred thousand queries a second.
const FRACTION: u64 = 1024;

/// A bound on events a second: the virtual scheduling algorithm of GCRA, a token bucket in one number. A twentieth of a
/// second's events may come at once, at least four.
#[derive(Debug, Default)]
pub(crate) struct RateBudget {
    /// When, in fractions of a microsecond, the bucket will be full again.
    full_at: AtomicU64,
}

impl RateBudget {
    /// Takes one event, if there is room for it.
    pub(crate) fn take(&self, now: Moment, per_second: u32) -> bool {
        let now = now.micros().saturating_mul(FRACTION);
        let spacing = 1_000_000 * FRACTION / u64::from(per_second.max(1));
        let burst = spacing * u64::from((per_second / 20).max(4));
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now) + spacing;
            (next <= now + burst).then_some(next)
        });
        taken.is_ok()
    }
}

/// One in so many of a unit.
const UNIT: i64 = 1 << 20;

/// A bound on extra events as a share of ordinary ones, with a burst of twenty.
#[derive(Debug)]
pub(crate) struct ShareBudget {
    left: AtomicI64,
}

impl ShareBudget {
    /// How many may come at once after a quiet time.
    pub(crate) const BURST: i64 = 20;

    /// A full budget.
    pub(crate) const fn new() -> Self {
        Self { left: AtomicI64::new(Self::BURST * UNIT) }
    }

    /// Counts an ordinary event, which earns `share` of an extra one.
    pub(crate) fn earn(&self, share: f64) {
        if self.left.load(Relaxed) >= Self::BURST * UNIT {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1 is 2^20")]
        let earned = (share.clamp(0.0, 1.0) * UNIT as f64) as i64;
        self.left.fetch_add(earned, Relaxed);
    }

    /// Gives one back.
    pub(crate) fn give_back(&self) {
        let most = Self::BURST * UNIT;
        let next = |left: i64| (left < most).then(|| (left + UNIT).min(most));
        // A full budget stays so.
        self.left.fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// Takes an extra event, if there is one left.
    pub(crate) fn take(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| (left >= UNIT).then_some(left - UNIT)).is_ok()
    }
}

impl Default for ShareBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_holds_over_seconds_and_bursts_are_bounded() {
        let budget = RateBudget::default();
        let start = Moment::now();
        let at_once = (0..1000).filter(|_| budget.take(start, 1000)).count();
        assert_eq!(at_once, 50);
        let taken = (1..=10_000).filter(|&ms| budget.take(start + Duration::from_micros(ms * 500), 1000)).count();
        assert!((4950..=5050).contains(&taken), "{taken}");
    }

    #[test]
    fn a_slow_rate_still_lets_a_few_through_at_once() {
        let budget = RateBudget::default();
        let now = Moment::now();
        assert_eq!((0..100).filter(|_| budget.take(now, 1)).count(), 4);
        assert!(!budget.take(now + Duration::from_millis(900), 1));
        assert!(budget.take(now + Duration::from_millis(1100), 1));
    }

    #[test]
    fn hedges_are_a_share_of_queries_and_a_burst() {
        let budget = ShareBudget::new();
        let mut taken = 0;
        for _ in 0..10_000 {
            budget.earn(0.03);
            taken += u32::from(budget.take());
        }
        assert!((318..=321).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_given_back_may_be_taken_again_up_to_the_burst() {
        let budget = ShareBudget::new();
        budget.give_back();
        let take_all = || (0..100).filter(|_| budget.take()).count();
        assert_eq!(take_all(), 20);
        (0..3).for_each(|_| budget.give_back());
        assert_eq!(take_all(), 3);
    }
}
