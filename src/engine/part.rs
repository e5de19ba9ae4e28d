//! One rule's part of an answer: asked for once in the whole process, cut where the chain leaves the rule, guarded,
//! stored.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::warn;

use super::{
    Context,
    error::{Reason, ResolveError},
    guard::GuardVerdict,
    pending::{PendingKey, Place},
    resolution::{LeadCount, Resolution},
    snapshot::{Rule, RuleId, Target},
    store, trace,
};
use crate::{
    clock::Moment,
    config::{self, Aaaa, OnPublic},
    metrics::GuardAction,
    perimeter::{About, Exposure},
    upstream::{self, Exchanged, Server},
    wire::{EdeCode, Malformed, Name, Rcode, RecordType, Response, ResponseKind, UpstreamQuery, writer::Writer},
};

/// The outcome of asking a rule's upstreams, cheap to clone for each query that waited for it.
#[derive(Debug, Clone)]
pub enum Part {
    /// An answer that passed the guard.
    Answer {
        /// The answer.
        response: Arc<Response>,
        /// The position in its chain of the first target that another rule or a local zone decides about.
        leaves: Option<usize>,
        /// The lifetime of a complete answer, in seconds.
        lifetime: u32,
        /// The reason, if the guard removed addresses.
        blocked: Option<Reason>,
        /// The server that answered; none if nobody was asked.
        server: Option<Arc<Server>>,
    },
    /// No server of the rule answered.
    Unanswered(ResolveError),
    /// No server answered in the time that was left for the query. A query with more time may ask again.
    OutOfTime(ResolveError),
    /// The guard refused the answer, or the answer is not usable.
    Refused(ResolveError),
}

/// Asks the rule's upstreams, or waits if an equal query is already doing so.
pub async fn fetch(context: &Context, resolution: &Resolution, rule: RuleId) -> Part {
    loop {
        let key = PendingKey {
            query: Arc::clone(&resolution.query),
            audience: resolution.snapshot.table.audience(resolution.client),
            rule: rule.0,
            generation: resolution.snapshot.generation,
        };
        let lead = match context.engine.pending.join(resolution.hash.0, key) {
            Place::Lead(lead) => lead,
            // On the heap, for the state of those that lead to stay small.
            Place::Follow(receiver) => match Box::pin(follow(context, resolution, rule, receiver)).await {
                Some(part) => return part,
                None => continue,
            },
        };
        let _leading = resolution.leads.as_ref().map(LeadCount::begin);
        let part = ask(context, resolution, rule).await;
        lead.finish(&part);
        return part;
    }
}

/// Waits for the part that an equal query fetches; none if this one should ask again.
async fn follow(
    context: &Context,
    resolution: &Resolution,
    rule: RuleId,
    receiver: oneshot::Receiver<Part>,
) -> Option<Part> {
    context.counters.coalesced();
    if let Some(span) = &resolution.span {
        span.set("tidegate.coalesced", true);
    }
    context.engine.perimeter.note_client(&resolution.query.name, resolution.client);
    let now = Moment::now();
    match tokio::time::timeout(resolution.deadline.since(now), receiver).await {
        // The leader had less time than this query has, or is gone.
        Ok(Ok(Part::OutOfTime(_))) if has_time(resolution, rule, Moment::now()) => None,
        Ok(Err(_)) if has_time(resolution, rule, Moment::now()) => None,
        Ok(Ok(part)) => Some(part),
        _ => Some(Part::Unanswered(unreachable(resolution, rule))),
    }
}

/// Whether the query has all the time that its servers may need, so that a failure is theirs.
pub(super) fn has_time(resolution: &Resolution, rule: RuleId, now: Moment) -> bool {
    let timeout = resolution.snapshot.rule(rule).group.limits().timeout;
    resolution.deadline.since(now) >= timeout.min(resolution.snapshot.deadline / 2)
}

async fn ask(context: &Context, resolution: &Resolution, id: RuleId) -> Part {
    let rule = resolution.snapshot.rule(id);
    if is_kept_empty(rule, resolution.query.qtype) {
        return empty(resolution);
    }
    let now = Moment::now();
    if let Some(error) = store::remembered(context, resolution, now) {
        return if error.is_final() { Part::Refused(error) } else { Part::Unanswered(error) };
    }
    let (mut group, mut fallback) = rule.groups();
    let mut begins = now;
    let exchanged = loop {
        let left = resolution.deadline.since(begins);
        // The fallback gets half of the time, in case the servers are silent.
        let deadline = begins + if fallback.is_some() { left / 2 } else { left };
        let (query, span) = (&resolution.query, resolution.span.as_ref());
        let exchange = context.upstream_client.exchange_traced(group, &rule.loops, query, (begins, deadline), span);
        match (exchange.await, fallback.take()) {
            // Servers over their budget are not down.
            (Err(error), Some(other)) if error != upstream::ExchangeError::Budget => {
                (group, begins) = (other, Moment::now());
            }
            (exchanged, _) => break exchanged,
        }
    };
    match exchanged {
        Ok(exchanged) => judge(context, resolution, id, exchanged),
        Err(failure) if !has_time(resolution, id, now) && !failure.has_rcode() => {
            Part::OutOfTime(error_of(failure, resolution, id))
        }
        Err(failure) => {
            store::remember_outage(&context.engine, resolution, rule, &failure);
            Part::Unanswered(error_of(failure, resolution, id))
        }
    }
}

/// Whether a rule answers queries of this type with NODATA, and asks nobody (`aaaa = "empty"`).
pub(super) fn is_kept_empty(rule: &Rule, qtype: RecordType) -> bool {
    rule.aaaa == Aaaa::Empty && qtype == RecordType::AAAA
}

/// NODATA, without asking an upstream.
pub(super) fn no_data(asked: &UpstreamQuery) -> Result<Response, Malformed> {
    let writer = Writer::new(asked.name.as_wire(), asked.qtype, asked.qclass, 0);
    Response::ours(&writer.finish(super::OUR_HEADER), asked)
}

fn empty(resolution: &Resolution) -> Part {
    match no_data(&resolution.query) {
        Ok(mut response) => {
            let lifetime = store::bound(resolution, &mut response);
            Part::Answer { response: Arc::new(response), leaves: None, lifetime, blocked: None, server: None }
        }
        Err(error) => Part::Refused(error.into()),
    }
}

fn judge(context: &Context, resolution: &Resolution, id: RuleId, exchanged: Exchanged) -> Part {
    let Exchanged { response, server, at: now, .. } = exchanged;
    let rule = resolution.snapshot.rule(id);
    if let Some(cut) = leaves(resolution, id, &response) {
        // Records behind the cut are discarded and need no judgement: only CNAMEs lead there.
        return keep(context, resolution, rule, (response, server, now), Some(cut), None);
    }
    if response.is_endless() {
        return refuse(context, resolution, ResolveError::endless());
    }
    note(context, resolution, rule, &response, now);
    match guarded(context, resolution, id, response) {
        Ok((response, blocked)) => keep(context, resolution, rule, (response, server, now), None, blocked),
        Err(refused) => refuse(context, resolution, refused),
    }
}

/// Records an answer in the perimeter report if its name has a guard or is an AWS name.
fn note(context: &Context, resolution: &Resolution, rule: &Rule, response: &Response, now: Moment) {
    let name = &resolution.query.name;
    if !rule.guard.has_networks() && !config::is_aws_name(name) {
        return;
    }
    let about = About {
        name,
        qtype: resolution.query.qtype,
        rule: &rule.name,
        outcome: match rule.guard.on_public() {
            _ if rule.guard.spares(name.as_wire()) => Exposure::Excepted,
            Some(OnPublic::Refuse) => Exposure::Refused,
            Some(OnPublic::Strip) => Exposure::Stripped,
            Some(OnPublic::Log) => Exposure::Leaked,
            None => Exposure::Unguarded,
        },
        client: resolution.client,
    };
    context.engine.perimeter.note(&about, response, |address| rule.guard.reaches(address), now);
}

fn refuse(context: &Context, resolution: &Resolution, error: ResolveError) -> Part {
    if error.is_final() {
        store::remember(&context.engine, resolution, error.clone());
    }
    Part::Refused(error)
}

/// Applies the rule's guard to an answer. Returns the remaining answer, and the reason if addresses were removed; a
/// refusal is an error.
pub fn guarded(
    context: &Context,
    resolution: &Resolution,
    id: RuleId,
    response: Response,
) -> Result<(Response, Option<Reason>), ResolveError> {
    let rule = resolution.snapshot.rule(id);
    let Judged { objection, outcome } = judged(resolution, id, response)?;
    if let Some(span) = resolution.span.as_ref().filter(|_| rule.guard.has_networks()) {
        let verdict = objection.map_or("pass", |objection| objection.action.label());
        let address = objection.map(|objection| objection.address.to_string());
        trace::guard(span, rule, &resolution.query.name, verdict, address);
    }
    let Some(Objection { action, address, fault }) = objection else { return outcome };
    rule.counters.violated(action, &context.counters);
    let name = &resolution.query.name;
    if context.engine.warned.is_due(name, Moment::now()) {
        let (rule, done) = (&*rule.name, action.label());
        let what = match action {
            GuardAction::Log => "let through",
            GuardAction::Strip => "stripped of it",
            GuardAction::Refuse => "refused",
        };
        warn!(rule, %name, %address, action = done, "an answer {fault}: {name} has {address}; rule {rule}: {what}");
    }
    outcome
}

/// The result of applying a rule's guard to an answer.
pub(super) struct Judged {
    pub(super) objection: Option<Objection>,
    pub(super) outcome: Result<(Response, Option<Reason>), ResolveError>,
}

/// An address that the guard objected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Objection {
    /// The guard's action.
    pub(super) action: GuardAction,
    /// The address.
    pub(super) address: IpAddr,
    /// Why the address is not allowed, as text.
    pub(super) fault: &'static str,
}

/// Decides what a rule's guard does with an answer; counts and logs nothing.
pub(super) fn judged(resolution: &Resolution, id: RuleId, response: Response) -> Result<Judged, ResolveError> {
    let rule = resolution.snapshot.rule(id);
    let (action, address, rest) = match rule.guard.judge(&resolution.query, &response)? {
        GuardVerdict::Pass => return Ok(Judged { objection: None, outcome: Ok((response, None)) }),
        GuardVerdict::Log(address) => (GuardAction::Log, address, Some(response)),
        GuardVerdict::Strip(address, rest) => (GuardAction::Strip, address, Some(*rest)),
        GuardVerdict::Refuse(address) => (GuardAction::Refuse, address, None),
    };
    let fault = if rule.guard.is_rebinding(address) { "is private" } else { "is not private" };
    let blocked = Reason::new(EdeCode::Blocked, format!("rule {}: {address} {fault}", rule.name));
    let outcome = match rest {
        None => Err(ResolveError { rcode: Rcode::SERVFAIL, reason: blocked, refused_by: Some(id) }),
        Some(rest) => Ok((rest, (action == GuardAction::Strip).then_some(blocked))),
    };
    Ok(Judged { objection: Some(Objection { action, address, fault }), outcome })
}

/// Clamps TTLs to the limits, and stores a part that is a complete answer.
fn keep(
    context: &Context,
    resolution: &Resolution,
    rule: &Rule,
    (mut response, server, came): (Response, Arc<Server>, Moment),
    leaves: Option<usize>,
    blocked: Option<Reason>,
) -> Part {
    if leaves.is_some() {
        store::bound_links(resolution, &mut response);
        return Part::Answer { response: Arc::new(response), leaves, lifetime: 0, blocked, server: Some(server) };
    }
    // Don't count answers that the guard emptied.
    let is_negative = matches!(response.kind(), ResponseKind::NoData | ResponseKind::NxDomain);
    if blocked.is_none() && is_negative && response.negative_ttl().is_none() {
        rule.counters.without_soa(&context.counters);
    }
    let lifetime = store::bound(resolution, &mut response);
    store::insert(&context.engine, resolution, &response, lifetime, came, blocked.as_ref());
    Part::Answer { response: Arc::new(response), leaves, lifetime, blocked, server: Some(server) }
}

/// The first target in the chain that another rule or a local zone decides about. A target that only "." covers stays
/// as answered, unless the upstream left it open.
pub(super) fn leaves(resolution: &Resolution, id: RuleId, response: &Response) -> Option<usize> {
    if !resolution.snapshot.rule(id).follow {
        return None;
    }
    let is_open = response.is_open();
    let last = response.chain().len().checked_sub(1)?;
    response.chain().iter().enumerate().position(|(at, target)| {
        let qtype = resolution.query.qtype;
        let Some(found) = resolution.snapshot.find(target.as_wire(), qtype, resolution.client) else { return false };
        if found.target == Target::Rule(id) {
            return false;
        }
        !found.is_root || (is_open && at == last)
    })
}

fn error_of(failure: upstream::ExchangeError, resolution: &Resolution, id: RuleId) -> ResolveError {
    match failure {
        upstream::ExchangeError::AllFailed(reasons) => {
            all_failed(reasons.availability, resolution, id).with_relayed(reasons.ede)
        }
        upstream::ExchangeError::Overload => ResolveError::servfail(EdeCode::Other, "overload"),
        upstream::ExchangeError::Budget => ResolveError::servfail(EdeCode::Other, "upstream budget"),
    }
}

/// The error for a rule none of whose servers answered.
pub(super) fn all_failed(availability: upstream::Availability, resolution: &Resolution, id: RuleId) -> ResolveError {
    if availability != upstream::Availability::Loops {
        return unreachable(resolution, id);
    }
    let rule = &resolution.snapshot.rule(id).name;
    ResolveError::servfail(EdeCode::Other, format!("rule {rule}: a loop, every server leads back here"))
}

fn unreachable(resolution: &Resolution, id: RuleId) -> ResolveError {
    ResolveError::servfail(EdeCode::NoReachableAuthority, format!("rule {}", resolution.snapshot.rule(id).name))
}

/// A name is warned about once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Names remembered as warned about. While there are so many, further names are not warned about.
const MAX_WARNED: usize = 1024;

/// Names that were warned about lately.
#[derive(Debug, Default)]
pub(super) struct Warned {
    names: Mutex<HashMap<Name, Moment>>,
}

impl Warned {
    /// Whether a line about this name is due: one a minute. A name counts as warned about from then on.
    pub(super) fn is_due(&self, name: &Name, now: Moment) -> bool {
        let mut names = self.names.lock();
        if names.get(name).is_some_and(|last| now.since(*last) < WARN_EVERY) {
            return false;
        }
        if names.len() >= MAX_WARNED {
            names.retain(|_, last| now.since(*last) < WARN_EVERY);
        }
        if names.len() >= MAX_WARNED {
            return false;
        }
        names.insert(name.clone(), now);
        true
    }
}
