//! Discovery of designated resolvers (RFC 9462): which encrypted listeners the clients of the plain ones may move to.
//!
//! Policy: one SVCB record for each encrypted transport and port in force. Its target is the first name in the
//! certificate that stands for one host, since clients compare the two; without such a name there is no record. Hints
//! are the listeners' own addresses, or the certificate's for listeners on all addresses. HTTP behind a proxy is left
//! out: its certificate is not ours.

use std::net::{IpAddr, SocketAddr};

use crate::{
    config::{Boot, Live},
    tls::CertificateFacts,
    wire::Transport,
    zones::DesignatedResolver,
};

/// The path that queries over HTTPS go to, as a template (RFC 8484 4.1.1).
const HTTP_PATH: &str = "/dns-query{?dns}";

/// The ALPN ids of a transport; none if clients cannot be pointed at it.
const fn alpn(transport: Transport) -> Option<&'static [&'static str]> {
    match transport {
        Transport::Tls => Some(&["dot"]),
        Transport::Https => Some(&["h2", "http/1.1"]),
        Transport::Quic => Some(&["doq"]),
        _ => None,
    }
}

/// The resolvers to designate; `listeners` present the certificate.
pub(super) fn resolvers(
    certificate: Option<&CertificateFacts>,
    listeners: &[(Transport, SocketAddr)],
) -> Vec<DesignatedResolver> {
    let Some(certificate) = certificate else { return Vec::new() };
    let Some(target) = certificate.host().and_then(|name| name.parse().ok()) else { return Vec::new() };
    let mut found: Vec<DesignatedResolver> = Vec::new();
    for (transport, listener) in listeners {
        let Some(alpn) = alpn(*transport) else { continue };
        let addresses = match listener.ip() {
            ip if ip.is_unspecified() => {
                certificate.addresses.iter().copied().filter(|known| known.is_ipv4() == ip.is_ipv4()).collect()
            }
            ip => vec![ip],
        };
        match found.iter_mut().find(|known| known.alpn == alpn && known.port == listener.port()) {
            Some(known) => known.addresses.extend(addresses),
            None => {
                let http_path = (*transport == Transport::Https).then_some(HTTP_PATH);
                let target = crate::wire::Name::clone(&target);
                found.push(DesignatedResolver { target, alpn, port: listener.port(), addresses, http_path });
            }
        }
    }
    found
}

/// Why clients cannot discover the encrypted listeners: the certificate has no name, or lacks the addresses that
/// clients ask at, which must be in it (RFC 9462 4.2).
pub fn undiscoverable(live: &Live, boot: &Boot) -> Option<String> {
    let certificate = live.certificate.as_ref()?;
    let (file, facts) = (certificate.chain.display(), certificate.pair.facts());
    if facts.host().is_none() {
        return Some(format!(
            "certificate {file} names no host: clients will not find the encrypted listeners (RFC 9462)"
        ));
    }
    let is_missing = |ip: &IpAddr| match ip.is_unspecified() {
        true => !facts.addresses.iter().any(|known| known.is_ipv4() == ip.is_ipv4()),
        false => !facts.addresses.contains(ip),
    };
    let listen = boot.listen.iter().map(|listen| listen.endpoint.address.ip);
    let missing: Vec<String> = listen.filter(is_missing).map(|ip| ip.to_string()).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "certificate {file} is not for {}, where clients ask: those that look for encrypted listeners will not use \
             them (RFC 9462 4.2); add the addresses to its alternative names",
            missing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_a_port_are_one_resolver_and_plain_ones_none() {
        let facts = CertificateFacts {
            names: vec!["*.corp.example".to_owned(), "dns.corp.example".to_owned()],
            addresses: vec!["10.1.1.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            not_after: 0,
            is_ca: false,
        };
        let listeners = [
            (Transport::Udp, "10.1.1.53:53"),
            (Transport::Tls, "10.1.1.53:853"),
            (Transport::Tls, "[fd00::53]:853"),
            (Transport::Https, "0.0.0.0:443"),
            (Transport::Quic, "10.1.1.53:8853"),
        ]
        .map(|(transport, address)| (transport, address.parse().unwrap()));
        let found = resolvers(Some(&facts), &listeners);
        let shown: Vec<String> = found
            .iter()
            .map(|one| format!("{} {:?} {} {:?} {:?}", one.target, one.alpn, one.port, one.addresses, one.http_path))
            .collect();
        assert_eq!(
            shown,
            [
                "dns.corp.example. [\"dot\"] 853 [10.1.1.53, fd00::53] None",
                "dns.corp.example. [\"h2\", \"http/1.1\"] 443 [10.1.1.53] Some(\"/dns-query{?dns}\")",
                "dns.corp.example. [\"doq\"] 8853 [10.1.1.53] None",
            ]
        );
        let wildcard = CertificateFacts { names: vec!["*.corp.example".to_owned()], ..facts };
        assert!(resolvers(Some(&wildcard), &listeners).is_empty() && resolvers(None, &listeners).is_empty());
    }
}
