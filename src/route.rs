//! Where a question goes: the longest matching domain, then the client's view.
//!
//! Policy: the deepest domain that is QNAME or above it and has a target for this client decides. Among the targets of
//! one domain the longest client network wins, then the one for everybody. A domain whose targets are all for other
//! clients is as if it were not there. The order of the configuration file has no meaning.

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::{networks::Networks, wire::Name};

/// The number of a view: 0 is everybody's, each target for some clients alone has one of its own.
pub type View = u16;

/// How far a route reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The name and all below it.
    Domain,
    /// The name alone.
    Name,
}

/// One line of the table, before it is built.
#[derive(Debug, Clone)]
pub struct Route<T> {
    /// The domain.
    pub domain: Name,
    /// Whether names below the domain go there too.
    pub reach: Reach,
    /// The clients it is for; empty = everybody. A route for one name alone is for everybody.
    pub clients: Vec<IpNet>,
    /// The view's number where it is for some clients alone.
    pub view: View,
    /// Where their questions go.
    pub target: T,
}

/// What a look-up gives.
#[derive(Debug, Clone, Copy)]
pub struct Found<T> {
    /// Where the question goes.
    pub target: T,
    /// The view it was found in; 0 where everybody gets this target.
    pub view: View,
    /// Whether only the root covers the name.
    pub is_root: bool,
}

/// The routing table.
#[derive(Debug, Clone)]
pub struct Table<T> {
    domains: HashMap<Box<[u8]>, Targets<T>>,
    has_views: bool,
}

#[derive(Debug, Clone)]
struct Targets<T> {
    /// For the name itself; it beats the domain's.
    name_alone: Option<T>,
    everybody: Option<T>,
    views: Networks<(View, T)>,
}

impl<T: Copy> Table<T> {
    /// Builds the table. Of two routes for one domain and one client network the later counts.
    pub fn new(routes: Vec<Route<T>>) -> Self {
        let mut views = HashMap::<Box<[u8]>, Vec<_>>::new();
        let mut domains = HashMap::<Box<[u8]>, Targets<T>>::new();
        for route in routes {
            let key: Box<[u8]> = route.domain.as_wire().into();
            let targets = domains.entry(key.clone()).or_insert_with(Targets::none);
            if route.reach == Reach::Name {
                targets.name_alone = Some(route.target);
                continue;
            }
            if route.clients.is_empty() {
                targets.everybody = Some(route.target);
                continue;
            }
            let views = views.entry(key).or_default();
            views.extend(route.clients.iter().map(|network| (*network, (route.view, route.target))));
        }
        let has_views = !views.is_empty();
        for (domain, networks) in views {
            if let Some(targets) = domains.get_mut(&domain) {
                targets.views = Networks::new(networks);
            }
        }
        Self { domains, has_views }
    }

    /// Whether any route is for some clients alone. Without one, every question is in view 0.
    pub const fn has_views(&self) -> bool {
        self.has_views
    }

    /// Where a question for `name` (wire form, lower case) from `client` goes; none where no domain covers it.
    pub fn find(&self, name: &[u8], client: IpAddr) -> Option<Found<T>> {
        let mut at = 0;
        loop {
            let suffix = name.get(at..)?;
            let length = usize::from(*suffix.first()?);
            if let Some(found) = self.domains.get(suffix).and_then(|targets| targets.pick(client, at == 0)) {
                return Some(Found { is_root: length == 0, ..found });
            }
            if length == 0 {
                return None;
            }
            at += 1 + length;
        }
    }
}

impl<T: Copy> Targets<T> {
    fn none() -> Self {
        Self { name_alone: None, everybody: None, views: Networks::new([]) }
    }

    fn pick(&self, client: IpAddr, is_name: bool) -> Option<Found<T>> {
        if let Some(target) = self.name_alone.filter(|_| is_name) {
            return Some(Found { target, view: 0, is_root: false });
        }
        if let Some(&(view, target)) = self.views.lookup(client) {
            return Some(Found { target, view, is_root: false });
        }
        self.everybody.map(|target| Found { target, view: 0, is_root: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str, u8)]) -> Table<u8> {
        let routes = routes.iter().map(|(domain, clients, target)| Route {
            domain: domain.trim_end_matches('!').parse().unwrap(),
            reach: if domain.ends_with('!') { Reach::Name } else { Reach::Domain },
            clients: clients.split_whitespace().map(|network| network.parse().unwrap()).collect(),
            view: if clients.is_empty() { 0 } else { View::from(*target) },
            target: *target,
        });
        Table::new(routes.collect())
    }

    fn find(table: &Table<u8>, name: &str, client: &str) -> Option<(u8, View)> {
        let name: Name = name.parse().unwrap();
        table.find(name.as_wire(), client.parse().unwrap()).map(|found| (found.target, found.view))
    }

    #[test]
    fn the_longest_domain_decides() {
        let table = table(&[(".", "", 1), ("amazonaws.com", "", 2), ("s3.eu-west-1.amazonaws.com", "", 3)]);
        for (name, target) in [
            (".", 1),
            ("example.org", 1),
            ("amazonaws.com", 2),
            ("xamazonaws.com", 1),
            ("ec2.amazonaws.com", 2),
            ("s3.eu-west-1.amazonaws.com", 3),
            ("bucket.s3.eu-west-1.amazonaws.com", 3),
            ("s3.eu-west-2.amazonaws.com", 2),
        ] {
            assert_eq!(find(&table, name, "10.0.0.1"), Some((target, 0)), "{name}");
        }
    }

    #[test]
    fn a_name_alone_leaves_the_names_below_it_alone() {
        let table = table(&[("example", "", 1), ("host.example!", "", 2)]);
        assert_eq!(find(&table, "host.example", "10.0.0.1"), Some((2, 0)));
        assert_eq!(find(&table, "a.host.example", "10.0.0.1"), Some((1, 0)));
    }

    #[test]
    fn without_a_root_some_names_have_no_target() {
        assert_eq!(find(&table(&[("example", "", 1)]), "example.org", "10.0.0.1"), None);
    }

    #[test]
    fn among_one_domains_targets_the_longest_client_network_wins() {
        let table = table(&[
            ("corp.example", "", 1),
            ("corp.example", "10.0.0.0/8", 2),
            ("corp.example", "10.1.0.0/16 fd00::/8", 3),
            ("lab.corp.example", "192.168.0.0/16", 4),
        ]);
        for (name, client, found) in [
            ("a.corp.example", "172.16.0.1", (1, 0)),
            ("a.corp.example", "10.2.0.1", (2, 2)),
            ("a.corp.example", "10.1.0.1", (3, 3)),
            ("a.corp.example", "fd00::1", (3, 3)),
            ("lab.corp.example", "192.168.0.1", (4, 4)),
            ("lab.corp.example", "10.1.0.1", (3, 3)),
        ] {
            assert_eq!(find(&table, name, client), Some(found), "{name} {client}");
        }
    }
}
