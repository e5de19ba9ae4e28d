//! Checks a plan against this host: addresses, devices and name servers that the plan needs and the host lacks. These
//! are warnings, since a host may change under a correct configuration.

use std::{collections::BTreeSet, io::ErrorKind, net::UdpSocket, path::Path};

use super::{
    descriptors::DescriptorBudget,
    groups::{resolve, watched_names},
};
use crate::{
    config::{Address, Boot, Endpoint, Live, Need, NetworkPath, ServerAddress},
    files,
    net::mmsg::{interface_index, most_open_files},
    system_error::SystemError,
    upstream::{OwnAddresses, names::WatchedName, resolution, system},
};

/// The host's list of name servers, unless the configuration names another file.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Listen addresses that this host does not have. With `freebind` they are not needed.
pub fn missing_listeners(boot: &Boot) -> Vec<String> {
    let required = boot.listen.iter().filter(|listen| listen.need == Need::Required).map(|listen| &listen.endpoint);
    let https = boot.https.iter().map(|listen| &listen.endpoint);
    let of_key = |key: &'static str| move |endpoint| (key, endpoint);
    let dns = required.map(of_key("listen")).chain(boot.tls.iter().map(of_key("tls")));
    let dns = dns.chain(https.map(of_key("https"))).chain(boot.quic.iter().map(of_key("quic")));
    let dns = dns.filter(|_| !boot.freebind).filter_map(|(key, endpoint)| {
        let reason = missing(&endpoint.address)?;
        Some(format!("{key} {endpoint}: {reason}; `serve` will not start, unless freebind = true"))
    });
    let admin = boot.admin_http.iter().filter_map(|endpoint| {
        let reason = missing(&endpoint.address)?;
        Some(format!("admin.http {endpoint}: {reason}; `serve` will not start"))
    });
    dns.chain(admin).collect()
}

/// A warning if this host's limit on open files allows fewer client connections than `tcp_connections`.
pub fn few_descriptors(boot: &Boot) -> Option<String> {
    let workers = super::workers(boot).ok()?;
    let budget = DescriptorBudget::new(boot, workers, most_open_files().unwrap_or(u64::MAX));
    budget.warning().map(|warning| warning.to_string())
}

/// Paths to upstreams that this host lacks, and groups for which it names no server.
pub fn missing_upstreams(live: &Live, boot: &Boot) -> Vec<String> {
    let ours = OwnAddresses::new(boot.listen.iter().filter_map(|listen| resolve(&listen.endpoint)));
    let mut lines = BTreeSet::new();
    for group in &live.groups {
        for server in group.tiers.iter().flatten() {
            let NetworkPath { source, device, .. } = &server.path;
            if let Some(source) = source
                && let Some(reason) = missing(source)
            {
                lines.insert(format!("upstream \"{}\": source {source}: {reason}", group.name));
            }
            if let Some(device) = device
                && interface_index(device).is_err()
            {
                lines.insert(format!("upstream \"{}\": device {device}: this host has no such device", group.name));
            }
            if let ServerAddress::Fixed(fixed) = &server.address
                && resolve(&fixed.endpoint).is_none()
            {
                lines.insert(format!("upstream \"{}\": server {fixed}: this host has no such interface", group.name));
            }
            let alone = group.tiers.iter().flatten().all(|other| matches!(other.address, ServerAddress::System { .. }));
            if let ServerAddress::System { path } = &server.address
                && let Some(reason) = no_name_server(path.as_deref(), &ours)
            {
                let effect = match alone {
                    true => "every name that is sent there gets SERVFAIL",
                    false => "the other servers of the group take the queries",
                };
                let advice = "name the site's own DNS servers instead of \"system\"";
                lines.insert(format!("upstream \"{}\": {reason}: {effect}; {advice}", group.name));
            }
        }
    }
    lines.into_iter().collect()
}

/// What to do about names now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// Ask the bootstrap servers.
    Resolve,
    /// Say that the daemon will.
    Tell,
}

/// A line about each name that servers are given by; an error where it could not be resolved.
pub fn resolve_names(live: &Live, boot: &Boot, now: Now) -> Vec<Result<String, String>> {
    let ours = OwnAddresses::new(boot.listen.iter().filter_map(|listen| resolve(&listen.endpoint)));
    let line = |name: &WatchedName| {
        let (group, bootstrap) = (&name.group, texts(&name.bootstrap));
        let subject = format!("upstream \"{group}\": {}", name.name);
        if now == Now::Tell {
            return Ok(format!(
                "{subject} is resolved while tidegate runs, by {bootstrap} (check --resolve does it now)"
            ));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("{subject} cannot be resolved here: {error}"))?;
        match runtime.block_on(resolution::resolve(name, &ours)) {
            Ok(resolved) => {
                Ok(format!("{subject} is {} (TTL {} s)", texts(&resolved.addresses), resolved.ttl.as_secs()))
            }
            Err(error) => Err(format!("{subject} cannot be resolved by {bootstrap}: {error}")),
        }
    };
    watched_names(live).iter().map(line).collect()
}

fn texts<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why `system` stands for no server at all; none if it stands for some.
fn no_name_server(path: Option<&Path>, ours: &OwnAddresses) -> Option<String> {
    if !system::read(path, ours).is_empty() {
        return None;
    }
    let shown = path.unwrap_or_else(|| Path::new(RESOLV_CONF)).display();
    if let Some(server) = system::read(path, &OwnAddresses::default()).first() {
        return Some(format!("{shown} names no server but this tidegate itself ({server})"));
    }
    Some(match files::read(path.unwrap_or_else(|| Path::new(RESOLV_CONF))) {
        Ok(_) => format!("{shown} names no server that could be asked"),
        Err(error) => format!("{shown} cannot be read ({})", SystemError(&error)),
    })
}

/// Why no socket can be bound to this address here; none if one can, or if that is unknown.
fn missing(address: &Address) -> Option<String> {
    let Some(socket) = resolve(&Endpoint { address: address.clone(), port: 0 }) else {
        return Some("this host has no such interface".to_owned());
    };
    let error = UdpSocket::bind(socket).err()?;
    match error.kind() {
        ErrorKind::AddrNotAvailable => Some("this host does not have that address".to_owned()),
        ErrorKind::PermissionDenied | ErrorKind::AddrInUse => None,
        _ => Some(format!("no socket can have that address here ({})", SystemError(&error))),
    }
}
