//! Between the engine and the cache: what is stored, found again, and served stale.

use std::{sync::Arc, time::Duration};

use super::{
    Context, Engine,
    error::{Reason, ResolveError},
    resolution::{CacheState, Resolution},
    resolve::Answer,
    snapshot::{Rule, Snapshot, Target},
};
use crate::{
    cache::{
        Integrity, Lookup, New, Staleness, Stamp,
        policy::{Lifetime, Times, TtlLimits},
    },
    clock::Moment,
    config::WhenDown,
    metrics::{GuardAction, ReplySource},
    upstream,
    wire::{EdeCode, Name, RelayedEde, Response, ResponseKind, splice},
};

/// Pause after a failed round before a name with a stale answer is asked again (RFC 8767 5).
const STALE_PAUSE: Duration = Duration::from_secs(30);

/// Clamps the TTLs of a new answer to its rule's limits and returns how long it may be stored. A client must not keep it
/// longer than we do.
pub(super) fn bound(resolution: &Resolution, response: &mut Response) -> u32 {
    let lifetime = Lifetime::of(&times(response), &limits(resolution));
    response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
    lifetime.seconds
}

/// Clamps the TTLs of a chain that another rule or zone continues. The negative TTL, if any, comes from the answer at the
/// chain's end.
pub(super) fn bound_links(resolution: &Resolution, response: &mut Response) {
    let times = Times { kind: ResponseKind::Positive, lowest_ttl: response.least_ttl(), soa_ttl: None };
    let lifetime = Lifetime::of(&times, &limits(resolution));
    response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
}

/// Clamps the TTLs of an answer joined from a chain and a tail, and returns how long it may be stored. The tail stays valid
/// for `rest` seconds. Both parts were clamped when they came in, so no lifetime starts again.
pub(super) fn bound_joined(resolution: &Resolution, response: &mut Response, rest: u32) -> u32 {
    let lifetime = Lifetime::joined(response.kind(), response.least_ttl(), rest, &limits(resolution));
    response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
    lifetime.seconds
}

/// Clamps the TTLs of an answer from a snapshot file, which claims `claimed` seconds for it, and returns how long it may be
/// stored: at most as long as if it came from an upstream now.
pub(super) fn bound_saved(limits: &TtlLimits, response: &mut Response, claimed: u32) -> u32 {
    let rest = Lifetime::of(&times(response), limits).seconds.min(claimed);
    let lifetime = Lifetime::joined(response.kind(), response.least_ttl(), rest, limits);
    response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
    lifetime.seconds
}

fn times(response: &Response) -> Times {
    Times { kind: response.kind(), lowest_ttl: response.least_ttl(), soa_ttl: response.negative_ttl() }
}

fn limits(resolution: &Resolution) -> TtlLimits {
    match resolution.target() {
        Some(Target::Rule(rule)) => resolution.snapshot.limits(rule),
        _ => resolution.snapshot.cache,
    }
}

/// Stores a whole answer that came `now`, and whether the guard took something from it: for all clients of its view, or
/// for this client's audience only where its chain leads the clients of the view different ways. With a lifetime of 0
/// it is not stored. Older answers to the query are removed in both cases, since they are superseded (RFC 8767 4).
pub(super) fn insert(
    engine: &Engine,
    resolution: &Resolution,
    response: &Response,
    lifetime: u32,
    now: Moment,
    blocked: Option<&Reason>,
) {
    let Some(found) = resolution.found else { return };
    let stamp = |view| resolution.snapshot.stamp(response.message(), resolution.client, found, view);
    let for_audience = resolution.for_audience();
    let (kept, superseded, stamp) = match (stamp(resolution.view), &for_audience) {
        (Some(stamp), other) => (resolution, other.as_ref(), Some(stamp)),
        (None, Some(other)) => (other, Some(resolution), stamp(other.view)),
        (None, None) => (resolution, None, None),
    };
    if let Some(superseded) = superseded {
        engine.cache.remove(&superseded.key());
    }
    let Some(stamp) = stamp else {
        engine.cache.remove(&kept.key());
        return;
    };
    let new = New {
        message: response.message(),
        ttl_offsets: response.ttl_offsets(),
        lifetime,
        now: now.seconds(),
        stamp,
        integrity: if blocked.is_some() { Integrity::Stripped } else { Integrity::Whole },
    };
    let is_protected = |stamp: Stamp| kept.snapshot.is_protected(stamp);
    engine.cache.insert(&kept.key(), kept.hash, new, is_protected);
}

/// A remembered failure of a query.
#[derive(Debug, Clone)]
pub struct KnownFailure {
    error: Arc<ResolveError>,
    /// [`Rule::recoveries`] at the time, if every server of the rule was down. The failure is forgotten when it changes.
    outage: Option<u64>,
}

/// Remembers that no server answered a query. Does nothing if no server was asked.
pub(super) fn remember_outage(engine: &Engine, resolution: &Resolution, rule: &Rule, error: &upstream::ExchangeError) {
    let upstream::ExchangeError::AllFailed(reasons) = error else { return };
    if reasons.availability != upstream::Availability::Asked {
        return;
    }
    // A failure from an outage must not outlive it, and a server may have come up since.
    let outage = reasons.was_trial.then(|| rule.recoveries());
    if outage.is_some() && !rule.is_down() {
        return;
    }
    let text = format!("rule {}", rule.name);
    let error = ResolveError::servfail(EdeCode::CachedError, text).with_relayed(reasons.ede.clone());
    remember_with(engine, resolution, error, outage);
}

/// Remembers an error for `failure_ttl` (RFC 9520), unless a reload changed the rules meanwhile. A guard's refusal keeps its
/// own text, so that the next client, too, learns which address was refused.
pub(super) fn remember(engine: &Engine, resolution: &Resolution, error: ResolveError) {
    remember_with(engine, resolution, error, None);
}

fn remember_with(engine: &Engine, resolution: &Resolution, error: ResolveError, outage: Option<u64>) {
    let for_audience = resolution.for_audience();
    let key = for_audience.as_ref().unwrap_or(resolution).key();
    engine.failures.remember(
        &key,
        Moment::now(),
        resolution.snapshot.failure_ttl,
        KnownFailure { error: Arc::new(error), outage },
    );
    // Checked after storing: each new configuration clears the remembered failures, and may have done so just before.
    if engine.snapshot().generation != resolution.snapshot.generation {
        engine.failures.forget(&key);
    }
}

/// Remembered error for a query. A guard's refusal counts each time, since each time a client was refused.
pub(super) fn remembered(context: &Context, resolution: &Resolution, now: Moment) -> Option<ResolveError> {
    let error = find_remembered(&context.engine, resolution, now)?;
    if let Some(id) = error.refused_by
        && let Some(counters) = resolution.snapshot.counters_of(id.0)
    {
        counters.violated(GuardAction::Refuse, &context.counters);
        context.engine.perimeter.note_client(&resolution.query.name, resolution.client);
    }
    Some((*error).clone())
}

pub(super) fn find_remembered(engine: &Engine, resolution: &Resolution, now: Moment) -> Option<Arc<ResolveError>> {
    if engine.failures.is_empty(now) {
        return None;
    }
    let known = match resolution.for_audience() {
        Some(for_audience) => engine.failures.find(&for_audience.key(), now),
        None => engine.failures.find(&resolution.key(), now),
    }?;
    let is_over = known.outage.is_some_and(|recoveries| {
        matches!(resolution.target(), Some(Target::Rule(rule)) if resolution.snapshot.rule(rule).recoveries() != recoveries)
    });
    (!is_over).then_some(known.error)
}

/// Remembers that a round failed for a query with a stale answer. It is not tried again for [`STALE_PAUSE`], unless a
/// server of the rule comes up.
pub(super) fn pause(engine: &Engine, resolution: &Resolution, now: Moment) {
    if let Some(Target::Rule(rule)) = resolution.target() {
        let recoveries = resolution.snapshot.rule(rule).recoveries();
        engine.stale_rounds.remember(&resolution.key(), now, STALE_PAUSE, recoveries);
    }
}

/// Whether the pause after a failed round still lasts.
pub(super) fn is_paused(engine: &Engine, resolution: &Resolution, now: Moment) -> bool {
    let Some(Target::Rule(rule)) = resolution.target() else { return false };
    let paused = engine.stale_rounds.find(&resolution.key(), now);
    paused.is_some_and(|recoveries| recoveries == resolution.snapshot.rule(rule).recoveries())
}

/// Cached answer to use while no server answers.
#[derive(Debug)]
pub(super) struct Stale {
    response: Response,
    /// Whether it is past its lifetime.
    is_expired: bool,
    integrity: Integrity,
}

/// The cached answer, if it is fresh.
pub(super) fn cached(context: &Context, resolution: &Resolution) -> Option<Answer> {
    cached_in_view(context, resolution).or_else(|| cached_for_audience(context, resolution))
}

/// The cached answer for this client's audience only, which `handle` does not look for.
pub(super) fn cached_for_audience(context: &Context, resolution: &Resolution) -> Option<Answer> {
    cached_in_view(context, &resolution.for_audience()?)
}

fn cached_in_view(context: &Context, resolution: &Resolution) -> Option<Answer> {
    let snapshot = &resolution.snapshot;
    let mut scratch = context.scratch.borrow_mut();
    let lookup = context.engine.cache.get(
        &resolution.key(),
        resolution.hash,
        Moment::now().seconds(),
        snapshot.generation,
        &mut scratch,
        |message, stamp| snapshot.revalidate(message, stamp, resolution.client, resolution.view),
    );
    let Lookup::Hit(found) = lookup else { return None };
    let response = Response::ours(&scratch[..found.length], &resolution.query).ok()?;
    let reason = (found.integrity == Integrity::Stripped).then(Reason::stripped);
    Some(Answer::new(response, ReplySource::Cache, reason, found.remaining))
}

/// The stale answer, if every rule in its chain may give one.
pub(super) fn stale(context: &Context, resolution: &Resolution) -> Option<Stale> {
    if resolution.cached == CacheState::Refresh {
        return None;
    }
    stale_in_view(context, resolution).or_else(|| stale_in_view(context, &resolution.for_audience()?))
}

fn stale_in_view(context: &Context, resolution: &Resolution) -> Option<Stale> {
    let snapshot = &resolution.snapshot;
    if resolution.cached == CacheState::Empty || !has_stale_answers(resolution) {
        return None;
    }
    let mut scratch = context.scratch.borrow_mut();
    let found = context.engine.cache.stale(
        &resolution.key(),
        resolution.hash,
        Moment::now().seconds(),
        snapshot.generation,
        Staleness { max: snapshot.stale, ttl: snapshot.stale_ttl },
        &mut scratch,
        |message, stamp| snapshot.revalidate(message, stamp, resolution.client, resolution.view),
    )?;
    let response = Response::ours(&scratch[..found.length], &resolution.query).ok()?;
    let stale = Stale { response, is_expired: found.remaining == 0, integrity: found.integrity };
    may_be_stale(resolution, &stale.response).then_some(stale)
}

/// Whether a query goes where stale answers are given.
pub(super) fn has_stale_answers(resolution: &Resolution) -> bool {
    resolution.target().is_some_and(|target| target != Target::Local && gives_stale(&resolution.snapshot, target))
}

/// Whether every rule that an answer's chain leads through may give it stale.
pub(super) fn may_be_stale(resolution: &Resolution, response: &Response) -> bool {
    let snapshot = &resolution.snapshot;
    let find = |name: &Name| snapshot.find(name.as_wire(), resolution.query.qtype, resolution.client);
    response.chain().iter().all(|name| find(name).is_none_or(|found| gives_stale(snapshot, found.target)))
}

fn gives_stale(snapshot: &Snapshot, target: Target) -> bool {
    match target {
        Target::Rule(rule) => snapshot.rule(rule).when_down != WhenDown::Fail,
        Target::Local => true,
    }
}

/// Cached answer to the same query with the other DO bit, adapted to this client. Signatures are removed if the client did
/// not ask for them; AD is cleared if it did, because the entry has none.
pub(super) fn of_other_kind(context: &Context, resolution: &Resolution) -> Option<Stale> {
    let other = resolution.other_kind();
    let stale = stale(context, &other)?;
    let query = &resolution.query;
    let response = match query.do_bit {
        true => splice::without_authenticity(&stale.response, query),
        false => splice::without_signatures(&stale.response, query),
    };
    Some(Stale { response: response.ok()?, ..stale })
}

/// Answer made of an entry that is used while no server answers. `relayed` is what the last of them said instead.
pub(super) fn as_stale(stale: Stale, relayed: Option<Arc<RelayedEde>>) -> Answer {
    let Stale { response, is_expired, integrity } = stale;
    if !is_expired {
        let reason = (integrity == Integrity::Stripped).then(Reason::stripped);
        return Answer::new(response, ReplySource::Cache, reason, 0);
    }
    let code = if response.kind() == ResponseKind::NxDomain { EdeCode::StaleNxdomain } else { EdeCode::StaleAnswer };
    Answer::new(response, ReplySource::Stale, Some(Reason::new(code, "").with_relayed(relayed)), 0)
}
