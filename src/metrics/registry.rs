//! The counters of all workers and rules, added up at each scrape.
//!
//! Every series whose labels are known beforehand is there from the start, with 0, so that a rate over it is right from
//! its first increase. Response codes beyond the usual ones appear with their first response.

use std::{sync::Arc, time::Duration};

use super::{
    counter::Counter,
    exposition::{Exposition, Format},
    histogram::{BOUNDS_MICROS, Reading},
    process,
    rules::{GuardAction, RuleRegistry},
    worker::{DropReason, RCODES, ReplySource, WorkerCounters},
};
use crate::{
    clock::Moment,
    wire::{EdeCode, Rcode, Transport},
};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from.
pub const REVISION: &str = env!("TIDEGATE_REVISION");
/// The compiler it was built with.
pub const RUSTC: &str = env!("TIDEGATE_RUSTC");

/// NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP and REFUSED: the codes that are shown even before their first use.
const USUAL_RCODES: usize = 6;

/// The counters of the process.
#[derive(Debug)]
pub struct Registry {
    workers: Vec<Arc<WorkerCounters>>,
    rules: Arc<RuleRegistry>,
    started: Duration,
}

/// A counter of workers without labels: name, help, value.
type Plain = (&'static str, &'static str, fn(&WorkerCounters) -> &Counter);

const PLAIN: [Plain; 5] = [
    ("tidegate_cache_hits_total", "Queries that the cache answered.", |worker| &worker.hits),
    ("tidegate_cache_misses_total", "Queries that the cache did not answer.", |worker| &worker.misses),
    ("tidegate_cache_stale_total", "Queries answered from an expired entry.", |worker| &worker.stale),
    ("tidegate_cache_prefetches_total", "Popular entries fetched before they expired.", |worker| &worker.prefetches),
    ("tidegate_coalesced_total", "Queries that waited for the answer to an equal one.", |worker| &worker.coalesced),
];

impl Registry {
    /// A registry of these workers and rules. `started` is the wall clock's time of the start.
    pub const fn new(workers: Vec<Arc<WorkerCounters>>, rules: Arc<RuleRegistry>, started: Duration) -> Self {
        Self { workers, rules, started }
    }

    /// The text of a scrape; `more` adds the families of other rooms.
    pub fn encode(&self, format: Format, more: impl FnOnce(&mut Exposition)) -> String {
        let mut exposition = Exposition::new(format);
        self.encode_workers(&mut exposition);
        self.encode_responses(&mut exposition);
        self.encode_durations(&mut exposition);
        self.encode_rules(&mut exposition);
        more(&mut exposition);
        let labels = [("version", VERSION), ("revision", REVISION), ("rustc", RUSTC)];
        exposition.info("tidegate_build_info", "What is running.").sample(&labels, 1);
        process::encode(&mut exposition, self.started);
        exposition.finish()
    }

    fn encode_workers(&self, exposition: &mut Exposition) {
        let mut family = exposition.counter("tidegate_queries_total", "Queries that came in.");
        for transport in Transport::ALL {
            for (at, ip) in ["4", "6"].into_iter().enumerate() {
                let count = self.sum(|worker| &worker.queries[transport as usize][at]);
                family.sample(&[("transport", transport.label()), ("family", ip)], count);
            }
        }
        let mut family = exposition.counter("tidegate_dropped_total", "Messages that got no reply.");
        for reason in DropReason::ALL {
            family.sample(&[("reason", reason.label())], self.dropped(reason));
        }
        let help =
            "Times that a listener paused, because the kernel gave it an error in place of a connection or a query.";
        let mut family = exposition.counter("tidegate_accept_pauses_total", help);
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https] {
            let count = self.sum(|worker| &worker.accept_pauses[transport as usize]);
            family.sample(&[("transport", transport.label())], count);
        }
        for (name, help, counter) in PLAIN {
            exposition.counter(name, help).sample(&[], self.sum(counter));
        }
    }

    fn encode_responses(&self, exposition: &mut Exposition) {
        let mut family = exposition.counter("tidegate_responses_total", "Replies sent.");
        for rcode in 0..RCODES {
            let name = match u16::try_from(rcode) {
                Ok(code) if rcode < RCODES - 1 => Rcode(code).to_string(),
                _ => "other".to_owned(),
            };
            for source in ReplySource::ALL {
                let count = self.sum(|worker| &worker.responses[source as usize][rcode]);
                if rcode < USUAL_RCODES || count > 0 {
                    family.sample(&[("rcode", &name), ("source", source.label())], count);
                }
            }
        }
        let mut family = exposition.counter("tidegate_ede_total", "Extended DNS errors (RFC 8914) sent, by info-code.");
        for (at, code) in EdeCode::ALL.iter().enumerate() {
            let count = self.workers.iter().filter_map(|worker| worker.ede.get(at)).map(Counter::value).sum::<u64>();
            family.sample(&[("code", &code.number().to_string())], count);
        }
    }

    fn encode_durations(&self, exposition: &mut Exposition) {
        let help = "Time from a query's arrival to its reply; of one made at once, that of its batch.";
        let mut family = exposition.histogram("tidegate_query_duration_seconds", help);
        for source in ReplySource::ALL {
            let reading = self.durations(source);
            let bounds = BOUNDS_MICROS.into_iter().map(Duration::from_micros);
            let sum = Duration::from_nanos(reading.nanoseconds);
            family.observations(&[("source", source.label())], bounds, &reading.buckets, sum);
        }
    }

    fn encode_rules(&self, exposition: &mut Exposition) {
        let rules = self.rules.all();
        let mut family = exposition.counter("tidegate_rule_queries_total", "Queries by the rule that covers them.");
        for (name, rule) in &rules {
            family.sample(&[("rule", name)], rule.queries());
        }
        let help = "Answers with addresses outside the rule's private networks, by what was done.";
        let mut family = exposition.counter("tidegate_guard_violations_total", help);
        for (name, rule) in &rules {
            for action in GuardAction::ALL {
                family.sample(&[("rule", name), ("action", action.label())], rule.violations(action));
            }
        }
        let help = "Negative answers that came without an SOA.";
        let mut family = exposition.counter("tidegate_negative_without_soa_total", help);
        for (name, rule) in &rules {
            family.sample(&[("rule", name)], rule.negatives_without_soa());
        }
    }

    fn sum(&self, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).value()).sum()
    }

    /// The workers, in the order of their numbers.
    pub fn workers(&self) -> &[Arc<WorkerCounters>] {
        &self.workers
    }

    /// The rules' counters.
    pub const fn rules(&self) -> &Arc<RuleRegistry> {
        &self.rules
    }

    /// The wall clock's time of the start.
    pub const fn started(&self) -> Duration {
        self.started
    }

    /// How long the slowest worker has not turned, by its [pulse](super::pulse).
    pub fn silence(&self, now: Moment) -> Duration {
        self.workers.iter().map(|worker| worker.pulse.silence(now)).max().unwrap_or_default()
    }

    /// Guard violations so far under all rules, those that a reload removed among them.
    pub fn violations(&self) -> u64 {
        GuardAction::ALL.iter().map(|&action| self.sum(|worker| &worker.violations[action as usize])).sum()
    }

    /// Queries that came in over this transport.
    pub fn queries(&self, transport: Transport) -> u64 {
        (0..2).map(|family| self.sum(|worker| &worker.queries[transport as usize][family])).sum()
    }

    /// Replies from this source.
    pub fn responses(&self, source: ReplySource) -> u64 {
        (0..RCODES).map(|rcode| self.sum(|worker| &worker.responses[source as usize][rcode])).sum()
    }

    /// Messages without a reply.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|worker| &worker.dropped[reason as usize])
    }

    /// How long replies from this source took.
    pub fn durations(&self, source: ReplySource) -> Reading {
        let mut all = Reading::default();
        for worker in &self.workers {
            all.add(&worker.durations[source as usize].read());
        }
        all
    }

    /// Queries that the cache answered.
    pub fn hits(&self) -> u64 {
        self.sum(|worker| &worker.hits)
    }

    /// Queries that the cache did not answer.
    pub fn misses(&self) -> u64 {
        self.sum(|worker| &worker.misses)
    }

    /// Queries answered from an expired entry.
    pub fn stale(&self) -> u64 {
        self.sum(|worker| &worker.stale)
    }

    /// Entries fetched before they expired.
    pub fn prefetches(&self) -> u64 {
        self.sum(|worker| &worker.prefetches)
    }

    /// Queries that waited for the answer to an equal one.
    pub fn coalesced(&self) -> u64 {
        self.sum(|worker| &worker.coalesced)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::worker::{CacheUse, CountedReply, QueryOutcome},
        *,
    };

    fn registry() -> Registry {
        let workers = vec![Arc::new(WorkerCounters::new(0)), Arc::new(WorkerCounters::new(1))];
        Registry::new(workers, Arc::new(RuleRegistry::new(2)), Duration::from_secs(7))
    }

    #[test]
    fn workers_add_up() {
        let registry = registry();
        for worker in registry.workers() {
            worker.asked(Transport::Udp, false);
            let reply =
                CountedReply { source: ReplySource::Cache, rcode: Rcode::NOERROR, ede: Some(EdeCode::StaleAnswer) };
            worker.record(QueryOutcome::AtOnce(reply, CacheUse::Hit { rule: None, prefetch: false }));
            worker.took_batch(Duration::from_micros(15));
            registry.rules().of("aws").asked(worker);
        }
        let text = registry.encode(Format::Text, |_| {});
        for line in [
            "tidegate_queries_total{transport=\"udp\",family=\"6\"} 2",
            "tidegate_queries_total{transport=\"tcp\",family=\"4\"} 0",
            "tidegate_cache_hits_total 2",
            "tidegate_responses_total{rcode=\"NOERROR\",source=\"cache\"} 2",
            "tidegate_responses_total{rcode=\"REFUSED\",source=\"refused\"} 0",
            "tidegate_ede_total{code=\"3\"} 2",
            "tidegate_query_duration_seconds_bucket{source=\"cache\",le=\"0.00001\"} 0",
            "tidegate_query_duration_seconds_bucket{source=\"cache\",le=\"0.00002\"} 2",
            "tidegate_query_duration_seconds_sum{source=\"cache\"} 0.00003",
            "tidegate_query_duration_seconds_count{source=\"cache\"} 2",
            "tidegate_rule_queries_total{rule=\"aws\"} 2",
            "tidegate_guard_violations_total{rule=\"aws\",action=\"strip\"} 0",
            "process_start_time_seconds 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn odd_response_codes_appear_with_their_first_response() {
        let registry = registry();
        let has = |code: &str| registry.encode(Format::Text, |_| {}).contains(&format!("rcode=\"{code}\""));
        assert!(!has("BADVERS") && !has("other"));
        let reply =
            |source, rcode| QueryOutcome::Late(CountedReply { source, rcode: Rcode(rcode), ede: None }, Duration::ZERO);
        registry.workers()[1].record(reply(ReplySource::Error, 16));
        registry.workers()[0].record(reply(ReplySource::Upstream, 4000));
        assert!(has("BADVERS") && has("other"));
    }

    #[test]
    fn the_silence_is_that_of_the_slowest_worker() {
        let registry = registry();
        let start = Moment::at(Duration::from_secs(1000));
        assert_eq!(registry.silence(start), Duration::ZERO);
        registry.workers()[0].pulse.falls_asleep();
        assert_eq!(registry.silence(start + Duration::from_secs(3)), Duration::from_secs(3));
        registry.workers()[1].pulse.falls_asleep();
        assert_eq!(registry.silence(start + Duration::from_secs(3)), Duration::ZERO);
    }
}
