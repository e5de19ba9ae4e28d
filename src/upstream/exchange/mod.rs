//! One query to a group: a race of tries until there is an answer, the tries are used up, or the deadline has come.
//!
//! Policy:
//! - A query waits until its deadline, however many tries it had: a name may be slow at its origin, which is not the
//!   server's fault. `attempts` bounds the queries sent, and at most three go to one server (RFC 9520 3.1).
//! - While tries are left, one is always within its limit: the next starts when one fails (SERVFAIL, REFUSED, a lame
//!   referral, garbage, a network error) or passes its limit. NXDOMAIN and NODATA are answers.
//! - The limit is the smoothed RTT plus four deviations, at least 20 ms and at most the group's time-out; 250 ms for a
//!   server that was never measured. After it, a server that was not asked yet gets its turn. The same server is asked
//!   again only once the datagram was likely lost: after 250 ms, then after twice that.
//! - A later tier is reached by another path, and its answer may be for another Region. It is asked only when each
//!   server of the tiers before is down, failed this query, or has been silent for 250 ms, on this query or on all. If
//!   all tries so far stayed unanswered in one tier and another tier has a server that is up, the last try goes there.
//! - A server that is down is asked when nothing else is left.
//! - Before a try's limit another may be sent as a hedge (see `hedge`).
//! - Follow-ups, once per server and not counted in `attempts`: a query answered TC is repeated over TCP, and one
//!   answered FORMERR, NOTIMP or BADVERS is repeated without EDNS, for this query only. A repeat after a closed
//!   connection or a reset stream counts like any try. All of them count in `max_qps`; a server over it is skipped.
//! - While every server is down, a query is a trial: a bounded number at a time, each for two time-outs.

mod follow_up;
mod hedge;
mod spans;
mod turn;

use std::{rc::Rc, sync::Arc, time::Duration};

use smallvec::{SmallVec, smallvec};

use crate::{
    clock::Moment,
    otlp::Span,
    upstream::{
        group::{
            Group, Marks,
            select::{Candidate, Candidates},
        },
        link::{Link, UpstreamClient},
        race::{Arrival, EdnsUse, Leg, Outcome, Race, Rejection, SendError, likeness},
        server::{
            Role, Server,
            failure::{Availability, ExchangeError, Reasons},
            health::ProbeError,
            tally::QueryResult,
        },
    },
    wire::{Rcode, Response, Transport, UpstreamQuery},
};

/// Datagrams of one probe, so that a lost one is not a failed probe.
const PROBE_TRIES: u8 = 3;
/// Least time between a probe's datagrams as a part of the time-out: a short burst of loss does not take them all.
const PROBE_SPACING: u32 = 4;

/// The most times a query is sent to one server over one transport.
const MOST_TO_ONE: u8 = 3;
/// A query unanswered for this long was likely lost: it is sent again, and a later tier may be asked.
const PATIENCE: Duration = Duration::from_millis(250);

/// An answer.
#[derive(Debug)]
pub struct Exchanged {
    /// What was answered: data, NODATA or NXDOMAIN.
    pub response: Response,
    /// The server that answered.
    pub server: Arc<Server>,
    /// The transport of the answer.
    pub transport: Transport,
    /// From the query that was answered to its answer.
    pub rtt: Duration,
    /// When the answer came.
    pub at: Moment,
    /// How many tries there were.
    pub tries: u8,
}

impl UpstreamClient {
    /// Asks a group, without the servers that `loops` marks. Starts at `now` and ends by `deadline`.
    pub async fn exchange(
        &self,
        group: &Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        now: Moment,
        deadline: Moment,
    ) -> Result<Exchanged, ExchangeError> {
        self.exchange_traced(group, loops, query, (now, deadline), None).await
    }

    /// [`UpstreamClient::exchange`] with a span below which each query to a server gets one.
    pub async fn exchange_traced(
        &self,
        group: &Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        (now, deadline): (Moment, Moment),
        span: Option<&Span>,
    ) -> Result<Exchanged, ExchangeError> {
        self.shared.late_tries.borrow_mut().settle(now);
        let _place = group.enter().ok_or(ExchangeError::Overload)?;
        let unavailable = |availability| ExchangeError::AllFailed(Reasons::new(availability));
        let candidates = Candidates::of(group, loops, now).map_err(unavailable)?;
        group.earn_hedge();
        let trial = match candidates.are_all_down() {
            true => Some(group.enter_trial().ok_or_else(|| unavailable(Availability::AllDown))?),
            false => None,
        };
        let deadline = if trial.is_some() { deadline.min(now + group.limits().timeout * 2) } else { deadline };
        let race = Race::new(query, group, Role::Traffic, deadline);
        let mut run = Run::new(self, race, candidates, group.limits().attempts).traced(span);
        run.reasons.was_trial = trial.is_some();
        run.finish(now, deadline).await
    }

    /// Asks one server of a group, given by tier and place; again if a datagram may be lost. The role decides whether the
    /// outcome affects the server's health.
    pub(super) async fn probe(
        &self,
        group: &Arc<Group>,
        (tier, place): (u8, u8),
        query: &Arc<UpstreamQuery>,
        role: Role,
        deadline: Moment,
    ) -> Result<Response, ProbeError> {
        let candidates = Candidates::only(tier, place);
        let race = Race::new(query, group, role, deadline);
        let mut run = Run::new(self, race, candidates, PROBE_TRIES);
        match run.finish(Moment::now(), deadline).await {
            Ok(exchanged) => Ok(exchanged.response),
            Err(ExchangeError::AllFailed(reasons)) if reasons.could_not_send => Err(ProbeError::NotSent),
            Err(ExchangeError::AllFailed(reasons)) if reasons.of(QueryResult::Network) > 0 => Err(ProbeError::Network),
            Err(ExchangeError::AllFailed(reasons)) if reasons.rcode.is_some() => Err(ProbeError::Rcode),
            Err(ExchangeError::AllFailed(reasons)) if reasons.of(QueryResult::Malformed) > 0 => {
                Err(ProbeError::Malformed)
            }
            Err(_) => Err(ProbeError::Silent),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The try is within its limit.
    Waiting,
    /// The try is past its limit; an answer still wins.
    Late,
    /// The try has ended.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The first try, or a retry.
    Turn,
    /// A hedge, sent before another try's limit.
    Hedge,
}

struct Try {
    link: Rc<Link>,
    candidate: usize,
    leg: u32,
    cause: Cause,
    transport: Transport,
    edns: EdnsUse,
    phase: Phase,
    sent_at: Moment,
    limit: Duration,
    /// Round trips until an answer, with those of a handshake.
    trips: u32,
    /// Whether the query was repeated without EDNS.
    is_plain: bool,
    /// Whether it only checks who changed the letter case: the server or a forger.
    is_check: bool,
    /// Whether a hedge was sent for it, out of the budget.
    is_hedged: bool,
    /// The span of its newest leg.
    span: Option<Span>,
}

impl Try {
    /// Extends the limit for a handshake.
    fn add_handshake(&mut self, ceiling: Duration) {
        self.limit = (self.limit * self.transport.round_trips()).min(ceiling);
    }
}

/// Progress with one candidate server.
#[derive(Debug, Clone, Copy, Default)]
struct CandidateProgress {
    /// Queries sent to it.
    tries: u8,
    first_at: Moment,
    last_at: Moment,
    /// Whether it is out of the race: an unusable response, or over its rate limit.
    is_spent: bool,
    has_asked_stream: bool,
    has_asked_plain: bool,
    /// The likeness of an answer in another letter case.
    changed_case: Option<u64>,
}

struct Run<'a> {
    client: &'a UpstreamClient,
    race: Rc<Race>,
    candidates: Candidates,
    /// By candidate. Few groups have more than four servers, and a query that waits should take little memory.
    asked: SmallVec<[CandidateProgress; 4]>,
    /// Queries that may still be sent.
    attempts: u8,
    tries: SmallVec<[Try; 2]>,
    /// When the next try may start, where it must wait.
    turn_at: Option<Moment>,
    hedge_at: Option<Moment>,
    reasons: Reasons,
    /// The span that those of the tries are below.
    span: Option<Span>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.leave();
        self.race.end();
    }
}

impl<'a> Run<'a> {
    fn new(client: &'a UpstreamClient, race: Rc<Race>, candidates: Candidates, attempts: u8) -> Self {
        Self {
            client,
            race,
            asked: smallvec![CandidateProgress::default(); candidates.as_slice().len()],
            candidates,
            attempts: attempts.max(1),
            tries: SmallVec::new(),
            turn_at: None,
            hedge_at: None,
            reasons: Reasons::new(Availability::Asked),
            span: None,
        }
    }

    async fn finish(&mut self, start: Moment, deadline: Moment) -> Result<Exchanged, ExchangeError> {
        let mut now = start;
        let shared = Rc::clone(&self.client.shared);
        let instant = |at: Moment| shared.instant(at);
        self.keep_one_waiting(now);
        let mut timer = shared.timers.take(self.race.role, instant(self.next_event(deadline)));
        loop {
            let is_over = self.turn_at.is_none() && self.tries.iter().all(|t| t.phase == Phase::Over);
            if is_over || now >= deadline {
                return Err(self.failure());
            }
            timer.set(instant(self.next_event(deadline)));
            let arrival = self.race.next(&mut timer).await;
            now = arrival.as_ref().map_or_else(Moment::now, |arrival| arrival.at.max(now));
            if let Some(arrival) = arrival
                && let Some(exchanged) = self.arrived(arrival, now)
            {
                return Ok(exchanged);
            }
            self.pass_limits(now);
            self.hedge(now);
            self.keep_one_waiting(now);
        }
    }

    /// When to act next if nothing arrives.
    fn next_event(&self, deadline: Moment) -> Moment {
        let limit_of = |t: &Try| (t.phase == Phase::Waiting).then(|| t.sent_at + t.limit);
        self.tries.iter().filter_map(limit_of).chain(self.turn_at).chain(self.hedge_at).fold(deadline, Moment::min)
    }

    fn pass_limits(&mut self, now: Moment) {
        for t in &mut self.tries {
            if t.phase == Phase::Waiting && now >= t.sent_at + t.limit {
                t.phase = Phase::Late;
                t.link.server.late(t.sent_at, now, self.race.role);
            }
        }
    }

    fn keep_one_waiting(&mut self, now: Moment) {
        self.turn_at = None;
        while self.attempts > 0 && !self.tries.iter().any(|t| t.phase == Phase::Waiting) {
            match self.next_candidate(now) {
                Some((at, candidate)) if at <= now => self.start(candidate, Cause::Turn, now),
                Some((at, _)) => {
                    self.turn_at = Some(at);
                    return;
                }
                None => return,
            };
        }
    }

    fn server(&self, candidate: usize) -> &Arc<Server> {
        let Candidate { tier, place, .. } = self.candidates.as_slice()[candidate];
        &self.race.group.tiers()[usize::from(tier)][usize::from(place)]
    }

    /// Takes one query from the server's `max_qps`; probes are exempt.
    fn take_rate(&mut self, candidate: usize, transport: Transport, now: Moment) -> bool {
        let server = self.server(candidate);
        if self.race.role != Role::Traffic || server.budget.take(now) {
            return true;
        }
        server.tally.ended(self.client.shared.stripe, transport, QueryResult::Budget);
        self.asked[candidate].is_spent = true;
        self.reasons.count(QueryResult::Budget);
        false
    }

    /// Starts a try; false if the server is over its budget.
    fn start(&mut self, candidate: usize, cause: Cause, now: Moment) -> bool {
        let server = Arc::clone(self.server(candidate));
        let transport = server.spec().transport;
        if !self.take_rate(candidate, transport, now) {
            return false;
        }
        self.attempts -= 1;
        let asked = &mut self.asked[candidate];
        let times = asked.tries;
        if times == 0 {
            asked.first_at = now;
        }
        asked.tries += 1;
        asked.last_at = now;
        let timeout = self.race.group.limits().timeout;
        let floor = match self.race.role {
            Role::Traffic => Duration::ZERO,
            Role::Probe | Role::Tagged => timeout / PROBE_SPACING,
        };
        let link = self.client.link(&server);
        // A new connection needs a handshake. The limit of a server that was never measured has room for it.
        let is_new = transport != Transport::Udp && server.rtt().is_some() && !link.has_stream();
        let trips = if is_new { transport.round_trips() } else { 1 };
        let is_plain = self.asked[candidate].has_asked_plain || !server.quirks.takes_edns(now);
        self.tries.push(Try {
            link,
            candidate,
            leg: 0,
            cause,
            transport,
            edns: if is_plain { EdnsUse::Without } else { EdnsUse::With },
            phase: Phase::Waiting,
            sent_at: now,
            limit: (floor.max(server.limit(timeout)) * trips * (1 << times.min(4))).min(timeout),
            trips,
            is_plain: false,
            is_check: false,
            is_hedged: false,
            span: None,
        });
        let slot = self.tries.len() - 1;
        self.send(slot, now);
        self.plan_hedge(now);
        true
    }

    /// Sends the try's next leg.
    fn send(&mut self, slot: usize, now: Moment) {
        self.begin_span(slot, now);
        let t = &mut self.tries[slot];
        t.leg += 1;
        t.sent_at = now;
        t.phase = Phase::Waiting;
        let leg = Leg { slot: u8::try_from(slot).unwrap_or(u8::MAX), number: t.leg };
        match t.link.post(&self.race, leg, t.transport, t.edns, now) {
            Ok(()) => {}
            Err(SendError::Network) => self.failed(slot, QueryResult::Network, None),
            Err(SendError::Local) => self.could_not_send(slot),
        }
    }

    /// Handles a query that did not leave this host: it does not count in `attempts`.
    fn could_not_send(&mut self, slot: usize) {
        if self.tries[slot].leg == 1 && !self.tries[slot].is_check {
            self.attempts += 1;
        }
        self.reasons.could_not_send = true;
        self.failed(slot, QueryResult::Network, None);
    }

    fn failed(&mut self, slot: usize, result: QueryResult, rejection: Option<Rejection>) {
        let t = &mut self.tries[slot];
        t.phase = Phase::Over;
        let candidate = t.candidate;
        if t.is_check {
            // Without a response, the answer by datagram may still arrive. With one, that is the server's word.
            if rejection.is_none() {
                return;
            }
            self.tries.iter_mut().filter(|t| t.candidate == candidate).for_each(|t| t.phase = Phase::Over);
        }
        self.asked[candidate].is_spent = true;
        self.reasons.count(result);
        let Some(Rejection { rcode, ede }) = rejection else { return };
        self.reasons.rcode = Some(rcode);
        if let Some(ede) = ede {
            let server = &self.tries[slot].link.server;
            let source = format_args!("upstream {} ({})", server.label(), server.group());
            self.reasons.ede = Some(Arc::new(ede.attributed(source)));
        }
    }

    fn arrived(&mut self, Arrival { leg, outcome, rtt, .. }: Arrival, now: Moment) -> Option<Exchanged> {
        let slot = usize::from(leg.slot);
        let t = self.tries.get(slot).filter(|t| t.leg == leg.number && t.phase != Phase::Over)?;
        t.end_span(&outcome, now);
        let asked = &self.asked[t.candidate];
        match outcome {
            Outcome::Answer(response) => return Some(self.won(slot, response, rtt, now)),
            Outcome::Failed(result, rejection) => self.failed(slot, result, rejection),
            Outcome::Referral => self.failed(slot, QueryResult::Refused, Some(Rcode::NOERROR.into())),
            Outcome::NotSent => self.could_not_send(slot),
            Outcome::Truncated if !asked.has_asked_stream => self.ask_over_tcp(slot, now),
            // Another try is already asking over TCP.
            Outcome::Truncated => self.tries[slot].phase = Phase::Over,
            Outcome::WithoutEdns(rcode) if asked.has_asked_plain => {
                self.failed(slot, QueryResult::Malformed, Some(rcode.into()));
            }
            Outcome::WithoutEdns(_) => self.ask_without_edns(slot, now),
            Outcome::Closed => self.ask_anew(slot, now),
            Outcome::CaseChanged(_) if asked.has_asked_stream => {}
            Outcome::CaseChanged(likeness) => self.check_case(slot, likeness, now),
        }
        None
    }

    fn won(&mut self, slot: usize, response: Response, rtt: Duration, now: Moment) -> Exchanged {
        let t = &mut self.tries[slot];
        t.phase = Phase::Over;
        t.is_hedged = false;
        let server = Arc::clone(&t.link.server);
        if t.is_plain {
            server.quirks.answered_without_edns(&self.race.query.name, now);
        } else if response.has_edns() {
            server.quirks.answered_with_edns();
        }
        if t.transport != Transport::Udp && self.asked[t.candidate].tries > 1 {
            t.link.note_mute(&self.race, t.sent_at, now);
        }
        let is_same = t.is_check && self.asked[t.candidate].changed_case == Some(likeness(&response));
        if is_same && server.quirks.changes_case(now) {
            let (group, server) = (server.group(), server.label());
            tracing::warn!(
                group,
                server,
                "upstream {server} of group {group} changes the letter case of queries: it is asked without mix_case \
                 for an hour"
            );
        }
        if t.cause == Cause::Hedge {
            self.race.group.hedge_won();
        }
        let transport = t.transport;
        let tries = u8::try_from(self.tries.len()).unwrap_or(u8::MAX);
        Exchanged { response, server, transport, rtt, at: now, tries }
    }

    fn failure(&mut self) -> ExchangeError {
        for _ in self.tries.iter().filter(|t| t.phase != Phase::Over) {
            self.reasons.count(QueryResult::Timeout);
        }
        let has_unproven_case = |asked: &CandidateProgress| asked.changed_case.is_some() && !asked.is_spent;
        for candidate in (0..self.asked.len()).filter(|&candidate| has_unproven_case(&self.asked[candidate])) {
            self.server(candidate).case_is_unproven(Moment::now());
        }
        if self.tries.is_empty() && self.reasons.of(QueryResult::Budget) > 0 {
            return ExchangeError::Budget;
        }
        ExchangeError::AllFailed(self.reasons.clone())
    }
}
