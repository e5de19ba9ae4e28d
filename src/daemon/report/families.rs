//! The metrics of what is shared: cache, upstreams, connections, configuration.
//!
//! A server's label is what the configuration calls it. Two entries of one group that differ in the way alone (source,
//! device, mark) have the same label, and are added up: a series may appear once.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed};

use tracing_appender::non_blocking::ErrorCounter;

use super::{Report, words};
use crate::{
    clock::{self, Moment},
    metrics::{self, Exposition},
    net::changes::NetworkChange,
    upstream::{
        Group, HealthState, Server, Transport,
        tally::{MismatchReason, QueryResult, RTT_BOUNDS, RttHistogram},
    },
};

/// Servers of one group and label.
struct Row<'a> {
    group: &'a str,
    server: &'a str,
    servers: Vec<&'a Server>,
}

impl Row<'_> {
    fn sum(&self, number: impl Fn(&Server) -> u64) -> u64 {
        self.servers.iter().map(|server| number(server)).sum()
    }
}

/// Writes them all.
pub(super) fn encode(report: &Report, exposition: &mut Exposition, now: Moment) {
    encode_cache(report, exposition);
    encode_snapshot(report, exposition, now);
    let snapshot = report.engine.snapshot_owned();
    let rows: Vec<Row<'_>> = snapshot.groups.iter().flat_map(|group| rows(group.name(), group.servers())).collect();
    encode_health(&snapshot.groups, &rows, exposition, now);
    encode_traffic(&rows, exposition);
    encode_groups(&snapshot.groups, exposition);
    encode_connections(report, exposition);
    encode_network(report, exposition);
    encode_configuration(report, exposition);
    encode_log(report, exposition);
}

fn encode_connections(report: &Report, exposition: &mut Exposition) {
    let mut family = exposition.gauge("tidegate_connections", "Connections from clients that are open.");
    use metrics::Transport;

    for transport in Transport::ALL.into_iter().filter(|&transport| transport != Transport::Udp) {
        family.sample(&[("transport", transport.label())], report.connections.open(transport));
    }
    if let Some((file, certificate)) = &report.certificate {
        let help = "Seconds until the certificate of the encrypted listeners expires; negative once it has.";
        let left = certificate.pair().facts().seconds_left(clock::wall());
        exposition.gauge("tidegate_certificate_expiry_seconds", help).sample(&[("file", file)], left);
    }
}

fn encode_network(report: &Report, exposition: &mut Exposition) {
    let help = "Changes of links, addresses and routes that the kernel told of.";
    let mut family = exposition.counter("tidegate_network_changes_total", help);
    for change in NetworkChange::ALL {
        family.sample(&[("kind", change.label())], report.network_changes[change as usize].value());
    }
}

fn encode_log(report: &Report, exposition: &mut Exposition) {
    let help = "Log lines that were lost because nobody took them in time.";
    let lost = report.log_lost.as_ref().map_or(0, ErrorCounter::dropped_lines);
    exposition.counter("tidegate_log_dropped_total", help).sample(&[("sink", "log")], lost);
}

fn encode_cache(report: &Report, exposition: &mut Exposition) {
    let stats = report.engine.cache.stats();
    let help = "Entries that had to go before their time to make room.";
    exposition.counter("tidegate_cache_evictions_total", help).sample(&[], stats.evictions);
    let help = "Entries in the cache, expired ones included.";
    exposition.gauge("tidegate_cache_entries", help).sample(&[], stats.entries);
    exposition.gauge("tidegate_cache_bytes", "Octets that the cache uses.").sample(&[], stats.bytes);
    let help = "The bound on the octets that the cache uses.";
    exposition.gauge("tidegate_cache_capacity_bytes", help).sample(&[], stats.capacity);
}

fn encode_snapshot(report: &Report, exposition: &mut Exposition, now: Moment) {
    let help = "Seconds since the cache snapshot was written; absent before there is one.";
    let mut family = exposition.gauge("tidegate_snapshot_age_seconds", help);
    if let Some(age) = report.snapshot_status.age(now) {
        family.sample(&[], age.as_secs());
    }
    let help = "Times that the cache snapshot could not be written, or was not believed.";
    exposition.counter("tidegate_snapshot_errors_total", help).sample(&[], report.snapshot_status.errors.value());
}

fn rows<'a>(group: &'a str, servers: impl IntoIterator<Item = &'a Arc<Server>>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for server in servers {
        match rows.iter_mut().find(|row| row.server == server.label()) {
            Some(row) => row.servers.push(server),
            None => rows.push(Row { group, server: server.label(), servers: vec![server] }),
        }
    }
    rows
}

fn encode_health(groups: &[Arc<Group>], rows: &[Row<'_>], exposition: &mut Exposition, now: Moment) {
    let mut family = exposition.gauge("tidegate_upstream_healthy", "Whether a server is not down.");
    for group in groups {
        for (tier, servers) in group.tiers().iter().enumerate() {
            let tier = tier.to_string();
            for row in self::rows(group.name(), servers) {
                let is_healthy = row.servers.iter().any(|server| server.state() != HealthState::Down);
                let labels = [("group", row.group), ("server", row.server), ("tier", &tier)];
                family.sample(&labels, u8::from(is_healthy));
            }
        }
    }
    let mut family = exposition.gauge("tidegate_upstream_drained", "Whether an operator took a server out of service.");
    for row in rows {
        let is_drained = row.servers.iter().all(|server| server.is_drained());
        family.sample(&[("group", row.group), ("server", row.server)], u8::from(is_drained));
    }
    let help = "Servers of a group that queries may go to: neither down nor drained.";
    let mut family = exposition.gauge("tidegate_upstream_usable", help);
    for group in groups {
        family.sample(&[("group", group.name())], words::usable(group));
    }
    let mut family = exposition.gauge("tidegate_upstream_tier", "The tier in use; 0 is the preferred one.");
    for group in groups {
        family.sample(&[("group", group.name())], group.tier(now));
    }
    let help = "How often a server came into a state.";
    let mut family = exposition.counter("tidegate_upstream_transitions_total", help);
    for row in rows {
        for to in HealthState::ALL {
            let labels = [("group", row.group), ("server", row.server), ("to", to.label())];
            family.sample(&labels, row.sum(|server| server.transitions(to)));
        }
    }
}

fn encode_traffic(rows: &[Row<'_>], exposition: &mut Exposition) {
    let mut family = exposition.counter("tidegate_upstream_queries_total", "Queries to a server, by how they ended.");
    for row in rows {
        for transport in Transport::ALL {
            // A server has its own transport, and TCP beside UDP for what is truncated.
            let has = |own: Transport| own == transport || own.of_streams() == transport;
            if !row.servers.iter().any(|server| has(server.spec().transport)) {
                continue;
            }
            for result in QueryResult::ALL {
                let labels = [
                    ("group", row.group),
                    ("server", row.server),
                    ("transport", transport.label()),
                    ("result", result.label()),
                ];
                family.sample(&labels, row.sum(|server| server.tally.queries(transport, result)));
            }
        }
    }
    let help = "Time from a query to its answer.";
    let mut family = exposition.histogram("tidegate_upstream_rtt_seconds", help);
    for row in rows {
        let mut all = RttHistogram::default();
        for rtts in row.servers.iter().map(|server| server.tally.rtts()) {
            all.buckets.iter_mut().zip(rtts.buckets).for_each(|(sum, count)| *sum += count);
            all.sum += rtts.sum;
        }
        let labels = [("group", row.group), ("server", row.server)];
        family.observations(&labels, RTT_BOUNDS.into_iter(), &all.buckets, all.sum);
    }
    let help = "Messages that matched no question.";
    let mut family = exposition.counter("tidegate_upstream_mismatches_total", help);
    for row in rows {
        for reason in MismatchReason::ALL {
            let labels = [("group", row.group), ("server", row.server), ("reason", reason.label())];
            family.sample(&labels, row.sum(|server| server.tally.mismatches(reason)));
        }
    }
    let mut family = exposition.gauge("tidegate_upstream_in_flight", "Queries that wait for an answer.");
    for row in rows {
        let labels = [("group", row.group), ("server", row.server)];
        family.sample(&labels, row.sum(|server| server.tally.in_flight()));
    }
    let help = "Local UDP ports open towards a server.";
    let mut family = exposition.gauge("tidegate_upstream_source_ports", help);
    for row in rows {
        let labels = [("group", row.group), ("server", row.server)];
        family.sample(&labels, row.sum(|server| server.tally.source_ports()));
    }
}

fn encode_groups(groups: &[Arc<Group>], exposition: &mut Exposition) {
    let help = "Queries sent to a second server because the first was slow.";
    let mut family = exposition.counter("tidegate_upstream_hedges_total", help);
    for group in groups {
        family.sample(&[("group", group.name())], group.hedges());
    }
    let help = "Hedges that answered first.";
    let mut family = exposition.counter("tidegate_upstream_hedge_wins_total", help);
    for group in groups {
        family.sample(&[("group", group.name())], group.hedge_wins());
    }
}

fn encode_configuration(report: &Report, exposition: &mut Exposition) {
    let reloads = &report.reloads;
    exposition
        .counter("tidegate_config_reloads_total", "Reloads of the configuration, zone files that changed included.")
        .sample(&[("result", "success")], reloads.succeeded.value())
        .sample(&[("result", "failure")], reloads.failed.value());
    let help = "Whether the configuration that was loaded last is in force.";
    let succeeded = u8::from(reloads.last_succeeded.load(Relaxed));
    exposition.gauge("tidegate_config_last_reload_success", help).sample(&[], succeeded);
    let configuration = report.configuration.load();
    let help = "The configuration in force; the same hash is the same configuration.";
    exposition.info("tidegate_config_info", help).sample(&[("hash", &configuration.hash)], 1);
}
