//! Turns: which candidate the next try goes to, and when. The policy is in [`super`].

use super::{MOST_TO_ONE, PATIENCE, Phase, Run, Try};
use crate::{
    clock::Moment,
    upstream::{
        group::select::Candidate,
        server::{Role, health::HealthState},
    },
};

impl Run<'_> {
    /// The candidate whose turn is next, and when it may be asked.
    pub(super) fn next_candidate(&self, now: Moment) -> Option<(Moment, usize)> {
        let all = &self.asked;
        let of = |is_wanted: &dyn Fn(&Candidate) -> bool| {
            let ready = |at: usize| Some((self.ready_at(at, now)?.max(now), all[at].tries, at));
            let next = (0..all.len()).filter(|&at| is_wanted(&all[at].candidate)).filter_map(ready).min();
            next.map(|(ready, _, at)| (ready, at))
        };
        self.elsewhere()
            .and_then(|elsewhere| of(&elsewhere))
            .or_else(|| of(&|candidate| candidate.state != HealthState::Down))
            .or_else(|| of(&|candidate| candidate.state == HealthState::Down))
    }

    /// When a candidate may be asked; none if no longer for this query.
    pub(super) fn ready_at(&self, candidate: usize, now: Moment) -> Option<Moment> {
        let asked = &self.asked[candidate];
        if asked.is_spent || asked.tries >= MOST_TO_ONE {
            return None;
        }
        let again = match (asked.tries, self.race.role) {
            (0, _) => now,
            (tries, Role::Traffic) => asked.last_at + PATIENCE * (1 << (tries - 1)),
            // A probe's queries are spread by their limits.
            (_, Role::Probe | Role::Tagged) => now,
        };
        Some(again.max(self.tier_opens_at(candidate, now)?))
    }

    /// When the earlier tiers leave the query to a candidate's; none while one of their servers has yet to be asked.
    fn tier_opens_at(&self, candidate: usize, now: Moment) -> Option<Moment> {
        let tier = self.asked[candidate].candidate.tier;
        let mut opens = now;
        for (at, asked) in self.asked.iter().enumerate().take(candidate) {
            let before = &asked.candidate;
            if before.tier == tier || before.state == HealthState::Down || asked.is_spent {
                continue;
            }
            if self.server(at).liveness.is_silent_for(PATIENCE, now) {
                continue;
            }
            if asked.tries > 0 {
                opens = opens.max(asked.first_at + PATIENCE);
            } else if self.attempts > 1 {
                return None;
            }
        }
        Some(opens)
    }

    /// For the last try, if all before it stayed unanswered in one tier: the servers of other tiers that are up.
    fn elsewhere(&self) -> Option<impl Fn(&Candidate) -> bool + use<>> {
        let tier_of = |t: &Try| self.asked[t.candidate].candidate.tier;
        let tier = tier_of(self.tries.first()?);
        let stayed = |t: &Try| tier_of(t) == tier && t.phase == Phase::Late;
        let is_stuck = self.attempts == 1 && self.tries.iter().all(stayed);
        is_stuck.then_some(move |candidate: &Candidate| candidate.tier != tier && candidate.state == HealthState::Up)
    }
}
