//! What becomes of a try: its answer, or why it has none.

use std::{sync::Arc, time::Duration};

use super::{CandidateProgress, Cause, ExchangeError, Exchanged, Phase, Run};
use crate::{
    clock::Moment,
    upstream::{
        race::{Arrival, Outcome, Rejection, likeness},
        server::tally::QueryResult,
    },
    wire::{Rcode, Response, Transport},
};

impl Run<'_> {
    /// Handles a query that did not leave this host: it does not count in `attempts`.
    pub(super) fn could_not_send(&mut self, slot: usize) {
        if self.tries[slot].leg == 1 && !self.tries[slot].is_check {
            self.attempts += 1;
        }
        self.reasons.could_not_send = true;
        self.failed(slot, QueryResult::Network, None);
    }

    pub(super) fn failed(&mut self, slot: usize, result: QueryResult, rejection: Option<Rejection>) {
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

    pub(super) fn arrived(&mut self, Arrival { leg, outcome, rtt, .. }: Arrival, now: Moment) -> Option<Exchanged> {
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

    pub(super) fn failure(&mut self) -> ExchangeError {
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
