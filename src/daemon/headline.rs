//! The overall state in one line, for systemd's STATUS=, and the log lines about groups without a usable server.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::report::NO_VERDICT;
use crate::admin::status::{Finding, Severity};

/// Findings that are written out; the others are only counted.
const MOST: usize = 3;

/// The state that was last reported.
#[derive(Debug, Default)]
pub(super) struct Headline {
    said: String,
    /// Groups without a usable server, each with what was reported about it.
    unusable: BTreeMap<String, String>,
}

impl Headline {
    /// Takes the current findings and returns the line if it has changed.
    pub(super) fn update(&mut self, findings: &[Finding]) -> Option<String> {
        self.log_groups(findings);
        let line = line(findings);
        if line == self.said {
            return None;
        }
        self.said.clone_from(&line);
        Some(line)
    }

    fn log_groups(&mut self, findings: &[Finding]) {
        let is_about_all = |finding: &&Finding| finding.severity == Severity::Error && finding.server.is_none();
        let of = |finding: &Finding| Some((finding.group.clone()?, finding.text.clone()));
        let now: BTreeMap<String, String> = findings.iter().filter(is_about_all).filter_map(of).collect();
        for (group, text) in &now {
            if self.unusable.get(group) != Some(text) {
                warn!(group, "{text}");
            }
        }
        for group in self.unusable.keys().filter(|group| !now.contains_key(*group)) {
            info!(group, "upstream {group} has a usable server again");
        }
        self.unusable = now;
    }
}

/// "all is well", unless something is wrong or not known yet; then the findings.
fn line(findings: &[Finding]) -> String {
    let is_well = |finding: &Finding| !finding.severity.is_wrong() && finding.kind != NO_VERDICT;
    let mut parts: Vec<String> = if findings.iter().all(is_well) { vec!["all is well".to_owned()] } else { Vec::new() };
    parts.extend(findings.iter().take(MOST).map(|finding| finding.text.clone()));
    if findings.len() > MOST {
        parts.push(format!("and {} more", findings.len() - MOST));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, text: &str) -> Finding {
        Finding {
            severity,
            kind: "group-down".to_owned(),
            group: Some("vpc".to_owned()),
            server: None,
            text: text.into(),
        }
    }

    #[test]
    fn a_line_is_given_once_for_each_change() {
        let mut headline = Headline::default();
        assert_eq!(headline.update(&[]).as_deref(), Some("all is well"));
        assert_eq!(headline.update(&[]), None);
        let down = [finding(Severity::Error, "upstream vpc: no server is usable: 2 down")];
        assert_eq!(headline.update(&down).as_deref(), Some("upstream vpc: no server is usable: 2 down"));
        assert_eq!(headline.update(&down), None);
        let drained = [finding(Severity::Note, "upstream 10.0.0.1 of group vpc is drained (up)")];
        let line = headline.update(&drained).unwrap();
        assert_eq!(line, "all is well; upstream 10.0.0.1 of group vpc is drained (up)");
    }

    #[test]
    fn servers_that_are_being_probed_are_not_called_well() {
        let probed = Finding { kind: NO_VERDICT.to_owned(), ..finding(Severity::Note, "upstream vpc: being probed") };
        assert_eq!(line(&[probed]), "upstream vpc: being probed");
    }

    #[test]
    fn a_long_list_is_cut() {
        let all: Vec<Finding> = (0..5).map(|n| finding(Severity::Warning, &n.to_string())).collect();
        assert_eq!(line(&all), "0; 1; 2; and 2 more");
    }
}
