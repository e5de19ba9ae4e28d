//! Counters of one server. Each worker adds to its own stripe, and a scrape sums the stripes.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::wire::Transport;
use crossbeam_utils::CachePadded;

/// How a query to a server ended. Every query that was sent has one result; a query held back by `max_qps` has
/// `Budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueryResult {
    /// Data, NODATA or NXDOMAIN, or TC.
    Ok,
    /// SERVFAIL.
    Servfail,
    /// REFUSED, another code that carries no answer, or a referral (a lame server).
    Refused,
    /// Nothing within the time-out.
    Timeout,
    /// A network error on this side or an ICMP error from the far host.
    Network,
    /// The response did not parse, or the server could not read our query.
    Malformed,
    /// Not sent: the server was over its `max_qps`.
    Budget,
}

impl QueryResult {
    /// Every result, in the order of its discriminants.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Servfail, Self::Refused, Self::Timeout, Self::Network, Self::Malformed, Self::Budget];

    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Malformed => "malformed",
            Self::Budget => "budget",
        }
    }
}

/// Why a message from a server matched no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MismatchReason {
    /// Shorter than a header.
    Short,
    /// QR is clear, or the opcode differs.
    NotAResponse,
    /// No query in flight has this id.
    Id,
    /// The question differs, or its letter case does.
    Question,
    /// It arrived on another socket than the query was sent from.
    Socket,
}

impl MismatchReason {
    /// Every reason, in the order of its discriminants.
    pub const ALL: [Self; 5] = [Self::Short, Self::NotAResponse, Self::Id, Self::Question, Self::Socket];

    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::NotAResponse => "not_a_response",
            Self::Id => "id",
            Self::Question => "question",
            Self::Socket => "socket",
        }
    }
}

/// Upper bounds of the RTT buckets; one more bucket holds everything longer.
pub const RTT_BOUNDS: [Duration; 16] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(35),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];

/// Histogram of the RTTs of answers, with their sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RttHistogram {
    /// Counts by [`RTT_BOUNDS`], not cumulative; the last bucket holds everything longer.
    pub buckets: [u64; RTT_BOUNDS.len() + 1],
    /// The sum of all RTTs.
    pub sum: Duration,
}

/// Workers beyond this number share stripes.
const STRIPES: usize = 16;

#[derive(Debug, Default)]
struct Counters {
    results: [[AtomicU64; QueryResult::ALL.len()]; Transport::ALL.len()],
    mismatches: [AtomicU64; MismatchReason::ALL.len()],
    rtt_buckets: [AtomicU64; RTT_BOUNDS.len() + 1],
    rtt_micros: AtomicU64,
    in_flight: AtomicI64,
    source_ports: AtomicI64,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Tally {
    stripes: [CachePadded<Counters>; STRIPES],
}

/// The stripe that a worker adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripe(usize);

impl Stripe {
    /// The stripe of the worker with this number.
    pub const fn of(worker: usize) -> Self {
        Self(worker % STRIPES)
    }
}

impl Tally {
    /// Counts the end of a query.
    pub fn ended(&self, stripe: Stripe, transport: Transport, result: QueryResult) {
        self.stripes[stripe.0].results[transport as usize][result as usize].fetch_add(1, Relaxed);
    }

    /// Adds the RTT of an answer.
    pub fn took(&self, stripe: Stripe, rtt: Duration) {
        let counters = &self.stripes[stripe.0];
        let bucket = RTT_BOUNDS.partition_point(|&bound| bound < rtt);
        counters.rtt_buckets[bucket].fetch_add(1, Relaxed);
        counters.rtt_micros.fetch_add(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts a message that matched no query.
    pub fn mismatched(&self, stripe: Stripe, reason: MismatchReason) {
        self.stripes[stripe.0].mismatches[reason as usize].fetch_add(1, Relaxed);
    }

    /// Changes the number of queries in flight.
    pub fn waiting(&self, stripe: Stripe, difference: i64) {
        self.stripes[stripe.0].in_flight.fetch_add(difference, Relaxed);
    }

    /// Changes the number of open source ports.
    pub fn ports(&self, stripe: Stripe, difference: i64) {
        self.stripes[stripe.0].source_ports.fetch_add(difference, Relaxed);
    }

    /// Number of queries with this result.
    pub fn queries(&self, transport: Transport, result: QueryResult) -> u64 {
        self.stripes.iter().map(|stripe| stripe.results[transport as usize][result as usize].load(Relaxed)).sum()
    }

    /// Number of messages that matched no query for this reason.
    pub fn mismatches(&self, reason: MismatchReason) -> u64 {
        self.stripes.iter().map(|stripe| stripe.mismatches[reason as usize].load(Relaxed)).sum()
    }

    /// Queries in flight now.
    pub fn in_flight(&self) -> u64 {
        let sum: i64 = self.stripes.iter().map(|stripe| stripe.in_flight.load(Relaxed)).sum();
        u64::try_from(sum).unwrap_or(0)
    }

    /// Distinct local UDP ports open now.
    pub fn source_ports(&self) -> u64 {
        let sum: i64 = self.stripes.iter().map(|stripe| stripe.source_ports.load(Relaxed)).sum();
        u64::try_from(sum).unwrap_or(0)
    }

    /// The RTTs of all answers.
    pub fn rtts(&self) -> RttHistogram {
        let mut sum = RttHistogram::default();
        for stripe in &self.stripes {
            for (to, from) in sum.buckets.iter_mut().zip(&stripe.rtt_buckets) {
                *to += from.load(Relaxed);
            }
            sum.sum += Duration::from_micros(stripe.rtt_micros.load(Relaxed));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_add_up() {
        let tally = Tally::default();
        for worker in 0..40 {
            tally.ended(Stripe::of(worker), Transport::Tcp, QueryResult::Refused);
            tally.waiting(Stripe::of(worker), 2);
            tally.waiting(Stripe::of(worker + 1), -1);
            tally.took(Stripe::of(worker), Duration::from_millis(3));
        }
        assert_eq!(tally.queries(Transport::Tcp, QueryResult::Refused), 40);
        assert_eq!(tally.queries(Transport::Udp, QueryResult::Refused), 0);
        assert_eq!(tally.in_flight(), 40);
        let rtts = tally.rtts();
        assert_eq!((rtts.buckets[5], rtts.sum), (40, Duration::from_millis(120)));
    }

    #[test]
    fn labels_are_in_the_order_of_the_discriminants() {
        assert!(QueryResult::ALL.iter().enumerate().all(|(at, &result)| result as usize == at));
        assert!(MismatchReason::ALL.iter().enumerate().all(|(at, &reason)| reason as usize == at));
        assert!(Transport::ALL.iter().enumerate().all(|(at, &transport)| transport as usize == at));
    }
}
