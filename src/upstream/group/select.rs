//! Which servers to ask for one query, in order.
//!
//! Policy: the tier in use first, then the others in their order; within a tier those that are up before suspect ones,
//! each set by the group's policy; servers that are down last of all, drained ones never, nor those whose answers to the
//! rule would lead back here.
//!
//! Where every server is down, one real query a second is a trial. Two kinds of down are told apart. A server that
//! answers its probes with an error answers at once: the error may be about the probe's name alone (a server that is
//! authoritative for the site's zones refuses ". NS"), so queries are let through. With `expect` nothing is: only a
//! probe shows that a server's answers are private.
//!
//! `fastest` spreads evenly over all whose smoothed RTT is within 1.5 times or 5 ms of the lowest (a server without an
//! RTT counts as one of them, or it would never get one), and puts the others behind by RTT. `spread` takes turns over
//! all. `ordered` keeps the order of the configuration.

use std::sync::Arc;

use crate::{
    clock::Moment,
    upstream::{
        server::{Server, failure::Availability, health::State},
        spec::Policy,
    },
};

use super::{Group, Marks};

/// Servers this much slower than the fastest, in microseconds, still count as fast.
const SLACK: u32 = 5_000;

/// A server to ask, by tier and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) tier: u8,
    pub(crate) place: u8,
    /// What was thought of it when the query began.
    pub(crate) state: State,
}

/// No query asks more servers than this; a group's further ones are left out.
pub const MOST_SERVERS: usize = 16;

/// Servers in the order to ask them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates {
    list: [Candidate; Self::MOST],
    length: usize,
}

impl Candidates {
    pub(crate) const MOST: usize = MOST_SERVERS;

    /// Candidates for a query, or why there are none. Where every server is down, only a trial has candidates.
    pub(crate) fn of(group: &Group, loops: &Marks, now: Moment) -> Result<Self, Availability> {
        let mut candidates =
            Self { list: [Candidate { tier: 0, place: 0, state: State::Down }; Self::MOST], length: 0 };
        let active = group.tier(now);
        let turn = group.turn();
        let others = (0..group.tiers().len()).filter(|&tier| tier != active);
        for tier in std::iter::once(active).chain(others) {
            candidates.add(group, loops, tier, State::Up, turn);
            candidates.add(group, loops, tier, State::Suspect, turn);
        }
        let has_usable = candidates.length > 0;
        if group.health().expect.is_empty() {
            for tier in 0..group.tiers().len() {
                candidates.add(group, loops, tier, State::Down, turn);
            }
        }
        if candidates.length == 0 {
            let mut rest = group.servers().filter(|server| !server.is_drained()).peekable();
            if rest.peek().is_none() {
                return Err(Availability::NoServers);
            }
            return Err(if rest.all(|server| loops.has(server)) { Availability::Loops } else { Availability::AllDown });
        }
        if !has_usable && group.is_down_without(loops) && !group.takes_trial(now) {
            return Err(Availability::AllDown);
        }
        Ok(candidates)
    }

    /// One server alone, for a probe.
    pub(crate) const fn only(tier: u8, place: u8) -> Self {
        Self { list: [Candidate { tier, place, state: State::Up }; Self::MOST], length: 1 }
    }

    pub(crate) fn as_slice(&self) -> &[Candidate] {
        &self.list[..self.length]
    }

    fn add(&mut self, group: &Group, loops: &Marks, tier: usize, state: State, turn: usize) {
        let Some(servers) = group.tiers().get(tier) else { return };
        let start = self.length;
        for (place, server) in servers.iter().enumerate() {
            if self.length == Self::MOST {
                break;
            }
            if server.state() == state && !server.is_drained() && !loops.has(server) {
                let (Ok(tier), Ok(place)) = (u8::try_from(tier), u8::try_from(place)) else { break };
                self.list[self.length] = Candidate { tier, place, state };
                self.length += 1;
            }
        }
        let added = &mut self.list[start..self.length];
        if added.len() < 2 {
            return;
        }
        match group.policy() {
            Policy::Ordered => {}
            Policy::Spread => added.rotate_left(turn % added.len()),
            Policy::Fastest => order_by_speed(added, servers, turn),
        }
    }
}

/// Puts the fast ones first, in turns, the others behind them by their RTT. Each RTT is read once: other workers change
/// it meanwhile.
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
