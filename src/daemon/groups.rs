//! From the plan's groups to the upstream room's: the same facts, addresses resolved.

use std::{net::SocketAddr, sync::Arc};

use tracing::warn;

use crate::{
    config::{self, Endpoint, Live, NetworkPath, ServerAddress},
    net::mmsg::interface_index,
    upstream::{Entry, Group, GroupSpec, HealthSpec, LetterCase, Limits, Policy, ServerSpec, Transport, Via, loops},
    wire::{Class, UpstreamQuery},
};

/// The specification of each group of the plan, in its order.
pub(super) fn specs(live: &Live) -> Vec<GroupSpec> {
    live.groups.iter().map(|group| spec(group, live.udp_payload)).collect()
}

fn spec(group: &config::Group, udp_payload: u16) -> GroupSpec {
    GroupSpec {
        name: group.name.clone(),
        tiers: group.tiers.iter().map(|tier| tier.iter().filter_map(|server| entry(group, server)).collect()).collect(),
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
        let (name, zone): (Arc<str>, _) = (rule.name.as_str().into(), rule.zones.first().cloned());
        let target = move |index: config::GroupIndex| {
            Some(loops::Target { rule: Arc::clone(&name), zone: zone.clone()?, group: Arc::clone(&groups[index.0]) })
        };
        std::iter::once(rule.to).chain(fallback).filter_map(target)
    };
    live.rules.iter().flat_map(of).collect()
}

/// A server whose interface does not exist is left out: the others of its group go on.
fn entry(group: &config::Group, server: &config::Server) -> Option<Entry> {
    let via = via(&server.path);
    match &server.address {
        ServerAddress::System { path } => Some(Entry::System { path: path.clone(), via }),
        ServerAddress::Fixed(fixed) => {
            let transport = match fixed.transport {
                config::Transport::Tcp => Transport::Tcp,
                // The plan holds no encrypted server as long as the configuration refuses them.
                _ => Transport::Udp,
            };
            let Some(address) = resolve(&fixed.endpoint) else {
                warn!(group = group.name, server = %fixed, "upstream left out: its interface does not exist");
                return None;
            };
            let tls_name = fixed.tls_name.clone();
            Some(Entry::Server(ServerSpec { transport, address, via, tls_name }))
        }
    }
}

fn via(path: &NetworkPath) -> Via {
    Via { source: path.source.as_ref().map(|address| address.ip), device: path.device.clone(), mark: path.mark }
}

/// The socket address of an endpoint, its scope as the index it has now.
pub(super) fn resolve(endpoint: &Endpoint) -> Option<SocketAddr> {
    endpoint.resolve(|scope| interface_index(scope).ok())
}
