//! One upstream server of a group, shared by all workers: how it is asked and judged. What is known of it is in its
//! record.
//!
//! The fields that an exchange touches are atomic. The health machine is behind a lock that is taken only for unusual
//! events: a good answer from a healthy server costs one load.

pub(crate) mod budget;
pub mod connect_error;
pub mod failure;
pub mod health;
pub(crate) mod liveness;
pub(crate) mod quirks;
mod record;
mod registry;
mod role;
pub mod rtt;
pub mod tally;

use std::{
    io,
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::{
    clock::Moment,
    system_error::SystemError,
    tls::{Alpn, TlsClient},
    upstream::spec::{HealthSpec, ServerSpec},
    wire::UpstreamQuery,
};

use self::{
    budget::BudgetShare,
    health::{Change, Event, HealthState},
};
pub use self::{
    record::ServerRecord,
    registry::{FormerServer, ServerRegistry},
};
pub(crate) use self::{registry::Wanted, role::Role};

/// Workers that observe the same event within this time log it once.
const SAID_ONCE: Duration = Duration::from_secs(2);

/// How often a local send error is logged.
const LOCAL_ERROR_SPACING: Duration = Duration::from_mins(1);

/// Wakes the prober when a server becomes suspect.
pub type Alarm = Notify;

/// The limits and thresholds of a server; a reload may change them.
#[derive(Debug, Clone)]
pub struct ServerPolicy {
    /// Probes and thresholds.
    pub health: HealthSpec,
    /// The ceiling of one try.
    pub timeout: Duration,
    /// The most queries a second to its address; the lowest limit of all servers there applies.
    pub max_qps: Option<u32>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An upstream server in a group.
#[derive(Debug)]
pub struct Server {
    id: u64,
    group: Arc<str>,
    label: String,
    spec: ServerSpec,
    /// Shared by all workers, together with the sessions that it resumes.
    tls: Option<TlsClient>,
    /// Written by a reload.
    rules: ArcSwap<ServerPolicy>,
    alarm: Arc<Alarm>,
    /// How many doubts have asked for a probe.
    doubts: AtomicU64,
    /// Taken from by every query.
    pub(super) budget: BudgetShare,
    record: Arc<ServerRecord>,
}

/// A server gives access to its record.
impl Deref for Server {
    type Target = ServerRecord;

    fn deref(&self) -> &ServerRecord {
        &self.record
    }
}

impl Server {
    /// Makes a server with this record.
    pub fn new(
        group: Arc<str>,
        spec: ServerSpec,
        rules: ServerPolicy,
        record: Arc<ServerRecord>,
        alarm: Arc<Alarm>,
    ) -> Self {
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Self {
            id,
            budget: BudgetShare::of(id, spec.address, spec.via.scope.as_deref(), rules.max_qps),
            group,
            label: spec.to_string(),
            tls: tls_client(&spec),
            spec,
            rules: ArcSwap::from_pointee(rules),
            alarm,
            doubts: AtomicU64::new(1),
            record,
        }
    }

    /// The server's record.
    pub const fn record(&self) -> &Arc<ServerRecord> {
        &self.record
    }

    /// A number that no other server of this process has had.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// The name of its group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Its name in logs and metrics, as the configuration writes it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where it is and how to reach it.
    pub const fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// Takes it out of service: no new query goes to it. It is still probed.
    pub fn drain(&self) {
        if !self.is_drained.swap(true, Relaxed) {
            let (group, server) = (&*self.group, &*self.label);
            tracing::info!(group, server, "upstream {server} of group {group} is drained: it gets no more queries");
        }
    }

    /// Puts it back into service.
    pub fn undrain(&self) {
        if self.is_drained.swap(false, Relaxed) {
            let (group, server) = (&*self.group, &*self.label);
            tracing::info!(group, server, "upstream {server} of group {group} is back in service");
        }
    }

    /// The TLS client for it; none for plain DNS.
    pub(super) const fn tls(&self) -> Option<&TlsClient> {
        self.tls.as_ref()
    }

    /// The limits and thresholds in force.
    pub fn rules(&self) -> Arc<ServerPolicy> {
        self.rules.load_full()
    }

    /// Sets the limits and thresholds that a reload brings.
    pub(super) fn set_rules(&self, rules: ServerPolicy) {
        self.budget.set(rules.max_qps);
        self.rules.store(Arc::new(rules));
    }

    /// How long a try may take before the next server is asked.
    pub(super) fn limit(&self, ceiling: Duration) -> Duration {
        self.rtt.limit(ceiling)
    }

    /// A number that grows with each doubt that asks for a probe.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Relaxed)
    }

    pub(super) fn sample(&self, rtt: Duration) {
        self.rtt.sample(rtt);
    }

    /// Handles a good answer in traffic.
    pub(super) fn answered(&self, query: &Arc<UpstreamQuery>, now: Moment) {
        self.liveness.answered(query, now);
        // While the server is up, a good answer changes nothing.
        if self.state() != HealthState::Up {
            self.observe(Event::Answered, now);
        }
    }

    /// Handles a response in traffic that another server should answer better.
    pub(super) fn broken(&self, query: &UpstreamQuery, now: Moment) {
        self.liveness.failed(&query.name, now);
        self.observe(Event::Broken, now);
    }

    /// Handles a try that passed its limit or could not leave. It counts against the server only if nothing arrived
    /// since. The prober judges whether a probe passed; here it counts as one more unanswered query.
    pub(super) fn late(&self, sent_at: Moment, now: Moment, role: Role) {
        if role == Role::Tagged || self.liveness.heard_since(sent_at) {
            return;
        }
        // Silence for every query over nearly a whole time-out is a verdict. "Nearly", so that the verdict falls within
        // the time-out although the next try must first pass its limit.
        let is_verdict = self.liveness.silent(role, sent_at, self.rules.load().timeout * 9 / 10, now);
        if role == Role::Traffic {
            self.observe(Event::Late, now);
        }
        if is_verdict && self.state() != HealthState::Down {
            self.observe(Event::Silent, now);
        }
    }

    /// Passes an event to the health machine.
    pub(super) fn observe(&self, event: Event, now: Moment) {
        let rules = self.rules.load();
        let change = {
            let mut health = self.verdict.health.lock();
            let change = health.on(event, now, &rules.health);
            self.verdict.publish(&health);
            change
        };
        match event {
            Event::ProbeFailed(fault) => *self.verdict.last_probe_error.lock() = Some(fault),
            Event::ProbePassed => {
                *self.verdict.last_probe_error.lock() = None;
                self.set_connect_error(None);
            }
            _ => {}
        }
        let is_doubt = matches!(event, Event::Late | Event::Broken | Event::Refused);
        if !is_doubt || self.state() == HealthState::Down {
            self.verdict.is_judged.store(true, Relaxed);
        }
        match change {
            Some(change) => self.changed(change),
            // A server that was already suspect is probed at once too.
            None if event == Event::Refused && self.state() == HealthState::Suspect => self.raise_alarm(),
            None => {}
        }
    }

    /// Asks for a probe at once.
    fn raise_alarm(&self) {
        self.doubts.fetch_add(1, Relaxed);
        self.alarm.notify_one();
    }

    fn changed(&self, change: Change) {
        self.verdict.transitions[change.to as usize].fetch_add(1, Relaxed);
        let (group, server) = (&*self.group, &*self.label);
        let (from, to) = (change.from.label(), change.to.label());
        let before = self.verdict.changed_by.lock().replace(change.because);
        // After an error response, a good probe says only that the server is as well as it was.
        if change.to == HealthState::Up && (change.from == HealthState::Down || before != Some(Event::Broken)) {
            self.verdict.recoveries.fetch_add(1, Relaxed);
        }
        let because = change.because.words();
        match (change.from, change.to) {
            (_, HealthState::Down) => {
                let cause = self.connect_error();
                let behind = cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
                let cause = cause.map(tracing::field::display);
                tracing::warn!(
                    group,
                    server,
                    from,
                    to,
                    because,
                    cause,
                    "upstream {server} of group {group} is down: {because}{behind}"
                );
            }
            (HealthState::Down, _) => {
                tracing::info!(
                    group,
                    server,
                    from,
                    to,
                    because,
                    "upstream {server} of group {group} is {to}: {because}"
                );
            }
            _ => tracing::debug!(
                group,
                server,
                from,
                to,
                because,
                "upstream {server} of group {group} is {to}: {because}"
            ),
        }
        if change.to != HealthState::Up {
            self.raise_alarm();
        }
    }

    /// Handles a message that belongs to a query sent at `sent_at`.
    pub(super) fn heard(&self, sent_at: Moment, now: Moment) {
        self.liveness.heard(now);
        let Some(lost) = self.record.find_path(sent_at, now) else { return };
        let (group, server) = (&*self.group, &*self.label);
        if !lost.was_known {
            // If it went down meanwhile, or the path is another, the log says so.
            let is_told =
                self.state() == HealthState::Down || self.record.path_changed_at.load(Relaxed) >= lost.since.micros();
            let gone = if is_told { 0 } else { now.since(lost.since).as_micros().max(1) };
            self.record.brief_loss.store(u64::try_from(gone).unwrap_or(u64::MAX), Relaxed);
        } else if self.record.local_error_at.load(Relaxed) >= lost.since.micros() {
            tracing::info!(group, server, "queries to upstream {server} of group {group} leave this host again");
        }
    }

    /// Handles a query for which there is no route. That may be over in a moment.
    pub(super) fn has_no_route(&self, now: Moment) {
        self.record.lose_path(now);
    }

    /// Handles a query that could not leave this host, for lack of descriptors, memory or permission, or because its
    /// address or device is gone. That says nothing about the server, and is logged once a minute.
    pub(super) fn could_not_send(&self, error: &io::Error, now: Moment) {
        use io::ErrorKind::{AddrNotAvailable, InvalidInput, PermissionDenied};

        let has_no_device = error.raw_os_error() == Some(Errno::NODEV.raw_os_error());
        if has_no_device || matches!(error.kind(), AddrNotAvailable | InvalidInput | PermissionDenied) {
            self.record.lose_path(now);
            if !self.record.has_no_path.swap(true, Relaxed) {
                self.raise_alarm();
            }
        }
        let said = Moment::from_micros(self.record.local_error_at.load(Relaxed));
        if said != Moment::default() && now.since(said) < LOCAL_ERROR_SPACING {
            return;
        }
        self.record.local_error_at.store(now.micros(), Relaxed);
        let (group, server, error) = (&*self.group, &*self.label, SystemError(error));
        tracing::warn!(
            group,
            server,
            %error,
            "queries to upstream {server} of group {group} cannot leave this host: {error}; the server is not blamed"
        );
    }

    /// Logs, once an hour, that answers come in another letter case and cannot be confirmed over TCP.
    pub(super) fn case_is_unproven(&self, now: Moment) {
        if self.quirks.case_is_unproven(now) {
            let (group, server) = (&*self.group, &*self.label);
            tracing::warn!(
                group,
                server,
                "upstream {server} of group {group} answers in another letter case than it is asked in, and over TCP not \
                 at all, so that its answers may be forged: no answer of it is used while the group has mix_case"
            );
        }
    }

    /// Has it probed at once if there was no path to it: there may be one now.
    pub(super) fn may_have_a_path(&self) {
        if self.record.path_lost_at.load(Relaxed) != 0 {
            self.raise_alarm();
        }
    }

    /// Logs that queries to the server leave by another address or device than before. Each worker notices for itself;
    /// it is logged once, and not at all where the log says anyway that queries leave again.
    pub(crate) fn path_changed(&self, source: IpAddr, now: Moment) {
        self.record.brief_loss.store(0, Relaxed);
        let is_recent = |at: &AtomicU64| {
            let at = Moment::from_micros(at.load(Relaxed));
            at != Moment::default() && now.since(at) < SAID_ONCE
        };
        if self.has_no_path() || is_recent(&self.record.path_back_at) || is_recent(&self.record.path_changed_at) {
            return;
        }
        self.record.path_changed_at.store(now.micros(), Relaxed);
        let (group, server) = (&*self.group, &*self.label);
        tracing::info!(
            group,
            server,
            %source,
            "the path to upstream {server} of group {group} changed: queries leave from {source} now"
        );
    }

    /// Whether the path was gone for a moment, which the log does not say yet.
    pub(crate) fn had_no_path(&self) -> bool {
        self.record.brief_loss.load(Relaxed) != 0
    }

    /// Logs that the path was gone for a moment, if it was.
    pub(crate) fn path_is_the_same(&self) {
        if !self.had_no_path() {
            return;
        }
        let gone = Duration::from_micros(self.record.brief_loss.swap(0, Relaxed));
        if !gone.is_zero() {
            let (group, server, ms) = (&*self.group, &*self.label, gone.as_millis());
            tracing::info!(group, server, ms, "the path to upstream {server} of group {group} was gone for {ms} ms");
        }
    }
}

/// The TLS client for a server; none for plain DNS.
pub(super) fn tls_client(spec: &ServerSpec) -> Option<TlsClient> {
    let identity = spec.identity.as_ref()?;
    let alpn = Alpn::of(spec.transport)?;
    Some(TlsClient::new(&identity.roots, spec.address.ip(), identity.name.as_deref(), alpn))
}

#[cfg(test)]
mod tests;
