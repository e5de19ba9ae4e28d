//! unbound.conf: forward zones, stub zones, authoritative zones, and the local data and access of `server:`.

mod sections;

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    site::{
        Data, FixedSiteServer, Forward, Local, Place, Scheme, SelectionPolicy, Site, SiteServer, endpoint, is_listed,
        is_within, network, plain_name, reverse_name,
    },
    source::{Files, Source},
};
use sections::{Attribute, Clause, read};

/// Attributes of `server:` about the process, its log, its tuning, or caching that tidegate does anyway.
const UNNEEDED: &str = "\
    verbosity statistics- extended-statistics num-threads outgoing-range outgoing-port outgoing-num incoming-num \
    msg- rrset- cache- infra- key-cache neg-cache num-queries so- edns-buffer max-udp-size stream-wait do-ip \
    do-udp do-tcp prefer-ip do-daemonize chroot username directory logfile use-syslog log- pidfile root-hints \
    hide- identity version harden- target-fetch use-caps caps- qname-min prefetch deny-any rrset-roundrobin \
    minimal-responses unwanted-reply do-not-query val- trust-anchor auto-trust root-key-sentinel module-config \
    serve-expired serve-original jostle- delay-close tcp- udp- max-reuse tls-upstream-cert tls-cert-bundle \
    tls-win-cert tls-system-cert tls-session tls-ciphers tls-ciphersuites aggressive-nsec ratelimit ip-ratelimit \
    fast-server nat64 ip-transparent ip-freebind ip-dscp use-systemd unblock-lan insecure-lan outbound-msg edns- \
    zonemd iter- disable-dnssec shm- http- answer-cookie cookie-secret sock-queue discard-timeout wait-limit ede";

/// Reads a configuration.
pub(super) fn import(source: &Source, files: &mut Files, site: &mut Site) {
    let mut sections = Vec::new();
    read(source, files, site, &mut sections);
    let mut server = Vec::new();
    let mut has_root = false;
    for section in sections {
        match section.name.as_str() {
            "server" => server.extend(section.attributes),
            "forward-zone" => has_root |= forward_zone(&section, site),
            "stub-zone" => stub_zone(&section, site),
            "auth-zone" => auth_zone(&section, site),
            "remote-control" | "python" | "dynlib" | "cachedb" | "dnstap" | "dnscrypt" => {
                site.unneeded += section.attributes.len();
            }
            name => site.lost(&section.place, format!("{name}:"), "this section has no counterpart"),
        }
    }
    server_section(&server, site);
    if !has_root {
        let why = "Unbound resolves all other names itself, from the root servers; tidegate forwards, and REFUSES names \
                   without a rule: add a rule for \".\"";
        site.lost(&source.place(1), "no forward-zone for \".\"", why);
    }
    site.forwards_private_reverse = has_root && server.iter().any(|a| a.name == "unblock-lan-zones" && a.is_yes());
}

/// Converts a forward zone; returns whether it is for ".".
fn forward_zone(section: &Clause, site: &mut Site) -> bool {
    let Some(zone) = zone_name(section, site) else { return false };
    let has_tls = section
        .attributes
        .iter()
        .any(|a| matches!(&*a.name, "forward-tls-upstream" | "forward-ssl-upstream") && a.is_yes());
    let has_tcp = section.attributes.iter().any(|a| a.name == "forward-tcp-upstream" && a.is_yes());
    let scheme = if has_tls {
        Scheme::Tls
    } else if has_tcp {
        Scheme::Tcp
    } else {
        Scheme::Udp
    };
    let mut servers = Vec::new();
    for attribute in &section.attributes {
        match attribute.name.as_str() {
            "name" | "forward-tls-upstream" | "forward-ssl-upstream" | "forward-tcp-upstream" => {}
            "forward-addr" => servers.extend(server(attribute, scheme, site)),
            "forward-host" => by_name(attribute, scheme, site),
            "forward-first" if attribute.is_yes() => {
                let why =
                    "without an answer Unbound resolves the name itself; tidegate serves a stale answer or SERVFAIL";
                site.differs(&attribute.place, attribute.text(), why);
            }
            "forward-no-cache" if attribute.is_yes() => {
                site.lost(&attribute.place, attribute.text(), "tidegate caches every answer for its TTL");
            }
            "forward-first" | "forward-no-cache" => {}
            _ => site.lost(&attribute.place, attribute.text(), "it has no counterpart"),
        }
    }
    let is_root = zone == ".";
    site.forward(Forward {
        zone,
        servers,
        choice: SelectionPolicy::Fastest,
        clients: Vec::new(),
        place: section.place.clone(),
    });
    is_root
}

fn stub_zone(section: &Clause, site: &mut Site) {
    let Some(zone) = zone_name(section, site) else { return };
    let mut servers = Vec::new();
    for attribute in &section.attributes {
        match attribute.name.as_str() {
            "name" | "stub-prime" | "stub-first" | "stub-no-cache" | "stub-tcp-upstream" => {}
            "stub-addr" => servers.extend(server(attribute, Scheme::Udp, site)),
            "stub-host" => by_name(attribute, Scheme::Udp, site),
            _ => site.lost(&attribute.place, attribute.text(), "it has no counterpart"),
        }
    }
    if !servers.is_empty() {
        let why = "Unbound asked these as authoritative servers and followed their delegations; tidegate takes their \
                   answers as they are";
        site.differs(&section.place, format!("stub-zone {zone}"), why);
    }
    site.forward(Forward {
        zone,
        servers,
        choice: SelectionPolicy::Fastest,
        clients: Vec::new(),
        place: section.place.clone(),
    });
}

fn auth_zone(section: &Clause, site: &mut Site) {
    let Some(zone) = zone_name(section, site) else { return };
    let file = section.attributes.iter().find(|a| a.name == "zonefile");
    let transfer = section.attributes.iter().find(|a| matches!(&*a.name, "primary" | "master" | "url"));
    if let Some(transfer) = transfer {
        let why = "tidegate fetches no zones; copy the zone file here, or forward the zone to that server";
        site.lost(&transfer.place, transfer.text(), why);
    } else if let Some(file) = file {
        let path = file.source.path(file.value());
        site.zone_file(zone, &path, &file.place);
    }
}

fn zone_name(section: &Clause, site: &mut Site) -> Option<String> {
    match section.attributes.iter().find(|attribute| attribute.name == "name") {
        Some(name) => site.name(name.value(), &name.place),
        None => {
            site.lost(&section.place, format!("{}:", section.name), "it has no `name:`");
            None
        }
    }
}

/// `NAME[@PORT][#TLS-NAME]`: Unbound resolves it itself; here somebody else has to, and the old file does not say who.
fn by_name(attribute: &Attribute, scheme: Scheme, site: &mut Site) {
    let text = attribute.value();
    let (text, tls_name) = text.split_once('#').map_or((text, None), |(text, name)| (text, Some(name)));
    let (name, port) = text.split_once('@').map_or((text, None), |(name, port)| (name, Some(port)));
    let scheme = match scheme {
        Scheme::Udp => "",
        Scheme::Tcp => "tcp://",
        Scheme::Tls => "tls://",
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let tls_name = tls_name.map(|name| format!("#{name}")).unwrap_or_default();
    let server = format!("{scheme}{}{port}{tls_name}", name.trim_end_matches('.'));
    let why = format!(
        "write \"{server}\" into `servers`, and into `bootstrap` the address of a DNS server that knows the name without \
         asking here"
    );
    site.lost(&attribute.place, attribute.text(), why);
}

/// `ADDRESS[@PORT][#TLS-NAME]`.
fn server(attribute: &Attribute, scheme: Scheme, site: &mut Site) -> Option<SiteServer> {
    let text = attribute.value();
    let (text, tls_name) = text.split_once('#').map_or((text, None), |(text, name)| (text, Some(name)));
    let (address, port) = text.split_once('@').map_or((text, None), |(address, port)| (address, Some(port)));
    let address: Option<IpAddr> = address.parse().ok();
    let port: Option<Option<u16>> = port.map(|port| port.parse().ok());
    let (Some(address), Some(port)) = (address, port.map_or(Some(None), |port| port.map(Some))) else {
        site.lost(&attribute.place, attribute.text(), "this is not ADDRESS[@PORT][#NAME]");
        return None;
    };
    if scheme == Scheme::Tls && tls_name.is_none() {
        let why = "Unbound does not check the certificate without a #NAME; tidegate expects it to name the address";
        site.differs(&attribute.place, attribute.text(), why);
    }
    let tls_name = tls_name.filter(|_| scheme == Scheme::Tls).map(str::to_owned);
    Some(SiteServer::Fixed(FixedSiteServer { scheme, port, tls_name, ..FixedSiteServer::new(address) }))
}

fn server_section(server: &[Attribute], site: &mut Site) {
    let port = server.iter().rfind(|a| a.name == "port").and_then(|a| a.value().parse().ok()).unwrap_or(53);
    let tls_port = server.iter().rfind(|a| a.name == "tls-port").and_then(|a| a.value().parse().ok()).unwrap_or(853);
    private_addresses(server, site);
    let has_acl = server.iter().any(|a| a.name == "access-control");
    let mut zones: BTreeMap<String, (String, Place)> = BTreeMap::new();
    for attribute in server.iter().filter(|a| a.name == "local-zone") {
        if let Some(zone) = site.name(attribute.value(), &attribute.place) {
            let kind = attribute.values.get(1).cloned().unwrap_or_default();
            zones.insert(zone, (kind, attribute.place.clone()));
        }
    }
    for attribute in server {
        match attribute.name.as_str() {
            "port" | "tls-port" | "local-zone" => {}
            "interface" | "ip-address" => interface(attribute, port, tls_port, site),
            "tls-service-pem" | "ssl-service-pem" => {
                site.tls.certificate = Some(attribute.source.path(attribute.value()))
            }
            "tls-service-key" | "ssl-service-key" => site.tls.key = Some(attribute.source.path(attribute.value())),
            "access-control" => access_control(attribute, site),
            "local-data" => local_data(attribute, &zones, site),
            "local-data-ptr" => local_data_ptr(attribute, &zones, site),
            "private-address" => {}
            "private-domain" => {
                if let Some(domain) = site.name(attribute.value(), &attribute.place) {
                    site.rebind.except.push(domain);
                }
            }
            "domain-insecure" => site.unneeded += 1,
            "outgoing-interface" => {
                let why = "write it as `source` of each [upstream] that it is for";
                site.lost(&attribute.place, attribute.text(), why);
            }
            "ssl-upstream" | "tls-upstream" if attribute.is_yes() => {
                site.lost(&attribute.place, attribute.text(), "write tls:// before the servers that it is for");
            }
            name if is_listed(UNNEEDED, name) => site.unneeded += 1,
            _ if matches!(attribute.value(), "no" | "\"\"") => site.unneeded += 1,
            _ => site.lost(&attribute.place, attribute.text(), "it has no counterpart"),
        }
    }
    if !has_acl {
        site.allow = vec!["loopback".to_owned()];
    } else if !site.allow.iter().any(|network| network == "127.0.0.0/8" || network == "any") {
        // Unbound's default stands beside what is configured.
        site.allow.insert(0, "loopback".to_owned());
    }
    for (zone, (kind, place)) in &zones {
        local_zone(zone, kind, place, site);
    }
}

fn interface(attribute: &Attribute, port: u16, tls_port: u16, site: &mut Site) {
    let text = attribute.value();
    let (address, own) = text.split_once('@').map_or((text, None), |(address, port)| (address, port.parse().ok()));
    let Ok(address) = address.parse::<IpAddr>() else {
        let why = "tidegate listens on addresses: write those of this interface into `listen` in [server]";
        return site.lost(&attribute.place, attribute.text(), why);
    };
    let port = own.unwrap_or(port);
    let listen = endpoint(address, port);
    match port {
        443 => site.tls.https.push(listen),
        port if port == tls_port => site.tls.listen.push(listen),
        _ => site.listen.push(listen),
    }
}

fn access_control(attribute: &Attribute, site: &mut Site) {
    let Some(network) = network(attribute.value()) else {
        return site.lost(&attribute.place, attribute.text(), "this is not a network");
    };
    match attribute.values.get(1).map(String::as_str) {
        Some("allow" | "allow_snoop" | "allow_setrd" | "allow_cookie") => site.allow.push(network),
        Some("refuse" | "refuse_non_local" | "deny_non_local") => site.deny.push(network),
        Some("deny") => {
            site.differs(&attribute.place, attribute.text(), "Unbound says nothing; tidegate answers REFUSED");
            site.deny.push(network);
        }
        _ => site.lost(&attribute.place, attribute.text(), "there is no such action"),
    }
}

/// A record as one line of a master file: its owner as a plain name, the rest as it stands.
fn record(text: &str) -> Option<(String, String)> {
    let (owner, rest) = text.trim().split_once(char::is_whitespace)?;
    let rest = rest.trim();
    (!rest.is_empty()).then_some(())?;
    Some((plain_name(owner)?, rest.to_owned()))
}

fn local_data(attribute: &Attribute, zones: &BTreeMap<String, (String, Place)>, site: &mut Site) {
    let text = attribute.values.join(" ");
    let Some((owner, rest)) = record(&text) else {
        return site.lost(&attribute.place, attribute.text(), "this is not a record");
    };
    add(owner, &rest, zones, &attribute.place, site);
}

fn local_data_ptr(attribute: &Attribute, zones: &BTreeMap<String, (String, Place)>, site: &mut Site) {
    let text = attribute.values.join(" ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (address, ttl, name) = match words[..] {
        [address, name] => (address, "", name),
        [address, ttl, name] => (address, ttl, name),
        _ => ("", "", ""),
    };
    let (Ok(address), Some(name)) = (address.parse(), plain_name(name)) else {
        return site.lost(&attribute.place, attribute.text(), "this is not ADDRESS [TTL] NAME");
    };
    add(reverse_name(address), format!("{ttl} PTR {name}.").trim_start(), zones, &attribute.place, site);
}

/// `private-address`: only all private networks together have a counterpart.
fn private_addresses(server: &[Attribute], site: &mut Site) {
    let listed: Vec<&Attribute> = server.iter().filter(|attribute| attribute.name == "private-address").collect();
    let Some(first) = listed.first() else { return };
    let has = |network: &str| listed.iter().any(|attribute| attribute.value() == network);
    let place = first.place.clone();
    if ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"].into_iter().all(has) {
        site.rebind.is_refused = true;
        let why = "Unbound left such addresses out of answers; here the whole answer is refused with SERVFAIL";
        return site.differs(&place, "private-address", why);
    }
    let networks = listed.iter().map(|attribute| attribute.value()).collect::<Vec<_>>().join(" ");
    let why = "tidegate keeps all private addresses out of a rule's answers or none; set `rebind` where that is wanted";
    site.lost(&place, format!("private-address {networks}"), why);
}

/// Puts a record into its zone; a name of a transparent zone, or of none, is a zone of its own.
fn add(owner: String, rest: &str, zones: &BTreeMap<String, (String, Place)>, place: &Place, site: &mut Site) {
    let holder = zones.iter().filter(|(zone, _)| is_within(&owner, zone)).max_by_key(|(zone, _)| zone.len());
    let (zone, lines) = match holder {
        Some((zone, (kind, _))) if matches!(&**kind, "static" | "deny" | "refuse" | "inform_deny") => {
            (zone.clone(), vec![format!("{owner}. {rest}")])
        }
        Some((zone, (kind, _))) if matches!(&**kind, "redirect" | "inform_redirect") => {
            (zone.clone(), vec![format!("@ {rest}"), format!("* {rest}")])
        }
        _ => (owner, vec![format!("@ {rest}")]),
    };
    site.local(Local { zone, data: Data::Records(lines), place: place.clone() });
}

fn local_zone(zone: &str, kind: &str, place: &Place, site: &mut Site) {
    let what = format!("local-zone: {zone} {kind}");
    let empty = |site: &mut Site, lines: Vec<String>| {
        site.local(Local { zone: zone.to_owned(), data: Data::Records(lines), place: place.clone() });
    };
    match kind {
        // Redirect without data is as good as static.
        "static" | "redirect" => empty(site, Vec::new()),
        "always_nxdomain" => {
            empty(site, Vec::new());
            site.differs(place, what, "the zone's own name is NODATA, and names below it NXDOMAIN");
        }
        "always_nodata" => empty(site, vec!["* TXT \"\"".to_owned()]),
        "always_null" => {
            empty(site, ["@ A 0.0.0.0", "* A 0.0.0.0", "@ AAAA ::", "* AAAA ::"].map(str::to_owned).to_vec());
        }
        "refuse" | "deny" | "always_refuse" | "always_deny" | "inform_deny" => {
            empty(site, Vec::new());
            site.differs(place, what, "Unbound refused or dropped these names; here they are NXDOMAIN");
        }
        "transparent" | "always_transparent" | "nodefault" | "noview" | "inform" => {}
        "typetransparent" => {
            let why = "types that a name has no record of are NODATA here, and names below it that have none NXDOMAIN; Unbound \
                       asked elsewhere for them";
            site.differs(place, what, why);
        }
        _ => site.lost(place, what, "this kind of local zone has no counterpart"),
    }
}
