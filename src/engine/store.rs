//! Between the engine and the cache: what is stored, found again, and served stale.

use super::{
    Context, Engine,
    error::Reason,
    resolution::{CacheState, Resolution},
    resolve::Answer,
    snapshot::Target,
};
use crate::{
    cache::{
        Integrity, Lookup, New, Staleness, Stamp,
        policy::{self, Extent},
    },
    clock::Moment,
    config::WhenDown,
    metrics::Source,
    upstream,
    wire::{EdeCode, Kind, Name, Rcode, Response},
};

/// Brings an answer's TTLs within the bounds of its rule, and gives how long it may be stored: what a client is told
/// must not outlive the entry.
pub(super) fn bound(resolution: &Resolution, response: &mut Response) -> Option<u32> {
    let snapshot = &resolution.snapshot;
    let negative_ttl = match resolution.target() {
        Some(Target::Rule(rule)) => snapshot.rule(rule).negative_ttl,
        _ => snapshot.cache.negative_ttl,
    };
    let answer = policy::Answer {
        rcode: response.rcode(),
        kind: match response.kind() {
            Kind::NxDomain => policy::Kind::NxDomain,
            Kind::Positive => policy::Kind::Positive,
            _ => policy::Kind::NoData,
        },
        lowest_ttl: response.least_ttl(),
        soa_ttl: response.negative_ttl(),
        extent: Extent::Whole,
    };
    let lifetime = policy::lifetime(&answer, &policy::Limits { negative_ttl, ..snapshot.cache })?;
    response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
    Some(lifetime.seconds)
}

/// Brings the TTLs of a chain that goes on elsewhere within the bounds. How long there is nothing at its end, the
/// answer behind it says.
pub(super) fn bound_links(resolution: &Resolution, response: &mut Response) {
    let links = policy::Answer {
        rcode: Rcode::NOERROR,
        kind: policy::Kind::Positive,
        lowest_ttl: response.least_ttl(),
        soa_ttl: None,
        extent: Extent::Whole,
    };
    if let Some(lifetime) = policy::lifetime(&links, &resolution.snapshot.cache) {
        response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
    }
}

/// Stores a whole answer that came `now`, and whether the guard took something from it: for all clients of its view, or
/// for this client's audience only where its chain leads the clients of the view different ways.
pub(super) fn insert(
    engine: &Engine,
    resolution: &Resolution,
    response: &Response,
    lifetime: Option<u32>,
    now: Moment,
    blocked: Option<&Reason>,
) {
    let (Some(lifetime), Some(found)) = (lifetime, resolution.found) else { return };
    let own;
    let stamp = |resolution: &Resolution| {
        resolution.snapshot.stamp(response.message(), resolution.client, found, resolution.view)
    };
    let (resolution, stamp) = match stamp(resolution) {
        Some(stamp) => (resolution, stamp),
        None => {
            let Some(kept) = resolution.for_audience() else { return };
            own = kept;
            let Some(stamp) = stamp(&own) else { return };
            (&own, stamp)
        }
    };
    let new = New {
        message: response.message(),
        ttl_offsets: response.ttl_offsets(),
        lifetime,
        now: now.seconds(),
        stamp,
        integrity: if blocked.is_some() { Integrity::Stripped } else { Integrity::Whole },
    };
    let is_protected = |stamp: Stamp| resolution.snapshot.is_protected(stamp);
    engine.cache.insert(&resolution.key(), resolution.hash, new, is_protected);
}

/// Remembers that a query failed, unless no server was asked, or other rules are in force by now: what failed under
/// those before says nothing about them.
pub(super) fn remember_failure(engine: &Engine, resolution: &Resolution, failure: &upstream::ExchangeError) {
    let upstream::ExchangeError::AllFailed(reasons) = failure else { return };
    if reasons.availability == upstream::Availability::Asked {
        engine.failures.remember(&resolution.key(), Moment::now(), resolution.snapshot.failure_ttl);
        // Looked at behind it: a configuration that comes into force later makes everything forgotten.
        if engine.snapshot().generation != resolution.snapshot.generation {
            engine.failures.forget(&resolution.key());
        }
    }
}

/// What an expired entry says.
#[derive(Debug)]
pub(super) struct Stale(Response);

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
    Some(Answer::new(response, Source::Cache, (found.integrity == Integrity::Stripped).then(Reason::stripped)))
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
    if resolution.cached == CacheState::Empty {
        return None;
    }
    let may = |target| match target {
        Target::Rule(rule) => snapshot.rule(rule).when_down != WhenDown::Fail,
        Target::Local => true,
    };
    let target = resolution.target()?;
    if target == Target::Local || !may(target) || snapshot.stale == 0 {
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
    let find = |name: &Name| snapshot.find(name.as_wire(), resolution.query.qtype, resolution.client);
    let allows = |name: &Name| find(name).is_none_or(|found| may(found.target));
    response.chain().iter().all(allows).then_some(Stale(response))
}

/// The answer to a query that a stale entry answers.
pub(super) fn as_stale(stale: Stale) -> Answer {
    let code = if stale.0.kind() == Kind::NxDomain { EdeCode::StaleNxdomain } else { EdeCode::StaleAnswer };
    Answer::new(stale.0, Source::Stale, Some(Reason::new(code, "")))
}
