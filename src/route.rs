//! Routes queries: by the longest matching domain, then by the client's view.
//!
//! Policy: the deepest domain that is QNAME or above it and has a target for this client decides. Among the targets of
//! one domain the longest client network wins, then the one for everybody. A domain whose targets are all for other
//! clients is skipped. The order of the configuration file has no meaning.
//!
//! An answer that leads from one name to another may be shared only by clients for which both names have the same
//! targets. [`RouteTable::choice`] tells which names depend on the client in the same way, [`RouteTable::audience`]
//! which clients have the same targets for every name.

use std::{collections::BTreeSet, hash::Hash, net::IpAddr};

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::{networks::Networks, wire::Name};

/// The number of a view: 0 is everybody's, each target for some clients alone has one of its own.
pub type View = u32;

/// A way in which targets depend on the client. Names with equal choices have equal targets for each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choice(u32);

/// A class of clients that no route distinguishes; 0 for clients in no route's networks.
pub type Audience = u32;

/// One line of the table, before it is built.
#[derive(Debug, Clone)]
pub struct Route<T> {
    /// The domain.
    pub domain: Name,
    /// The clients it is for; empty = everybody.
    pub clients: Vec<IpNet>,
    /// The view's number where it is for some clients alone.
    pub view: View,
    /// Where their queries go.
    pub target: T,
}

/// The result of a look-up.
#[derive(Debug, Clone, Copy)]
pub struct RouteMatch<T> {
    /// Where the query goes.
    pub target: T,
    /// The view that matched; 0 if everybody gets this target.
    pub view: View,
    /// Whether only the root covers the name.
    pub is_root: bool,
}

/// The routing table.
#[derive(Debug, Clone)]
pub struct RouteTable<T> {
    domains: HashMap<Box<[u8]>, Targets<T>>,
    /// A bit for each length that a domain's wire form has: most suffixes of a name need no look-up.
    lengths: [u64; 4],
    audiences: Networks<Audience>,
    has_views: bool,
}

#[derive(Debug, Clone)]
struct Targets<T> {
    everybody: Option<T>,
    /// Rare, and large: boxed.
    views: Option<Box<Networks<(View, T)>>>,
    choice: Option<Choice>,
}

/// The effective targets of a name, client by client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spread<T> {
    views: Vec<(IpNet, View, T)>,
    is_root: bool,
    others: Others<T>,
}

/// The target of clients in none of a domain's networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Others<T> {
    Target(T),
    /// As at the next shorter domain.
    Above(Option<Choice>, Option<T>),
}

impl<T: Copy + Eq + Hash> RouteTable<T> {
    /// Builds the table. If two routes have the same domain and client network, the later one counts.
    pub fn new(routes: Vec<Route<T>>) -> Self {
        let mut views = Views::<T>::new();
        let mut domains = HashMap::<Box<[u8]>, Targets<T>>::new();
        for route in routes {
            let key = route.domain.as_wire();
            let targets = domains.entry(key.into()).or_insert_with(Targets::none);
            if route.clients.is_empty() {
                targets.everybody = Some(route.target);
                continue;
            }
            let views = views.entry(key.into()).or_default();
            views.extend(route.clients.iter().map(|network| (*network, (route.view, route.target))));
        }
        let has_views = !views.is_empty();
        let networks: BTreeSet<IpNet> = views.values().flatten().map(|(network, _)| *network).collect();
        let audiences = Networks::new(networks.into_iter().zip(1..));
        let choices = choices(&domains, &views);
        for (domain, networks) in views {
            if let Some(targets) = domains.get_mut(&domain) {
                targets.views = Some(Box::new(Networks::new(networks)));
            }
        }
        for (domain, choice) in choices {
            if let Some(targets) = domains.get_mut(&domain) {
                targets.choice = Some(choice);
            }
        }
        let mut lengths = [0; 4];
        for domain in domains.keys() {
            lengths[domain.len() / 64 % 4] |= 1 << (domain.len() % 64);
        }
        Self { domains, lengths, audiences, has_views }
    }
}

impl<T: Copy> RouteTable<T> {
    /// Whether any route is only for some clients. If none is, every query is in view 0.
    pub const fn has_views(&self) -> bool {
        self.has_views
    }

    /// How the target of `name` depends on the client; none if all clients have the same.
    pub fn choice(&self, name: &[u8]) -> Option<Choice> {
        if !self.has_views {
            return None;
        }
        let decides = |targets: &&Targets<T>| targets.choice.is_some() || targets.everybody.is_some();
        self.covering(name).map(|domain| domain.targets).find(decides)?.choice
    }

    /// The class of clients that this one belongs to.
    pub fn audience(&self, client: IpAddr) -> Audience {
        if self.has_views { self.audiences.lookup(client).copied().unwrap_or(0) } else { 0 }
    }

    /// The target of a query for `name` (wire form, lower case) from `client`; none if no domain covers it.
    pub fn find(&self, name: &[u8], client: IpAddr) -> Option<RouteMatch<T>> {
        self.deciding(name, client).map(|(_, found)| found)
    }

    /// The target as [`RouteTable::find`] gives it, with the domain that decides.
    pub fn deciding<'t>(&'t self, name: &'t [u8], client: IpAddr) -> Option<(&'t [u8], RouteMatch<T>)> {
        self.covering(name).find_map(|covering| Some((covering.domain, covering.pick(client)?)))
    }

    /// The domains that are `name` or above it, the longest first.
    pub fn covering<'t>(&'t self, name: &'t [u8]) -> impl Iterator<Item = Covering<'t, T>> {
        let of_a_length = suffixes(name).filter(|domain| self.has_length(domain.len()));
        of_a_length.filter_map(|domain| Some(Covering { domain, targets: self.domains.get(domain)? }))
    }

    /// Whether some domain has this length in wire form (1 to 255 octets).
    const fn has_length(&self, length: usize) -> bool {
        self.lengths[length / 64 % 4] >> (length % 64) & 1 == 1
    }
}

/// A domain of the table that covers a name.
#[derive(Debug)]
pub struct Covering<'t, T> {
    /// The domain, in wire form.
    pub domain: &'t [u8],
    targets: &'t Targets<T>,
}

impl<T: Copy> Covering<'_, T> {
    /// The domain's target for a client; none if all its targets are for others.
    pub fn pick(&self, client: IpAddr) -> Option<RouteMatch<T>> {
        self.targets.pick(client).map(|found| RouteMatch { is_root: self.domain == [0], ..found })
    }

    /// The targets for some clients only, each once, then the one for everybody.
    pub fn targets(&self) -> Vec<T>
    where
        T: PartialEq,
    {
        let views = self.targets.views.iter().flat_map(|views| views.values().map(|&(_, target)| target));
        let mut targets = Vec::new();
        for target in views.chain(self.targets.everybody) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

/// A name and the domains above it, the root last.
fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let suffix = name.get(at..)?;
        at += 1 + usize::from(*suffix.first()?);
        Some(suffix)
    })
}

type Views<T> = HashMap<Box<[u8]>, Vec<(IpNet, (View, T))>>;

/// Numbers the different choices that domains with views make among clients.
fn choices<T: Copy + Eq + Hash>(
    domains: &HashMap<Box<[u8]>, Targets<T>>,
    views: &Views<T>,
) -> HashMap<Box<[u8]>, Choice> {
    let mut shortest_first: Vec<&Box<[u8]>> = views.keys().collect();
    shortest_first.sort_unstable_by_key(|domain| domain.len());
    let mut numbers = HashMap::<Spread<T>, Choice>::new();
    let mut choices = HashMap::<Box<[u8]>, Choice>::new();
    for domain in shortest_first {
        let above = || {
            let mut above = suffixes(domain).skip(1);
            let covers = |suffix: &&[u8]| choices.contains_key(*suffix) || everybody(domains, suffix).is_some();
            above.find(covers).map_or(Others::Above(None, None), |suffix| {
                Others::Above(choices.get(suffix).copied(), everybody(domains, suffix))
            })
        };
        let others = everybody(domains, domain).map_or_else(above, Others::Target);
        let mut networks: Vec<_> =
            views[domain].iter().map(|&(network, (view, target))| (network, view, target)).collect();
        networks.sort_unstable_by_key(|&(network, view, _)| (network, view));
        let spread = Spread { views: networks, is_root: domain[..] == [0], others };
        let next = Choice(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
        let choice = *numbers.entry(spread).or_insert(next);
        choices.insert(domain.clone(), choice);
    }
    choices
}

fn everybody<T: Copy>(domains: &HashMap<Box<[u8]>, Targets<T>>, domain: &[u8]) -> Option<T> {
    domains.get(domain)?.everybody
}

impl<T: Copy> Targets<T> {
    fn none() -> Self {
        Self { everybody: None, views: None, choice: None }
    }

    fn pick(&self, client: IpAddr) -> Option<RouteMatch<T>> {
        if let Some(&(view, target)) = self.views.as_ref().and_then(|views| views.lookup(client)) {
            return Some(RouteMatch { target, view, is_root: false });
        }
        self.everybody.map(|target| RouteMatch { target, view: 0, is_root: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str, u8)]) -> RouteTable<u8> {
        let routes = routes.iter().map(|(domain, clients, target)| Route {
            domain: domain.parse().unwrap(),
            clients: clients.split_whitespace().map(|network| network.parse().unwrap()).collect(),
            view: if clients.is_empty() { 0 } else { View::from(*target) },
            target: *target,
        });
        RouteTable::new(routes.collect())
    }

    fn find(table: &RouteTable<u8>, name: &str, client: &str) -> Option<(u8, View)> {
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
    fn a_domain_of_any_length_is_found() {
        let domains: Vec<String> = (2..=127).map(|labels| vec!["a"; labels].join(".")).collect();
        let routes: Vec<_> = domains.iter().zip(1..).map(|(domain, target)| (&**domain, "", target)).collect();
        let table = table(&routes);
        for (domain, target) in domains.iter().zip(1..) {
            assert_eq!(find(&table, domain, "10.0.0.1"), Some((target, 0)), "{domain}");
        }
    }

    #[test]
    fn names_that_only_the_root_covers_are_marked() {
        let table = table(&[(".", "", 1), ("example", "", 2), ("view", "10.0.0.0/8", 3)]);
        for (name, client, is_root) in [
            (".", "10.0.0.1", true),
            ("org", "10.0.0.1", true),
            ("example", "10.0.0.1", false),
            ("www.example", "10.0.0.1", false),
            ("www.view", "10.0.0.1", false),
            ("www.view", "192.0.2.1", true),
        ] {
            let name: Name = name.parse().unwrap();
            let found = table.find(name.as_wire(), client.parse().unwrap()).unwrap();
            assert_eq!(found.is_root, is_root, "{name} {client}");
        }
    }

    #[test]
    fn names_that_go_the_same_way_for_every_client_are_known() {
        let table = table(&[
            (".", "", 1),
            ("a.example", "10.0.0.0/8", 2),
            ("a.example", "10.1.0.0/16", 3),
            ("b.example", "10.1.0.0/16", 3),
            ("b.example", "10.0.0.0/8", 2),
            ("c.example", "10.0.0.0/8", 2),
            ("d.example", "10.0.0.0/8", 2),
            ("d.example", "10.1.0.0/16", 3),
            ("d.example", "", 4),
            ("below.a.example", "10.0.0.0/8", 2),
            ("lower.a.example", "", 1),
        ]);
        let choice = |name: &str| table.choice(name.parse::<Name>().unwrap().as_wire());
        assert!(choice("a.example").is_some());
        assert_eq!(choice("x.a.example"), choice("y.b.example"), "the same networks, the same targets");
        for other in ["c.example", "d.example", "below.a.example"] {
            assert!(choice(other).is_some_and(|other| Some(other) != choice("a.example")), "{other}");
        }
        for everybodys in [".", "example", "lower.a.example", "x.lower.a.example"] {
            assert_eq!(choice(everybodys), None, "{everybodys}");
        }
    }

    #[test]
    fn clients_that_no_route_tells_apart_are_one_audience() {
        let table = table(&[("a.example", "10.0.0.0/8", 1), ("b.example", "10.1.0.0/16", 2), ("b.example", "", 3)]);
        let audience = |client: &str| table.audience(client.parse().unwrap());
        assert_eq!(audience("10.2.0.1"), audience("10.255.0.1"));
        assert_eq!(audience("10.1.0.1"), audience("::ffff:10.1.9.9"));
        assert_ne!(audience("10.1.0.1"), audience("10.2.0.1"));
        assert_eq!((audience("192.0.2.1"), audience("fd00::1")), (0, 0));
    }

    #[test]
    fn every_rule_that_may_have_a_name_is_told_the_nearest_first() {
        let table = table(&[
            (".", "", 1),
            ("example", "10.0.0.0/8 10.1.2.0/24 fd00::/8", 2),
            ("example", "10.1.0.0/16", 3),
            ("www.example", "", 4),
            ("other.example", "", 5),
        ]);
        let name: Name = "www.example".parse().unwrap();
        let all: Vec<_> = table.covering(name.as_wire()).map(|found| (found.domain.len(), found.targets())).collect();
        assert_eq!(all, [(13, vec![4]), (9, vec![2, 3]), (1, vec![1])]);
    }

    #[test]
    fn only_a_route_for_some_clients_alone_makes_views() {
        assert!(!table(&[]).has_views() && !table(&[(".", "", 1), ("example", "", 2)]).has_views());
        assert!(table(&[(".", "", 1), ("example", "10.0.0.0/8", 2)]).has_views());
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

    proptest::proptest! {
        /// Names with the same choice send each client of a view to the same target, and names without a choice send
        /// all clients there. Clients of one audience have the same target for every name.
        #[test]
        fn choices_and_audiences_tell_all_that_is_apart(
            rules in proptest::collection::vec((0_u8..64, 0_u8..32), 0..5),
        ) {
            // A rule has the same clients for all its domains; the configuration refuses two for one domain and
            // network.
            let mut lines: Vec<(&str, &str, u8)> = Vec::new();
            for (target, (domains, networks)) in (1..).zip(&rules) {
                let picked = |all: &[&'static str], bits: u8| -> Vec<&'static str> {
                    all.iter().enumerate().filter(|(at, _)| bits & 1 << at != 0).map(|(_, one)| *one).collect()
                };
                for domain in picked(&DOMAINS, *domains) {
                    let networks = if *networks == 0 { vec![""] } else { picked(&NETWORKS, *networks) };
                    let is_free = |network: &&str| !lines.iter().any(|(d, n, _)| *d == domain && n == network);
                    if networks.iter().all(is_free) {
                        lines.extend(networks.iter().map(|network| (domain, *network, target)));
                    }
                }
            }
            let table = table(&lines);
            let names: Vec<Name> =
                DOMAINS.iter().flat_map(|domain| [domain.parse(), format!("x.{domain}").trim_end_matches('.').parse()])
                    .map(Result::unwrap).collect();
            let clients: Vec<IpAddr> = CLIENTS.iter().map(|client| client.parse().unwrap()).collect();
            let way = |name: &Name, client| table.find(name.as_wire(), client).map(|f| (f.target, f.view, f.is_root));
            for name in &names {
                for &one in &clients {
                    for &two in &clients {
                        if table.audience(one) == table.audience(two) {
                            proptest::prop_assert_eq!(way(name, one), way(name, two));
                        }
                        let view = |client| way(name, client).map_or(0, |(_, view, _)| view);
                        if view(one) != view(two) {
                            continue;
                        }
                        for end in &names {
                            let choice = table.choice(end.as_wire());
                            if choice.is_none() || choice == table.choice(name.as_wire()) {
                                proptest::prop_assert_eq!(way(end, one), way(end, two), "{} {} {} {}", name, end, one, two);
                            }
                        }
                    }
                }
            }
        }
    }

    const DOMAINS: [&str; 6] = [".", "a", "b.a", "c.b.a", "d", "e.d"];
    const NETWORKS: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "fd00::/8", "0.0.0.0/0"];
    const CLIENTS: [&str; 6] = ["10.1.0.1", "10.1.0.2", "10.2.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"];
}
