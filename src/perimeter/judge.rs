//! Classifies the addresses of one answer as private, unreachable or public.

use std::{net::IpAddr, sync::LazyLock};

use ipnet::IpNet;

use super::{Exposure, NameVerdict};
use crate::{
    networks::Networks,
    wire::{Malformed, Response, addresses},
};

/// The verdict on one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    pub verdict: NameVerdict,
    pub address: Option<IpAddr>,
    /// The fate of its public addresses, if there were any.
    pub outcome: Option<Exposure>,
}

/// Classifies every address of the answer and returns the worst verdict.
pub(super) fn look(
    response: &Response,
    reaches: impl Fn(IpAddr) -> Option<bool>,
    outcome: Exposure,
) -> Result<Sight, Malformed> {
    let mut worst = Sight { verdict: NameVerdict::Absent, address: None, outcome: None };
    addresses::find_address(response.message(), |address| {
        let verdict = judge(&reaches, address);
        if verdict > worst.verdict {
            let outcome = (verdict == NameVerdict::Public).then_some(outcome);
            worst = Sight { verdict, address: Some(address), outcome };
        }
        None::<()>
    })?;
    Ok(worst)
}

fn judge(reaches: impl Fn(IpAddr) -> Option<bool>, address: IpAddr) -> NameVerdict {
    let reaches = reaches(address);
    if reaches == Some(true) {
        return NameVerdict::Private;
    }
    match (reaches, PRIVATE.lookup(address)) {
        (None, Some(Reach::Routed)) => NameVerdict::Private,
        (Some(_), Some(_)) | (None, Some(Reach::Local)) => NameVerdict::Unreachable,
        (_, None) => NameVerdict::Public,
    }
}

/// Whether private addresses can be reached from another network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Routed,
    Local,
}

/// RFC 1918, 6598 and 4193; link-local, loopback and "this host" (RFC 6890); networks that AWS uses only within a VPC.
static PRIVATE: LazyLock<Networks<Reach>> = LazyLock::new(|| {
    let networks = [
        ("10.0.0.0/8", Reach::Routed),
        ("100.64.0.0/10", Reach::Routed),
        ("172.16.0.0/12", Reach::Routed),
        ("192.168.0.0/16", Reach::Routed),
        ("fc00::/7", Reach::Routed),
        ("0.0.0.0/8", Reach::Local),
        ("127.0.0.0/8", Reach::Local),
        ("169.254.0.0/16", Reach::Local),
        ("::/128", Reach::Local),
        ("::1/128", Reach::Local),
        ("fd00:ec2::/32", Reach::Local),
        ("fe80::/10", Reach::Local),
    ];
    Networks::new(networks.iter().filter_map(|(text, reach)| Some((text.parse::<IpNet>().ok()?, *reach))))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_that_clients_cannot_reach_are_told_apart() {
        for (networks, address, verdict) in [
            ("10.20.0.0/16", "10.20.1.1", NameVerdict::Private),
            ("10.20.0.0/16", "10.21.1.1", NameVerdict::Unreachable),
            ("10.20.0.0/16", "169.254.171.5", NameVerdict::Unreachable),
            ("10.20.0.0/16", "52.1.2.3", NameVerdict::Public),
            ("10.20.0.0/16 52.1.2.0/24", "52.1.2.3", NameVerdict::Private),
            ("10.20.0.0/16", "fd00::1", NameVerdict::Unreachable),
            ("", "10.21.1.1", NameVerdict::Private),
            ("", "169.254.171.5", NameVerdict::Unreachable),
            ("", "fd00:ec2:80::1", NameVerdict::Unreachable),
            ("", "fd12::1", NameVerdict::Private),
            ("", "2600::1", NameVerdict::Public),
            ("", "::ffff:10.0.0.1", NameVerdict::Private),
        ] {
            let inside: Vec<IpNet> = networks.split_whitespace().map(|network| network.parse().unwrap()).collect();
            let inside = Networks::new(inside.iter().map(|network| (*network, ())));
            let reaches = |address| (!networks.is_empty()).then(|| inside.contains(address));
            assert_eq!(judge(reaches, address.parse().unwrap()), verdict, "{address} in [{networks}]");
        }
    }
}
