//! One query to a group: a race of tries until there is an answer, the tries are used up, or the deadline is there.
//!
//! Policy:
//! - There is always one try within its limit, as long as there are tries left: one starts when another fails (SERVFAIL,
//!   REFUSED, a lame referral, garbage, a network error) or passes its limit. A try that passed its limit still wins
//!   with a late answer, up to the group's time-out. NXDOMAIN and NODATA are answers.
//! - The limit is smoothed RTT and four deviations, 20 ms at the least, the group's time-out at the most; 250 ms for a
//!   server that was never measured; twice that for each time this query already went to the same server.
//! - A try goes to the next candidate that was not asked. When all were, it goes back to those that only were silent. A
//!   server that is down is asked when nothing else is left. The last try leaves the tier, where all before it stayed
//!   unanswered in one tier and another has a server that is up.
//! - Before a try's limit another may be sent as a hedge (see `hedge`).
//! - TC is asked again over TCP at the same server, FORMERR or NOTIMP without OPT (and BADVERS) without EDNS, a query on
//!   a kept stream that the far end closed on a new one: not counted as tries.
//! - A server over its `max_qps` is passed over.

mod hedge;

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
        race::{Arrival, EdnsUse, Leg, Outcome, Race},
        server::{
            Role, Server,
            failure::{Availability, ExchangeError, Reasons},
            health::{ProbeError, State},
            tally::QueryResult,
        },
        spec::Transport,
    },
    wire::{Rcode, Response, UpstreamQuery},
};

/// Datagrams of one probe: a lost one is no failed probe.
const PROBE_TRIES: u8 = 3;
/// They are at least this part of the time-out apart: a short burst of loss does not take them all.
const PROBE_SPACING: u32 = 4;

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
        let candidates = Candidates::of(group, loops, now)
            .map_err(|availability| ExchangeError::AllFailed(Reasons::new(availability)))?;
        group.earn_hedge();
        let mut run = Run::new(self, Race::new(query, group, Role::Traffic), candidates, group.limits().attempts);
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
        let race = Race::new(query, group, role);
        let mut run = Run::new(self, race, candidates, PROBE_TRIES);
        match run.finish(Moment::now(), deadline).await {
            Ok(exchanged) => Ok(exchanged.response),
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
    /// Steps that a try takes once: to a stream, to no EDNS, to a new connection.
    has_asked_plain: bool,
    has_asked_anew: bool,
    /// There is a hedge for it, out of the budget.
    is_hedged: bool,
}

impl Try {
    /// A handshake comes first.
    fn add_handshake(&mut self, ceiling: Duration) {
        self.limit = (self.limit * self.transport.round_trips()).min(ceiling);
    }
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    tries: u8,
    /// It gave an answer that is none, or may not be asked.
    is_spent: bool,
}

struct Run<'a> {
    client: &'a UpstreamClient,
    race: Rc<Race>,
    candidates: Candidates,
    asked: [Asked; Candidates::MOST],
    attempts: u8,
    tries: Vec<Try>,
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
            asked: [Asked::default(); Candidates::MOST],
            attempts: attempts.max(1),
            tries: Vec::with_capacity(2),
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
            if self.tries.iter().all(|t| t.phase == Phase::Over) || now >= deadline {
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
        let timeout = self.race.group.limits().timeout;
        let of = |t: &Try| match t.phase {
            Phase::Waiting => Some(t.sent_at + t.limit),
            Phase::Late => Some(t.sent_at + timeout),
            Phase::Over => None,
        };
        self.tries.iter().filter_map(of).chain(self.hedge_at).fold(deadline, Moment::min)
    }

    fn pass_limits(&mut self, now: Moment) {
        let timeout = self.race.group.limits().timeout;
        for t in &mut self.tries {
            if t.phase == Phase::Waiting && now >= t.sent_at + t.limit {
                t.phase = Phase::Late;
                t.link.server.late(t.sent_at, now, self.race.role);
            }
            if t.phase == Phase::Late && now >= t.sent_at + timeout {
                t.phase = Phase::Over;
                self.reasons.count(QueryResult::Timeout);
            }
        }
    }

    fn keep_one_waiting(&mut self, now: Moment) {
        while !self.tries.iter().any(|t| t.phase == Phase::Waiting) && self.tries.len() < usize::from(self.attempts) {
            let Some(candidate) = self.next_candidate() else { return };
            self.start(candidate, Cause::Turn, now);
        }
    }

    fn next_candidate(&self) -> Option<usize> {
        let all = self.candidates.as_slice();
        let untried = |&at: &usize| self.asked[at].tries == 0 && !self.asked[at].is_spent;
        if let Some(elsewhere) = self.elsewhere()
            && let Some(at) = (0..all.len()).filter(untried).find(|&at| elsewhere(&all[at]))
        {
            return Some(at);
        }
        let silent = |&at: &usize| self.asked[at].tries > 0 && !self.asked[at].is_spent;
        let is_alive = |&at: &usize| all[at].state != State::Down;
        let places = || 0..all.len();
        places()
            .filter(untried)
            .find(is_alive)
            .or_else(|| places().filter(silent).filter(is_alive).min_by_key(|&at| self.asked[at].tries))
            .or_else(|| places().find(untried))
            .or_else(|| places().filter(silent).min_by_key(|&at| self.asked[at].tries))
    }

    /// Whether one try is left.
    fn is_last_next(&self) -> bool {
        self.tries.len() + 1 == usize::from(self.attempts)
    }

    /// For the last try, where all before it stayed unanswered in one tier: servers that are up in others.
    fn elsewhere(&self) -> Option<impl Fn(&Candidate) -> bool + use<>> {
        let all = self.candidates.as_slice();
        let tier = all[self.tries.first()?.candidate].tier;
        let stayed = |t: &Try| all[t.candidate].tier == tier && t.phase == Phase::Late;
        let is_stuck = self.is_last_next() && self.tries.iter().all(stayed);
        is_stuck.then_some(move |candidate: &Candidate| candidate.tier != tier && candidate.state == State::Up)
    }

    /// Sends a try; false where the server's budget has none.
    fn start(&mut self, candidate: usize, cause: Cause, now: Moment) -> bool {
        let group = Arc::clone(&self.race.group);
        let Candidate { tier, place, .. } = self.candidates.as_slice()[candidate];
        let server = &group.tiers()[usize::from(tier)][usize::from(place)];
        if self.race.role == Role::Traffic && !group.take_rate(&server.rate, now) {
            self.asked[candidate].is_spent = true;
            server.tally.ended(self.client.shared.stripe, server.spec().transport, QueryResult::Budget);
            self.reasons.count(QueryResult::Budget);
            return false;
        }
        let times = self.asked[candidate].tries;
        self.asked[candidate].tries += 1;
        let timeout = group.limits().timeout;
        let transport = server.spec().transport;
        let floor = match self.race.role {
            Role::Traffic => Duration::ZERO,
            Role::Probe | Role::Tagged => timeout / PROBE_SPACING,
        };
        let link = self.client.link(server);
        // A handshake comes first. The limit of a server that was never measured has room for it.
        let is_new = transport != Transport::Udp && server.rtt().is_some() && !link.has_stream();
        let trips = if is_new { transport.round_trips() } else { 1 };
        self.tries.push(Try {
            link,
            candidate,
            leg: 0,
            cause,
            transport,
            edns: if server.takes_edns(now) { EdnsUse::With } else { EdnsUse::Without },
            phase: Phase::Waiting,
            sent_at: now,
            limit: (floor.max(server.limit(timeout)) * trips * (1 << times.min(4))).min(timeout),
            trips,
            has_asked_plain: false,
            has_asked_anew: false,
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
        let posted = t.link.post(&self.race, leg, t.transport, t.edns, now);
        if let Err(result) = posted {
            self.failed(slot, result, None);
        }
    }

    fn failed(&mut self, slot: usize, result: QueryResult, rcode: Option<Rcode>) {
        let t = &mut self.tries[slot];
        t.phase = Phase::Over;
        self.asked[t.candidate].is_spent = true;
        self.reasons.count(result);
        self.reasons.rcode = rcode.or(self.reasons.rcode);
    }

    fn arrived(&mut self, Arrival { leg, outcome, rtt, .. }: Arrival, now: Moment) -> Option<Exchanged> {
        let slot = usize::from(leg.slot);
        let t = self.tries.get_mut(slot).filter(|t| t.leg == leg.number && t.phase != Phase::Over)?;
        match outcome {
            Outcome::Answer(response) => return Some(self.won(slot, response, rtt, now)),
            Outcome::Failed(result, rcode) => self.failed(slot, result, rcode),
            Outcome::Truncated => {
                t.transport = Transport::Tcp;
                if !t.link.has_stream() {
                    t.add_handshake(self.race.group.limits().timeout);
                }
                self.send(slot, now);
            }
            Outcome::WithoutEdns if !t.has_asked_plain => {
                t.has_asked_plain = true;
                t.edns = EdnsUse::Without;
                self.send(slot, now);
            }
            Outcome::Closed => self.ask_anew(slot, now),
            Outcome::WithoutEdns => self.failed(slot, QueryResult::Malformed, Some(Rcode::FORMERR)),
        }
        None
    }

    /// The connection carried answers, and was closed: each that does so has brought the query nearer to its turn. The
    /// try has time for one handshake more, whatever their number.
    fn ask_anew(&mut self, slot: usize, now: Moment) {
        let t = &mut self.tries[slot];
        let (sent_at, phase) = (t.sent_at, t.phase);
        if !std::mem::replace(&mut t.has_asked_anew, true) {
            t.add_handshake(self.race.group.limits().timeout);
            return self.send(slot, now);
        }
        self.send(slot, now);
        let t = &mut self.tries[slot];
        if t.phase != Phase::Over {
            (t.sent_at, t.phase) = (sent_at, phase);
        }
    }

    fn won(&mut self, slot: usize, response: Response, rtt: Duration, now: Moment) -> Exchanged {
        let t = &mut self.tries[slot];
        t.phase = Phase::Over;
        t.is_hedged = false;
        if t.has_asked_plain {
            t.link.server.asked_without_edns(now);
        }
        if t.cause == Cause::Hedge {
            self.race.group.hedge_won();
        }
        let (server, transport) = (Arc::clone(&t.link.server), t.transport);
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
