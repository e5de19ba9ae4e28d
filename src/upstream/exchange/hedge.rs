//! Hedges: one more try to another server, while the newest one is later than usual but may still answer.
//!
//! Policy:
//! - A hedge is sent after the usual tail of the newest try's RTT, to a server of the same tier that is up and was not
//!   asked yet. A server that was asked before is asked again no sooner than any repeat.
//! - The budget bounds what hedging adds. A hedge takes from it, and gives back if the try it was for stays unanswered
//!   up to its limit or fails: then the hedge took the place of a retry. So lost names are asked for again soon,
//!   however many they are, while servers that are only slow do not get double traffic for long. A hedge away from a
//!   suspect server is free.
//! - The last of three or more tries is worth most later, when a short break of the path may be over, or in another
//!   tier. It is used as a hedge only if no other tier has a server that is up and something has arrived from a server
//!   that was asked: then this query was lost, and the path works.
//! - A try that is still open when its query is answered counts against its server at its limit, like any other
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
    /// Plans a hedge for the newest try, if its server's tail is known.
    pub(super) fn plan_hedge(&mut self, now: Moment) {
        self.hedge_at = None;
        let Some(newest) = self.tries.last() else { return };
        let is_wanted = self.race.role == Role::Traffic && self.race.group.limits().hedge_budget.is_some();
        if is_wanted && self.attempts > 0 && self.others(newest.candidate).next().is_some() {
            let tail = newest.link.server.rtt().map(|rtt| rtt.tail() * newest.trips);
            self.hedge_at = tail.filter(|&tail| tail < newest.limit).map(|tail| now + tail);
        }
    }

    /// Sends the planned hedge if it is due.
    pub(super) fn hedge(&mut self, now: Moment) {
        if self.hedge_at.is_none_or(|at| now < at) {
            return;
        }
        self.hedge_at = None;
        let is_waiting = |t: &&Try| t.phase == Phase::Waiting && t.transport == t.link.server.spec().transport;
        // After TC the answer comes over a stream, whose tail is not known.
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
        if self.asked[newest.candidate].candidate.state != HealthState::Up {
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

    /// Hands over the tries that are still under way when the query ends.
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

    /// Another server of the same tier that is up and may be asked now.
    fn another(&self, than: usize, now: Moment) -> Option<usize> {
        let is_ready = |&at: &usize| self.ready_at(at, now).is_some_and(|ready| ready <= now);
        self.others(than).filter(is_ready).min_by_key(|&at| self.asked[at].tries)
    }

    /// The other servers of the same tier that are up.
    fn others(&self, than: usize) -> impl Iterator<Item = usize> {
        let of = |at: usize| &self.asked[at].candidate;
        let is_other = move |&at: &usize| at != than && of(at).tier == of(than).tier && of(at).state == HealthState::Up;
        (0..self.asked.len()).filter(is_other)
    }

    /// Whether a server is up in a tier other than this candidate's.
    fn has_other_tiers(&self, candidate: usize) -> bool {
        let tier = self.asked[candidate].candidate.tier;
        self.asked.iter().any(|other| other.candidate.tier != tier && other.candidate.state == HealthState::Up)
    }

    /// Whether something arrived from a server since it was asked: the path works.
    fn any_heard_since_asked(&self) -> bool {
        self.tries.iter().any(|t| t.link.server.liveness.heard_since(t.sent_at))
    }
}
