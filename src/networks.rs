//! Address networks with a value each, looked up by the longest prefix: who may ask, whose view, what is private.
//!
//! The nested networks are flattened once into ranges that do not overlap, so that a look-up is one binary search over
//! plain numbers. IPv4-mapped IPv6 addresses count as the IPv4 address they hold.

use std::net::IpAddr;

use ipnet::IpNet;

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
    /// Builds the map. Of the same network given twice the later value counts.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (network, value) in networks {
            match network {
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
        Self { v4: flatten(v4, |n| n + 1, |n| n - 1), v6: flatten(v6, |n| n + 1, |n| n - 1) }
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

    /// Whether there is no network at all.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn find<N: Ord + Copy, V>(ranges: &[Range<N, V>], number: N) -> Option<&V> {
    let behind = ranges.partition_point(|range| range.first <= number);
    let range = &ranges[behind.checked_sub(1)?];
    (number <= range.last).then_some(&range.value)
}

/// Lays longer prefixes over shorter ones. Networks nest or are apart, they never cross.
fn flatten<N: Ord + Copy, V: Clone>(
    mut networks: Vec<(u8, Range<N, V>)>,
    next: impl Fn(N) -> N,
    previous: impl Fn(N) -> N,
) -> Vec<Range<N, V>> {
    networks.sort_by_key(|(length, _)| *length);
    let mut flat: Vec<Range<N, V>> = Vec::new();
    for (_, inner) in networks {
        let mut laid = Vec::with_capacity(flat.len() + 2);
        for outer in flat {
            if outer.last < inner.first || outer.first > inner.last {
                laid.push(outer);
                continue;
            }
            if outer.first < inner.first {
                laid.push(Range { first: outer.first, last: previous(inner.first), value: outer.value.clone() });
            }
            if outer.last > inner.last {
                laid.push(Range { first: next(inner.last), last: outer.last, value: outer.value });
            }
        }
        laid.push(inner);
        laid.sort_by_key(|range| range.first);
        flat = laid;
    }
    flat
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn families_are_apart_and_mapped_addresses_are_ipv4() {
        let networks = map(&[("10.0.0.0/8", 1), ("::/0", 2), ("fd00::/8", 3)]);
        assert_eq!(networks.lookup("::ffff:10.1.1.1".parse().unwrap()), Some(&1));
        assert_eq!(networks.lookup("fd12::1".parse().unwrap()), Some(&3));
        assert_eq!(networks.lookup("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()), Some(&2));
        assert_eq!(networks.lookup("11.0.0.1".parse().unwrap()), None);
    }
}
