//! The document of `/api/v1/perimeter`: the report as JSON.
//!
//! The same types serve the daemon that writes it, the status page and the verbs that read it. Times are seconds since
//! 1970. Fields are only ever added; a report without the count of leaks is no report, since it would read as "none".

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Exposure, NameVerdict, Perimeter, Report, Seen};
use crate::{
    clock::{self, Moment},
    config::{self, Remedy},
};

/// The document of `/api/v1/perimeter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PerimeterDocument {
    /// When recording began.
    pub since: u64,
    /// Names with a public address that no rule excepts.
    pub public: usize,
    /// Those that the guard refused.
    pub refused: usize,
    /// Those whose public addresses the guard left out of answers.
    #[serde(default)]
    pub stripped: usize,
    /// Those whose public addresses clients got.
    pub leaked: usize,
    /// Names forgotten to bound memory.
    pub given_up: u64,
    /// The names, the worst first.
    pub names: Vec<PerimeterName>,
}

/// A name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PerimeterName {
    /// The name.
    pub name: String,
    /// The verdict on its last answers.
    pub verdict: NameVerdict,
    /// What became of its public addresses: `leaked`, `stripped`, `refused` or `excepted`; null = it has none.
    pub outcome: Option<String>,
    /// The address that the verdict is about.
    pub address: Option<IpAddr>,
    /// The rule that brought its last answer.
    pub rule: String,
    /// Whether `except` of the rule has it.
    pub excepted: bool,
    /// Answers so far, by verdict.
    pub answers: BTreeMap<String, u64>,
    /// Clients that waited for an upstream's answer: an estimate, exact for a few.
    pub clients: u32,
    /// When the first answer came.
    pub first_seen: u64,
    /// When the last answer came.
    pub last_seen: u64,
    /// What would make a public name private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

impl PerimeterDocument {
    /// Everything recorded so far.
    pub fn of(perimeter: &Perimeter) -> Self {
        Self::new(&perimeter.report(), Moment::now(), clock::wall())
    }

    fn new(report: &Report, now: Moment, wall: Duration) -> Self {
        let time = |moment: Moment| wall.saturating_sub(now.since(moment)).as_secs();
        Self {
            since: time(report.since),
            public: report.public(),
            refused: report.count("refused"),
            stripped: report.count("stripped"),
            leaked: report.count("leaked"),
            given_up: report.given_up,
            names: report.names.iter().map(|seen| PerimeterName::new(seen, time)).collect(),
        }
    }
}

impl PerimeterName {
    fn new(seen: &Seen, time: impl Fn(Moment) -> u64) -> Self {
        let verdicts = NameVerdict::ALL.iter().map(|verdict| verdict.label().to_owned());
        Self {
            name: seen.name.to_string(),
            verdict: seen.verdict,
            outcome: seen.outcome.map(|outcome| Exposure::label(outcome).to_owned()),
            address: seen.address,
            rule: seen.rule.to_string(),
            excepted: seen.excepted,
            answers: verdicts.zip(seen.answers).collect(),
            clients: seen.clients,
            first_seen: time(seen.first),
            last_seen: time(seen.last),
            remedy: (seen.verdict == NameVerdict::Public).then(|| config::remedy(&seen.name)),
        }
    }

    /// What became of its public addresses, else the verdict.
    pub fn kind(&self) -> &str {
        match self.verdict {
            NameVerdict::Public => self.outcome.as_deref().unwrap_or("leaked"),
            verdict => verdict.label(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_public_name_comes_with_its_remedy_and_wall_clock_times() {
        let now = Moment::at(Duration::from_secs(5_000));
        let seen = Seen {
            name: "sts.eu-west-1.amazonaws.com".parse().unwrap(),
            rule: "aws".into(),
            excepted: false,
            verdict: NameVerdict::Public,
            outcome: Some(Exposure::Leaked),
            address: Some("52.1.2.3".parse().unwrap()),
            answers: [1, 0, 0, 2],
            clients: 3,
            first: now - Duration::from_secs(100),
            last: now,
        };
        let report = Report { since: now - Duration::from_secs(1_000), names: vec![seen], given_up: 0 };
        let expected = json!({
            "since": 9_000, "public": 1, "refused": 0, "stripped": 0, "leaked": 1, "given_up": 0,
            "names": [{
                "name": "sts.eu-west-1.amazonaws.com.", "verdict": "public", "outcome": "leaked", "address": "52.1.2.3", "rule": "aws",
                "excepted": false, "clients": 3, "first_seen": 9_900, "last_seen": 10_000,
                "answers": { "absent": 1, "private": 0, "unreachable-private": 0, "public": 2 },
                "remedy": { "kind": "endpoint", "service": "com.amazonaws.eu-west-1.sts" },
            }],
        });
        let document = PerimeterDocument::new(&report, now, Duration::from_secs(10_000));
        assert_eq!(serde_json::to_value(&document).unwrap(), expected);
        assert_eq!(serde_json::from_value::<PerimeterDocument>(expected).unwrap(), document);
    }

    #[test]
    fn verdicts_read_as_their_labels() {
        for verdict in NameVerdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.label());
        }
    }
}
