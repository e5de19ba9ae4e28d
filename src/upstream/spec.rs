//! The specification of a group, as the configuration gives it: addresses, limits, policy and probes, all valid.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub(super) use crate::config::DNS_QUERY_PATH as DEFAULT_PATH;
pub use crate::{config::Policy, net::socket::Egress};
use crate::{
    config::{self, Recursion},
    tls::Roots,
    wire::{Class, Name, RecordType, Transport, UpstreamQuery},
};

/// A group of upstream servers.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// Its name, for logs and metrics.
    pub name: String,
    /// Its tiers, the preferred one first.
    pub tiers: Vec<Vec<TierMember>>,
    /// How a server is chosen within a tier.
    pub policy: Policy,
    /// Its limits.
    pub limits: GroupLimits,
    /// How its servers are watched.
    pub health: HealthSpec,
}

/// An entry of a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierMember {
    /// A server at a known address.
    Server(ServerSpec),
    /// Every address of a name.
    Named {
        /// The name, as it is resolved: in small letters, without its last dot.
        name: String,
        /// How to ask the servers at its addresses; of the address in it only the port is used.
        server: ServerSpec,
    },
    /// The host's own name servers, as its resolv.conf says at the time.
    System {
        /// The file; none means systemd-resolved's, else `/etc/resolv.conf`.
        path: Option<PathBuf>,
        /// How to reach them.
        via: Egress,
        /// Distinguishes their labels from those of other servers in their group.
        path_label: String,
    },
}

/// One server, and how to ask it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerSpec {
    /// What carries its messages.
    pub transport: Transport,
    /// Its address and port.
    pub address: SocketAddr,
    /// How to reach it.
    pub via: Egress,
    /// Distinguishes its label from those of other servers in its group, see [`path_label`].
    pub path_label: String,
    /// How its identity is verified over encrypted transports; without it nothing is sent over one.
    pub identity: Option<Identity>,
    /// The path of DNS over HTTPS; none for `/dns-query`, and for other transports.
    pub path: Option<String>,
}

/// How the identity of a server is verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name its certificate must be for; none where that is its address.
    pub name: Option<String>,
    /// The CAs that may have signed it.
    pub roots: Roots,
}

impl ServerSpec {
    /// A server on plain DNS, reached as the routing table says.
    pub fn plain(transport: Transport, address: SocketAddr) -> Self {
        Self { transport, address, via: Egress::default(), path_label: String::new(), identity: None, path: None }
    }

    /// Its address without the port, with its scope.
    fn host(&self) -> String {
        match (self.address, &self.via.scope) {
            (SocketAddr::V6(v6), Some(scope)) => format!("{}%{scope}", v6.ip()),
            (SocketAddr::V6(v6), None) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            (address, _) => address.ip().to_string(),
        }
    }

    /// A server with a verified identity, reached as the routing table says.
    pub fn encrypted(transport: Transport, address: SocketAddr, identity: Identity) -> Self {
        Self {
            transport,
            address,
            via: Egress::default(),
            path_label: String::new(),
            identity: Some(identity),
            path: None,
        }
    }
}

/// Identity of a server: two specifications with the same key mean the same server, and its record is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    via: Egress,
    tls_name: Option<String>,
    http_path: Option<String>,
}

impl ServerKey {
    /// Whether both are the same service of one machine, if by different paths.
    pub(super) fn is_same_machine(&self, other: &Self) -> bool {
        let place = |key: &Self| (key.transport, key.address, key.via.scope.clone());
        place(self) == place(other)
    }
}

impl ServerSpec {
    /// Its identity.
    pub fn key(&self) -> ServerKey {
        let is_https = self.transport == Transport::Https;
        ServerKey {
            transport: self.transport,
            address: self.address,
            via: self.via.clone(),
            tls_name: self.identity.as_ref().and_then(|identity| identity.name.clone()),
            http_path: is_https.then(|| self.path.as_deref().unwrap_or(DEFAULT_PATH).to_owned()),
        }
    }
}

/// How a path differs from its group's, as labels have it: `,source=10.0.0.5,device=vpn0,mark=2`, each where it differs.
pub fn path_label(path: &Egress, group: &Egress) -> String {
    let mut label = String::new();
    for ((key, value), (_, of_group)) in path_words(path).into_iter().zip(path_words(group)) {
        if value != of_group {
            label += &format!(",{key}={value}");
        }
    }
    label
}

/// The parts of a path by their keys, as texts: empty or 0 where the routing table decides.
pub fn path_words(path: &Egress) -> [(&'static str, String); 3] {
    [
        ("source", path.source.map(|source| source.to_string()).unwrap_or_default()),
        ("device", path.device.clone().unwrap_or_default()),
        ("mark", path.mark.to_string()),
    ]
}

/// As in the configuration; it is the label `server` of metrics.
impl std::fmt::Display for ServerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.transport != Transport::Udp {
            write!(f, "{}://", self.transport.label())?;
        }
        let (host, port) = (self.host(), self.address.port());
        match (port == self.transport.default_port(), self.address) {
            (true, SocketAddr::V6(_)) if self.transport != Transport::Udp => write!(f, "[{host}]")?,
            (true, _) => f.write_str(&host)?,
            (false, SocketAddr::V4(_)) => write!(f, "{host}:{port}")?,
            (false, SocketAddr::V6(_)) => write!(f, "[{host}]:{port}")?,
        }
        if self.transport == Transport::Https {
            f.write_str(self.path.as_deref().unwrap_or(DEFAULT_PATH))?;
        }
        if let Some(name) = self.identity.as_ref().and_then(|identity| identity.name.as_ref()) {
            write!(f, "#{name}")?;
        }
        f.write_str(&self.path_label)
    }
}

/// The limits of a group.
#[derive(Debug, Clone)]
pub struct GroupLimits {
    /// The ceiling of one try.
    pub timeout: Duration,
    /// The most tries for one query.
    pub attempts: u8,
    /// Hedges as a share of queries, none where hedging is off.
    pub hedge_budget: Option<f64>,
    /// The most queries a second to one server, none where there is no bound.
    pub max_qps: Option<u32>,
    /// The most queries waiting on the group.
    pub in_flight: usize,
    /// Stream connections kept for each server and worker.
    pub connections: usize,
    /// Local UDP ports kept for each server, over all workers.
    pub source_ports: u16,
    /// The letter case of queries.
    pub case: LetterCase,
    /// The RD flag of queries.
    pub recursion: Recursion,
    /// How long a better tier must have been healthy before it is used again.
    pub fail_back: Duration,
    /// The UDP payload size that queries advertise.
    pub udp_payload: u16,
}

impl GroupLimits {
    /// The limits that the configuration gives a group; `udp_payload` is what queries advertise.
    pub fn of(group: &config::GroupPlan, udp_payload: u16) -> Self {
        Self {
            timeout: group.timeout,
            attempts: u8::try_from(group.attempts).unwrap_or(u8::MAX),
            hedge_budget: group.hedge.map(config::Share::fraction),
            max_qps: group.max_qps.map(NonZeroU32::get),
            in_flight: usize::try_from(group.in_flight).unwrap_or(usize::MAX),
            connections: usize::try_from(group.connections).unwrap_or(usize::MAX),
            source_ports: u16::try_from(group.source_ports).unwrap_or(u16::MAX),
            case: if group.mix_case { LetterCase::Mixed } else { LetterCase::Lower },
            recursion: group.recursion,
            fail_back: group.fail_back,
            udp_payload,
        }
    }
}

/// The limits of a group with only its servers configured.
impl Default for GroupLimits {
    fn default() -> Self {
        Self::of(&config::GroupPlan::default(), config::default_udp_payload())
    }
}

/// The letter case of queries on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterCase {
    /// Small letters.
    Lower,
    /// Each letter at random, and the answer must repeat it (0x20).
    Mixed,
}

/// How servers are watched.
#[derive(Debug, Clone)]
pub struct HealthSpec {
    /// The query of a probe.
    pub probe: UpstreamQuery,
    /// Who chose it.
    pub origin: ProbeOrigin,
    /// Networks that the addresses in a probe's answer must lie in; empty if any answer will do.
    pub expect: Vec<IpNet>,
    /// Between probes of a healthy, idle server.
    pub interval: Duration,
    /// Between probes of a suspect or down one.
    pub interval_down: Duration,
    /// Consecutive failed probes until a server is down.
    pub fall: u32,
    /// Consecutive good ones until it is up again.
    pub rise: u32,
}

/// Who chose the query of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOrigin {
    /// No one: any answer proves the server alive, and traffic may show that the probe is at fault.
    Default,
    /// The configuration: its outcome stands, whatever traffic says.
    Configured,
}

impl HealthSpec {
    /// Whether a probe's outcome stands, whatever traffic says.
    pub fn probe_stands(&self) -> bool {
        self.origin == ProbeOrigin::Configured || !self.expect.is_empty()
    }

    /// The health settings of a group in the configuration.
    pub fn of(health: &config::HealthPlan) -> Self {
        let config::Probe { qname, qtype } = health.probe.clone();
        Self {
            probe: UpstreamQuery { name: qname, qtype, qclass: Class::IN, do_bit: false, cd: false },
            origin: if health.is_probe_written { ProbeOrigin::Configured } else { ProbeOrigin::Default },
            expect: health.expect.clone(),
            interval: health.interval,
            interval_down: health.interval_down,
            fall: health.fall,
            rise: health.rise,
        }
    }

    /// The default intervals with this probe.
    pub fn probing(name: Name, qtype: RecordType) -> Self {
        let probe = config::Probe { qname: name, qtype };
        Self::of(&config::HealthPlan { probe, is_probe_written: true, ..config::GroupPlan::default().health })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_shown_as_the_configuration_has_it() {
        for (transport, address, text) in [
            (Transport::Udp, "10.1.1.53:53", "10.1.1.53"),
            (Transport::Udp, "10.1.1.53:5353", "10.1.1.53:5353"),
            (Transport::Tcp, "10.1.1.53:53", "tcp://10.1.1.53"),
            (Transport::Udp, "[fd00::1]:53", "fd00::1"),
            (Transport::Tcp, "[fd00::1]:54", "tcp://[fd00::1]:54"),
            (Transport::Tcp, "[fd00::1]:53", "tcp://[fd00::1]"),
            (Transport::Tls, "10.1.1.53:853", "tls://10.1.1.53"),
            (Transport::Https, "10.1.1.53:443", "https://10.1.1.53/dns-query"),
            (Transport::Https, "[fd00::1]:8443", "https://[fd00::1]:8443/dns-query"),
            (Transport::Quic, "10.1.1.53:853", "quic://10.1.1.53"),
        ] {
            assert_eq!(ServerSpec::plain(transport, address.parse().unwrap()).to_string(), text);
        }
    }
}
