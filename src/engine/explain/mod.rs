//! What would be done with a query, told in steps: the decisions of [`handle`], `resolve`, `part` and
//! `store`, walked without asking, counting, storing or logging anything.
//!
//! Policy:
//! - Each decision is the function that answers queries; only the order in which they are made is written here once
//!   more, and `tests/explain.rs` holds it against what the engine does.
//! - No upstream is asked. Where only its answer could tell, the outcome is open, unless the caller says what to take
//!   for the answer ([`Premise`]).
//! - What passes within a moment is left out: the client's rate, the number of queries that wait, budgets, and probes
//!   for loops.

mod describe;
pub mod document;

use std::net::IpAddr;

use self::{
    describe::records,
    document::{AccessStep, Decision, EntryState, ExplainedOutcome, Explanation, ExtendedError, GuardWord},
};
use super::{
    ClientChannel, Engine, Query,
    error::{Reason, ResolveError},
    handle::{self, AtOnce},
    part::{self, Judged, Objection},
    resolution::{self, CacheState, Resolution},
    resolve::{self, OfZones, Trail},
    snapshot::{Rule, RuleId, Target},
    store,
};
use crate::{
    cache::{Integrity, Peeked},
    clock::Moment,
    metrics::{GuardAction, ReplySource},
    upstream::{Availability, Group},
    wire::{
        Class, Ede, EdeCode, Flags, Header, MessageId, Name, Question, Rcode, RecordType, Response, ResponseKind,
        Transport, Ttl, UpstreamQuery, ede, record::Section, splice, writer::Writer,
    },
};

/// A query to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name.
    pub name: Name,
    /// The record type.
    pub qtype: RecordType,
    /// Who asks.
    pub client: IpAddr,
    /// How it comes.
    pub transport: Transport,
    /// Whether signatures are asked for.
    pub do_bit: bool,
}

/// Assumed answer of a group.
#[derive(Debug)]
pub enum Supposed {
    /// Unknown: only the upstream could tell.
    Unknown,
    /// No server of the group answers.
    NoAnswer,
    /// This response.
    Answer(Box<Response>),
}

/// Gives the answer to assume from a group for a query.
pub type Suppose<'a> = dyn Fn(&Group, &UpstreamQuery) -> Supposed + 'a;

/// What an explanation assumes about upstreams.
pub enum Premise<'a> {
    /// Nothing: the real state, with upstreams' answers unknown.
    None,
    /// The real state, and the upstreams' answers that the function gives.
    Script(&'a Suppose<'a>),
    /// Upstreams answer every query with these addresses, whatever is cached, remembered or down.
    Addresses(&'a [IpAddr]),
}

impl<'a> Premise<'a> {
    /// Assumes these addresses; [`Premise::None`] if there are none.
    pub const fn of(addresses: &'a [IpAddr]) -> Self {
        if addresses.is_empty() { Self::None } else { Self::Addresses(addresses) }
    }

    /// Whether cache, remembered failures and the servers' health are taken into account.
    const fn counts_state(&self) -> bool {
        !matches!(self, Self::Addresses(_))
    }

    fn answer(&self, group: &Group, query: &UpstreamQuery) -> Supposed {
        match self {
            Self::None => Supposed::Unknown,
            Self::Script(suppose) => suppose(group, query),
            Self::Addresses(all) => addresses(all, query),
        }
    }
}

/// Explains a query under the configuration in force.
pub fn explain(engine: &Engine, asked: &Asked, premise: &Premise<'_>, now: Moment) -> Explanation {
    let snapshot = engine.snapshot_owned();
    let Asked { name, qtype, client, transport, do_bit } = asked.clone();
    let upstream = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit, cd: false };
    let mut explanation = Explanation {
        name: upstream.name.to_string(),
        qtype: qtype.to_string(),
        client: client.to_string(),
        transport: transport.label().to_owned(),
        dnssec: do_bit,
        access: AccessStep {
            allowed: snapshot.access.allows(client),
            network: snapshot.access.deciding(client).map(|network| network.to_string()),
        },
        ..Explanation::default()
    };
    let mut message = [0; UpstreamQuery::MAX];
    let length = upstream.write(MessageId(0), Some(snapshot.udp_payload), None, &mut message).unwrap_or(0);
    let Ok(question) = Question::read(&message[..length]) else { return explanation };
    explanation.outcome = match handle::at_once(&snapshot, &question, client, transport) {
        Some(AtOnce::Refusal(refusal)) => of_code(refusal.rcode, refusal.ede),
        Some(AtOnce::Record(record)) => ExplainedOutcome {
            source: ReplySource::Local.label().to_owned(),
            rcode: Some(Rcode::NOERROR.to_string()),
            answer: one_record(&upstream, record.rtype, record.ttl, record.rdata),
            words: "answered with a record of this server's own, whatever the rules".to_owned(),
            ..ExplainedOutcome::default()
        },
        None => {
            let view = handle::view(&snapshot, upstream.name.as_wire(), qtype, client);
            let hash = resolution::hash(&upstream, view);
            let channel = ClientChannel { transport, keepalive: None };
            let key = (upstream, hash, view);
            let query = Query::new(&question, key, client, now, channel, CacheState::MayHaveEntry);
            let mut walk = Walk { engine, premise, now, steps: Vec::new() };
            let ending = walk.answer(&query.resolution(&snapshot));
            explanation.steps = walk.steps;
            explanation.steps.iter_mut().for_each(|step| step.words = describe::words(step));
            of_ending(ending, &explanation)
        }
    };
    explanation
}

/// Response with those of the addresses that have the query's type.
fn addresses(all: &[IpAddr], query: &UpstreamQuery) -> Supposed {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let mut add = |octets: &[u8]| {
        let (owner, ttl) = (query.name.as_wire(), Ttl::from_wire(60));
        writer.plain(Section::Answer, owner, query.qtype, query.qclass, ttl, octets).ok();
    };
    for address in all {
        match (address, query.qtype) {
            (IpAddr::V4(address), RecordType::A) => add(&address.octets()),
            (IpAddr::V6(address), RecordType::AAAA) => add(&address.octets()),
            _ => {}
        }
    }
    match Response::read(&writer.finish(super::OUR_HEADER), query, MessageId(0), None) {
        Ok(response) => Supposed::Answer(Box::new(response)),
        Err(_) => Supposed::Unknown,
    }
}

/// How a query or a part of its chain ends.
#[derive(Debug)]
enum Ending {
    /// It gets an answer.
    Answer(Known),
    /// It fails.
    Error(ResolveError),
    /// Only an upstream can tell.
    Open,
}

/// Answer that is known without asking an upstream.
#[derive(Debug)]
struct Known {
    response: Response,
    source: ReplySource,
    reason: Option<Reason>,
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
struct Entry {
    peeked: Peeked,
    response: Response,
    state: EntryState,
}

struct Walk<'a> {
    engine: &'a Engine,
    premise: &'a Premise<'a>,
    now: Moment,
    steps: Vec<document::NameStep>,
}

impl Walk<'_> {
    /// As `handle` does on a hit, and `resolve` else.
    fn answer(&mut self, resolution: &Resolution) -> Ending {
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

    fn remembered(&self, resolution: &Resolution) -> Option<ResolveError> {
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

    fn entry(&self, resolution: &Resolution) -> Option<Entry> {
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

fn of_ending(ending: Ending, explanation: &Explanation) -> ExplainedOutcome {
    match ending {
        Ending::Answer(Known { response, source, reason }) => ExplainedOutcome {
            source: source.label().to_owned(),
            rcode: Some(response.rcode().to_string()),
            ede: reason.as_ref().map(|reason| extended(&reason.ede())),
            answer: records(response.message()),
            words: describe::answered(source, &response, reason.as_ref()),
        },
        Ending::Error(error) => of_code(error.rcode, Some(error.reason.ede())),
        Ending::Open => ExplainedOutcome {
            source: ReplySource::Upstream.label().to_owned(),
            words: describe::open(explanation),
            ..ExplainedOutcome::default()
        },
    }
}

/// A reply without records.
fn of_code(rcode: Rcode, ede: Option<Ede<'_>>) -> ExplainedOutcome {
    let source = if rcode == Rcode::REFUSED { ReplySource::Refused } else { ReplySource::Error };
    let ede = ede.as_ref().map(extended);
    let why = match &ede {
        Some(ede) if ede.text.is_empty() => format!(": {}", ede.meaning),
        Some(ede) => format!(": {}, {}", ede.meaning, ede.text),
        None => String::new(),
    };
    let words = format!("{rcode}{why}");
    ExplainedOutcome {
        source: source.label().to_owned(),
        rcode: Some(rcode.to_string()),
        ede,
        words,
        ..ExplainedOutcome::default()
    }
}

fn extended(error: &Ede<'_>) -> ExtendedError {
    let code = error.code.number();
    ExtendedError { code, meaning: ede::meaning(code).to_owned(), text: error.text.to_owned() }
}

fn one_record(query: &UpstreamQuery, rtype: RecordType, ttl: Ttl, rdata: &[u8]) -> Vec<String> {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    writer.plain(Section::Answer, query.name.as_wire(), rtype, query.qclass, ttl, rdata).ok();
    records(&writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] }))
}
