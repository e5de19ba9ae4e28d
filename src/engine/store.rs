//! Between the engine and the cache: what is stored, found again, and served stale.

use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    Context, Engine,
    errand::{Errand, Past},
    failure::Failure,
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

/// A name is warned about once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Names remembered as warned about; more at once are not told apart.
const MAX_WARNED: usize = 1024;

/// Names that were warned about lately.
#[derive(Debug, Default)]
pub(super) struct Warned {
    names: Mutex<HashMap<Name, Moment>>,
}

impl Warned {
    /// Whether a line about this name is due. A name counts as warned about from then on.
    fn is_due(&self, name: &Name, now: Moment) -> bool {
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

impl Engine {
    /// Whether a warning about this name is due: one a minute.
    pub(super) fn warns(&self, name: &Name) -> bool {
        self.warned.is_due(name, Moment::now())
    }

    /// Brings an answer's TTLs within the bounds of its rule, and gives how long it may be kept: what a client is told
    /// must not outlive what we keep.
    pub(super) fn bound(&self, errand: &Errand, response: &mut Response) -> Option<u32> {
        let snapshot = &errand.snapshot;
        let negative_ttl = match errand.target() {
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
    pub(super) fn bound_links(&self, errand: &Errand, response: &mut Response) {
        let links = policy::Answer {
            rcode: Rcode::NOERROR,
            kind: policy::Kind::Positive,
            lowest_ttl: response.least_ttl(),
            soa_ttl: None,
            extent: Extent::Whole,
        };
        if let Some(lifetime) = policy::lifetime(&links, &errand.snapshot.cache) {
            response.map_ttls(|ttl| lifetime.ttls.apply(ttl));
        }
    }

    /// Keeps a whole answer that came `now`, with word of what the guard took from it: for all clients of its view, or
    /// where its chain leads them different ways, for those that are like this one.
    pub(super) fn store(
        &self,
        errand: &Errand,
        response: &Response,
        lifetime: Option<u32>,
        now: Moment,
        blocked: Option<&Failure>,
    ) {
        let (Some(lifetime), Some(found)) = (lifetime, errand.found) else { return };
        let own;
        let stamp = |errand: &Errand| errand.snapshot.stamp(response.message(), errand.client, found, errand.view);
        let (errand, stamp) = match stamp(errand) {
            Some(stamp) => (errand, stamp),
            None => {
                let Some(kept) = errand.own() else { return };
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
        let is_protected = |stamp: Stamp| errand.snapshot.is_protected(stamp);
        self.cache.insert(&errand.key(), errand.hash, new, is_protected);
    }

    /// Remembers that a question failed, unless it was not even asked, or other rules are in force by now: what failed
    /// under those before says nothing about them.
    pub(super) fn remember_failure(&self, errand: &Errand, failure: &upstream::ExchangeError) {
        let upstream::ExchangeError::AllFailed(reasons) = failure else { return };
        if reasons.availability == upstream::Availability::Asked {
            self.failures.remember(&errand.key(), Moment::now(), errand.snapshot.failure_ttl);
            // Looked at behind it: a configuration that comes into force later makes everything forgotten.
            if self.snapshot().generation != errand.snapshot.generation {
                self.failures.forget(&errand.key());
            }
        }
    }
}

/// What an expired entry says.
#[derive(Debug)]
pub(super) struct Stale(Response);

impl Context {
    /// The fresh answer to the errand that the cache has.
    pub(super) fn cached(&self, errand: &Errand) -> Option<Answer> {
        self.cached_in_view(errand).or_else(|| self.cached_for_own(errand))
    }

    /// The same of what is kept for clients like this one alone, which `handle` does not know of.
    pub(super) fn cached_for_own(&self, errand: &Errand) -> Option<Answer> {
        self.cached_in_view(&errand.own()?)
    }

    fn cached_in_view(&self, errand: &Errand) -> Option<Answer> {
        let snapshot = &errand.snapshot;
        let mut scratch = self.scratch.borrow_mut();
        let lookup = self.engine.cache.get(
            &errand.key(),
            errand.hash,
            Moment::now().seconds(),
            snapshot.generation,
            &mut scratch,
            |message, stamp| snapshot.revalidate(message, stamp, errand.client, errand.view),
        );
        let Lookup::Hit(found) = lookup else { return None };
        let response = Response::ours(&scratch[..found.length], &errand.asked).ok()?;
        Some(Answer::new(response, Source::Cache, (found.integrity == Integrity::Stripped).then(Failure::stripped)))
    }

    /// The stale answer to the errand, if every rule in it may give one.
    pub(super) fn stale(&self, errand: &Errand) -> Option<Stale> {
        if errand.past == Past::Due {
            return None;
        }
        self.stale_in_view(errand).or_else(|| self.stale_in_view(&errand.own()?))
    }

    fn stale_in_view(&self, errand: &Errand) -> Option<Stale> {
        let snapshot = &errand.snapshot;
        if errand.past == Past::Unknown {
            return None;
        }
        let may = |target| match target {
            Target::Rule(rule) => snapshot.rule(rule).when_down != WhenDown::Fail,
            Target::Local => true,
        };
        let target = errand.target()?;
        if target == Target::Local || !may(target) || snapshot.stale == 0 {
            return None;
        }
        let mut scratch = self.scratch.borrow_mut();
        let found = self.engine.cache.stale(
            &errand.key(),
            errand.hash,
            Moment::now().seconds(),
            snapshot.generation,
            Staleness { max: snapshot.stale, ttl: snapshot.stale_ttl },
            &mut scratch,
            |message, stamp| snapshot.revalidate(message, stamp, errand.client, errand.view),
        )?;
        let response = Response::ours(&scratch[..found.length], &errand.asked).ok()?;
        let find = |name: &Name| snapshot.table.find(name.as_wire(), errand.client);
        let allows = |name: &Name| find(name).is_none_or(|found| may(found.target));
        response.chain().iter().all(allows).then_some(Stale(response))
    }

    /// The stale answer as what the question came to.
    pub(super) fn as_stale(&self, stale: Stale) -> Answer {
        self.counters.stale();
        let rcode = stale.0.rcode();
        let code = if stale.0.kind() == Kind::NxDomain { EdeCode::StaleNxdomain } else { EdeCode::StaleAnswer };
        Answer::new(stale.0, Source::Stale, Some(Failure { rcode, code, text: "".into() }))
    }
}
