//! Budgets shared by all workers: queries a second to a server, and hedges as a share of queries. One atomic each.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::clock::Moment;

/// Time units per microsecond: whole microseconds are too coarse for a hundred thousand queries a second.
const FRACTION: u64 = 1024;

/// A rate limit: the virtual scheduling algorithm of GCRA, a token bucket in one number. A burst of a twentieth of a
/// second's events is allowed, at least four.
#[derive(Debug, Default)]
pub(crate) struct RateBudget {
    /// When the bucket will be full again, in fractions of a microsecond.
    full_at: AtomicU64,
}

impl RateBudget {
    /// Takes one event; false if the limit is reached.
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

/// An address with its scope, as an index or by name: fe80::1 on two links is two machines.
type ScopedIp = (IpAddr, u32, Option<Box<str>>);

/// The budgets of all addresses that have a server now.
static BY_ADDRESS: LazyLock<Mutex<HashMap<ScopedIp, Weak<AddressBudget>>>> = LazyLock::new(Mutex::default);

/// The rate limit of all servers at one address: the machine behind it has one limit, whatever groups, ports and
/// transports lead to it.
#[derive(Debug, Default)]
struct AddressBudget {
    rate: RateBudget,
    /// The lowest of `limits`, 0 for none.
    lowest: AtomicU32,
    /// The limit that each server's group sets, by the server's number.
    limits: Mutex<HashMap<u64, u32>>,
}

impl AddressBudget {
    fn limit(&self, server: u64, per_second: Option<u32>) {
        let mut limits = self.limits.lock();
        match per_second {
            Some(per_second) => limits.insert(server, per_second),
            None => limits.remove(&server),
        };
        self.lowest.store(limits.values().copied().min().unwrap_or(0), Relaxed);
    }
}

/// A server's share in the budget of its address.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    server: u64,
    budget: Arc<AddressBudget>,
}

impl BudgetShare {
    /// The share of the server with this number.
    pub(crate) fn of(server: u64, address: SocketAddr, scope: Option<&str>, per_second: Option<u32>) -> Self {
        let index = if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
        let address = (address.ip().to_canonical(), index, scope.map(Into::into));
        let mut all = BY_ADDRESS.lock();
        all.retain(|_, budget| budget.strong_count() > 0);
        let known = all.get(&address).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            let made = Arc::<AddressBudget>::default();
            all.insert(address, Arc::downgrade(&made));
            made
        });
        drop(all);
        budget.limit(server, per_second);
        Self { server, budget }
    }

    /// Sets the limit that a reload brings.
    pub(crate) fn set(&self, per_second: Option<u32>) {
        self.budget.limit(self.server, per_second);
    }

    /// Takes one query; false if the lowest of all limits is reached.
    pub(crate) fn take(&self, now: Moment) -> bool {
        match self.budget.lowest.load(Relaxed) {
            0 => true,
            lowest => self.budget.rate.take(now, lowest),
        }
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.limit(self.server, None);
    }
}

/// Fixed-point unit of the budget.
const UNIT: i64 = 1 << 20;

/// A limit on extra events as a share of ordinary ones, with a burst of twenty.
#[derive(Debug)]
pub(crate) struct ShareBudget {
    left: AtomicI64,
}

impl ShareBudget {
    /// How many extra events are allowed at once after a quiet time.
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

    /// Gives one extra event back.
    pub(crate) fn give_back(&self) {
        let most = Self::BURST * UNIT;
        let next = |left: i64| (left < most).then(|| (left + UNIT).min(most));
        // A full budget stays full.
        self.left.fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// Takes one extra event; false if the budget is used up.
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
    use std::{net::SocketAddrV6, time::Duration};

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
    fn servers_at_one_address_share_the_lowest_limit_while_they_last() {
        let address = "192.0.2.77:53".parse().unwrap();
        let (low, none) = (BudgetShare::of(1, address, None, Some(1)), BudgetShare::of(2, address, None, None));
        let other = BudgetShare::of(3, "192.0.2.78:53".parse().unwrap(), None, None);
        let now = Moment::now();
        let taken = (0..50).filter(|at| if at % 2 == 0 { low.take(now) } else { none.take(now) }).count();
        assert_eq!(taken, 4);
        assert!((0..50).all(|_| other.take(now)));
        low.set(Some(1000));
        none.set(Some(2));
        assert!(!low.take(now + Duration::from_millis(100)));
        drop((low, other));
        none.set(None);
        assert!((0..50).all(|_| none.take(now)));
    }

    #[test]
    fn one_link_local_address_on_two_links_is_two_machines() {
        let at = |index: u32, scope: Option<&str>| {
            let address = SocketAddrV6::new("fe80::77".parse().unwrap(), 53, 0, index);
            BudgetShare::of(index.into(), address.into(), scope, Some(1))
        };
        let (one, two, now) = (at(4, None), at(5, None), Moment::now());
        let (three, four) = (at(0, Some("eth0")), at(0, Some("eth1")));
        let mapped = BudgetShare::of(6, "[::ffff:192.0.2.79]:53".parse().unwrap(), None, Some(1));
        let plain = BudgetShare::of(7, "192.0.2.79:5353".parse().unwrap(), None, Some(1));
        for (server, expected) in [(&one, 4), (&two, 4), (&three, 4), (&four, 4), (&mapped, 4), (&plain, 0)] {
            assert_eq!((0..50).filter(|_| server.take(now)).count(), expected);
        }
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
    fn returned_events_can_be_taken_again_up_to_the_burst() {
        let budget = ShareBudget::new();
        budget.give_back();
        let take_all = || (0..100).filter(|_| budget.take()).count();
        assert_eq!(take_all(), 20);
        (0..3).for_each(|_| budget.give_back());
        assert_eq!(take_all(), 3);
    }
}
