//! A group of upstream servers in tiers: the state that workers share, and what survives a reload.
//!
//! Policy:
//! - The tiers are used in order while all servers of the tiers before are down or drained. Leaving a tier takes effect
//!   with the next query.
//! - A better tier is used again once a server of it has not been down for `fail_back`; at once if the tier in use has
//!   no healthy server itself.
//! - While every server is down, a bounded number of queries at a time are let through; the others fail at once.
//! - Queries that wait on the group are bounded, so that a dead link does not starve the other groups.

mod marks;
pub(crate) mod select;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;

use crate::{
    clock::Moment,
    upstream::{
        server::{
            Alarm, Server, ServerPolicy, ServerRegistry, Wanted, budget::ShareBudget, failure::Availability,
            health::HealthState,
        },
        spec::{GroupLimits, GroupSpec, HealthSpec, Policy, ServerKey, ServerSpec, TierMember},
        system::{self, OwnAddresses},
    },
};

pub(crate) use self::marks::ClearedMark;
use self::select::{Candidate, Candidates};
pub use self::{marks::Marks, select::MAX_SERVERS};

/// How many queries at a time are tried while every server of a group is down.
const TRIALS: usize = 32;

/// A group, shared by all workers.
#[derive(Debug)]
pub struct Group {
    name: Arc<str>,
    tiers: Vec<Vec<Arc<Server>>>,
    policy: Policy,
    limits: GroupLimits,
    health: HealthSpec,
    running: Arc<Running>,
}

/// State that changes with each query, kept over reloads.
#[derive(Debug, Default)]
struct Running {
    tier: AtomicUsize,
    trials: AtomicUsize,
    hedge_wins: AtomicU64,
    busy: CachePadded<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    waiting: AtomicUsize,
    turn: AtomicUsize,
    hedges: AtomicU64,
    hedge_budget: ShareBudget,
}

/// A query's slot among those that wait on a group.
#[derive(Debug)]
pub(super) struct QueueSlot<'a>(&'a Group);

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.0.running.busy.waiting.fetch_sub(1, Relaxed);
    }
}

/// The permit of a query to try servers that are all down.
#[derive(Debug)]
pub(super) struct TrialPermit<'a>(&'a Group);

impl Drop for TrialPermit<'_> {
    fn drop(&mut self) {
        self.0.running.trials.fetch_sub(1, Relaxed);
    }
}

impl Group {
    /// Builds all groups. What `registry` knows of their servers stays with these, and those that no group has any more
    /// have left. A group that `previous` has too keeps its tier and its counters. Servers that are our own listeners are
    /// left out with a warning.
    pub fn build_all(
        specs: &[GroupSpec],
        previous: &[Arc<Self>],
        ours: &OwnAddresses,
        registry: &ServerRegistry,
        now: Moment,
    ) -> Vec<Arc<Self>> {
        let wanted: Vec<Vec<Wanted>> = specs.iter().map(|spec| servers_of(spec, ours)).collect();
        let tiers: Vec<Vec<usize>> = wanted.iter().map(|servers| tiers_of(servers)).collect();
        let mut servers = registry.assign(wanted.into_iter().flatten().collect(), now).into_iter();
        let previous = |spec: &GroupSpec| previous.iter().find(|group| *group.name == spec.name);
        let groups = specs.iter().zip(&tiers);
        groups.map(|(spec, tiers)| Arc::new(Self::of(spec, tiers, &mut servers, previous(spec)))).collect()
    }

    /// Builds a single group of servers about which nothing is known. `alarm` wakes the prober.
    pub fn build(spec: &GroupSpec, ours: &OwnAddresses, alarm: &Arc<Alarm>) -> Self {
        let wanted = servers_of(spec, ours);
        let tiers = tiers_of(&wanted);
        let registry = ServerRegistry::new(Arc::clone(alarm));
        Self::of(spec, &tiers, &mut registry.assign(wanted, Moment::default()).into_iter(), None)
    }

    /// Takes a server for each of `tier_of`.
    fn of(
        spec: &GroupSpec,
        tier_of: &[usize],
        servers: &mut impl Iterator<Item = Arc<Server>>,
        previous: Option<&Arc<Self>>,
    ) -> Self {
        let mut tiers = vec![Vec::new(); spec.tiers.len()];
        for (&tier, server) in tier_of.iter().zip(servers) {
            tiers[tier].push(server);
        }
        let running = previous.map(|group| Arc::clone(&group.running)).unwrap_or_default();
        if running.tier.load(Relaxed) >= tiers.len() {
            running.tier.store(0, Relaxed);
        }
        let (limits, health) = (spec.limits.clone(), spec.health.clone());
        Self { name: spec.name.as_str().into(), tiers, policy: spec.policy, limits, health, running }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its servers by tier, the preferred tier first.
    pub fn tiers(&self) -> &[Vec<Arc<Server>>] {
        &self.tiers
    }

    /// All its servers.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.tiers.iter().flatten()
    }

    /// All its servers, each with its tier and place in it.
    pub(super) fn places(&self) -> impl Iterator<Item = ((u8, u8), &Arc<Server>)> {
        self.tiers
            .iter()
            .zip(0..)
            .flat_map(|(servers, tier)| servers.iter().zip(0..).map(move |(server, place)| ((tier, place), server)))
    }

    /// How a server is chosen.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Its limits.
    pub const fn limits(&self) -> &GroupLimits {
        &self.limits
    }

    /// How its servers are watched.
    pub const fn health(&self) -> &HealthSpec {
        &self.health
    }

    /// Whether some server is known to answer, or all are known not to: the first verdict that readiness waits for. A
    /// group without servers has its verdict.
    pub fn has_first_verdict(&self) -> bool {
        let answers = |server: &Arc<Server>| server.is_judged() && server.state() == HealthState::Up;
        self.servers().any(answers) || self.servers().all(|server| server.is_judged())
    }

    /// Whether no server is likely to answer: all are down or drained, or there is none.
    pub fn is_down(&self) -> bool {
        !self.servers().any(is_usable)
    }

    /// [`Self::is_down`] for a rule that must not use some of the servers.
    pub fn is_down_without(&self, loops: &Marks) -> bool {
        !self.servers().any(|server| is_usable(server) && !loops.has(server))
    }

    /// Queries that wait on it now.
    pub fn in_flight(&self) -> usize {
        self.running.busy.waiting.load(Relaxed)
    }

    /// Hedges sent.
    pub fn hedges(&self) -> u64 {
        self.running.busy.hedges.load(Relaxed)
    }

    /// Hedges that answered first.
    pub fn hedge_wins(&self) -> u64 {
        self.running.hedge_wins.load(Relaxed)
    }

    /// The tier in use, 0 the preferred one, brought up to date.
    pub fn tier(&self, now: Moment) -> usize {
        let current = self.running.tier.load(Relaxed);
        if current == 0 && self.tier_is_usable(0) {
            return 0;
        }
        let next = self.next_tier(current, now);
        let swapped = self.running.tier.compare_exchange(current, next, Relaxed, Relaxed).is_ok();
        if next != current && swapped {
            if next > current {
                tracing::warn!(
                    group = &*self.name,
                    from = current,
                    to = next,
                    "upstream {} now uses tier {next}: no server of tier {current} is usable",
                    self.name
                );
            } else {
                tracing::info!(
                    group = &*self.name,
                    from = current,
                    to = next,
                    "upstream {} now uses tier {next} again, instead of tier {current}",
                    self.name
                );
            }
        }
        next
    }

    fn next_tier(&self, current: usize, now: Moment) -> usize {
        if !self.tier_is_usable(current) {
            return (0..self.tiers.len()).find(|&tier| self.tier_is_usable(tier)).unwrap_or(current);
        }
        let is_steady = |server: &Arc<Server>| {
            is_usable(server) && server.is_judged() && now.since(server.steady_since()) >= self.limits.fail_back
        };
        (0..current).find(|&tier| self.tiers[tier].iter().any(is_steady)).unwrap_or(current)
    }

    fn tier_is_usable(&self, tier: usize) -> bool {
        self.tiers.get(tier).is_some_and(|servers| servers.iter().any(is_usable))
    }

    /// The servers that the next query would try, in order, for a rule that leaves some out; or why there is none. Does
    /// not use up a turn.
    pub fn order(&self, loops: &Marks, now: Moment) -> Result<Vec<&Arc<Server>>, Availability> {
        let turn = || self.running.busy.turn.load(Relaxed);
        let candidates = Candidates::with_turn(self, loops, now, turn)?;
        let server =
            |candidate: &Candidate| self.tiers.get(usize::from(candidate.tier))?.get(usize::from(candidate.place));
        Ok(candidates.as_slice().iter().filter_map(server).collect())
    }

    /// Takes a slot for one more query; none if all are taken.
    pub(super) fn enter(&self) -> Option<QueueSlot<'_>> {
        let waiting = self.running.busy.waiting.fetch_add(1, Relaxed);
        let place = QueueSlot(self);
        (waiting < self.limits.in_flight).then_some(place)
    }

    /// The next number for taking turns.
    pub(super) fn turn(&self) -> usize {
        self.running.busy.turn.fetch_add(1, Relaxed)
    }

    /// Takes a permit to try servers that are all down; none if all are taken.
    pub(super) fn enter_trial(&self) -> Option<TrialPermit<'_>> {
        let running = self.running.trials.fetch_add(1, Relaxed);
        let trial = TrialPermit(self);
        (running < TRIALS).then_some(trial)
    }

    /// Counts an ordinary query, which earns a share of a hedge.
    pub(super) fn earn_hedge(&self) {
        if let Some(share) = self.limits.hedge_budget {
            self.running.busy.hedge_budget.earn(share);
        }
    }

    /// Takes a hedge, if hedging is on and the budget has one.
    pub(super) fn take_hedge(&self) -> bool {
        self.limits.hedge_budget.is_some() && self.running.busy.hedge_budget.take()
    }

    pub(super) fn hedge_sent(&self) {
        self.running.busy.hedges.fetch_add(1, Relaxed);
    }

    /// Gives back the budget of a hedge that took the place of a retry.
    pub(super) fn return_hedge(&self) {
        self.running.busy.hedge_budget.give_back();
    }

    pub(super) fn hedge_won(&self) {
        self.running.hedge_wins.fetch_add(1, Relaxed);
    }
}

/// Whether queries may go to a server at all.
pub(super) fn is_usable(server: &Arc<Server>) -> bool {
    server.is_usable()
}

fn expand(group: &str, entry: &TierMember, ours: &OwnAddresses) -> Vec<ServerSpec> {
    match entry {
        TierMember::Server(server) => vec![server.clone()],
        TierMember::Named { name, server } => {
            let of = |ip| ServerSpec { address: (ip, server.address.port()).into(), ..server.clone() };
            ours.names().addresses(group, name).into_iter().map(of).collect()
        }
        TierMember::System { path, via, path_label } => {
            let listed = system::servers(path.as_deref(), ours).into_iter();
            listed.map(|address| system::spec_of(address, via, path_label)).collect()
        }
    }
}

/// The servers of a group, each once, with their tiers.
fn servers_of(spec: &GroupSpec, ours: &OwnAddresses) -> Vec<Wanted> {
    let group: Arc<str> = spec.name.as_str().into();
    let rules =
        ServerPolicy { health: spec.health.clone(), timeout: spec.limits.timeout, max_qps: spec.limits.max_qps };
    let mut keys: Vec<ServerKey> = Vec::new();
    let mut wanted = Vec::new();
    for (tier, entries) in spec.tiers.iter().enumerate() {
        for server in entries.iter().flat_map(|entry| expand(&spec.name, entry, ours)) {
            if ours.holds(server.address) {
                tracing::warn!(group = spec.name, %server, "upstream {server} of group {group} is left out: it is our own listener");
                continue;
            }
            if keys.contains(&server.key()) {
                continue;
            }
            if keys.len() == MAX_SERVERS {
                tracing::warn!(group = spec.name, %server, "upstream {server} of group {} is left out: a group has at most {MAX_SERVERS} servers", spec.name);
                continue;
            }
            keys.push(server.key());
            wanted.push(Wanted { group: Arc::clone(&group), tier, spec: server, rules: rules.clone() });
        }
    }
    wanted
}

fn tiers_of(servers: &[Wanted]) -> Vec<usize> {
    servers.iter().map(|server| server.tier).collect()
}
