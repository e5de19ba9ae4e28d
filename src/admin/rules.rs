//! The document of `/api/v1/rules`: every rule as it is in force, with its counters, and the local zones.
//!
//! Fields are only ever added.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::Counts;

/// The document of `/api/v1/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rules {
    /// Every rule, in the order of the configuration.
    pub rules: Vec<RuleStatus>,
    /// The local zones.
    pub local: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// Its `zones`, as the configuration has them.
    pub zones: Vec<String>,
    /// The domains that these stand for.
    pub domains: Vec<String>,
    /// The upstream group that its queries go to.
    pub upstream: String,
    /// The networks of the clients that it is for; empty = all clients.
    pub clients: Vec<String>,
    /// Its guard; null = none.
    pub guard: Option<GuardStatus>,
    /// Domains that the guard leaves alone.
    pub except: Vec<String>,
    /// What is done with private addresses: `allow` or `refuse`.
    pub rebind: String,
    /// What is done while no server answers: `stale`, `fail`, or the group that is asked then.
    pub when_down: String,
    /// What is done with queries for AAAA: `forward` or `empty`.
    pub aaaa: String,
    /// Whether aliases into other rules and local zones are followed there.
    pub follow: bool,
    /// The longest lifetime of its negative answers, in seconds.
    pub negative_ttl: u64,
    /// Queries that it was applied to.
    pub queries: u64,
    /// Answers with addresses outside its private networks, by what the guard did.
    pub violations: Counts,
    /// Negative answers that came without an SOA.
    pub negatives_without_soa: u64,
}

/// The guard of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GuardStatus {
    /// The networks that every address must be in.
    pub private: Vec<String>,
    /// What is done with other addresses: `log`, `strip` or `refuse`.
    pub on_public: String,
}
