//! Findings, in words: everything out of the ordinary, for `tidegate status`, the status page and systemd.
//!
//! Policy:
//! - An error affects clients: a group without a usable server, a local file that cannot be used, a worker that hangs.
//! - A warning needs attention although clients are served: a server that is down, a backup tier in use, a loop, a
//!   name that cannot be resolved, a refused reload, public answers in the last quarter of an hour for names that should
//!   be private.
//! - A note reports something intended or temporary: a drained server, a process about to stop, missing verdicts.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{Report, words};
use crate::{
    admin::status::{Finding, GroupStatus, ServerStatus, Severity},
    clock::Moment,
    perimeter::{Exposure, Violations},
    plural::Plural,
    zones::Zones,
};

/// How long a public answer stays a finding.
const RECENT: Duration = Duration::from_mins(15);

/// The kind of the note about a group whose servers have had no verdict since they were configured.
pub(in crate::daemon) const NO_VERDICT: &str = "no-verdict";

/// The kind of a finding about a zone file or the hosts file.
pub(super) const LOCAL_FILE: &str = "local-file";

/// All findings, the worst first.
pub(super) fn all(report: &Report, groups: &[GroupStatus], now: Moment) -> Vec<Finding> {
    let mut all: Vec<Finding> = groups.iter().flat_map(of_group).collect();
    all.extend(of_process(report, now));
    all.extend(of_local_files(&report.engine.snapshot_owned().zones));
    all.extend(of_reload(report));
    all.extend(of_perimeter(report, now));
    all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    all
}

/// Findings about one group and its servers.
pub(super) fn of_group(group: &GroupStatus) -> Vec<Finding> {
    let about = |severity, kind: &str, text: String| Finding {
        severity,
        kind: kind.to_owned(),
        group: Some(group.name.clone()),
        server: None,
        text,
    };
    let name = &group.name;
    let mut findings = Vec::new();
    if group.servers().next().is_none() {
        findings.push(about(Severity::Error, "group-empty", format!("upstream {name} has no server to ask")));
    } else if group.usable == 0 {
        findings.push(about(Severity::Error, "group-down", format!("upstream {name}: {}", group.words)));
    } else if group.tier > 0 {
        let text = format!("upstream {name} uses its backup tier {}: no server before it is usable", group.tier);
        findings.push(about(Severity::Warning, "tier", text));
    }
    if group.servers().next().is_some() && group.servers().all(|server| !server.judged) {
        findings.push(about(Severity::Note, NO_VERDICT, format!("upstream {name}: its servers are being probed")));
    }
    for of_name in group.names.iter().filter(|of_name| of_name.fault.is_some()) {
        let text = format!("{} of upstream {name}: {}", of_name.name, of_name.words);
        findings.push(about(Severity::Warning, "name", text));
    }
    findings.extend(group.servers().flat_map(|server| of_server(group, server)));
    findings
}

fn of_server(group: &GroupStatus, server: &ServerStatus) -> Vec<Finding> {
    let about = |severity, kind: &str, text: String| Finding {
        severity,
        kind: kind.to_owned(),
        group: Some(group.name.clone()),
        server: Some(server.server.clone()),
        text,
    };
    let subject = format!("upstream {} of group {}", server.server, group.name);
    let mut findings = Vec::new();
    if server.drained {
        findings.push(about(Severity::Note, "drained", format!("{subject} is {}", server.words)));
    } else if words::is_down(server) {
        findings.push(about(Severity::Warning, "server-down", format!("{subject} is {}", server.words)));
    }
    if !server.loops_for.is_empty() {
        let rules = server.loops_for.join(", ");
        let text = format!("{subject} gets no queries of rule {rules}: they come back here");
        findings.push(about(Severity::Warning, "loop", text));
    }
    findings
}

fn of_process(report: &Report, now: Moment) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !report.is_turning(now) {
        findings.push(plain(Severity::Error, "worker", "a worker hangs: queries that reach it wait".to_owned()));
    }
    if report.is_draining.load(Relaxed) {
        findings.push(plain(Severity::Note, "draining", "the process is about to stop".to_owned()));
    }
    findings
}

/// Findings about zone files and the hosts file that could not be used at the start, and cannot be yet. Later the records
/// in force stay, and the refused reload is the finding.
fn of_local_files(zones: &Zones) -> Vec<Finding> {
    let mut broken: Vec<String> = zones.broken().map(ToString::to_string).collect();
    broken.sort_unstable();
    let broken = broken.iter().map(|zone| {
        let zone = zone.strip_suffix('.').filter(|zone| !zone.is_empty()).unwrap_or(zone);
        format!("the local zone {zone} answers SERVFAIL: its file cannot be used")
    });
    let hosts = zones
        .unreadable_hosts()
        .map(|path| format!("names of the hosts file are not answered here: {} cannot be read", path.display()));
    let about = |text| plain(Severity::Error, LOCAL_FILE, format!("{text}; `tidegate check` says why"));
    broken.chain(hosts).map(about).collect()
}

fn of_reload(report: &Report) -> Option<Finding> {
    let last = report.reloads.last.lock().clone().filter(|last| !last.success)?;
    let why = last.lines.first().map(|line| format!(": {line}")).unwrap_or_default();
    let more = match last.lines.len() {
        0 | 1 => String::new(),
        lines => format!(" (and {} more)", lines - 1),
    };
    let text = format!("the last reload was refused, and the configuration before it stays in force{why}{more}");
    Some(plain(Severity::Warning, "reload-refused", text))
}

fn of_perimeter(report: &Report, now: Moment) -> Option<Finding> {
    let Violations { leaked, stripped, refused, newest } = report.engine.perimeter.violations(now - RECENT);
    let by = [(leaked, Exposure::Leaked), (stripped, Exposure::Stripped), (refused, Exposure::Refused)];
    let by = by.into_iter().filter(|(count, _)| *count > 0);
    let by: Vec<String> = by.map(|(count, outcome)| format!("{count} {}", outcome.label())).collect();
    let (names, name) = (Plural(leaked + stripped + refused, "name"), newest?.to_string());
    let text = format!(
        "public answers for {names} that should be private in the last {} minutes ({}), the last one for {}; `tidegate \
         perimeter` tells more",
        RECENT.as_secs() / 60,
        by.join(", "),
        name.trim_end_matches('.')
    );
    Some(plain(Severity::Warning, "guard", text))
}

fn plain(severity: Severity, kind: &str, text: String) -> Finding {
    Finding { severity, kind: kind.to_owned(), group: None, server: None, text }
}
