//! The JSON documents of `/api/v1`. Times are in seconds, sizes in octets; unknown values are null.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{Report, findings, words};
use crate::{
    admin::{
        rules::{GuardStatus, RuleStatus, Rules},
        status::{
            CacheStatus, ConfigurationStatus, DurationStatus, GroupStatus, LatencyStatus, NameStatus, ServerStatus,
            Severity, Status, Upstreams,
        },
    },
    clock::Moment,
    config::{Aaaa, OnPublic, Rebind, RulePlan, WhenDown},
    metrics::{
        DropReason, GuardAction, ReplySource,
        histogram::{BOUNDS_MICROS, Reading},
        registry::{REVISION, RUSTC, VERSION},
    },
    upstream::{
        Group, HealthState, Loops, Policy, Server,
        names::NameList,
        tally::{MismatchReason, QueryResult},
    },
    wire::Transport,
};

impl Report {
    /// The document of `/api/v1/status`.
    pub(super) fn status(&self, now: Moment) -> Status {
        let registry = &self.registry;
        let snapshot = self.engine.snapshot_owned();
        let mut groups: Vec<GroupStatus> = snapshot.groups.iter().map(|group| self.group(group, now)).collect();
        self.history.fill(&mut groups);
        let findings = findings::all(self, &groups, now);
        let reasons = self.unready();
        Status {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            rustc: RUSTC.to_owned(),
            started: registry.started().as_secs(),
            uptime: now.since(self.started).as_secs(),
            health: findings.first().map_or(Severity::Ok, |worst| worst.severity),
            findings,
            ready: reasons.is_empty(),
            reasons,
            listen: self.listeners.iter().map(ToString::to_string).collect(),
            workers: registry.workers().len(),
            configuration: self.configuration_status(snapshot.generation),
            queries: by(&Transport::ALL, |transport| (transport.label(), registry.queries(transport))),
            responses: by(&ReplySource::ALL, |source| (source.label(), registry.responses(source))),
            durations: by(&ReplySource::ALL, |source| (source.label(), duration(&registry.durations(source)))),
            dropped: by(&DropReason::ALL, |reason| (reason.label(), registry.dropped(reason))),
            coalesced: registry.coalesced(),
            in_flight: self.engine.waiting.count(),
            connections: self.connections.all_open(),
            guard: by(&GuardAction::ALL, |action| (action.label(), registry.rules().violations(action))),
            cache: self.cache(),
            groups,
            minutes: self.history.minutes(),
            events: self.history.events(),
            latency: self.latency(),
        }
    }

    fn latency(&self) -> Vec<LatencyStatus> {
        let mut all = Reading::default();
        for source in ReplySource::ALL {
            all.add(&self.registry.durations(source));
        }
        let bounds = BOUNDS_MICROS.into_iter().map(|bound| Some(Duration::from_micros(bound).as_secs_f64()));
        let buckets = bounds.chain([None]).zip(all.buckets);
        buckets.map(|(up_to, responses)| LatencyStatus { up_to, responses }).collect()
    }

    fn configuration_status(&self, generation: u32) -> ConfigurationStatus {
        let reloads = &self.reloads;
        let counts = [("success", reloads.succeeded.value()), ("failure", reloads.failed.value())];
        ConfigurationStatus {
            hash: self.configuration.load().hash.clone(),
            generation,
            reloads: counts.into_iter().map(|(result, count)| (result.to_owned(), count)).collect(),
            last_reload_success: reloads.last_succeeded.load(Relaxed),
            last_reload: reloads.last.lock().clone(),
        }
    }

    fn cache(&self) -> CacheStatus {
        let registry = &self.registry;
        let stats = self.engine.cache.stats();
        let (hits, misses) = (registry.hits(), registry.misses());
        CacheStatus {
            hits,
            misses,
            hit_ratio: ratio(hits, hits + misses),
            stale: registry.stale(),
            prefetches: registry.prefetches(),
            evictions: stats.evictions,
            entries: stats.entries,
            bytes: stats.bytes,
            capacity: stats.capacity,
        }
    }

    /// The document of `/api/v1/upstreams`.
    pub(super) fn upstreams(&self, now: Moment) -> Upstreams {
        let mut groups = self.groups(now);
        self.history.fill(&mut groups);
        Upstreams { groups }
    }

    /// Every group with its servers, without their history.
    pub(super) fn groups(&self, now: Moment) -> Vec<GroupStatus> {
        let snapshot = self.engine.snapshot_owned();
        snapshot.groups.iter().map(|group| self.group(group, now)).collect()
    }

    /// [`Self::groups`] without what is counted of each server: the state that is looked at each second.
    pub(super) fn group_states(&self, now: Moment) -> Vec<GroupStatus> {
        let snapshot = self.engine.snapshot_owned();
        snapshot.groups.iter().map(|group| self.group_state(group, now)).collect()
    }

    fn group(&self, group: &Group, now: Moment) -> GroupStatus {
        let mut status = self.group_state(group, now);
        for (status, server) in status.tiers.iter_mut().flatten().zip(group.servers()) {
            add_counts(status, server);
        }
        status
    }

    fn group_state(&self, group: &Group, now: Moment) -> GroupStatus {
        let server = |server: &Arc<Server>| server_state(server, &self.engine.loops, now);
        let mut names = self.names.all();
        names.retain(|((of, _), _)| of == group.name());
        let mut status = GroupStatus {
            name: group.name().to_owned(),
            policy: match group.policy() {
                Policy::Fastest => "fastest",
                Policy::Spread => "spread",
                Policy::Ordered => "ordered",
            }
            .to_owned(),
            down: group.is_down(),
            usable: words::usable(group),
            tier: group.tier(now),
            in_flight: group.in_flight(),
            hedges: group.hedges(),
            hedge_wins: group.hedge_wins(),
            tiers: group.tiers().iter().map(|tier| tier.iter().map(server).collect()).collect(),
            names: names.into_iter().map(|((_, name), list)| self::name(name, &list, now)).collect(),
            ..GroupStatus::default()
        };
        status.words = words::of_group(&status);
        status.health = findings::of_group(&status).iter().map(|finding| finding.severity).max().unwrap_or_default();
        status
    }

    /// Every rule with its counters, and the local zones.
    pub(super) fn rules(&self) -> Rules {
        let configuration = self.configuration.load_full();
        let live = &configuration.live;
        Rules {
            rules: live.rules.iter().map(|rule| self.rule(rule)).collect(),
            local: live.local.iter().map(|local| local.zone.to_string()).collect(),
        }
    }

    fn rule(&self, rule: &RulePlan) -> RuleStatus {
        let configuration = self.configuration.load();
        let counters = self.registry.rules().of(Arc::clone(&rule.name));
        let when_down = match rule.when_down {
            WhenDown::Stale => "stale",
            WhenDown::Fail => "fail",
            WhenDown::Upstream(index) => &configuration.live.group(index).name,
        };
        let guard = rule.guard.as_ref().map(|guard| {
            let on_public = match guard.on_public {
                OnPublic::Log => "log",
                OnPublic::Strip => "strip",
                OnPublic::Refuse => "refuse",
            };
            GuardStatus { private: texts(&guard.networks), on_public: on_public.to_owned() }
        });
        RuleStatus {
            name: rule.name.to_string(),
            zones: rule.written.iter().map(|entry| entry.text.to_string()).collect(),
            domains: texts(&rule.zones),
            upstream: configuration.live.group(rule.to).name.clone(),
            clients: texts(&rule.clients),
            guard,
            except: texts(&rule.except),
            rebind: match rule.rebind {
                Rebind::Allow => "allow",
                Rebind::Refuse => "refuse",
            }
            .to_owned(),
            when_down: when_down.to_owned(),
            aaaa: match rule.aaaa {
                Aaaa::Forward => "forward",
                Aaaa::Empty => "empty",
            }
            .to_owned(),
            follow: rule.follow,
            negative_ttl: rule.negative_ttl.as_secs(),
            queries: counters.queries(),
            violations: by(&GuardAction::ALL, |action| (action.label(), counters.violations(action))),
            negatives_without_soa: counters.negatives_without_soa(),
        }
    }
}

fn name(name: String, list: &NameList, now: Moment) -> NameStatus {
    NameStatus {
        name,
        addresses: texts(&list.addresses),
        words: words::of_name(list),
        fault: list.error.map(|error| error.to_string()),
        age: list.resolved.map(|at| now.since(at).as_secs_f64()),
        next: list.next.map(|at| at.since(now).as_secs_f64()),
    }
}

/// Adds what is counted of a server.
fn add_counts(status: &mut ServerStatus, server: &Server) {
    let tally = &server.tally;
    status.queries = by(&QueryResult::ALL, |result| {
        let all = Transport::ALL.iter();
        (result.label(), all.map(|&transport| tally.queries(transport, result)).sum())
    });
    status.mismatches = MismatchReason::ALL.iter().map(|&reason| tally.mismatches(reason)).sum();
    status.transitions = by(&HealthState::ALL, |state| (state.label(), server.transitions(state)));
}

fn server_state(server: &Server, loops: &Loops, now: Moment) -> ServerStatus {
    let (spec, tally) = (server.spec(), &server.tally);
    let rtt = server.rtt();
    let micros = |micros: u32| Duration::from_micros(micros.into()).as_secs_f64();
    ServerStatus {
        server: server.label().to_owned(),
        address: spec.address.to_string(),
        transport: spec.transport.label().to_owned(),
        source: spec.via.source.map(|source| source.to_string()),
        device: spec.via.device.clone(),
        mark: spec.via.mark,
        state: server.state().label().to_owned(),
        words: words::of_server(server),
        drained: server.is_drained(),
        judged: server.is_judged(),
        loops_for: loops.rules_of(server).iter().map(|rule| rule.to_string()).collect(),
        fault: server.last_probe_error().map(|error| error.label().to_owned()),
        cause: server.connect_error().map(|error| error.to_string()),
        rtt: rtt.map(|rtt| micros(rtt.mean)),
        rtt_deviation: rtt.map(|rtt| micros(rtt.deviation)),
        last_answer: server.last_answer().map(|at| now.since(at).as_secs_f64()),
        in_flight: tally.in_flight(),
        source_ports: tally.source_ports(),
        ..ServerStatus::default()
    }
}

/// Count, mean, and the upper bounds of median and 99th percentile as far as the buckets show.
fn duration(reading: &Reading) -> DurationStatus {
    let count: u64 = reading.buckets.iter().sum();
    if count == 0 {
        return DurationStatus::default();
    }
    DurationStatus {
        count,
        mean: Some(Duration::from_nanos(reading.nanoseconds / count).as_secs_f64()),
        median: quantile(reading, count.div_ceil(2)),
        p99: quantile(reading, count - count / 100),
    }
}

/// The upper bound of the bucket that holds the `rank`th observation; none beyond the last bound.
fn quantile(reading: &Reading, rank: u64) -> Option<f64> {
    let mut seen = 0;
    for (bound, bucket) in BOUNDS_MICROS.into_iter().zip(reading.buckets) {
        seen += bucket;
        if seen >= rank {
            return Some(Duration::from_micros(bound).as_secs_f64());
        }
    }
    None
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn by<T: Copy, V>(all: &[T], entry: impl Fn(T) -> (&'static str, V)) -> BTreeMap<String, V> {
    all.iter().map(|&one| entry(one)).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let mut reading = Reading::default();
        assert_eq!(duration(&reading).median, None);
        reading.buckets[0] = 98;
        reading.buckets[6] = 2;
        reading.nanoseconds = 100_000;
        let expected = DurationStatus { count: 100, mean: Some(0.000_001), median: Some(0.000_01), p99: Some(0.001) };
        assert_eq!(duration(&reading), expected);
        reading.buckets[BOUNDS_MICROS.len()] = 1000;
        assert_eq!(duration(&reading).p99, None, "longer than every bound");
    }
}
