//! Who is served: `allow` and `deny` of the configuration.
//!
//! Policy: of all networks in both lists that hold the client's address the longest decides; on a tie `deny` does. A
//! client in none of them is refused. Refused clients get REFUSED with EDE 18, so that a forgotten network shows itself
//! in `dig` instead of in a time-out.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::networks::Networks;

/// Whether a network is in `allow` or in `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Serve,
    Refuse,
}

/// The access lists, compiled for look-ups.
#[derive(Debug, Clone)]
pub struct Access {
    networks: Networks<Verdict>,
    /// The lists as configured, for `explain`.
    lists: Vec<(IpNet, Verdict)>,
}

impl Access {
    /// Compiles the two lists.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let allowed = allow.iter().map(|network| (*network, Verdict::Serve));
        let denied = deny.iter().map(|network| (*network, Verdict::Refuse));
        let lists: Vec<_> = allowed.chain(denied).collect();
        Self { networks: Networks::new(lists.iter().copied()), lists }
    }

    /// Whether this client is served.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.networks.lookup(client) == Some(&Verdict::Serve)
    }

    /// The network of the lists that decides about a client; none for a client in none of them.
    pub fn deciding(&self, client: IpAddr) -> Option<IpNet> {
        let verdict = self.networks.lookup(client)?;
        let holds = |network: &IpNet| network.contains(&client.to_canonical());
        let agreeing = self.lists.iter().filter(|(network, said)| said == verdict && holds(network));
        agreeing.map(|(network, _)| *network).max_by_key(IpNet::prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_both_lists_decides_and_deny_wins_a_tie() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let access =
            Access::new(&nets(&["10.0.0.0/8", "10.1.2.0/24", "fd00::/8"]), &nets(&["10.1.0.0/16", "10.1.2.0/24"]));
        for (client, served) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("10.1.2.1", false),
            ("fd00::1", true),
            ("192.0.2.1", false),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(access.allows(client.parse().unwrap()), served, "{client}");
        }
        for (client, network) in [
            ("10.0.0.1", Some("10.0.0.0/8")),
            ("10.1.0.1", Some("10.1.0.0/16")),
            ("::ffff:10.1.2.1", Some("10.1.2.0/24")),
            ("192.0.2.1", None),
        ] {
            let deciding = access.deciding(client.parse().unwrap());
            assert_eq!(deciding.map(|network| network.to_string()).as_deref(), network, "{client}");
        }
    }
}
