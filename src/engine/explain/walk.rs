//! The walk through a query's decisions, name by name along its chain.

use super::{
    Premise, Supposed,
    document::{self, Decision, EntryState, GuardWord},
};
use crate::{
    cache::{Integrity, Peeked},
    clock::Moment,
    engine::{
        Engine,
        error::{Reason, ResolveError},
        part::{self, Judged, Objection},
        resolution::Resolution,
        resolve::{self, OfZones, Trail},
        snapshot::{Rule, RuleId, Target},
        store,
    },
    metrics::{GuardAction, ReplySource},
    upstream::{Availability, Group},
    wire::{EdeCode, Response, ResponseKind, UpstreamQuery, splice},
};

/// How a query or a part of its chain ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// It gets an answer.
    Answer(Known),
    /// It fails.
    Error(ResolveError),
    /// Only an upstream can tell.
    Open,
}

/// Answer that is known without asking an upstream.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) response: Response,
    pub(super) source: ReplySource,
    pub(super) reason: Option<Reason>,
}

impl From<Result<Known, ResolveError>> for Ending {
    fn from(result: Result<Known, ResolveError>) -> Self {
        match result {
            Ok(known) => Self::Answer(known),
            Err(error) => Self::Error(error),
        }
    }
}

/// Cache entry and whether it can be used.
pub(super) struct Entry {
    pub(super) peeked: Peeked,
    pub(super) response: Response,
    pub(super) state: EntryState,
}

pub(super) struct Walk<'a> {
    pub(super) engine: &'a Engine,
    pub(super) premise: &'a Premise<'a>,
    pub(super) now: Moment,
    pub(super) steps: Vec<document::NameStep>,
}

impl Walk<'_> {
    /// The first name: as `handle` does on a hit, and `resolve` otherwise.
    pub(super) fn answer(&mut self, resolution: &Resolution) -> Ending {
        let at = self.open(resolution);
        if let Some(known) = self.fresh(resolution) {
            self.steps[at].decision = Decision::Cached;
            return Ending::Answer(known);
        }
        if let Some(error) = self.remembered(resolution).filter(ResolveError::is_final) {
            self.steps[at].decision = Decision::Fails;
            return Ending::Error(error);
        }
        self.within_patience(at, resolution, Trail::default())
    }

    /// A name that a chain leads to.
    fn next(&mut self, resolution: &Resolution, trail: Trail) -> Ending {
        let at = self.open(resolution);
        if let Some(known) = self.fresh(resolution) {
            self.steps[at].decision = Decision::Cached;
            return Ending::Answer(known);
        }
        self.within_patience(at, resolution, trail)
    }

    fn within_patience(&mut self, at: usize, resolution: &Resolution, trail: Trail) -> Ending {
        let snapshot = &resolution.snapshot;
        let is_down = self.premise.counts_state() && snapshot.is_down(resolution.target());
        let other_kind = |walk: &Self| walk.stale_of_other_kind(resolution);
        let stale = self.stale(resolution).or_else(|| is_down.then(|| other_kind(self)).flatten());
        let Some(stale) = stale else {
            return match self.go(at, resolution, trail) {
                Ending::Error(error) if error.is_outage() => match other_kind(self) {
                    Some(stale) => self.serve_stale(at, stale),
                    None => Ending::Error(error),
                },
                ending => ending,
            };
        };
        let has_no_time = is_down || snapshot.stale_after.is_zero();
        if store::is_paused(self.engine, resolution, self.now) || (has_no_time && !self.ends_at_once(resolution)) {
            return self.serve_stale(at, stale);
        }
        match self.go(at, resolution, trail) {
            Ending::Error(error) if error.is_outage() => self.serve_stale(at, stale),
            ending => ending,
        }
    }

    /// Whether a forwarded query is answered without waiting for a server.
    fn ends_at_once(&self, resolution: &Resolution) -> bool {
        let is_empty = match resolution.target() {
            Some(Target::Rule(id)) => part::is_kept_empty(resolution.snapshot.rule(id), resolution.query.qtype),
            _ => true,
        };
        is_empty || self.remembered(resolution).is_some_and(|error| error.is_final())
    }

    fn serve_stale(&mut self, at: usize, known: Known) -> Ending {
        self.steps[at].decision = Decision::Stale;
        Ending::Answer(known)
    }

    fn go(&mut self, at: usize, resolution: &Resolution, trail: Trail) -> Ending {
        match resolution.target() {
            None => Ending::Error(ResolveError::not_covered("no rule")),
            Some(Target::Local) => self.local(at, resolution, trail),
            Some(Target::Rule(id)) => self.forward(at, resolution, id, trail),
        }
    }

    fn local(&mut self, at: usize, resolution: &Resolution, trail: Trail) -> Ending {
        self.steps[at].decision = Decision::Local;
        match resolve::of_zones(resolution) {
            Ok(OfZones::Leaves { head, cut }) => {
                self.describe_chain(at, resolution, &head, Some(cut));
                self.onward(at, resolution, &head, cut, trail)
            }
            Ok(OfZones::Answer(response)) => {
                self.describe_chain(at, resolution, &response, None);
                Ending::Answer(Known { response, source: ReplySource::Local, reason: None })
            }
            Err(error) => {
                self.steps[at].decision = Decision::Fails;
                Ending::Error(error)
            }
        }
    }

    fn forward(&mut self, at: usize, resolution: &Resolution, id: RuleId, trail: Trail) -> Ending {
        let rule = resolution.snapshot.rule(id);
        if part::is_kept_empty(rule, resolution.query.qtype) {
            self.steps[at].decision = Decision::Empty;
            let known = part::no_data(&resolution.query).map_err(ResolveError::from);
            return known.map(|response| Known { response, source: ReplySource::Upstream, reason: None }).into();
        }
        if let Some(error) = self.remembered(resolution) {
            self.steps[at].decision = Decision::Fails;
            return Ending::Error(error);
        }
        self.steps[at].decision = Decision::Forwarded;
        match self.ask(rule, &resolution.query) {
            Ok(Supposed::Answer(response)) => self.judge(at, resolution, id, *response, trail),
            Ok(Supposed::Unknown) => Ending::Open,
            Ok(Supposed::NoAnswer) => Ending::Error(part::all_failed(Availability::Asked, resolution, id)),
            Err(availability) => {
                self.steps[at].decision = Decision::Fails;
                Ending::Error(part::all_failed(availability, resolution, id))
            }
        }
    }

    /// Assumed answer of the rule's group, or of its fallback.
    fn ask(&self, rule: &Rule, query: &UpstreamQuery) -> Result<Supposed, Availability> {
        let ask = |group: &Group| {
            if self.premise.counts_state() {
                group.order(&rule.loops, self.now)?;
            }
            Ok(match self.premise.answer(group, query) {
                Supposed::Answer(response) if !response.is_answer() => Supposed::NoAnswer,
                supposed => supposed,
            })
        };
        let (group, fallback) =
            if self.premise.counts_state() { rule.groups() } else { (&rule.group, rule.fallback.as_ref()) };
        match (ask(group), fallback) {
            (Ok(Supposed::NoAnswer) | Err(_), Some(fallback)) => ask(fallback),
            (supposed, _) => supposed,
        }
    }

    fn judge(&mut self, at: usize, resolution: &Resolution, id: RuleId, response: Response, trail: Trail) -> Ending {
        let cut = part::leaves(resolution, id, &response);
        self.describe_chain(at, resolution, &response, cut);
        if let Some(cut) = cut {
            return self.onward(at, resolution, &response, cut, trail);
        }
        if response.is_endless() {
            return Ending::Error(ResolveError::endless());
        }
        let judged = self.guarded(at, resolution, id, response);
        judged.map(|(response, reason)| Known { response, source: ReplySource::Upstream, reason }).into()
    }

    fn guarded(
        &mut self,
        at: usize,
        resolution: &Resolution,
        id: RuleId,
        response: Response,
    ) -> Result<(Response, Option<Reason>), ResolveError> {
        let Judged { objection, outcome } = part::judged(resolution, id, response)?;
        if let Some(guard) = &mut self.steps[at].guard {
            guard.verdict = Some(objection.map_or(GuardWord::Pass, |Objection { action, .. }| match action {
                GuardAction::Log => GuardWord::Log,
                GuardAction::Strip => GuardWord::Strip,
                GuardAction::Refuse => GuardWord::Refuse,
            }));
            guard.address = objection.map(|objection| objection.address.to_string());
        }
        outcome
    }

    fn onward(&mut self, at: usize, resolution: &Resolution, head: &Response, cut: usize, mut trail: Trail) -> Ending {
        let next = match trail.follow(resolution, head, cut) {
            Ok(next) => next,
            Err(error) => return Ending::Error(error),
        };
        let tail = match self.next(&next, trail) {
            Ending::Answer(tail) => tail,
            ending => return ending,
        };
        self.join(at, resolution, head, cut, tail).into()
    }

    fn join(
        &mut self,
        at: usize,
        resolution: &Resolution,
        head: &Response,
        cut: usize,
        tail: Known,
    ) -> Result<Known, ResolveError> {
        let joined = splice::join(head, cut, &tail.response, &resolution.query)?;
        if joined.is_endless() {
            return Err(ResolveError::endless());
        }
        let (response, blocked) = match resolution.target() {
            Some(Target::Rule(id)) => self.guarded(at, resolution, id, joined)?,
            _ => (joined, None),
        };
        let source = if tail.source == ReplySource::Cache { ReplySource::Upstream } else { tail.source };
        Ok(Known { response, source, reason: tail.reason.or(blocked) })
    }

    pub(super) fn remembered(&self, resolution: &Resolution) -> Option<ResolveError> {
        let error = store::find_remembered(self.engine, resolution, self.now)?;
        self.premise.counts_state().then(|| (*error).clone())
    }

    /// The fresh answer of the cache, for all clients of the view or for this client's audience.
    fn fresh(&self, resolution: &Resolution) -> Option<Known> {
        let fresh = |resolution: &Resolution| {
            let entry = self.entry(resolution)?;
            if entry.state != EntryState::Fresh || !self.premise.counts_state() {
                return None;
            }
            let reason = (entry.peeked.found.integrity == Integrity::Stripped).then(Reason::stripped);
            Some(Known { response: entry.response, source: ReplySource::Cache, reason })
        };
        fresh(resolution).or_else(|| fresh(&resolution.for_audience()?))
    }

    fn stale(&self, resolution: &Resolution) -> Option<Known> {
        let stale = |resolution: &Resolution| {
            let entry = self.entry(resolution).filter(|entry| self.serves_stale(resolution, entry))?;
            Some(as_stale(entry))
        };
        stale(resolution).or_else(|| stale(&resolution.for_audience()?))
    }

    fn stale_of_other_kind(&self, resolution: &Resolution) -> Option<Known> {
        let known = self.stale(&resolution.other_kind())?;
        let query = &resolution.query;
        let response = match query.do_bit {
            true => splice::without_authenticity(&known.response, query),
            false => splice::without_signatures(&known.response, query),
        };
        Some(Known { response: response.ok()?, ..known })
    }

    fn serves_stale(&self, resolution: &Resolution, entry: &Entry) -> bool {
        let found = &entry.peeked.found;
        self.premise.counts_state()
            && entry.state != EntryState::Outdated
            && (found.remaining > 0 || found.past <= resolution.snapshot.stale)
            && store::has_stale_answers(resolution)
            && store::may_be_stale(resolution, &entry.response)
    }

    pub(super) fn entry(&self, resolution: &Resolution) -> Option<Entry> {
        let snapshot = &resolution.snapshot;
        let peeked = self.engine.cache.peek(&resolution.key(), resolution.hash, self.now.seconds())?;
        let is_outdated = peeked.stamp.generation != snapshot.generation
            && snapshot.revalidate(&peeked.message, peeked.stamp, resolution.client, resolution.view).is_none();
        let state = match peeked.found.remaining {
            _ if is_outdated => EntryState::Outdated,
            0 => EntryState::Expired,
            _ => EntryState::Fresh,
        };
        let response = Response::ours(&peeked.message, &resolution.query).ok()?;
        Some(Entry { peeked, response, state })
    }
}

/// Entry to use while no server answers; see `store::as_stale`.
fn as_stale(entry: Entry) -> Known {
    let Entry { peeked, response, state } = entry;
    if state == EntryState::Fresh {
        let reason = (peeked.found.integrity == Integrity::Stripped).then(Reason::stripped);
        return Known { response, source: ReplySource::Cache, reason };
    }
    let code = if response.kind() == ResponseKind::NxDomain { EdeCode::StaleNxdomain } else { EdeCode::StaleAnswer };
    Known { response, source: ReplySource::Stale, reason: Some(Reason::new(code, "")) }
}
