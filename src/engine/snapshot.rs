//! The configuration as questions see it: one value, replaced whole by a reload.
//!
//! Each stored answer carries a fingerprint of what shaped it: the rule or zone of QNAME and of every CNAME target in
//! it, in order. After a reload an answer serves on only if the same names lead to rules that are the same in every
//! respect; that is looked up once an entry and generation, not once a question, so a reload needs no sweep and leaves
//! no window.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{access::Access, guard::Guard};
use crate::{
    cache::{Stamp, policy},
    clock::{self, Moment},
    config::{self, Aaaa, GroupIndex, Live, SpecialNames, WhenDown},
    metrics::{self, RuleCounters},
    route::{Found, Reach, Route, Table, View},
    upstream::{Group, Loops, Marks},
    wire::{
        Malformed, Name, NameBuf, RecordType, addresses,
        cookie::Secret,
        header::HEADER,
        record::{Records, Section},
    },
    zones::{Scope, Zones},
};

/// What each local zone, host or special-use name was built from, by its wire name.
#[derive(Debug, Default)]
struct ZonePrints {
    /// Of the name and all below it.
    domains: HashMap<Box<[u8]>, u64>,
    /// Of the name alone, where it beats the domain's.
    names: HashMap<Box<[u8]>, u64>,
}

impl ZonePrints {
    fn of(&self, name: &[u8]) -> u64 {
        if let Some(print) = self.names.get(name) {
            return *print;
        }
        let mut at = 0;
        loop {
            if let Some(print) = self.domains.get(&name[at..]) {
                return *print;
            }
            let length = usize::from(name[at]);
            if length == 0 {
                return 0;
            }
            at += 1 + length;
        }
    }
}

/// A rule's position in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(pub u16);

/// The generation of entries that were read from a file, and not asked for since: before the first.
pub(super) const FROM_FILE: u32 = 0;

/// The stamp's rule of an answer that no rule brought.
const NO_RULE: u16 = u16::MAX;

/// From here on a view holds what is kept for one [audience](Table::audience) alone.
pub(super) const OWN: View = 1 << 15;

/// Where a name's questions go.
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
    /// The group its questions go to.
    pub group: Arc<Group>,
    /// The group that answers where `group` cannot, if the operator said so.
    pub fallback: Option<Arc<Group>>,
    /// What happens when no server answers.
    pub when_down: WhenDown,
    /// Which addresses may pass.
    pub guard: Guard,
    /// The cap on negative answers, in seconds.
    pub negative_ttl: u32,
    /// Whether AAAA is asked for at all.
    pub aaaa: Aaaa,
    /// Whether chains are followed through other rules.
    pub follow: bool,
    /// Servers that its questions must not go to, because they would come back.
    pub loops: Arc<Marks>,
    /// Its counters, which outlive the snapshot.
    pub counters: Arc<RuleCounters>,
    /// Of every setting that shapes its answers.
    pub fingerprint: u64,
}

/// The configuration in force.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with each replacement.
    pub generation: u32,
    /// Who is served.
    pub access: Access,
    /// Where questions go.
    pub table: Table<Target>,
    /// What is answered here.
    pub zones: Arc<Zones>,
    /// Time a client waits at most.
    pub deadline: Duration,
    /// Our bound on datagrams, and what our OPT advertises.
    pub udp_payload: u16,
    /// What cookies are made with, newest first; empty = the process's own secret.
    pub cookie_secrets: Vec<Secret>,
    /// What CH TXT questions about this server are answered with, as RDATA; none = REFUSED.
    pub chaos: Option<Box<[u8]>>,
    /// Questions that may wait for upstreams.
    pub in_flight: usize,
    /// How long answers are kept.
    pub cache: policy::Limits,
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
    /// The groups in the order of the plan, for who shows or watches them.
    pub groups: Vec<Arc<Group>>,
    rules: Vec<Rule>,
    zone_prints: ZonePrints,
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
        counters: &metrics::Rules,
        loops: &Loops,
    ) -> Self {
        let build = |rule| Rule::build(rule, live, &groups, counters, loops);
        let rules: Vec<Rule> = live.rules.iter().map(build).collect();
        let (routes, zone_prints) = routes(live, &zones);
        Self {
            generation,
            access: Access::new(&live.access.allow, &live.access.deny),
            table: Table::new(routes),
            zones,
            deadline: live.deadline,
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
            groups,
            rules,
            zone_prints,
            wall_offset: wall_offset(),
        }
    }

    /// The wall clock's seconds at `now`, modulo 2^32. The clocks were compared when the snapshot was built: a wall clock
    /// that is set meanwhile makes no cookie of ours invalid.
    pub fn wall_seconds(&self, now: Moment) -> u32 {
        self.wall_offset.wrapping_add(now.seconds())
    }

    /// A rule of this snapshot.
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[usize::from(id.0)]
    }

    /// The rules, in the order of the plan.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Counts a question for the rule that brought a cached answer.
    pub fn count_rule(&self, rule: u16, counters: &metrics::Worker) {
        if let Some(rule) = self.rules.get(usize::from(rule)) {
            rule.counters.asked(counters);
        }
    }

    /// The view of what is kept for clients like this one alone; none where no view tells clients apart.
    pub fn own_view(&self, client: IpAddr) -> Option<View> {
        let audience = View::try_from(self.table.audience(client)).ok().filter(|audience| *audience < OWN)?;
        (self.table.has_views() && self.rules.len() < usize::from(OWN)).then_some(OWN | audience)
    }

    /// What an answer that is kept under `view` is stamped with, to a question that was `found` in the table; none if it
    /// must not be kept, because its chain leads where the clients of that view go different ways.
    pub fn stamp(&self, message: &[u8], client: IpAddr, found: Found<Target>, view: View) -> Option<Stamp> {
        self.shape(message, client, found).ok()?.stamp(self.generation, view)
    }

    /// Looks an entry of an earlier generation up in this one: its new stamp, or none if it is shaped otherwise now, for
    /// this client or for others who would find it. One that was read from a file must pass the guard once more.
    pub fn revalidate(&self, message: &[u8], stamp: Stamp, client: IpAddr, view: View) -> Option<Stamp> {
        let shape = self.shape_of(message, client)?;
        if stamp.generation == FROM_FILE && !self.passes(message, client).unwrap_or(false) {
            return None;
        }
        shape.stamp(self.generation, view).filter(|new| new.fingerprint == stamp.fingerprint)
    }

    /// Whether the guards of all rules that the chain leads through let every address pass. That is more than was asked
    /// when the answer came: one that fails is only fetched again.
    fn passes(&self, message: &[u8], client: IpAddr) -> Result<bool, Malformed> {
        let stops = |name: &NameBuf| -> Result<bool, Malformed> {
            let found = self.table.find(name.as_wire(), client);
            let Some(Target::Rule(id)) = found.map(|found| found.target) else { return Ok(false) };
            let guard = &self.rule(id).guard;
            let stopped = |address| guard.stops(address).then_some(());
            Ok(!guard.spares(name.as_wire()) && addresses::find_address(message, stopped)?.is_some())
        };
        let mut name = NameBuf::new();
        name.expand(message, HEADER)?;
        name.make_lowercase();
        if stops(&name)? {
            return Ok(false);
        }
        for record in Records::of(message)? {
            let record = record?;
            if record.section == Section::Answer && record.rtype == RecordType::CNAME {
                name.expand(message, record.rdata_at)?;
                name.make_lowercase();
                if stops(&name)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The fingerprint of all that shapes this message for this client.
    pub fn fingerprint(&self, message: &[u8], client: IpAddr) -> Option<u64> {
        self.shape_of(message, client).map(|shape| shape.fingerprint)
    }

    /// What shapes a message, none where no rule covers QNAME.
    fn shape_of(&self, message: &[u8], client: IpAddr) -> Option<Shape> {
        let mut name = NameBuf::new();
        name.expand(message, HEADER).ok()?;
        name.make_lowercase();
        self.shape(message, client, self.table.find(name.as_wire(), client)?).ok()
    }

    /// Walks every CNAME target of the answer section behind QNAME, which was `found` in the table.
    fn shape(&self, message: &[u8], client: IpAddr, found: Found<Target>) -> Result<Shape, Malformed> {
        let rule = match found.target {
            Target::Rule(id) => id.0,
            Target::Local => NO_RULE,
        };
        let has_views = self.table.has_views();
        let mut name = NameBuf::new();
        if has_views || found.target == Target::Local {
            name.expand(message, HEADER)?;
            name.make_lowercase();
        }
        let fingerprint = self.print_of(found.target, name.as_wire());
        let mut shape = Shape { fingerprint, rule, view: found.view, is_shared: true };
        let choice = if has_views { self.table.choice(name.as_wire()) } else { None };
        for record in Records::of(message)? {
            let record = record?;
            if record.section != Section::Answer {
                break;
            }
            if record.rtype != RecordType::CNAME {
                continue;
            }
            name.expand(message, record.rdata_at)?;
            name.make_lowercase();
            shape.is_shared &= self.table.choice(name.as_wire()).is_none_or(|other| Some(other) == choice);
            let Some(found) = self.table.find(name.as_wire(), client) else { continue };
            shape.joins(self.print_of(found.target, name.as_wire()));
        }
        Ok(shape)
    }

    fn print_of(&self, target: Target, name: &[u8]) -> u64 {
        match target {
            Target::Rule(id) => self.rule(id).fingerprint,
            Target::Local => self.zone_prints.of(name),
        }
    }

    /// Whether an entry is the last word of a rule whose servers are all down: it outlives others.
    pub fn is_protected(&self, stamp: Stamp) -> bool {
        // The numbers of a file's entries are those of the first generation.
        let is_numbered = stamp.generation == self.generation || stamp.generation == FROM_FILE && self.generation == 1;
        let rule = self.rules.get(usize::from(stamp.rule)).filter(|_| is_numbered);
        rule.is_some_and(Rule::is_down)
    }

    /// Whether questions that go there cannot be answered now: no server of the rule is up.
    pub fn is_down(&self, target: Option<Target>) -> bool {
        matches!(target, Some(Target::Rule(rule)) if self.rule(rule).is_down())
    }
}

/// What shapes an answer.
struct Shape {
    fingerprint: u64,
    rule: u16,
    /// The view of QNAME, which is the key's.
    view: View,
    /// Whether all clients of that view get the same.
    is_shared: bool,
}

impl Shape {
    /// Another rule or zone has its part in the answer, behind those before.
    fn joins(&mut self, print: u64) {
        let [before, then] = [self.fingerprint, print].map(u64::to_le_bytes);
        self.fingerprint = xxh3_64([before, then].as_flattened());
    }

    /// None where it must not be kept under `view`.
    fn stamp(&self, generation: u32, view: View) -> Option<Stamp> {
        let fits = view >= OWN || (self.is_shared && self.view == view);
        fits.then_some(Stamp { generation, fingerprint: self.fingerprint, rule: self.rule })
    }
}

/// From a moment's seconds to the wall clock's, modulo 2^32.
fn wall_offset() -> u32 {
    let [.., a, b, c, d] = clock::wall().as_secs().to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).wrapping_sub(Moment::now().seconds())
}

/// A text of at most 255 octets as a TXT record's RDATA.
fn character_string(text: &str) -> Option<Box<[u8]>> {
    let length = u8::try_from(text.len()).ok()?;
    Some([&[length], text.as_bytes()].concat().into())
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn cache_limits(cache: &config::CachePolicy) -> policy::Limits {
    policy::Limits {
        min_ttl: seconds(cache.min_ttl),
        max_ttl: seconds(cache.max_ttl),
        negative_ttl: seconds(cache.negative_ttl),
        no_soa_ttl: seconds(cache.no_soa_ttl),
    }
}

impl Rule {
    /// Whether none of its servers can be asked with any hope.
    fn is_down(&self) -> bool {
        self.group.is_down_without(&self.loops)
    }

    fn build(
        rule: &config::Rule,
        live: &Live,
        groups: &[Arc<Group>],
        counters: &metrics::Rules,
        loops: &Loops,
    ) -> Self {
        let fallback = match rule.when_down {
            WhenDown::Upstream(index) => Some(Arc::clone(&groups[index.0])),
            WhenDown::Stale | WhenDown::Fail => None,
        };
        // The text of every setting that shapes an answer, and of nothing else: how fast or from which port a server is
        // asked changes no answer, nor does a group's place in the plan.
        let servers = |index: GroupIndex| {
            let group = live.group(index);
            format!("{} {:?}", group.name, group.tiers)
        };
        let (when_down, others) = match rule.when_down {
            WhenDown::Upstream(index) => (WhenDown::Upstream(GroupIndex(0)), servers(index)),
            when_down => (when_down, String::new()),
        };
        let placeless = config::Rule { to: GroupIndex(0), when_down, ..rule.clone() };
        let text = format!("{placeless:?} {} {others}", servers(rule.to));
        Self {
            name: rule.name.as_str().into(),
            group: Arc::clone(&groups[rule.to.0]),
            fallback,
            when_down: rule.when_down,
            guard: Guard::of(rule),
            negative_ttl: seconds(rule.negative_ttl),
            aaaa: rule.aaaa,
            follow: rule.follow,
            loops: loops.marks(&rule.name),
            counters: counters.of(&rule.name),
            fingerprint: xxh3_64(text.as_bytes()),
        }
    }
}

/// Rules, local zones, hosts, and the special-use names that nothing else covers ("." does not count).
fn routes(live: &Live, zones: &Zones) -> (Vec<Route<Target>>, ZonePrints) {
    let mut routes = Vec::new();
    for (at, rule) in live.rules.iter().enumerate() {
        let Ok(id) = u16::try_from(at) else { break };
        let view = if rule.clients.is_empty() { 0 } else { id + 1 };
        let target = Target::Rule(RuleId(id));
        routes.extend(rule.zones.iter().map(|domain| Route {
            domain: domain.clone(),
            reach: Reach::Domain,
            clients: rule.clients.clone(),
            view,
            target,
        }));
    }
    let local = |name, reach| Route { domain: name, reach, clients: Vec::new(), view: 0, target: Target::Local };
    let mut prints = ZonePrints::default();
    for domain in zones.domains() {
        let (reach, prints) = match domain.scope {
            Scope::Subtree => (Reach::Domain, &mut prints.domains),
            Scope::Name => (Reach::Name, &mut prints.names),
        };
        prints.insert(domain.name.as_wire().into(), domain.fingerprint);
        routes.push(local(domain.name.clone(), reach));
    }
    if live.special == SpecialNames::AnsweredHere {
        let covers = |domain: &Name, route: &Route<Target>| {
            let is_for_all = route.clients.is_empty() && route.reach == Reach::Domain;
            is_for_all && !route.domain.is_root() && domain.is_within(&route.domain)
        };
        let is_free = |domain: &Name| !routes.iter().any(|route| covers(domain, route));
        let free: Vec<_> = zones.special_domains().filter(|domain| is_free(domain.name)).collect();
        for domain in free {
            prints.domains.insert(domain.name.as_wire().into(), domain.fingerprint);
            routes.push(local(domain.name.clone(), Reach::Domain));
        }
    }
    (routes, prints)
}
