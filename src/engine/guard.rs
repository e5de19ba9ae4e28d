//! The guard: checks the addresses in an answer against the rule's networks.
//!
//! Policy: a rule with `private` lets only addresses of those networks pass, in every section, SVCB and HTTPS hints
//! included, whatever the CNAME chain; names in `except` are left alone. A rule with `rebind = "refuse"` does the
//! opposite: its answers must not have private addresses. The guard sees a rule's part of an answer before it is
//! stored, shared or sent, and, if the chain leaves the rule, the whole answer once more: wherever the rest came from,
//! it answers this rule's name. A stored answer serves only while the same rules with the same guard shape it, so
//! nothing passes unjudged.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{
    config::{OnPublic, Rebind, RulePlan},
    networks::Networks,
    wire::{Malformed, Name, Response, UpstreamQuery, addresses, name, record::Record, splice},
};

/// The networks that `rebind = "refuse"` treats as private: RFC 1918, 6598, 4193, loopback, link-local and its
/// site-local forerunner (RFC 3879), local-use NAT64 (RFC 8215), and "this host" (RFC 6890). An IPv6 address that is
/// [translated] to one of these is no better.
const PRIVATE: [&str; 13] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fec0::/10",
    "fe80::/10",
];

fn set(networks: impl Iterator<Item = IpNet>) -> Networks<()> {
    Networks::new(networks.map(|network| (network, ())))
}

/// The IPv4 address that packets to an IPv6 address end at: behind NAT64's well-known prefix (RFC 6052 2.1), 6to4 (RFC
/// 3056 2), or written as an IPv4-compatible one (RFC 4291 2.5.5.1). Mapped ones are IPv4 to [`Networks`].
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, .., g, h] = address.segments();
    let octets = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b) {
        (0x64, 0xff9b) if address.segments()[2..6] == [0; 4] => Some(octets(g, h)),
        (0x2002, _) => Some(octets(b, c)),
        (0, 0) if c == 0 && d == 0 && address.segments()[4..6] == [0; 2] => Some(octets(g, h)),
        _ => None,
    }
}

/// The guard of one rule.
#[derive(Debug, Clone)]
pub struct Guard {
    inside: Option<(Networks<()>, OnPublic)>,
    /// Networks that answers of a rule with `rebind = "refuse"` must not have addresses in.
    outside: Option<Networks<()>>,
    except: Vec<Name>,
}

/// The guard's verdict on a response.
#[derive(Debug)]
pub enum GuardVerdict {
    /// Nothing to object to.
    Pass,
    /// An address is not allowed, and is only counted.
    Log(IpAddr),
    /// An address is not allowed: use this response, without such addresses.
    Strip(IpAddr, Box<Response>),
    /// An address is not allowed: the response must not be used.
    Refuse(IpAddr),
}

impl Guard {
    /// The guard of a rule.
    pub fn of(rule: &RulePlan) -> Self {
        let inside = rule.guard.as_ref().map(|guard| (set(guard.networks.iter().copied()), guard.on_public));
        let outside = (rule.rebind == Rebind::Refuse).then(|| set(PRIVATE.iter().filter_map(|text| text.parse().ok())));
        // A name outside the rule's zones is ignored: one above them would exempt everything.
        let is_ours = |name: &&Name| rule.zones.iter().any(|zone| name.is_within(zone));
        Self { inside, outside, except: rule.except.iter().filter(is_ours).cloned().collect() }
    }

    /// Judges a response to `query`.
    pub fn judge(&self, query: &UpstreamQuery, response: &Response) -> Result<GuardVerdict, Malformed> {
        if self.is_idle() || self.spares(query.name.as_wire()) {
            return Ok(GuardVerdict::Pass);
        }
        let Some(address) = self.worst(response)? else { return Ok(GuardVerdict::Pass) };
        Ok(match self.action(address) {
            OnPublic::Log => GuardVerdict::Log(address),
            OnPublic::Refuse => GuardVerdict::Refuse(address),
            OnPublic::Strip => {
                let keep = |message: &[u8], record: &Record| {
                    let found = addresses::find_in_record(message, record, &mut |a| self.offends(a).then_some(()));
                    // A signature is valid only for the complete record set.
                    matches!(found, Ok(None)) && !addresses::is_signature_of_addresses(message, record)
                };
                GuardVerdict::Strip(address, Box::new(splice::retain(response, query, keep)?))
            }
        })
    }

    /// The address that decides: one that refuses the whole response comes before one that is only stripped.
    fn worst(&self, response: &Response) -> Result<Option<IpAddr>, Malformed> {
        let find = |is_wrong: &dyn Fn(IpAddr) -> bool| {
            addresses::find_address(response.message(), |address| is_wrong(address).then_some(address))
        };
        if self.outside.is_some()
            && let Some(address) = find(&|address| self.is_rebinding(address))?
        {
            return Ok(Some(address));
        }
        find(&|address| self.offends(address))
    }

    /// Whether clients reach this address; none if the rule has no `private`.
    pub fn reaches(&self, address: IpAddr) -> Option<bool> {
        self.inside.as_ref().map(|(networks, _)| networks.contains(address))
    }

    /// What to do with addresses outside `private`; none if the rule has no `private`.
    pub fn on_public(&self) -> Option<OnPublic> {
        self.inside.as_ref().map(|(_, on_public)| *on_public)
    }

    /// Whether the rule has `private`.
    pub const fn has_networks(&self) -> bool {
        self.inside.is_some()
    }

    /// Whether private addresses are refused (`rebind = "refuse"`).
    pub const fn refuses_rebinding(&self) -> bool {
        self.outside.is_some()
    }

    /// Whether the rule's `except` has this name, in wire form and lower case.
    pub fn spares(&self, name: &[u8]) -> bool {
        self.except.iter().any(|domain| name::is_within(name, domain.as_wire()))
    }

    /// Whether an answer with this address must not be sent as it is.
    pub fn stops(&self, address: IpAddr) -> bool {
        self.offends(address) && self.action(address) != OnPublic::Log
    }

    const fn is_idle(&self) -> bool {
        self.inside.is_none() && self.outside.is_none()
    }

    fn offends(&self, address: IpAddr) -> bool {
        self.inside.as_ref().is_some_and(|(networks, _)| !networks.contains(address)) || self.is_rebinding(address)
    }

    /// Whether the address is private, or an IPv6 address that is translated to a private one.
    pub fn is_rebinding(&self, address: IpAddr) -> bool {
        let is_private = |networks: &Networks<()>| {
            networks.contains(address) || translated(address).is_some_and(|address| networks.contains(address.into()))
        };
        self.outside.as_ref().is_some_and(is_private)
    }

    fn action(&self, address: IpAddr) -> OnPublic {
        match &self.inside {
            Some((_, on_public)) if !self.is_rebinding(address) => *on_public,
            _ => OnPublic::Refuse,
        }
    }
}

#[cfg(test)]
mod tests;
