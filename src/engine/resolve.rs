//! The slow path: from a query that the cache could not answer to a reply. Every error ends as a response code.
//!
//! Policy, in this order:
//! - A query that no rule covers: REFUSED, EDE 20.
//! - Local names are answered here, others through their rule ([`part`]).
//! - A chain that leaves its rule or zone goes round again ([`MAX_TURNS`] times at most); a loop is SERVFAIL.
//! - Stale answers (RFC 8767 5): fresh first; a stale one after `stale_after`, at once while the rule is known to be
//!   down, and when every server failed. An exchange that others may wait for goes on and
//!   refreshes the entry. Each part of a chain is treated so.
//! - A reload meanwhile: if other rules shape the answer now, the query is resolved anew under them, `MAX_RELOADS`
//!   times at most, then SERVFAIL: nothing leaves that the rules in force have not judged.

use std::{mem, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use arc_swap::Guard;

use super::{
    Context,
    error::{MAX_TURNS, Reason, ResolveError},
    part::{self, Part},
    query::Query,
    query_log::{self, LoggedQuery},
    resolution::{CacheState, Resolution},
    rotation,
    snapshot::{RuleId, Snapshot, Target},
    store, trace,
};
use crate::{
    clock::Moment,
    config::QueryLogPolicy,
    dnstap::{Tapped, TappedKind},
    metrics::{CountedReply, QueryOutcome, ReplySource},
    otlp::Span,
    upstream::Server,
    wire::{EdeCode, Name, Rcode, Response, ResponseKind, reply, rotate, splice},
    zones::{self, LocalQuery},
};

/// Most times that a query is resolved again because a reload came while it waited.
const MAX_RELOADS: u8 = 3;

/// An answer, where it came from, and the extended error that goes with it.
#[derive(Debug, Clone)]
pub struct Answer {
    response: Arc<Response>,
    source: ReplySource,
    reason: Option<Reason>,
    /// Seconds that it stays valid; 0 = for this query only.
    lifetime: u32,
    /// The upstream that answered, or the last one of a chain's parts.
    server: Option<Arc<Server>>,
}

impl Answer {
    /// Wraps a response that nothing else shares.
    pub(super) fn new(response: Response, source: ReplySource, reason: Option<Reason>, lifetime: u32) -> Self {
        Self { response: Arc::new(response), source, reason, lifetime, server: None }
    }
}

/// The result of resolving a query, or a part of its chain.
pub type Resolved = Result<Answer, ResolveError>;

type Boxed<'a> = Pin<Box<dyn Future<Output = Resolved> + 'a>>;

/// Resolves a query. The caller writes the reply when it sends it.
pub async fn resolve(context: &Context, query: &Query) -> Reply {
    let span = trace::begin(context, query);
    let mut snapshot = context.engine.snapshot_owned();
    let mut reloads = 0;
    while reloads <= MAX_RELOADS {
        let resolution = Resolution { span: span.clone(), ..query.resolution(&snapshot) };
        let resolved = answer(context, &resolution).await;
        let current = context.engine.snapshot();
        if current.generation == snapshot.generation || agrees(&snapshot, &current, query, &resolved) {
            return Reply::new(resolved, &snapshot, span);
        }
        snapshot = Guard::into_inner(current);
        reloads += 1;
    }
    Reply::new(Err(ResolveError::overtaken()), &snapshot, span)
}

/// Whether both snapshots shape the answer by the same rules.
fn agrees(one: &Snapshot, other: &Snapshot, query: &Query, resolved: &Resolved) -> bool {
    let Ok(answer) = resolved else { return true };
    let message = answer.response.message();
    one.fingerprint(message, query.client) == other.fingerprint(message, query.client)
}

/// Reply to a resolved query, not yet written.
#[derive(Debug)]
pub struct Reply {
    resolved: Resolved,
    payload: u16,
    rotates: bool,
    log: QueryLogPolicy,
    /// The query's own span.
    span: Option<Span>,
}

impl Reply {
    const fn new(resolved: Resolved, snapshot: &Snapshot, span: Option<Span>) -> Self {
        Self { resolved, payload: snapshot.udp_payload, rotates: snapshot.rotate, log: snapshot.query_log, span }
    }

    /// Writes the reply to `query` into `out`, and counts it; returns its length. For a stream, `out` must
    /// hold 65,535 octets.
    pub fn write(&self, context: &Context, query: &Query, out: &mut [u8]) -> usize {
        let question = query.question();
        let space = query.carrier.space(question.edns.as_ref(), self.payload);
        let now = Moment::now();
        let took = now.since(query.received);
        let (length, source, rcode, reason) = match &self.resolved {
            Ok(answer) => {
                let message = answer.response.message();
                let rcode = answer.response.rcode();
                let length = match out.get_mut(..message.len()) {
                    Some(place) => {
                        place.copy_from_slice(message);
                        // What an upstream just answered is in an order of the upstream's choice.
                        if self.rotates && answer.source != ReplySource::Upstream {
                            rotate::rotate(place, question.echo.section.len(), rotation::choose);
                        }
                        reply::finish(out, message.len(), &question, answer.reason.as_ref().map(Reason::ede), space)
                    }
                    None => reply::truncated(out, &question, rcode, space),
                };
                (length, answer.source, rcode, answer.reason.as_ref())
            }
            Err(ResolveError { rcode, reason, .. }) => {
                let edns = question.edns.as_ref();
                let length = reply::bare(out, &question.echo, edns, *rcode, Some(reason.ede()), space);
                let source = if *rcode == Rcode::REFUSED { ReplySource::Refused } else { ReplySource::Error };
                (length, source, *rcode, Some(reason))
            }
        };
        let ede = reason.filter(|_| question.edns.is_some()).map(|reason| reason.code);
        if let Some(tap) = &context.tap {
            tap.record(&Tapped {
                kind: TappedKind::ClientResponse,
                transport: query.carrier.transport,
                client: Some(query.client),
                server: None,
                message: &out[..length],
                asked: query.received,
                at: now,
            });
        }
        let reply = CountedReply { source, rcode, ede };
        context.counters.record(QueryOutcome::Late(reply, took));
        if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
            context.counters.failed(&query.upstream.name, rcode, reason.map(|reason| reason.code));
        }
        let server = || self.resolved.as_ref().ok().and_then(|answer| answer.server.as_deref());
        if let Some(span) = &self.span {
            trace::replied(span, reply, server(), now);
        }
        if query_log::takes(self.log, rcode) {
            let server = server();
            let (client, transport, section) = (query.client, query.carrier.transport, question.echo.section);
            LoggedQuery { client, transport, section, reply, server, took }.write();
        }
        length
    }
}

async fn answer(context: &Context, resolution: &Resolution) -> Resolved {
    if let Some(answer) = store::cached_for_audience(context, resolution) {
        return Ok(answer);
    }
    let engine = &context.engine;
    if let Some(error) = store::remembered(context, resolution, Moment::now())
        && error.is_final()
    {
        return Err(error);
    }
    let resolved = within_patience(context, resolution, &mut Trail::default()).await;
    if let Err(error) = &resolved
        && error.is_final()
    {
        store::remember(engine, resolution, error.clone());
    }
    resolved
}

/// The part of a CNAME chain that was followed so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    names: Vec<Name>,
    /// Changes from one rule or zone to another.
    turns: usize,
}

impl Trail {
    /// Continues with the target at `cut` in the head's chain. An error if that is a loop or one turn too many.
    pub(super) fn follow(
        &mut self,
        resolution: &Resolution,
        head: &Response,
        cut: usize,
    ) -> Result<Resolution, ResolveError> {
        self.turns += 1;
        self.names.push(resolution.query.name.clone());
        self.names.extend(head.chain()[..cut].iter().cloned());
        let target = &head.chain()[cut];
        if self.turns > MAX_TURNS || self.names.contains(target) {
            return Err(ResolveError::endless());
        }
        Ok(resolution.onward(target.clone()))
    }
}

/// Waits for a fresh answer, but no longer than `stale_after` if there is a stale one. After a failed round, a name with
/// a stale answer is not asked again for a while.
async fn within_patience(context: &Context, resolution: &Resolution, trail: &mut Trail) -> Resolved {
    let is_down = resolution.snapshot.is_down(resolution.target());
    let other_kind = || is_down.then(|| store::of_other_kind(context, resolution)).flatten();
    let Some(stale) = store::stale(context, resolution).or_else(other_kind) else {
        return match steps(context, resolution, trail).await {
            Err(error) if error.is_outage() && resolution.cached != CacheState::Refresh => {
                let stale = store::of_other_kind(context, resolution);
                stale.map(|stale| store::as_stale(stale, error.reason.relayed.clone())).ok_or(error)
            }
            resolved => resolved,
        };
    };
    if store::is_paused(&context.engine, resolution, Moment::now()) {
        return Ok(store::as_stale(stale, None));
    }
    let patience = if is_down { Duration::ZERO } else { resolution.snapshot.stale_after };
    let mut refreshing = resolution.clone();
    let leads = Rc::clone(refreshing.leads.get_or_insert_default());
    let owned = context.clone();
    let mut trail = mem::take(trail);
    let mut fresh = Box::pin(async move {
        let start = Moment::now();
        let resolved = steps(&owned, &refreshing, &mut trail).await;
        if let (Err(error), Some(Target::Rule(rule))) = (&resolved, refreshing.target())
            && error.reason.code == EdeCode::NoReachableAuthority
            && part::has_time(&refreshing, rule, start)
        {
            store::pause(&owned.engine, &refreshing, Moment::now());
        }
        resolved
    });
    match tokio::time::timeout(patience, &mut fresh).await {
        Ok(Err(error)) if error.is_outage() => Ok(store::as_stale(stale, error.reason.relayed)),
        Ok(resolved) => resolved,
        Err(_) => {
            if leads.any() {
                tokio::task::spawn_local(fresh);
            }
            Ok(store::as_stale(stale, None))
        }
    }
}

/// Resolves one step of the chain, then recursively the rest.
async fn steps(context: &Context, resolution: &Resolution, trail: &mut Trail) -> Resolved {
    let Some(target) = resolution.target() else {
        return Err(ResolveError::not_covered("no rule"));
    };
    let step = match target {
        Target::Local => local(context, resolution)?,
        Target::Rule(rule) => {
            resolution.snapshot.rule(rule).counters.asked(&context.counters);
            let part = match &resolution.span {
                None => part::fetch(context, resolution, rule).await,
                // On the heap, for the state of every other query to stay as small as it is.
                Some(span) => Box::pin(traced(context, resolution, rule, span, trail.turns > 0)).await,
            };
            step(part)?
        }
    };
    match step {
        Step::Ends(answer) => Ok(answer),
        Step::Leaves { head, cut, server } => {
            let mut answer = (Box::pin(onward(context, resolution, &head, cut, trail)) as Boxed<'_>).await?;
            answer.server = answer.server.or(server);
            Ok(answer)
        }
    }
}

/// How far a step has come.
enum Step {
    /// To the end of the chain.
    Ends(Answer),
    /// To a target that another rule or zone decides about.
    Leaves {
        /// The answer that holds the chain.
        head: Arc<Response>,
        /// Index of the target in the chain.
        cut: usize,
        /// The server that answered.
        server: Option<Arc<Server>>,
    },
}

/// Fetches a rule's part, with a span of its own.
async fn traced(context: &Context, resolution: &Resolution, rule: RuleId, span: &Span, is_onward: bool) -> Part {
    let asked = resolution.snapshot.rule(rule);
    let span = trace::rule(span, asked, &resolution.query, is_onward, Moment::now());
    let traced = Resolution { span: Some(span.clone()), ..resolution.clone() };
    let part = part::fetch(context, &traced, rule).await;
    span.end(Moment::now());
    part
}

fn step(part: Part) -> Result<Step, ResolveError> {
    match part {
        Part::Unanswered(error) | Part::OutOfTime(error) | Part::Refused(error) => Err(error),
        Part::Answer { response: head, leaves: Some(cut), server, .. } => Ok(Step::Leaves { head, cut, server }),
        Part::Answer { response, leaves: None, lifetime, blocked: reason, server } => {
            Ok(Step::Ends(Answer { response, source: ReplySource::Upstream, reason, lifetime, server }))
        }
    }
}

fn local(context: &Context, resolution: &Resolution) -> Result<Step, ResolveError> {
    match of_zones(resolution)? {
        OfZones::Leaves { head, cut } => Ok(Step::Leaves { head: Arc::new(head), cut, server: None }),
        OfZones::Answer(mut response) => {
            let lifetime = store::bound(resolution, &mut response);
            store::insert(&context.engine, resolution, &response, lifetime, Moment::now(), None);
            Ok(Step::Ends(Answer::new(response, ReplySource::Local, None, lifetime)))
        }
    }
}

/// Answer from the local zones.
#[derive(Debug)]
pub(super) enum OfZones {
    /// The complete answer.
    Answer(Response),
    /// A CNAME chain whose target belongs to a rule.
    Leaves {
        /// The answer that holds the chain.
        head: Response,
        /// Index of the target in the chain.
        cut: usize,
    },
}

/// Answers from the local zones; stores nothing.
pub(super) fn of_zones(resolution: &Resolution) -> Result<OfZones, ResolveError> {
    let snapshot = &resolution.snapshot;
    let question =
        LocalQuery { name: &resolution.query.name, qtype: resolution.query.qtype, qclass: resolution.query.qclass };
    let find = |name: &Name| snapshot.find(name.as_wire(), question.qtype, resolution.client);
    let stays = |name: &Name| find(name).is_some_and(|found| found.target == Target::Local);
    let Some(answer) = snapshot.zones.answer(&question, stays) else {
        return Err(ResolveError::not_covered("no zone"));
    };
    if answer.outcome == zones::LocalOutcome::Endless {
        return Err(ResolveError::endless());
    }
    if let zones::LocalOutcome::Broken { zone } = &answer.outcome {
        let text = format!("the file of the local zone {zone} cannot be used; the log and `tidegate check` say why");
        return Err(ResolveError::servfail(EdeCode::Other, text));
    }
    if let zones::LocalOutcome::Delegated { cut, .. } = &answer.outcome {
        let text = format!(
            "{cut} is delegated to servers whose addresses the local zone does not have, and no rule is for it"
        );
        return Err(ResolveError::servfail(EdeCode::Other, text));
    }
    let response = Response::ours(&answer.message, &resolution.query)?;
    if let zones::LocalOutcome::Leaves { target } = &answer.outcome
        && let Some(cut) = response.chain().iter().position(|name| name == target)
        && find(target).is_some()
    {
        return Ok(OfZones::Leaves { head: response, cut });
    }
    Ok(OfZones::Answer(response))
}

/// Resolves the target at `cut` in the head's chain and joins the two answers.
async fn onward(
    context: &Context,
    resolution: &Resolution,
    head: &Response,
    cut: usize,
    trail: &mut Trail,
) -> Resolved {
    let next = trail.follow(resolution, head, cut)?;
    // A refresh fetches the whole chain: its end is as old as its beginning.
    let known = if next.cached == CacheState::Refresh { None } else { store::cached(context, &next) };
    let tail = match known {
        Some(answer) => answer,
        None => within_patience(context, &next, trail).await?,
    };
    let joined = splice::join(head, cut, &tail.response, &resolution.query)?;
    if joined.is_endless() {
        return Err(ResolveError::endless());
    }
    // Wherever the tail came from, it answers this rule's name: its guard judges the whole.
    let (mut joined, blocked) = match resolution.target() {
        Some(Target::Rule(id)) => part::guarded(context, resolution, id, joined)?,
        _ => (joined, None),
    };
    let rest = match joined.kind() {
        // The guard removed every address, so no SOA limits this NODATA.
        ResponseKind::NoData if blocked.is_some() => tail.lifetime.min(resolution.snapshot.cache.no_soa_ttl),
        _ => tail.lifetime,
    };
    let lifetime = store::bound_joined(resolution, &mut joined, rest);
    let reason = tail.reason.or(blocked);
    // A stale tail must not renew what is cached.
    let is_news =
        tail.source != ReplySource::Stale && reason.as_ref().is_none_or(|reason| reason.code == EdeCode::Blocked);
    if is_news {
        store::insert(&context.engine, resolution, &joined, lifetime, Moment::now(), reason.as_ref());
    }
    let source = if tail.source == ReplySource::Cache { ReplySource::Upstream } else { tail.source };
    Ok(Answer { server: tail.server, ..Answer::new(joined, source, reason, lifetime) })
}
