//! The part of the plan about upstreams: groups, their tiers and servers, the paths to them, their health.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::address::{Address, Endpoint};
use crate::{
    tls::Roots,
    wire::{Name, RecordType, Transport},
};

/// The path of DNS over HTTPS where none is written.
pub const DNS_QUERY_PATH: &str = "/dns-query";

/// The index of a group in [`Live::groups`](super::Live::groups).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub usize);

/// A group of upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupPlan {
    /// Its name in the file.
    pub name: String,
    /// The tiers in order; a tier is empty only if it consisted of our own listeners, which are left out.
    pub tiers: Vec<Vec<ServerPlan>>,
    /// The path to servers that have none of their own.
    pub path: NetworkPath,
    /// How a server is chosen within a tier.
    pub policy: Policy,
    /// The ceiling of one try.
    pub timeout: Duration,
    /// Tries for one query over all servers; at least 1.
    pub attempts: u32,
    /// Hedges as a share of queries; none = no hedging.
    pub hedge: Option<Share>,
    /// Queries a second to each server address; none = no limit.
    pub max_qps: Option<NonZeroU32>,
    /// Queries that may wait on this group.
    pub in_flight: u32,
    /// Stream connections kept for each server and worker.
    pub connections: u32,
    /// Random local ports kept for each server.
    pub source_ports: u32,
    /// Whether upstream queries get random letter case (0x20).
    pub mix_case: bool,
    /// Whether queries to its servers ask for recursion.
    pub recursion: Recursion,
    /// How long a better tier must be healthy before it is used again.
    pub fail_back: Duration,
    /// Who is asked for the addresses of servers that are given by name; never empty where there are some.
    pub bootstrap: Vec<SocketAddr>,
    /// PEM bundle of roots for encrypted transports; none = the system's.
    pub ca: Option<Bundle>,
    /// How its servers are probed.
    pub health: HealthPlan,
}

/// Whether a query asks for recursion (RD).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recursion {
    /// RD is set: the servers are resolvers.
    Desired,
    /// RD is clear: the servers are those of a delegation.
    NotDesired,
}

/// A PEM bundle of roots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// The file.
    pub path: PathBuf,
    /// Its content when it was read.
    pub roots: Roots,
}

/// A server to forward to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerPlan {
    /// Its address.
    pub address: ServerAddress,
    /// The path of queries to it.
    pub path: NetworkPath,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A server that the file names.
    Fixed(FixedServer),
    /// All addresses of a name, resolved while the daemon runs.
    Named(NamedServer),
    /// The servers in resolv.conf, watched.
    System {
        /// The file; none = systemd-resolved's, else /etc/resolv.conf.
        path: Option<PathBuf>,
    },
}

/// A server that the file names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FixedServer {
    /// Its transport.
    pub transport: Transport,
    /// Its address and port.
    pub endpoint: Endpoint,
    /// The path of DNS over HTTPS, with its slash; none for other transports.
    pub http_path: Option<String>,
    /// The name its certificate must be for; none = its address. Always none without encryption.
    pub tls_name: Option<String>,
}

/// A server that the file gives by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedServer {
    /// What carries the messages.
    pub transport: Transport,
    /// The name of the host, fully qualified.
    pub name: Name,
    /// The port.
    pub port: u16,
    /// The path of DNS over HTTPS, with its slash; none for other transports.
    pub http_path: Option<String>,
    /// The name its certificate must have, by default its own; none without encryption.
    pub tls_name: Option<String>,
}

impl NamedServer {
    /// The name as people write it: in small letters, without its last dot.
    pub fn host(&self) -> String {
        self.name.to_string().trim_end_matches('.').to_ascii_lowercase()
    }

    /// The server at one of its addresses.
    pub fn at(&self, ip: IpAddr) -> FixedServer {
        FixedServer {
            transport: self.transport,
            endpoint: SocketAddr::new(ip, self.port).into(),
            http_path: self.http_path.clone(),
            tls_name: self.tls_name.clone(),
        }
    }
}

/// The path to a server, as far as this host decides it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NetworkPath {
    /// The local address that queries leave from.
    pub source: Option<Address>,
    /// The network device that queries leave by.
    pub device: Option<String>,
    /// The firewall mark; 0 = none.
    pub mark: u32,
}

/// How a server is chosen within a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Evenly among all that are about as fast as the fastest.
    Fastest,
    /// Evenly among all.
    Spread,
    /// The first healthy one.
    Ordered,
}

/// A share from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// The share of a fraction, which is taken to lie from 0 to 1.
    pub(super) fn of(fraction: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and a million")]
        Self((fraction.clamp(0.0, 1.0) * 1e6).round() as u32)
    }

    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// How the health of a group's servers is probed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthPlan {
    /// The query of a probe.
    pub probe: Probe,
    /// Whether the file sets the probe; a default probe proves less.
    pub is_probe_written: bool,
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

/// The query of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Its name.
    pub qname: Name,
    /// Its type.
    pub qtype: RecordType,
}

impl fmt::Display for FixedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport != Transport::Udp {
            write!(f, "{}://", self.transport.label())?;
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

impl fmt::Display for NamedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host();
        if self.transport != Transport::Udp {
            write!(f, "{}://", self.transport.label())?;
        }
        f.write_str(&host)?;
        if self.port != self.transport.default_port() {
            write!(f, ":{}", self.port)?;
        }
        if let Some(path) = &self.http_path {
            f.write_str(path)?;
        }
        match self.tls_name.as_ref().filter(|name| **name != host) {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(server) => server.fmt(f),
            Self::Named(server) => server.fmt(f),
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
