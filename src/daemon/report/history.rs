//! The last hour: queries and the state of servers by the minute, and changes of state.
//!
//! The main thread samples every second. What comes and goes between two samples is missed here, but counted in
//! metrics. Everything is bounded: 60 minutes, [`EVENTS`] changes, the servers of the configuration in force.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use parking_lot::Mutex;

use super::{
    Report,
    findings::{self, LOCAL_FILE},
};
use crate::{
    admin::status::{EventStatus, Finding, GroupStatus, MinuteStatus, ServerMinuteStatus, ServerStatus, Severity},
    clock::{self, Moment},
    metrics::ReplySource,
    net::changes::NetworkChange,
    wire::Transport,
};

/// Minutes that are kept.
const MINUTES: usize = 60;
/// Changes that are kept.
const EVENTS: usize = 50;
/// Seconds within which changes of the network make one event: a link that comes up changes addresses and routes too.
const NETWORK_BURST: u64 = 60;
/// The states of a server in [`ServerMinuteStatus`], the worst last.
const STATES: [&str; 4] = ["up", "drained", "suspect", "down"];

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
    /// The minutes of each server, by group and server.
    servers: HashMap<(String, String), VecDeque<ServerMinuteStatus>>,
}

impl Report {
    /// Takes a sample for [`StatusHistory`]. Returns all findings, the worst first.
    pub(in crate::daemon) fn observe(&self, now: Moment) -> Vec<Finding> {
        let groups = self.group_states(now);
        let findings = findings::all(self, &groups, now);
        let wall = clock::wall().as_secs();
        self.history.note(self.totals(), findings.clone(), &groups, wall);
        self.hottest.take(self.registry.workers().iter().map(AsRef::as_ref), wall);
        findings
    }

    fn totals(&self) -> MinuteStatus {
        let registry = &self.registry;
        MinuteStatus {
            at: 0,
            queries: Transport::ALL.iter().map(|&transport| registry.queries(transport)).sum(),
            hits: registry.hits(),
            misses: registry.misses(),
            failed: registry.responses(ReplySource::Error),
            violations: registry.violations(),
        }
    }
}

impl StatusHistory {
    /// Queries by the minute, the oldest minute first.
    pub(super) fn minutes(&self) -> Vec<MinuteStatus> {
        self.0.lock().minutes.iter().copied().collect()
    }

    /// Changes of state, the newest first.
    pub(super) fn events(&self) -> Vec<EventStatus> {
        self.0.lock().events.iter().rev().cloned().collect()
    }

    /// Adds the last hour of each server.
    pub(super) fn fill(&self, groups: &mut [GroupStatus]) {
        let kept = self.0.lock();
        for group in groups {
            for server in group.tiers.iter_mut().flatten() {
                let minutes = kept.servers.get(&(group.name.clone(), server.server.clone()));
                server.history = minutes.into_iter().flatten().cloned().collect();
            }
        }
    }

    /// Notes a reload: what changed, or why it was refused.
    pub(super) fn reloaded(&self, success: bool, lines: &[String], at: u64) {
        let (kind, severity, what) = match success {
            true => ("reload", Severity::Ok, "the configuration was reloaded"),
            false => ("reload-refused", Severity::Warning, "a reload was refused"),
        };
        let why = match lines {
            [] => "; nothing changed".to_owned(),
            [line] => format!(": {line}"),
            [line, more @ ..] => format!(": {line} (and {} more)", more.len()),
        };
        self.0.lock().push(EventStatus { at, kind: kind.to_owned(), severity, text: format!("{what}{why}") });
    }

    /// Notes changes of this host's network.
    pub(super) fn network_changed(&self, changes: &[NetworkChange], at: u64) {
        let mut kept = self.0.lock();
        let is_burst = |last: &EventStatus| last.kind == "network" && at.saturating_sub(last.at) < NETWORK_BURST;
        let burst = if kept.events.back().is_some_and(is_burst) { kept.events.pop_back() } else { None };
        let is_known = |label: &str| burst.as_ref().is_some_and(|burst| burst.text.contains(label));
        let heard = |change: &NetworkChange| changes.contains(change) || is_known(change.label());
        let kinds: Vec<&str> = NetworkChange::ALL.iter().filter(|kind| heard(kind)).map(|kind| kind.label()).collect();
        let text = format!("this host's network changed: {}", kinds.join(", "));
        // The time of the first change: a burst that goes on becomes another event after a while.
        let at = burst.map_or(at, |burst| burst.at);
        kept.push(EventStatus { at, kind: "network".to_owned(), severity: Severity::Note, text });
    }

    fn note(&self, totals: MinuteStatus, findings: Vec<Finding>, groups: &[GroupStatus], wall: u64) {
        let mut kept = self.0.lock();
        let minute = wall - wall % 60;
        kept.count(totals, minute);
        kept.watch(groups, minute);
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
        let before = mem::replace(&mut self.totals, totals);
        if let Some(current) = self.minutes.back_mut() {
            current.queries += totals.queries.saturating_sub(before.queries);
            current.hits += totals.hits.saturating_sub(before.hits);
            current.misses += totals.misses.saturating_sub(before.misses);
            current.failed += totals.failed.saturating_sub(before.failed);
            current.violations += totals.violations.saturating_sub(before.violations);
        }
    }

    /// Notes the state of each server. Servers that a reload removed are forgotten.
    fn watch(&mut self, groups: &[GroupStatus], minute: u64) {
        let mut before = mem::take(&mut self.servers);
        for group in groups {
            for server in group.servers() {
                let key = (group.name.clone(), server.server.clone());
                let mut minutes = before.remove(&key).unwrap_or_default();
                watch_server(&mut minutes, server, minute);
                self.servers.insert(key, minutes);
            }
        }
    }

    fn compare(&mut self, mut findings: Vec<Finding>, at: u64) {
        // Each reload is an event of its own.
        findings.retain(|finding| finding.kind != "reload-refused");
        let is_in = |all: &[Finding], one: &Finding| all.iter().any(|other| is_same(other, one));
        let before = mem::replace(&mut self.findings, findings);
        let event = |finding: &Finding, severity, text| EventStatus { at, kind: finding.kind.clone(), severity, text };
        let over = before.iter().filter(|finding| !is_in(&self.findings, finding));
        let over = over.map(|finding| event(finding, Severity::Ok, format!("over: {}", finding.text)));
        let new = self.findings.iter().filter(|finding| !is_in(&before, finding));
        let new = new.map(|finding| event(finding, finding.severity, finding.text.clone()));
        let events: Vec<EventStatus> = over.chain(new).collect();
        events.into_iter().for_each(|event| self.push(event));
    }

    fn push(&mut self, event: EventStatus) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

fn watch_server(minutes: &mut VecDeque<ServerMinuteStatus>, server: &ServerStatus, minute: u64) {
    if minutes.back().is_none_or(|last| last.at < minute) {
        if minutes.len() == MINUTES {
            minutes.pop_front();
        }
        minutes.push_back(ServerMinuteStatus { at: minute, ..ServerMinuteStatus::default() });
    }
    let Some(current) = minutes.back_mut() else { return };
    let rank = |state: &str| STATES.iter().position(|one| *one == state);
    let state = if server.drained { "drained" } else { &server.state };
    if rank(state) > rank(&current.state) {
        state.clone_into(&mut current.state);
    }
    // NaN loses against every number.
    let highest = server.rtt.unwrap_or(f64::NAN).max(current.rtt.unwrap_or(f64::NAN));
    current.rtt = (!highest.is_nan()).then_some(highest);
}

/// Whether two findings are about the same thing, whatever their words. Which file it is, only the words say.
fn is_same(one: &Finding, other: &Finding) -> bool {
    (&one.kind, &one.group, &one.server) == (&other.kind, &other.group, &other.server)
        && (one.kind != LOCAL_FILE || one.text == other.text)
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
            history.note(totals(second * 3), Vec::new(), &[], 1_000_020 + second);
        }
        let minutes = history.minutes();
        assert_eq!((minutes.len(), minutes[0].at % 60), (60, 0));
        assert!(
            minutes.iter().all(|minute| minute.queries == 180 && minute.hits + minute.misses == 180),
            "{minutes:?}"
        );
        history.note(totals(5), Vec::new(), &[], 50);
        assert_eq!(history.minutes().len(), 60, "neither a clock nor a counter that goes back does harm");
    }

    #[test]
    fn findings_that_come_and_go_are_listed_once_the_newest_first() {
        let history = StatusHistory::default();
        history.note(totals(0), vec![down("one", "no answer")], &[], 100);
        history.note(totals(0), vec![down("one", "nobody listens there"), down("two", "no answer")], &[], 102);
        history.note(totals(0), vec![down("two", "no answer")], &[], 104);
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
            history.note(totals(0), vec![down(&at.to_string(), "no answer")], &[], at);
        }
        assert_eq!(history.events().len(), EVENTS);
    }

    #[test]
    fn a_server_has_its_worst_state_and_highest_round_trip_time_of_each_minute() {
        let history = StatusHistory::default();
        let groups = |state: &str, rtt| {
            let server = ServerStatus { server: "one".into(), state: state.into(), rtt, ..ServerStatus::default() };
            vec![GroupStatus { name: "vpc".into(), tiers: vec![vec![server]], ..GroupStatus::default() }]
        };
        for (at, state, rtt) in
            [(60, "up", Some(0.002)), (62, "down", Some(0.009)), (64, "up", None), (120, "up", Some(0.001))]
        {
            history.note(totals(0), Vec::new(), &groups(state, rtt), at);
        }
        let mut filled = groups("up", None);
        history.fill(&mut filled);
        let minute = |at, rtt, state: &str| ServerMinuteStatus { at, rtt: Some(rtt), state: state.to_owned() };
        assert_eq!(filled[0].tiers[0][0].history, [minute(60, 0.009, "down"), minute(120, 0.001, "up")]);
        for minute in 0..100 {
            history.note(totals(0), Vec::new(), &groups("up", None), 180 + minute * 60);
        }
        history.fill(&mut filled);
        assert_eq!(filled[0].tiers[0][0].history.len(), MINUTES);
        history.note(totals(0), Vec::new(), &[], 10_000);
        history.fill(&mut filled);
        assert!(filled[0].tiers[0][0].history.is_empty(), "a reload has removed it");
    }

    #[test]
    fn reloads_and_bursts_of_network_changes_are_one_event_each() {
        let history = StatusHistory::default();
        let refused = Finding { kind: "reload-refused".into(), ..down("file", "refused") };
        history.reloaded(false, &["no such group".to_owned(), "and more".to_owned()], 10);
        history.note(totals(0), vec![refused], &[], 12);
        history.network_changed(&[NetworkChange::Link], 20);
        history.network_changed(&[NetworkChange::Route, NetworkChange::Link], 21);
        history.network_changed(&[NetworkChange::Address], 90);
        history.reloaded(true, &[], 95);
        let events = history.events();
        let told: Vec<(u64, &str, &str)> =
            events.iter().map(|event| (event.at, event.kind.as_str(), event.text.as_str())).collect();
        assert_eq!(
            told,
            [
                (95, "reload", "the configuration was reloaded; nothing changed"),
                (90, "network", "this host's network changed: addresses"),
                (20, "network", "this host's network changed: links, routes"),
                (10, "reload-refused", "a reload was refused: no such group (and 1 more)"),
            ]
        );
    }
}
