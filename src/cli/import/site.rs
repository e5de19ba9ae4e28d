//! The meaning of an old configuration, whatever its language: the parts that a tidegate.toml can express, and notes on
//! the rest.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{system_error::SystemError, wire::Name};

/// The place of a setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It was not carried over, and the result lacks it.
    Lost,
    /// It was carried over, and behaves a little differently.
    Differs,
}

/// A note for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) place: Place,
    pub(super) weight: Weight,
    /// The old setting.
    pub(super) what: String,
    /// Why it changed, and what to do.
    pub(super) why: String,
}

/// How a server of a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum SelectionPolicy {
    #[default]
    Fastest,
    Spread,
    Ordered,
}

/// A server to forward to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SiteServer {
    /// Those of a resolv.conf; none = the host's.
    System(Option<PathBuf>),
    Fixed(FixedSiteServer),
}

/// One with an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FixedSiteServer {
    pub(super) scheme: Scheme,
    pub(super) address: IpAddr,
    /// None = the scheme's.
    pub(super) port: Option<u16>,
    pub(super) tls_name: Option<String>,
    pub(super) source: Option<IpAddr>,
    pub(super) device: Option<String>,
}

/// The transport of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    Udp,
    Tcp,
    Tls,
}

impl Scheme {
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls => 853,
        }
    }
}

impl FixedSiteServer {
    /// Plain DNS on its usual port.
    pub(super) const fn new(address: IpAddr) -> Self {
        Self { scheme: Scheme::Udp, address, port: None, tls_name: None, source: None, device: None }
    }
}

/// Names that go to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) zone: String,
    pub(super) servers: Vec<SiteServer>,
    pub(super) choice: SelectionPolicy,
    /// Networks of clients that it is for; empty = all.
    pub(super) clients: Vec<String>,
    pub(super) place: Place,
}

/// A local zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) zone: String,
    pub(super) data: Data,
    pub(super) place: Place,
}

/// The data of a local zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    File(PathBuf),
    /// Lines of a master file.
    Records(Vec<String>),
}

/// Listeners over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tls {
    pub(super) listen: Vec<String>,
    pub(super) https: Vec<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// Private addresses in answers, which the old server removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SiteRebind {
    pub(super) is_refused: bool,
    /// Domains whose answers may have them.
    pub(super) except: Vec<String>,
}

/// Everything that was understood.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// ADDRESS:PORT; empty = tidegate's default.
    pub(super) listen: Vec<String>,
    pub(super) tls: Tls,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) forwards: Vec<Forward>,
    pub(super) locals: Vec<Local>,
    /// hosts(5) files.
    pub(super) hosts_files: Vec<PathBuf>,
    /// Lines of such a file.
    pub(super) hosts_lines: Vec<String>,
    /// The domain of names without a dot in hosts files, if they have one.
    pub(super) hosts_domain: Option<String>,
    pub(super) rebind: SiteRebind,
    /// Whether the reverse of private addresses goes where "." goes.
    pub(super) forwards_private_reverse: bool,
    pub(super) notes: Vec<Note>,
    /// Lines about the process, its log and its tuning, which have no counterpart and need none.
    pub(super) unneeded: usize,
}

impl Site {
    /// Notes a setting that is not carried over.
    pub(super) fn lost(&mut self, place: &Place, what: impl Into<String>, why: impl Into<String>) {
        self.note(place, Weight::Lost, what.into(), why.into());
    }

    /// Notes a setting that is carried over with a difference.
    pub(super) fn differs(&mut self, place: &Place, what: impl Into<String>, why: impl Into<String>) {
        self.note(place, Weight::Differs, what.into(), why.into());
    }

    fn note(&mut self, place: &Place, weight: Weight, what: String, why: String) {
        self.notes.push(Note { place: place.clone(), weight, what, why });
    }

    /// Whether something was not carried over.
    pub(super) fn is_partial(&self) -> bool {
        self.notes.iter().any(|note| note.weight == Weight::Lost)
    }

    /// A name as written in the result; none, with a note, if it is not a valid name.
    pub(super) fn name(&mut self, text: &str, place: &Place) -> Option<String> {
        let plain = plain_name(text);
        if plain.is_none() {
            self.lost(place, text, "this is not a domain name");
        }
        plain
    }

    /// Adds a rule. An earlier rule for the same zone and clients takes precedence.
    pub(super) fn forward(&mut self, forward: Forward) {
        if forward.servers.is_empty() {
            self.lost(&forward.place, &*forward.zone, "it has no server that could be carried over");
            return;
        }
        let is_same = |other: &Forward| other.zone == forward.zone && other.clients == forward.clients;
        if let Some(first) = self.forwards.iter().find(|other| is_same(other)) {
            if (&first.servers, first.choice) != (&forward.servers, forward.choice) {
                let why = format!("{} says where this zone goes; the first line is kept", first.place);
                self.lost(&forward.place, &*forward.zone, why);
            }
            return;
        }
        self.forwards.push(forward);
    }

    /// Adds a local zone; records for an existing one are added to it.
    pub(super) fn local(&mut self, local: Local) {
        let Some(first) = self.locals.iter_mut().find(|other| other.zone == local.zone) else {
            return self.locals.push(local);
        };
        match (&mut first.data, local.data) {
            (Data::Records(all), Data::Records(more)) => {
                more.into_iter().for_each(|line| {
                    if !all.contains(&line) {
                        all.push(line);
                    }
                });
            }
            (Data::File(one), Data::File(other)) if *one == other => {}
            _ => {
                let why = format!("{} gives the records of this zone; the first line is kept", first.place);
                self.lost(&local.place, local.zone, why);
            }
        }
    }

    /// Adds a zone file, if it can be read here.
    pub(super) fn zone_file(&mut self, zone: String, path: &Path, place: &Place) {
        match std::fs::File::open(path) {
            Ok(_) => self.local(Local { zone, data: Data::File(path.to_owned()), place: place.clone() }),
            Err(error) => {
                let what = format!("zone {zone}, file {}", path.display());
                self.lost(
                    place,
                    what,
                    format!("the file cannot be read here: {}; import where it is", SystemError(&error)),
                );
            }
        }
    }

    /// Resolves conflicts that exist only in the result, not in the old configuration.
    pub(super) fn settle(&mut self) {
        let locals: Vec<(String, Place)> =
            self.locals.iter().map(|local| (local.zone.clone(), local.place.clone())).collect();
        let forwards = std::mem::take(&mut self.forwards);
        for forward in forwards {
            match locals.iter().find(|(zone, _)| *zone == forward.zone) {
                Some((_, at)) => {
                    let what = format!("forwarding {}", forward.zone);
                    self.lost(&forward.place, what, format!("{at} answers the zone itself, and that decides"));
                }
                None => self.forwards.push(forward),
            }
        }
        self.notes.sort_by(|one, other| one.place.cmp(&other.place));
        self.notes.dedup();
    }

    /// Rules as they are written: zones by their servers and clients, in the order of the old file.
    pub(super) fn groups(&self) -> Vec<(&Forward, Vec<&Forward>)> {
        let mut places: BTreeMap<(&[SiteServer], SelectionPolicy, &[String]), usize> = BTreeMap::new();
        let mut groups: Vec<(&Forward, Vec<&Forward>)> = Vec::new();
        for forward in &self.forwards {
            let key = (&forward.servers[..], forward.choice, &forward.clients[..]);
            let at = *places.entry(key).or_insert_with(|| {
                groups.push((forward, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(forward);
        }
        groups
    }
}

/// A name in lower case, without its final dot; none if it is not a valid name.
pub(super) fn plain_name(text: &str) -> Option<String> {
    let name: Name = text.parse().ok()?;
    let text = name.to_string().to_ascii_lowercase();
    Some(if text == "." { text } else { text.trim_end_matches('.').to_owned() })
}

/// Whether a plain name is a domain or below it.
pub(super) fn is_within(name: &str, domain: &str) -> bool {
    domain == "." || name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The reverse name of an address.
pub(super) fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// Whether a name begins with one of these words.
pub(super) fn is_listed(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|prefix| name.starts_with(prefix))
}

/// A network in CIDR notation; none if the text is neither a network nor an address.
pub(super) fn network(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
    }
    text.parse::<ipnet::IpNet>().ok().map(|network| network.trunc().to_string())
}

/// ADDRESS:PORT.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_networks_are_written_one_way() {
        assert_eq!(plain_name("Corp.Example.").as_deref(), Some("corp.example"));
        assert_eq!((plain_name("."), plain_name("a..b")), (Some(".".to_owned()), None));
        assert!(is_within("a.b", "b") && is_within("b", "b") && is_within("b", ".") && !is_within("ab", "b"));
        assert_eq!(reverse_name("10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa");
        assert!(reverse_name("fd00::1".parse().unwrap()).starts_with("1.0.0.0."));
        assert_eq!(network("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(network("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(network("localnets"), None);
    }
}
