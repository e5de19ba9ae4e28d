//! dnsmasq.conf: one option per line, `name` or `name=value`, as on the command line without `--`.
//!
//! `#` begins a comment at the beginning of a line or behind a space; a value in double quotes keeps both, with `\` before
//! a character that is meant literally.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use super::{
    site::{
        Data, FixedSiteServer, Forward, Local, Place, SelectionPolicy, Site, SiteServer, endpoint, is_listed,
        plain_name, reverse_name,
    },
    source::{Files, Source, matches},
};
use crate::system_error::SystemError;

/// Options about the process, DHCP, its log, its tuning, or things that tidegate does anyway.
const UNNEEDED: &str = "\
    dhcp- ra- enable-ra enable-tftp tftp- pxe- log- cache-size dns-forward-max user group pid-file domain-needed \
    bogus-priv no-negcache neg-ttl max-ttl max-cache-ttl min-cache-ttl local-ttl auth-ttl edns-packet-max \
    bind-interfaces bind-dynamic except-interface no-dhcp-interface keep-in-foreground no-daemon query-port \
    min-port max-port port-limit localise-queries no-ping read-ethers leasefile-ro script-arp dnssec \
    trust-anchor proxy-dnssec conntrack clear-on-reload enable-dbus enable-ubus quiet- stop-dns-rebind \
    rebind-localhost-ok filterwin2k no-poll localservice local-service loop-detect no-round-robin \
    use-stale-cache fast-dns-retry no-ident server-updates nftset ipset domain-suffix selfmx nameserver-port \
    all-servers strict-order";

/// A line with an option.
struct Setting {
    name: String,
    value: String,
    place: Place,
    source: Source,
}

impl Setting {
    fn text(&self) -> String {
        if self.value.is_empty() { self.name.clone() } else { format!("{}={}", self.name, self.value) }
    }
}

/// Settings that depend on several lines.
#[derive(Default)]
struct DnsmasqContext {
    port: u16,
    choice: SelectionPolicy,
    /// Of `domain=`, where `expand-hosts` is set.
    expanded: Option<String>,
    has_own_servers: bool,
    resolv: Option<PathBuf>,
    is_resolv_off: bool,
    is_hosts_off: bool,
    is_private_reverse_answered: bool,
}

/// Reads a configuration.
pub(super) fn import(source: &Source, files: &mut Files, site: &mut Site) {
    let mut settings = Vec::new();
    read(source, files, site, &mut settings);
    let has = |name: &str| settings.iter().any(|setting| setting.name == name);
    let last = |name: &str| settings.iter().rfind(|setting| setting.name == name);
    let mut context = DnsmasqContext {
        port: last("port").and_then(|port| port.value.parse().ok()).unwrap_or(53),
        choice: if has("strict-order") { SelectionPolicy::Ordered } else { SelectionPolicy::Fastest },
        expanded: last("domain")
            .filter(|_| has("expand-hosts"))
            .and_then(|domain| plain_name(domain.value.split(',').next().unwrap_or_default())),
        resolv: last("resolv-file").map(|setting| setting.source.path(&setting.value)),
        is_resolv_off: has("no-resolv"),
        is_hosts_off: has("no-hosts"),
        is_private_reverse_answered: has("bogus-priv"),
        ..DnsmasqContext::default()
    };
    if context.port == 0 {
        site.lost(&last("port").map_or_else(|| source.place(1), |s| s.place.clone()), "port=0", "DNS was off here");
        context.port = 53;
    }
    if let Some(all) = last("all-servers") {
        let why = "tidegate asks one server at a time, and a second one only when the first is late (`hedge`)";
        site.differs(&all.place, "all-servers", why);
    }
    for setting in &settings {
        take(setting, &mut context, site);
    }
    site.rebind.is_refused = has("stop-dns-rebind");
    if site.listen.is_empty() && !has("interface") {
        let any = [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
        site.listen = any.into_iter().map(|address| endpoint(address, context.port)).collect();
    }
    finish(&context, source, site);
}

/// Adds the servers of "." and the hosts file, which no line names.
fn finish(context: &DnsmasqContext, source: &Source, site: &mut Site) {
    site.forwards_private_reverse = !context.is_private_reverse_answered;
    if !context.is_resolv_off && !context.has_own_servers {
        let server = SiteServer::System(context.resolv.clone());
        let (zone, place) = (".".to_owned(), source.place(1));
        site.forward(Forward { zone, servers: vec![server], choice: context.choice, clients: Vec::new(), place });
    } else if !context.is_resolv_off {
        let why = "dnsmasq asked the servers of resolv.conf too; add \"system\" to `servers` where that is wanted";
        site.differs(&source.place(1), "no-resolv is not set", why);
    }
    if !context.is_hosts_off {
        site.hosts_files.insert(0, PathBuf::from("/etc/hosts"));
    }
    if let Some(domain) = &context.expanded {
        site.hosts_domain = Some(domain.clone());
    }
    if site.allow.is_empty() {
        site.allow = vec!["any".to_owned()];
    }
}

fn read(source: &Source, files: &mut Files, site: &mut Site, settings: &mut Vec<Setting>) {
    for (number, line) in source.text.lines().enumerate() {
        let place = source.place(number + 1);
        let line = uncommented(line);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, ""), |(name, value)| (name.trim(), value.trim()));
        let name = name.trim_start_matches("--");
        match name {
            "conf-file" | "servers-file" => {
                for included in files.include(source, value, &place, site) {
                    read(&included, files, site, settings);
                }
            }
            "conf-dir" => {
                let paths = folder(source, value, &place, site);
                for included in files.read_all(&paths, source, &place, site) {
                    read(&included, files, site, settings);
                }
            }
            _ => {
                settings.push(Setting { name: name.to_owned(), value: value.to_owned(), place, source: source.clone() })
            }
        }
    }
}

/// The line without its comment and its quotes.
fn uncommented(line: &str) -> String {
    let mut text = String::new();
    let (mut is_quoted, mut is_behind_space) = (false, true);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => text.extend(characters.next()),
            '#' if !is_quoted && is_behind_space => break,
            _ => text.push(c),
        }
        is_behind_space = c.is_whitespace();
    }
    text
}

/// The files of `conf-dir=FOLDER[,SUFFIX…]`: only suffixes with a star are included, others are excluded.
fn folder(source: &Source, value: &str, place: &Place, site: &mut Site) -> Vec<PathBuf> {
    let mut parts = value.split(',');
    let path = source.path(parts.next().unwrap_or_default());
    let suffixes: Vec<&str> = parts.map(str::trim).collect();
    let (wanted, unwanted): (Vec<&str>, Vec<&str>) = suffixes.into_iter().partition(|suffix| suffix.starts_with('*'));
    let names = match std::fs::read_dir(&path) {
        Ok(names) => names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()),
        Err(error) => {
            site.lost(place, format!("conf-dir={value}"), format!("it cannot be read here: {}", SystemError(&error)));
            return Vec::new();
        }
    };
    let is_wanted = |name: &String| {
        let is_backup = name.starts_with('.') || name.ends_with('~') || name.starts_with('#') && name.ends_with('#');
        !is_backup
            && (wanted.is_empty() || wanted.iter().any(|pattern| matches(pattern, name)))
            && !unwanted.iter().any(|suffix| name.ends_with(suffix))
    };
    let mut paths: Vec<PathBuf> = names.filter(is_wanted).map(|name| path.join(name)).collect();
    paths.sort_unstable();
    paths
}

fn take(setting: &Setting, context: &mut DnsmasqContext, site: &mut Site) {
    let place = &setting.place;
    match setting.name.as_str() {
        "server" | "local" => server(setting, context, site),
        "rev-server" => reverse_server(setting, context, site),
        "address" => address(setting, site),
        "host-record" => host_record(setting, site),
        "cname" => cname(setting, site),
        "ptr-record" | "txt-record" | "mx-host" | "srv-host" | "caa-record" | "naptr-record" => record(setting, site),
        "listen-address" => {
            for text in setting.value.split(',') {
                match text.trim().parse::<IpAddr>() {
                    Ok(address) => site.listen.push(endpoint(address, context.port)),
                    Err(_) => site.lost(place, setting.text(), "this is not an address"),
                }
            }
        }
        "interface" => {
            let why = "tidegate listens on addresses: write those of this interface into `listen` in [server]";
            site.lost(place, setting.text(), why);
        }
        "addn-hosts" => site.hosts_files.push(setting.source.path(&setting.value)),
        "rebind-domain-ok" => {
            let names = setting.value.split('/').filter(|name| !name.is_empty());
            let names: Vec<String> = names.filter_map(|name| site.name(name, place)).collect();
            site.rebind.except.extend(names);
        }
        "domain" if context.expanded.is_none() => site.unneeded += 1,
        "port" | "no-resolv" | "no-hosts" | "resolv-file" | "domain" | "expand-hosts" => {}
        "hostsdir" => site.lost(place, setting.text(), "name the files one by one as `addn-hosts`, and import again"),
        "bogus-nxdomain" | "ignore-address" | "alias" | "synth-domain" | "auth-zone" | "auth-server"
        | "interface-name" | "add-subnet" | "add-mac" | "filter-A" | "filter-AAAA" | "filter-rr" | "dns-rr"
        | "dynamic-host" | "localmx" | "mx-target" => site.lost(place, setting.text(), "it has no counterpart"),
        name if is_listed(UNNEEDED, name) => site.unneeded += 1,
        _ => site.lost(place, setting.text(), "it has no counterpart"),
    }
}

/// `/a/b/rest` as domains and the rest; without slashes there are no domains. A domain `#` is every name, an empty one
/// those without a dot.
fn domains(value: &str) -> (Vec<&str>, &str) {
    match value.strip_prefix('/').and_then(|inside| inside.rsplit_once('/')) {
        Some((domains, rest)) => (domains.split('/').collect(), rest),
        None => (Vec::new(), value),
    }
}

fn server(setting: &Setting, context: &mut DnsmasqContext, site: &mut Site) {
    let place = &setting.place;
    let (domains, target) = domains(&setting.value);
    let server = match target {
        // dnsmasq sends these to its other servers, whatever applies to the domain above.
        "#" => {
            let why = "these names go where the domain above goes; give them a rule of their own";
            return site.lost(place, setting.text(), why);
        }
        "" => None,
        target => match self::target(target) {
            Some(server) => Some(server),
            None => return site.lost(place, setting.text(), "this is not ADDRESS[#PORT][@SOURCE]"),
        },
    };
    if domains.is_empty() {
        let Some(server) = server else { return site.lost(place, setting.text(), "it names no server") };
        context.has_own_servers = true;
        return add(".".to_owned(), server, context.choice, place, site);
    }
    for domain in domains {
        let domain = domain.trim_start_matches("*.").trim_start_matches('.');
        if domain.is_empty() {
            // Names without a dot.
            site.differs(place, setting.text(), "names without a dot go where \".\" goes");
            continue;
        }
        let Some(zone) = (if domain == "#" { Some(".".to_owned()) } else { site.name(domain, place) }) else {
            continue;
        };
        match &server {
            Some(server) => add(zone, server.clone(), context.choice, place, site),
            None => site.local(Local { zone, data: Data::Records(Vec::new()), place: place.clone() }),
        }
    }
}

/// Adds a server to those of a zone: dnsmasq has a line for each.
fn add(zone: String, server: SiteServer, choice: SelectionPolicy, place: &Place, site: &mut Site) {
    match site.forwards.iter_mut().find(|forward| forward.zone == zone) {
        Some(forward) if forward.servers.contains(&server) => {}
        Some(forward) => forward.servers.push(server),
        None => {
            site.forward(Forward { zone, servers: vec![server], choice, clients: Vec::new(), place: place.clone() });
        }
    }
}

/// `ADDRESS[#PORT][@INTERFACE][@SOURCE[#PORT]]`.
fn target(text: &str) -> Option<SiteServer> {
    let mut parts = text.split('@');
    let (address, port) = match parts.next()?.split_once('#') {
        Some((address, port)) => (address, Some(port.parse().ok()?)),
        None => (text.split('@').next()?, None),
    };
    let mut server = FixedSiteServer { port, ..FixedSiteServer::new(address.parse().ok()?) };
    for part in parts {
        let part = part.split('#').next()?;
        match part.parse() {
            Ok(source) => server.source = Some(source),
            Err(_) if !part.is_empty() => server.device = Some(part.to_owned()),
            Err(_) => return None,
        }
    }
    Some(SiteServer::Fixed(server))
}

/// `rev-server=NETWORK,SERVER`.
fn reverse_server(setting: &Setting, context: &DnsmasqContext, site: &mut Site) {
    let parsed = setting.value.split_once(',').and_then(|(network, server)| {
        let network = super::site::network(network.trim())?.parse().ok()?;
        Some((crate::config::reverse_zones(network), target(server.trim())?))
    });
    let Some((zones, server)) = parsed else {
        return site.lost(&setting.place, setting.text(), "this is not NETWORK,SERVER");
    };
    for zone in zones {
        if let Some(zone) = site.name(&zone.to_string(), &setting.place) {
            add(zone, server.clone(), context.choice, &setting.place, site);
        }
    }
}

/// `address=/domain/ADDRESS`: the domain and all below it.
fn address(setting: &Setting, site: &mut Site) {
    let place = &setting.place;
    let (domains, value) = domains(&setting.value);
    let of = |address: IpAddr| {
        let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
        vec![format!("@ {rtype} {address}"), format!("* {rtype} {address}")]
    };
    let lines = match value {
        "" => Vec::new(),
        "#" => [of(Ipv4Addr::UNSPECIFIED.into()), of(std::net::Ipv6Addr::UNSPECIFIED.into())].concat(),
        value => match value.parse() {
            Ok(address) => of(address),
            Err(_) => return site.lost(place, setting.text(), "this is not /DOMAIN/ADDRESS"),
        },
    };
    if domains.is_empty() {
        return site.lost(place, setting.text(), "this is not /DOMAIN/ADDRESS");
    }
    for domain in domains {
        if domain == "#" {
            site.lost(place, setting.text(), "one address for every name has no counterpart");
        } else if let Some(zone) = site.name(domain.trim_start_matches('.'), place) {
            let why = match lines.is_empty() {
                true => "the domain's own name is NODATA, and names below it NXDOMAIN",
                false => "types without an address here are NODATA; dnsmasq asked its servers for them",
            };
            site.differs(place, setting.text(), why);
            site.local(Local { zone, data: Data::Records(lines.clone()), place: place.clone() });
        }
    }
}

/// `host-record=NAME…,ADDRESS…[,TTL]`: like lines of a hosts file.
fn host_record(setting: &Setting, site: &mut Site) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for part in setting.value.split(',').map(str::trim) {
        match part.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) if part.bytes().all(|b| b.is_ascii_digit()) => {}
            Err(_) => names.extend(site.name(part, &setting.place)),
        }
    }
    if names.is_empty() || addresses.is_empty() {
        return site.lost(&setting.place, setting.text(), "this is not NAME,ADDRESS");
    }
    site.hosts_lines.extend(addresses.iter().map(|address| format!("{address} {}", names.join(" "))));
}

/// `cname=ALIAS…,TARGET[,TTL]`.
fn cname(setting: &Setting, site: &mut Site) {
    let mut parts: Vec<&str> = setting.value.split(',').map(str::trim).collect();
    if parts.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        parts.pop();
    }
    let target = parts.pop().and_then(plain_name);
    let (Some(target), false) = (target, parts.is_empty()) else {
        return site.lost(&setting.place, setting.text(), "this is not ALIAS,TARGET");
    };
    for alias in parts {
        if let Some(alias) = site.name(alias, &setting.place) {
            // A zone's own name cannot be an alias (RFC 1034 3.6.2).
            match alias.split_once('.') {
                Some((_, parent)) if site.locals.iter().any(|local| local.zone == parent) => {
                    let data = Data::Records(vec![format!("{alias}. CNAME {target}.")]);
                    site.local(Local { zone: parent.to_owned(), data, place: setting.place.clone() });
                }
                _ => {
                    let why = format!("put \"{alias}. CNAME {target}.\" into a [[local]] zone above it");
                    site.lost(&setting.place, setting.text(), why);
                }
            }
        }
    }
}

/// Records of one name, each in dnsmasq's own order of fields.
fn record(setting: &Setting, site: &mut Site) {
    let parts: Vec<&str> = setting.value.split(',').map(str::trim).collect();
    let name = |text: &str| plain_name(text).map(|name| format!("{name}."));
    let made = match (setting.name.as_str(), &parts[..]) {
        ("ptr-record", [owner, target]) => name(target).map(|target| (*owner, format!("PTR {target}"))),
        ("txt-record", [owner, texts @ ..]) => {
            let quoted: Vec<String> = texts.iter().map(|text| format!("\"{}\"", text.replace('"', "\\\""))).collect();
            (!quoted.is_empty()).then(|| (*owner, format!("TXT {}", quoted.join(" "))))
        }
        ("mx-host", [owner, target]) => name(target).map(|target| (*owner, format!("MX 1 {target}"))),
        ("mx-host", [owner, target, preference]) => {
            name(target).map(|target| (*owner, format!("MX {preference} {target}")))
        }
        ("srv-host", [owner, target, port, rest @ ..]) => name(target).map(|target| {
            let (priority, weight) = (rest.first().unwrap_or(&"0"), rest.get(1).unwrap_or(&"0"));
            (*owner, format!("SRV {priority} {weight} {port} {target}"))
        }),
        _ => None,
    };
    let owner = made.as_ref().and_then(|(owner, _)| owner.parse().ok().map(reverse_name).or_else(|| plain_name(owner)));
    let (Some((_, data)), Some(zone)) = (made, owner) else {
        return site.lost(&setting.place, setting.text(), "it has no counterpart in this form");
    };
    let data = Data::Records(vec![format!("@ {data}")]);
    site.local(Local { zone, data, place: setting.place.clone() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_quotes_are_those_of_dnsmasq() {
        for (line, expected) in [
            ("server=10.0.0.1#5353 # the other one", "server=10.0.0.1#5353 "),
            ("# nothing", ""),
            ("txt-record=a.example,\"v=1 # not \\\"a\\\" comment\"", "txt-record=a.example,v=1 # not \"a\" comment"),
        ] {
            assert_eq!(uncommented(line), expected);
        }
    }

    #[test]
    fn a_server_has_port_device_and_source() {
        let fixed = |text: &str| match target(text) {
            Some(SiteServer::Fixed(server)) => {
                Some((server.address.to_string(), server.port, server.source, server.device))
            }
            _ => None,
        };
        assert_eq!(fixed("10.0.0.1"), Some(("10.0.0.1".to_owned(), None, None, None)));
        assert_eq!(
            fixed("10.0.0.1#5353@192.168.1.1#5555"),
            Some(("10.0.0.1".to_owned(), Some(5353), Some("192.168.1.1".parse().unwrap()), None))
        );
        assert_eq!(fixed("fd00::1@eth0").unwrap().3.as_deref(), Some("eth0"));
        assert_eq!((fixed("10.0.0.1#x"), fixed("ns.example"), fixed("10.0.0.1@")), (None, None, None));
        assert_eq!(domains("/a.b/c/10.0.0.1"), (vec!["a.b", "c"], "10.0.0.1"));
    }
}
