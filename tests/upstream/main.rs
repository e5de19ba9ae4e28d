//! Groups of upstream servers against scripted ones on loopback.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod encrypted;
mod failover;
mod health;
mod hedging;
mod hostile_quic;
mod limits;
mod local_errors;
mod loops;
mod names;
mod ports;
mod probes;
mod script;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    clock::Moment,
    upstream::{
        Alarm, ExchangeError, Exchanged, Group, GroupLimits, GroupSpec, HealthSpec, HealthState, OwnAddresses, Policy,
        ProbeOrigin, Server, ServerSpec, TierMember, UpstreamClient, WorkerNumber, prober,
    },
    wire::{Class, Name, RecordType, Transport, UpstreamQuery, addresses::find_address},
};

/// Runs on a runtime like a worker's.
fn on_a_worker<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(future)
}

fn udp(address: SocketAddr) -> TierMember {
    TierMember::Server(ServerSpec::plain(Transport::Udp, address))
}

fn tcp(address: SocketAddr) -> TierMember {
    TierMember::Server(ServerSpec::plain(Transport::Tcp, address))
}

/// A group in which the first server is asked first, without hedges, and probes are quick.
fn spec(tiers: &[&[TierMember]]) -> GroupSpec {
    let health = HealthSpec {
        interval: Duration::from_millis(500),
        interval_down: Duration::from_millis(100),
        ..HealthSpec::probing("probe.example".parse().unwrap(), RecordType::A)
    };
    GroupSpec {
        name: "vpc".into(),
        tiers: tiers.iter().map(|tier| tier.to_vec()).collect(),
        policy: Policy::Ordered,
        limits: GroupLimits { hedge_budget: None, ..GroupLimits::default() },
        health,
    }
}

fn build(spec: &GroupSpec) -> Arc<Group> {
    Arc::new(Group::build(spec, &OwnAddresses::default(), &Arc::new(Alarm::new())))
}

/// A group with the default probe.
fn by_default(tiers: &[&[TierMember]]) -> GroupSpec {
    let mut spec = spec(tiers);
    spec.health.origin = ProbeOrigin::Default;
    spec
}

/// A group, and the alarm that tells its prober of doubts.
fn watched(spec: &GroupSpec) -> (Arc<Group>, Arc<Alarm>) {
    let alarm = Arc::new(Alarm::new());
    (Arc::new(Group::build(spec, &OwnAddresses::default(), &alarm)), alarm)
}

fn query(name: &str) -> Arc<UpstreamQuery> {
    let name: Name = name.parse().unwrap();
    Arc::new(UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false })
}

async fn ask(client: &UpstreamClient, group: &Arc<Group>, name: &str) -> Result<Exchanged, ExchangeError> {
    let now = Moment::now();
    client
        .exchange(group, &tidegate::upstream::Marks::default(), &query(name), now, now + Duration::from_millis(3500))
        .await
}

fn address(exchanged: &Exchanged) -> Ipv4Addr {
    match find_address(exchanged.response.message(), Some) {
        Ok(Some(IpAddr::V4(address))) => address,
        other => panic!("{other:?} instead of an address"),
    }
}

fn server(group: &Group, at: usize) -> &Arc<Server> {
    group.servers().nth(at).unwrap()
}

/// Waits, for as long as a busy machine may need, until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Moment::now();
    while !is_so() {
        assert!(Moment::now().since(start) < support::PATIENCE, "{what}, never");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Probes a group until the returned sender is dropped.
fn probe(group: &Arc<Group>, alarm: &Arc<Alarm>) -> tokio::sync::watch::Sender<prober::Targets> {
    let (sender, receiver) = tokio::sync::watch::channel(vec![Arc::clone(group)]);
    tokio::task::spawn_local(prober::run(client(), receiver, Arc::clone(alarm)));
    sender
}

fn client() -> Rc<UpstreamClient> {
    Rc::new(UpstreamClient::new(WorkerNumber::ALONE))
}

fn is(server: &Server, state: HealthState) -> bool {
    server.state() == state
}

/// Sends a query that fails; returns false.
fn ask_now(client: &Rc<UpstreamClient>, group: &Arc<Group>) -> bool {
    let (client, group) = (Rc::clone(client), Arc::clone(group));
    tokio::task::spawn_local(async move { ask(&client, &group, "broken.example").await.map(drop) });
    false
}
