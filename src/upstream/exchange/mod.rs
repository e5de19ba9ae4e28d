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
mod outcome;
mod spans;
mod turn;

use std::{
    num::NonZeroU64,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use smallvec::SmallVec;

use crate::{
    clock::Moment,
    otlp::Span,
    upstream::{
        group::{
            Group, Marks, QueueSlot, TrialPermit,
            select::{Candidate, Candidates},
        },
        link::{Link, UpstreamClient},
        race::{EdnsUse, Leg, Race, SendError},
        server::{
            Role, Server,
            failure::{Availability, ExchangeError, Reasons},
            health::ProbeError,
            tally::QueryResult,
        },
    },
    wire::{Response, Transport, UpstreamQuery},
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
    pub fn exchange<'a>(
        &'a self,
        group: &'a Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        now: Moment,
        deadline: Moment,
    ) -> Exchange<'a> {
        self.exchange_traced(group, loops, query, (now, deadline), None)
    }

    /// [`UpstreamClient::exchange`] with a span below which each query to a server gets one.
    pub fn exchange_traced<'a>(
        &'a self,
        group: &'a Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        (now, deadline): (Moment, Moment),
        span: Option<&Span>,
    ) -> Exchange<'a> {
        Exchange(self.begin(group, loops, query, (now, deadline), span))
    }

    fn begin<'a>(
        &'a self,
        group: &'a Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        (now, deadline): (Moment, Moment),
        span: Option<&Span>,
    ) -> Result<Run<'a>, ExchangeError> {
        self.shared.late_tries.borrow_mut().settle(now);
        let place = group.enter().ok_or(ExchangeError::Overload)?;
        let unavailable = |availability| ExchangeError::AllFailed(Reasons::new(availability));
        let candidates = Candidates::of(group, loops, now).map_err(unavailable)?;
        group.earn_hedge();
        let trial = match candidates.are_all_down() {
            true => Some(group.enter_trial().ok_or_else(|| unavailable(Availability::AllDown))?),
            false => None,
        };
        let deadline = if trial.is_some() { deadline.min(now + group.limits().timeout * 2) } else { deadline };
        let race = Race::new(query, group, Role::Traffic, deadline);
        let mut run = Run::new(self, race, &candidates, group.limits().attempts);
        run.reasons.was_trial = trial.is_some();
        (run.place, run.trial, run.span) = (Some(place), trial, span.cloned());
        run.act(now).map(|()| run)
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
        let race = Race::new(query, group, role, deadline);
        let mut run = Run::new(self, race, &Candidates::only(tier, place), PROBE_TRIES);
        match Exchange(run.act(Moment::now()).map(|()| run)).await {
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
#[derive(Debug, Clone, Copy)]
struct CandidateProgress {
    candidate: Candidate,
    /// Queries sent to it.
    tries: u8,
    first_at: Moment,
    last_at: Moment,
    /// Whether it is out of the race: an unusable response, or over its rate limit.
    is_spent: bool,
    has_asked_stream: bool,
    has_asked_plain: bool,
    /// The likeness of an answer in another letter case.
    changed_case: Option<NonZeroU64>,
}

impl CandidateProgress {
    fn of(candidate: &Candidate) -> Self {
        Self {
            candidate: *candidate,
            tries: 0,
            first_at: Moment::default(),
            last_at: Moment::default(),
            is_spent: false,
            has_asked_stream: false,
            has_asked_plain: false,
            changed_case: None,
        }
    }
}

/// A query to a group that has been sent, or why it was not. A future by hand: an `async` function would keep arguments
/// and what they become side by side, and a query that waits should take little memory.
#[must_use = "it does nothing further unless it is awaited"]
pub struct Exchange<'a>(Result<Run<'a>, ExchangeError>);

impl Future for Exchange<'_> {
    type Output = Result<Exchanged, ExchangeError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Ok(run) => Pin::new(run).poll(task),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

struct Run<'a> {
    client: &'a UpstreamClient,
    race: Rc<Race>,
    /// When it last acted.
    now: Moment,
    place: Option<QueueSlot<'a>>,
    trial: Option<TrialPermit<'a>>,
    /// In the order to ask them. Few groups have more than four servers, and a query that waits should take little memory.
    asked: SmallVec<[CandidateProgress; 4]>,
    /// Queries that may still be sent.
    attempts: u8,
    /// Nearly always one.
    tries: SmallVec<[Try; 1]>,
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
        self.client.shared.deadlines.remove(&self.race);
        self.race.end();
    }
}

impl Future for Run<'_> {
    type Output = Result<Exchanged, ExchangeError>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let run = self.get_mut();
        loop {
            let arrival = ready!(run.race.poll_next(task));
            let now = arrival.as_ref().map_or_else(Moment::now, |arrival| arrival.at.max(run.now));
            if let Some(arrival) = arrival
                && let Some(exchanged) = run.arrived(arrival, now)
            {
                return Poll::Ready(Ok(exchanged));
            }
            if let Err(error) = run.act(now) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl<'a> Run<'a> {
    fn new(client: &'a UpstreamClient, race: Rc<Race>, candidates: &Candidates, attempts: u8) -> Self {
        Self {
            client,
            now: Moment::default(),
            race,
            place: None,
            trial: None,
            asked: candidates.as_slice().iter().map(CandidateProgress::of).collect(),
            attempts: attempts.max(1),
            tries: SmallVec::new(),
            turn_at: None,
            hedge_at: None,
            reasons: Reasons::new(Availability::Asked),
            span: None,
        }
    }

    /// Does what is due, and sets the time to act next; why there is no answer, if nothing is left to do.
    fn act(&mut self, now: Moment) -> Result<(), ExchangeError> {
        self.pass_limits(now);
        self.hedge(now);
        self.keep_one_waiting(now);
        let is_over = self.turn_at.is_none() && self.tries.iter().all(|t| t.phase == Phase::Over);
        if is_over || now >= self.race.deadline {
            return Err(self.failure());
        }
        self.now = now;
        self.client.shared.deadlines.set(&self.race, self.next_event(), now);
        Ok(())
    }

    /// When to act next if nothing arrives.
    fn next_event(&self) -> Moment {
        let limit_of = |t: &Try| (t.phase == Phase::Waiting).then(|| t.sent_at + t.limit);
        let tries = self.tries.iter().filter_map(limit_of);
        tries.chain(self.turn_at).chain(self.hedge_at).fold(self.race.deadline, Moment::min)
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
        let Candidate { tier, place, .. } = self.asked[candidate].candidate;
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
}
