//! Address networks with a value each, looked up by the longest prefix: who may ask, whose view, what is private.
//!
//! The nested networks are flattened once into ranges that do not overlap, so that a look-up is one binary search over
//! plain numbers. IPv4-mapped IPv6 addresses and networks (RFC 4291 2.5.5.2) count as the IPv4 ones they hold: sockets
//! for both families show clients that way, and a rule about 10.0.0.0/8 must not miss them.
//!
//! [`parse`] is the only way from a text to a network.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// The prefix length of IPv4 within the IPv4-mapped addresses, `::ffff:0:0/96`.
const MAPPED: u8 = 96;

/// Special-purpose networks that the internet does not route (IANA's registries, "globally reachable" is false).
const NOT_GLOBAL: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:db8::/32",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
];

/// Why a text is not a network; each reads on behind the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix length.
    #[error("is not an address, with or without a prefix length")]
    NotANetwork,
    /// An address with a scope (`%eth0`).
    #[error("has a scope; networks have none")]
    Scope,
    /// The address has bits set beyond the prefix; this is the network that it lies in.
    #[error("has bits beyond its prefix")]
    HostBits(IpNet),
    /// An IPv4-mapped address with a prefix that reaches beyond IPv4.
    #[error("is IPv4-mapped and wider than /{MAPPED}: it holds more than IPv4")]
    ShortMapped,
}

/// Reads a network; an address alone is the network of itself, an IPv4-mapped network the IPv4 network it holds.
pub fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network: IpNet = network.map_err(|_| match text.contains('%') {
        true => NetworkError::Scope,
        false => NetworkError::NotANetwork,
    })?;
    let network = match mapped(network) {
        None => network,
        Some(_) if network.prefix_len() < MAPPED => return Err(NetworkError::ShortMapped),
        Some(v4) => v4,
    };
    if network.trunc() == network { Ok(network) } else { Err(NetworkError::HostBits(network.trunc())) }
}

/// Whether some address of the network is routed on the internet.
pub fn holds_public(network: IpNet) -> bool {
    let mut special = NOT_GLOBAL.iter().filter_map(|text| parse(text).ok());
    !special.any(|special| special.contains(&network))
}

/// The IPv4 network of an IPv4-mapped one, whatever its prefix.
fn mapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return None };
    let address = v6.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, v6.prefix_len().saturating_sub(MAPPED)).ok().map(IpNet::V4)
}

/// A map from networks to values.
///
/// Invariant: within each family the ranges are sorted, do not overlap, and each holds the value of its longest prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks<V> {
    v4: Vec<Range<u32, V>>,
    v6: Vec<Range<u128, V>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range<N, V> {
    first: N,
    last: N,
    value: V,
}

impl<V: Clone> Networks<V> {
    /// Builds the map. If a network is given twice, the later value counts.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (network, value) in networks {
            let is_mapped = network.prefix_len() >= MAPPED;
            match mapped(network).filter(|_| is_mapped).unwrap_or(network) {
                IpNet::V4(n) => {
                    v4.push((
                        n.prefix_len(),
                        Range { first: n.network().to_bits(), last: n.broadcast().to_bits(), value },
                    ));
                }
                IpNet::V6(n) => {
                    v6.push((
                        n.prefix_len(),
                        Range { first: n.network().to_bits(), last: n.broadcast().to_bits(), value },
                    ));
                }
            }
        }
        Self { v4: flatten(v4, |n| n.checked_add(1), |n| n - 1), v6: flatten(v6, |n| n.checked_add(1), |n| n - 1) }
    }

    /// The value of the longest prefix that holds `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<&V> {
        match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, address.to_bits()),
            IpAddr::V6(address) => find(&self.v6, address.to_bits()),
        }
    }

    /// Whether some network holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.lookup(address).is_some()
    }

    /// Every value. The value of a network that contains others may come several times.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        let v4 = self.v4.iter().map(|range| &range.value);
        v4.chain(self.v6.iter().map(|range| &range.value))
    }

    /// Whether there is no network at all.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, since a host may use any address in it.
pub fn client_prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn find<N: Ord + Copy, V>(ranges: &[Range<N, V>], number: N) -> Option<&V> {
    let behind = ranges.partition_point(|range| range.first <= number);
    let range = &ranges[behind.checked_sub(1)?];
    (number <= range.last).then_some(&range.value)
}

/// Lays longer prefixes over shorter ones. Two networks are nested or disjoint; they never overlap in part.
fn flatten<N: Ord + Copy, V: Clone>(
    mut networks: Vec<(u8, Range<N, V>)>,
    next: impl Fn(N) -> Option<N>,
    previous: impl Fn(N) -> N,
) -> Vec<Range<N, V>> {
    networks.sort_by_key(|(length, range)| (range.first, *length));
    let mut flat: Vec<Range<N, V>> = Vec::with_capacity(networks.len());
    // The networks around this place, and the first number that has no range yet.
    let mut around: Vec<Range<N, V>> = Vec::new();
    let mut free = None;
    let mut lay = |free: Option<N>, last: N, value: V| {
        if let Some(first) = free.filter(|first| *first <= last) {
            flat.push(Range { first, last, value });
        }
    };
    for (_, network) in networks {
        while let Some(over) = around.pop_if(|outer| outer.last < network.first) {
            lay(free, over.last, over.value);
            free = next(over.last);
        }
        match around.last_mut() {
            Some(same) if (same.first, same.last) == (network.first, network.last) => same.value = network.value,
            outer => {
                if let Some(outer) = outer
                    && outer.first < network.first
                {
                    lay(free, previous(network.first), outer.value.clone());
                }
                free = Some(network.first);
                around.push(network);
            }
        }
    }
    while let Some(over) = around.pop() {
        lay(free, over.last, over.value);
        free = next(over.last);
    }
    flat
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn map(networks: &[(&str, u8)]) -> Networks<u8> {
        Networks::new(networks.iter().map(|(network, value)| (network.parse().unwrap(), *value)))
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let all = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("0.0.0.0/0", 4)];
            let networks = map(&order.map(|at| all[at]));
            for (address, value) in [
                ("10.0.0.0", 1),
                ("10.255.255.255", 1),
                ("10.1.0.0", 2),
                ("10.1.2.2", 2),
                ("10.1.2.3", 3),
                ("10.1.2.4", 2),
                ("0.0.0.0", 4),
                ("255.255.255.255", 4),
            ] {
                assert_eq!(networks.lookup(address.parse().unwrap()), Some(&value), "{address}");
            }
        }
    }

    /// The invariant, with networks that begin or end together, and with a single address between two.
    #[test]
    fn ranges_are_sorted_and_apart_and_none_is_empty() {
        fn check<N: Ord + Copy + std::fmt::Debug, V: std::fmt::Debug>(ranges: &[Range<N, V>]) {
            assert!(ranges.iter().all(|range| range.first <= range.last), "{ranges:?}");
            assert!(ranges.is_sorted_by(|before, behind| before.last < behind.first), "{ranges:?}");
        }
        let v4 = [
            ("0.0.0.0/0", 1),
            ("0.0.0.0/32", 2),
            ("255.255.255.255/32", 3),
            ("10.0.0.0/8", 4),
            ("10.0.0.0/32", 5),
            ("10.255.255.255/32", 6),
            ("10.1.0.0/16", 7),
            ("10.1.2.3/32", 8),
            ("10.1.2.5/32", 9),
            ("10.1.0.0/32", 10),
        ];
        let v6 = [
            ("::/0", 1),
            ("fd00::/8", 2),
            ("fd00::/128", 3),
            ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 4),
            ("fd00::2/128", 5),
        ];
        let networks = map(&[&v4[..], &v6[..]].concat());
        check(&networks.v4);
        check(&networks.v6);
        for (text, value) in
            v4.into_iter().chain(v6).filter(|(text, _)| text.ends_with("/32") || text.ends_with("/128"))
        {
            let network: IpNet = text.parse().unwrap();
            assert_eq!(networks.lookup(network.addr()), Some(&value), "{text}");
        }
        for (address, value) in
            [("0.0.0.1", 1), ("10.0.0.1", 4), ("10.1.2.4", 7), ("11.0.0.0", 1), ("fd00::1", 2), ("fd00::3", 2)]
        {
            assert_eq!(networks.lookup(address.parse().unwrap()), Some(&value), "{address}");
        }
        assert!(!networks.is_empty() && map(&[]).is_empty());
        assert!(!map(&v4).is_empty() && !map(&v6).is_empty());
    }

    #[test]
    fn many_networks_are_found_as_by_a_search_through_all() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..200 {
            // Few enough addresses for networks to be nested, to touch, and to come twice.
            let networks: Vec<(IpNet, usize)> = (0..random.random_range(0..40))
                .map(|at| {
                    let address = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST][random.random_range(0..2)].to_bits();
                    let address = Ipv4Addr::from_bits(address ^ random.random_range(0..64));
                    let network = Ipv4Net::new(address, random.random_range(24..=32)).unwrap().trunc();
                    (network.into(), at)
                })
                .collect();
            let flat = Networks::new(networks.iter().copied());
            assert!(flat.v4.iter().all(|range| range.first <= range.last));
            assert!(flat.v4.is_sorted_by(|before, behind| before.last < behind.first));
            for address in (0..=300).chain(u32::MAX - 300..=u32::MAX).map(Ipv4Addr::from_bits) {
                let around = networks.iter().filter(|(network, _)| network.contains(&IpAddr::V4(address)));
                let longest = around.max_by_key(|(network, at)| (network.prefix_len(), *at)).map(|(_, at)| at);
                assert_eq!(flat.lookup(address.into()), longest, "{address} in {networks:?}");
            }
        }
    }

    #[test]
    fn every_value_is_listed() {
        let networks = map(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("fd00::/8", 3)]);
        let values: std::collections::BTreeSet<u8> = networks.values().copied().collect();
        assert_eq!(values, [1, 2, 3].into());
    }

    #[test]
    fn families_are_apart_and_mapped_addresses_are_ipv4() {
        let networks = map(&[("10.0.0.0/8", 1), ("::/0", 2), ("fd00::/8", 3)]);
        assert_eq!(networks.lookup("::ffff:10.1.1.1".parse().unwrap()), Some(&1));
        assert_eq!(networks.lookup("fd12::1".parse().unwrap()), Some(&3));
        assert_eq!(networks.lookup("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()), Some(&2));
        assert_eq!(networks.lookup("11.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network_it_holds() {
        for (text, network) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::FFFF:a01:203/128", "10.1.2.3/32"),
        ] {
            assert_eq!(parse(text), Ok(network.parse().unwrap()), "{text}");
            let networks = Networks::new([(text.parse().unwrap_or_else(|_| parse(text).unwrap()), 1)]);
            assert_eq!(networks.lookup("10.1.2.3".parse().unwrap()), Some(&1), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_networks_say_why() {
        let within = |text: &str| NetworkError::HostBits(text.parse().unwrap());
        for (text, error) in [
            ("", NetworkError::NotANetwork),
            ("10.0.0.0/33", NetworkError::NotANetwork),
            ("private", NetworkError::NotANetwork),
            ("fe80::%eth0/64", NetworkError::Scope),
            ("10.1.2.3/8", within("10.0.0.0/8")),
            ("fd00::1/8", within("fd00::/8")),
            ("::ffff:10.1.2.3/104", within("10.0.0.0/8")),
            ("::ffff:10.0.0.0/95", NetworkError::ShortMapped),
            ("::ffff:0:0/80", NetworkError::ShortMapped),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_network_is_public_unless_all_of_it_is_for_special_use() {
        for (text, expected) in [
            ("10.20.0.0/16", false),
            ("172.16.0.0/12", false),
            ("172.0.0.0/8", true),
            ("100.64.0.0/10", false),
            ("fd00:20::/32", false),
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("52.94.0.0/16", true),
            ("8.8.8.8", true),
            ("2600:1f00::/24", true),
        ] {
            assert_eq!(holds_public(parse(text).unwrap()), expected, "{text}");
        }
    }
}
