//! Where programs on this host look names up, and what the name servers that they know beside this tidegate answer.
//!
//! Policy: after SERVFAIL, REFUSED and a time-out, stub resolvers go on to the next name server. One that answers a guarded
//! name as this tidegate does is alike, most likely a tidegate with the same rules. One that is silent, or answers
//! otherwise, is a hole; so is one that cannot be compared, for want of a guarded name.

use std::{net::SocketAddr, path::Path};

use super::{document::DoctorFinding, host::HostFiles, kind::Kind, names, site::Site};
use crate::{
    config::{Address, Plan, ServerAddress},
    files,
    plural::Plural,
    upstream::{Egress, OwnAddresses, ServerSpec, system},
    wire::{Name, Transport},
};

/// systemd-resolved's stub and its proxy (systemd-resolved.service(8)).
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// The port of stub resolvers: resolv.conf knows no other.
const DNS_PORT: u16 = 53;

/// The name servers of resolv.conf, where this tidegate is one of them.
pub(super) struct NameServers {
    /// "/etc/resolv.conf names 127.0.0.1"
    says: String,
    others: Vec<ServerSpec>,
}

impl NameServers {
    /// Compares what the others answer to guarded names with what this tidegate does; a finding for each.
    pub(super) async fn compare(&self, site: &Site<'_>, guarded: &[&Name]) -> Vec<DoctorFinding> {
        super::all(self.others.iter().map(|other| self.compare_one(other, site, guarded))).await
    }

    async fn compare_one(&self, other: &ServerSpec, site: &Site<'_>, guarded: &[&Name]) -> DoctorFinding {
        let comparing = guarded.iter().map(|name| names::difference(site, name, other));
        let difference = super::all(comparing).await.into_iter().flatten().next();
        let says = format!("{} and also {other}", self.says);
        let finding = match difference {
            Some(difference) => DoctorFinding::new(Kind::ResolvConfHole, format!("{says}, which {difference}")),
            None if guarded.is_empty() => {
                let why = "no guarded name is known to compare them by: give one, as `tidegate doctor NAME`";
                DoctorFinding::new(Kind::ResolvConfHole, format!("{says}; {why}"))
            }
            None => {
                let count = Plural(guarded.len(), "guarded name");
                let what = format!("{says}, which answers {count} as this tidegate does");
                DoctorFinding::new(Kind::ResolvConfAlike, what)
            }
        };
        finding.of_server(&other.to_string())
    }
}

/// The findings in the files of this host, and the name servers to compare. `listen` is where tidegate listens, or
/// would.
pub(super) fn check(plan: &Plan, host: &HostFiles, listen: &[SocketAddr]) -> (Vec<DoctorFinding>, Option<NameServers>) {
    let mut findings: Vec<DoctorFinding> = nsswitch(&host.nsswitch).into_iter().collect();
    // A host that only serves others may use any resolver; with `system` it even needs another one.
    let ours = OwnAddresses::new(listen.iter().map(|address| SocketAddr::new(address.ip(), DNS_PORT)));
    let is_ours = |server: &Address| ours.holds((server.ip, DNS_PORT).into());
    let (listed, stubs) = name_servers(&host.resolv_conf);
    let file = host.resolv_conf.display();
    let (own, others): (Vec<Address>, Vec<Address>) = listed.into_iter().partition(is_ours);
    let texts = |servers: &[Address]| servers.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
    if !own.is_empty() {
        let stubs = stubs.into_iter().map(|stub| ServerSpec::plain(Transport::Udp, stub));
        let others = others.into_iter().map(|other| system::spec_of(other, &Egress::default(), "")).chain(stubs);
        let says = format!("{file} names {}", texts(&own));
        return (findings, Some(NameServers { says, others: others.collect() }));
    }
    if uses_system(plan) || !serves_this_host_alone(listen) {
        return (findings, None);
    }
    if !stubs.is_empty() {
        let behind = system::read(Some(&host.resolved), &OwnAddresses::default());
        if behind.is_empty() || !behind.iter().all(is_ours) {
            let asked = if behind.is_empty() { "no server that is known".to_owned() } else { texts(&behind) };
            let what = format!("{file} names systemd-resolved's stub, which asks {asked}");
            findings.push(DoctorFinding::new(Kind::SystemdResolved, what));
        }
    } else if !others.is_empty() {
        findings.push(DoctorFinding::new(Kind::ResolvConfElsewhere, format!("{file} names {}", texts(&others))));
    }
    (findings, None)
}

fn serves_this_host_alone(listen: &[SocketAddr]) -> bool {
    listen.iter().all(|address| address.ip().is_loopback())
}

fn uses_system(plan: &Plan) -> bool {
    let servers = plan.live.groups.iter().flat_map(|group| group.tiers.iter().flatten());
    servers.into_iter().any(|server| matches!(server.address, ServerAddress::System { .. }))
}

/// The servers that a resolv.conf lists, and those of systemd-resolved's stubs that it does.
fn name_servers(path: &Path) -> (Vec<Address>, Vec<SocketAddr>) {
    let text = files::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver")?.split_whitespace().next())
        .collect();
    let stubs = STUBS.iter().filter(|stub| listed.contains(stub));
    let stubs = stubs.filter_map(|stub| Some(SocketAddr::new(stub.parse().ok()?, DNS_PORT)));
    (system::read(Some(path), &OwnAddresses::default()), stubs.collect())
}

/// Whether glibc asks anything before the servers of resolv.conf.
fn nsswitch(path: &Path) -> Option<DoctorFinding> {
    let text = files::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let line = line.filter_map(|line| line.strip_prefix("hosts:")).next_back()?.trim().to_owned();
    let at = |service: &str| line.split_whitespace().position(|word| word == service);
    let what = match (at("dns"), at("resolve")) {
        (None, _) => format!("{} has \"hosts: {line}\", without dns", path.display()),
        (Some(dns), Some(resolve)) if resolve < dns => {
            format!("{} has \"hosts: {line}\": systemd-resolved is asked first", path.display())
        }
        _ => return None,
    };
    Some(DoctorFinding::new(Kind::Nsswitch, what))
}
