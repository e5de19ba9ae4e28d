//! Corefile: server blocks `KEYS { plugins }`, as Caddy 1 wrote them.

mod lines;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use self::lines::{Line, expand, read};
use super::{
    site::{
        FixedSiteServer, Forward, Scheme, SelectionPolicy, Site, SiteServer, endpoint, is_within, network, plain_name,
    },
    source::{Files, Source},
};

/// Plugins about the process, its log, its health and its cache, which tidegate has built in.
const UNNEEDED: &str = "\
    cache log errors health ready prometheus reload loop loadbalance cancel debug pprof bufsize trace dnstap \
    metadata root any chaos minimal timeouts local multisocket quic on nsid";

/// A server block: its parsed keys, and its plugins.
struct ServerBlock<'a> {
    zones: Vec<String>,
    lines: &'a [Line],
    source: &'a Source,
}

/// Where a block is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    zone: String,
    scheme: String,
    port: u16,
}

/// Reads a configuration.
pub(super) fn import(source: &Source, files: &mut Files, site: &mut Site) {
    let lines = read(source, files, site, 0);
    let mut snippets: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut blocks = Vec::new();
    for line in lines {
        match line.name().strip_prefix('(').and_then(|name| name.strip_suffix(')')) {
            Some(name) => drop(snippets.insert(name.to_owned(), line.block)),
            None => blocks.push(line),
        }
    }
    let mut has_root = false;
    let mut ports = Vec::new();
    for block in &blocks {
        let keys = keys(block, site);
        let lines = expand(&block.block, &snippets, source, files, site, 0);
        listen(block, &keys, &lines, site);
        ports.extend(keys.iter().map(|key| key.port));
        let zones: Vec<String> = keys.iter().map(|key| key.zone.clone()).collect();
        has_root |= plugins(&ServerBlock { zones, lines: &lines, source }, site);
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > 1 && site.tls == super::site::Tls::default() {
        let why = "tidegate answers all its names on each of its ports";
        site.differs(&source.place(1), "server blocks on several ports", why);
    }
    if site.allow.is_empty() {
        site.allow = vec!["any".to_owned()];
    }
    site.forwards_private_reverse = has_root;
}

fn keys(block: &Line, site: &mut Site) -> Vec<Key> {
    let mut keys = Vec::new();
    for word in block.words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
        let (scheme, rest) = word.split_once("://").unwrap_or(("dns", word));
        let default = match scheme {
            "tls" | "quic" => 853,
            "https" => 443,
            "grpc" => 443,
            _ => 53,
        };
        // The port is behind the last colon, unless that belongs to an IPv6 network.
        let (zone, port) = match rest.rsplit_once(':') {
            Some((zone, port)) if rest.parse::<ipnet::IpNet>().is_err() => match port.parse() {
                Ok(port) => (zone, port),
                Err(_) => {
                    site.lost(&block.place, word, "this is not ZONE:PORT");
                    continue;
                }
            },
            _ => (rest, default),
        };
        let zones = match zone.parse::<ipnet::IpNet>() {
            Ok(network) => {
                crate::config::reverse_zones(network).iter().filter_map(|zone| plain_name(&zone.to_string())).collect()
            }
            Err(_) => site.name(if zone.is_empty() { "." } else { zone }, &block.place).into_iter().collect::<Vec<_>>(),
        };
        keys.extend(zones.into_iter().map(|zone| Key { zone, scheme: scheme.to_owned(), port }));
    }
    keys
}

fn listen(block: &Line, keys: &[Key], lines: &[Line], site: &mut Site) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for line in lines.iter().filter(|line| line.name() == "bind") {
        for word in line.arguments() {
            match word.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => site.lost(&line.place, line.text(), "tidegate listens on addresses, not on interfaces"),
            }
        }
    }
    if addresses.is_empty() {
        addresses = vec![IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
    }
    for key in keys {
        for &address in &addresses {
            let endpoint = endpoint(address, key.port);
            let list = match key.scheme.as_str() {
                "dns" => &mut site.listen,
                "tls" => &mut site.tls.listen,
                "https" => &mut site.tls.https,
                scheme => {
                    site.lost(&block.place, format!("{scheme}://"), "write this listener into [server.tls] yourself");
                    break;
                }
            };
            if !list.contains(&endpoint) {
                list.push(endpoint);
            }
        }
    }
}

/// Converts the plugins; returns whether there is a rule for ".".
fn plugins(server: &ServerBlock<'_>, site: &mut Site) -> bool {
    let mut has_root = false;
    let mut forwarded = Vec::new();
    for line in server.lines {
        match line.name() {
            "forward" | "proxy" => has_root |= forward(server, line, &mut forwarded, site),
            "hosts" => hosts(server, line, site),
            "file" => file(server, line, site),
            "acl" => acl(line, site),
            "tls" => tls(server, line, site),
            "bind" => {}
            name if UNNEEDED.split_whitespace().any(|word| word == name) => site.unneeded += 1,
            name => {
                let why = match name {
                    "template" => "tidegate makes no records from templates; write them into a [[local]] zone",
                    "rewrite" => "tidegate rewrites no names",
                    "kubernetes" => "tidegate does not ask Kubernetes; forward cluster.local to CoreDNS",
                    "route53" => "tidegate does not ask the API; forward the zone to an inbound endpoint",
                    "secondary" | "transfer" => "tidegate fetches no zones; forward the zone to its primary server",
                    "auto" => "name each zone and its file in a [[local]] table",
                    "view" => "expressions have no counterpart; write networks into `clients` of a rule",
                    _ => "this plugin has no counterpart",
                };
                site.lost(&line.place, line.text(), why);
            }
        }
    }
    has_root
}

/// `forward FROM TO… { options }`: for the names that are the server's and below FROM.
fn forward(server: &ServerBlock<'_>, line: &Line, forwarded: &mut Vec<String>, site: &mut Site) -> bool {
    let mut arguments = line.arguments();
    let Some(from) = arguments.next().and_then(|from| site.name(from, &line.place)) else { return false };
    let mut choice = SelectionPolicy::Spread;
    let (mut is_tcp, mut tls_name, mut except) = (false, None, Vec::new());
    for option in &line.block {
        let word = option.words.get(1).map(String::as_str);
        match (option.name(), word) {
            ("policy", Some("sequential")) => choice = SelectionPolicy::Ordered,
            ("policy", _) => choice = SelectionPolicy::Spread,
            ("force_tcp", _) => is_tcp = true,
            ("tls_servername", Some(name)) => tls_name = Some(name.to_owned()),
            ("except", _) => except.extend(option.arguments().map(str::to_owned)),
            ("tls", None)
            | (
                "prefer_udp"
                | "expire"
                | "max_fails"
                | "health_check"
                | "max_concurrent"
                | "failfast_all_unhealthy_upstreams",
                _,
            ) => {
                site.unneeded += 1;
            }
            ("next" | "failover", _) => {
                let why = "each failure of a server is asked of the next one; no other plugin follows";
                site.differs(&option.place, option.text(), why);
            }
            _ => site.lost(&option.place, option.text(), "it has no counterpart"),
        }
    }
    let servers: Vec<SiteServer> =
        arguments.filter_map(|to| target(to, is_tcp, tls_name.as_deref(), line, site)).collect();
    let mut has_root = false;
    for zone in &server.zones {
        let zone = if is_within(zone, &from) {
            zone.clone()
        } else if is_within(&from, zone) {
            from.clone()
        } else {
            site.lost(&line.place, line.text(), format!("{from} is outside of {zone}: no query came here"));
            continue;
        };
        if forwarded.contains(&zone) {
            continue;
        }
        forwarded.push(zone.clone());
        has_root |= zone == ".";
        for name in except.iter().filter_map(|name| plain_name(name)).filter(|name| is_within(name, &zone)) {
            let why = "these names were left to other plugins; give them a rule or a local zone of their own";
            site.lost(&line.place, format!("except {name}"), why);
        }
        let (servers, place) = (servers.clone(), line.place.clone());
        site.forward(Forward { zone, servers, choice, clients: Vec::new(), place });
    }
    has_root
}

/// `[scheme://]ADDRESS[:PORT][%NAME]`, or a file like resolv.conf.
fn target(text: &str, is_tcp: bool, tls_name: Option<&str>, line: &Line, site: &mut Site) -> Option<SiteServer> {
    if text.starts_with('/') {
        let path = PathBuf::from(text);
        return Some(SiteServer::System((text != "/etc/resolv.conf").then_some(path)));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("dns", text));
    let (rest, own_name) = rest.split_once('%').map_or((rest, None), |(rest, name)| (rest, Some(name)));
    let scheme = match scheme {
        "dns" if is_tcp => Scheme::Tcp,
        "dns" => Scheme::Udp,
        "tls" => Scheme::Tls,
        _ => {
            site.lost(&line.place, text, "write this server into `servers` yourself");
            return None;
        }
    };
    let parsed = match (rest.parse::<IpAddr>(), rest.parse::<std::net::SocketAddr>()) {
        (Ok(address), _) => Some((address, None)),
        (_, Ok(socket)) => Some((socket.ip(), Some(socket.port()))),
        _ => rest
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|rest| Some((rest.parse().ok()?, None))),
    };
    let Some((address, port)) = parsed else {
        site.lost(&line.place, text, "this is not an address");
        return None;
    };
    let tls_name = own_name.or(tls_name).filter(|_| scheme == Scheme::Tls).map(str::to_owned);
    Some(SiteServer::Fixed(FixedSiteServer { scheme, port, tls_name, ..FixedSiteServer::new(address) }))
}

/// `hosts [FILE [ZONES…]] { lines }`.
fn hosts(server: &ServerBlock<'_>, line: &Line, site: &mut Site) {
    let arguments: Vec<&str> = line.arguments().collect();
    if let [_, zones @ ..] = &arguments[..]
        && !zones.is_empty()
    {
        site.differs(&line.place, line.text(), "all names of the file are answered, whatever their zone");
    }
    let mut is_open = false;
    let mut own = Vec::new();
    for option in &line.block {
        match option.name() {
            "fallthrough" => is_open = true,
            "ttl" | "reload" => site.unneeded += 1,
            "no_reverse" => site.differs(&option.place, "no_reverse", "reverse names are answered too"),
            address if address.parse::<IpAddr>().is_ok() => own.push(option.text()),
            _ => site.lost(&option.place, option.text(), "this is not ADDRESS NAME…"),
        }
    }
    match arguments.first() {
        Some(file) => site.hosts_files.push(server.source.path(file)),
        None if own.is_empty() => site.hosts_files.push(PathBuf::from("/etc/hosts")),
        None => {}
    }
    site.hosts_lines.extend(own);
    if !is_open {
        let why = "without `fallthrough` other names of the server block had no answer; here they go on to their rule";
        site.differs(&line.place, line.text(), why);
    }
}

/// `file DBFILE [ZONES…]`.
fn file(server: &ServerBlock<'_>, line: &Line, site: &mut Site) {
    let mut arguments = line.arguments();
    let Some(path) = arguments.next().map(|path| server.source.path(path)) else {
        return site.lost(&line.place, line.text(), "it names no file");
    };
    let named: Vec<String> = arguments.filter_map(|zone| site.name(zone, &line.place)).collect();
    let zones = if named.is_empty() { server.zones.clone() } else { named };
    for option in &line.block {
        match option.name() {
            "reload" | "upstream" => site.unneeded += 1,
            "fallthrough" => {
                let why = "what the zone lacks does not exist here; other names need a rule of their own";
                site.differs(&option.place, option.text(), why);
            }
            _ => site.lost(&option.place, option.text(), "it has no counterpart"),
        }
    }
    for zone in zones {
        site.zone_file(zone, &path, &line.place);
    }
}

/// `acl`: the networks that may ask, if no query types are given.
fn acl(line: &Line, site: &mut Site) {
    for rule in &line.block {
        let words: Vec<&str> = rule.words.iter().map(String::as_str).collect();
        let networks = match words[..] {
            [_, "net", ref networks @ ..] if !networks.is_empty() => networks,
            // Everybody else.
            ["block" | "drop" | "filter"] if !site.allow.is_empty() => continue,
            _ => {
                site.lost(&rule.place, rule.text(), "tidegate looks at networks alone: `allow` and `deny` in [server]");
                continue;
            }
        };
        for text in networks {
            let Some(network) = network(text).or_else(|| (*text == "*").then(|| "any".to_owned())) else {
                site.lost(&rule.place, *text, "this is not a network");
                continue;
            };
            match rule.name() {
                "allow" => site.allow.push(network),
                "block" if network == "any" => {}
                _ if network == "any" => site.lost(&rule.place, rule.text(), "this cannot be carried over"),
                "block" => site.deny.push(network),
                name => {
                    site.differs(&rule.place, rule.text(), format!("here these clients are REFUSED; there was {name}"));
                    site.deny.push(network);
                }
            }
        }
    }
}

fn tls(server: &ServerBlock<'_>, line: &Line, site: &mut Site) {
    let arguments: Vec<&str> = line.arguments().collect();
    match arguments[..] {
        [certificate, key] => {
            site.tls.certificate = Some(server.source.path(certificate));
            site.tls.key = Some(server.source.path(key));
        }
        _ => site.lost(&line.place, line.text(), "client certificates have no counterpart"),
    }
}
