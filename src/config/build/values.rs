//! Single values that need more than parsing: names, networks, addresses, devices and paths.
//!
//! A wrong value is reported and replaced by the default, so that the rest is still checked.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    super::{
        address::{Address, port_was_meant},
        error::Problem,
        file::{Text, Texts},
        source::{Place, Source},
    },
    Builder,
};
use crate::{
    networks::{self, NetworkError},
    wire::Name,
};

const NETWORK_HELP: &str = "write an address and a prefix length: \"10.20.0.0/16\", \"fd00:20::/32\"";

/// The meaning of `private` for clients: RFC 1918, RFC 6598, link-local, unique local.
const PRIVATE: &[&str] =
    &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"];
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];
const ANY: &[&str] = &["0.0.0.0/0", "::/0"];

impl Builder<'_> {
    pub(super) fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(Problem::at(place, message));
    }

    pub(super) fn problem_with_help(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::at(place, message).help(help));
    }

    pub(super) fn name(&mut self, text: &Text) -> Option<Name> {
        match text.value.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.problem(&text.place, format!("\"{}\" is no name: {error}", text.value));
                None
            }
        }
    }

    /// A domain: a name and all names below it. What other programs write for that, and what only `zones` takes, parses
    /// as a name and would silently match nothing.
    pub(super) fn domain(&mut self, text: &Text) -> Option<Name> {
        let value = &text.value;
        if let Some(domain) = behind_wildcards(value) {
            let message = format!("\"{value}\" is no domain: a domain covers all names below it as it is");
            self.problem_with_help(&text.place, message, format!("write \"{domain}\""));
            return None;
        }
        if let Ok(network) | Err(NetworkError::HostBits(network)) = networks::parse(value) {
            let message = format!("\"{value}\" is a network, not a domain");
            let help = format!(
                "for its reverse zones write \"reverse:{network}\" in the `zones` of a rule; elsewhere their names"
            );
            self.problem_with_help(&text.place, message, help);
            return None;
        }
        if value.starts_with("preset:") || value.starts_with("reverse:") {
            let message = format!("\"{value}\" is no domain: only the `zones` of a rule take such words");
            self.problem_with_help(&text.place, message, "write each domain by its name");
            return None;
        }
        self.name(text)
    }

    /// CIDRs, or the words `loopback`, `private` and `any` if `words` allows them; without the key the networks of
    /// `default`.
    pub(super) fn clients(&mut self, texts: Option<&Texts>, default: &[&str]) -> Vec<IpNet> {
        let Some(texts) = texts else {
            return default.iter().filter_map(|word| named_networks(word)).flatten().collect();
        };
        let mut networks = Vec::new();
        for text in &texts.value {
            match named_networks(&text.value) {
                Some(named) => networks.extend(named),
                None => networks.extend(self.network(text, "loopback, private, any or a network")),
            }
        }
        networks
    }

    pub(super) fn networks(&mut self, texts: Option<&Texts>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for text in texts.map(|texts| texts.value.as_slice()).unwrap_or_default() {
            networks.extend(self.network(text, "a network"));
        }
        networks
    }

    fn network(&mut self, text: &Text, wanted: &str) -> Option<IpNet> {
        let error = match networks::parse(&text.value) {
            Ok(network) => return Some(network),
            Err(error) => error,
        };
        let message = match error {
            NetworkError::NotANetwork => format!("\"{}\" is not {wanted}", text.value),
            _ => format!("network \"{}\" {error}", text.value),
        };
        let help = match error {
            NetworkError::HostBits(network) => {
                let address = text.value.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
                let host = address.map_or(network, |address| IpNet::from(address.to_canonical()));
                format!("write \"{network}\", or \"{host}\"")
            }
            NetworkError::ShortMapped => {
                "write the IPv4 network: \"10.0.0.0/8\" for \"::ffff:10.0.0.0/104\"".to_owned()
            }
            _ => NETWORK_HELP.to_owned(),
        };
        self.problem_with_help(&text.place, message, help);
        None
    }

    /// Warns of an IPv6 address that may have been meant with a port.
    pub(super) fn warn_of_meant_port(&mut self, place: &Place, address: &str) {
        if let Some(endpoint) = port_was_meant(address) {
            let message =
                format!("\"{address}\" is one IPv6 address; if {} was meant as a port, it is not", endpoint.port);
            let help = format!("write \"{endpoint}\", or put the address in brackets: \"[{address}]\"");
            self.warnings.push(Problem::at(place, message).help(help));
        }
    }

    /// A path relative to the file that names it; none if empty.
    pub(super) fn path(&self, text: Option<&Text>) -> Option<PathBuf> {
        path(self.sources, text?)
    }

    pub(super) fn beside(&self, place: &Place, path: &str) -> PathBuf {
        beside(self.sources, place, path)
    }

    pub(super) fn source_address(&mut self, text: Option<&Text>) -> Option<Address> {
        let text = text.filter(|text| !text.value.is_empty())?;
        match Address::parse(&text.value) {
            Ok(address) if is_host_address(address.ip) => {
                self.warn_of_meant_port(&text.place, &text.value);
                Some(address)
            }
            Ok(_) => {
                self.problem(&text.place, format!("source \"{}\" is no address that a host can have", text.value));
                None
            }
            Err(error) => {
                self.problem(&text.place, format!("source \"{}\" is no address: {error}", text.value));
                None
            }
        }
    }

    /// The name of a network device (`IFNAMSIZ` is 16, including the final zero).
    pub(super) fn device(&mut self, text: Option<&Text>) -> Option<String> {
        let text = text.filter(|text| !text.value.is_empty())?;
        let name = &text.value;
        if name.len() > 15 || name.contains(['/', ':']) || name.contains(char::is_whitespace) {
            self.problem(&text.place, format!("device \"{name}\" is no name of a network device"));
            return None;
        }
        Some(name.clone())
    }
}

/// A path relative to the file that names it; none if empty.
pub(in crate::config) fn path(sources: &[Source], text: &Text) -> Option<PathBuf> {
    (!text.value.is_empty()).then(|| beside(sources, &text.place, &text.value))
}

fn beside(sources: &[Source], place: &Place, path: &str) -> PathBuf {
    let directory = match place.source_of(sources) {
        Some(Source::File(file)) => Path::new(&file.name).parent(),
        _ => None,
    };
    directory.map_or_else(|| PathBuf::from(path), |directory| directory.join(path))
}

/// The domain behind the last wildcard of a text: "a.example" of "*.a.example"; none if there is no wildcard.
pub(crate) fn behind_wildcards(text: &str) -> Option<&str> {
    let (_, behind) = text.rsplit_once('*')?;
    // "*host.example" has letters right behind it, which are no label of their own.
    let domain = behind.split_once('.').map_or("", |(_, domain)| domain);
    Some(if domain.is_empty() { "." } else { domain })
}

/// Whether the address can belong to a single host.
pub(crate) fn is_host_address(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

fn named_networks(word: &str) -> Option<Vec<IpNet>> {
    let texts = match word {
        "loopback" => LOOPBACK,
        "private" => PRIVATE,
        "any" => ANY,
        _ => return None,
    };
    Some(texts.iter().filter_map(|text| networks::parse(text).ok()).collect())
}

/// A name as people write it: without the final dot.
pub(in crate::config) fn without_dot(name: &Name) -> String {
    let text = name.to_string();
    text.strip_suffix('.').filter(|plain| !plain.is_empty()).map_or_else(|| text.clone(), str::to_owned)
}
