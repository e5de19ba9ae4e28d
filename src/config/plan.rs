//! The plan: what a configuration means, valid by construction, in plain types.
//!
//! [`Boot`] is what needs a restart, [`Live`] what a reload brings into force. Paths are resolved against the file
//! that names them, presets and reverse networks are zones, defaults are filled in, and every index leads somewhere.

use std::{
    hash::{Hash, Hasher},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

pub use super::rule::{Aaaa, GuardPlan, OnPublic, Rebind, RulePlan, RuleSettings, WhenDown, ZoneEntry};
use super::{
    address::Endpoint,
    error::Problems,
    group::{GroupIndex, GroupPlan, Share},
};
use crate::{
    dnstap::DnstapTarget,
    otlp::OtlpTarget,
    tls::KeyPair,
    wire::{Name, cookie::Secret},
};

/// The whole configuration of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The settings that need a restart.
    pub boot: Boot,
    /// The settings that a reload can change.
    pub live: Live,
    /// What looks like a mistake but stops nothing.
    pub warnings: Problems,
}

/// The settings that need a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Listeners of plain DNS, over UDP and TCP. Never empty.
    pub listen: Vec<Listen>,
    /// Listeners of DNS over TLS.
    pub tls: Vec<Endpoint>,
    /// Listeners of DNS over HTTPS.
    pub https: Vec<HttpsListen>,
    /// Listeners of DNS over QUIC.
    pub quic: Vec<Endpoint>,
    /// Whether to bind addresses that the host does not have yet.
    pub freebind: bool,
    /// How many worker threads there are.
    pub workers: Workers,
    /// Limits on stream connections from clients.
    pub streams: StreamLimits,
    /// The most memory of the cache in octets; 0 = no cache.
    pub cache_size: u64,
    /// The file that keeps the cache over a restart; none = no file.
    pub snapshot: Option<PathBuf>,
    /// The perimeter record; none = off.
    pub perimeter: Option<PerimeterRecord>,
    /// Where operators' HTTP listens; none = off.
    pub admin_http: Option<Endpoint>,
    /// The control socket; none = off.
    pub admin_socket: Option<PathBuf>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Where dnstap messages go; none = nowhere.
    pub dnstap: Option<DnstapTarget>,
    /// Where traces go; none = nowhere.
    pub otlp: Option<OtlpTarget>,
    /// Whether to sandbox the process.
    pub sandbox: Sandbox,
}

/// The record of the perimeter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PerimeterRecord {
    /// The folder of its daily files.
    pub folder: PathBuf,
    /// How long they are kept.
    pub keep: Duration,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The address.
    pub endpoint: Endpoint,
    /// Whether the process may start without it.
    pub need: Need,
}

/// A listener of DNS over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpsListen {
    /// The address.
    pub endpoint: Endpoint,
    /// Whether TLS is spoken here, or by a proxy in front.
    pub encryption: Encryption,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// TLS ends at this listener.
    Here,
    /// TLS ends at a proxy in front, and plain HTTP is spoken here.
    InFront,
}

/// Whether the process can start without a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It was configured: the process does not start without it.
    Required,
    /// It is a default: left out where the host lacks the address family.
    IfSupported,
}

/// How many worker threads there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workers {
    /// One for each core that the process may use.
    Auto,
    /// This many.
    Count(NonZeroU32),
}

/// Limits on stream connections from clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamLimits {
    /// Connections in all.
    pub connections: u32,
    /// Connections for each client.
    pub per_client: u32,
    /// Queries in flight on one connection.
    pub pipeline: u32,
    /// How long a connection may be silent.
    pub idle: Duration,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// journald under systemd, text on a terminal, else JSON.
    Auto,
    /// Text for people.
    Text,
    /// A JSON object a line.
    Json,
    /// journald's own protocol, with fields.
    Journald,
}

/// Whether to sandbox the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sandbox {
    /// As far as the kernel supports it.
    Auto,
    /// Not at all.
    Off,
}

/// The settings that a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Who is served.
    pub access: AccessPlan,
    /// The time within which a client gets a response, whatever happens upstream.
    pub deadline: Duration,
    /// How long queries are still answered after SIGTERM before the drain.
    pub lameduck: Duration,
    /// The largest UDP response, and what EDNS advertises in both directions.
    pub udp_payload: u16,
    /// The secrets of DNS cookies, newest first; empty = random.
    pub cookie_secrets: Vec<CookieSecret>,
    /// What version.bind and id.server answer, at most 255 octets; none = REFUSED.
    pub chaos: Option<String>,
    /// Queries that may wait for an upstream, in all.
    pub in_flight: u32,
    /// The rate limit for a client over UDP; none = no limit.
    pub client_limit: Option<ClientLimit>,
    /// The load balancers whose PROXY header is believed.
    pub balancers: Vec<IpNet>,
    /// The certificate of the encrypted listeners, where there are any.
    pub certificate: Option<Certificate>,
    /// How long cache entries are kept.
    pub cache: CachePolicy,
    /// Access to the operators' HTTP.
    pub admin: AdminAccess,
    /// The lowest level that is logged.
    pub log_level: LogLevel,
    /// Which queries are logged.
    pub query_log: QueryLogPolicy,
    /// The groups of upstreams.
    pub groups: Vec<GroupPlan>,
    /// The rules, in no particular order. No zone appears twice for the same clients.
    pub rules: Vec<RulePlan>,
    /// The local zones, each only once.
    pub local: Vec<LocalZone>,
    /// A file in hosts(5) format.
    pub hosts: Option<PathBuf>,
    /// How special-use names (RFC 6761, 6303) are handled that no rule or local zone covers.
    pub special: SpecialNames,
}

/// The rate limit for a client over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimit {
    /// Queries a second.
    pub qps: NonZeroU32,
    /// Queries at once.
    pub burst: u32,
    /// Networks that are exempt.
    pub exempt: Vec<IpNet>,
}

/// A certificate with its key, and their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The file of the chain.
    pub chain: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// Their content.
    pub pair: KeyPair,
}

/// A secret of DNS cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSecret {
    /// Its file.
    pub path: PathBuf,
    /// The secret.
    pub secret: Secret,
}

/// Who is served: the longest prefix in both lists that holds the client decides, and `deny` if both have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPlan {
    /// Networks that are served.
    pub allow: Vec<IpNet>,
    /// Networks that are not.
    pub deny: Vec<IpNet>,
}

/// How long cache entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// No answer is kept shorter than this.
    pub min_ttl: Duration,
    /// No answer is kept longer than this.
    pub max_ttl: Duration,
    /// The cap for NXDOMAIN and NODATA (RFC 2308) where a rule has none of its own; each [`RulePlan`] has it filled in.
    pub negative_ttl: Duration,
    /// The TTL of negative answers without an SOA.
    pub no_soa_ttl: Duration,
    /// The TTL of failures (RFC 9520).
    pub failure_ttl: Duration,
    /// How long past its TTL an answer may serve when no upstream answers (RFC 8767); zero = never.
    pub stale: Duration,
    /// How long a client waits for a fresh answer before it is given a stale one.
    pub stale_after: Duration,
    /// The TTL of a stale answer.
    pub stale_ttl: Duration,
    /// Whether a popular entry is fetched again in its last tenth of life.
    pub prefetch: bool,
    /// Whether several A or AAAA records of one name start with another one in each answer.
    pub rotate: bool,
}

/// Access to the operators' HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccess {
    /// Who may see more than metrics and health.
    pub allow: Vec<IpNet>,
    /// Host headers that are accepted besides addresses and localhost, in lower case.
    pub hosts: Vec<String>,
}

/// Which queries are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryLogPolicy {
    /// Which kinds.
    pub queries: LoggedQueries,
    /// The share of them, where it is all kinds.
    pub sample: Share,
}

/// Kinds of queries that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoggedQueries {
    /// None.
    Off,
    /// Those whose response code is neither NOERROR nor NXDOMAIN.
    Errors,
    /// All.
    All,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the levels are those of every log")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How special-use names are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialNames {
    /// They are answered here.
    AnsweredHere,
    /// They are treated like other names.
    Forwarded,
}

/// A local zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalZone {
    /// Its apex.
    pub zone: Name,
    /// Where the configuration names it.
    pub place: WrittenAt,
    /// Where its records are.
    pub data: ZoneData,
}

/// A place in the configuration, for messages. All places are equal to each other: something that only moved within its
/// file has not changed.
#[derive(Debug, Clone, Default)]
pub struct WrittenAt {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl PartialEq for WrittenAt {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for WrittenAt {}

impl Hash for WrittenAt {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// Where a zone's records are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ZoneData {
    /// In a master file (RFC 1035 5).
    File(PathBuf),
    /// In the configuration: master-file lines, and where each stands.
    Records(Vec<(String, WrittenAt)>),
}

impl Live {
    /// Whether names that no zone covers are REFUSED: there are rules, and neither a rule nor a local zone has ".".
    pub fn refuses_the_rest(&self) -> bool {
        let rules = self.rules.iter().flat_map(|rule| &*rule.zones);
        let mut zones = rules.chain(self.local.iter().map(|local| &local.zone));
        !self.rules.is_empty() && !zones.any(Name::is_root)
    }

    /// The group at `index`.
    pub fn group(&self, index: GroupIndex) -> &GroupPlan {
        &self.groups[index.0]
    }
}

impl Boot {
    /// The keys that differ from those of `other`, which only a restart brings into force.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("server.listen", self.listen == other.listen),
            ("server.tls.tls", self.tls == other.tls),
            ("server.tls.https", self.https == other.https),
            ("server.tls.quic", self.quic == other.quic),
            ("server.freebind", self.freebind == other.freebind),
            ("server.workers", self.workers == other.workers),
            ("server.sandbox", self.sandbox == other.sandbox),
            ("limits.tcp_connections", self.streams.connections == other.streams.connections),
            ("limits.tcp_per_client", self.streams.per_client == other.streams.per_client),
            ("limits.pipeline", self.streams.pipeline == other.streams.pipeline),
            ("limits.tcp_idle", self.streams.idle == other.streams.idle),
            ("cache.size", self.cache_size == other.cache_size),
            ("cache.snapshot", self.snapshot == other.snapshot),
            ("[perimeter]", self.perimeter == other.perimeter),
            ("admin.http", self.admin_http == other.admin_http),
            ("admin.socket", self.admin_socket == other.admin_socket),
            ("log.format", self.log_format == other.log_format),
            ("log.dnstap", self.dnstap == other.dnstap),
            ("log.otlp", self.otlp == other.otlp),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
