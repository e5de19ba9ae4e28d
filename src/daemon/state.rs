//! The configuration in force and what is built from it; replaced as a whole by a reload.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    certificate::{Polled, WatchedCertificate},
    delegations, designated,
    groups::{self, SystemRoots},
};
use crate::{
    cache::Cache,
    clock::Moment,
    config::{Live, Plan, ServerAddress, SpecialNames, WrittenAt, ZoneData},
    engine::{Engine, snapshot::Snapshot},
    metrics,
    upstream::{Alarm, Group, Loops, OwnAddresses, ServerRegistry, loops, names::WatchedName},
    wire::{Name, Transport},
    zones::{InlineRecord, LocalSpec, RecordPlace, SpecialUse, ZoneError, ZoneSource, Zones},
};

/// The configuration in force and everything built from it. One thread owns it.
pub(super) struct State {
    pub(super) engine: Arc<Engine>,
    /// The plan in force, with a rule and a group for each delegation that is followed.
    pub(super) live: Arc<Live>,
    /// The plan as configured, without the delegations.
    configured: Arc<Live>,
    groups: Vec<Arc<Group>>,
    /// What is known of servers, including those that left recently.
    servers: Arc<ServerRegistry>,
    zones: Arc<Zones>,
    rules: Arc<metrics::RuleRegistry>,
    alarm: Arc<Alarm>,
    ours: OwnAddresses,
    generation: u32,
    pub(super) startup: Startup,
    targets: watch::Sender<Vec<Arc<Group>>>,
    loop_targets: watch::Sender<Arc<[loops::WatchedRule]>>,
    names: watch::Sender<Vec<WatchedName>>,
    system_roots: SystemRoots,
}

/// Facts fixed at the start, which a reload cannot change.
#[derive(Debug, Default)]
pub(super) struct Startup {
    /// The certificate of the encrypted listeners.
    pub(super) certificate: Option<WatchedCertificate>,
    /// The encrypted listeners.
    pub(super) listeners: Vec<(Transport, SocketAddr)>,
    /// How many UDP ports to all upstreams the descriptors allow; none if unlimited.
    pub(super) source_ports: Option<usize>,
}

impl Startup {
    /// Adds the records that point clients at the encrypted listeners to the zones.
    fn designated(&self, mut zones: Zones) -> Arc<Zones> {
        let pair = self.certificate.as_ref().map(|certificate| certificate.shared().pair());
        let facts = pair.as_ref().map(|pair| pair.facts());
        zones.designate(&designated::resolvers(facts, &self.listeners));
        Arc::new(zones)
    }
}

/// Result of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Changes, one line each.
    pub changes: Vec<String>,
    /// Warnings about files that were read again.
    pub warnings: Vec<String>,
}

/// Local data that changed since it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Reread {
    /// Zones whose records changed.
    zones: Vec<Name>,
    /// Whether the hosts file changed.
    hosts: bool,
}

impl Reread {
    fn between(old: &Zones, new: &Zones) -> Self {
        let prints = |zones: &Zones| {
            zones.domains().map(|domain| (domain.name.clone(), domain.fingerprint)).collect::<HashMap<_, _>>()
        };
        let (before, after) = (prints(old), prints(new));
        let is_other = |(name, print): &(Name, u64)| before.get(name).is_some_and(|before| before != print);
        let mut zones: Vec<Name> = after.into_iter().filter(is_other).map(|(name, _)| name).collect();
        zones.sort_unstable();
        Self { zones, hosts: old.hosts_fingerprint() != new.hosts_fingerprint() }
    }

    /// Adds the changes in these files to those of the configuration.
    fn added_to(&self, mut changes: Vec<String>) -> Vec<String> {
        let zones = self.zones.iter().map(|zone| format!("local zone {zone} changed"));
        let hosts = self.hosts.then(|| "local_hosts.file changed".to_owned());
        for line in zones.chain(hosts) {
            if !changes.contains(&line) {
                changes.push(line);
            }
        }
        changes
    }
}

impl State {
    /// Builds everything from the first plan.
    pub(super) fn new(
        live: Live,
        startup: Startup,
        cache: Cache,
        rules: Arc<metrics::RuleRegistry>,
        ours: OwnAddresses,
        alarm: Arc<Alarm>,
    ) -> Result<Self, Vec<ZoneError>> {
        let zones = startup.designated(build_zones(&live, None)?);
        report(&zones);
        let configured = Arc::new(live);
        let live = delegations::followed(&configured, &zones);
        let servers = Arc::new(ServerRegistry::new(Arc::clone(&alarm)));
        let system_roots = SystemRoots::default();
        let (names, _) = watch::channel(groups::watched_names(&live));
        ours.names().keep(&names.borrow(), Moment::now());
        let specs = groups::specs(&live, &system_roots, startup.source_ports);
        let groups = Group::build_all(&specs, &[], &ours, &servers, Moment::now());
        let loops = Arc::<Loops>::default();
        let snapshot = Snapshot::build(&live, 1, groups.clone(), Arc::clone(&zones), &rules, &loops);
        let engine = Arc::new(Engine::new(snapshot, cache, loops));
        let (targets, _) = watch::channel(groups.clone());
        let (loop_targets, _) = watch::channel(groups::loop_targets(&live, &groups));
        Ok(Self {
            engine,
            live,
            configured,
            groups,
            servers,
            zones,
            rules,
            alarm,
            ours,
            generation: 1,
            startup,
            targets,
            loop_targets,
            names,
            system_roots,
        })
    }

    /// Puts another plan into force and returns what changed, or keeps the old one.
    pub(super) fn replace(&mut self, live: Live) -> Result<Reloaded, Vec<ZoneError>> {
        let zones = build_zones(&live, Some(&self.zones))?;
        if let (Some(watched), Some(read)) = (&mut self.startup.certificate, &live.certificate) {
            watched.reload(read);
        }
        let zones = self.startup.designated(zones);
        report(&zones);
        let reread = Reread::between(&self.zones, &zones);
        let changes = reread.added_to(self.configured.changes(&live));
        self.system_roots.renew();
        self.zones = zones;
        self.configured = Arc::new(live);
        self.live = delegations::followed(&self.configured, &self.zones);
        self.rebuild();
        Ok(Reloaded { changes, warnings: self.zones.warnings().collect() })
    }

    /// Reads zone files again and returns which changed; errors leave the old zones in force.
    pub(super) fn reread_zones(&mut self) -> Result<Vec<String>, Vec<ZoneError>> {
        let zones = self.startup.designated(build_zones(&self.configured, Some(&self.zones))?);
        report(&zones);
        let changes = Reread::between(&self.zones, &zones).added_to(Vec::new());
        self.zones = zones;
        let live = delegations::followed(&self.configured, &self.zones);
        if live != self.live {
            self.live = live;
            self.rebuild();
            return Ok(changes);
        }
        // The servers are unchanged, so a file that is written often does not cause as many loop probes.
        self.build();
        Ok(changes)
    }

    /// Builds groups and snapshot again from the plan in force, because servers may have changed.
    pub(super) fn rebuild(&mut self) {
        self.build();
        self.loop_targets.send_replace(groups::loop_targets(&self.live, &self.groups));
    }

    fn build(&mut self) {
        let specs = groups::specs(&self.live, &self.system_roots, self.startup.source_ports);
        let names = groups::watched_names(&self.live);
        self.ours.names().keep(&names, Moment::now());
        self.names.send_if_modified(|known| {
            let is_other = *known != names;
            *known = names;
            is_other
        });
        self.groups = Group::build_all(&specs, &self.groups, &self.ours, &self.servers, Moment::now());
        self.generation = self.generation.wrapping_add(1);
        let zones = Arc::clone(&self.zones);
        let loops = &self.engine.loops;
        let snapshot = Snapshot::build(&self.live, self.generation, self.groups.clone(), zones, &self.rules, loops);
        self.engine.replace(snapshot);
        self.engine.forget_failures();
        self.targets.send_replace(self.groups.clone());
    }

    /// Reads the certificate again where its files have changed.
    pub(super) fn poll_certificate(&mut self, now: Moment) {
        let Some(certificate) = &mut self.startup.certificate else { return };
        if certificate.poll(now) == Polled::Replaced
            && let Ok(zones) = build_zones(&self.configured, Some(&self.zones))
        {
            self.zones = self.startup.designated(zones);
            self.build();
        }
    }

    /// Forgets records that have not been used for long.
    pub(super) fn forget(&self, now: Moment) {
        self.servers.forget(now);
    }

    /// What is known of servers.
    pub(super) fn servers(&self) -> Arc<ServerRegistry> {
        Arc::clone(&self.servers)
    }

    /// The groups that probes watch, now and after each change.
    pub(super) fn targets(&self) -> watch::Receiver<Vec<Arc<Group>>> {
        self.targets.subscribe()
    }

    /// The rules and groups that are probed for loops, now and after each change.
    pub(super) fn loop_targets(&self) -> watch::Receiver<Arc<[loops::WatchedRule]>> {
        self.loop_targets.subscribe()
    }

    /// The names to resolve, now and after each change.
    pub(super) fn names(&self) -> watch::Receiver<Vec<WatchedName>> {
        self.names.subscribe()
    }

    /// The files that `system` servers come from.
    pub(super) fn system_files(&self) -> Vec<Option<PathBuf>> {
        let servers = self.live.groups.iter().flat_map(|group| group.tiers.iter().flatten());
        let mut files = Vec::new();
        for server in servers {
            if let ServerAddress::System { path } = &server.address
                && !files.contains(path)
            {
                files.push(path.clone());
            }
        }
        files
    }

    pub(super) fn zones(&self) -> &Zones {
        &self.zones
    }

    pub(super) fn ours(&self) -> OwnAddresses {
        self.ours.clone()
    }

    pub(super) fn alarm(&self) -> Arc<Alarm> {
        Arc::clone(&self.alarm)
    }
}

/// Logs the errors and warnings of local files that were just read.
fn report(zones: &Zones) {
    for error in zones.errors() {
        error!("{error}");
    }
    if !zones.errors().is_empty() {
        for zone in zones.broken() {
            error!("the local zone {zone} answers SERVFAIL until its file is mended; all else is served");
        }
    }
    for warning in zones.warnings() {
        warn!("{warning}");
    }
}

/// An engine with a plan but without sockets or probes, to explain queries without a daemon.
pub fn offline_engine(plan: &Plan, cache: Cache) -> Result<Arc<Engine>, Vec<ZoneError>> {
    let listen = plan.boot.listen.iter().filter_map(|listen| groups::resolve(&listen.endpoint));
    let rules = Arc::new(metrics::RuleRegistry::new(1));
    let state =
        State::new(plan.live.clone(), Startup::default(), cache, rules, OwnAddresses::new(listen), Arc::default())?;
    Ok(state.engine)
}

/// Reads every local zone of a plan: for the start, for `check`, or next to the zones in force.
pub fn build_zones(live: &Live, previous: Option<&Zones>) -> Result<Zones, Vec<ZoneError>> {
    let place = |at: &WrittenAt| RecordPlace { file: at.file.clone(), line: at.line };
    let specs: Vec<LocalSpec> = live
        .local
        .iter()
        .map(|local| LocalSpec {
            zone: local.zone.clone(),
            place: place(&local.place),
            source: match &local.data {
                ZoneData::File(path) => ZoneSource::File(path.clone()),
                ZoneData::Records(lines) => ZoneSource::Records(
                    lines.iter().map(|(text, at)| InlineRecord { text: text.clone(), place: place(at) }).collect(),
                ),
            },
        })
        .collect();
    let special = match live.special {
        SpecialNames::AnsweredHere => SpecialUse::Answered,
        SpecialNames::Forwarded => SpecialUse::Ignored,
    };
    Zones::build(&specs, live.hosts.as_deref(), special, previous)
}
