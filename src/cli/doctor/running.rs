//! Findings that only the running daemon can report.

use super::{document::DoctorFinding, kind::Kind};
use crate::admin::status::{GroupStatus, ServerStatus, Status};

/// Fewer queries than these prove nothing about a quota.
const ENOUGH_QUERIES: u64 = 10_000;
/// More than one unanswered query in this many is a finding.
const TOLERATED_LOSS: u64 = 100;

/// The findings in the daemon's status.
pub(super) fn check(status: &Status) -> Vec<DoctorFinding> {
    let told = status.findings.iter().filter_map(|finding| {
        let kind = match finding.kind.as_str() {
            "loop" => Kind::Loop,
            "local-file" => Kind::LocalFile,
            "reload-refused" => Kind::ReloadRefused,
            "worker" => Kind::WorkerHangs,
            // The other kinds are states of servers, which doctor asks itself, or are intended.
            _ => return None,
        };
        let (group, server) = (finding.group.clone(), finding.server.clone());
        Some(DoctorFinding { group, server, ..DoctorFinding::new(kind, finding.text.clone()) })
    });
    let servers = status.groups.iter().flat_map(|group| group.servers().map(move |server| (group, server)));
    told.chain(servers.filter_map(|(group, server)| quota(group, server))).collect()
}

fn quota(group: &GroupStatus, server: &ServerStatus) -> Option<DoctorFinding> {
    let count = |result: &str| server.queries.get(result).copied().unwrap_or(0);
    let about = |kind, what| Some(DoctorFinding::new(kind, what).of_group(&group.name).of_server(&server.server));
    let (name, all) = (&server.server, server.queries.values().sum::<u64>());
    let (timeouts, budget) = (count("timeout"), count("budget"));
    if server.state == "up" && all >= ENOUGH_QUERIES && timeouts * TOLERATED_LOSS > all {
        return about(Kind::Quota, format!("{name} is up, and {timeouts} of {all} queries got no answer"));
    }
    let what = format!("{budget} queries to {name} were not sent since its budget was used up");
    if budget > 0 { about(Kind::QueryBudget, what) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status;

    fn kinds(queries: &[(&str, u64)], state: &str) -> Vec<Kind> {
        let queries = queries.iter().map(|(result, count)| ((*result).to_owned(), *count)).collect();
        let server = ServerStatus { state: state.to_owned(), queries, ..ServerStatus::default() };
        let group = GroupStatus { tiers: vec![vec![server]], ..GroupStatus::default() };
        let status = Status { groups: vec![group], ..Status::default() };
        check(&status).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn lost_queries_of_a_server_that_is_up_are_a_quotas() {
        assert_eq!(kinds(&[("ok", 20_000), ("timeout", 1_000)], "up"), [Kind::Quota]);
        assert_eq!(kinds(&[("ok", 20_000), ("timeout", 1_000)], "down"), []);
        assert_eq!(kinds(&[("ok", 20_000), ("timeout", 100)], "up"), []);
        assert_eq!(kinds(&[("ok", 200), ("timeout", 100)], "up"), []);
        assert_eq!(kinds(&[("ok", 200), ("budget", 1)], "up"), [Kind::QueryBudget]);
    }

    #[test]
    fn findings_of_the_daemon_are_taken_over() {
        let told = |kind: &str| status::Finding {
            severity: status::Severity::Warning,
            kind: kind.to_owned(),
            group: Some("vpc".to_owned()),
            server: Some("10.1.1.1".to_owned()),
            text: kind.to_owned(),
        };
        let findings = ["loop", "local-file", "reload-refused", "worker", "server-down", "drained"].map(told).to_vec();
        let found = check(&Status { findings, ..Status::default() });
        assert_eq!(
            found.iter().map(|finding| finding.kind).collect::<Vec<_>>(),
            [Kind::Loop, Kind::LocalFile, Kind::ReloadRefused, Kind::WorkerHangs]
        );
        assert_eq!(found[0].server.as_deref(), Some("10.1.1.1"));
    }
}
