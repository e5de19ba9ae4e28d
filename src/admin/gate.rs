//! Access control: by the client's address, and by the host name in its request.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::networks::Networks;

/// The access list in force.
#[derive(Debug)]
pub struct Gate {
    allow: Networks<()>,
    hosts: Vec<String>,
}

impl Gate {
    /// `allow` may see everything; `hosts` are the names we are called by, in lower case.
    pub fn new(allow: &[IpNet], hosts: &[String]) -> Self {
        Self { allow: Networks::new(allow.iter().map(|network| (*network, ()))), hosts: hosts.to_vec() }
    }

    /// Whether the client may see more than metrics and health.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.allow.contains(client)
    }

    /// Whether a Host header (RFC 9110 7.2) names us. An address always does: DNS rebinding needs a name.
    pub fn accepts_host(&self, host: &str) -> bool {
        let Some(host) = without_port(host) else { return false };
        if let Some(inside) = host.strip_prefix('[') {
            let address = inside.strip_suffix(']').map(|inside| inside.split('%').next().unwrap_or(inside));
            return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || self.hosts.contains(&host)
    }
}

/// The host of `host` or `host:port`; none if the port is not a number.
fn without_port(text: &str) -> Option<&str> {
    let behind_brackets = text.rfind(']').unwrap_or(0);
    let Some(colon) = text[behind_brackets..].find(':') else { return Some(text) };
    let (host, port) = text.split_at(behind_brackets + colon);
    port[1..].bytes().all(|octet| octet.is_ascii_digit()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_given_names_are_ours() {
        let gate = Gate::new(&[], &["gateway.corp.example".to_owned()]);
        for ours in [
            "127.0.0.1",
            "10.0.0.5:9153",
            "[::1]",
            "[fd00::5]:9153",
            "[fe80::1%25eth0]:9153",
            "localhost",
            "LocalHost:9153",
            "localhost.:9153",
            "gateway.corp.example",
            "Gateway.Corp.Example.:80",
        ] {
            assert!(gate.accepts_host(ours), "{ours}");
        }
        for foreign in [
            "",
            ":9153",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "gateway.corp.example.evil.example:9153",
            "evil.example:127.0.0.1",
            "[localhost]",
            "[::1",
            "::1",
            "[::1]evil.example",
            "user@localhost",
            "10.0.0.5:port",
        ] {
            assert!(!gate.accepts_host(foreign), "{foreign}");
        }
    }

    #[test]
    fn only_listed_networks_are_admitted() {
        let gate = Gate::new(&["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], &[]);
        let admits = |ip: &str| gate.admits(ip.parse().unwrap());
        assert!(admits("127.1.2.3") && admits("::ffff:127.0.0.1") && admits("fd12::1"));
        assert!(!admits("10.0.0.1") && !admits("::1"));
    }
}
