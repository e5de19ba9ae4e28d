//! The document of `tidegate doctor --json`: what was found, the most urgent first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Result of a look at a site. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Diagnosis {
    /// Whether nothing has to be done: there are no findings, or notes alone.
    pub healthy: bool,
    /// Whether a running daemon was asked, too.
    pub daemon: bool,
    /// Servers that were asked.
    pub servers: usize,
    /// AWS names that were asked for.
    pub names: usize,
    /// All findings, the most urgent first.
    pub findings: Vec<DoctorFinding>,
}

/// A problem, or something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorFinding {
    /// How urgent it is.
    pub urgency: Urgency,
    /// Its kind, for scripts.
    pub kind: Kind,
    /// The upstream group that it is about.
    pub group: Option<String>,
    /// The server that it is about.
    pub server: Option<String>,
    /// The name that it is about.
    pub name: Option<String>,
    /// What was seen.
    pub what: String,
    /// What that means for clients.
    pub meaning: String,
    /// What to do about it.
    pub advice: String,
}

/// How urgent a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// Now: clients get wrong answers or none, or will when one more thing fails.
    First,
    /// Soon: clients are answered, and something is missing.
    Soon,
    /// Never, perhaps: worth knowing. It does not make a site unhealthy.
    Note,
}

impl DoctorFinding {
    /// A finding about the whole host.
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            urgency: kind.urgency(),
            kind,
            group: None,
            server: None,
            name: None,
            what: what.into(),
            meaning: kind.meaning().to_owned(),
            advice: kind.advice().to_owned(),
        }
    }

    /// The same about a group.
    pub(super) fn of_group(self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self }
    }

    /// The same about a server.
    pub(super) fn of_server(self, server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..self }
    }
}

impl Diagnosis {
    /// Takes the findings, the most urgent first, and within that by kind.
    pub(super) fn conclude(mut self, mut findings: Vec<DoctorFinding>) -> Self {
        findings.sort_by_key(|finding| (finding.urgency, finding.kind));
        findings.dedup();
        self.healthy = findings.iter().all(|finding| finding.urgency == Urgency::Note);
        self.findings = findings;
        self
    }
}
