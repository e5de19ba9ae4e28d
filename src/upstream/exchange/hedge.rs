//! Hedges: a further try to another server while the newest one, later than usual, may still answer.
//!
//! Policy:
//! - After the usual tail of the newest try's RTT, to another server of its tier that is up and was not asked yet. One that
//!   was is asked again no sooner than any repeat.
//! - What the budget bounds is what hedging adds. A hedge takes from it, and gives back where the try that it was for
//!   stays unanswered up to its limit or fails: then the hedge came in place of a retry. So names that are lost on the
//!   way are asked for again soon, however many, and servers that are merely slow are not asked twice for long. Away
//!   from a suspect server a hedge is free.
//! - The last try of three or more is worth most later, when a short break of the way may be over, or in another tier.
//!   It is a hedge only where no other tier has a server that is up, and where something came since from a server that
//!   was asked: then it is this query that was lost, and not the way.
//! - A try that is not over when its query has its answer is held against its server at its limit, as any other
//!   ([`crate::upstream::race::late`]). Otherwise hedges would hide a server that went silent.

use std::{rc::Rc, sync::Arc};

use crate::{
    clock::Moment,
    upstream::{
        race::late::LateTry,
        server::{Role, health::HealthState, rtt::LEAST_TAIL},
    },
};

use super::{Cause, Phase, Run, Try};

impl Run<'_> {
    /// Plans a hedge for the newest try, where its server's tail is known.
    pub(super) fn plan_hedge(&mut self, now: Moment) {
        self.hedge_at = None;
        let Some(newest) = self.tries.last() else { return };
        let is_wanted = self.race.role == Role::Traffic && self.race.group.limits().hedge_budget.is_some();
        if is_wanted && self.attempts > 0 {
            let tail = newest.link.server.rtt().map(|rtt| rtt.tail() * newest.trips);
            self.hedge_at = tail.filter(|&tail| tail < newest.limit).map(|tail| now + tail);
        }
    }

    /// Sends the hedge that was planned, if it is time.
    pub(super) fn hedge(&mut self, now: Moment) {
        if self.hedge_at.is_none_or(|at| now < at) {
            return;
        }
        self.hedge_at = None;
        let is_waiting = |t: &&Try| t.phase == Phase::Waiting && t.transport == t.link.server.spec().transport;
        // Behind TC the answer comes over a stream, whose tail is not known.
        let Some(newest) = self.tries.last().filter(is_waiting) else { return };
        let Some(other) = self.another(newest.candidate, now) else { return };
        if self.tries.len() > 1 && self.attempts == 1 {
            if self.has_other_tiers(newest.candidate) {
                return;
            }
            if !self.any_heard_since_asked() {
                self.hedge_at = Some(now + LEAST_TAIL);
                return;
            }
        }
        if self.candidates.as_slice()[newest.candidate].state != HealthState::Up {
            self.start(other, Cause::Turn, now);
            return;
        }
        if !self.race.group.take_hedge() {
            return;
        }
        let hedged = self.tries.len() - 1;
        if self.start(other, Cause::Hedge, now) {
            self.tries[hedged].is_hedged = true;
            self.race.group.hedge_sent();
        } else {
            self.race.group.return_hedge();
        }
    }

    /// What becomes of the tries that are under way when the query ends.
    pub(super) fn leave(&self) {
        for (slot, t) in (0..).zip(&self.tries) {
            if t.phase == Phase::Waiting && self.race.role == Role::Traffic {
                self.client.shared.late_tries.borrow_mut().add(LateTry {
                    race: Rc::clone(&self.race),
                    slot,
                    server: Arc::clone(&t.link.server),
                    sent_at: t.sent_at,
                    due: t.sent_at + t.limit,
                    is_hedged: t.is_hedged,
                });
            } else if t.is_hedged {
                self.race.group.return_hedge();
            }
        }
    }

    /// Another server of the same tier that is up.
    fn another(&self, than: usize, now: Moment) -> Option<usize> {
        let all = self.candidates.as_slice();
        let is_other = |&at: &usize| at != than && all[at].tier == all[than].tier && all[at].state == HealthState::Up;
        let is_ready = |&at: &usize| self.ready_at(at, now).is_some_and(|ready| ready <= now);
        (0..all.len()).filter(is_other).filter(is_ready).min_by_key(|&at| self.asked[at].tries)
    }

    /// Whether a server is up in a tier other than this candidate's.
    fn has_other_tiers(&self, candidate: usize) -> bool {
        let all = self.candidates.as_slice();
        all.iter().any(|other| other.tier != all[candidate].tier && other.state == HealthState::Up)
    }

    /// Whether something came from a server since it was asked: the way is open.
    fn any_heard_since_asked(&self) -> bool {
        self.tries.iter().any(|t| t.link.server.liveness.heard_since(t.sent_at))
    }
}
