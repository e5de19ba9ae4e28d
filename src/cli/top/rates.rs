//! Rates per second between two samples of a daemon's status.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::status::{Counts, GroupStatus, LatencyStatus, ServerStatus, Status};

/// Rates by the label used in metrics.
type PerSecond = BTreeMap<String, f64>;

/// Rates per second over `interval` seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(super) struct Rates {
    /// Seconds between the two samples.
    pub(super) interval: f64,
    /// Queries that came in, by transport.
    pub(super) queries: PerSecond,
    /// Responses, by where they came from.
    pub(super) responses: PerSecond,
    /// Messages without a response, by reason.
    pub(super) dropped: PerSecond,
    /// Answers that the guard objected to, by what it did.
    pub(super) guard: PerSecond,
    /// Hits as a share of all lookups, from 0 to 1; null without any.
    pub(super) hit_ratio: Option<f64>,
    /// The upper bound of the responses' median, in seconds; null without any, or if it is beyond the last bucket.
    pub(super) median: Option<f64>,
    /// The upper bound of the 99th percentile.
    pub(super) p99: Option<f64>,
    /// Queries to servers.
    pub(super) servers: Vec<ServerRates>,
}

/// Queries to one server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(super) struct ServerRates {
    /// Its group.
    pub(super) group: String,
    /// Its name.
    pub(super) server: String,
    /// Queries sent to it.
    pub(super) queries: f64,
    /// Queries that got no answer.
    pub(super) failed: f64,
}

impl Rates {
    /// The rates between two samples. After a restart in between, the daemon counts from zero.
    pub(super) fn between(before: &Status, after: &Status, time: Duration) -> Self {
        let nothing = Status::default();
        let before = if before.started == after.started { before } else { &nothing };
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = |before: &Counts, after: &Counts| -> PerSecond {
            let count = |(label, &count): (&String, &u64)| {
                (label.clone(), per_second(before.get(label).copied().unwrap_or(0), count, seconds))
            };
            after.iter().map(count).collect()
        };
        let hits = after.cache.hits.saturating_sub(before.cache.hits);
        let asked = hits + after.cache.misses.saturating_sub(before.cache.misses);
        let buckets = buckets(&before.latency, &after.latency);
        Self {
            interval: time.as_secs_f64(),
            queries: rate(&before.queries, &after.queries),
            responses: rate(&before.responses, &after.responses),
            dropped: rate(&before.dropped, &after.dropped),
            guard: rate(&before.guard, &after.guard),
            hit_ratio: (asked > 0).then(|| as_f64(hits) / as_f64(asked)),
            median: quantile(&buckets, 1, 2),
            p99: quantile(&buckets, 99, 100),
            servers: servers(before, after, seconds),
        }
    }

    /// The rates of one server; none before there are two samples.
    pub(super) fn of(&self, group: &str, server: &str) -> Option<&ServerRates> {
        self.servers.iter().find(|rates| rates.group == group && rates.server == server)
    }
}

fn servers(before: &Status, after: &Status, seconds: f64) -> Vec<ServerRates> {
    let all = |status: &'_ Status| -> Vec<(String, ServerStatus)> {
        let of = |group: &GroupStatus| {
            group.servers().map(|server| (group.name.clone(), server.clone())).collect::<Vec<_>>()
        };
        status.groups.iter().flat_map(of).collect()
    };
    let known = all(before);
    let rates = |(group, server): (String, ServerStatus)| {
        let earlier = known.iter().find(|(other, old)| *other == group && old.server == server.server);
        let sum = |server: &ServerStatus, is_counted: fn(&str) -> bool| -> u64 {
            server.queries.iter().filter(|(result, _)| is_counted(result)).map(|(_, count)| count).sum()
        };
        let rate = |is_counted| {
            per_second(earlier.map_or(0, |(_, old)| sum(old, is_counted)), sum(&server, is_counted), seconds)
        };
        let (queries, failed) = (rate(|result| result != "budget"), rate(|result| !matches!(result, "ok" | "budget")));
        ServerRates { group, server: server.server.clone(), queries, failed }
    };
    all(after).into_iter().map(rates).collect()
}

fn per_second(before: u64, after: u64, seconds: f64) -> f64 {
    // Rounded to a tenth: further digits depend on when the samples were taken.
    (as_f64(after.saturating_sub(before)) / seconds * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

fn buckets(before: &[LatencyStatus], after: &[LatencyStatus]) -> Vec<LatencyStatus> {
    let earlier =
        |bucket: &LatencyStatus| before.iter().find(|old| old.up_to == bucket.up_to).map_or(0, |old| old.responses);
    let since = |bucket: &LatencyStatus| LatencyStatus {
        responses: bucket.responses.saturating_sub(earlier(bucket)),
        ..*bucket
    };
    after.iter().map(since).collect()
}

/// The upper bound of the bucket with the response of this rank.
fn quantile(buckets: &[LatencyStatus], share: u64, of: u64) -> Option<f64> {
    let total: u64 = buckets.iter().map(|bucket| bucket.responses).sum();
    let rank = (total * share).div_ceil(of).max(1);
    let mut seen = 0;
    let bucket = buckets.iter().find(|bucket| {
        seen += bucket.responses;
        seen >= rank
    });
    bucket?.up_to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u64)]) -> Counts {
        list.iter().map(|&(label, count)| (label.to_owned(), count)).collect()
    }

    fn status(udp: u64, hits: u64, misses: u64, ok: u64, timeout: u64) -> Status {
        let server = ServerStatus {
            server: "10.0.0.1".to_owned(),
            queries: counts(&[("ok", ok), ("timeout", timeout), ("budget", 1000)]),
            ..ServerStatus::default()
        };
        let group = GroupStatus { name: "vpc".to_owned(), tiers: vec![vec![server]], ..GroupStatus::default() };
        let mut status =
            Status { started: 7, queries: counts(&[("udp", udp)]), groups: vec![group], ..Status::default() };
        (status.cache.hits, status.cache.misses) = (hits, misses);
        let bucket = |up_to, responses| LatencyStatus { up_to, responses };
        status.latency = vec![bucket(Some(0.001), hits), bucket(Some(0.1), misses), bucket(None, 0)];
        status
    }

    #[test]
    fn rates_are_of_what_was_counted_in_between() {
        let rates = Rates::between(&status(100, 50, 50, 40, 10), &status(300, 248, 52, 41, 13), Duration::from_secs(2));
        assert_eq!(rates.queries["udp"], 100.0);
        assert_eq!(rates.hit_ratio, Some(0.99));
        assert_eq!((rates.median, rates.p99), (Some(0.001), Some(0.001)));
        let server = rates.of("vpc", "10.0.0.1").unwrap();
        assert_eq!((server.queries, server.failed), (2.0, 1.5));
        assert!(rates.of("vpc", "10.0.0.2").is_none());
    }

    #[test]
    fn a_daemon_that_started_again_counts_from_zero_and_an_idle_one_has_no_latency() {
        let mut after = status(20, 0, 0, 0, 0);
        after.started = 8;
        let rates = Rates::between(&status(100, 50, 50, 40, 10), &after, Duration::from_secs(1));
        assert_eq!((rates.queries["udp"], rates.hit_ratio, rates.median), (20.0, None, None));
        let before = status(100, 50, 50, 40, 10);
        let idle = Rates::between(&before, &before, Duration::ZERO);
        assert_eq!((idle.queries["udp"], idle.p99), (0.0, None));
    }
}
