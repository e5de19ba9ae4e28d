//! Details beside the decisions: domains, groups, servers, cache entries, and sentences for people.

use std::sync::Arc;

use super::{
    document::{
        Alias, CacheEntry, Decision, Domain, DomainStanding, EntryState, Explanation, FailureStep, GroupStep,
        GuardStep, NameStep, ServerStep, Sharing,
    },
    extended,
    walk::{Entry, Walk},
};
use crate::{
    cache::Integrity,
    clock::Moment,
    config::{OnPublic, Policy},
    engine::{
        error::Reason,
        resolution::Resolution,
        snapshot::{Rule, Snapshot, Target},
        store,
    },
    metrics::ReplySource,
    upstream::{Group, Server},
    wire::{
        Response, ResponseKind,
        name::DisplayWire,
        record::{Records, Section},
        text,
    },
    zones::LocalOwner,
};

impl Walk<'_> {
    /// Adds the step for a name with everything known about it; returns its index.
    pub(super) fn open(&mut self, resolution: &Resolution) -> usize {
        let snapshot = &resolution.snapshot;
        let rule = match resolution.target() {
            Some(Target::Rule(id)) => Some(snapshot.rule(id)),
            _ => None,
        };
        let failure = self
            .remembered(resolution)
            .map(|error| FailureStep { rcode: error.rcode.to_string(), ede: extended(&error.reason.ede()) });
        let step = NameStep {
            name: resolution.query.name.to_string(),
            domains: domains(resolution),
            rule: rule.map(|rule| rule.name.to_string()),
            view: rule.filter(|_| resolution.view != 0).map(|rule| rule.name.to_string()),
            zone: zone(resolution),
            groups: rule.map(|rule| groups(rule, self.now)).unwrap_or_default(),
            cache: self.entries(resolution),
            failure,
            guard: rule.and_then(|rule| guard(rule, resolution)),
            ..NameStep::default()
        };
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn entries(&self, resolution: &Resolution) -> Vec<CacheEntry> {
        let of = |sharing, resolution: &Resolution| {
            let entry = self.entry(resolution)?;
            Some(cache_entry(&entry, sharing, store::has_stale_answers(resolution), resolution.snapshot.stale))
        };
        let audience = || of(Sharing::Audience, &resolution.for_audience()?);
        let all = [of(Sharing::View, resolution), audience(), of(Sharing::OtherKind, &resolution.other_kind())];
        all.into_iter().flatten().collect()
    }

    /// The aliases of an answer. The one at `cut` is resolved separately.
    pub(super) fn describe_chain(
        &mut self,
        at: usize,
        resolution: &Resolution,
        response: &Response,
        cut: Option<usize>,
    ) {
        let snapshot = &resolution.snapshot;
        let alias = |(place, target): (usize, &crate::wire::Name)| {
            let found = snapshot.find(target.as_wire(), resolution.query.qtype, resolution.client);
            Alias {
                target: target.to_string(),
                rule: found.and_then(|found| rule_name(snapshot, found.target)),
                leaves: cut == Some(place),
            }
        };
        let known = cut.map_or_else(|| response.chain().len(), |cut| cut + 1);
        self.steps[at].chain = response.chain().iter().take(known).enumerate().map(alias).collect();
    }
}

fn domains(resolution: &Resolution) -> Vec<Domain> {
    let (snapshot, query) = (&resolution.snapshot, &resolution.query);
    let name = query.name.as_wire();
    let deciding = snapshot.deciding(name, query.qtype, resolution.client).map(|(domain, _)| domain);
    let is_host = snapshot.zones.is_host(name);
    let all = snapshot.table.covering(name);
    all.map(|covering| Domain {
        domain: DisplayWire(covering.domain).to_string(),
        rules: covering.targets().into_iter().filter_map(|target| rule_name(snapshot, target)).collect(),
        standing: match deciding {
            _ if is_host => DomainStanding::HostDecides,
            Some(domain) if domain == covering.domain => DomainStanding::Decides,
            _ if covering.pick(resolution.client).is_none() => DomainStanding::OtherClients,
            Some(domain) if domain.len() < covering.domain.len() => DomainStanding::ParentDecides,
            _ => DomainStanding::Shorter,
        },
    })
    .collect()
}

fn rule_name(snapshot: &Snapshot, target: Target) -> Option<String> {
    match target {
        Target::Rule(id) => Some(snapshot.rule(id).name.to_string()),
        Target::Local => None,
    }
}

fn zone(resolution: &Resolution) -> Option<String> {
    if resolution.target() != Some(Target::Local) {
        return None;
    }
    let owner = resolution.snapshot.zones.owner(resolution.query.name.as_wire(), resolution.query.qtype)?;
    Some(match owner {
        LocalOwner::Hosts => "local_hosts".to_owned(),
        LocalOwner::Zone(zone) | LocalOwner::Special(zone) => zone.to_string(),
    })
}

fn groups(rule: &Rule, now: Moment) -> Vec<GroupStep> {
    let own = group(&rule.group, rule, false, now);
    std::iter::once(own).chain(rule.fallback.as_ref().map(|fallback| group(fallback, rule, true, now))).collect()
}

/// A group with its servers in the order in which they would be asked, then those that would not be.
fn group(group: &Group, rule: &Rule, fallback: bool, now: Moment) -> GroupStep {
    let order = group.order(&rule.loops, now).unwrap_or_default();
    let is_asked = |server: &Arc<Server>| order.iter().any(|asked| Arc::ptr_eq(asked, server));
    let others = group.servers().filter(|server| !is_asked(server));
    let tier_of = |server: &Arc<Server>| {
        let holds = |tier: &Vec<Arc<Server>>| tier.iter().any(|other| Arc::ptr_eq(other, server));
        group.tiers().iter().position(holds).unwrap_or_default()
    };
    let state = |server: &Arc<Server>| ServerStep {
        server: server.label().to_owned(),
        tier: tier_of(server),
        state: server.state().label().to_owned(),
        judged: server.is_judged(),
        drained: server.is_drained(),
        loops: rule.loops.has(server),
        rtt: server.rtt().map(|rtt| f64::from(rtt.mean) / 1_000_000.0),
    };
    GroupStep {
        name: group.name().to_owned(),
        fallback,
        down: group.is_down_without(&rule.loops),
        tier: group.tier(now),
        policy: match group.policy() {
            Policy::Fastest => "fastest",
            Policy::Spread => "spread",
            Policy::Ordered => "ordered",
        }
        .to_owned(),
        servers: order.iter().copied().chain(others).map(state).collect(),
    }
}

fn guard(rule: &Rule, resolution: &Resolution) -> Option<GuardStep> {
    let guard = &rule.guard;
    let on_public = guard.on_public().map(|action| match action {
        OnPublic::Log => "log".to_owned(),
        OnPublic::Strip => "strip".to_owned(),
        OnPublic::Refuse => "refuse".to_owned(),
    });
    let rebind = guard.refuses_rebinding();
    (on_public.is_some() || rebind).then(|| GuardStep {
        on_public,
        rebind,
        excepted: guard.spares(resolution.query.name.as_wire()),
        ..GuardStep::default()
    })
}

fn cache_entry(entry: &Entry, shared: Sharing, may_be_stale: bool, stale: u32) -> CacheEntry {
    let found = &entry.peeked.found;
    CacheEntry {
        shared,
        state: entry.state,
        age: found.age,
        left: found.remaining,
        stale_left: (may_be_stale && entry.state != EntryState::Outdated).then(|| stale.saturating_sub(found.past)),
        stripped: found.integrity == Integrity::Stripped,
        rcode: entry.response.rcode().to_string(),
        answer: records(entry.response.message()),
    }
}

/// One sentence on what is done with a name.
pub(super) fn words(step: &NameStep) -> String {
    let rule = step.rule.as_deref().unwrap_or_default();
    let group = step.groups.first();
    let entry = |state| step.cache.iter().find(|entry| entry.state == state);
    match step.decision {
        Decision::NotCovered => "no rule and no local zone covers it".to_owned(),
        Decision::Cached => match entry(EntryState::Fresh) {
            Some(entry) => format!("in the cache for {} s, with {} s left", entry.age, entry.left),
            None => "in the cache".to_owned(),
        },
        Decision::Stale if group.is_some_and(|group| group.down) => {
            format!("no server of upstream {} is usable: a cached answer serves", group.map_or("", |group| &group.name))
        }
        Decision::Stale => "no server answers in time: a cached answer serves".to_owned(),
        Decision::Local => match step.zone.as_deref() {
            Some("local_hosts") => "in local_hosts".to_owned(),
            Some(zone) => format!("in the local zone {zone}"),
            None => "answered here".to_owned(),
        },
        Decision::Empty => format!("rule {rule} answers AAAA with no data (aaaa = \"empty\")"),
        Decision::Forwarded => {
            format!("rule {rule} sends it to upstream {}", group.map_or("", |group| group.name.as_str()))
        }
        Decision::Fails => match &step.failure {
            Some(failure) => format!("a failure is remembered: {} {}", failure.rcode, failure.ede.text),
            None if step.rule.is_some() => format!("rule {rule} has no server that may be asked"),
            None => "the local zone cannot answer it".to_owned(),
        },
    }
}

/// The records of a message's answer section, a line each.
pub(super) fn records(message: &[u8]) -> Vec<String> {
    let all = Records::of(message).into_iter().flatten().map_while(Result::ok);
    all.filter(|record| record.section == Section::Answer).map(|record| text::line(message, &record)).collect()
}

/// Outcome for a client that gets a known answer.
pub(super) fn answered(source: ReplySource, response: &Response, reason: Option<&Reason>) -> String {
    let from = match source {
        ReplySource::Cache => "from the cache",
        ReplySource::Stale => "from an entry of the cache that is past its lifetime",
        ReplySource::Local => "here",
        _ => "by an upstream",
    };
    let what = match response.kind() {
        ResponseKind::Positive => "data".to_owned(),
        ResponseKind::NoData => "no data of this type".to_owned(),
        _ => response.rcode().to_string(),
    };
    match reason.filter(|reason| !reason.text.is_empty()) {
        Some(reason) => format!("answered {from}: {what}; {}", reason.text),
        None => format!("answered {from}: {what}"),
    }
}

/// Outcome if only an upstream knows the answer.
pub(super) fn open(explanation: &Explanation) -> String {
    let Some(last) = explanation.steps.last() else { return String::new() };
    let group = last.groups.first().map_or("", |group| group.name.as_str());
    let rule = last.rule.as_deref().unwrap_or_default();
    let stale = last.cache.iter().any(|entry| entry.stale_left.is_some_and(|left| left > 0));
    let or =
        if stale && last.decision == Decision::Forwarded { ", or the entry of the cache if it is late" } else { "" };
    format!("whatever upstream {group} answers, judged by rule {rule}{or}")
}
