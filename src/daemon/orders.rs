//! Orders from the control socket that need no configuration: drain, undrain, flush.
//!
//! A server is named as in the configuration, or by its address: with a port, everything at that port over any
//! transport; without one, the whole machine. With `GROUP/` in front, only that group's. If there are several paths to
//! it, `,source=`, `,device=` and `,mark=` after the address select among them; `,mark=0` and an empty source or device
//! select paths without one. `system` means every server that the group has from resolv.conf.

use std::sync::Arc;

use super::Daemon;
use crate::{
    admin::control::{DrainedServer, Flush, OrderFacts, OrderReport, OrderResult},
    config::{Endpoint, Live, ServerAddress},
    plural::Plural,
    upstream::{Group, Server, path_words},
};

/// The most servers in a line.
const MOST_NAMES: usize = 12;

/// Whether a drain begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// The server gets no more queries.
    Begin,
    /// The server gets queries again.
    End,
}

impl Daemon {
    /// Begins or ends the drain of every server that matches `name`.
    pub fn set_drained(&self, name: &str, drain: Drain) -> OrderResult {
        let snapshot = self.engine.snapshot_owned();
        let all: Vec<&Arc<Server>> = snapshot.groups.iter().flat_map(|group| group.servers()).collect();
        let live = self.live();
        let (fitting, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|server| fits(server, name) || is_from_system(server, name, &live));
        if fitting.is_empty() {
            let known: Vec<String> = others.iter().map(|server| full_name(server)).collect();
            let of_group: Vec<String> =
                others.iter().filter(|server| server.group() == name).map(|server| full_name(server)).collect();
            let line = match (known.is_empty(), of_group.is_empty()) {
                (true, _) => format!("there is no server \"{name}\", nor any other"),
                (false, true) => format!("there is no server \"{name}\"; there are {}", some_of(&known)),
                (false, false) => format!("\"{name}\" is a group; its servers are {}", some_of(&of_group)),
            };
            let facts = OrderFacts { known: Some(known), ..OrderFacts::default() };
            return Err(OrderReport::new(vec![line]).with(facts));
        }
        let mut lines: Vec<String> = fitting.iter().map(|server| set_one(server, drain)).collect();
        if drain == Drain::End {
            // Queries that failed for lack of servers may work now.
            self.engine.forget_failures();
        }
        let is_bare = |group: &&Arc<Group>| {
            fitting.iter().any(|server| server.group() == group.name()) && group.servers().all(|s| s.is_drained())
        };
        let bare = snapshot.groups.iter().filter(is_bare);
        lines.extend(bare.map(|group| format!("upstream {} has no server left, as if all were down", group.name())));
        let servers = fitting.iter().map(|server| DrainedServer {
            group: server.group().to_owned(),
            server: server.label().to_owned(),
            drained: server.is_drained(),
        });
        let facts = OrderFacts { servers: Some(servers.collect()), ..OrderFacts::default() };
        Ok(OrderReport::new(lines).with(facts))
    }

    /// Removes answers and remembered failures from the cache.
    pub fn flush(&self, what: &Flush) -> OrderReport {
        let cache = &self.engine.cache;
        // Failures are remembered only for seconds, so any flush clears them all.
        self.engine.forget_failures();
        let forgotten = match what {
            Flush::Name(name) => cache.remove_name(name.as_wire()),
            Flush::Zone(name) => cache.remove_domain(name.as_wire()),
            Flush::All => {
                let entries = cache.stats().entries;
                cache.clear();
                entries
            }
        };
        let line = format!("{} forgotten", Plural(forgotten, "answer"));
        OrderReport::new(vec![line]).with(OrderFacts { forgotten: Some(forgotten), ..OrderFacts::default() })
    }
}

/// The first of many names.
fn some_of(names: &[String]) -> String {
    let more = match names.len().checked_sub(MOST_NAMES) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more, see `tidegate status`"),
    };
    names[..names.len().min(MOST_NAMES)].join(", ") + &more
}

fn set_one(server: &Server, drain: Drain) -> String {
    let (was_off, name) = (server.is_drained(), full_name(server));
    match drain {
        Drain::Begin => server.drain(),
        Drain::End => server.undrain(),
    }
    match (was_off, drain) {
        (false, Drain::Begin) => format!("{name} gets no more queries"),
        (true, Drain::End) => format!("{name} gets queries again"),
        (true, Drain::Begin) => format!("{name} gets no queries already"),
        (false, Drain::End) => format!("{name} gets queries already"),
    }
}

fn full_name(server: &Server) -> String {
    format!("{}/{}", server.group(), server.label())
}

fn fits(server: &Server, name: &str) -> bool {
    let in_group = name.strip_prefix(server.group()).and_then(|rest| rest.strip_prefix('/'));
    is_called(server, name) || in_group.is_some_and(|name| is_called(server, name))
}

/// Whether `name` is a `system` entry of the server's group and the server is from there: nothing else in the group names
/// it.
fn is_from_system(server: &Server, name: &str, live: &Live) -> bool {
    let name = name.strip_prefix(server.group()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    let Some(group) = live.groups.iter().find(|group| group.name == server.group()) else { return false };
    let entries = || group.tiers.iter().flatten().map(|entry| &entry.address);
    let is_meant = |entry: &ServerAddress| {
        matches!(entry, ServerAddress::System { .. }) && (name == "system" || name == entry.to_string())
    };
    let is_fixed = |entry: &ServerAddress| match entry {
        ServerAddress::Fixed(fixed) => {
            fixed.transport == server.spec().transport
                && fixed.endpoint.place() == (server.spec().address, server.spec().via.scope.as_deref())
        }
        ServerAddress::Named(_) | ServerAddress::System { .. } => false,
    };
    entries().any(is_meant) && !entries().any(is_fixed)
}

fn is_called(server: &Server, name: &str) -> bool {
    if name == server.label() {
        return true;
    }
    let Some(name) = on_this_path(server, name) else { return false };
    let Some((scheme, rest)) = name.split_once("://") else {
        // An address without a port is any port.
        return stands_at(server, name, 0);
    };
    let spec = server.spec();
    let (address, behind) = rest.split_at(rest.find(['/', '#']).unwrap_or(rest.len()));
    scheme == spec.transport.label()
        && stands_at(server, address, spec.transport.default_port())
        && has_behind(server, behind)
}

/// What stands before the parts of a path that `name` ends with; none where the server's path has others.
fn on_this_path<'n>(server: &Server, name: &'n str) -> Option<&'n str> {
    let words = path_words(&server.spec().via);
    let mut rest = name;
    while let Some((before, (key, value))) =
        rest.rsplit_once(',').and_then(|(before, word)| Some((before, word.split_once('=')?)))
        && let Some((_, own)) = words.iter().find(|(own, _)| *own == key)
    {
        if own != value {
            return None;
        }
        rest = before;
    }
    Some(rest)
}

/// Whether the server is at this address; port 0, given or by default, is any.
fn stands_at(server: &Server, address: &str, port: u16) -> bool {
    let Ok(wanted) = Endpoint::parse(address, port) else { return false };
    let mut address = server.spec().address;
    if wanted.port == 0 {
        address.set_port(0);
    }
    wanted.place() == (address, server.spec().via.scope.as_deref())
}

/// Whether a server is written with this path or name behind its address, or with both, as far as they are given.
fn has_behind(server: &Server, behind: &str) -> bool {
    let label = server.label().strip_suffix(&*server.spec().path_label).unwrap_or_default();
    let Some((_, after)) = label.split_once(behind) else { return false };
    behind.is_empty() || after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        upstream::{Egress, HealthSpec, ServerSpec, path_label, server::ServerPolicy},
        wire::{Name, RecordType, Transport},
    };

    fn server(transport: Transport, address: &str) -> Server {
        by_path(transport, address, Egress::default())
    }

    fn by_path(transport: Transport, address: &str, via: Egress) -> Server {
        let path_label = path_label(&via, &Egress::default());
        let spec = ServerSpec { via, path_label, ..ServerSpec::plain(transport, address.parse().unwrap()) };
        let health = HealthSpec::probing(Name::root(), RecordType::NS);
        Server::new(
            "vpc".into(),
            spec,
            ServerPolicy { health, timeout: Duration::from_secs(1), max_qps: None },
            Arc::default(),
            Arc::default(),
        )
    }

    #[test]
    fn a_server_goes_by_what_was_written_and_by_its_address() {
        use Transport::{Https, Tcp, Tls, Udp};
        for (transport, address, name, expected) in [
            (Udp, "10.1.1.53:53", "10.1.1.53", true),
            (Udp, "10.1.1.53:53", "10.1.1.53:53", true),
            (Udp, "10.1.1.53:53", "udp://10.1.1.53", true),
            (Udp, "10.1.1.53:53", "vpc/10.1.1.53", true),
            (Udp, "10.1.1.53:53", "site/10.1.1.53", false),
            (Udp, "10.1.1.53:53", "10.1.1.5", false),
            (Udp, "10.1.1.53:53", "10.1.1.53:54", false),
            (Udp, "10.1.1.53:53", "tcp://10.1.1.53", false),
            (Udp, "10.1.1.53:5353", "10.1.1.53", true),
            (Tcp, "10.1.1.53:53", "10.1.1.53", true),
            (Tcp, "10.1.1.53:53", "tcp://10.1.1.53:53", true),
            (Tcp, "10.1.1.53:54", "tcp://10.1.1.53", false),
            (Udp, "[fd00::1]:53", "FD00:0::1", true),
            (Udp, "[fd00::1]:53", "[fd00::1]", true),
            (Udp, "[fd00::1]:53", "vpc/[fd00::1]:53", true),
            (Udp, "[fd00::1]:53", "[fd00::1]:54", false),
            (Tls, "10.1.1.55:853", "tls://10.1.1.55:853", true),
            (Tls, "10.1.1.55:853", "10.1.1.55", true),
            (Tls, "10.1.1.55:853", "tls://10.1.1.55#dns.example", false),
            (Https, "10.1.1.56:443", "https://10.1.1.56", true),
            (Https, "10.1.1.56:443", "vpc/https://10.1.1.56:443/dns-query", true),
            (Https, "10.1.1.56:443", "https://10.1.1.56/dns", false),
            (Https, "10.1.1.56:443", "https://10.1.1.5", false),
            (Udp, "10.1.1.53:53", "", false),
            (Udp, "10.1.1.53:53", "vpc/", false),
            (Udp, "10.1.1.53:53", "vpc", false),
            (Udp, "10.1.1.53:53", "gopher://10.1.1.53", false),
        ] {
            assert_eq!(fits(&server(transport, address), name), expected, "{transport:?} {address}: {name}");
        }
    }
    #[test]
    fn one_of_several_paths_to_a_server_can_be_named() {
        let plain = server(Transport::Udp, "10.1.1.53:53");
        let marked = by_path(Transport::Udp, "10.1.1.53:53", Egress { mark: 2, ..Egress::default() });
        let via =
            Egress { source: Some("10.9.0.1".parse().unwrap()), device: Some("vpn0".into()), mark: 2, scope: None };
        let both = by_path(Transport::Https, "10.1.1.53:443", via);
        let labels = [&plain, &marked, &both].map(|server| server.label().to_owned());
        assert_eq!(
            labels,
            ["10.1.1.53", "10.1.1.53,mark=2", "https://10.1.1.53/dns-query,source=10.9.0.1,device=vpn0,mark=2"]
        );
        for (name, expected) in [
            ("10.1.1.53", [true, true, true]),
            ("10.1.1.53,mark=2", [false, true, true]),
            ("vpc/10.1.1.53,mark=2", [false, true, true]),
            ("udp://10.1.1.53,mark=2", [false, true, false]),
            ("10.1.1.53,mark=0", [true, false, false]),
            ("10.1.1.53,mark=2,device=", [false, true, false]),
            ("10.1.1.53,device=vpn0,source=10.9.0.1", [false, false, true]),
            ("https://10.1.1.53,device=vpn0", [false, false, true]),
            ("https://10.1.1.53/dns,device=vpn0", [false, false, false]),
            ("10.1.1.53,mark=3", [false, false, false]),
            ("10.1.1.53,colour=2", [false, false, false]),
            (&labels[2], [false, false, true]),
        ] {
            assert_eq!([&plain, &marked, &both].map(|server| fits(server, name)), expected, "{name}");
        }
    }
}
