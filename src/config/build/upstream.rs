//! `[upstream.NAME]`: groups, their tiers, their servers and their probes.
//!
//! A group without a probe of its own asks `ZONE SOA` for the first zone of a rule that sends to it, `. NS` where such
//! a rule has ".": both are answered by a server that does its work, whatever it answers.

use std::{fs, io, num::NonZeroU32};

use super::{
    super::{
        address::Endpoint,
        error::Place,
        file::{Located, ServerEntry, Text, Upstream, UpstreamSection},
        group::{
            Bundle, FixedServer, Group, GroupIndex, Health, NetworkPath, Probe, Server, ServerAddress, Share, Transport,
        },
        limits,
        plan::Rule,
    },
    Builder, section,
    values::{flag, usable},
};
use crate::{
    tls::{self, Roots, RootsError},
    wire::{Name, RecordType},
};

const SERVER_HELP: &str = "write [scheme://]address[:port][/path][#tls-name] with udp, tcp, tls, https or quic as \
                           scheme, or system, or system:PATH";
const CA_HELP: &str = "write the path of a file with the CA's certificates as PEM; without ca the system's CAs are \
                       trusted";
const DNS_QUERY: &str = "/dns-query";

const TRANSPORTS: &[Transport] = &[Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic];

impl Builder<'_> {
    pub(super) fn group(&mut self, upstream: &Upstream, index: GroupIndex, rules: &[Rule]) -> Group {
        let table = &upstream.table;
        self.label(&upstream.name, "an upstream");
        let hedge = flag(table.hedge.as_ref(), true);
        let share = share(self.fraction(table.hedge_budget.as_ref(), &limits::HEDGE_BUDGET));
        Group {
            name: upstream.name.value.clone(),
            tiers: self.tiers(upstream),
            policy: self.word(table.policy.as_ref(), &limits::POLICY),
            timeout: self.duration(table.timeout.as_ref(), &limits::TIMEOUT),
            attempts: self.number(table.attempts.as_ref(), &limits::ATTEMPTS),
            hedge: hedge.then_some(share).filter(|share| share.0 > 0),
            max_qps: NonZeroU32::new(self.number(table.max_qps.as_ref(), &limits::MAX_QPS)),
            in_flight: self.number(table.in_flight.as_ref(), &limits::GROUP_IN_FLIGHT),
            connections: self.number(table.connections.as_ref(), &limits::CONNECTIONS),
            source_ports: self.number(table.source_ports.as_ref(), &limits::SOURCE_PORTS),
            mix_case: flag(table.mix_case.as_ref(), false),
            fail_back: self.duration(table.fail_back.as_ref(), &limits::FAIL_BACK),
            ca: self.bundle(table.ca.as_ref()),
            health: self.health(table, default_probe(index, rules)),
        }
    }

    /// The CA certificates of a file, read here so that `check` finds what a start would.
    fn bundle(&mut self, text: Option<&Text>) -> Option<Bundle> {
        let text = text?;
        let path = self.path(Some(text))?;
        let read = fs::read(&path).map_err(BundleError::from).and_then(|pem| Ok(Roots::from_pem(&pem)?));
        match read {
            Ok(roots) => Some(Bundle { path, roots }),
            Err(error) => {
                let message = format!("ca \"{}\" cannot be used: {error}", text.value);
                self.problem_with_help(&text.place, message, CA_HELP);
                None
            }
        }
    }

    fn tiers(&mut self, upstream: &Upstream) -> Vec<Vec<Server>> {
        let Upstream { name, table } = upstream;
        let path = NetworkPath {
            source: self.source_address(table.source.as_ref()),
            device: self.device(table.device.as_ref()),
            mark: self.number(table.mark.as_ref(), &limits::MARK),
        };
        let help = "write servers = [\"10.20.1.10\", \"10.20.2.10\"]";
        let mut tiers = match &table.servers {
            Some(servers) => vec![self.tier(servers, &path, &format!("upstream \"{}\"", name.value))],
            None => {
                self.problem_with_help(&name.place, format!("upstream \"{}\" has no servers", name.value), help);
                return Vec::new();
            }
        };
        for tier in table.backup.iter().flat_map(|backup| &backup.value) {
            tiers.push(self.tier(tier, &path, &format!("a backup tier of upstream \"{}\"", name.value)));
        }
        tiers
    }

    fn tier(&mut self, entries: &Located<Vec<ServerEntry>>, path: &NetworkPath, whose: &str) -> Vec<Server> {
        if entries.value.is_empty() {
            self.problem(&entries.place, format!("{whose} has no servers: the list is empty"));
        }
        let mut servers: Vec<Server> = Vec::new();
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
    ) -> Option<(Server, Place)> {
        let mut path = path.clone();
        let text = match entry {
            ServerEntry::Text(text) => text,
            ServerEntry::Table(table) => {
                path.source = self.source_address(table.source.as_ref()).or(path.source);
                path.device = self.device(table.device.as_ref()).or(path.device);
                if table.mark.is_some() {
                    path.mark = self.number(table.mark.as_ref(), &limits::MARK);
                }
                let Some(address) = &table.address else {
                    let help = "write { address = \"10.20.1.10\", device = \"vpn0\" }";
                    self.problem_with_help(&entries.place, "a server's table has no address", help);
                    return None;
                };
                address
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
        Some((Server { address, path }, text.place.clone()))
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
            None => match parse_server(&text.value) {
                Ok(server) => Some(ServerAddress::Fixed(server)),
                Err(reason) => {
                    let message = format!("server \"{}\" cannot be used: {reason}", text.value);
                    self.problem_with_help(&text.place, message, SERVER_HELP);
                    None
                }
            },
        }
    }

    fn health(&mut self, table: &UpstreamSection, default: Probe) -> Health {
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
        Health {
            probe,
            expect,
            interval: self.duration(health.interval.as_ref(), &limits::INTERVAL),
            interval_down: self.duration(health.interval_down.as_ref(), &limits::INTERVAL_DOWN),
            fall: self.number(health.fall.as_ref(), &limits::FALL),
            rise: self.number(health.rise.as_ref(), &limits::RISE),
        }
    }

    fn probe(&mut self, text: &Text) -> Option<Probe> {
        let mut words = text.value.split_ascii_whitespace();
        let (Some(qname), Some(qtype), None) = (words.next(), words.next(), words.next()) else {
            let message = format!("probe \"{}\" is not a name and a type", text.value);
            self.problem_with_help(&text.place, message, "write \"sts.eu-west-1.amazonaws.com A\"");
            return None;
        };
        let qname = self.name(&Located { value: qname.to_owned(), place: text.place.clone() })?;
        match qtype.parse() {
            // Pseudo types (RFC 6895 3.1) are not questions a server answers plainly.
            Ok(RecordType(41 | 128..=255)) | Err(_) => {
                self.problem(&text.place, format!("probe \"{}\" asks for no record type", text.value));
                None
            }
            Ok(qtype) => Some(Probe { qname, qtype }),
        }
    }
}

fn default_probe(group: GroupIndex, rules: &[Rule]) -> Probe {
    let zones = || rules.iter().filter(|rule| rule.to == group).flat_map(|rule| &rule.zones);
    match zones().next() {
        Some(first) if zones().all(|zone| !zone.is_root()) => Probe { qname: first.clone(), qtype: RecordType::SOA },
        _ => Probe { qname: Name::root(), qtype: RecordType::NS },
    }
}

/// A share in millionths; the bounds keep it from 0 to 1.
fn share(fraction: f64) -> Share {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and a million")]
    Share((fraction.clamp(0.0, 1.0) * 1e6).round() as u32)
}

/// Why a file is no bundle of CA certificates.
#[derive(Debug, thiserror::Error)]
enum BundleError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Roots(#[from] RootsError),
}

/// Why a text is no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ServerError {
    #[error("there is no scheme \"{0}\"")]
    Scheme(String),
    #[error("{0}")]
    Address(#[from] super::super::address::AddressError),
    #[error("no server can have this address")]
    Unusable,
    #[error("port 0 is no port of a server")]
    Port,
    #[error("only https takes a path")]
    Path,
    #[error("only tls, https and quic take a name behind \"#\"")]
    TlsName,
    #[error("the name behind \"#\" is no name of a host")]
    BadTlsName,
}

/// Whether `text` is how `server` was written.
pub(super) fn names(text: &str, server: &FixedServer) -> bool {
    parse_server(text).as_ref() == Ok(server)
}

fn parse_server(text: &str) -> Result<FixedServer, ServerError> {
    let (transport, rest) = match text.split_once("://") {
        None => (Transport::Udp, text),
        Some((scheme, rest)) => {
            let transport = TRANSPORTS.iter().find(|transport| transport.scheme() == scheme);
            (*transport.ok_or_else(|| ServerError::Scheme(scheme.to_owned()))?, rest)
        }
    };
    let (rest, tls_name) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(name)),
        None => (rest, None),
    };
    let (place, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let endpoint = Endpoint::parse(place, transport.default_port())?;
    if !usable(endpoint.address.ip) {
        return Err(ServerError::Unusable);
    }
    if endpoint.port == 0 {
        return Err(ServerError::Port);
    }
    if path.is_some() && transport != Transport::Https {
        return Err(ServerError::Path);
    }
    if tls_name.is_some() && matches!(transport, Transport::Udp | Transport::Tcp) {
        return Err(ServerError::TlsName);
    }
    let tls_name = tls_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    if tls_name.as_ref().is_some_and(|name| !tls::is_server_name(name)) {
        return Err(ServerError::BadTlsName);
    }
    let http_path = (transport == Transport::Https).then(|| path.unwrap_or(DNS_QUERY).to_owned());
    Ok(FixedServer { transport, endpoint, http_path, tls_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_read_and_print() {
        for (text, printed) in [
            ("10.1.1.53", "10.1.1.53"),
            ("udp://10.1.1.53:53", "10.1.1.53"),
            ("10.1.1.53:5353", "10.1.1.53:5353"),
            ("2001:db8::53", "2001:db8::53"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353"),
            ("tcp://10.1.1.54", "tcp://10.1.1.54"),
            ("tcp://[2001:db8::1]", "tcp://[2001:db8::1]"),
            ("tls://10.1.1.55#DNS.corp.example.", "tls://10.1.1.55#dns.corp.example"),
            ("https://10.1.1.56#dns.corp.example", "https://10.1.1.56/dns-query#dns.corp.example"),
            ("https://[2001:db8::1]:8443/q?x", "https://[2001:db8::1]:8443/q?x"),
            ("quic://10.1.1.57", "quic://10.1.1.57"),
        ] {
            assert_eq!(parse_server(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_server_says_why() {
        for (text, reason) in [
            ("dns.example", "it is not an IPv4 or IPv6 address"),
            ("ftp://10.1.1.1", "there is no scheme \"ftp\""),
            ("10.1.1.1/dns-query", "only https takes a path"),
            ("tls://10.1.1.1/x", "only https takes a path"),
            ("10.1.1.1#dns.example", "only tls, https and quic take a name behind \"#\""),
            ("tls://10.1.1.1#", "the name behind \"#\" is no name of a host"),
            ("10.1.1.1:0", "port 0 is no port of a server"),
            ("0.0.0.0", "no server can have this address"),
            ("224.0.0.1", "no server can have this address"),
            ("[::1", "an IPv6 address with a port is written [address]:port"),
            ("", "it is empty"),
        ] {
            assert_eq!(parse_server(text).unwrap_err().to_string(), reason, "{text}");
        }
    }
}
