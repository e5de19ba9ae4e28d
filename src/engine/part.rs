//! One rule's part of an answer: asked once in the whole process, cut where it leaves the rule, guarded, stored.

use std::sync::Arc;

use tracing::warn;

use super::{
    Context,
    errand::{Errand, Leads},
    failure::{Failure, MAX_STEPS},
    guard::Verdict,
    pending::{PendingKey, Place},
    snapshot::{Rule, RuleId, Target},
};
use crate::{
    clock::Moment,
    config::Aaaa,
    metrics::GuardAction,
    upstream,
    wire::{EdeCode, RecordType, Response, writer::Writer},
};

/// What a rule's upstreams said.
#[derive(Debug)]
pub enum Part {
    /// An answer that passed the guard.
    Answer {
        /// The answer.
        response: Arc<Response>,
        /// The position in its chain of the first target that another rule decides about.
        leaves: Option<usize>,
        /// What the guard did to it.
        blocked: Option<Failure>,
    },
    /// The rule's servers gave none.
    Unanswered(Failure),
    /// They gave none in what an alias had left of its question's time: who has more may ask again.
    OutOfTime(Failure),
    /// The guard refused it, or it makes no sense.
    Refused(Failure),
}

/// Asks the rule, unless somebody does already.
pub async fn fetch(context: &Context, errand: &Errand, rule: RuleId) -> Arc<Part> {
    loop {
        let key = PendingKey {
            query: Arc::clone(&errand.asked),
            audience: errand.snapshot.table.audience(errand.client),
            rule: rule.0,
            generation: errand.snapshot.generation,
        };
        let receiver = match context.engine.pending.join(errand.hash.0, key) {
            Place::Lead(lead) => {
                let _leading = errand.leads.as_ref().map(Leads::begin);
                let part = Arc::new(ask(context, errand, rule).await);
                lead.finish(&part);
                return part;
            }
            Place::Follow(receiver) => receiver,
        };
        context.counters.coalesced();
        context.engine.perimeter.note_client(errand);
        let now = Moment::now();
        match tokio::time::timeout(errand.deadline.since(now), receiver).await {
            // Whoever asked had less time than we have, or is gone.
            Ok(Ok(part)) if matches!(*part, Part::OutOfTime(_)) && has_time(errand, rule, Moment::now()) => {}
            Ok(Err(_)) if has_time(errand, rule, Moment::now()) => {}
            Ok(Ok(part)) => return part,
            _ => return Arc::new(Part::Unanswered(unreachable(errand, rule))),
        }
    }
}

/// Whether the question has as much time left as its servers may need: a failure then is theirs.
fn has_time(errand: &Errand, rule: RuleId, now: Moment) -> bool {
    let timeout = errand.snapshot.rule(rule).group.limits().timeout;
    errand.deadline.since(now) >= timeout.min(errand.snapshot.deadline / 2)
}

async fn ask(context: &Context, errand: &Errand, id: RuleId) -> Part {
    let rule = errand.snapshot.rule(id);
    if rule.aaaa == Aaaa::Empty && errand.asked.qtype == RecordType::AAAA {
        return empty(errand);
    }
    let now = Moment::now();
    if context.engine.failures.knows(&errand.key(), now) {
        return Part::Unanswered(Failure::servfail(EdeCode::CachedError, format!("rule {}", rule.name)));
    }
    let exchange =
        |group, now, deadline| context.upstream_client.exchange(group, &rule.loops, &errand.asked, now, deadline);
    let exchanged = match &rule.fallback {
        None => exchange(&rule.group, now, errand.deadline).await,
        Some(fallback) => {
            // Servers that are silent leave it half of the time.
            let half = now + errand.deadline.since(now) / 2;
            match exchange(&rule.group, now, half).await {
                // Servers over their budget are not down.
                exchanged @ (Ok(_) | Err(upstream::ExchangeError::Budget)) => exchanged,
                Err(_) => exchange(fallback, Moment::now(), errand.deadline).await,
            }
        }
    };
    match exchanged {
        Ok(exchanged) => judge(context, errand, id, exchanged.response, exchanged.at),
        Err(failure) if !has_time(errand, id, now) && !failure.has_rcode() => {
            Part::OutOfTime(told(failure, errand, id))
        }
        Err(failure) => {
            context.engine.remember_failure(errand, &failure);
            Part::Unanswered(told(failure, errand, id))
        }
    }
}

/// AAAA has no data here (`aaaa = "empty"`).
fn empty(errand: &Errand) -> Part {
    let asked = &errand.asked;
    let writer = Writer::new(asked.name.as_wire(), asked.qtype, asked.qclass, 0);
    match Response::ours(&writer.finish(super::OUR_HEADER), asked) {
        Ok(response) => Part::Answer { response: Arc::new(response), leaves: None, blocked: None },
        Err(error) => Part::Refused(Failure::servfail(EdeCode::Other, error.to_string())),
    }
}

fn judge(context: &Context, errand: &Errand, id: RuleId, response: Response, now: Moment) -> Part {
    let rule = errand.snapshot.rule(id);
    if let Some(cut) = leaves(errand, rule, id, &response) {
        // What stands behind the cut is thrown away, and need not be judged: only CNAMEs lead there.
        return keep(context, errand, rule, (response, now), Some(cut), None);
    }
    if response.is_endless() || response.chain().len() > MAX_STEPS {
        return Part::Refused(Failure::endless());
    }
    context.engine.perimeter.note(errand, rule, &response, now);
    match guarded(context, errand, rule, response) {
        Ok((response, blocked)) => keep(context, errand, rule, (response, now), None, blocked),
        Err(refused) => Part::Refused(refused),
    }
}

/// What the rule's guard leaves of an answer to its part of a question, and what is to be said where it took something.
/// Its refusals are failures.
pub fn guarded(
    context: &Context,
    errand: &Errand,
    rule: &Rule,
    response: Response,
) -> Result<(Response, Option<Failure>), Failure> {
    let verdict = rule.guard.judge(&errand.asked, &response);
    let verdict = verdict.map_err(|error| Failure::servfail(EdeCode::Other, error.to_string()))?;
    let (action, address, rest) = match verdict {
        Verdict::Pass => return Ok((response, None)),
        Verdict::Log(address) => (GuardAction::Log, address, Some(response)),
        Verdict::Strip(address, rest) => (GuardAction::Strip, address, Some(*rest)),
        Verdict::Refuse(address) => (GuardAction::Refuse, address, None),
    };
    rule.counters.violated(action, &context.counters);
    let name = &errand.asked.name;
    let fault = if rule.guard.is_rebinding(address) { "is private" } else { "is not private" };
    if context.engine.warns(name) {
        warn!(rule = &*rule.name, %name, %address, action = action.label(), "an answer {fault}");
    }
    let blocked = Failure::servfail(EdeCode::Blocked, format!("rule {}: {address} {fault}", rule.name));
    match rest {
        None => Err(blocked),
        Some(rest) => Ok((rest, (action == GuardAction::Strip).then_some(blocked))),
    }
}

/// Brings TTLs within their bounds, and stores a part that is a whole answer.
fn keep(
    context: &Context,
    errand: &Errand,
    rule: &Rule,
    (mut response, came): (Response, Moment),
    leaves: Option<usize>,
    blocked: Option<Failure>,
) -> Part {
    if leaves.is_some() {
        context.engine.bound_links(errand, &mut response);
        return Part::Answer { response: Arc::new(response), leaves, blocked };
    }
    // Of an answer that the guard emptied the upstream is not to blame.
    if blocked.is_none() && !response.is_positive() && response.negative_ttl().is_none() {
        rule.counters.without_soa(&context.counters);
    }
    let lifetime = context.engine.bound(errand, &mut response);
    context.engine.store(errand, &response, lifetime, came, blocked.as_ref());
    Part::Answer { response: Arc::new(response), leaves, blocked }
}

/// The first target in the chain that another rule or a local zone decides about. One that only "." covers stays as
/// answered, unless the upstream left it open.
fn leaves(errand: &Errand, rule: &Rule, id: RuleId, response: &Response) -> Option<usize> {
    if !rule.follow {
        return None;
    }
    let is_open = response.is_open();
    let last = response.chain().len().checked_sub(1)?;
    response.chain().iter().enumerate().position(|(at, target)| {
        let Some(found) = errand.snapshot.table.find(target.as_wire(), errand.client) else { return false };
        if found.target == Target::Rule(id) {
            return false;
        }
        !found.is_root || (is_open && at == last)
    })
}

fn told(failure: upstream::ExchangeError, errand: &Errand, id: RuleId) -> Failure {
    match failure {
        upstream::ExchangeError::AllFailed(reasons) if reasons.availability == upstream::Availability::Loops => {
            let rule = &errand.snapshot.rule(id).name;
            Failure::servfail(EdeCode::Other, format!("rule {rule}: a loop, every server leads back here"))
        }
        upstream::ExchangeError::AllFailed(_) => unreachable(errand, id),
        upstream::ExchangeError::Overload => Failure::servfail(EdeCode::Other, "overload"),
        upstream::ExchangeError::Budget => Failure::servfail(EdeCode::Other, "upstream budget"),
    }
}

fn unreachable(errand: &Errand, id: RuleId) -> Failure {
    Failure::servfail(EdeCode::NoReachableAuthority, format!("rule {}", errand.snapshot.rule(id).name))
}
