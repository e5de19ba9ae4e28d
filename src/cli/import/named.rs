//! named.conf: forwarders, forward zones, zones of its own, views and ACLs.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use super::{
    named_syntax::{DEEPEST, Item, Statement, find, statements},
    site::{FixedSiteServer, Forward, Place, Scheme, SelectionPolicy, Site, SiteServer, endpoint, is_listed, network},
    source::{Files, Source},
};

/// Statements that need no replacement: the process, its log, its tuning, DNSSEC and transfers of its own zones.
const UNNEEDED: &str = "\
    directory key-directory managed-keys-directory dump-file statistics-file memstatistics-file pid-file \
    session-key lock-file recursing-file secroots-file bindkeys-file version hostname server-id querylog auth-nxdomain \
    dnssec- empty-zones-enable minimal- max- min- recursive-clients tcp- transfer notify also-notify \
    allow-notify allow-transfer allow-update update-policy zone-statistics interface-interval cleaning-interval \
    edns-udp-size prefetch stale- rate-limit recursion request- provide-ixfr serial-query-rate clients-per-query \
    fetches- resolver- use-v4 use-v6 avoid- masterfile- check- files datasize stacksize coresize lame-ttl \
    servfail-ttl flush-zones geoip-directory cookie- answer-cookie nocookie send-cookie require-server-cookie \
    qname-minimization synth-from-dnssec trust-anchor-telemetry reuseport random-device heartbeat-interval tkey- \
    ixfr- inline-signing auto-dnssec key journal try-tcp-refresh multi-master allow-new-zones lmdb- deny-answer- \
    blackhole port match-mapped message-compression root-delegation-only delegation-only type file forwarders \
    forward allow-query allow-recursion allow-query-cache listen-on masters primaries match- database";

/// Reads a configuration.
pub(super) fn import(source: &Source, files: &mut Files, site: &mut Site) {
    let statements = read(source, files, site);
    let mut context = NamedContext::default();
    for statement in &statements {
        match statement.keyword() {
            "acl" => {
                let name = statement.word(1).unwrap_or_default().to_owned();
                context.acls.insert(name, statement.block().to_vec());
            }
            "options" => context.options = statement.block().to_vec(),
            _ => {}
        }
    }
    context.directory = find(&context.options, "directory").and_then(|s| s.word(1)).map(PathBuf::from);
    let options = context.options.clone();
    listen(&options, &context, site);
    access(&options, &context, site);
    let mut has_root = global_forwarders(&options, &[], &context, site);
    for statement in &statements {
        match statement.keyword() {
            "acl" | "options" => {}
            "zone" => zone(statement, &[], &context, source, site),
            "view" => has_root |= view(statement, &context, source, site),
            "logging"
            | "controls"
            | "key"
            | "trust-anchors"
            | "managed-keys"
            | "trusted-keys"
            | "statistics-channels"
            | "server"
            | "tls"
            | "http"
            | "dnssec-policy"
            | "masters"
            | "primaries"
            | "parental-agents"
            | "remote-servers" => {
                site.unneeded += 1;
            }
            _ => site.lost(&statement.place, statement.text(), "it has no counterpart"),
        }
    }
    for statement in &options {
        other(statement, site);
    }
    if !has_root {
        let why = "BIND resolves all other names itself, from the root servers; tidegate forwards, and REFUSES names \
                   without a rule: add a rule for \".\"";
        site.lost(&source.place(1), "no global forwarders", why);
    }
}

/// Settings for the whole file.
#[derive(Default)]
struct NamedContext {
    acls: BTreeMap<String, Vec<Statement>>,
    options: Vec<Statement>,
    directory: Option<PathBuf>,
}

/// Reports statements of `options`, a view or a zone that nothing else handles.
fn other(statement: &Statement, site: &mut Site) {
    let keyword = statement.keyword();
    match keyword {
        "response-policy"
        | "dns64"
        | "sortlist"
        | "rrset-order"
        | "catalog-zones"
        | "dnstap"
        | "dns64-server"
        | "additional-from-cache"
        | "dyndb"
        | "attach-cache"
        | "query-source"
        | "query-source-v6"
        | "filter-aaaa" => {
            let why = match keyword {
                "query-source" | "query-source-v6" => "write it as `source` of each [upstream] that it is for",
                "dns64" => "tidegate makes no DNS64 answers",
                "response-policy" => "tidegate has no response policy zones",
                _ => "it has no counterpart",
            };
            site.lost(&statement.place, statement.text(), why);
        }
        _ if is_listed(UNNEEDED, keyword) => site.unneeded += 1,
        _ => site.lost(&statement.place, statement.text(), "it has no counterpart"),
    }
}

fn listen(options: &[Statement], context: &NamedContext, site: &mut Site) {
    let default = find(options, "port").and_then(|s| s.word(1)).and_then(|port| port.parse().ok()).unwrap_or(53);
    for statement in options.iter().filter(|s| matches!(s.keyword(), "listen-on" | "listen-on-v6")) {
        let is_v6 = statement.keyword() == "listen-on-v6";
        if let Some(word) = ["tls", "http", "proxy"].into_iter().find(|word| statement.after(word).is_some()) {
            let why = format!("listeners with `{word}` are written in [server.tls], with `certificate` and `key`");
            site.lost(&statement.place, statement.text(), why);
            continue;
        }
        let port = statement.after("port").and_then(|port| port.parse().ok()).unwrap_or(default);
        let mut addresses = Vec::new();
        let list = context.list(statement.block(), 0, site);
        for (is_negated, element, place) in list {
            match (is_negated, element.as_str()) {
                (false, "any") if is_v6 => addresses.push("::".to_owned()),
                (false, "any") => addresses.push("0.0.0.0".to_owned()),
                (_, "none") | (true, "any") => {}
                (false, element) => {
                    let address = element.split_once('/').map_or(element, |(address, _)| address);
                    let is_host = element.ends_with("/32") || element.ends_with("/128");
                    match is_host {
                        true => addresses.push(address.to_owned()),
                        false => site.lost(&place, element, "tidegate listens on addresses, not on networks"),
                    }
                }
                (true, element) => site.lost(&place, format!("! {element}"), "an exception cannot be carried over"),
            }
        }
        let endpoints = addresses.iter().filter_map(|address| Some(endpoint(address.parse().ok()?, port)));
        site.listen.extend(endpoints);
    }
    if site.listen.is_empty() && !options.iter().any(|s| s.keyword().starts_with("listen-on")) {
        site.listen = vec![endpoint(IpAddr::from([0, 0, 0, 0]), default), endpoint(IpAddr::from([0_u16; 8]), default)];
    }
}

/// Who may query: `allow-recursion`, or the option that replaces it.
fn access(options: &[Statement], context: &NamedContext, site: &mut Site) {
    let found = ["allow-recursion", "allow-query-cache", "allow-query"].iter().find_map(|word| find(options, word));
    let Some(statement) = found else {
        site.allow = vec!["loopback".to_owned(), "private".to_owned()];
        let why = "BIND answers this host's own networks (`localnets`); here that is loopback and all private networks";
        if let Some(first) = options.first() {
            site.differs(&first.place, "allow-recursion is not set", why);
        }
        return;
    };
    for (is_negated, element, place) in context.list(statement.block(), 0, site) {
        let network = match element.as_str() {
            "none" => continue,
            "localnets" => {
                let why = "tidegate does not look at the host's networks: all private ones stand for it";
                site.differs(&place, "localnets", why);
                "private".to_owned()
            }
            other => other.to_owned(),
        };
        match is_negated {
            true if network == "private" || network == "any" => {
                site.lost(&place, format!("! {element}"), "this exception cannot be carried over");
            }
            true => site.deny.push(network),
            false => site.allow.push(network),
        }
    }
}

impl NamedContext {
    /// The elements of an address match list with ACLs expanded: networks in CIDR notation, `any`, `none`, `loopback`,
    /// `localnets`; each with whether it is an exception.
    fn list(&self, block: &[Statement], depth: usize, site: &mut Site) -> Vec<(bool, String, Place)> {
        let mut all = Vec::new();
        for statement in block {
            let (mut is_negated, place) = (false, statement.place.clone());
            if depth > DEEPEST {
                site.lost(&place, statement.text(), "ACLs name each other too deeply");
                return all;
            }
            for item in &statement.items {
                match item {
                    Item::Word(word) if word == "!" => is_negated = true,
                    Item::Word(word) => {
                        let (word, negated) =
                            word.strip_prefix('!').map_or((word.as_str(), is_negated), |word| (word, true));
                        match word {
                            "any" | "none" | "localnets" => all.push((negated, word.to_owned(), place.clone())),
                            "localhost" => all.push((negated, "loopback".to_owned(), place.clone())),
                            "key" | "geoip" => {
                                site.lost(&place, statement.text(), "tidegate knows clients by their address alone");
                                break;
                            }
                            _ => match (network(&widened(word)), self.acls.get(word)) {
                                (Some(network), _) => all.push((negated, network, place.clone())),
                                (None, Some(acl)) => {
                                    let inner = self.list(acl, depth + 1, site);
                                    all.extend(inner.into_iter().map(|(not, what, at)| (not != negated, what, at)));
                                }
                                (None, None) => site.lost(&place, word, "there is no such ACL"),
                            },
                        }
                    }
                    Item::Block(block) => {
                        let inner = self.list(block, depth + 1, site);
                        all.extend(inner.into_iter().map(|(not, what, at)| (not != is_negated, what, at)));
                    }
                }
            }
        }
        all
    }
}

/// Expands a short network: BIND accepts `10/8` and `10.1/16`.
fn widened(text: &str) -> String {
    let Some((address, length)) = text.split_once('/') else { return text.to_owned() };
    let parts = address.split('.').count();
    if address.contains(':') || parts >= 4 {
        text.to_owned()
    } else {
        format!("{address}{}/{length}", ".0".repeat(4 - parts))
    }
}

/// Adds a rule for "." if there are forwarders for everything.
fn global_forwarders(block: &[Statement], clients: &[String], context: &NamedContext, site: &mut Site) -> bool {
    let Some(statement) = find(block, "forwarders") else { return false };
    let servers = servers(statement, site);
    if servers.is_empty() {
        return false;
    }
    let forward = find(block, "forward").or_else(|| find(&context.options, "forward"));
    let is_only = forward.is_some_and(|s| s.word(1) == Some("only"));
    if !is_only {
        let why = "`forward first` is the default: BIND resolves a name itself when no forwarder answers; tidegate serves \
                   a stale answer or SERVFAIL";
        site.differs(&statement.place, statement.text(), why);
    }
    let has_empty_zones =
        find(&context.options, "empty-zones-enable").and_then(|s| s.word(1)).is_none_or(|word| word != "no");
    site.forwards_private_reverse |= is_only || !has_empty_zones;
    site.forward(Forward {
        zone: ".".to_owned(),
        servers,
        choice: SelectionPolicy::Fastest,
        clients: clients.to_vec(),
        place: statement.place.clone(),
    });
    true
}

fn servers(statement: &Statement, site: &mut Site) -> Vec<SiteServer> {
    let default: Option<u16> = statement.after("port").and_then(|port| port.parse().ok());
    let default_tls = statement.after("tls").is_some();
    let mut servers = Vec::new();
    for element in statement.block() {
        let port = element.after("port").map_or(Some(default), |port| port.parse().ok().map(Some));
        let (Ok(address), Some(port)) = (element.keyword().parse::<IpAddr>(), port) else {
            site.lost(&element.place, element.text(), "this is not ADDRESS [port PORT]");
            continue;
        };
        let mut server = FixedSiteServer { port, ..FixedSiteServer::new(address) };
        if element.after("tls").is_some() || default_tls {
            server.scheme = Scheme::Tls;
            let why = "the server's certificate must name its address, or the name behind a # in `servers`";
            site.differs(&element.place, element.text(), why);
        }
        servers.push(SiteServer::Fixed(server));
    }
    servers
}

/// Converts a view; returns whether there is a rule for "." in it.
fn view(statement: &Statement, context: &NamedContext, source: &Source, site: &mut Site) -> bool {
    let block = statement.block();
    let mut clients = Vec::new();
    for keyword in ["match-destinations", "match-recursive-only"] {
        if let Some(statement) = find(block, keyword) {
            site.lost(&statement.place, statement.text(), "a rule looks at clients alone");
        }
    }
    if let Some(matched) = find(block, "match-clients") {
        for (is_negated, element, place) in context.list(matched.block(), 0, site) {
            match (is_negated, element.as_str()) {
                (false, "any") => clients.clear(),
                (false, "loopback") => clients.extend(["127.0.0.0/8".to_owned(), "::1/128".to_owned()]),
                (false, "localnets" | "none") => site.lost(&place, element, "write the networks into `clients`"),
                (false, _) => clients.push(element),
                (true, _) => {
                    let why = "a rule has no exceptions: the longest prefix decides; write a rule for these clients";
                    site.lost(&place, format!("! {element}"), why);
                }
            }
        }
        if clients.is_empty() && !matched.block().iter().any(|s| s.keyword() == "any") {
            site.lost(&statement.place, statement.text(), "no network of its clients could be carried over");
            return false;
        }
    }
    let has_root = global_forwarders(block, &clients, context, site);
    for statement in block {
        match statement.keyword() {
            "zone" => zone(statement, &clients, context, source, site),
            _ => other(statement, site),
        }
    }
    has_root
}

fn zone(statement: &Statement, clients: &[String], context: &NamedContext, source: &Source, site: &mut Site) {
    let (place, block) = (&statement.place, statement.block());
    let Some(zone) = statement.word(1).and_then(|name| site.name(name, place)) else { return };
    let kind = find(block, "type").and_then(|s| s.word(1)).unwrap_or_default();
    match kind {
        "hint" => site.unneeded += 1,
        "forward" => {
            if let Some(forwarders) = find(block, "forwarders") {
                if forwarders.block().is_empty() {
                    let why = "BIND resolves this zone itself, below a forwarded one; tidegate cannot";
                    return site.lost(&forwarders.place, format!("zone {zone}: forwarders {{ }}"), why);
                }
                let servers = servers(forwarders, site);
                if find(block, "forward").and_then(|s| s.word(1)) != Some("only") {
                    let why =
                        "without an answer BIND resolves the name itself; tidegate serves a stale answer or SERVFAIL";
                    site.differs(place, format!("zone {zone}: forward first"), why);
                }
                let (clients, place) = (clients.to_vec(), place.clone());
                site.forward(Forward { zone, servers, choice: SelectionPolicy::Fastest, clients, place });
            } else {
                site.lost(place, format!("zone {zone}"), "it has no forwarders");
            }
        }
        "stub" | "static-stub" => {
            let keyword = if kind == "stub" { ["masters", "primaries"] } else { ["server-addresses"; 2] };
            let list = keyword.iter().find_map(|word| find(block, word));
            let servers = list.map(|list| servers(list, site)).unwrap_or_default();
            let why = "BIND asked these as authoritative servers and followed their delegations; tidegate takes their \
                       answers as they are";
            site.differs(place, format!("zone {zone}, type {kind}"), why);
            let (clients, place) = (clients.to_vec(), place.clone());
            site.forward(Forward { zone, servers, choice: SelectionPolicy::Fastest, clients, place });
        }
        "master" | "primary" => own_zone(zone, statement, clients, context, source, site),
        "slave" | "secondary" | "mirror" => {
            let list = ["masters", "primaries"].iter().find_map(|word| find(block, word));
            let servers = list.map(|list| servers(list, site)).unwrap_or_default();
            if servers.is_empty() {
                let why = "tidegate fetches no zones, and its primary servers are not known here";
                return site.lost(place, format!("zone {zone}, type {kind}"), why);
            }
            let why =
                "tidegate fetches no zones: the names are forwarded to the primary servers, which must answer clients";
            site.differs(place, format!("zone {zone}, type {kind}"), why);
            let (clients, place) = (clients.to_vec(), place.clone());
            site.forward(Forward { zone, servers, choice: SelectionPolicy::Fastest, clients, place });
        }
        kind => site.lost(place, format!("zone {zone}, type {kind}"), "this type has no counterpart"),
    }
    block.iter().filter(|s| !matches!(s.keyword(), "type" | "server-addresses")).for_each(|s| other(s, site));
}

/// A zone with a file of its own.
fn own_zone(
    zone: String,
    statement: &Statement,
    clients: &[String],
    context: &NamedContext,
    source: &Source,
    site: &mut Site,
) {
    let (place, block) = (&statement.place, statement.block());
    let Some(file) = find(block, "file").and_then(|s| s.word(1)) else {
        return site.lost(place, format!("zone {zone}"), "it has no file");
    };
    if !clients.is_empty() {
        let why = "a local zone is for all clients; tidegate has none for one view alone";
        return site.lost(place, format!("zone {zone}, file {file}"), why);
    }
    let path = match &context.directory {
        Some(directory) => source.path(&directory.join(file).display().to_string()),
        None => source.path(file),
    };
    if block.iter().any(|s| matches!(s.keyword(), "allow-update" | "update-policy")) {
        let why = "tidegate takes no dynamic updates; it reads the file again when BIND has written it";
        site.differs(place, format!("zone {zone}"), why);
    }
    site.zone_file(zone, &path, place);
}

fn read(source: &Source, files: &mut Files, site: &mut Site) -> Vec<Statement> {
    included(statements(source), source, files, site)
}

/// The statements, with those of included files in place of each `include`, in blocks too.
fn included(block: Vec<Statement>, source: &Source, files: &mut Files, site: &mut Site) -> Vec<Statement> {
    let mut all = Vec::new();
    for mut statement in block {
        if let ("include", Some(path)) = (statement.keyword(), statement.word(1)) {
            for file in files.include(source, path, &statement.place, site) {
                all.extend(read(&file, files, site));
            }
            continue;
        }
        for item in &mut statement.items {
            if let Item::Block(block) = item {
                *block = included(std::mem::take(block), source, files, site);
            }
        }
        all.push(statement);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_networks_are_filled_up() {
        assert_eq!([widened("10.1/16"), widened("10/8"), widened("::1/128")], ["10.1.0.0/16", "10.0.0.0/8", "::1/128"]);
    }
}
