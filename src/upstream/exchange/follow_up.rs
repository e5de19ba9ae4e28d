//! Follow-up queries of one try to the same server: over TCP, without EDNS, or on a new connection.

use std::{num::NonZeroU64, rc::Rc};

use super::{Cause, MOST_TO_ONE, Phase, Run, Try};
use crate::{
    clock::Moment,
    upstream::{race::EdnsUse, server::tally::QueryResult},
    wire::Transport,
};

impl Run<'_> {
    pub(super) fn ask_over_tcp(&mut self, slot: usize, now: Moment) {
        let t = &mut self.tries[slot];
        let candidate = t.candidate;
        t.transport = Transport::Tcp;
        if !t.link.has_stream() {
            t.add_handshake(self.race.group.limits().timeout);
        }
        self.asked[candidate].has_asked_stream = true;
        self.repeat(slot, now);
    }

    /// Repeats the query over TCP, where nobody can forge, to learn whether the server changed the letter case.
    pub(super) fn check_case(&mut self, slot: usize, likeness: NonZeroU64, now: Moment) {
        let candidate = self.tries[slot].candidate;
        let asked = &mut self.asked[candidate];
        (asked.has_asked_stream, asked.changed_case) = (true, Some(likeness));
        let was_spent = asked.is_spent;
        if !self.take_rate(candidate, Transport::Tcp, now) {
            self.asked[candidate].is_spent = was_spent;
            return;
        }
        let t = &self.tries[slot];
        let mut check = Try {
            link: Rc::clone(&t.link),
            candidate,
            leg: 0,
            cause: Cause::Turn,
            transport: Transport::Tcp,
            edns: t.edns,
            phase: Phase::Waiting,
            sent_at: now,
            limit: t.limit,
            trips: 1,
            is_plain: false,
            is_check: true,
            is_hedged: false,
            span: None,
        };
        check.add_handshake(self.race.group.limits().timeout);
        self.tries.push(check);
        self.send(self.tries.len() - 1, now);
    }

    pub(super) fn ask_without_edns(&mut self, slot: usize, now: Moment) {
        let t = &mut self.tries[slot];
        (t.edns, t.is_plain) = (EdnsUse::Without, true);
        self.asked[t.candidate].has_asked_plain = true;
        self.repeat(slot, now);
    }

    /// Repeats a query whose connection was closed or stream reset. It counts like any other try.
    pub(super) fn ask_anew(&mut self, slot: usize, now: Moment) {
        let asked = &mut self.asked[self.tries[slot].candidate];
        if self.attempts == 0 || asked.tries >= MOST_TO_ONE {
            return self.failed(slot, QueryResult::Network, None);
        }
        asked.tries += 1;
        asked.last_at = now;
        self.attempts -= 1;
        self.tries[slot].add_handshake(self.race.group.limits().timeout);
        self.repeat(slot, now);
    }

    /// Sends the try's next leg, unless the server is over its budget.
    fn repeat(&mut self, slot: usize, now: Moment) {
        let (candidate, transport) = (self.tries[slot].candidate, self.tries[slot].transport);
        if self.take_rate(candidate, transport, now) {
            self.send(slot, now);
        } else {
            self.tries[slot].phase = Phase::Over;
        }
    }
}
