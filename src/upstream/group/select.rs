//! Selects which servers to ask for one query, in order.
//!
//! Policy: the tier in use first, then the other tiers in order. Within a tier, servers that are up come before suspect
//! ones, each set ordered by the group's policy; a server that this host has no path to counts as suspect. Servers that
//! are down come last of all. Drained servers are never asked, nor those whose queries for the rule would loop back
//! here.
//!
//! If every server is down, a query is a trial: a bounded number at a time go out, and the first answer ends the
//! outage. With `expect` there are no trials, since only a probe shows that a server's answers are private.
//!
//! A server's state is read once per query. Other workers may change it meanwhile, and a server must not be missed
//! because it was suspect at the first look and up at the second.
//!
//! `fastest` spreads evenly over all servers whose smoothed RTT is within 1.5 times or 5 ms of the lowest (one without
//! an RTT counts as fast, or it would never get one), and orders the others by RTT. `spread` takes turns over all.
//! `ordered` keeps the order of the configuration.

use std::sync::Arc;

use crate::{
    clock::Moment,
    upstream::{
        server::{Server, failure::Availability, health::HealthState},
        spec::Policy,
    },
};

use super::{Group, Marks};

/// Servers this much slower than the fastest, in microseconds, still count as fast.
const SLACK: u32 = 5_000;

/// A candidate server, by tier and its place in the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) tier: u8,
    pub(crate) place: u8,
    /// The server's health when the query began.
    pub(crate) state: HealthState,
}

/// The most servers of a group, and so of one query.
pub use crate::config::MAX_SERVERS;

/// Servers in the order to ask them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates {
    list: [Candidate; Self::MOST],
    length: usize,
}

impl Candidates {
    pub(crate) const MOST: usize = MAX_SERVERS;

    /// The candidates for a query, or why there are none.
    pub(crate) fn of(group: &Group, loops: &Marks, now: Moment) -> Result<Self, Availability> {
        Self::with_turn(group, loops, now, || group.turn())
    }

    /// Like [`Self::of`], with the turn passed in.
    pub(super) fn with_turn(
        group: &Group,
        loops: &Marks,
        now: Moment,
        turn: impl FnOnce() -> usize,
    ) -> Result<Self, Availability> {
        let seen = Self::look(group, loops)?;
        let mut candidates = Self { length: 0, ..seen };
        let active = group.tier(now);
        let turn = turn();
        let others = (0..group.tiers().len()).filter(|&tier| tier != active);
        for tier in std::iter::once(active).chain(others) {
            candidates.add(&seen, group, tier, HealthState::Up, turn);
            candidates.add(&seen, group, tier, HealthState::Suspect, turn);
        }
        if group.health().expect.is_empty() {
            for tier in 0..group.tiers().len() {
                candidates.add(&seen, group, tier, HealthState::Down, turn);
            }
        }
        if candidates.length == 0 { Err(Availability::AllDown) } else { Ok(candidates) }
    }

    /// The servers that may be asked, each with its current state.
    fn look(group: &Group, loops: &Marks) -> Result<Self, Availability> {
        let mut seen =
            Self { list: [Candidate { tier: 0, place: 0, state: HealthState::Down }; Self::MOST], length: 0 };
        let mut availability = Availability::NoServers;
        for ((tier, place), server) in group.places().filter(|(_, server)| !server.is_drained()) {
            if loops.has(server) {
                availability = Availability::Loops;
            } else if let Some(candidate) = seen.list.get_mut(seen.length) {
                let state =
                    if server.has_no_path() { HealthState::Suspect.max(server.state()) } else { server.state() };
                *candidate = Candidate { tier, place, state };
                seen.length += 1;
            }
        }
        if seen.length == 0 { Err(availability) } else { Ok(seen) }
    }

    /// A single server, for a probe.
    pub(crate) const fn only(tier: u8, place: u8) -> Self {
        Self { list: [Candidate { tier, place, state: HealthState::Up }; Self::MOST], length: 1 }
    }

    pub(crate) fn as_slice(&self) -> &[Candidate] {
        &self.list[..self.length]
    }

    /// Whether every candidate is down.
    pub(crate) fn are_all_down(&self) -> bool {
        self.as_slice().iter().all(|candidate| candidate.state == HealthState::Down)
    }

    fn add(&mut self, seen: &Self, group: &Group, tier: usize, state: HealthState, turn: usize) {
        let start = self.length;
        let of = |candidate: &&Candidate| usize::from(candidate.tier) == tier && candidate.state == state;
        for candidate in seen.as_slice().iter().filter(of) {
            self.list[self.length] = *candidate;
            self.length += 1;
        }
        let added = &mut self.list[start..self.length];
        if added.len() < 2 {
            return;
        }
        match group.policy() {
            Policy::Ordered => {}
            Policy::Spread => added.rotate_left(turn % added.len()),
            Policy::Fastest => order_by_speed(added, &group.tiers()[tier], turn),
        }
    }
}

/// Puts the fast servers first, in turns, and the others behind them by RTT. Each RTT is read once: other workers may
/// change it meanwhile.
fn order_by_speed(added: &mut [Candidate], servers: &[Arc<Server>], turn: usize) {
    let mut timed = [(0, added[0]); Candidates::MOST];
    let timed = &mut timed[..added.len()];
    for (slot, candidate) in timed.iter_mut().zip(&*added) {
        // A server without an RTT counts as the fastest.
        *slot = (servers[usize::from(candidate.place)].rtt().map_or(0, |rtt| rtt.mean), *candidate);
    }
    let lowest = timed.iter().map(|(mean, _)| *mean).filter(|&mean| mean > 0).min().unwrap_or(0);
    let bound = (lowest + lowest / 2).max(lowest + SLACK);
    for (mean, _) in timed.iter_mut().filter(|(mean, _)| *mean <= bound) {
        *mean = 0;
    }
    timed.sort_by_key(|(mean, _)| *mean);
    let fast = timed.iter().filter(|(mean, _)| *mean == 0).count().max(1);
    timed[..fast].rotate_left(turn % fast);
    for (place, (_, candidate)) in added.iter_mut().zip(timed) {
        *place = *candidate;
    }
}

#[cfg(test)]
mod tests;
