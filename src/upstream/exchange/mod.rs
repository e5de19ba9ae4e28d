//! One query to a group: a race of tries until there is an answer, the tries are used up, or the deadline is there.
//!
//! Policy:
//! - A query is waited for until its deadline, whatever the number of its tries: a name may be slow at its origin, and that
//!   is no fault of the server. `attempts` bounds the queries sent, and at most three go to one server (RFC 9520 3.1).
//! - There is always one try within its limit, as long as there are tries left: one starts when another fails (SERVFAIL,
//!   REFUSED, a lame referral, garbage, a network error) or passes its limit. NXDOMAIN and NODATA are answers.
//! - The limit is smoothed RTT and four deviations, 20 ms at the least, the group's time-out at the most; 250 ms for a
//!   server that was never measured. Then a server that was not asked yet has its turn. The same server is asked again no
//!   sooner than a lost datagram is likely: after 250 ms, then after twice that.
//! - A later tier is another way, whose answer may be another Region's. It is asked only when each server of the tiers
//!   before is down, failed this query, or has been silent for 250 ms, on this query or on all. The last try leaves the
//!   tier, where all before it stayed unanswered in one tier and another has a server that is up.
//! - A server that is down is asked when nothing else is left.
//! - Before a try's limit another may be sent as a hedge (see `hedge`).
//! - Once a server, and not counted in `attempts`: TC is asked again over TCP, and FORMERR, NOTIMP or BADVERS without EDNS,
//!   for this query alone. Counted as any other: a query whose connection was closed, or its stream reset. All of them
//!   count in `max_qps`; a server over it is passed over.
//! - While every server is down, a query is a trial: a bounded number at a time, each for two time-outs.

mod follow_up;
mod hedge;
mod turn;

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use tokio::time::sleep_until;

use crate::{
    clock::Moment,
    upstream::{
        group::{
            Group, Marks,
            select::{Candidate, Candidates},
        },
        link::{Link, UpstreamClient},
        race::{Arrival, EdnsUse, Leg, Outcome, Race, SendError, likeness},
        server::{
            Role, Server,
            failure::{Availability, ExchangeError, Reasons},
            health::ProbeError,
            tally::QueryResult,
        },
    },
    wire::{Rcode, Response, Transport, UpstreamQuery},
};

/// Datagrams of one probe: a lost one is no failed probe.
const PROBE_TRIES: u8 = 3;
/// They are at least this part of the time-out apart: a short burst of loss does not take them all.
const PROBE_SPACING: u32 = 4;

/// No query is sent to one server more often over one transport.
const MOST_TO_ONE: u8 = 3;
/// A query unanswered for so long was likely lost: it is sent again, and a later tier may have it.
const PATIENCE: Duration = Duration::from_millis(250);

/// An answer.
#[derive(Debug)]
pub struct Exchanged {
    /// What was answered: data, NODATA or NXDOMAIN.
    pub response: Response,
    /// Who answered.
    pub server: Arc<Server>,
    /// What carried the answer.
    pub transport: Transport,
    /// From the query that was answered to its answer.
    pub rtt: Duration,
    /// When the answer came.
    pub at: Moment,
    /// How many tries there were.
    pub tries: u8,
}

impl UpstreamClient {
    /// Asks a group, but for the servers that `loops` marks, beginning `now`. Ends by `deadline`.
    pub async fn exchange(
        &self,
        group: &Arc<Group>,
        loops: &Marks,
        query: &Arc<UpstreamQuery>,
        now: Moment,
        deadline: Moment,
    ) -> Result<Exchanged, ExchangeError> {
        self.shared.late_tries.borrow_mut().settle(now);
        let _place = group.enter().ok_or(ExchangeError::Overload)?;
        let unavailable = |availability| ExchangeError::AllFailed(Reasons::new(availability));
        let candidates = Candidates::of(group, loops, now).map_err(unavailable)?;
        group.earn_hedge();
        if !candidates.are_all_down() {
            let race = Race::new(query, group, Role::Traffic, deadline);
            return Run::new(self, race, candidates, group.limits().attempts).finish(now, deadline).await;
        }
        let _trial = group.enter_trial().ok_or_else(|| unavailable(Availability::AllDown))?;
        let deadline = deadline.min(now + group.limits().timeout * 2);
        let race = Race::new(query, group, Role::Traffic, deadline);
        let mut run = Run::new(self, race, candidates, group.limits().attempts);
        run.reasons.was_trial = true;
        run.finish(now, deadline).await
    }

    /// Asks one server of a group, given by tier and place, and once more when a datagram may be lost. The role says
    /// whether the outcome has an effect on what is thought of the server.
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
    /// Within its limit.
    Waiting,
    /// Past it; an answer still wins.
    Late,
    /// It has ended.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The first, or a retry.
    Turn,
    /// Before the other's limit.
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
    /// Round trips until an answer: a handshake comes first.
    trips: u32,
    /// Whether it was asked again without EDNS.
    is_plain: bool,
    /// Whether it only shows who changed the letter case: its server, or a forger.
    is_check: bool,
    /// Whether there is a hedge for it, out of the budget.
    is_hedged: bool,
}

impl Try {
    /// A handshake comes first.
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
    asked: [CandidateProgress; Candidates::MOST],
    /// Queries that may still be sent.
    attempts: u8,
    tries: Vec<Try>,
    /// When the next try may start, where it must wait.
    turn_at: Option<Moment>,
    hedge_at: Option<Moment>,
    reasons: Reasons,
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
            candidates,
            asked: [CandidateProgress::default(); Candidates::MOST],
            attempts: attempts.max(1),
            tries: Vec::with_capacity(2),
            turn_at: None,
            hedge_at: None,
            reasons: Reasons::new(Availability::Asked),
        }
    }

    async fn finish(&mut self, start: Moment, deadline: Moment) -> Result<Exchanged, ExchangeError> {
        let mut now = start;
        let shared = Rc::clone(&self.client.shared);
        let instant = |at: Moment| shared.instant(at);
        self.keep_one_waiting(now);
        let mut sleep = pin!(sleep_until(instant(self.next_event(deadline))));
        loop {
            let is_over = self.turn_at.is_none() && self.tries.iter().all(|t| t.phase == Phase::Over);
            if is_over || now >= deadline {
                return Err(self.failure());
            }
            let next = instant(self.next_event(deadline));
            if sleep.deadline() != next {
                sleep.as_mut().reset(next);
            }
            let arrival = self.race.next(&mut sleep).await;
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

    /// When something is to be done though nothing arrives.
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

    /// Takes one query out of the server's `max_qps`; probes are not held to it.
    fn take_rate(&mut self, candidate: usize, transport: Transport, now: Moment) -> bool {
        let server = Arc::clone(self.server(candidate));
        if self.race.role != Role::Traffic || server.budget.take(now) {
            return true;
        }
        self.asked[candidate].is_spent = true;
        server.tally.ended(self.client.shared.stripe, transport, QueryResult::Budget);
        self.reasons.count(QueryResult::Budget);
        false
    }

    /// Sends a try; false where the server's budget has none.
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
        // A handshake comes first. The limit of a server that was never measured has room for it.
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
        });
        let slot = self.tries.len() - 1;
        self.send(slot, now);
        self.plan_hedge(now);
        true
    }

    /// Sends the try's next leg.
    fn send(&mut self, slot: usize, now: Moment) {
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

    /// A query did not leave this host: it counts in no bound on what is sent.
    fn could_not_send(&mut self, slot: usize) {
        if self.tries[slot].leg == 1 && !self.tries[slot].is_check {
            self.attempts += 1;
        }
        self.reasons.could_not_send = true;
        self.failed(slot, QueryResult::Network, None);
    }

    fn failed(&mut self, slot: usize, result: QueryResult, rcode: Option<Rcode>) {
        let t = &mut self.tries[slot];
        t.phase = Phase::Over;
        if t.is_check {
            // The answer by datagram may still come.
            return;
        }
        self.asked[t.candidate].is_spent = true;
        self.reasons.count(result);
        self.reasons.rcode = rcode.or(self.reasons.rcode);
    }

    fn arrived(&mut self, Arrival { leg, outcome, rtt, .. }: Arrival, now: Moment) -> Option<Exchanged> {
        let slot = usize::from(leg.slot);
        let t = self.tries.get(slot).filter(|t| t.leg == leg.number && t.phase != Phase::Over)?;
        let asked = &self.asked[t.candidate];
        match outcome {
            Outcome::Answer(response) => return Some(self.won(slot, response, rtt, now)),
            Outcome::Failed(result, rcode) => self.failed(slot, result, rcode),
            Outcome::Referral => self.failed(slot, QueryResult::Refused, Some(Rcode::NOERROR)),
            Outcome::NotSent => self.could_not_send(slot),
            Outcome::Truncated if !asked.has_asked_stream => self.ask_over_tcp(slot, now),
            // Another try already asks for the whole.
            Outcome::Truncated => self.tries[slot].phase = Phase::Over,
            Outcome::WithoutEdns(rcode) if asked.has_asked_plain => {
                self.failed(slot, QueryResult::Malformed, Some(rcode));
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
        if self.tries.is_empty() && self.reasons.of(QueryResult::Budget) > 0 {
            return ExchangeError::Budget;
        }
        ExchangeError::AllFailed(self.reasons)
    }
}
