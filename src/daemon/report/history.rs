//! The last hour: queries by the minute, and which findings came and went.
//!
//! The control thread samples every two seconds. What comes and goes between two samples is missed here, but counted in
//! metrics. Everything is bounded: 60 minutes, [`EVENTS`] changes.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Report, findings};
use crate::{
    admin::status::{EventStatus, Finding, GroupStatus, MinuteStatus, Severity},
    clock::{self, Moment},
    metrics::{GuardAction, ReplySource},
    wire::Transport,
};

/// Minutes that are kept.
const MINUTES: usize = 60;
/// Changes that are kept.
const EVENTS: usize = 50;

/// The samples, oldest first.
#[derive(Debug, Default)]
pub(super) struct StatusHistory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    minutes: VecDeque<MinuteStatus>,
    events: VecDeque<EventStatus>,
    /// The totals of the last sample.
    totals: MinuteStatus,
    /// The findings of the last sample.
    findings: Vec<Finding>,
}

impl Report {
    /// Takes a sample for [`History`].
    pub(in crate::daemon) fn observe(&self, now: Moment) {
        let groups: Vec<GroupStatus> = self.upstreams(now).groups;
        let findings = findings::all(self, &groups, now);
        self.history.note(self.totals(), findings, clock::wall().as_secs());
    }

    fn totals(&self) -> MinuteStatus {
        let registry = &self.registry;
        let rules = registry.rules().all();
        let violations = |action| rules.iter().map(|(_, rule)| rule.violations(action)).sum::<u64>();
        MinuteStatus {
            at: 0,
            queries: Transport::ALL.iter().map(|&transport| registry.queries(transport)).sum(),
            hits: registry.hits(),
            misses: registry.misses(),
            failed: registry.responses(ReplySource::Error),
            violations: GuardAction::ALL.iter().map(|&action| violations(action)).sum(),
        }
    }
}

impl StatusHistory {
    /// Queries by the minute, the oldest minute first.
    pub(super) fn minutes(&self) -> Vec<MinuteStatus> {
        self.0.lock().minutes.iter().copied().collect()
    }

    /// Findings that came and went, the newest first.
    pub(super) fn events(&self) -> Vec<EventStatus> {
        self.0.lock().events.iter().rev().cloned().collect()
    }

    fn note(&self, totals: MinuteStatus, findings: Vec<Finding>, wall: u64) {
        let mut kept = self.0.lock();
        kept.count(totals, wall - wall % 60);
        kept.compare(findings, wall);
    }
}

impl Kept {
    fn count(&mut self, totals: MinuteStatus, minute: u64) {
        // If the clock was set back, no earlier minute is added.
        if self.minutes.back().is_none_or(|last| last.at < minute) {
            if self.minutes.len() == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(MinuteStatus { at: minute, ..MinuteStatus::default() });
        }
        let before = std::mem::replace(&mut self.totals, totals);
        if let Some(current) = self.minutes.back_mut() {
            // Counters of rules that a reload removed go away with them.
            current.queries += totals.queries.saturating_sub(before.queries);
            current.hits += totals.hits.saturating_sub(before.hits);
            current.misses += totals.misses.saturating_sub(before.misses);
            current.failed += totals.failed.saturating_sub(before.failed);
            current.violations += totals.violations.saturating_sub(before.violations);
        }
    }

    fn compare(&mut self, findings: Vec<Finding>, at: u64) {
        let is_in = |all: &[Finding], one: &Finding| all.iter().any(|other| is_same(other, one));
        let before = std::mem::replace(&mut self.findings, findings);
        let over = before.iter().filter(|finding| !is_in(&self.findings, finding));
        let over =
            over.map(|finding| EventStatus { at, severity: Severity::Ok, text: format!("over: {}", finding.text) });
        let new = self.findings.iter().filter(|finding| !is_in(&before, finding));
        let new = new.map(|finding| EventStatus { at, severity: finding.severity, text: finding.text.clone() });
        let events: Vec<EventStatus> = over.chain(new).collect();
        for event in events {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }
}

/// Whether two findings are about the same thing, whatever their words.
fn is_same(one: &Finding, other: &Finding) -> bool {
    (&one.kind, &one.group, &one.server) == (&other.kind, &other.group, &other.server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(queries: u64) -> MinuteStatus {
        MinuteStatus { queries, hits: queries / 2, misses: queries - queries / 2, ..MinuteStatus::default() }
    }

    fn down(server: &str, why: &str) -> Finding {
        Finding {
            severity: Severity::Warning,
            kind: "server-down".to_owned(),
            group: Some("vpc".to_owned()),
            server: Some(server.to_owned()),
            text: format!("{server} is down: {why}"),
        }
    }

    #[test]
    fn each_minute_has_its_own_queries_and_an_hour_is_kept() {
        let history = StatusHistory::default();
        for second in 0..2 * 3600 {
            history.note(totals(second * 3), Vec::new(), 1_000_020 + second);
        }
        let minutes = history.minutes();
        assert_eq!((minutes.len(), minutes[0].at % 60), (60, 0));
        assert!(
            minutes.iter().all(|minute| minute.queries == 180 && minute.hits + minute.misses == 180),
            "{minutes:?}"
        );
        history.note(totals(5), Vec::new(), 50);
        assert_eq!(history.minutes().len(), 60, "neither a clock nor a counter that goes back does harm");
    }

    #[test]
    fn what_comes_and_goes_is_told_once_the_newest_first() {
        let history = StatusHistory::default();
        history.note(totals(0), vec![down("one", "no answer")], 100);
        history.note(totals(0), vec![down("one", "nobody listens there"), down("two", "no answer")], 102);
        history.note(totals(0), vec![down("two", "no answer")], 104);
        let events = history.events();
        let told: Vec<(u64, Severity, &str)> =
            events.iter().map(|event| (event.at, event.severity, event.text.as_str())).collect();
        assert_eq!(
            told,
            [
                (104, Severity::Ok, "over: one is down: nobody listens there"),
                (102, Severity::Warning, "two is down: no answer"),
                (100, Severity::Warning, "one is down: no answer"),
            ]
        );
        for at in 0..1000 {
            history.note(totals(0), vec![down(&at.to_string(), "no answer")], at);
        }
        assert_eq!(history.events().len(), EVENTS);
    }
}
