//! Special-use names: names that a site's resolver answers itself and never forwards.
//!
//! | domain | answer | because |
//! | --- | --- | --- |
//! | `localhost` and all below it | A 127.0.0.1, AAAA ::1, else NODATA | RFC 6761 6.3 |
//! | `invalid`, `test`, `onion` | NXDOMAIN, the name itself included | RFC 6761 6.4, 6.2, RFC 7686 2 |
//! | `home.arpa` | an empty zone | RFC 8375 4 |
//! | `resolver.arpa` | an empty zone; SVCB of `_dns.resolver.arpa` names the encrypted listeners, or is NODATA where there are none | RFC 9462 4, 6.4 |
//! | reverse zones of private, loopback, link-local, shared and documentation networks | an empty zone; loopback addresses are `localhost` | RFC 6303 4, RFC 7793 |
//!
//! An empty zone has the SOA and NS of RFC 6303 3, so that negative answers can be cached.
//!
//! `local` is not among them. RFC 6762 22.1 would have a resolver answer NXDOMAIN, but many Active Directory domains
//! live below it, on exactly the networks this server is for: it goes where a rule sends it, as with Unbound.
//!
//! `route` uses these domains only where no rule and no local zone except "." covers the name.

use std::net::IpAddr;

use super::{build::Builder, zone::Zone};
use crate::wire::{Name, RecordType};

/// An encrypted listener that clients of the plain ones may go over to (RFC 9462 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesignatedResolver {
    /// The name that its certificate is for.
    pub target: Name,
    /// The protocols spoken there, as ALPN names them.
    pub alpn: &'static [&'static str],
    /// Where it listens.
    pub port: u16,
    /// Its addresses, so that clients need not ask for them.
    pub addresses: Vec<IpAddr>,
    /// The template of a query's path, with HTTPS (RFC 9461 5).
    pub http_path: Option<&'static str>,
}

impl DesignatedResolver {
    /// The RDATA of its SVCB record (RFC 9460 2.2): parameters by ascending key.
    fn rdata(&self, priority: u16) -> Vec<u8> {
        let ipv4 = |address: &IpAddr| if let IpAddr::V4(ip) = address { Some(ip.octets()) } else { None };
        let ipv6 = |address: &IpAddr| if let IpAddr::V6(ip) = address { Some(ip.octets()) } else { None };
        let alpn = |id: &&str| [&[u8::try_from(id.len()).unwrap_or(u8::MAX)], id.as_bytes()].concat();
        let parameters: [(u16, Vec<u8>); 5] = [
            (1, self.alpn.iter().flat_map(alpn).collect()),
            (3, self.port.to_be_bytes().to_vec()),
            (4, self.addresses.iter().filter_map(ipv4).flatten().collect()),
            (6, self.addresses.iter().filter_map(ipv6).flatten().collect()),
            (7, self.http_path.unwrap_or_default().into()),
        ];
        let mut rdata = [&priority.to_be_bytes()[..], self.target.as_wire()].concat();
        for (key, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
            rdata.extend(key.to_be_bytes());
            rdata.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            rdata.extend(value);
        }
        rdata
    }
}

/// `resolver.arpa` with these designated resolvers, the preferred first.
pub(super) fn resolver_arpa(resolvers: &[DesignatedResolver]) -> (Name, Special) {
    let name = |text: &str| text.parse::<Name>().expect("a name is written here");
    let (apex, owner) = (name("resolver.arpa"), name("_dns.resolver.arpa"));
    let mut zone = builder(&apex);
    zone.touch(owner.as_wire()).expect("a zone of one name has room");
    for (priority, resolver) in (1..).zip(resolvers) {
        let rdata = resolver.rdata(priority);
        zone.add(owner.as_wire(), RecordType::SVCB, DESIGNATED_TTL, &rdata).expect("a zone of one name has room");
    }
    (apex, Special::Zone(Box::new(zone.finish())))
}

/// The TTL of designated resolvers: listeners and certificates may be others after a restart.
const DESIGNATED_TTL: u32 = 300;

/// The TTL of all records here and of negative answers (RFC 6303 3).
const TTL: u32 = 10_800;
/// Serial, refresh, retry, expire and minimum of the SOA (RFC 6303 3).
const SOA_NUMBERS: [u32; 5] = [1, 3600, 1200, 604_800, TTL];
/// The responsible person of the SOA (RFC 6303 3): nobody.invalid.
pub(super) const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";

/// Domains that do not exist, whatever the type, the name itself included.
const ABSENT: [&str; 3] = ["invalid", "onion", "test"];

/// Empty domains: only SOA and NS.
const EMPTY: [&str; 19] = [
    "home.arpa",
    "resolver.arpa",
    // RFC 1918.
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    // RFC 5735 and 5737: this network, loopback, link-local, documentation, broadcast.
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    // The unspecified address and loopback.
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    // Unique local (the assigned half), link-local, documentation.
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

/// How a special-use domain is answered.
#[derive(Debug)]
pub(super) enum Special {
    /// From this zone.
    Zone(Box<Zone>),
    /// NXDOMAIN, also for the domain itself. The zone provides the SOA.
    Absent(Box<Zone>),
}

impl Special {
    /// The zone that has the SOA.
    pub(super) const fn zone(&self) -> &Zone {
        match self {
            Self::Zone(zone) | Self::Absent(zone) => zone,
        }
    }
}

/// Every special-use domain.
pub fn domains() -> impl Iterator<Item = Name> {
    std::iter::once("localhost".to_owned())
        .chain(ABSENT.into_iter().chain(EMPTY).map(str::to_owned))
        // RFC 1918's 172.16.0.0/12 and RFC 7793's 100.64.0.0/10, an octet zone each.
        .chain((16..32).map(|octet| format!("{octet}.172.in-addr.arpa")))
        .chain((64..128).map(|octet| format!("{octet}.100.in-addr.arpa")))
        .map(|text| text.parse().expect("the tables above hold names"))
}

/// The special-use domains, and how each is answered.
pub(super) fn zones() -> impl Iterator<Item = (Name, Special)> {
    let absent = ABSENT.map(|text| text.parse::<Name>().expect("the table above holds names"));
    domains().map(move |apex| {
        let zone = Box::new(zone(&apex));
        let special = if absent.contains(&apex) { Special::Absent(zone) } else { Special::Zone(zone) };
        (apex, special)
    })
}

/// A zone with a SOA and one NS, the zone itself (RFC 6303 3).
fn builder(apex: &Name) -> Builder {
    let mut zone = Builder::new(apex.clone());
    for (rtype, rdata) in [(RecordType::SOA, &*soa(apex, NOBODY, SOA_NUMBERS)), (RecordType::NS, apex.as_wire())] {
        zone.add(apex.as_wire(), rtype, TTL, rdata).expect("the records here are proper");
    }
    zone
}

fn zone(apex: &Name) -> Zone {
    let mut zone = builder(apex);
    let mut add = |owner: &Name, rtype, rdata: &[u8]| {
        zone.add(owner.as_wire(), rtype, TTL, rdata).expect("the records here are proper");
    };
    let below = |text: &str| text.parse::<Name>().expect("a name is written here");
    match apex.to_string().as_str() {
        "localhost." => {
            for owner in [apex.clone(), below("*.localhost")] {
                add(&owner, RecordType::A, &[127, 0, 0, 1]);
                add(&owner, RecordType::AAAA, &std::net::Ipv6Addr::LOCALHOST.octets());
            }
        }
        "127.in-addr.arpa." => {
            add(&below("1.0.0.127.in-addr.arpa"), RecordType::PTR, b"\x09localhost\0");
        }
        text if text.starts_with("1.0.0.0.") => {
            add(apex, RecordType::PTR, b"\x09localhost\0");
        }
        _ => {}
    }
    zone.finish()
}

/// A SOA's RDATA with the zone itself as primary server.
pub(super) fn soa(apex: &Name, mailbox: &[u8], numbers: [u32; 5]) -> Box<[u8]> {
    let numbers = numbers.map(u32::to_be_bytes);
    [apex.as_wire(), mailbox, numbers.as_flattened()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_has_a_zone_of_its_own() {
        let zones: Vec<_> = zones().collect();
        assert_eq!(zones.len(), domains().count());
        assert_eq!(zones.len(), 1 + 3 + 19 + 16 + 64);
        for (apex, special) in zones {
            let zone = special.zone();
            assert_eq!(*zone.apex(), apex);
            assert!(zone.top().set(RecordType::SOA).is_some(), "{apex}");
        }
    }
}
