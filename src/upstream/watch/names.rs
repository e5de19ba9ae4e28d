//! Resolves the names of servers that are given by name, each by the bootstrap servers of its group.
//!
//! Policy:
//! - Only the bootstrap servers are asked, for the full name as it is written: no hosts file, no search list, no
//!   resolv.conf, and never ourselves, so that nothing waits for itself.
//! - Queries leave by the group's source, device and mark.
//! - A name is asked again by its TTL, at least 30 s and at most an hour, less up to a tenth so that replicas part.
//! - A failed try is repeated after a second, then twice as long, up to 30 s; the last list stays in force.
//! - If one of A and AAAA fails, the addresses of that family stay.
//! - IPv6 addresses that this host has no route to are left out, unless there are no others.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{
        DnsError, NetError,
        runtime::{RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
    },
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    clock::Moment,
    config,
    net::socket,
    upstream::{
        names::{ListChange, ResolveError, Resolved, WatchedName},
        spec::Egress,
        system::OwnAddresses,
    },
};

/// How long one bootstrap server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// When a name is asked again.
#[derive(Debug, Clone, Copy)]
pub struct RefreshTiming {
    /// A shorter TTL counts as this.
    pub floor: Duration,
    /// A longer TTL counts as this.
    pub ceiling: Duration,
    /// After the first failed try; then twice as long, and so on, up to `floor`.
    pub again: Duration,
}

impl Default for RefreshTiming {
    fn default() -> Self {
        Self { floor: Duration::from_secs(30), ceiling: Duration::from_hours(1), again: Duration::from_secs(1) }
    }
}

/// Resolves the names of `targets`, and those that come in their place, until the sender is gone. The lists of `ours` take
/// the addresses; `changed` is told when groups must be built again. Must run where local tasks can be spawned.
pub async fn run(
    ours: OwnAddresses,
    mut targets: watch::Receiver<Vec<WatchedName>>,
    changed: Arc<Notify>,
    timing: RefreshTiming,
) {
    let mut watched = Vec::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        // A name that stays is not asked anew.
        watched.retain(|(name, _)| wanted.contains(name));
        for name in wanted {
            if watched.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let mut task = JoinSet::new();
            task.spawn_local(watch_one(name.clone(), ours.clone(), Arc::clone(&changed), timing));
            watched.push((name, task));
        }
        if targets.changed().await.is_err() {
            return;
        }
    }
}

/// Fills one list of `ours` once, for verbs that ask servers without a daemon.
pub async fn resolve_once(name: &WatchedName, ours: &OwnAddresses) {
    let result = resolve(name, ours).await.map(|resolved| resolved.addresses);
    let now = Moment::now();
    ours.names().note(name, result, now, now);
}

async fn watch_one(name: WatchedName, ours: OwnAddresses, changed: Arc<Notify>, timing: RefreshTiming) {
    let mut again = timing.again;
    loop {
        let result = resolve(&name, &ours).await;
        let wait = match &result {
            Ok(resolved) => {
                again = timing.again;
                resolved.ttl.clamp(timing.floor, timing.ceiling)
            }
            Err(_) => {
                let wait = again.min(timing.floor);
                again = wait * 2;
                wait
            }
        };
        let wait = wait.mul_f64(rand::random_range(0.9..=1.0));
        let now = Moment::now();
        let addresses = result.map(|resolved| resolved.addresses);
        if ours.names().note(&name, addresses, now + wait, now) == ListChange::Changed {
            changed.notify_one();
        }
        tokio::time::sleep(wait).await;
    }
}

/// Asks the bootstrap servers once.
///
/// # Errors
/// None has an address for the name.
pub async fn resolve(name: &WatchedName, ours: &OwnAddresses) -> Result<Resolved, ResolveError> {
    let servers: Vec<SocketAddr> = name.bootstrap.iter().copied().filter(|server| !ours.holds(*server)).collect();
    if servers.is_empty() {
        return Err(ResolveError::OurOwn);
    }
    let qname = Name::from_ascii(format!("{}.", name.name)).map_err(|_| ResolveError::NoName)?;
    let resolver = resolver(&servers, &name.via)?;
    let [v4, v6] = [RecordType::A, RecordType::AAAA].map(|qtype| resolver.lookup(qname.clone(), qtype));
    let (v4, v6) = tokio::join!(v4, v6);
    let families = [(addresses(v4), IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (addresses(v6), IpAddr::is_ipv6)];
    if let [(Err(first), _), (Err(second), _)] = families {
        return Err(telling(first, second));
    }
    let last = ours.names().addresses(&name.group, &name.name);
    let mut all = Resolved { addresses: Vec::new(), ttl: Duration::MAX };
    for (family, is_of) in families {
        match family {
            Ok(resolved) => {
                all.addresses.extend(resolved.addresses);
                all.ttl = all.ttl.min(resolved.ttl);
            }
            Err(ResolveError::NoAddress | ResolveError::NoName) => {}
            Err(_) => {
                all.addresses.extend(last.iter().filter(|ip| is_of(ip)));
                all.ttl = Duration::ZERO;
            }
        }
    }
    leave_out_unreachable(&mut all.addresses, &name.via);
    Ok(all)
}

/// The more informative of the errors for A and AAAA.
fn telling(first: ResolveError, second: ResolveError) -> ResolveError {
    match (first, second) {
        (ResolveError::NoName, _) | (_, ResolveError::NoName) => ResolveError::NoName,
        (ResolveError::NoAddress, other) | (other, _) => other,
    }
}

/// The addresses of an answer, with the shortest TTL on the way to them.
fn addresses(lookup: Result<Lookup, NetError>) -> Result<Resolved, ResolveError> {
    let lookup = lookup.map_err(|error| match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => ResolveError::NoName,
            ResponseCode::NoError => ResolveError::NoAddress,
            _ => ResolveError::Rcode,
        },
        NetError::Dns(_) => ResolveError::Rcode,
        _ => ResolveError::NoAnswer,
    })?;
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    let addresses: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| address(&record.data)).collect();
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(|ip| config::is_host_address(*ip)).collect();
    if addresses.is_empty() {
        return Err(ResolveError::NoAddress);
    }
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok(Resolved { addresses, ttl: Duration::from_secs(ttl.into()) })
}

/// Leaves out IPv6 addresses that this host cannot send to, where it could send to others.
fn leave_out_unreachable(addresses: &mut Vec<IpAddr>, via: &Egress) {
    let is_reachable = |ip: &IpAddr| ip.is_ipv4() || socket::upstream_udp(SocketAddr::new(*ip, 53), via).is_ok();
    if addresses.iter().any(is_reachable) {
        addresses.retain(is_reachable);
    }
}

/// A resolver that asks only these servers.
fn resolver(servers: &[SocketAddr], via: &Egress) -> Result<Resolver<BootstrapSockets>, ResolveError> {
    let connection = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    let server = |server: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|of| connection(of, server.port())).into();
        NameServerConfig::new(server.ip(), true, connections)
    };
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
    let egress = BootstrapSockets { via: via.clone(), handle: TokioHandle::default() };
    let mut builder = Resolver::builder_with_config(config, egress);
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|_| ResolveError::NoAnswer)
}

/// The sockets of queries to bootstrap servers: those of all upstream queries.
#[derive(Clone)]
struct BootstrapSockets {
    via: Egress,
    handle: TokioHandle,
}

impl RuntimeProvider for BootstrapSockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let socket = socket::upstream_tcp(server, &self.via);
        Box::pin(async move {
            let connect = TcpSocket::from_std_stream(socket?.into()).connect(server);
            let stream = tokio::time::timeout(patience.unwrap_or(PATIENCE), connect).await;
            Ok(AsyncIoTokioAsStd(stream.map_err(|_| io::ErrorKind::TimedOut)??))
        })
    }

    fn bind_udp(
        &self,
        _: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let socket = socket::upstream_udp(server, &self.via);
        Box::pin(async move { UdpSocket::from_std(socket?) })
    }
}
