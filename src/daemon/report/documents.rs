//! The JSON documents of `/api/v1`. Times are in seconds, sizes in octets; what is not known is null.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::{Map, Value, json};

use super::Report;
use crate::{
    clock::Moment,
    config::{Aaaa, OnPublic, Rebind, Rule, WhenDown},
    metrics::{
        DropReason, GuardAction, Source, Transport,
        histogram::{BOUNDS_MICROS, Reading},
        registry::{REVISION, RUSTC, VERSION},
    },
    upstream::{
        Group, Loops, Policy, Server, State,
        tally::{MismatchReason, QueryResult},
    },
};

impl Report {
    /// The whole at one glance.
    pub(super) fn status(&self, now: Moment) -> Value {
        let registry = &self.registry;
        let reasons = self.unready();
        let configuration = self.configuration.load();
        json!({
            "version": VERSION,
            "revision": REVISION,
            "rustc": RUSTC,
            "started": registry.started().as_secs(),
            "uptime": now.since(self.started).as_secs(),
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "listen": self.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "workers": registry.workers().len(),
            "configuration": {
                "hash": configuration.hash,
                "generation": self.engine.snapshot().generation,
                "reloads": { "success": self.reloads.succeeded.value(), "failure": self.reloads.failed.value() },
                "last_reload_success": self.reloads.last_succeeded.load(Relaxed),
            },
            "queries": by(&Transport::ALL, |transport| (transport.label(), registry.queries(transport).into())),
            "responses": by(&Source::ALL, |source| (source.label(), registry.responses(source).into())),
            "durations": by(&Source::ALL, |source| (source.label(), duration(&registry.durations(source)))),
            "dropped": by(&DropReason::ALL, |reason| (reason.label(), registry.dropped(reason).into())),
            "coalesced": registry.coalesced(),
            "in_flight": self.engine.waiting.count(),
            "connections": self.connections.open(),
            "guard": by(&GuardAction::ALL, |action| {
                let rules = registry.rules().all();
                (action.label(), rules.iter().map(|(_, rule)| rule.violations(action)).sum::<u64>().into())
            }),
            "cache": self.cache(),
        })
    }

    fn cache(&self) -> Value {
        let registry = &self.registry;
        let stats = self.engine.cache.stats();
        json!({
            "hits": registry.hits(),
            "misses": registry.misses(),
            "stale": registry.stale(),
            "prefetches": registry.prefetches(),
            "evictions": stats.evictions,
            "entries": stats.entries,
            "bytes": stats.bytes,
            "capacity": stats.capacity,
        })
    }

    /// Every group with its servers.
    pub(super) fn upstreams(&self, now: Moment) -> Value {
        let snapshot = self.engine.snapshot_owned();
        let groups: Vec<Value> =
            snapshot.groups.iter().map(|group| self::group(group, &self.engine.loops, now)).collect();
        json!({ "groups": groups })
    }

    /// Every rule with its counters, and what is answered here.
    pub(super) fn rules(&self) -> Value {
        let configuration = self.configuration.load_full();
        let live = &configuration.live;
        let rules: Vec<Value> = live.rules.iter().map(|rule| self.rule(rule)).collect();
        let local: Vec<String> = live.local.iter().map(|local| local.zone.to_string()).collect();
        json!({ "rules": rules, "local": local })
    }

    fn rule(&self, rule: &Rule) -> Value {
        let configuration = self.configuration.load();
        let counters = self.registry.rules().of(&rule.name);
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
            json!({ "private": texts(&guard.networks), "on_public": on_public })
        });
        json!({
            "name": &*rule.name,
            "zones": rule.written.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>(),
            "domains": texts(&rule.zones),
            "upstream": configuration.live.group(rule.to).name,
            "clients": texts(&rule.clients),
            "guard": guard,
            "except": texts(&rule.except),
            "rebind": match rule.rebind { Rebind::Allow => "allow", Rebind::Refuse => "refuse" },
            "when_down": when_down,
            "aaaa": match rule.aaaa { Aaaa::Forward => "forward", Aaaa::Empty => "empty" },
            "follow": rule.follow,
            "negative_ttl": rule.negative_ttl.as_secs(),
            "queries": counters.queries(),
            "violations": by(&GuardAction::ALL, |action| (action.label(), counters.violations(action).into())),
            "negatives_without_soa": counters.negatives_without_soa(),
        })
    }
}

fn group(group: &Group, loops: &Loops, now: Moment) -> Value {
    let tiers: Vec<Vec<Value>> =
        group.tiers().iter().map(|tier| tier.iter().map(|server| self::server(server, loops, now)).collect()).collect();
    json!({
        "name": group.name(),
        "policy": match group.policy() {
            Policy::Fastest => "fastest",
            Policy::Spread => "spread",
            Policy::Ordered => "ordered",
        },
        "down": group.is_down(),
        "tier": group.tier(now),
        "in_flight": group.in_flight(),
        "hedges": group.hedges(),
        "hedge_wins": group.hedge_wins(),
        "tiers": tiers,
    })
}

fn server(server: &Server, loops: &Loops, now: Moment) -> Value {
    let (spec, tally) = (server.spec(), &server.tally);
    let rtt = server.rtt();
    let micros = |micros: u32| Duration::from_micros(micros.into()).as_secs_f64();
    let queries = by(&QueryResult::ALL, |result| {
        let all = crate::upstream::Transport::ALL.iter();
        (result.label(), all.map(|&transport| tally.queries(transport, result)).sum::<u64>().into())
    });
    json!({
        "server": server.label(),
        "address": spec.address.to_string(),
        "transport": spec.transport.label(),
        "source": spec.via.source.map(|source| source.to_string()),
        "device": spec.via.device,
        "mark": spec.via.mark,
        "state": server.state().label(),
        "drained": server.is_drained(),
        "judged": server.is_judged(),
        "loops_for": loops.rules_of(server).iter().map(|rule| &**rule).collect::<Vec<_>>(),
        "fault": server.last_fault().map(crate::upstream::health::ProbeFault::label),
        "cause": server.obstacle().map(|obstacle| obstacle.to_string()),
        "rtt": rtt.map(|rtt| micros(rtt.mean)),
        "rtt_deviation": rtt.map(|rtt| micros(rtt.deviation)),
        "last_answer": server.last_answer().map(|at| now.since(at).as_secs_f64()),
        "in_flight": tally.in_flight(),
        "source_ports": tally.source_ports(),
        "queries": queries,
        "mismatches": MismatchReason::ALL.iter().map(|&reason| tally.mismatches(reason)).sum::<u64>(),
        "transitions": by(&State::ALL, |state| (state.label(), server.transitions(state).into())),
    })
}

/// How many, their mean, and the upper bounds of median and 99th percentile as far as the buckets tell.
fn duration(reading: &Reading) -> Value {
    let count: u64 = reading.buckets.iter().sum();
    if count == 0 {
        return json!({ "count": 0, "mean": null, "median": null, "p99": null });
    }
    json!({
        "count": count,
        "mean": Duration::from_nanos(reading.nanoseconds / count).as_secs_f64(),
        "median": quantile(reading, count.div_ceil(2)),
        "p99": quantile(reading, count - count / 100),
    })
}

/// The upper bound of the bucket that holds the `rank`th of all; null beyond the last bound.
fn quantile(reading: &Reading, rank: u64) -> Value {
    let mut seen = 0;
    for (bound, bucket) in BOUNDS_MICROS.into_iter().zip(reading.buckets) {
        seen += bucket;
        if seen >= rank {
            return Duration::from_micros(bound).as_secs_f64().into();
        }
    }
    Value::Null
}

fn by<T: Copy>(all: &[T], entry: impl Fn(T) -> (&'static str, Value)) -> Value {
    let pairs = all.iter().map(|&one| entry(one)).map(|(name, value)| (name.to_owned(), value));
    Value::Object(pairs.collect::<Map<String, Value>>())
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
        assert_eq!(duration(&reading)["median"], Value::Null);
        reading.buckets[0] = 98;
        reading.buckets[6] = 2;
        reading.nanoseconds = 100_000;
        assert_eq!(duration(&reading), json!({ "count": 100, "mean": 0.000_001, "median": 0.000_01, "p99": 0.001 }));
        reading.buckets[BOUNDS_MICROS.len()] = 1000;
        assert_eq!(duration(&reading)["p99"], Value::Null, "longer than every bound");
    }
}
