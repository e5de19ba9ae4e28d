//! Turns the plan's groups into specifications for the upstream room, with addresses resolved.

use std::{
    cell::OnceCell,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tracing::warn;

use crate::{
    config::{self, Endpoint, FixedServer, Live, NetworkPath, ServerAddress},
    net::mmsg::interface_index,
    tls::Roots,
    upstream::{
        Egress, Group, GroupLimits, GroupSpec, HealthSpec, Identity, ServerSpec, TierMember, loops, names::WatchedName,
        path_label,
    },
};

/// The specification of each group, in the plan's order. `source_ports` is the limit for all servers together.
pub(super) fn specs(live: &Live, system: &SystemRoots, source_ports: Option<usize>) -> Vec<GroupSpec> {
    let servers = live.groups.iter().flat_map(|group| group.tiers.iter().flatten()).count();
    let each = source_ports.map_or(u16::MAX, |all| u16::try_from(all / servers.max(1)).unwrap_or(u16::MAX).max(1));
    let bounded = |mut spec: GroupSpec| {
        spec.limits.source_ports = spec.limits.source_ports.min(each);
        spec
    };
    live.groups.iter().map(|group| bounded(spec(group, live.udp_payload, system))).collect()
}

/// The specification of each group, for verbs that ask servers without a daemon.
pub fn group_specs(live: &Live) -> Vec<GroupSpec> {
    specs(live, &SystemRoots::default(), None)
}

/// The system's CAs, read when a group first needs them and once more after each reload: a renewed bundle takes effect
/// at the next reload. If it cannot be read then, the previous CAs stay in use.
#[derive(Debug)]
pub(super) struct SystemRoots {
    read: fn() -> Roots,
    roots: OnceCell<Roots>,
    before: Option<Roots>,
}

impl Default for SystemRoots {
    fn default() -> Self {
        Self { read: Roots::of_system, roots: OnceCell::new(), before: None }
    }
}

impl SystemRoots {
    /// Reads them again when they are next needed.
    pub(super) fn renew(&mut self) {
        self.before = self.roots.take().or_else(|| self.before.take());
    }

    fn get(&self) -> Roots {
        let read = || {
            let roots = (self.read)();
            if !roots.is_empty() {
                return roots;
            }
            match self.before.as_ref().filter(|before| !before.is_empty()) {
                Some(before) => {
                    warn!("this system's CA certificates cannot be read at the moment; those in use stay in use");
                    before.clone()
                }
                None => {
                    warn!("this system has no CA certificates: encrypted upstreams without `ca` will be down");
                    roots
                }
            }
        };
        self.roots.get_or_init(read).clone()
    }
}

fn spec(group: &config::GroupPlan, udp_payload: u16, system: &SystemRoots) -> GroupSpec {
    let tier = |servers: &Vec<config::ServerPlan>| servers.iter().map(|server| entry(group, server, system)).collect();
    GroupSpec {
        name: group.name.clone(),
        tiers: group.tiers.iter().map(tier).collect(),
        policy: group.policy,
        limits: GroupLimits::of(group, udp_payload),
        health: HealthSpec::of(&group.health),
    }
}

/// Every name to resolve, each once a group.
pub fn watched_names(live: &Live) -> Vec<WatchedName> {
    let mut names: Vec<WatchedName> = Vec::new();
    for group in &live.groups {
        for server in group.tiers.iter().flatten() {
            let ServerAddress::Named(named) = &server.address else { continue };
            let name = WatchedName {
                group: group.name.clone(),
                name: named.host(),
                bootstrap: group.bootstrap.clone(),
                via: egress(&group.path),
                patience: group.timeout,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Every rule with each group that its queries may go to.
pub(super) fn loop_targets(live: &Live, groups: &[Arc<Group>]) -> Arc<[loops::WatchedRule]> {
    let of = |rule: &config::RulePlan| {
        let fallback = match rule.when_down {
            config::WhenDown::Upstream(index) => Some(index),
            config::WhenDown::Stale | config::WhenDown::Fail => None,
        };
        let (name, zones) = (Arc::clone(&rule.name), Arc::clone(&rule.zones));
        let target = move |index: config::GroupIndex| {
            loops::WatchedRule::new(Arc::clone(&name), &zones, Arc::clone(&groups[index.0]))
        };
        std::iter::once(rule.to).chain(fallback).map(target)
    };
    live.rules.iter().flat_map(of).collect()
}

/// The tier member for a server.
fn entry(group: &config::GroupPlan, server: &config::ServerPlan, system: &SystemRoots) -> TierMember {
    let via = egress(&server.path);
    let path_label = path_label(&via, &egress(&group.path));
    let roots = || group.ca.as_ref().map_or_else(|| system.get(), |ca| ca.roots.clone());
    match &server.address {
        ServerAddress::System { path } => TierMember::System { path: path.clone(), via, path_label },
        ServerAddress::Named(named) => {
            let server = server_spec(&named.at(Ipv4Addr::UNSPECIFIED.into()), via, roots);
            TierMember::Named { name: named.host(), server: ServerSpec { path_label, ..server } }
        }
        ServerAddress::Fixed(fixed) => TierMember::Server(ServerSpec { path_label, ..server_spec(fixed, via, roots) }),
    }
}

/// The specification of a configured server. `roots` is called if it is encrypted.
pub fn server_spec(fixed: &FixedServer, via: Egress, roots: impl FnOnce() -> Roots) -> ServerSpec {
    let (address, scope) = fixed.endpoint.place();
    let via = Egress { scope: scope.map(str::to_owned), ..via };
    let name = fixed.tls_name.clone();
    let identity = fixed.transport.is_encrypted().then(|| Identity { name, roots: roots() });
    let path = fixed.http_path.clone();
    ServerSpec { transport: fixed.transport, address, via, path_label: String::new(), identity, path }
}

fn egress(path: &NetworkPath) -> Egress {
    Egress {
        source: path.source.as_ref().map(|address| address.ip),
        device: path.device.clone(),
        mark: path.mark,
        scope: None,
    }
}

/// The socket address of an endpoint, with the current index of its scope.
pub(super) fn resolve(endpoint: &Endpoint) -> Option<SocketAddr> {
    endpoint.resolve(|scope| interface_index(scope).ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    static READS: AtomicU32 = AtomicU32::new(0);

    fn one_ca_and_then_none() -> Roots {
        if READS.fetch_add(1, Relaxed) != 0 {
            return Roots::none();
        }
        let params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        Roots::from_pem(params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().as_bytes()).unwrap()
    }

    #[test]
    fn the_systems_cas_are_read_once_a_reload_and_stay_when_they_cannot_be() {
        let mut system = SystemRoots { read: one_ca_and_then_none, ..SystemRoots::default() };
        let first = system.get();
        assert_eq!((system.get(), READS.load(Relaxed)), (first.clone(), 1), "a rebuild reads nothing");
        system.renew();
        // Reloads in between that need no CAs make no difference.
        system.renew();
        assert_eq!((system.get(), system.get(), READS.load(Relaxed)), (first.clone(), first, 2));
    }
}
