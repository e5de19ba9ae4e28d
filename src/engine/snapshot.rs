//! The configuration as queries see it: one value, replaced whole by a reload.
//!
//! `shape` decides whether an answer from before a reload may still be used.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::{HashMap, HashSet};

use super::{access::Access, client_limit::RateLimit, guard::Guard, shape};
use crate::{
    cache::{Stamp, policy},
    clock::{self, Moment},
    config::{self, Aaaa, Live, SpecialNames, WhenDown},
    metrics::{self, RuleCounters},
    networks::Networks,
    route::{Choice, Route, RouteMatch, RouteTable, View},
    upstream::{Group, Loops, Marks},
    wire::{Name, RecordType, cookie::Secret},
    zones::Zones,
};

/// A rule's position in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(pub u32);

/// Generation of entries that were read from a snapshot file and not asked for since; no configuration has it.
pub(super) const FROM_FILE: u32 = 0;

/// Views from here on hold answers that only one [audience](Table::audience) may share: half of what a key has room for.
pub(super) const FIRST_AUDIENCE_VIEW: View = 1 << 29;

/// Where queries for a name go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Answered here.
    Local,
    /// Forwarded.
    Rule(RuleId),
}

/// A rule, ready to be used.
#[derive(Debug)]
pub struct Rule {
    /// Its name, for people.
    pub name: Arc<str>,
    /// The group its queries go to.
    pub group: Arc<Group>,
    /// The group that is asked where `group` gave no answer, if the operator said so.
    pub fallback: Option<Arc<Group>>,
    /// What happens when no server answers.
    pub when_down: WhenDown,
    /// Which addresses may pass.
    pub guard: Arc<Guard>,
    /// The cap on negative answers, in seconds.
    pub negative_ttl: u32,
    /// Whether AAAA is asked for at all.
    pub aaaa: Aaaa,
    /// Whether chains are followed through other rules.
    pub follow: bool,
    /// Servers that its queries must not go to, because they would come back.
    pub loops: Arc<Marks>,
    /// Its counters, which outlive the snapshot.
    pub counters: RuleCounters,
    /// The fingerprint of every setting that shapes its answers.
    pub fingerprint: u64,
}

/// The configuration in force.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with each replacement.
    pub generation: u32,
    /// Who is served.
    pub access: Access,
    /// Where queries go.
    pub table: RouteTable<Target>,
    /// What is answered here.
    pub zones: Arc<Zones>,
    /// Time a client waits at most.
    pub deadline: Duration,
    /// Rate limit for each client over UDP; none = unlimited.
    pub client_limit: Option<RateLimit>,
    /// The load balancers whose PROXY header is believed.
    pub balancers: Networks<()>,
    /// Our bound on datagrams, and what our OPT advertises.
    pub udp_payload: u16,
    /// The secrets for cookies, newest first; empty = the process's own.
    pub cookie_secrets: Vec<Secret>,
    /// The RDATA that answers CH TXT queries about this server; none = REFUSED.
    pub chaos: Option<Box<[u8]>>,
    /// How many queries may wait for upstreams.
    pub in_flight: usize,
    /// How long answers are kept.
    pub cache: policy::TtlLimits,
    /// How long failures are remembered.
    pub failure_ttl: Duration,
    /// How long past its lifetime an answer may serve, in seconds.
    pub stale: u32,
    /// How long a client waits before it is given a stale answer.
    pub stale_after: Duration,
    /// The TTL of a stale answer, in seconds.
    pub stale_ttl: u32,
    /// Whether popular entries are fetched again before they expire.
    pub prefetch: bool,
    /// Which queries are logged.
    pub query_log: config::QueryLogPolicy,
    /// Whether addresses of one name begin with another one in each reply.
    pub rotate: bool,
    /// The groups in the order of the plan, for status reports and probes.
    pub groups: Vec<Arc<Group>>,
    rules: Vec<Rule>,
    wall_offset: u32,
}

impl Snapshot {
    /// Builds the snapshot of a plan. What `previous` knows of unchanged groups lives on in `groups`, which the caller
    /// built with it.
    pub fn build(
        live: &Live,
        generation: u32,
        groups: Vec<Arc<Group>>,
        zones: Arc<Zones>,
        counters: &metrics::RuleRegistry,
        loops: &Loops,
    ) -> Self {
        // Rules that share their settings share their guard, unless it depends on their zones.
        let mut guards: HashMap<*const config::RuleSettings, Arc<Guard>> = HashMap::new();
        let mut guard = |rule: &config::RulePlan| match rule.except.is_empty() {
            true => Arc::clone(guards.entry(&raw const *rule.settings).or_insert_with(|| Guard::of(rule).into())),
            false => Guard::of(rule).into(),
        };
        let build = |rule| Rule::build(rule, guard(rule), live, &groups, counters, loops);
        let rules: Vec<Rule> = live.rules.iter().map(build).collect();
        Self {
            generation,
            access: Access::new(&live.access.allow, &live.access.deny),
            table: RouteTable::new(routes(live, &zones)),
            zones,
            deadline: live.deadline,
            client_limit: live.client_limit.as_ref().map(RateLimit::new),
            balancers: Networks::new(live.balancers.iter().map(|&network| (network, ()))),
            udp_payload: live.udp_payload,
            cookie_secrets: live.cookie_secrets.iter().map(|secret| secret.secret.clone()).collect(),
            chaos: live.chaos.as_deref().and_then(character_string),
            in_flight: usize::try_from(live.in_flight).unwrap_or(usize::MAX),
            cache: cache_limits(&live.cache),
            failure_ttl: live.cache.failure_ttl,
            stale: seconds(live.cache.stale),
            stale_after: live.cache.stale_after,
            stale_ttl: seconds(live.cache.stale_ttl),
            prefetch: live.cache.prefetch,
            query_log: live.query_log,
            rotate: live.cache.rotate,
            groups,
            rules,
            wall_offset: wall_offset(),
        }
    }

    /// The wall clock's seconds at `now`, modulo 2^32. The clocks were compared when the snapshot was built: a wall clock
    /// that is set meanwhile makes no cookie of ours invalid.
    pub fn wall_seconds(&self, now: Moment) -> u32 {
        self.wall_offset.wrapping_add(now.whole_seconds())
    }

    /// Where a query for `name` (wire form, lower case) and `qtype` from `client` goes. DS belongs to the parent's side of
    /// a zone cut (RFC 4035 3.1.4.1): it is asked for where the name above goes, if anything covers that. Special-use
    /// domains delegate nothing: right below one, DS goes where the name itself does.
    pub fn find(&self, name: &[u8], qtype: RecordType, client: IpAddr) -> Option<RouteMatch<Target>> {
        self.deciding(name, qtype, client).map(|(_, found)| found)
    }

    /// [`Self::find`], with the domain that decides.
    pub fn deciding<'n>(
        &'n self,
        name: &'n [u8],
        qtype: RecordType,
        client: IpAddr,
    ) -> Option<(&'n [u8], RouteMatch<Target>)> {
        if self.zones.is_host(name) {
            return Some((name, RouteMatch { target: Target::Local, view: 0, is_root: false }));
        }
        let above = match name.first() {
            Some(&length) if qtype == RecordType::DS && length > 0 => name.get(1 + usize::from(length)..),
            _ => None,
        };
        let parents = above.filter(|above| !self.is_special(above, client));
        let parents = parents.and_then(|above| self.table.deciding(above, client));
        parents.or_else(|| self.table.deciding(name, client))
    }

    /// Whether a special-use domain decides about a name.
    fn is_special(&self, name: &[u8], client: IpAddr) -> bool {
        self.zones.is_special(name) && self.table.find(name, client).is_some_and(|found| found.target == Target::Local)
    }

    /// How the target of a name depends on the client; none if it does not.
    pub(super) fn choice(&self, name: &[u8]) -> Option<Choice> {
        if self.zones.is_host(name) { None } else { self.table.choice(name) }
    }

    /// A rule of this snapshot.
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id.0 as usize]
    }

    /// How long a rule's answers are kept.
    pub fn limits(&self, rule: RuleId) -> policy::TtlLimits {
        policy::TtlLimits { negative_ttl: self.rule(rule).negative_ttl, ..self.cache }
    }

    /// The rules, in the order of the plan.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The counters of the rule with this number, where there is one.
    pub fn counters_of(&self, rule: u32) -> Option<&RuleCounters> {
        self.rules.get(rule as usize).map(|rule| &rule.counters)
    }

    /// The view of answers that only this client's audience may share; none where no view tells clients apart.
    pub fn audience_view(&self, client: IpAddr) -> Option<View> {
        let audience = self.table.has_views().then(|| self.table.audience(client))?;
        (audience < FIRST_AUDIENCE_VIEW).then_some(FIRST_AUDIENCE_VIEW | audience)
    }

    /// Stamp for an answer stored under `view` to a query whose name was `found` in the table. None if it must not be
    /// stored there, because somewhere in its chain the clients of that view have different targets.
    pub fn stamp(&self, message: &[u8], client: IpAddr, found: RouteMatch<Target>, view: View) -> Option<Stamp> {
        shape::of_found(self, message, client, found).ok()?.stamp(self.generation, view)
    }

    /// Checks an entry of an earlier generation against this one. Returns its new stamp, or none if this client, or
    /// another one that would find the entry, would get a different answer now. An entry from a file must pass the guard
    /// again.
    pub fn revalidate(&self, message: &[u8], stamp: Stamp, client: IpAddr, view: View) -> Option<Stamp> {
        shape::revalidate(self, message, stamp, client, view)
    }

    /// Fingerprint of everything that shapes this message for this client.
    pub fn fingerprint(&self, message: &[u8], client: IpAddr) -> Option<u64> {
        shape::of(self, message, client).map(|shape| shape.fingerprint)
    }

    /// The fingerprint of what answers `name` at `target`.
    pub(super) fn fingerprint_of(&self, target: Target, name: &[u8], qtype: RecordType) -> u64 {
        match target {
            Target::Rule(id) => self.rule(id).fingerprint,
            Target::Local => self.zones.fingerprint(name, qtype),
        }
    }

    /// Whether an entry belongs to a rule whose servers are all down: then it outlives others.
    pub fn is_protected(&self, stamp: Stamp) -> bool {
        // The numbers of a file's entries are those of the first generation.
        let is_numbered = stamp.generation == self.generation || stamp.generation == FROM_FILE && self.generation == 1;
        let rule = self.rules.get(stamp.rule as usize).filter(|_| is_numbered);
        rule.is_some_and(Rule::is_down)
    }

    /// Whether queries for this target cannot be answered now, because no server of the rule is up.
    pub fn is_down(&self, target: Option<Target>) -> bool {
        matches!(target, Some(Target::Rule(rule)) if self.rule(rule).is_down())
    }
}

/// From a moment's seconds to the wall clock's, modulo 2^32.
fn wall_offset() -> u32 {
    let [.., a, b, c, d] = clock::wall().as_secs().to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).wrapping_sub(Moment::now().whole_seconds())
}

/// A text of at most 255 octets as a TXT record's RDATA.
fn character_string(text: &str) -> Option<Box<[u8]>> {
    let length = u8::try_from(text.len()).ok()?;
    Some([&[length], text.as_bytes()].concat().into())
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn cache_limits(cache: &config::CachePolicy) -> policy::TtlLimits {
    policy::TtlLimits {
        min_ttl: seconds(cache.min_ttl),
        max_ttl: seconds(cache.max_ttl),
        negative_ttl: seconds(cache.negative_ttl),
        no_soa_ttl: seconds(cache.no_soa_ttl),
    }
}

impl Rule {
    /// Times that one of its servers came up. When the number changes, a remembered failure is worth another try.
    pub(super) fn recoveries(&self) -> u64 {
        let groups = [Some(&self.group), self.fallback.as_ref()];
        let servers = groups.into_iter().flatten().flat_map(|group| group.servers());
        servers.fold(0, |sum, server| sum.wrapping_add(server.recoveries()))
    }

    /// Whether no server can be asked with any hope, in its group or in the one it falls back to. Servers that loop back here
    /// do not count.
    pub(super) fn is_down(&self) -> bool {
        let fallback_is_down = || self.fallback.as_ref().is_none_or(|fallback| fallback.is_down_without(&self.loops));
        self.group.is_down_without(&self.loops) && fallback_is_down()
    }

    /// The group to ask, and the one to ask after it. A group known to be down is not waited for while its fallback is up.
    pub(super) fn groups(&self) -> (&Arc<Group>, Option<&Arc<Group>>) {
        match &self.fallback {
            Some(fallback) if self.group.is_down_without(&self.loops) && !self.is_down() => (fallback, None),
            fallback => (&self.group, fallback.as_ref()),
        }
    }

    fn build(
        rule: &config::RulePlan,
        guard: Arc<Guard>,
        live: &Live,
        groups: &[Arc<Group>],
        counters: &metrics::RuleRegistry,
        loops: &Loops,
    ) -> Self {
        let fallback = match rule.when_down {
            WhenDown::Upstream(index) => Some(Arc::clone(&groups[index.0])),
            WhenDown::Stale | WhenDown::Fail => None,
        };
        Self {
            name: Arc::clone(&rule.name),
            group: Arc::clone(&groups[rule.to.0]),
            fallback,
            when_down: rule.when_down,
            guard,
            negative_ttl: seconds(rule.negative_ttl),
            aaaa: rule.aaaa,
            follow: rule.follow,
            loops: loops.marks(Arc::clone(&rule.name)),
            counters: counters.of(Arc::clone(&rule.name)),
            fingerprint: shape::rule_fingerprint(rule, live),
        }
    }
}

/// Rules, local zones, and the special-use names that nothing else covers ("." does not count). Names of the hosts file
/// are not in the table: [`Snapshot::find`] checks them first.
fn routes(live: &Live, zones: &Zones) -> Vec<Route<Target>> {
    let mut routes = Vec::new();
    for (at, rule) in live.rules.iter().enumerate() {
        // There are at most `MAX_RULES`, and as many delegations as get a group.
        let Ok(id) = u32::try_from(at) else { break };
        let view = if rule.clients.is_empty() { 0 } else { id + 1 };
        let target = Target::Rule(RuleId(id));
        let clients = || rule.clients.clone();
        routes.extend(rule.zones.iter().map(|domain| Route {
            domain: domain.clone(),
            clients: clients(),
            view,
            target,
        }));
    }
    let local = |name: &Name| Route { domain: name.clone(), clients: Vec::new(), view: 0, target: Target::Local };
    routes.extend(zones.domains().map(|domain| local(domain.name)));
    if live.special == SpecialNames::AnsweredHere {
        let is_for_all = |route: &&Route<Target>| route.clients.is_empty() && !route.domain.is_root();
        let taken: HashSet<&Name> = routes.iter().filter(is_for_all).map(|route| &route.domain).collect();
        let is_free = |domain: &Name| {
            let mut above = std::iter::successors(Some(domain.clone()), Name::parent);
            !above.any(|name| taken.contains(&name))
        };
        let free: Vec<_> = zones.special_domains().filter(|domain| is_free(domain.name)).collect();
        drop(taken);
        routes.extend(free.into_iter().map(|domain| local(domain.name)));
    }
    routes
}
