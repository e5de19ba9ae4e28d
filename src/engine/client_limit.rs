//! Rate limits for clients: `client_qps` and `client_burst`.
//!
//! Policy: a token bucket a client (IPv4 /32, IPv6 /64) in a table of fixed size. Over its rate a client's datagrams
//! are dropped and counted; one in `SLIP` is answered with TC=1 instead, so that a client whose address is not forged
//! comes back over a stream. Streams and clients that send a valid cookie (RFC 7873) are not limited, since their
//! address is proven; nor are those in `exempt`. Clients in one cell of the table share its bucket. A random key
//! decides which do, so that nobody can choose whom to share with. All workers share the table: a client's queries may
//! reach any of them.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use foldhash::quality::RandomState;

use crate::{
    clock::Moment,
    config,
    networks::{Networks, client_prefix},
};

/// Cells of the table: half a megabyte.
const CELLS: usize = 1 << 16;
/// One in so many of a client's surplus datagrams is answered with TC=1.
const SLIP: u64 = 8;
/// Microseconds in a second.
const SECOND: u64 = 1_000_000;

/// The rate limit of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Queries a second.
    pub qps: NonZeroU32,
    /// Queries at once; at least one.
    pub burst: u32,
    /// Clients that are not limited.
    pub exempt: Networks<()>,
}

/// How a datagram is treated under the rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Handled.
    Free,
    /// Answered with TC=1.
    Slip,
    /// Dropped.
    Dropped,
}

/// When each client's bucket is full again, in microseconds.
///
/// Invariant: a cell holds the time at which the bucket will be full (GCRA's theoretical arrival time); one that lies
/// in the past is a full bucket. Its lowest three bits count surplus datagrams.
#[derive(Debug)]
pub struct ClientBuckets {
    cells: Box<[AtomicU64]>,
    key: RandomState,
}

impl RateLimit {
    /// Takes the limit from the configuration.
    pub fn new(limit: &config::ClientLimit) -> Self {
        let exempt = Networks::new(limit.exempt.iter().map(|&network| (network, ())));
        Self { qps: limit.qps, burst: limit.burst, exempt }
    }
}

impl Default for ClientBuckets {
    fn default() -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(), key: RandomState::default() }
    }
}

impl ClientBuckets {
    /// Counts one query of a client, and decides how to treat it.
    pub fn admit(&self, limit: &RateLimit, client: IpAddr, now: Moment) -> Passage {
        if limit.exempt.contains(client) {
            return Passage::Free;
        }
        let hash = self.key.hash_one(client_prefix(client));
        #[expect(clippy::cast_possible_truncation, reason = "only the lower bits choose a cell")]
        let cell = &self.cells[hash as usize % CELLS];
        let step = (SECOND / u64::from(limit.qps.get())).max(1);
        let depth = step * u64::from(limit.burst.max(1));
        let old = cell.load(Relaxed);
        let (full_at, surplus) = (old & !(SLIP - 1), old % SLIP);
        let now = now.micros() & !(SLIP - 1);
        let next = full_at.max(now) + step.next_multiple_of(SLIP);
        // Updates lost between racing workers let an extra query pass, and never block one.
        if next - now <= depth.next_multiple_of(SLIP) {
            cell.store(next, Relaxed);
            return Passage::Free;
        }
        cell.store(full_at | ((surplus + 1) % SLIP), Relaxed);
        if surplus == 0 { Passage::Slip } else { Passage::Dropped }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(qps: u32, burst: u32) -> RateLimit {
        let exempt = Networks::new([("10.9.0.0/16".parse().unwrap(), ())]);
        RateLimit { qps: NonZeroU32::new(qps).unwrap(), burst, exempt }
    }

    fn passed(
        clients: &ClientBuckets,
        limit: &RateLimit,
        client: &str,
        times: impl Iterator<Item = Moment>,
    ) -> [usize; 3] {
        let mut counts = [0; 3];
        for now in times {
            counts[clients.admit(limit, client.parse().unwrap(), now) as usize] += 1;
        }
        counts
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let (clients, limit) = (ClientBuckets::default(), limit(100, 20));
        let start = Moment::default() + Duration::from_secs(1000);
        let [free, slipped, dropped] = passed(&clients, &limit, "192.0.2.1", std::iter::repeat_n(start, 100));
        assert_eq!((free, slipped, dropped), (20, 10, 70));
        // 1,000 a second for ten seconds at a rate of 100.
        let times = (1..=10_000_u64).map(|ms| start + Duration::from_millis(ms));
        let [free, ..] = passed(&clients, &limit, "192.0.2.1", times);
        assert!((980..=1020).contains(&free), "{free}");
        let later = start + Duration::from_secs(60);
        assert_eq!(passed(&clients, &limit, "192.0.2.1", std::iter::repeat_n(later, 20))[0], 20);
    }

    #[test]
    fn the_first_query_over_the_limit_is_told_whatever_the_time() {
        let limit = limit(100, 20);
        for micros in 0..16 {
            let start = Moment::default() + Duration::from_micros(1_000_000_000 + micros);
            let times = std::iter::repeat_n(start, 21);
            assert_eq!(passed(&ClientBuckets::default(), &limit, "192.0.2.1", times), [20, 1, 0], "{micros}");
        }
    }

    #[test]
    fn clients_do_not_share_and_ipv6_counts_by_64_bits() {
        let (clients, limit) = (ClientBuckets::default(), limit(1, 1));
        let now = Moment::default() + Duration::from_secs(5);
        let ask = |client: &str| clients.admit(&limit, client.parse().unwrap(), now);
        assert_eq!((ask("192.0.2.1"), ask("192.0.2.1")), (Passage::Free, Passage::Slip));
        assert_eq!((ask("2001:db8::1"), ask("2001:db8::2")), (Passage::Free, Passage::Slip));
        assert_eq!(ask("2001:db8:0:1::1"), Passage::Free);
        assert_eq!((ask("10.9.1.1"), ask("10.9.1.1")), (Passage::Free, Passage::Free), "exempt");
    }
}
