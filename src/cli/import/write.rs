//! Writes the tidegate.toml for an import.

use std::{fmt::Write as _, path::Path};

use super::site::{
    Data, FixedSiteServer, Forward, Local, Scheme, SelectionPolicy, Site, SiteServer, Weight, is_within, plain_name,
};
use crate::{
    config::{self, Plan},
    daemon,
};

/// A rule as it is written.
struct NamedRule<'a> {
    name: String,
    group: String,
    /// Whether it is the first that sends to the group.
    is_first: bool,
    /// Its zones; never empty, all with the same servers and clients.
    zones: Vec<&'a Forward>,
}

/// The rules of the result, in the order of the old file.
fn rules(site: &Site) -> Vec<NamedRule<'_>> {
    let mut groups: Vec<(String, &[SiteServer], SelectionPolicy)> = Vec::new();
    let mut rules: Vec<NamedRule<'_>> = Vec::new();
    for (first, zones) in site.groups() {
        let is_same = |(_, servers, choice): &&(String, &[SiteServer], SelectionPolicy)| {
            (*servers, *choice) == (&first.servers[..], first.choice)
        };
        let known = groups.iter().find(is_same).map(|(name, ..)| name.clone());
        let is_first = known.is_none();
        let group = known.unwrap_or_else(|| {
            let name = unused(&group_name(&zones), |name| groups.iter().any(|(other, ..)| other == name));
            groups.push((name.clone(), &first.servers, first.choice));
            name
        });
        let name = unused(&group, |name| rules.iter().any(|rule| rule.name == name));
        rules.push(NamedRule { name, group, is_first, zones });
    }
    rules
}

/// The text of the file; `from` names the source, and `hosts` the path of the hosts file.
pub(super) fn configuration(site: &Site, from: &str, hosts: Option<&Path>) -> String {
    let mut text =
        format!("# Made by `tidegate import` from {}. `tidegate check` shows what it means.\n", printable(from));
    server(site, &mut text);
    let rules = rules(site);
    for rule in rules.iter().filter(|rule| rule.is_first) {
        upstream(&rule.group, rule.zones[0], &mut text);
    }
    for rule in &rules {
        self::rule(&rule.name, &rule.group, &rule.zones, site, &mut text);
    }
    for local in &site.locals {
        text.push('\n');
        text += &local_table(local, true);
    }
    if let Some(path) = hosts {
        put(&mut text, format_args!("\n[local_hosts]\nfile = {}\n", quoted(&path.display().to_string())));
    }
    notes(site, &mut text);
    text
}

/// The expectations for the file `config`: each zone goes where it went before, and strangers are refused.
pub(super) fn expectations(site: &Site, config: &str) -> String {
    let mut text = format!(
        "# What was imported must do: `tidegate test` holds the configuration against it. Add the names that matter.\n\n\
         config = {}\n",
        quoted(config)
    );
    let mut case = |lines: &[(&str, String)]| {
        text.push_str("\n[[case]]\n");
        lines.iter().for_each(|(key, value)| put(&mut text, format_args!("{key} = {value}\n")));
    };
    for rule in rules(site) {
        let clients = &rule.zones[0].clients;
        let Some(client) = client(site, clients) else { continue };
        for forward in &rule.zones {
            // Among clients of several views another rule may decide.
            let is_contested = clients.is_empty()
                && site.forwards.iter().any(|other| other.zone == forward.zone && !other.clients.is_empty());
            if is_contested {
                continue;
            }
            let name = if forward.zone == "." { "name-of-no-other-rule.example" } else { &forward.zone };
            let [name, client, group] = [name, &client, &rule.group].map(quoted);
            case(&[("name", name), ("client", client), ("rule", quoted(&rule.name)), ("group", group)]);
        }
    }
    if let Some(client) = client(site, &[]) {
        for local in &site.locals {
            let [zone, client] = [&local.zone, &client].map(|text| quoted(text));
            case(&[("name", zone.clone()), ("client", client), ("zone", zone)]);
        }
    }
    if !site.allow.iter().any(|network| network == "any" || network.ends_with("/0")) {
        let [name, client] = ["name-of-no-other-rule.example", "192.0.2.1"].map(quoted);
        case(&[("name", name), ("client", client), ("rcode", quoted("REFUSED"))]);
    }
    text
}

/// An address that is served, of these networks if there are any.
fn client(site: &Site, networks: &[String]) -> Option<String> {
    let first = |text: &String| -> Option<std::net::IpAddr> {
        match text.as_str() {
            "loopback" | "any" => "127.0.0.1".parse().ok(),
            "private" => "10.0.0.1".parse().ok(),
            network => network.parse::<ipnet::IpNet>().ok()?.hosts().next(),
        }
    };
    let is_denied = |address: &std::net::IpAddr| {
        let denied = site.deny.iter().filter_map(|network| network.parse::<ipnet::IpNet>().ok());
        denied.into_iter().any(|network| network.prefix_len() > 0 && network.contains(address))
    };
    let from = if networks.is_empty() { &site.allow[..] } else { networks };
    from.iter().filter_map(first).find(|address| !is_denied(address)).map(|address| address.to_string())
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string");
}

/// A name that is not taken yet.
fn unused(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}

fn group_name(zones: &[&Forward]) -> String {
    if zones.iter().any(|forward| is_aws(&forward.zone)) {
        return "aws".to_owned();
    }
    if zones.iter().any(|forward| forward.zone == ".") {
        return "site".to_owned();
    }
    let name: String = zones[0].zone.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

/// Whether a domain is of an AWS name family.
pub(super) fn is_aws(zone: &str) -> bool {
    zone != "." && zone.parse().is_ok_and(|name| config::is_aws_name(&name))
}

/// Texts as a list of TOML.
fn list(texts: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = texts.into_iter().collect();
    let line = all.join(", ");
    if line.len() <= 100 { format!("[{line}]") } else { format!("[\n    {},\n]", all.join(",\n    ")) }
}

/// A JSON string is one of TOML too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    list(texts.into_iter().map(|text| quoted(text)))
}

fn server(site: &Site, text: &mut String) {
    text.push_str("\n[server]\n");
    if !site.listen.is_empty() {
        put(text, format_args!("listen = {}\n", quoted_list(&site.listen)));
    }
    put(text, format_args!("allow = {}\n", quoted_list(&site.allow)));
    if !site.deny.is_empty() {
        put(text, format_args!("deny = {}\n", quoted_list(&site.deny)));
    }
    let tls = &site.tls;
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key)
        && !(tls.listen.is_empty() && tls.https.is_empty())
    {
        text.push_str("\n[server.tls]\n");
        for (name, listen) in [("tls", &tls.listen), ("https", &tls.https)] {
            if !listen.is_empty() {
                put(text, format_args!("{name} = {}\n", quoted_list(listen)));
            }
        }
        let [certificate, key] = [certificate, key].map(|path| quoted(&path.display().to_string()));
        put(text, format_args!("certificate = {certificate}\nkey = {key}\n"));
    }
}

fn upstream(name: &str, first: &Forward, text: &mut String) {
    put(text, format_args!("\n[upstream.{name}]\n"));
    put(text, format_args!("servers = {}\n", list(first.servers.iter().map(server_text))));
    match first.choice {
        SelectionPolicy::Fastest => {}
        SelectionPolicy::Spread => text.push_str("policy = \"spread\"\n"),
        SelectionPolicy::Ordered => text.push_str("policy = \"ordered\"\n"),
    }
}

fn server_text(server: &SiteServer) -> String {
    match server {
        SiteServer::System(None) => quoted("system"),
        SiteServer::System(Some(path)) => quoted(&format!("system:{}", path.display())),
        SiteServer::Fixed(fixed) => fixed_text(fixed),
    }
}

fn fixed_text(server: &FixedSiteServer) -> String {
    let port = server.port.filter(|&port| port != server.scheme.port());
    let scheme = match server.scheme {
        Scheme::Udp => "",
        Scheme::Tcp => "tcp://",
        Scheme::Tls => "tls://",
    };
    let address = match port {
        Some(port) => super::site::endpoint(server.address, port),
        None if server.address.is_ipv6() => format!("[{}]", server.address),
        None => server.address.to_string(),
    };
    let name = server.tls_name.as_ref().map_or_else(String::new, |name| format!("#{name}"));
    let text = quoted(&format!("{scheme}{address}{name}"));
    if server.source.is_none() && server.device.is_none() {
        return text;
    }
    let source = server.source.map(|source| format!(", source = {}", quoted(&source.to_string())));
    let device = server.device.as_ref().map(|device| format!(", device = {}", quoted(device)));
    format!("{{ server = {text}{}{} }}", source.unwrap_or_default(), device.unwrap_or_default())
}

fn rule(name: &str, group: &str, zones: &[&Forward], site: &Site, text: &mut String) {
    text.push('\n');
    let places: Vec<String> = zones.iter().map(|forward| forward.place.to_string()).collect();
    let shown = places.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if places.len() > 3 { format!(" and {} more", places.len() - 3) } else { String::new() };
    put(text, format_args!("# {}{more}\n", printable(&shown)));
    put(text, format_args!("[[forward]]\nname = {}\n", quoted(name)));
    let mut all: Vec<String> = zones.iter().map(|forward| forward.zone.clone()).collect();
    if site.forwards_private_reverse && all.iter().any(|zone| zone == ".") {
        all.extend(private_reverse(site));
    }
    put(text, format_args!("zones = {}\nto = {}\n", quoted_list(&all), quoted(group)));
    if let Some(clients) = zones.first().map(|forward| &forward.clients).filter(|clients| !clients.is_empty()) {
        put(text, format_args!("clients = {}\n", quoted_list(clients)));
    }
    let has_aws = zones.iter().any(|forward| is_aws(&forward.zone));
    if site.rebind.is_refused {
        rebind(&all, has_aws, site, text);
    }
    if has_aws {
        text.push_str(
            "# AWS names. The old server let any answer through. With a guard, an answer with an address outside your\n\
             # networks (an interface endpoint is missing, or its private DNS is off) no longer leaves the perimeter. Say\n\
             # which networks your VPCs have, begin with \"log\", and see what `tidegate perimeter` reports:\n\
             # private = [\"10.0.0.0/8\"]\n\
             # on_public = \"log\"                      # then \"refuse\"\n",
        );
        if !zones.iter().any(|forward| forward.zone == "amazonaws.com") {
            text.push_str("# All AWS name families are `zones = [\"preset:aws\"]`; `tidegate presets` lists them.\n");
        }
    }
}

/// The private reverse zones that nothing else decides about.
fn private_reverse(site: &Site) -> Vec<String> {
    let is_taken = |zone: &String| {
        site.forwards.iter().any(|forward| forward.zone == *zone) || site.locals.iter().any(|local| local.zone == *zone)
    };
    let plain = |network: &str| -> Vec<String> {
        let zones = network.parse().map(config::reverse_zones).unwrap_or_default();
        zones.iter().filter_map(|zone| plain_name(&zone.to_string())).collect()
    };
    if !PRIVATE.iter().any(|network| plain(network).iter().any(is_taken)) {
        return vec!["reverse:private".to_owned()];
    }
    let mut all = Vec::new();
    for network in PRIVATE {
        let (taken, free): (Vec<_>, Vec<_>) = plain(network).into_iter().partition(is_taken);
        if taken.is_empty() {
            all.push(format!("reverse:{network}"));
        } else {
            all.extend(free);
        }
    }
    all
}

/// The networks of `reverse:private`.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fd00::/8", "fe80::/10"];

/// Protection against rebinding, as far as the old server had it for these zones.
fn rebind(zones: &[String], has_aws: bool, site: &Site, text: &mut String) {
    let spared: Vec<&String> =
        site.rebind.except.iter().filter(|name| zones.iter().any(|z| is_within(name, z))).collect();
    let is_spared = zones.iter().all(|zone| site.rebind.except.iter().any(|name| is_within(zone, name)));
    if is_spared {
        return;
    }
    if has_aws {
        text.push_str(
            "# The old server took private addresses out of answers. Those of interface endpoints are private, and are what\n\
             # this rule is for: `rebind` stays \"allow\" here.\n",
        );
        return;
    }
    text.push_str("rebind = \"refuse\"\n");
    if !spared.is_empty() {
        put(text, format_args!("except = {}\n", quoted_list(spared)));
    }
}

fn local_table(local: &Local, with_place: bool) -> String {
    let mut text = String::new();
    if with_place {
        put(&mut text, format_args!("# {}\n", printable(&local.place.to_string())));
    }
    put(&mut text, format_args!("[[local]]\nzone = {}\n", quoted(&local.zone)));
    match &local.data {
        Data::File(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            put(&mut text, format_args!("file = {}\n", quoted(&path.display().to_string())));
        }
        Data::Records(lines) => put(&mut text, format_args!("records = {}\n", quoted_list(lines))),
    }
    text
}

fn notes(site: &Site, text: &mut String) {
    for (weight, title) in
        [(Weight::Lost, "Not carried over:"), (Weight::Differs, "Carried over, and not quite the same:")]
    {
        let notes: Vec<_> = site.notes.iter().filter(|note| note.weight == weight).collect();
        if notes.is_empty() {
            continue;
        }
        put(text, format_args!("\n# {title}\n"));
        for note in notes {
            put(
                text,
                format_args!(
                    "# {}: {}: {}\n",
                    printable(&note.place.to_string()),
                    printable(&note.what),
                    printable(&note.why)
                ),
            );
        }
    }
}

/// The text on one line, without control characters that could affect a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Leaves out, with a note, each local zone and record that `check` would refuse.
pub(super) fn prove_locals(site: &mut Site) {
    let locals = std::mem::take(&mut site.locals);
    for mut local in locals {
        let Err(why) = prove(&local) else {
            site.locals.push(local);
            continue;
        };
        let Data::Records(lines) = &mut local.data else {
            site.lost(&local.place, format!("zone {}", local.zone), why);
            continue;
        };
        let (place, zone) = (local.place.clone(), local.zone.clone());
        let good = std::mem::take(lines).into_iter().filter(|line| {
            let alone = Local { data: Data::Records(vec![line.clone()]), zone: zone.clone(), place: place.clone() };
            match prove(&alone) {
                Ok(()) => true,
                Err(why) => {
                    site.lost(&place, format!("{zone}: {line}"), why);
                    false
                }
            }
        });
        local.data = Data::Records(good.collect());
        match prove(&local) {
            Ok(()) => site.locals.push(local),
            Err(why) => site.lost(&place, format!("zone {zone}"), why),
        }
    }
}

fn prove(local: &Local) -> Result<(), String> {
    let plan =
        Plan::from_text("imported", &local_table(local, false)).map_err(|problems| one_line(problems.lines()))?;
    match daemon::build_zones(&plan.live, None) {
        Ok(zones) if zones.errors().is_empty() => Ok(()),
        Ok(zones) => Err(one_line(zones.errors().iter().map(ToString::to_string))),
        Err(errors) => Err(one_line(errors.iter().map(ToString::to_string))),
    }
}

fn one_line(lines: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = lines.into_iter().collect();
    // The error's place is in a generated text that the user never saw.
    all.join("; ").replace("imported:", "line ")
}

/// The text of a hosts file in which each name without a dot stands with its domain, too, in front.
pub(super) fn with_domain(text: &str, domain: &str) -> String {
    let with_domain = |line: &str| {
        let (code, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut words = code.split_whitespace();
        let Some(address) = words.next() else { return line.to_owned() };
        let names =
            words.map(|name| if name.contains('.') { name.to_owned() } else { format!("{name}.{domain} {name}") });
        format!("{address} {} {comment}", names.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
    };
    text.lines().map(with_domain).collect::<Vec<_>>().join("\n") + "\n"
}

/// Whether a hosts line has a name.
pub(super) fn is_hosts_line(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|name| plain_name(name).is_some())
}
