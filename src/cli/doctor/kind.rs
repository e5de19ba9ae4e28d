//! Every kind of finding: how urgent it is, what it means, and what to do. `docs/doctor.md` has a section for each.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Urgency;

/// Writes the enum and its texts from one table, the most urgent first.
macro_rules! kinds {
    ($($kind:ident, $label:literal, $urgency:ident, $meaning:literal, $advice:literal;)*) => {
        /// The kind of a finding, the most urgent first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Kind {
            $(#[doc = $meaning] #[serde(rename = $label)] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name for scripts.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$kind => $label),* }
            }

            /// When to see to it.
            pub const fn urgency(self) -> Urgency {
                match self { $(Self::$kind => Urgency::$urgency),* }
            }

            /// What it means for clients.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning),* }
            }

            /// What to do about it.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$kind => $advice),* }
            }
        }
    };
}

kinds! {
    NoRoute, "no-route", First,
        "This host has no route to the server: the link, the VPN or its routes are down here.",
        "Look at `ip route get ADDRESS`, at the interface, and at the BGP session or tunnel behind it.";
    LinkDown, "link-down", First,
        "No server of the group answers over UDP or TCP. A common cause is likely: the link, or a firewall.",
        "Check the Direct Connect or VPN, routes in both directions, and the endpoint's security group (port 53 from this host).";
    ServerSilent, "server-silent", First,
        "The server answers over no transport. Others of its group carry its load, where it has others.",
        "Check whether the endpoint address is recovering (AUTO_RECOVERING) or gone, and whether its subnet is routed and allowed.";
    VpcResolverAddress, "vpc-resolver-address", First,
        "The address is that of a VPC's own resolver (VPC+2 or 169.254.169.253), which answers inside its VPC only.",
        "Create a Route 53 Resolver inbound endpoint and forward to its addresses: `tidegate discover` writes the table.";
    NothingListens, "nothing-listens", First,
        "The host is there and says that nothing listens on the port.",
        "Check address and port, and whether the DNS server on that host runs.";
    ThisHostCannot, "this-host-cannot", First,
        "This host could not even send the query: a firewall here, a source address or a device that it lacks, no descriptor.",
        "Mend what the error names; `source`, `device` and `mark` of the group decide the way out.";
    ServerName, "server-name", First,
        "No address is known for the name of a server: nothing is sent to it.",
        "Correct the name in `servers` of the group, or let `bootstrap` name servers that can resolve it.";
    UdpBlocked, "udp-blocked", First,
        "The server answers over TCP and not over UDP: every query waits for a time-out first.",
        "Allow UDP port 53 in both directions; until then write the server as tcp://ADDRESS.";
    TcpBlocked, "tcp-blocked", First,
        "UDP answers, TCP does not: answers that do not fit a datagram fail with SERVFAIL.",
        "Allow TCP port 53 to the server, in security groups and firewalls.";
    EdnsLost, "edns-lost", First,
        "The server answers plain queries, and those with EDNS get lost: a device on the way drops them.",
        "Have the device let EDNS (RFC 6891) pass; firewalls call it DNS inspection or message length.";
    LargeResponsesLost, "large-responses-lost", First,
        "Responses of a size that tidegate asks for get lost on the way.",
        "Let fragments and UDP messages over 512 octets pass, mend the path MTU, or lower `udp_payload` in [server].";
    CertificateName, "certificate-name", First,
        "The certificate is for another name: nothing is sent to that server.",
        "Write the certificate's name behind the address: \"tls://ADDRESS#NAME\".";
    CertificateExpired, "certificate-expired", First,
        "The certificate has expired: the other end of encrypted connections refuses it.",
        "Renew it where it is in use. If it is new, this host's clock is wrong.";
    ClockOff, "clock-off", First,
        "A certificate or signature is not valid yet by this host's clock: most likely the clock is wrong, and TLS and cookies with it.",
        "Compare `date` with a clock that is right, and start chrony or systemd-timesyncd.";
    CertificateUntrusted, "certificate-untrusted", First,
        "The certificate is signed by no CA that is trusted here: nothing is sent to that server.",
        "Name the CA's certificate with `ca` in the group, or add it to the system's.";
    EncryptionFailed, "encryption-failed", First,
        "The server is reached, but no encrypted connection can be made: nothing is sent to it.",
        "Check that the port speaks this transport. Route 53 endpoints speak DNS over HTTPS and never DNS over TLS.";
    ServerRefuses, "server-refuses", First,
        "The server answers with REFUSED: it does not serve this host, or not this name. A delegation endpoint does so, too.",
        "Allow this host's address there. For Route 53 use an inbound endpoint for forwarding, not one for delegation.";
    NoRecursion, "no-recursion", First,
        "The server does not resolve for its clients (no RA): an authoritative server, or a Route 53 endpoint for delegation.",
        "Forward to an inbound endpoint of the forwarding kind (\"default\"), or to a server that offers recursion.";
    ServerFails, "server-fails", First,
        "The server answers the probe with SERVFAIL or another error: something behind it does not work, or the name is broken.",
        "Ask it by hand with `tidegate query NAME TYPE @SERVER`; choose a probe that must work with `probe` in the group's health.";
    Loop, "loop", First,
        "Queries that are sent there come back here: a rule behind the endpoint forwards to this site again.",
        "Take the domain out of the outbound endpoint's rule for that VPC, or out of the rule here.";
    PrivateDnsOff, "private-dns-off", First,
        "The name of an AWS service has a public address: traffic leaves the private path, or the guard refuses the answer.",
        "Create the interface endpoint that is named, with private DNS, in the VPC of the inbound endpoint.";
    LegacyName, "legacy-name", Soon,
        "The name is a global or legacy one, which no endpoint's private DNS covers: its address stays public.",
        "Have clients use the name with a Region in it (BUCKET.s3.REGION.amazonaws.com), or except the name from the guard.";
    Ipv6NotPrivate, "ipv6-not-private", First,
        "The IPv4 addresses of the name are private and an IPv6 address is not: the guard acts, or traffic leaves the private path.",
        "If the address is the VPC's own, add its IPv6 network to `private` of the rule; else let the endpoint have IPv4 addresses alone.";
    PublicAnswer, "public-answer", First,
        "The name has a public address where the rule wants private ones, and no endpoint is known that would change it.",
        "If it is a resource of yours, make it internal; if it must be public, list it under `except` of the rule.";
    ServersDiffer, "servers-differ", First,
        "Servers of one tier answer the same query differently: what a client gets depends on chance.",
        "Put servers into one tier only if they are addresses of the same endpoint, or share the same zones and rules.";
    PortTaken, "port-taken", First,
        "Another program holds an address that this configuration listens on: `serve` cannot start.",
        "Stop that program or give it another address (systemd-resolved: DNSStubListener=no), or change `listen` in [server].";
    ResolvConfHole, "resolv-conf-hole", First,
        "After SERVFAIL, REFUSED or a time-out stub resolvers go on to the next name server: one that answers otherwise undoes the perimeter.",
        "List tidegates with the same rules alone, in resolv.conf, DHCP and router advertisements.";
    ResolvConfElsewhere, "resolv-conf-elsewhere", Soon,
        "Programs on this host ask other servers, not this tidegate.",
        "Write `nameserver` with a listen address of tidegate into resolv.conf (or DNS= for systemd-resolved).";
    SystemdResolved, "systemd-resolved", Soon,
        "resolv.conf names systemd-resolved's stub, and resolved asks other servers than this tidegate.",
        "Set DNS= to tidegate's address and Domains=~. in resolved.conf, or point /etc/resolv.conf at tidegate.";
    Nsswitch, "nsswitch", Soon,
        "Programs that use glibc do not ask the servers of resolv.conf first.",
        "In the line `hosts:` of /etc/nsswitch.conf have `dns`, and `resolve` not in front of it.";
    LocalFile, "local-file", First,
        "The file of a local zone or of hosts could not be used when the daemon started: its names are not answered from it.",
        "Mend what `tidegate check` finds in the file: the daemon reads it again as soon as it changes.";
    ReloadRefused, "reload-refused", Soon,
        "The daemon runs with the configuration before the last change.",
        "Mend what `tidegate check` finds, then `tidegate reload`.";
    WorkerHangs, "worker-hangs", First,
        "A thread of the daemon hangs: queries that reach it wait.",
        "Restart the daemon, and report it with its log.";
    Quota, "quota", First,
        "The server is up and many queries to it get no answer: about 10,000 a second for each endpoint address, 1,500 where connections are tracked.",
        "Add endpoint addresses, allow all ports in the security group so that nothing is tracked, and keep `source_ports` low.";
    QueryBudget, "query-budget", Soon,
        "Queries were not sent because `max_qps` of the group was reached.",
        "Raise `max_qps` as far as the quota of the endpoint goes, or add addresses.";
    SourcePorts, "source-ports", First,
        "Nearly all local ports are in use: new queries and connections will fail.",
        "Find the program that holds them (`ss -s`), and widen net.ipv4.ip_local_port_range.";
    ConntrackFull, "conntrack-full", First,
        "The kernel's table of connections is nearly full: when it is, packets are dropped at random.",
        "Exempt port 53 from tracking (NOTRACK), or raise net.netfilter.nf_conntrack_max.";
    ReceiveBufferDrops, "receive-buffer-drops", Soon,
        "The kernel dropped datagrams because a socket's buffer was full: clients saw time-outs.",
        "Raise net.core.rmem_max, give tidegate more workers or cores, and look for bursts.";
    OpenFiles, "open-files", Soon,
        "The limit on open files allows fewer connections of clients than the configuration does.",
        "Raise LimitNOFILE= of the unit, or lower `tcp_connections` in [limits].";
    NotOnThisHost, "not-on-this-host", First,
        "The configuration names something that this host does not have.",
        "Correct the configuration, or bring the address, device or file up.";
    CertificateExpires, "certificate-expires", Soon,
        "A certificate expires within two weeks: then encrypted connections fail.",
        "Renew it now, and find out why that did not happen automatically.";
    NoSoa, "no-soa", Note,
        "Negative answers come without an SOA record, as from a VPC's resolver: they are kept for `no_soa_ttl`.",
        "Nothing; lower or raise `no_soa_ttl` in [cache] if such queries are many.";
    ResolvConfAlike, "resolv-conf-alike", Note,
        "Another name server of this host answers guarded names as this tidegate does, most likely a tidegate with the same rules.",
        "Nothing, if it is one. Any other server becomes a hole with the first name that has a public address.";
    ClockUnsynchronized, "clock-unsynchronized", Note,
        "Nothing keeps this host's clock right: when it drifts off, certificates and signatures seem not yet valid or expired.",
        "Start chrony or systemd-timesyncd, here or on the host that this machine gets its time from.";
    SignaturesStripped, "signatures-stripped", Note,
        "The server leaves DNSSEC signatures out although they were asked for: clients that validate fail behind it.",
        "Nothing, unless clients validate. Then use a server that passes signatures on.";
    FragmentsLost, "fragments-lost", Note,
        "Responses larger than `udp_payload` get lost as fragments. tidegate does not ask for such responses, and uses TCP.",
        "Nothing; leave `udp_payload` in [server] at 1232.";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
