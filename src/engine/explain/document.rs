//! The document of `/api/v1/explain` and `tidegate explain --json`: what would be done with a query, and why.
//!
//! The same types write and read it. Times are in seconds; what is not known is null. Fields are only ever added.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What would be done with a query, and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Explanation {
    /// The name, absolute and in lower case.
    pub name: String,
    /// The record type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The client's address.
    pub client: String,
    /// How the query comes: `udp`, `tcp`, `tls`, `https` or `quic`.
    pub transport: String,
    /// Whether the client asks for signatures.
    pub dnssec: bool,
    /// Whether the client is served.
    pub access: AccessStep,
    /// The name and then each alias that leads to another rule or zone, as far as they are known.
    pub steps: Vec<NameStep>,
    /// What the client gets.
    pub outcome: ExplainedOutcome,
}

/// Whether the client is served.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AccessStep {
    /// Whether it is.
    pub allowed: bool,
    /// The network of `allow` or `deny` that decides; null = the client is in none of them, and refused.
    pub network: Option<String>,
}

/// One name of the chain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NameStep {
    /// The name.
    pub name: String,
    /// What is done with it.
    pub decision: Decision,
    /// All of it in a sentence for people.
    pub words: String,
    /// Every domain of the configuration that covers the name, the longest first.
    pub domains: Vec<Domain>,
    /// The rule that its queries go through; null = none.
    pub rule: Option<String>,
    /// The rule whose `clients` the client is in, where that rule decides.
    pub view: Option<String>,
    /// The local zone, special-use domain, or `local_hosts`, that answers it; null = none.
    pub zone: Option<String>,
    /// The groups that may be asked, the rule's own first.
    pub groups: Vec<GroupStep>,
    /// What the cache has for it.
    pub cache: Vec<CacheEntry>,
    /// A failure that is remembered.
    pub failure: Option<FailureStep>,
    /// The rule's guard, where it has one.
    pub guard: Option<GuardStep>,
    /// Aliases in the answer, as far as it is known, and where they lead.
    pub chain: Vec<Alias>,
}

/// What is done with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Nothing covers it: REFUSED.
    #[default]
    NotCovered,
    /// It is answered from the cache.
    Cached,
    /// It is answered from an entry past its lifetime.
    Stale,
    /// It is answered here.
    Local,
    /// It is answered with NODATA, without asking (`aaaa = "empty"`).
    Empty,
    /// Servers of the group are asked.
    Forwarded,
    /// It fails without asking.
    Fails,
}

/// A domain of the configuration that covers a name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Domain {
    /// The domain.
    pub domain: String,
    /// The rules that it belongs to; empty = it is answered here.
    pub rules: Vec<String>,
    /// Whether it decides, or why not.
    pub standing: DomainStanding,
}

/// Whether a domain decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DomainStanding {
    /// It does.
    Decides,
    /// A longer one does.
    #[default]
    Shorter,
    /// It is for other clients.
    OtherClients,
    /// DS belongs to the domain above (RFC 4035 3.1.4.1).
    ParentDecides,
    /// The name is in `local_hosts`.
    HostDecides,
}

/// A group that may be asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GroupStep {
    /// Its name.
    pub name: String,
    /// Whether it is asked only when the rule's own group gives no answer (`when_down`).
    pub fallback: bool,
    /// Whether no server of it can be asked with any hope.
    pub down: bool,
    /// The tier in use, 0 the preferred one.
    pub tier: usize,
    /// How a server is chosen.
    pub policy: String,
    /// Its servers, tier by tier.
    pub servers: Vec<ServerStep>,
}

/// A server of a group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerStep {
    /// The server as configured.
    pub server: String,
    /// Its tier.
    pub tier: usize,
    /// `up`, `suspect` or `down`.
    pub state: String,
    /// Whether anything is known of it yet.
    pub judged: bool,
    /// Whether an operator took it out of service.
    pub drained: bool,
    /// Whether the rule must do without it, since its queries would come back here.
    pub loops: bool,
    /// Its mean round-trip time.
    pub rtt: Option<f64>,
}

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheEntry {
    /// Who may be given it.
    pub shared: Sharing,
    /// Whether it serves.
    pub state: EntryState,
    /// Seconds since it was stored.
    pub age: u32,
    /// Seconds until it expires.
    pub left: u32,
    /// Seconds for which it may still serve stale, once it has expired; null where the rule gives no stale answers.
    pub stale_left: Option<u32>,
    /// Whether the guard took addresses from it.
    pub stripped: bool,
    /// The response code.
    pub rcode: String,
    /// The records of its answer, a line each.
    pub answer: Vec<String>,
}

/// Who may be given an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Every client of the view.
    #[default]
    View,
    /// Clients that no rule tells apart.
    Audience,
    /// Clients with the other DO bit than this one; used only in an outage.
    OtherKind,
}

/// Whether an entry serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// It does.
    #[default]
    Fresh,
    /// It is past its lifetime.
    Expired,
    /// Other rules shape its answers now.
    Outdated,
}

/// A failure that is remembered (RFC 9520).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FailureStep {
    /// The response code.
    pub rcode: String,
    /// The extended error.
    pub ede: ExtendedError,
}

/// A rule's guard, and what it says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GuardStep {
    /// What is done about addresses outside `private`; null where the rule has none.
    pub on_public: Option<String>,
    /// Whether private addresses are refused (`rebind = "refuse"`).
    pub rebind: bool,
    /// Whether `except` of the rule lets the name through.
    pub excepted: bool,
    /// What it does with the answer; null while that is not known.
    pub verdict: Option<GuardWord>,
    /// The address that it objects to.
    pub address: Option<String>,
}

/// What a guard does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuardWord {
    /// Nothing.
    #[default]
    Pass,
    /// It counts it, and lets it through.
    Log,
    /// It leaves addresses out.
    Strip,
    /// It refuses the answer.
    Refuse,
}

/// An alias in an answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Alias {
    /// The name that it leads to.
    pub target: String,
    /// The rule that the target's own queries go through; null = none, or it is answered here.
    pub rule: Option<String>,
    /// Whether the target is asked for anew, because another rule or a local zone has it.
    pub leaves: bool,
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExplainedOutcome {
    /// Where the answer comes from, by the names that metrics give: `cache`, `stale`, `upstream`, `local`, `refused` or
    /// `error`.
    pub source: String,
    /// The response code; null where only an upstream's answer will tell.
    pub rcode: Option<String>,
    /// The extended error, for clients that send EDNS.
    pub ede: Option<ExtendedError>,
    /// The records of the answer, a line each, as far as they are known.
    pub answer: Vec<String>,
    /// All of it in a sentence for people.
    pub words: String,
}

/// An extended error (RFC 8914).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExtendedError {
    /// Its number.
    pub code: u16,
    /// Its meaning by the registry.
    pub meaning: String,
    /// Its text.
    pub text: String,
}
