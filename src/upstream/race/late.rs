//! Tries that outlive their query: their results still count for the servers.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use crate::{
    clock::Moment,
    upstream::server::{Role, Server},
};

use super::Race;

/// A try whose query has ended, kept until its limit.
pub(crate) struct LateTry {
    pub(crate) race: Rc<Race>,
    pub(crate) slot: u8,
    pub(crate) server: Arc<Server>,
    pub(crate) sent_at: Moment,
    pub(crate) due: Moment,
    /// Whether a hedge was sent for it, out of the budget.
    pub(crate) is_hedged: bool,
}

/// The late tries of one worker, in the order they were sent.
#[derive(Default)]
pub(crate) struct LateTries(VecDeque<LateTry>);

impl LateTries {
    pub(crate) fn add(&mut self, late_try: LateTry) {
        self.0.push_back(late_try);
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Settles the tries that are past their limit: an unanswered one counts against its server, and its hedge took the
    /// place of a retry.
    pub(crate) fn settle(&mut self, now: Moment) {
        while self.0.front().is_some_and(|late_try| late_try.due <= now) {
            let Some(late_try) = self.0.pop_front() else { return };
            if late_try.race.has_answer_of(late_try.slot) {
                continue;
            }
            late_try.server.late(late_try.sent_at, now, Role::Traffic);
            if late_try.is_hedged {
                late_try.race.group.return_hedge();
            }
        }
    }
}
