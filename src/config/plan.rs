//! The plan: what a configuration means, valid by construction, in plain types.
//!
//! [`Boot`] is what needs a restart, [`Live`] what a reload brings into force. Paths are resolved against the file
//! that names them, presets and reverse networks are zones, defaults are filled in, and every index leads somewhere.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    address::{Address, Endpoint},
    error::Problems,
};
use crate::wire::{Name, RecordType, cookie::Secret};

/// What the daemon is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What needs a restart.
    pub boot: Boot,
    /// What a reload brings into force.
    pub live: Live,
    /// What looks like a mistake but stops nothing.
    pub warnings: Problems,
}

/// What needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Plain DNS, over UDP and TCP. Never empty.
    pub listen: Vec<Listen>,
    /// Whether to bind addresses that the host does not have yet.
    pub freebind: bool,
    /// How many threads answer.
    pub workers: Workers,
    /// Bounds on stream connections from clients.
    pub streams: StreamLimits,
    /// The cache's bound on memory in octets; 0 = no cache.
    pub cache_size: u64,
    /// Where operators' HTTP listens; none = off.
    pub admin_http: Option<Endpoint>,
    /// The control socket; none = off.
    pub admin_socket: Option<PathBuf>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Whether to shut the process in as far as the kernel can.
    pub sandbox: Sandbox,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// Whether the process may start without it.
    pub need: Need,
}

/// Whether a listener must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It was asked for: without it there is no start.
    Required,
    /// It is a default: left out where the host lacks the address family.
    IfSupported,
}

/// How many threads answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workers {
    /// One for each core that the process may use.
    Auto,
    /// This many.
    Count(NonZeroU32),
}

/// Bounds on stream connections from clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamLimits {
    /// Connections in all.
    pub connections: u32,
    /// Connections for each client.
    pub per_client: u32,
    /// Questions in flight on one connection.
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

/// Whether to shut the process in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sandbox {
    /// As far as the kernel can.
    Auto,
    /// Not at all.
    Off,
}

/// What a reload brings into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Who is served.
    pub access: Access,
    /// A client has its answer by then, whatever happens upstream.
    pub deadline: Duration,
    /// How long questions are still answered after SIGTERM before the drain.
    pub lameduck: Duration,
    /// The largest UDP answer, and what EDNS advertises both ways.
    pub udp_payload: u16,
    /// What DNS cookies are made with, newest first; empty = random.
    pub cookie_secrets: Vec<CookieSecret>,
    /// What version.bind and id.server answer, at most 255 octets; none = REFUSED.
    pub chaos: Option<String>,
    /// Questions that may wait for an upstream, in all.
    pub in_flight: u32,
    /// What is kept for how long.
    pub cache: CachePolicy,
    /// Who sees what over the operators' HTTP.
    pub admin: AdminAccess,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// The groups of upstreams.
    pub groups: Vec<Group>,
    /// The rules; their order has no meaning. No zone is twice there for the same clients.
    pub rules: Vec<Rule>,
    /// The zones answered here. None is there twice.
    pub local: Vec<LocalZone>,
    /// A file in hosts(5) format.
    pub hosts: Option<PathBuf>,
    /// What becomes of special-use names (RFC 6761, 6303) that no rule or local zone covers.
    pub special: SpecialNames,
}

/// What DNS cookies are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSecret {
    /// The file it stands in.
    pub path: PathBuf,
    /// The secret.
    pub secret: Secret,
}

/// Who is served: of both lists the longest prefix that holds the client decides, and `deny` where they are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Networks that are served.
    pub allow: Vec<IpNet>,
    /// Networks that are not.
    pub deny: Vec<IpNet>,
}

/// What is kept for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// No answer is kept shorter than this.
    pub min_ttl: Duration,
    /// No answer is kept longer than this.
    pub max_ttl: Duration,
    /// The cap for NXDOMAIN and NODATA (RFC 2308) where a rule has none of its own; each [`Rule`] has it filled in.
    pub negative_ttl: Duration,
    /// For negative answers that come without an SOA.
    pub no_soa_ttl: Duration,
    /// For failures (RFC 9520).
    pub failure_ttl: Duration,
    /// How long past its TTL an answer may serve when no upstream answers (RFC 8767); zero = never.
    pub stale: Duration,
    /// How long a client waits for a fresh answer before it is given a stale one.
    pub stale_after: Duration,
    /// The TTL of a stale answer.
    pub stale_ttl: Duration,
    /// Whether a popular entry is fetched again in its last tenth of life.
    pub prefetch: bool,
}

/// Who sees what over the operators' HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccess {
    /// Who may see more than metrics and health.
    pub allow: Vec<IpNet>,
    /// Host headers that are accepted besides addresses and localhost, in lower case.
    pub hosts: Vec<String>,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the levels are those of every log")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What becomes of special-use names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialNames {
    /// They are answered here.
    AnsweredHere,
    /// They are names like others.
    Forwarded,
}

/// The place of a group in [`Live::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub usize);

/// A group of upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its name in the file.
    pub name: String,
    /// The tiers in order; a tier may be empty only where our own listeners were left out of it.
    pub tiers: Vec<Vec<Server>>,
    /// Which server of a tier is asked.
    pub policy: Policy,
    /// The ceiling of one try.
    pub timeout: Duration,
    /// Tries for one question over all servers, at least 1.
    pub attempts: u32,
    /// Hedges as a share of questions; none = no hedging.
    pub hedge: Option<Share>,
    /// Questions a second for each server address; none = no limit.
    pub max_qps: Option<NonZeroU32>,
    /// Questions that may wait on this group.
    pub in_flight: u32,
    /// Stream connections kept for each server and worker.
    pub connections: u32,
    /// Random local ports kept for each server.
    pub source_ports: u32,
    /// Whether upstream questions get random letter case (0x20).
    pub mix_case: bool,
    /// How long a better tier must be healthy before it is used again.
    pub fail_back: Duration,
    /// PEM bundle of roots for encrypted transports; none = the system's.
    pub ca: Option<PathBuf>,
    /// How health is found out.
    pub health: Health,
}

/// A server to forward to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Which.
    pub address: ServerAddress,
    /// The way questions take to it.
    pub path: NetworkPath,
}

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// One that the file names.
    Fixed(FixedServer),
    /// Those of resolv.conf, watched.
    System {
        /// The file; none = systemd-resolved's, else /etc/resolv.conf.
        path: Option<PathBuf>,
    },
}

/// A server that the file names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FixedServer {
    /// What carries the messages.
    pub transport: Transport,
    /// Where.
    pub endpoint: Endpoint,
    /// The path of DNS over HTTPS, with its slash; none for other transports.
    pub http_path: Option<String>,
    /// The name its certificate must have; none = its address. Always none without encryption.
    pub tls_name: Option<String>,
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP, and TCP where an answer is truncated.
    Udp,
    /// TCP.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

/// The way questions take to a server, as far as this host decides it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NetworkPath {
    /// The local address that they leave from.
    pub source: Option<Address>,
    /// The network device that they leave by.
    pub device: Option<String>,
    /// The firewall mark; 0 = none.
    pub mark: u32,
}

/// Which server of a tier is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Evenly all that are about as fast as the fastest.
    Fastest,
    /// Evenly all.
    Spread,
    /// The first that is healthy.
    Ordered,
}

/// A share from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// How a group's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Health {
    /// The question that probes ask.
    pub probe: Probe,
    /// Where the probe's addresses must lie; empty = anywhere.
    pub expect: Vec<IpNet>,
    /// Time between probes of a server that is up.
    pub interval: Duration,
    /// Time between probes of a server that is suspect or down.
    pub interval_down: Duration,
    /// Consecutive failed probes until a server is down, at least 1.
    pub fall: u32,
    /// Consecutive good probes until it is up again, at least 1.
    pub rise: u32,
}

/// The question that probes ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Its name.
    pub qname: Name,
    /// Its type.
    pub qtype: RecordType,
}

/// Where questions for some domains go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// For logs, metrics and explain; no two rules share one.
    pub name: String,
    /// What was written, with the domains each stands for.
    pub written: Vec<ZoneEntry>,
    /// The domains, none twice.
    pub zones: Vec<Name>,
    /// The group that is asked.
    pub to: GroupIndex,
    /// The clients this rule is for alone; empty = all.
    pub clients: Vec<IpNet>,
    /// What addresses answers may hold; none = no guard.
    pub guard: Option<Guard>,
    /// Domains that guard and rebinding protection leave alone.
    pub except: Vec<Name>,
    /// Whether private addresses in answers are refused.
    pub rebind: Rebind,
    /// The cap for NXDOMAIN and NODATA.
    pub negative_ttl: Duration,
    /// What happens when no server answers.
    pub when_down: WhenDown,
    /// What becomes of AAAA questions.
    pub aaaa: Aaaa,
    /// Whether a CNAME into another rule or a local zone is asked again through it.
    pub follow: bool,
}

/// An entry of `zones` and the domains it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ZoneEntry {
    /// The text in the file.
    pub text: String,
    /// The domains.
    pub zones: Vec<Name>,
}

/// The guard: every address in an answer must lie in `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The networks that clients can reach. Never empty.
    pub networks: Vec<IpNet>,
    /// What happens to other addresses.
    pub on_public: OnPublic,
}

/// What the guard does about an address outside its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnPublic {
    /// Count and report; the answer passes.
    Log,
    /// Take the address out; nothing left is NODATA.
    Strip,
    /// SERVFAIL.
    Refuse,
}

/// Whether private addresses in answers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rebind {
    /// They pass.
    Allow,
    /// They do not.
    Refuse,
}

/// What happens when no server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenDown {
    /// A stale answer, else SERVFAIL.
    Stale,
    /// SERVFAIL.
    Fail,
    /// Another group is asked.
    Upstream(GroupIndex),
}

/// What becomes of AAAA questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aaaa {
    /// They are forwarded.
    Forward,
    /// They are answered with no data.
    Empty,
}

/// A zone answered here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalZone {
    /// Its apex.
    pub zone: Name,
    /// Where its records are.
    pub data: ZoneData,
}

/// Where a zone's records are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ZoneData {
    /// In a master file (RFC 1035 5).
    File(PathBuf),
    /// In the configuration: master-file lines.
    Records(Vec<String>),
}

impl Boot {
    /// The keys that `other` has other values for: they change with a restart alone.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("server.listen", self.listen != other.listen),
            ("server.freebind", self.freebind != other.freebind),
            ("server.workers", self.workers != other.workers),
            ("limits.tcp_*", self.streams != other.streams),
            ("cache.size", self.cache_size != other.cache_size),
            ("admin.http", self.admin_http != other.admin_http),
            ("admin.socket", self.admin_socket != other.admin_socket),
            ("log.format", self.log_format != other.log_format),
            ("server.sandbox", self.sandbox != other.sandbox),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

impl Live {
    /// The group at `index`.
    pub fn group(&self, index: GroupIndex) -> &Group {
        &self.groups[index.0]
    }
}

impl Transport {
    /// The scheme in front of an address.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// The port where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls | Self::Quic => 853,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for FixedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport != Transport::Udp {
            write!(f, "{}://", self.transport.scheme())?;
        }
        if self.endpoint.port != self.transport.default_port() {
            write!(f, "{}", self.endpoint)?;
        } else if self.endpoint.address.ip.is_ipv6() && self.transport != Transport::Udp {
            write!(f, "[{}]", self.endpoint.address)?;
        } else {
            write!(f, "{}", self.endpoint.address)?;
        }
        if let Some(path) = &self.http_path {
            f.write_str(path)?;
        }
        match &self.tls_name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(server) => server.fmt(f),
            Self::System { path: None } => f.write_str("system"),
            Self::System { path: Some(path) } => write!(f, "system:{}", path.display()),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.qname, self.qtype)
    }
}
