//! Tries that outlive their question: what their servers make of them still counts.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use crate::{
    clock::Moment,
    upstream::server::{Role, Server},
};

use super::Race;

/// A try that its question no longer waits for, until its limit.
pub(crate) struct Pledge {
    pub(crate) race: Rc<Race>,
    pub(crate) slot: u8,
    pub(crate) server: Arc<Server>,
    pub(crate) sent_at: Moment,
    pub(crate) due: Moment,
    /// Whether there was a hedge for it, out of the budget.
    pub(crate) is_hedged: bool,
}

/// The pledges of one worker, in the order of their making.
#[derive(Default)]
pub(crate) struct Pledges(VecDeque<Pledge>);

impl Pledges {
    pub(crate) fn add(&mut self, pledge: Pledge) {
        self.0.push_back(pledge);
    }

    /// Redeems those whose time has come: what was not answered is held against its server, and its hedge came in place of
    /// a retry.
    pub(crate) fn redeem(&mut self, now: Moment) {
        while self.0.front().is_some_and(|pledge| pledge.due <= now) {
            let Some(pledge) = self.0.pop_front() else { return };
            if pledge.race.has_answer_of(pledge.slot) {
                continue;
            }
            pledge.server.late(pledge.sent_at, now, Role::Traffic);
            if pledge.is_hedged {
                pledge.race.group.return_hedge();
            }
        }
    }
}
