//! Reverse zones: the domains below in-addr.arpa (RFC 1035 3.5) and ip6.arpa (RFC 3596 2.5) that make up a network.
//!
//! Zones are cut at octets (IPv4) and nibbles (IPv6). A network whose prefix ends between two cuts becomes several
//! zones of the next cut: 10.20.0.0/14 is 20, 21, 22 and 23.10.in-addr.arpa.

use ipnet::IpNet;

use crate::{networks, wire::Name};

/// Networks for private use: RFC 6303 4.1 and 4.4 to 4.5 (RFC 1918 and link-local networks, unique local and link-local
/// IPv6) and RFC 7793, which adds shared address space to the same registry. Networks that no site forwards (loopback,
/// this network, documentation) are left out.
const PRIVATE: &[&str] =
    &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fd00::/8", "fe80::/10"];

/// The reverse zones of a network, in the order of their addresses.
pub fn reverse_zones(network: IpNet) -> Vec<Name> {
    let network = network.trunc();
    let (suffix, digits) = match network {
        IpNet::V4(v4) => ("in-addr.arpa", v4.network().octets().map(|octet| octet.to_string()).to_vec()),
        IpNet::V6(v6) => {
            let nibbles = v6.network().octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            ("ip6.arpa", nibbles.map(|nibble| format!("{nibble:x}")).collect())
        }
    };
    let cut = if matches!(network, IpNet::V4(_)) { 8 } else { 4 };
    let length = usize::from(network.prefix_len());
    let whole = length / cut;
    if length.is_multiple_of(cut) {
        return zone(&digits[..whole], suffix).into_iter().collect();
    }
    let radix = if cut == 8 { 10 } else { 16 };
    let first = u32::from_str_radix(&digits[whole], radix).unwrap_or_default();
    let count = 1_u32 << (cut - length % cut);
    let zones = (first..first + count).filter_map(|last| {
        let mut digits = digits[..whole].to_vec();
        digits.push(if cut == 8 { last.to_string() } else { format!("{last:x}") });
        zone(&digits, suffix)
    });
    zones.collect()
}

/// The reverse zones of networks for private use.
pub fn private_reverse_zones() -> Vec<Name> {
    PRIVATE.iter().filter_map(|network| networks::parse(network).ok()).flat_map(reverse_zones).collect()
}

/// Builds a zone's name from digits: left to right in the address, right to left in the name.
fn zone(digits: &[String], suffix: &str) -> Option<Name> {
    let suffix: Name = suffix.parse().ok()?;
    digits.iter().try_fold(suffix, |zone, digit| zone.child(digit.as_bytes()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(network: &str) -> Vec<String> {
        reverse_zones(network.parse().unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn networks_are_cut_at_octets_and_nibbles() {
        for (network, expected) in [
            ("10.20.0.0/16", &["20.10.in-addr.arpa."][..]),
            ("10.0.0.0/8", &["10.in-addr.arpa."]),
            ("192.168.4.7/32", &["7.4.168.192.in-addr.arpa."]),
            ("0.0.0.0/0", &["in-addr.arpa."]),
            ("::/0", &["ip6.arpa."]),
            (
                "10.20.0.0/14",
                &["20.10.in-addr.arpa.", "21.10.in-addr.arpa.", "22.10.in-addr.arpa.", "23.10.in-addr.arpa."],
            ),
            (
                "192.168.4.0/22",
                &[
                    "4.168.192.in-addr.arpa.",
                    "5.168.192.in-addr.arpa.",
                    "6.168.192.in-addr.arpa.",
                    "7.168.192.in-addr.arpa.",
                ],
            ),
            ("10.1.1.254/31", &["254.1.1.10.in-addr.arpa.", "255.1.1.10.in-addr.arpa."]),
            ("fd00::/8", &["d.f.ip6.arpa."]),
            ("fe80::/10", &["8.e.f.ip6.arpa.", "9.e.f.ip6.arpa.", "a.e.f.ip6.arpa.", "b.e.f.ip6.arpa."]),
            ("2001:db8:a::/47", &["a.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "b.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."]),
        ] {
            assert_eq!(zones(network), expected, "{network}");
        }
    }

    #[test]
    fn a_single_ipv6_address_is_one_name_of_32_nibbles() {
        let zones = zones("2001:db8::1/128");
        assert_eq!(zones.len(), 1);
        assert_eq!(zones[0].matches('.').count(), 34);
        assert!(zones[0].starts_with("1.0.0."), "{}", zones[0]);
    }

    #[test]
    fn uneven_prefixes_hold_every_zone_once() {
        for (network, count) in [("0.0.0.0/1", 128), ("128.0.0.0/1", 128), ("10.0.0.0/25", 128), ("8000::/1", 8)] {
            let mut zones = zones(network);
            zones.sort();
            zones.dedup();
            assert_eq!(zones.len(), count, "{network}");
        }
    }

    #[test]
    fn private_zones_are_those_of_the_registry() {
        let zones: Vec<String> = private_reverse_zones().iter().map(ToString::to_string).collect();
        assert_eq!(zones.len(), 1 + 16 + 1 + 64 + 1 + 1 + 4);
        for zone in ["10.in-addr.arpa.", "31.172.in-addr.arpa.", "168.192.in-addr.arpa.", "b.e.f.ip6.arpa."] {
            assert!(zones.iter().any(|known| known == zone), "{zone}");
        }
    }
}
