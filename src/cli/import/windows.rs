//! What Windows DNS servers print: `Get-DnsServerZone` and `Get-DnsServerForwarder` as CSV, as a list or as a table, and
//! `dnscmd /EnumZones`, `/ZoneInfo`. One file may hold several of them, one after the other.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    site::{FixedSiteServer, Forward, Place, SelectionPolicy, Site, SiteServer},
    source::Source,
};

/// The facts about a zone.
#[derive(Debug, Default)]
struct Zone {
    kind: String,
    servers: Vec<IpAddr>,
    port: Option<u16>,
    place: Option<Place>,
}

/// All zones, and the server's forwarders.
#[derive(Default)]
struct Export {
    zones: BTreeMap<String, Zone>,
    forwarders: Vec<IpAddr>,
    forwarders_at: Option<Place>,
    uses_root_hints: bool,
}

/// Reads an export.
pub(super) fn import(source: &Source, site: &mut Site) {
    let mut export = Export::default();
    let lines: Vec<&str> = source.text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        let place = source.place(at + 1);
        let lower = line.to_ascii_lowercase();
        if lower.starts_with("#type") || line.is_empty() {
            at += 1;
        } else if let Some(separator) = separator(&lower) {
            at += 1 + csv(&lines[at..], separator, source, at, &mut export, site);
        } else if is_table(&lower) {
            at += 1 + table(&lines[at..], source, at, &mut export, site);
        } else if let Some((key, value)) = field(line) {
            at += record(&lines[at..], (key, value), source, at, &mut export, site);
        } else {
            if !is_frame(&lower) {
                site.lost(&place, line, "this is no line of a known listing");
            }
            at += 1;
        }
    }
    finish(export, source, site);
}

/// Whether this line is the head of a table that PowerShell or dnscmd prints for people.
fn is_table(line: &str) -> bool {
    let is_named = line.starts_with("zonename ") && line.contains("zonetype");
    is_named || line.starts_with("zone name") && line.contains("type") && !line.contains('=')
}

/// Lines around the listings.
fn is_frame(line: &str) -> bool {
    line.chars().all(|c| "-= \t".contains(c))
        || line.starts_with("enumerated zone list")
        || line.starts_with("zone query result")
        || line.starts_with("zone info")
        || line.starts_with("command completed")
        || line.starts_with("ps ")
        || line.starts_with("c:\\")
}

fn finish(export: Export, source: &Source, site: &mut Site) {
    let has_root = !export.forwarders.is_empty();
    if has_root {
        let servers = fixed(&export.forwarders, None);
        let place = export.forwarders_at.unwrap_or_else(|| source.place(1));
        if export.uses_root_hints {
            let why = "without an answer Windows asks the root servers; tidegate serves a stale answer or SERVFAIL";
            site.differs(&place, "UseRootHint", why);
        }
        // Windows asks them in their order.
        let (zone, choice) = (".".to_owned(), SelectionPolicy::Ordered);
        site.forward(Forward { zone, servers, choice, clients: Vec::new(), place });
    } else {
        let why = "add what `Get-DnsServerForwarder | Format-List` prints to the file, or a rule for \".\"";
        site.lost(&source.place(1), "no server forwarders", why);
    }
    for (name, zone) in export.zones {
        let place = zone.place.unwrap_or_else(|| source.place(1));
        let kind = zone.kind.to_ascii_lowercase();
        match kind.as_str() {
            "forwarder" | "stub" if zone.servers.is_empty() => {
                let why = "the listing does not name its servers; export with `Get-DnsServerZone | Select-Object ZoneName, \
                           ZoneType, @{n='MasterServers';e={$_.MasterServers -join ' '}} | Export-Csv zones.csv`, or add \
                           what `dnscmd /ZoneInfo` prints";
                site.lost(&place, format!("{} zone {name}", zone.kind), why);
            }
            "forwarder" | "stub" => {
                let servers = fixed(&zone.servers, zone.port);
                site.forward(Forward {
                    zone: name,
                    servers,
                    choice: SelectionPolicy::Ordered,
                    clients: Vec::new(),
                    place,
                });
            }
            "secondary" if !zone.servers.is_empty() => {
                let why = "tidegate fetches no zones: the names are forwarded to its primary servers";
                site.differs(&place, format!("Secondary zone {name}"), why);
                let servers = fixed(&zone.servers, zone.port);
                site.forward(Forward {
                    zone: name,
                    servers,
                    choice: SelectionPolicy::Ordered,
                    clients: Vec::new(),
                    place,
                });
            }
            "cache" => site.unneeded += 1,
            _ if is_automatic(&name) => site.unneeded += 1,
            _ => {
                let why = "this server answers it itself: forward the zone to the domain controllers";
                site.lost(&place, format!("{} zone {name}", zone.kind), why);
            }
        }
    }
    site.forwards_private_reverse = has_root;
    site.allow = vec!["loopback".to_owned(), "private".to_owned()];
}

/// Zones that each Windows server makes for itself.
fn is_automatic(name: &str) -> bool {
    matches!(name, "0.in-addr.arpa" | "127.in-addr.arpa" | "255.in-addr.arpa" | "trustanchors" | ".")
}

fn fixed(addresses: &[IpAddr], port: Option<u16>) -> Vec<SiteServer> {
    let port = port.filter(|&port| port != 53);
    addresses
        .iter()
        .map(|&address| SiteServer::Fixed(FixedSiteServer { port, ..FixedSiteServer::new(address) }))
        .collect()
}

/// What separates the fields of a CSV file with this header.
fn separator(header: &str) -> Option<char> {
    let is_ours = header.contains("zonename") && header.contains("zonetype")
        || header.contains("useroothint") && header.contains("ipaddress");
    is_ours.then_some(())?;
    [',', ';', '\t'].into_iter().find(|&separator| header.contains(separator))
}

/// The lines behind the header that belong to it.
fn csv(lines: &[&str], separator: char, source: &Source, first: usize, export: &mut Export, site: &mut Site) -> usize {
    let header: Vec<String> =
        fields(lines[0], separator).iter().map(|field| field.trim().to_ascii_lowercase()).collect();
    let mut taken = 0;
    for (number, line) in lines.iter().enumerate().skip(1) {
        if line.trim().is_empty() || self::separator(&line.to_ascii_lowercase()).is_some() {
            break;
        }
        taken = number;
        let place = source.place(first + number + 1);
        let values = fields(line, separator);
        let value = |name: &str| {
            let at = header.iter().position(|field| field == name)?;
            values.get(at).map(|value| value.trim()).filter(|value| !value.is_empty())
        };
        if let Some(name) = value("zonename") {
            let servers = addresses(value("masterservers").unwrap_or_default());
            add_zone(name, value("zonetype").unwrap_or_default(), &servers, &place, export, site);
        } else if let Some(list) = value("ipaddress") {
            export.forwarders = addresses(list);
            export.forwarders_at = Some(place);
            export.uses_root_hints = value("useroothint").is_some_and(|word| word.eq_ignore_ascii_case("true"));
        }
    }
    taken
}

/// Fields of a line, in double quotes where they need it.
fn fields(line: &str, separator: char) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// The addresses in a text, whatever is around them: `{10.0.0.1, 10.0.0.2}`, `10.0.0.1 10.0.0.2`.
fn addresses(text: &str) -> Vec<IpAddr> {
    text.split(|c: char| c.is_whitespace() || ",;{}|".contains(c)).filter_map(|word| word.parse().ok()).collect()
}

fn add_zone(name: &str, kind: &str, servers: &[IpAddr], place: &Place, export: &mut Export, site: &mut Site) {
    let Some(name) = site.name(name, place) else { return };
    let zone = export.zones.entry(name).or_default();
    if !kind.is_empty() {
        kind.clone_into(&mut zone.kind);
    }
    if !servers.is_empty() {
        zone.servers = servers.to_vec();
    }
    zone.place.get_or_insert_with(|| place.clone());
}

/// Names and types of a table for people, in two columns.
fn table(lines: &[&str], source: &Source, first: usize, export: &mut Export, site: &mut Site) -> usize {
    let mut taken = 0;
    for (number, line) in lines.iter().enumerate().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] if taken == 0 => {}
            [] => break,
            [name, ..] if name.chars().all(|c| c == '-') => {}
            [name, kind, ..] if !line.contains('=') && !line.to_ascii_lowercase().starts_with("command completed") => {
                add_zone(name, kind, &[], &source.place(first + number + 1), export, site);
            }
            _ => break,
        }
        taken = number;
    }
    taken
}

/// `Key : value` of Format-List, `key = value` of dnscmd.
fn field(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once(" = ").or_else(|| line.split_once(" : ")).or_else(|| {
        line.split_once('=').filter(|(key, _)| key.trim().contains(' ')).or_else(|| Some((line.strip_suffix(':')?, "")))
    })?;
    let key = key.trim().to_ascii_lowercase().replace(' ', "");
    (!key.is_empty() && key.len() < 40).then_some((key, value.trim()))
}

/// Reads the fields of one record, whose first is known; returns how many lines it takes.
fn record(
    lines: &[&str],
    first_field: (String, &str),
    source: &Source,
    first: usize,
    export: &mut Export,
    site: &mut Site,
) -> usize {
    let (mut name, mut kind, mut servers, mut port) = (None, String::new(), Vec::new(), None);
    let mut forwarders = None;
    let mut place = source.place(first + 1);
    let mut next = Some(first_field);
    let mut taken = 0;
    for (number, line) in lines.iter().enumerate() {
        let line = line.trim();
        let current = if number == 0 { next.take() } else { field(line) };
        let lower = line.to_ascii_lowercase();
        let is_other = separator(&lower).is_some()
            || is_table(&lower)
            || lower.starts_with("zone query result")
            || lower.starts_with("zone info");
        if number > 0 && is_other {
            break;
        }
        // "Master[0] => af=2, salen=16, [sub=0, flag=00000000] p=13568, addr=10.20.1.10"
        if let Some((_, address)) = line.rsplit_once("addr=") {
            servers.extend(addresses(address));
            let octets = line.split("p=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u16>().ok());
            // In network byte order.
            port = octets.map(u16::swap_bytes).or(port);
        } else if let Some((key, value)) = current {
            match key.as_str() {
                "zonename" if name.is_some() => break,
                "zonename" => {
                    name = Some(value.to_owned());
                    place = source.place(first + number + 1);
                }
                "zonetype" => kind = kind_of(value),
                "masterservers" | "zonemasters" => servers.extend(addresses(value)),
                "ipaddress" => forwarders = Some((addresses(value), source.place(first + number + 1))),
                "useroothint" => export.uses_root_hints = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        } else if !servers.is_empty() && forwarders.is_none() {
            // A long list goes on in the next line.
            servers.extend(addresses(line));
        }
        taken = number + 1;
    }
    if let Some(name) = name {
        add_zone(&name, &kind, &servers, &place, export, site);
        let zone = super::site::plain_name(&name).and_then(|name| export.zones.get_mut(&name));
        if let (Some(zone), Some(_)) = (zone, port) {
            zone.port = port;
        }
    }
    if let Some((addresses, at)) = forwarders {
        export.forwarders = addresses;
        export.forwarders_at = Some(at);
    }
    taken.max(1)
}

/// dnscmd gives types as numbers.
fn kind_of(value: &str) -> String {
    match value.split_whitespace().next().unwrap_or_default() {
        "0" => "Cache",
        "1" => "Primary",
        "2" => "Secondary",
        "3" => "Stub",
        "4" => "Forwarder",
        other => other,
    }
    .to_owned()
}
