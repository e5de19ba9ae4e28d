//! The counters of one worker. Only that worker writes them; a scrape reads and adds up those of all workers.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{
    counter::Counter,
    histogram::Histogram,
    pulse::Pulse,
    rules::{GuardAction, RuleCounters},
    samples::Sampler,
};
use crate::wire::{EdeCode, Name, NameBuf, Question, Rcode, Transport};

/// Where a reply came from (label `source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplySource {
    /// The cache.
    Cache,
    /// An expired entry.
    Stale,
    /// An upstream.
    Upstream,
    /// A local zone, or a name of special use.
    Local,
    /// Refused by policy.
    Refused,
    /// An error.
    Error,
}

impl ReplySource {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 6] = [Self::Cache, Self::Stale, Self::Upstream, Self::Local, Self::Refused, Self::Error];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Upstream => "upstream",
            Self::Local => "local",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

/// Why a message got no reply (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Not a DNS message.
    Malformed,
    /// The client exceeded its rate limit.
    RateLimited,
    /// A response instead of a query.
    Response,
    /// Too many queries were waiting.
    Overload,
    /// The kernel did not send the reply.
    Send,
}

impl DropReason {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Malformed, Self::RateLimited, Self::Response, Self::Overload, Self::Send];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::RateLimited => "rate_limited",
            Self::Response => "response",
            Self::Overload => "overload",
            Self::Send => "send",
        }
    }
}

/// Which counter a reply was counted in.
#[derive(Debug, Clone, Copy)]
pub struct Counted(usize);

/// A reply, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct CountedReply {
    /// Where it came from.
    pub source: ReplySource,
    /// Its response code.
    pub rcode: Rcode,
    /// Its extended error.
    pub ede: Option<EdeCode>,
}

/// How the cache was used for a reply that was made at once.
#[derive(Debug, Clone, Copy)]
pub enum CacheUse<'a> {
    /// Not looked up.
    Unused,
    /// Looked up without a hit.
    Miss,
    /// A hit.
    Hit {
        /// The counters of the rule that brought it.
        rule: Option<&'a RuleCounters>,
        /// Whether the entry is being fetched again before it expires.
        prefetch: bool,
    },
}

/// The outcome of handling one message.
#[derive(Debug, Clone, Copy)]
pub enum QueryOutcome<'a> {
    /// Dropped without a reply.
    Dropped(DropReason),
    /// The cache did not have the answer, which is being resolved: [`QueryOutcome::Late`] follows.
    Waiting,
    /// Replied to at once. Its duration is that of its batch.
    AtOnce(CountedReply, CacheUse<'a>),
    /// Replied to later, after this duration.
    Late(CountedReply, Duration),
}

/// A query that was kept as a sample.
#[derive(Debug, Clone)]
pub struct SampledQuery {
    /// QNAME in lower case.
    pub name: NameBuf,
    /// The client.
    pub client: IpAddr,
}

impl SampledQuery {
    /// The query in a message; none if it cannot be read.
    pub fn read(message: &[u8], client: IpAddr) -> Option<Self> {
        let question = Question::read(message).ok()?;
        Some(Self { name: NameBuf::lowercase_of(question.name()), client })
    }
}

/// A query that ended with neither NOERROR nor NXDOMAIN, kept as a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SampledFailure {
    /// QNAME.
    pub name: Name,
    /// The response code.
    pub rcode: Rcode,
    /// The extended error.
    pub ede: Option<EdeCode>,
}

/// Response codes counted by number; those beyond are counted as the last.
pub const RCODES: usize = 24;

/// One worker's counters.
///
/// Invariant: only the worker's own thread writes.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// The worker's number, by which per-rule counters find its cell.
    index: usize,
    pub(super) queries: [[Counter; 2]; Transport::ALL.len()],
    pub(super) responses: [[Counter; RCODES]; ReplySource::ALL.len()],
    pub(super) durations: [Histogram; ReplySource::ALL.len()],
    pub(super) dropped: [Counter; DropReason::ALL.len()],
    pub(super) ede: [Counter; EdeCode::ALL.len()],
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) stale: Counter,
    pub(super) prefetches: Counter,
    pub(super) coalesced: Counter,
    pub(super) accept_pauses: [Counter; Transport::ALL.len()],
    /// Replies made at once that are not in the histograms yet: their batch has not been sent.
    unsent: [Counter; ReplySource::ALL.len()],
    /// Queries, for the hottest names and clients.
    pub sampled: Sampler<SampledQuery>,
    /// Failures, for the names that fail most.
    pub failed: Sampler<SampledFailure>,
    /// The reply that was counted last.
    last: AtomicUsize,
    /// Guard violations under all rules.
    pub(super) violations: [Counter; GuardAction::ALL.len()],
    /// Whether the worker turns.
    pub pulse: Pulse,
}

impl WorkerCounters {
    /// The counters of the worker with this number.
    pub fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    /// The worker's number.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Counts a query that came in.
    pub fn asked(&self, transport: Transport, is_ipv4: bool) {
        self.queries[transport as usize][usize::from(!is_ipv4)].add(1);
    }

    /// Counts the outcome of one message. Called once for each.
    #[inline]
    pub fn record(&self, outcome: QueryOutcome<'_>) {
        match outcome {
            QueryOutcome::Dropped(reason) => self.dropped(reason),
            QueryOutcome::Waiting => self.misses.add(1),
            QueryOutcome::AtOnce(reply, cache) => {
                self.replied(reply);
                self.unsent[reply.source as usize].add(1);
                match cache {
                    CacheUse::Unused => {}
                    CacheUse::Miss => self.misses.add(1),
                    CacheUse::Hit { rule, prefetch } => {
                        self.hits.add(1);
                        self.prefetches.add(u64::from(prefetch));
                        if let Some(rule) = rule {
                            rule.asked(self);
                        }
                    }
                }
            }
            QueryOutcome::Late(reply, took) => {
                self.replied(reply);
                self.stale.add(u64::from(reply.source == ReplySource::Stale));
                self.took(reply.source, took, 1);
            }
        }
    }

    fn replied(&self, reply: CountedReply) {
        let rcode = usize::from(reply.rcode.0).min(RCODES - 1);
        self.responses[reply.source as usize][rcode].add(1);
        self.last.store(reply.source as usize * RCODES + rcode, Ordering::Relaxed);
        if let Some(counter) = reply.ede.and_then(|code| self.ede.get(code.index())) {
            counter.add(1);
        }
    }

    /// Considers a query that came alone, on a stream, as a sample.
    pub fn sample(&self, message: &[u8], client: IpAddr) {
        if self.sampled.is_due(1) {
            self.sampled.pick(1, |_| SampledQuery::read(message, client));
        }
    }

    /// Notes the name of a query that failed.
    pub fn failed(&self, name: &Name, rcode: Rcode, ede: Option<EdeCode>) {
        if self.failed.is_due(1) {
            self.failed.pick(1, |_| Some(SampledFailure { name: name.clone(), rcode, ede }));
        }
    }

    /// The reply that was counted last, for [`Self::not_sent`].
    pub fn last_reply(&self) -> Counted {
        Counted(self.last.load(Ordering::Relaxed))
    }

    /// The kernel did not take a reply that was counted: it becomes a message without one.
    pub fn not_sent(&self, Counted(reply): Counted) {
        self.responses[reply / RCODES][reply % RCODES].add(1_u64.wrapping_neg());
        self.dropped(DropReason::Send);
    }

    /// A message got no reply.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    /// A query waited for another's answer.
    pub fn coalesced(&self) {
        self.coalesced.add(1);
    }

    /// A listener paused after errors.
    pub fn accept_paused(&self, transport: Transport) {
        self.accept_pauses[transport as usize].add(1);
    }

    /// Records the duration of `count` replies from this source.
    pub fn took(&self, source: ReplySource, duration: Duration, count: u64) {
        self.durations[source as usize].record(duration, count);
    }

    /// Records the duration of a batch, from read to sent, for all replies in it that were made at once.
    pub fn took_batch(&self, duration: Duration) {
        for source in ReplySource::ALL {
            let unsent = &self.unsent[source as usize];
            let count = unsent.value();
            if count > 0 {
                self.took(source, duration, count);
                unsent.add(count.wrapping_neg());
            }
        }
    }
}
