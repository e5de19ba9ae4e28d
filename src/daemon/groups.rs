//! From the plan's groups to the upstream room's: the same facts, addresses resolved.

use std::{cell::OnceCell, net::SocketAddr, sync::Arc};

use tracing::warn;

use crate::{
    config::{self, Endpoint, FixedServer, Live, NetworkPath, ServerAddress},
    net::mmsg::interface_index,
    tls::Roots,
    upstream::{
        Entry, Group, GroupSpec, HealthSpec, Identity, LetterCase, Limits, Policy, ProbeOrigin, ServerSpec, Transport,
        Via, loops,
    },
    wire::{Class, UpstreamQuery},
};

const _: () = assert!(config::MOST_SERVERS == crate::upstream::MOST_SERVERS, "a server beyond would never be asked");

/// The specification of each group of the plan, in its order.
pub(super) fn specs(live: &Live) -> Vec<GroupSpec> {
    let system = SystemRoots::default();
    live.groups.iter().map(|group| spec(group, live.udp_payload, &system)).collect()
}

/// The system's CAs, read when a group first needs them: a bundle that the system renewed counts from the next reload.
#[derive(Default)]
struct SystemRoots(OnceCell<Roots>);

impl SystemRoots {
    fn get(&self) -> Roots {
        let read = || {
            let roots = Roots::of_system();
            if roots.is_empty() {
                warn!("this system has no CA certificates: encrypted upstreams without `ca` will be down");
            }
            roots
        };
        self.0.get_or_init(read).clone()
    }
}

fn spec(group: &config::Group, udp_payload: u16, system: &SystemRoots) -> GroupSpec {
    let tier =
        |servers: &Vec<config::Server>| servers.iter().filter_map(|server| entry(group, server, system)).collect();
    GroupSpec {
        name: group.name.clone(),
        tiers: group.tiers.iter().map(tier).collect(),
        policy: match group.policy {
            config::Policy::Fastest => Policy::Fastest,
            config::Policy::Spread => Policy::Spread,
            config::Policy::Ordered => Policy::Ordered,
        },
        limits: Limits {
            timeout: group.timeout,
            attempts: u8::try_from(group.attempts).unwrap_or(u8::MAX),
            hedge_budget: group.hedge.map(config::Share::fraction),
            max_qps: group.max_qps.map(std::num::NonZeroU32::get),
            in_flight: usize::try_from(group.in_flight).unwrap_or(usize::MAX),
            connections: usize::try_from(group.connections).unwrap_or(usize::MAX),
            source_ports: u16::try_from(group.source_ports).unwrap_or(u16::MAX),
            case: if group.mix_case { LetterCase::Mixed } else { LetterCase::Lower },
            recursion: group.recursion,
            fail_back: group.fail_back,
            udp_payload,
        },
        health: HealthSpec {
            probe: UpstreamQuery {
                name: group.health.probe.qname.clone(),
                qtype: group.health.probe.qtype,
                qclass: Class::IN,
                do_bit: false,
                cd: false,
            },
            origin: if group.health.is_probe_written { ProbeOrigin::Configured } else { ProbeOrigin::Default },
            expect: group.health.expect.clone(),
            interval: group.health.interval,
            interval_down: group.health.interval_down,
            fall: group.health.fall,
            rise: group.health.rise,
        },
    }
}

/// Every rule with each group that its questions may go to.
pub(super) fn loop_targets(live: &Live, groups: &[Arc<Group>]) -> Vec<loops::Target> {
    let of = |rule: &config::Rule| {
        let fallback = match rule.when_down {
            config::WhenDown::Upstream(index) => Some(index),
            config::WhenDown::Stale | config::WhenDown::Fail => None,
        };
        let (name, zones): (Arc<str>, _) = (rule.name.as_str().into(), rule.zones.clone());
        let target = move |index: config::GroupIndex| {
            loops::Target::new(Arc::clone(&name), zones.clone(), Arc::clone(&groups[index.0]))
        };
        std::iter::once(rule.to).chain(fallback).map(target)
    };
    live.rules.iter().flat_map(of).collect()
}

/// A server whose interface does not exist is left out: the others of its group go on.
fn entry(group: &config::Group, server: &config::Server, system: &SystemRoots) -> Option<Entry> {
    let via = via(&server.path);
    match &server.address {
        ServerAddress::System { path } => Some(Entry::System { path: path.clone(), via }),
        ServerAddress::Fixed(fixed) => {
            let roots = || group.ca.as_ref().map_or_else(|| system.get(), |ca| ca.roots.clone());
            let Some(server) = server_spec(fixed, via, roots) else {
                let name = &group.name;
                warn!(group = name, server = %fixed, "upstream {fixed} of group {name} is left out: it has no such interface");
                return None;
            };
            Some(Entry::Server(server))
        }
    }
}

/// A server of the configuration; none if its interface does not exist. `roots` are asked for where it is encrypted.
pub fn server_spec(fixed: &FixedServer, via: Via, roots: impl FnOnce() -> Roots) -> Option<ServerSpec> {
    let transport = match fixed.transport {
        config::Transport::Udp => Transport::Udp,
        config::Transport::Tcp => Transport::Tcp,
        config::Transport::Tls => Transport::Tls,
        config::Transport::Https => Transport::Https,
        config::Transport::Quic => Transport::Quic,
    };
    let address = resolve(&fixed.endpoint)?;
    let name = fixed.tls_name.clone();
    let identity = fixed.transport.is_encrypted().then(|| Identity { name, roots: roots() });
    Some(ServerSpec { transport, address, via, identity, path: fixed.http_path.clone() })
}

fn via(path: &NetworkPath) -> Via {
    Via { source: path.source.as_ref().map(|address| address.ip), device: path.device.clone(), mark: path.mark }
}

/// The socket address of an endpoint, its scope as the index it has now.
pub(super) fn resolve(endpoint: &Endpoint) -> Option<SocketAddr> {
    endpoint.resolve(|scope| interface_index(scope).ok())
}
