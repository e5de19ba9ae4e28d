//! What the daemon says about itself: metrics, readiness and documents for the admin server.
//!
//! It reads what workers, cache and groups count on their own; the query path does not know it. The control thread
//! reports reloads to it.

mod documents;
mod families;
mod findings;
mod history;
mod hottest;
mod transfer;
mod words;

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

pub(super) use self::findings::NO_VERDICT;
use self::{history::StatusHistory, hottest::Hottest};
use super::{listeners::Bound, logging::LostLines, snapshot_writer::SnapshotStatus, state::State as DaemonState};
use crate::{
    admin::{
        Gate, GroupReadiness, LivePage, Pages, Readiness,
        health::MAX_SILENCE,
        status::{GroupStatus, ReloadStatus},
    },
    clock::{self, Moment},
    config::Live,
    dnstap::Tap,
    engine::{
        Engine,
        explain::{self, Premise},
    },
    metrics::{self, Format, Registry, counter::SharedCounter},
    net::changes::NetworkChange,
    otlp::Tracer,
    perimeter::document::PerimeterDocument,
    plural::Plural,
    serve::connections::Connections,
    tls::ServerCertificate,
    upstream::{HealthState, Server, ServerRegistry, names::NameLists},
    wire::Transport,
};

/// The state of the daemon. Shared by the control thread and the admin server's connections.
#[derive(Debug)]
pub(super) struct Report {
    registry: Registry,
    engine: Arc<Engine>,
    servers: Arc<ServerRegistry>,
    names: NameLists,
    connections: Arc<Connections>,
    snapshot_status: Arc<SnapshotStatus>,
    listeners: Arc<[SocketAddr]>,
    certificate: Option<(String, Arc<ServerCertificate>)>,
    started: Moment,
    configuration: ArcSwap<Configuration>,
    gate: Arc<ArcSwap<Gate>>,
    live_page: Arc<LivePage>,
    reloads: Reloads,
    history: StatusHistory,
    hottest: Hottest,
    is_draining: AtomicBool,
    /// Reported network changes, by kind.
    network_changes: [SharedCounter; NetworkChange::ALL.len()],
    log_lost: Option<LostLines>,
    tap: Option<Tap>,
    tracer: Option<Tracer>,
}

/// The configuration in force, and its hash, by which replicas can be compared.
#[derive(Debug)]
struct Configuration {
    live: Arc<Live>,
    hash: String,
}

#[derive(Debug)]
struct Reloads {
    succeeded: SharedCounter,
    failed: SharedCounter,
    last_succeeded: AtomicBool,
    last: Mutex<Option<ReloadStatus>>,
}

impl Report {
    /// A report on these parts, with the configuration that comes into force.
    pub(super) fn new(
        workers: Vec<Arc<metrics::WorkerCounters>>,
        rules: Arc<metrics::RuleRegistry>,
        engine: Arc<Engine>,
        connections: Arc<Connections>,
        snapshot_status: Arc<SnapshotStatus>,
        bound: &Bound,
        state: &DaemonState,
    ) -> Self {
        let live = &state.live;
        let certificate = state.startup.certificate.as_ref();
        Self {
            registry: Registry::new(workers, rules, clock::wall()),
            engine,
            servers: state.servers(),
            names: state.ours().names().clone(),
            connections,
            snapshot_status,
            listeners: bound.plain.as_slice().into(),
            certificate: certificate.map(|certificate| (certificate.file(), certificate.shared())),
            started: Moment::now(),
            configuration: ArcSwap::from_pointee(Configuration::of(live)),
            gate: Arc::new(ArcSwap::from_pointee(gate(live))),
            live_page: Arc::default(),
            reloads: Reloads {
                succeeded: SharedCounter::default(),
                failed: SharedCounter::default(),
                last_succeeded: AtomicBool::new(true),
                last: Mutex::default(),
            },
            history: StatusHistory::default(),
            hottest: Hottest::default(),
            is_draining: AtomicBool::new(false),
            network_changes: Default::default(),
            log_lost: None,
            tap: None,
            tracer: None,
        }
    }

    /// Adds the counters of lost log lines, dnstap messages and spans.
    pub(super) fn with_log(self, log_lost: Option<LostLines>, tap: Option<Tap>, tracer: Option<Tracer>) -> Self {
        Self { log_lost, tap, tracer, ..self }
    }

    /// Notes that another configuration is in force; `lines` say what changed.
    pub(super) fn reloaded(&self, live: &Arc<Live>, lines: Vec<String>) {
        self.configuration.store(Arc::new(Configuration::of(live)));
        self.gate.store(Arc::new(gate(live)));
        self.reloads.succeeded.add(1);
        self.reload_ended(true, lines);
    }

    /// Notes that a configuration was refused, for the reasons in `lines`; the one in force stays.
    pub(super) fn reload_failed(&self, lines: Vec<String>) {
        self.reloads.failed.add(1);
        self.reload_ended(false, lines);
    }

    fn reload_ended(&self, success: bool, lines: Vec<String>) {
        let at = clock::wall().as_secs();
        self.history.reloaded(success, &lines, at);
        self.reloads.last_succeeded.store(success, Relaxed);
        *self.reloads.last.lock() = Some(ReloadStatus { at, success, lines });
    }

    /// The configuration in force.
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.configuration.load().live)
    }

    /// The configuration in force, and its hash.
    pub(super) fn configuration(&self) -> (Arc<Live>, String) {
        let configuration = self.configuration.load();
        (Arc::clone(&configuration.live), configuration.hash.clone())
    }

    /// Notes changes of this host's network.
    pub(super) fn network_changed(&self, changes: &[NetworkChange]) {
        self.history.network_changed(changes, clock::wall().as_secs());
        for change in changes {
            self.network_changes[*change as usize].add(1);
        }
    }

    /// Notes that the process is about to stop: it answers queries, but is not ready for more clients.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Logs the state in one line.
    pub(super) fn log_status(&self, now: Moment) {
        let snapshot = self.engine.snapshot_owned();
        let state_of = |server: &Server| if server.is_drained() { "drained" } else { server.state().label() };
        let not_up = snapshot.groups.iter().flat_map(|group| {
            let servers = group.servers().filter(|server| server.is_drained() || server.state() != HealthState::Up);
            servers.map(|server| format!("{} {} {}", group.name(), server.label(), state_of(server)))
        });
        let registry = &self.registry;
        let not_up = not_up.collect::<Vec<_>>().join(", ");
        let uptime = now.since(self.started).as_secs();
        let queries = Transport::ALL.iter().map(|transport| registry.queries(*transport)).sum::<u64>();
        let (hits, misses, stale) = (registry.hits(), registry.misses(), registry.stale());
        let (waiting, cached) = (self.engine.waiting.count(), self.engine.cache.stats().entries);
        let connections: usize = Transport::ALL.iter().map(|transport| self.connections.open(*transport)).sum();
        let servers = if not_up.is_empty() { "every server is up" } else { &*format!("not up: {not_up}") };
        tracing::info!(
            uptime,
            queries,
            hits,
            misses,
            stale,
            waiting,
            cached,
            connections,
            not_up,
            "status: up {uptime} s, {}, {}, {}, {stale} stale, {waiting} waiting, {cached} cached, {}; {servers}",
            Plural(queries, "query"),
            Plural(hits, "hit"),
            Plural(misses, "miss"),
            Plural(connections, "connection")
        );
    }

    /// Ends the streams of the status page, so that browsers see an end and not a failure.
    pub(super) async fn close_live_pages(&self) {
        self.live_page.close().await;
    }

    /// The pages of the admin server, made from this report.
    pub(super) fn pages(self: &Arc<Self>) -> Pages {
        let of = || Arc::clone(self);
        let (engine, explaining) = (Arc::clone(&self.engine), Arc::clone(&self.engine));
        let (metrics, status, upstreams, rules, top) = (of(), of(), of(), of(), of());
        let (readiness, silence) = (of(), of());
        Pages {
            gate: Arc::clone(&self.gate),
            metrics: Arc::new(move |format| metrics.metrics(format, Moment::now())),
            status: Arc::new(move || status.status(Moment::now())),
            upstreams: Arc::new(move || upstreams.upstreams(Moment::now())),
            rules: Arc::new(move || rules.rules()),
            top: Arc::new(move || top.hottest.top(clock::wall().as_secs())),
            live: Arc::clone(&self.live_page),
            perimeter: Arc::new(move || PerimeterDocument::of(&engine.perimeter)),
            explain: Arc::new(move |asked, addresses| {
                explain::explain(&explaining, asked, &Premise::of(addresses), Moment::now())
            }),
            readiness: Arc::new(move || readiness.readiness(Moment::now())),
            silence: Arc::new(move || silence.silence(Moment::now())),
            cache: transfer::of(&self.engine),
            listeners: Arc::clone(&self.listeners),
        }
    }

    fn metrics(&self, format: Format, now: Moment) -> String {
        self.registry.encode(format, |exposition| families::encode(self, exposition, now))
    }

    /// Why no clients should be sent here; listeners are bound before there is a report.
    fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_draining.load(Relaxed) {
            reasons.push("draining".to_owned());
        }
        let snapshot = self.engine.snapshot_owned();
        let is_used = |group: &str, addresses: &[IpAddr]| {
            let groups = snapshot.groups.iter().filter(|of| of.name() == group);
            groups.flat_map(|group| group.servers()).any(|server| addresses.contains(&server.spec().address.ip()))
        };
        let awaited = self.names.awaited(Moment::now(), is_used);
        reasons.extend(awaited.iter().map(|(group, name)| format!("no address yet of {name} in upstream {group}")));
        let unknown = snapshot.groups.iter().filter(|group| !group.has_first_verdict());
        reasons.extend(unknown.map(|group| format!("no verdict yet on a server of upstream {}", group.name())));
        reasons
    }

    fn readiness(&self, now: Moment) -> Readiness {
        let of = |group: GroupStatus| GroupReadiness {
            is_usable: group.usable > 0,
            is_whole: group.usable > 0 && group.servers().all(|server| !server.drained && !words::is_down(server)),
            name: group.name,
            words: group.words,
        };
        Readiness { reasons: self.unready(), groups: self.group_states(now).into_iter().map(of).collect() }
    }

    /// Whether every worker has turned its loop lately.
    pub(super) fn is_turning(&self, now: Moment) -> bool {
        self.silence(now) <= MAX_SILENCE
    }

    fn silence(&self, now: Moment) -> Duration {
        self.registry.silence(now)
    }
}

impl Configuration {
    fn of(live: &Arc<Live>) -> Self {
        let mut hash = TextHash(Xxh3::new());
        // It cannot fail.
        let _ = write!(hash, "{live:?}");
        Self { live: Arc::clone(live), hash: format!("{:016x}", hash.0.digest()) }
    }
}

/// The hash of a text as it is written: that of a large configuration is tens of megabytes long.
struct TextHash(Xxh3);

impl fmt::Write for TextHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

fn gate(live: &Live) -> Gate {
    Gate::new(&live.admin.allow, &live.admin.hosts)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    /// Replicas of other versions compare their hashes with ours.
    #[test]
    fn the_hash_of_a_text_does_not_depend_on_how_it_is_written() {
        let mut hash = TextHash(Xxh3::new());
        for number in 0..1000 {
            write!(hash, "{number}, ").unwrap();
        }
        let text: String = (0..1000).map(|number| format!("{number}, ")).collect();
        assert_eq!(hash.0.digest(), xxh3_64(text.as_bytes()));
    }
}
