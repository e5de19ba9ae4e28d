//! The metrics of shared state: cache, upstreams, connections, configuration.
//!
//! A server's label is its name in the configuration, with its path if that is its own. The series of a server that
//! left continue for an hour.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed};

use super::{super::logging::LostLines, Report, words};
use crate::{
    clock::{self, Moment},
    dnstap::Tap,
    metrics::Exposition,
    net::changes::NetworkChange,
    otlp::Tracer,
    upstream::{
        FormerServer, Group, HealthState, ServerRecord,
        names::NameList,
        tally::{MismatchReason, QueryResult, RTT_BOUNDS},
    },
    wire::Transport,
};

/// A server of a group, or one that was in it within the last hour.
struct Row {
    group: Arc<str>,
    tier: String,
    server: String,
    transport: Transport,
    record: Arc<ServerRecord>,
}

impl Row {
    fn labels(&self) -> [(&str, &str); 2] {
        [("group", &self.group), ("server", &self.server)]
    }
}

/// The servers of all groups, then those that have left.
fn rows(groups: &[Arc<Group>], former: Vec<FormerServer>) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in groups {
        for (tier, servers) in group.tiers().iter().enumerate() {
            rows.extend(servers.iter().map(|server| Row {
                group: group.name().into(),
                tier: tier.to_string(),
                server: server.label().to_owned(),
                transport: server.spec().transport,
                record: Arc::clone(server.record()),
            }));
        }
    }
    for FormerServer { group, tier, label, transport, record } in former {
        // A series may appear only once.
        if !rows.iter().any(|row| row.group == group && row.server == label) {
            rows.push(Row { group, tier: tier.to_string(), server: label, transport, record });
        }
    }
    rows
}

/// Writes all metrics.
pub(super) fn encode(report: &Report, exposition: &mut Exposition, now: Moment) {
    encode_cache(report, exposition);
    encode_snapshot(report, exposition, now);
    let snapshot = report.engine.snapshot_owned();
    let rows = rows(&snapshot.groups, report.servers.former());
    encode_health(&snapshot.groups, &rows, exposition, now);
    encode_traffic(&rows, exposition);
    encode_groups(&snapshot.groups, exposition);
    encode_names(&report.names.all(), exposition, now);
    encode_connections(report, exposition);
    encode_network(report, exposition);
    encode_configuration(report, exposition);
    encode_log(report, exposition);
}

fn encode_connections(report: &Report, exposition: &mut Exposition) {
    let mut family = exposition.gauge("tidegate_connections", "Connections from clients that are open.");
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
    let help = "Log lines, dnstap messages and spans (otlp) that were lost because nobody took them in time.";
    let lost = report.log_lost.as_ref().map_or(0, LostLines::count);
    let mut family = exposition.counter("tidegate_log_dropped_total", help);
    family.sample(&[("sink", "log")], lost);
    family.sample(&[("sink", "dnstap")], report.tap.as_ref().map_or(0, Tap::dropped));
    family.sample(&[("sink", "otlp")], report.tracer.as_ref().map_or(0, Tracer::dropped));
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

fn encode_health(groups: &[Arc<Group>], rows: &[Row], exposition: &mut Exposition, now: Moment) {
    let mut family = exposition.gauge("tidegate_upstream_healthy", "Whether a server is not down.");
    for row in rows {
        let labels = [("group", &*row.group), ("server", &row.server), ("tier", &row.tier)];
        family.sample(&labels, u8::from(row.record.state() != HealthState::Down));
    }
    let mut family = exposition.gauge("tidegate_upstream_drained", "Whether an operator took a server out of service.");
    for row in rows {
        family.sample(&row.labels(), u8::from(row.record.is_drained()));
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
            let labels = [("group", &*row.group), ("server", &row.server), ("to", to.label())];
            family.sample(&labels, row.record.transitions(to));
        }
    }
}

fn encode_traffic(rows: &[Row], exposition: &mut Exposition) {
    let mut family = exposition.counter("tidegate_upstream_queries_total", "Queries to a server, by how they ended.");
    for row in rows {
        for transport in Transport::ALL {
            // A server uses its own transport, and TCP besides UDP for truncated answers.
            let has = |own: Transport| own == transport || own.of_streams() == transport;
            if !has(row.transport) {
                continue;
            }
            for result in QueryResult::ALL {
                let labels = [
                    ("group", &*row.group),
                    ("server", &row.server),
                    ("transport", transport.label()),
                    ("result", result.label()),
                ];
                family.sample(&labels, row.record.tally.queries(transport, result));
            }
        }
    }
    let help = "Time from a query to its answer.";
    let mut family = exposition.histogram("tidegate_upstream_rtt_seconds", help);
    for row in rows {
        let rtts = row.record.tally.rtts();
        family.observations(&row.labels(), RTT_BOUNDS.into_iter(), &rtts.buckets, rtts.sum);
    }
    let help = "Messages that matched no query.";
    let mut family = exposition.counter("tidegate_upstream_mismatches_total", help);
    for row in rows {
        for reason in MismatchReason::ALL {
            let labels = [("group", &*row.group), ("server", &row.server), ("reason", reason.label())];
            family.sample(&labels, row.record.tally.mismatches(reason));
        }
    }
    let mut family = exposition.gauge("tidegate_upstream_in_flight", "Queries that wait for an answer.");
    for row in rows {
        family.sample(&row.labels(), row.record.tally.in_flight());
    }
    let help = "Local UDP ports open towards a server.";
    let mut family = exposition.gauge("tidegate_upstream_source_ports", help);
    for row in rows {
        family.sample(&row.labels(), row.record.tally.source_ports());
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

/// Names of servers; absent where servers are given by address.
fn encode_names(names: &[((String, String), NameList)], exposition: &mut Exposition, now: Moment) {
    let help = "Addresses of a name that upstream servers are given by.";
    let mut family = exposition.gauge("tidegate_upstream_name_addresses", help);
    for ((group, name), list) in names {
        family.sample(&[("group", group), ("name", name)], list.addresses.len());
    }
    let help = "Seconds since a bootstrap server last gave a name's addresses; absent until one did.";
    let mut family = exposition.gauge("tidegate_upstream_name_age_seconds", help);
    for ((group, name), list) in names {
        if let Some(resolved) = list.resolved {
            family.sample(&[("group", group), ("name", name)], now.since(resolved).as_secs());
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cache::Cache,
        config::{Live, Plan},
        daemon::{
            listeners::Bound,
            state::{Startup, State as DaemonState},
        },
        metrics::Format,
        serve::connections::Connections,
        upstream::{Alarm, OwnAddresses},
    };

    fn live(groups: &str) -> Live {
        let text = format!("{groups}[[forward]]\nzones = [\".\"]\nto = \"site\"\n");
        Plan::from_text("t.toml", &text).unwrap().live
    }

    fn report(state: &DaemonState) -> Report {
        let rules = Arc::new(crate::metrics::RuleRegistry::new(1));
        let engine = Arc::clone(&state.engine);
        Report::new(Vec::new(), rules, engine, Connections::new(1, 1), Arc::default(), &Bound::default(), state)
    }

    fn lines_about(report: &Report, what: &str) -> Vec<String> {
        let mut exposition = Exposition::new(Format::Text);
        encode(report, &mut exposition, Moment::now());
        let text = exposition.finish();
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }

    #[test]
    fn the_series_of_a_server_end_an_hour_after_it_left() {
        let both = live("[upstream.site]\nservers = [\"192.0.2.1\", \"192.0.2.2\"]\n");
        let rules = Arc::new(crate::metrics::RuleRegistry::new(1));
        let mut state = DaemonState::new(
            both,
            Startup::default(),
            Cache::new(0),
            rules,
            OwnAddresses::new([]),
            Arc::<Alarm>::default(),
        )
        .unwrap();
        let report = report(&state);
        let server = Arc::clone(state.engine.snapshot_owned().groups[0].servers().nth(1).unwrap());
        server.drain();
        let id = "server=\"192.0.2.2\"";
        let before = lines_about(&report, id);
        assert!(
            before.contains(&"tidegate_upstream_drained{group=\"site\",server=\"192.0.2.2\"} 1".to_owned()),
            "{before:?}"
        );
        drop(server);
        state.replace(live("[upstream.site]\nservers = [\"192.0.2.1\"]\n")).unwrap();
        let left = Moment::now();
        assert_eq!(lines_about(&report, id), before);
        state.forget(left + Duration::from_mins(59));
        assert_eq!(lines_about(&report, id), before);
        state.forget(left + Duration::from_mins(60));
        assert_eq!(lines_about(&report, id), Vec::<String>::new());
        assert!(!lines_about(&report, "server=\"192.0.2.1\"").is_empty());
    }

    #[test]
    fn two_paths_to_a_server_have_series_of_their_own() {
        let paths = "[upstream.site]\nsource = \"127.0.0.1\"\n\
                     servers = [\"192.0.2.1\", { server = \"192.0.2.1\", mark = 2 }]\n";
        let rules = Arc::new(crate::metrics::RuleRegistry::new(1));
        let state = DaemonState::new(
            live(paths),
            Startup::default(),
            Cache::new(0),
            rules,
            OwnAddresses::new([]),
            Arc::<Alarm>::default(),
        )
        .unwrap();
        let healthy = lines_about(&report(&state), "tidegate_upstream_healthy{");
        let of = |server: &str| format!("tidegate_upstream_healthy{{group=\"site\",server=\"{server}\",tier=\"0\"}} 1");
        assert_eq!(healthy, [of("192.0.2.1"), of("192.0.2.1,mark=2")], "what the whole group has is not shown");
    }
}
