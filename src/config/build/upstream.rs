//! `[upstream.NAME]`: groups, their tiers, their servers and their probes.
//!
//! A group without a configured probe asks `ZONE SOA` for the first zone of a rule that sends to it, or `. NS` if such
//! a rule has ".". A working server answers both, whatever the answer is.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::{
    super::{
        address::{Address, Endpoint},
        error::Problem,
        file::{HealthSection, Located, MAX_SERVERS, ServerEntry, Text, Texts, Upstream, UpstreamSection},
        group::{
            Bundle, FixedServer, GroupIndex, GroupPlan, HealthPlan, NamedServer, NetworkPath, Probe, Recursion,
            ServerAddress, ServerPlan, Share,
        },
        plan::RulePlan,
        server::{ServerError, is_by_name},
        source::Place,
    },
    Builder, is_host_address, section, without_dot,
};
use crate::{
    files,
    plural::Plural,
    system_error::SystemError,
    tls::{Roots, RootsError},
    wire::{Name, RecordType},
};

const SERVER_HELP: &str = "write [scheme://]address[:port][/path][#tls-name] with udp, tcp, tls, https or quic as \
                           scheme, or system, or system:PATH";
const BY_NAME_HELP: &str =
    "write [scheme://]name[:port][/path][#tls-name] with the full name, as in tls://dns.corp.example";
const BOOTSTRAP_HELP: &str = "write bootstrap = [\"10.1.1.53\"]: DNS servers that know the addresses of the servers by \
                              name, never this tidegate";
const CA_HELP: &str = "write the path of a file with the CA's certificates as PEM; without ca the system's CAs are \
                       trusted";
impl Builder<'_> {
    pub(super) fn group(&mut self, upstream: &Upstream, index: GroupIndex, rules: &[RulePlan]) -> GroupPlan {
        let table = &upstream.table;
        self.check_named(upstream, index, rules);
        self.check_label(&upstream.name, "an upstream");
        let path = NetworkPath {
            source: self.source_address(table.source.as_ref()),
            device: self.device(table.device.as_ref()),
            mark: table.mark(),
        };
        GroupPlan {
            name: upstream.name.value.clone(),
            tiers: self.tiers(upstream, &path),
            bootstrap: self.bootstrap(table.bootstrap.as_ref()),
            path,
            ca: self.bundle(table.ca.as_ref()),
            health: self.health(table, default_probe(index, rules)),
            ..settings(table)
        }
    }

    /// The servers that are asked for the addresses of servers by name.
    fn bootstrap(&mut self, texts: Option<&Texts>) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for text in texts.map(|texts| texts.value.as_slice()).unwrap_or_default() {
            let message = match Endpoint::parse(&text.value, 53) {
                Ok(Endpoint { address, port })
                    if address.scope.is_none() && is_host_address(address.ip) && port != 0 =>
                {
                    let server = SocketAddr::new(address.ip, port);
                    if servers.contains(&server) {
                        self.problem(&text.place, format!("bootstrap names {} twice", text.value));
                    } else {
                        servers.push(server);
                    }
                    continue;
                }
                Ok(_) => format!("bootstrap server \"{}\" cannot be used: no server has this address", text.value),
                Err(error) => {
                    format!(
                        "bootstrap server \"{}\" cannot be used: {error}, and a name would need one too",
                        text.value
                    )
                }
            };
            self.problem_with_help(&text.place, message, BOOTSTRAP_HELP);
        }
        servers
    }

    /// Reports a server by name in a group without bootstrap servers, and warns of one whose name is in a zone that it
    /// answers for: right for a load balancer's below amazonaws.com, as long as the bootstrap servers do not ask here.
    fn check_named(&mut self, upstream: &Upstream, index: GroupIndex, rules: &[RulePlan]) {
        let group = &upstream.name.value;
        let has_bootstrap = upstream.table.bootstrap.as_ref().is_some_and(|texts| !texts.value.is_empty());
        for text in upstream.server_texts().filter(|text| is_by_name(&text.value)) {
            let Ok(server) = text.value.parse::<NamedServer>() else { continue };
            if !has_bootstrap {
                let message = format!("server {server} is given by name, and upstream \"{group}\" has no bootstrap");
                self.problem_with_help(&text.place, message, BOOTSTRAP_HELP);
            }
            let zones = rules.iter().flat_map(|rule| rule.zones.iter().map(move |zone| (zone, rule)));
            let holding = zones.filter(|(zone, _)| !zone.is_root() && server.name.is_within(zone));
            let longest = holding.max_by_key(|(zone, _)| zone.labels().count());
            if let Some((zone, rule)) = longest.filter(|(_, rule)| rule.to == index) {
                let message = format!(
                    "server {server} has a name within {}, which rule \"{}\" sends to this very upstream \"{group}\": \
                     its bootstrap servers must know it without asking this tidegate",
                    without_dot(zone),
                    rule.name
                );
                let help = "let bootstrap name servers that do not forward the name to here, or write the addresses";
                self.warnings.push(Problem::at(&text.place, message).help(help));
            }
        }
    }

    /// The CA certificates in a file, read here so that `check` finds the same errors as a start.
    fn bundle(&mut self, text: Option<&Text>) -> Option<Bundle> {
        let text = text?;
        let path = self.path(Some(text))?;
        let read = files::read(&path).map_err(BundleError::from).and_then(|pem| Ok(Roots::from_pem(&pem)?));
        match read {
            Ok(roots) => Some(Bundle { path, roots }),
            Err(error) => {
                let message = format!("ca \"{}\" cannot be used: {error}", text.value);
                self.problem_with_help(&text.place, message, CA_HELP);
                None
            }
        }
    }

    fn tiers(&mut self, upstream: &Upstream, path: &NetworkPath) -> Vec<Vec<ServerPlan>> {
        let Upstream { name, table } = upstream;
        let help = "write servers = [\"10.20.1.10\", \"10.20.2.10\"]";
        let mut tiers = match &table.servers {
            Some(servers) => vec![self.tier(servers, path, &format!("upstream \"{}\"", name.value))],
            None => {
                self.problem_with_help(&name.place, format!("upstream \"{}\" has no servers", name.value), help);
                return Vec::new();
            }
        };
        for tier in table.backup.iter().flat_map(|backup| &backup.value) {
            tiers.push(self.tier(tier, path, &format!("a backup tier of upstream \"{}\"", name.value)));
        }
        let count = tiers.iter().map(Vec::len).sum::<usize>();
        if count > MAX_SERVERS {
            let most = MAX_SERVERS;
            let message =
                format!("upstream \"{}\" has {}; a group has at most {most}", name.value, Plural(count, "server"));
            self.problem(&name.place, message);
        }
        tiers
    }

    fn tier(&mut self, entries: &Located<Vec<ServerEntry>>, path: &NetworkPath, whose: &str) -> Vec<ServerPlan> {
        if entries.value.is_empty() {
            self.problem(&entries.place, format!("{whose} has no servers: the list is empty"));
        }
        let mut servers: Vec<ServerPlan> = Vec::new();
        for entry in &entries.value {
            let Some((server, place)) = self.server(entry, path, entries) else { continue };
            if servers.contains(&server) {
                self.problem(&place, format!("{whose} names {} twice", server.address));
                continue;
            }
            servers.push(server);
        }
        servers
    }

    fn server(
        &mut self,
        entry: &ServerEntry,
        path: &NetworkPath,
        entries: &Located<Vec<ServerEntry>>,
    ) -> Option<(ServerPlan, Place)> {
        let mut path = path.clone();
        let text = match entry {
            ServerEntry::Text(text) => text,
            ServerEntry::Table(table) => {
                path.source = self.source_address(table.source.as_ref()).or(path.source);
                path.device = self.device(table.device.as_ref()).or(path.device);
                if table.mark.is_some() {
                    path.mark = table.mark();
                }
                let Some(server) = &table.server else {
                    let help = "write { server = \"10.20.1.10\", device = \"vpn0\" }";
                    self.problem_with_help(&entries.place, "a server's table has no `server`", help);
                    return None;
                };
                server
            }
        };
        let address = self.server_address(text)?;
        if let (ServerAddress::Fixed(server), Some(source)) = (&address, &path.source)
            && server.endpoint.address.ip.is_ipv4() != source.ip.is_ipv4()
        {
            let message = format!("server {server} cannot be reached from source {source}: one is IPv4, one IPv6");
            self.problem(&text.place, message);
            return None;
        }
        if let ServerAddress::Fixed(server) = &address
            && let Address { ip: IpAddr::V6(ip), scope: None } = server.endpoint.address
            && ip.is_unicast_link_local()
            && path.device.is_none()
        {
            let message = format!("server {server} is on one link alone, and it is not said which");
            self.problem_with_help(&text.place, message, format!("add the interface: {ip}%eth0"));
            return None;
        }
        Some((ServerPlan { address, path }, text.place))
    }

    fn server_address(&mut self, text: &Text) -> Option<ServerAddress> {
        if text.value == "system" {
            return Some(ServerAddress::System { path: None });
        }
        match text.value.strip_prefix("system:") {
            Some("") => {
                self.problem(&text.place, "\"system:\" must be followed by the path of a resolv.conf");
                None
            }
            Some(path) => Some(ServerAddress::System { path: Some(self.beside(&text.place, path)) }),
            None if is_by_name(&text.value) => match text.value.parse() {
                Ok(server) => Some(ServerAddress::Named(server)),
                Err(reason) => self.no_server(text, &reason, BY_NAME_HELP),
            },
            None => match text.value.parse::<FixedServer>() {
                Ok(server) => {
                    let address = text.value.split_once("://").map_or(text.value.as_str(), |(_, rest)| rest);
                    self.warn_of_meant_port(&text.place, address.split(['/', '#']).next().unwrap_or(address));
                    Some(ServerAddress::Fixed(server))
                }
                Err(reason) => self.no_server(text, &reason, SERVER_HELP),
            },
        }
    }

    fn no_server(&mut self, text: &Text, reason: &ServerError, help: &str) -> Option<ServerAddress> {
        self.problem_with_help(&text.place, format!("server \"{}\" cannot be used: {reason}", text.value), help);
        None
    }

    fn health(&mut self, table: &UpstreamSection, default: Probe) -> HealthPlan {
        let health = section(table.health.as_ref());
        let written = health.probe.as_ref().filter(|probe| !probe.value.is_empty());
        let probe = match written {
            Some(text) => self.probe(text).unwrap_or(default),
            None => default,
        };
        let expect = self.networks(health.expect.as_ref());
        if let Some(texts) = health.expect.as_ref().filter(|texts| !texts.value.is_empty())
            && !matches!(probe.qtype, RecordType::A | RecordType::AAAA)
        {
            let message = format!("expect needs a probe for A or AAAA, and the probe is \"{probe}\"");
            self.problem_with_help(&texts.place, message, "write probe = \"sts.eu-west-1.amazonaws.com A\"");
        }
        HealthPlan { probe, is_probe_written: written.is_some(), expect, ..health_settings(&health) }
    }

    fn probe(&mut self, text: &Text) -> Option<Probe> {
        let mut words = text.value.split_ascii_whitespace();
        let (Some(qname), Some(qtype), None) = (words.next(), words.next(), words.next()) else {
            let message = format!("probe \"{}\" is not a name and a type", text.value);
            self.problem_with_help(&text.place, message, "write \"sts.eu-west-1.amazonaws.com A\"");
            return None;
        };
        let qname = self.name(&Located::new(qname.to_owned(), text.place))?;
        match qtype.parse() {
            // Pseudo types (RFC 6895 3.1) are not ordinary queries.
            Ok(RecordType(41 | 128..=255)) | Err(_) => {
                self.problem(&text.place, format!("probe \"{}\" asks for no record type", text.value));
                None
            }
            Ok(qtype) => Some(Probe { qname, qtype }),
        }
    }
}

/// A group with the settings of its table alone, without servers.
fn settings(table: &UpstreamSection) -> GroupPlan {
    let share = Share::of(table.hedge_budget());
    GroupPlan {
        name: String::new(),
        tiers: Vec::new(),
        bootstrap: Vec::new(),
        path: NetworkPath::default(),
        policy: table.policy(),
        timeout: table.timeout(),
        attempts: table.attempts(),
        hedge: table.hedge().then_some(share).filter(|share| share.0 > 0),
        max_qps: NonZeroU32::new(table.max_qps()),
        in_flight: table.in_flight(),
        connections: table.connections(),
        source_ports: table.source_ports(),
        mix_case: table.mix_case(),
        recursion: Recursion::Desired,
        fail_back: table.fail_back(),
        ca: None,
        health: health_settings(&table.health()),
    }
}

/// Health settings without a probe.
fn health_settings(table: &HealthSection) -> HealthPlan {
    HealthPlan {
        probe: Probe { qname: Name::root(), qtype: RecordType::NS },
        is_probe_written: false,
        expect: Vec::new(),
        interval: table.interval(),
        interval_down: table.interval_down(),
        fall: table.fall(),
        rise: table.rise(),
    }
}

/// A group with every default, without name or servers.
impl Default for GroupPlan {
    fn default() -> Self {
        settings(&UpstreamSection::default())
    }
}

fn default_probe(group: GroupIndex, rules: &[RulePlan]) -> Probe {
    let zones = || rules.iter().filter(|rule| rule.to == group).flat_map(|rule| &*rule.zones);
    match zones().next() {
        Some(first) if zones().all(|zone| !zone.is_root()) => Probe { qname: first.clone(), qtype: RecordType::SOA },
        _ => Probe { qname: Name::root(), qtype: RecordType::NS },
    }
}

/// Why a file is not a bundle of CA certificates.
#[derive(Debug, thiserror::Error)]
enum BundleError {
    #[error("{}", SystemError(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Roots(#[from] RootsError),
}

/// Whether `text` is a way to write `server`.
pub(super) fn is_written_as(text: &str, server: &FixedServer) -> bool {
    text.parse::<FixedServer>().as_ref() == Ok(server)
}
