//! The documents of `/api/v1/status` and `/api/v1/upstreams`: the daemon's state at a glance.
//!
//! The same types serve the writer of a document (the daemon) and its readers (the status page, `tidegate status`).
//! Times are in seconds, sizes in octets; unknown values are null. Fields are only ever added: an older reader skips
//! fields that it does not know, and a newer one fills in defaults.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Numbers by the label used in metrics; all labels are always present.
pub type Counts = BTreeMap<String, u64>;

/// The document of `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The commit that it was built from.
    pub revision: String,
    /// The compiler that it was built with.
    pub rustc: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Seconds since the start.
    pub uptime: u64,
    /// The worst of the findings; `ok` without any.
    pub health: Severity,
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
    /// Whether clients may be sent here, as `/readyz` says.
    pub ready: bool,
    /// Why the process is not ready.
    pub reasons: Vec<String>,
    /// The addresses that it answers on.
    pub listen: Vec<String>,
    /// Threads that answer queries.
    pub workers: usize,
    /// The configuration in force.
    pub configuration: ConfigurationStatus,
    /// Queries that came in, by transport.
    pub queries: Counts,
    /// Responses, by where they came from.
    pub responses: Counts,
    /// How long responses took, by where they came from.
    pub durations: BTreeMap<String, DurationStatus>,
    /// Messages without a response, by reason.
    pub dropped: Counts,
    /// Queries that waited for the same answer as another.
    pub coalesced: u64,
    /// Queries that wait for an upstream's answer now.
    pub in_flight: usize,
    /// Open connections from clients.
    pub connections: usize,
    /// Answers with addresses outside the private networks of their rule, by what the guard did.
    pub guard: Counts,
    /// The cache.
    pub cache: CacheStatus,
    /// Every upstream group.
    pub groups: Vec<GroupStatus>,
    /// Queries by the minute, for up to an hour, the oldest minute first; the last one is incomplete.
    pub minutes: Vec<MinuteStatus>,
    /// Changes of state, the newest first.
    pub events: Vec<EventStatus>,
    /// Responses of all sources by how long they took, the fastest first.
    pub latency: Vec<LatencyStatus>,
}

/// One minute's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MinuteStatus {
    /// When it began, in seconds since 1970.
    pub at: u64,
    /// Queries that came in.
    pub queries: u64,
    /// Queries that the cache answered.
    pub hits: u64,
    /// Queries that the cache could not answer.
    pub misses: u64,
    /// Queries that could not be answered.
    pub failed: u64,
    /// Answers with addresses outside the private networks of their rule.
    pub violations: u64,
}

/// A change of state: a finding that came or went, a reload, or a change of this host's network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventStatus {
    /// When it was seen, in seconds since 1970.
    pub at: u64,
    /// The kind of event, for scripts: a finding's kind, `reload`, `reload-refused` or `network`.
    pub kind: String,
    /// How bad the new state is; `ok` if a finding went.
    pub severity: Severity,
    /// The change in a sentence for people.
    pub text: String,
}

/// Responses that took about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LatencyStatus {
    /// The upper bound in seconds; null for the last bucket. The bucket before holds shorter ones.
    pub up_to: Option<f64>,
    /// The number of responses.
    pub responses: u64,
}

/// How bad something is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    #[default]
    Ok,
    /// Worth knowing, and intended.
    Note,
    /// Something is wrong, but clients are answered.
    Warning,
    /// Clients do not get the answers that they should get.
    Error,
}

impl Severity {
    /// Whether somebody should act on it.
    pub const fn is_wrong(self) -> bool {
        matches!(self, Self::Warning | Self::Error)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something out of the ordinary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The kind of finding, for scripts: `group-down`, `group-empty`, `server-down`, `drained`, `tier`, `loop`,
    /// `no-verdict`, `local-file`, `reload-refused`, `guard`, `worker`, `draining`.
    pub kind: String,
    /// The group that it is about.
    pub group: Option<String>,
    /// The server that it is about.
    pub server: Option<String>,
    /// The finding in a sentence for people.
    pub text: String,
}

/// The configuration in force, and the last reload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConfigurationStatus {
    /// Hash of the configuration; equal hashes mean equal configurations.
    pub hash: String,
    /// Grows with each change of the configuration in force.
    pub generation: u32,
    /// Reloads so far, by `success` and `failure`.
    pub reloads: Counts,
    /// Whether the configuration that was loaded last is in force.
    pub last_reload_success: bool,
    /// The last reload; null before the first one.
    pub last_reload: Option<ReloadStatus>,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadStatus {
    /// When it happened, in seconds since 1970.
    pub at: u64,
    /// Whether the configuration that was read is in force.
    pub success: bool,
    /// What changed, or each reason why it was refused, one a line.
    pub lines: Vec<String>,
}

/// How long responses took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DurationStatus {
    /// How many responses.
    pub count: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// The upper bound of their median, as far as the histogram's buckets show.
    pub median: Option<f64>,
    /// The upper bound of their 99th percentile.
    pub p99: Option<f64>,
}

/// The cache's counters and its size.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheStatus {
    /// Queries that it answered.
    pub hits: u64,
    /// Queries that it could not answer.
    pub misses: u64,
    /// Hits as a share of all lookups, from 0 to 1; null before the first.
    pub hit_ratio: Option<f64>,
    /// Queries answered from an expired entry.
    pub stale: u64,
    /// Entries fetched before they expired.
    pub prefetches: u64,
    /// Entries removed before they expired.
    pub evictions: u64,
    /// Entries, expired ones included.
    pub entries: usize,
    /// Octets in use.
    pub bytes: usize,
    /// The limit on them.
    pub capacity: usize,
}

/// The document of `/api/v1/upstreams`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Upstreams {
    /// Every group, in the order of the configuration.
    pub groups: Vec<GroupStatus>,
}

/// One upstream group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// How a server is chosen: `fastest`, `spread` or `ordered`.
    pub policy: String,
    /// The worst finding about it.
    pub health: Severity,
    /// Its state in words.
    pub words: String,
    /// Whether there is no server that could be asked with any hope.
    pub down: bool,
    /// Servers that are neither down nor drained.
    pub usable: usize,
    /// The tier in use, 0 the preferred one.
    pub tier: usize,
    /// Queries that wait on it.
    pub in_flight: usize,
    /// Queries sent to a second server because the first was slow.
    pub hedges: u64,
    /// Hedges that answered first.
    pub hedge_wins: u64,
    /// Its servers by tier, the preferred tier first.
    pub tiers: Vec<Vec<ServerStatus>>,
    /// What its servers by name stand for.
    pub names: Vec<NameStatus>,
}

/// A name that upstream servers are given by.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// Its addresses, as a bootstrap server last gave them.
    pub addresses: Vec<String>,
    /// Its state in words.
    pub words: String,
    /// Why the last try brought no addresses.
    pub fault: Option<String>,
    /// Seconds since it was last resolved.
    pub age: Option<f64>,
    /// Seconds until it is resolved again.
    pub next: Option<f64>,
}

impl GroupStatus {
    /// All its servers, the preferred tier's first.
    pub fn servers(&self) -> impl Iterator<Item = &ServerStatus> {
        self.tiers.iter().flatten()
    }
}

/// One upstream server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerStatus {
    /// Its name, as the configuration has it.
    pub server: String,
    /// Its address and port.
    pub address: String,
    /// `udp`, `tcp`, `tls`, `https` or `quic`.
    pub transport: String,
    /// The source address of queries to it, if one is set.
    pub source: Option<String>,
    /// The network device of queries to it, if one is set.
    pub device: Option<String>,
    /// The firewall mark of queries to it; 0 = none.
    pub mark: u32,
    /// Its health: `up`, `suspect` or `down`.
    pub state: String,
    /// Its health in words, with the cause if it is not up.
    pub words: String,
    /// Whether an operator took it out of service.
    pub drained: bool,
    /// Whether there is a first verdict.
    pub judged: bool,
    /// Rules whose queries it does not get, because they would loop back here.
    pub loops_for: Vec<String>,
    /// Why the last failed probe failed.
    pub fault: Option<String>,
    /// Why the last connection to it could not be opened.
    pub cause: Option<String>,
    /// The smoothed round-trip time.
    pub rtt: Option<f64>,
    /// Its mean deviation.
    pub rtt_deviation: Option<f64>,
    /// Seconds since it last answered anything.
    pub last_answer: Option<f64>,
    /// Queries that wait for its answer.
    pub in_flight: u64,
    /// Local UDP ports open towards it.
    pub source_ports: u64,
    /// Queries sent to it, by how they ended.
    pub queries: Counts,
    /// Messages from it that matched no query.
    pub mismatches: u64,
    /// How often it entered a state.
    pub transitions: Counts,
    /// Its state by the minute, for up to an hour, the oldest minute first.
    pub history: Vec<ServerMinuteStatus>,
}

/// One minute of a server, as it was seen every two seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerMinuteStatus {
    /// When the minute began, in seconds since 1970.
    pub at: u64,
    /// The highest smoothed round-trip time.
    pub rtt: Option<f64>,
    /// The worst state: `up`, `drained`, `suspect` or `down`.
    pub state: String,
}
