//! The slow path: from a question that the cache could not answer to a reply. Every failure ends as a response code.
//!
//! Policy, in this order:
//! - A question that no rule covers: REFUSED, EDE 20.
//! - Local names are answered here, others through their rule ([`part`]).
//! - A chain that leaves its rule or zone goes round again ([`MAX_STEPS`] times at most); a loop is SERVFAIL.
//! - Stale answers (RFC 8767 5): fresh first; a stale one after `stale_after`, at once while the rule is known to be
//!   down, and when every server failed. The exchange goes on and refreshes the entry; who only waited for another's
//!   waits no longer. So it is for each part of a chain.
//! - A reload meanwhile: if other rules shape the answer now, the question is asked anew under them, `MAX_RELOADS`
//!   times at most; then SERVFAIL, for nothing leaves that the rules in force have not judged.

use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};

use super::{
    Context,
    errand::{Errand, Past},
    failure::{Failure, MAX_STEPS},
    part::{self, Part},
    query::Query,
    snapshot::{RuleId, Snapshot, Target},
};
use crate::{
    clock::Moment,
    metrics::Source,
    wire::{Ede, EdeCode, Name, Rcode, Response, reply, splice},
    zones::{LocalQuestion, Outcome},
};

/// How often an answer is asked for anew because the configuration changed meanwhile.
const MAX_RELOADS: usize = 3;

/// An answer, with what is to be said of it.
#[derive(Debug, Clone)]
pub struct Answer {
    response: Arc<Response>,
    source: Source,
    ede: Option<Failure>,
}

impl Answer {
    /// An answer with what is to be said of it.
    pub(super) fn new(response: Response, source: Source, ede: Option<Failure>) -> Self {
        Self { response: Arc::new(response), source, ede }
    }
}

/// What a question came to.
pub type Resolved = Result<Answer, Failure>;

type Steps<'a> = Pin<Box<dyn Future<Output = Resolved> + 'a>>;

/// Resolves a question and writes the reply into `out`, which takes 65,535 octets; gives its length.
pub async fn resolve(context: &Context, query: &Query) -> Reply {
    let mut snapshot = context.engine.snapshot_owned();
    for _ in 0..=MAX_RELOADS {
        let resolved = answer(context, query.errand(&snapshot)).await;
        let current = context.engine.snapshot_owned();
        if current.generation == snapshot.generation || agrees(&snapshot, &current, query, &resolved) {
            return Reply { resolved, payload: snapshot.udp_payload };
        }
        snapshot = current;
    }
    Reply { resolved: Err(Failure::overtaken()), payload: snapshot.udp_payload }
}

/// Whether what was resolved under one snapshot is what the other would give.
fn agrees(one: &Snapshot, other: &Snapshot, query: &Query, resolved: &Resolved) -> bool {
    let Ok(answer) = resolved else { return true };
    let message = answer.response.message();
    one.fingerprint(message, query.client) == other.fingerprint(message, query.client)
}

/// A resolved question, to be written as a reply.
#[derive(Debug)]
pub struct Reply {
    resolved: Resolved,
    payload: u16,
}

impl Reply {
    /// Writes the reply to `query` and counts it; gives its length.
    pub fn write(&self, context: &Context, query: &Query, out: &mut [u8]) -> usize {
        let question = query.question();
        let space = query.carrier.space(question.edns.as_ref(), self.payload);
        let ede_of = |failure: &Failure| question.edns.is_some().then(|| failure.code.index());
        let took = Moment::now().since(query.received);
        let (length, source, rcode, ede) = match &self.resolved {
            Ok(answer) => {
                let message = answer.response.message();
                let ede = answer.ede.as_ref().map(|failure| Ede { code: failure.code, text: &failure.text });
                let length = match out.get_mut(..message.len()) {
                    Some(place) => {
                        place.copy_from_slice(message);
                        reply::finish(out, message.len(), &question, ede, space)
                    }
                    None => reply::truncated(out, &question, answer.response.rcode(), space),
                };
                (length, answer.source, answer.response.rcode(), answer.ede.as_ref().and_then(ede_of))
            }
            Err(failure) => {
                let ede = Ede { code: failure.code, text: &failure.text };
                let length = reply::bare(out, &question.echo, question.edns.as_ref(), failure.rcode, Some(ede), space);
                let source = if failure.rcode == Rcode::REFUSED { Source::Refused } else { Source::Error };
                (length, source, failure.rcode, ede_of(failure))
            }
        };
        context.counters.answered(source, rcode.0, ede);
        context.counters.took(source, took, 1);
        length
    }
}

async fn answer(context: &Context, errand: Errand) -> Resolved {
    match context.cached_for_own(&errand) {
        Some(answer) => Ok(answer),
        None => within_patience(context, errand, Vec::new()).await,
    }
}

/// Waits for a fresh answer as long as there is no stale one to give instead. `before` are the names of the chain that
/// lead here.
async fn within_patience(context: &Context, mut errand: Errand, before: Vec<Name>) -> Resolved {
    let Some(stale) = context.stale(&errand) else { return steps(context, errand, before).await };
    let patience = if errand.snapshot.is_down(errand.target()) { Duration::ZERO } else { errand.snapshot.stale_after };
    let leads = Rc::clone(errand.leads.get_or_insert_default());
    let owned = context.clone();
    let refresh_errand = errand.clone();
    let mut fresh = Box::pin(async move { steps(&owned, refresh_errand, before).await });
    match tokio::time::timeout(patience, &mut fresh).await {
        Ok(Err(failure)) if failure.rcode == Rcode::SERVFAIL && failure.code != EdeCode::Blocked => {
            Ok(context.as_stale(stale))
        }
        Ok(resolved) => resolved,
        Err(_) => {
            if leads.any() {
                tokio::task::spawn_local(fresh);
            }
            Ok(context.as_stale(stale))
        }
    }
}

/// One step of the chain, and through itself those behind it.
async fn steps(context: &Context, errand: Errand, before: Vec<Name>) -> Resolved {
    let Some(target) = errand.target() else {
        return Err(Failure { rcode: Rcode::REFUSED, code: EdeCode::NotAuthoritative, text: "no rule".into() });
    };
    match target {
        Target::Local => local(context, errand, before).await,
        Target::Rule(rule) => forward(context, errand, rule, before).await,
    }
}

async fn forward(context: &Context, errand: Errand, rule: RuleId, before: Vec<Name>) -> Resolved {
    errand.snapshot.rule(rule).counters.asked(&context.counters);
    let part = part::fetch(context, &errand, rule).await;
    match &*part {
        Part::Unanswered(failure) | Part::OutOfTime(failure) | Part::Refused(failure) => Err(failure.clone()),
        Part::Answer { response, leaves: Some(cut), .. } => onward(context, &errand, response, *cut, before).await,
        Part::Answer { response, leaves: None, blocked } => {
            let response = Arc::clone(response);
            Ok(Answer { response, source: Source::Upstream, ede: blocked.clone() })
        }
    }
}

async fn local(context: &Context, errand: Errand, before: Vec<Name>) -> Resolved {
    let snapshot = &errand.snapshot;
    let question = LocalQuestion { name: &errand.asked.name, qtype: errand.asked.qtype, qclass: errand.asked.qclass };
    let stays = |name: &Name| {
        snapshot.table.find(name.as_wire(), errand.client).is_some_and(|found| found.target == Target::Local)
    };
    let broken = |error: crate::wire::Malformed| Failure::servfail(EdeCode::Other, error.to_string());
    let Some(answer) = snapshot.zones.answer(&question, stays) else {
        return Err(Failure { rcode: Rcode::REFUSED, code: EdeCode::NotAuthoritative, text: "no zone".into() });
    };
    if answer.outcome == Outcome::Endless {
        return Err(Failure::endless());
    }
    let mut response = Response::ours(&answer.message, &errand.asked).map_err(broken)?;
    if let Outcome::Leaves { target } = &answer.outcome
        && let Some(cut) = response.chain().iter().position(|name| name == target)
        && snapshot.table.find(target.as_wire(), errand.client).is_some()
    {
        return onward(context, &errand, &response, cut, before).await;
    }
    let lifetime = context.engine.bound(&errand, &mut response);
    context.engine.store(&errand, &response, lifetime, Moment::now(), None);
    Ok(Answer::new(response, Source::Local, None))
}

/// Goes on at the chain's target at `cut`, and puts both together.
async fn onward(context: &Context, errand: &Errand, head: &Response, cut: usize, mut before: Vec<Name>) -> Resolved {
    before.push(errand.asked.name.clone());
    before.extend(head.chain()[..cut].iter().cloned());
    let target = &head.chain()[cut];
    if before.len() > MAX_STEPS || before.contains(target) {
        return Err(Failure::endless());
    }
    let next = errand.onward(target.clone());
    // What is fetched ahead is fetched to its end, which is as old.
    let known = if next.past == Past::Due { None } else { context.cached(&next) };
    let tail = match known {
        Some(answer) => answer,
        None => (Box::pin(within_patience(context, next, before)) as Steps<'_>).await?,
    };
    let joined = splice::join(head, cut, &tail.response, &errand.asked);
    let joined = joined.map_err(|error| Failure::servfail(EdeCode::Other, error.to_string()))?;
    if joined.is_endless() {
        return Err(Failure::endless());
    }
    // Wherever the rest came from, it is the answer to this rule's name.
    let (mut joined, blocked) = match errand.target() {
        Some(Target::Rule(id)) => part::guarded(context, errand, errand.snapshot.rule(id), joined)?,
        _ => (joined, None),
    };
    let lifetime = context.engine.bound(errand, &mut joined);
    let ede = tail.ede.or(blocked);
    if ede.as_ref().is_none_or(|ede| ede.code == EdeCode::Blocked) {
        context.engine.store(errand, &joined, lifetime, Moment::now(), ede.as_ref());
    }
    let source = if tail.source == Source::Cache { Source::Upstream } else { tail.source };
    Ok(Answer::new(joined, source, ede))
}
