//! A hit allocates nothing, whatever its manner; a query that waits for an upstream takes little memory.

#![expect(clippy::print_stdout, reason = "figures, for --no-capture")]

#[path = "../benches/support/mod.rs"]
mod support;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use support::{Bench, Manner, answer_all, names, query};
use tidegate::{
    clock::Moment,
    engine::{Action, Context},
    net::socket::{ListenOptions, udp_listeners},
    serve::udp,
    upstream::{ServerSpec, TierMember, UpstreamClient, WorkerNumber},
    wire::Transport,
};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::watch,
    time::sleep,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn a_hit_allocates_nothing() {
    let names = names(1000);
    let bench = Bench::with_names(&names);
    let mut reply = vec![0; 1232];
    for manner in [Manner::Plain, Manner::Edns, Manner::MixedCase] {
        let queries: Vec<_> = names.iter().map(|name| query(name, manner)).collect();
        let counted = allocation_counter::measure(|| {
            for query in &queries {
                assert!(matches!(bench.handle(query, &mut reply), Action::Reply(_)), "the cache has it");
            }
        });
        assert_eq!(counted.count_total, 0, "{manner:?}: {counted:?}");
    }
}

#[test]
fn a_miss_is_seen_by_the_counter() {
    let bench = Bench::with_names(&[]);
    let mut reply = vec![0; 1232];
    let query = query(&names(1)[0], Manner::Edns);
    let counted = allocation_counter::measure(|| {
        assert!(matches!(bench.handle(&query, &mut reply), Action::Resolve(_)), "nobody has it");
    });
    assert!(counted.count_total > 0, "a question that waits is owned: {counted:?}");
}

/// A worker that forwards to one upstream, and its client.
struct Worker {
    bench: Bench,
    runtime: LocalRuntime,
    client: UdpSocket,
    /// Dropped last: the worker serves until then.
    _stop: watch::Sender<bool>,
}

impl Worker {
    fn forwarding_to(upstream: SocketAddr) -> Self {
        let upstream = TierMember::Server(ServerSpec::plain(Transport::Udp, upstream));
        let bench = Bench::forwarding(vec![upstream]);
        let socket = udp_listeners(LOOPBACK, 1, &ListenOptions::default()).expect("a port on loopback").remove(0);
        let client = UdpSocket::bind(LOOPBACK).expect("a port on loopback");
        client.connect(socket.local_addr().expect("it is bound")).expect("the worker is on loopback");
        client.set_nonblocking(true).expect("any socket can be");
        let (stop, stopped) = watch::channel(false);
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let upstream_client = Rc::new(UpstreamClient::new(WorkerNumber::ALONE));
            let context = Context::new(Arc::clone(&bench.engine), upstream_client, Arc::clone(&bench.counters));
            tokio::task::spawn_local(udp::serve(socket, Rc::new(context), 1232, stopped));
        });
        Self { bench, runtime, client, _stop: stop }
    }

    /// Sends these queries, no more at a time than a socket's buffer holds, and waits each time until `is_done` about
    /// their number. False if that takes too long.
    fn ask(&self, queries: &[Vec<u8>], mut is_done: impl FnMut(usize) -> bool) -> bool {
        self.runtime.block_on(async {
            for batch in queries.chunks(32) {
                for query in batch {
                    self.client.send(query).expect("loopback takes a datagram");
                }
                let start = Moment::now();
                while !is_done(batch.len()) {
                    if Moment::now().since(start) > Duration::from_secs(10) {
                        return false;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            }
            true
        })
    }
}

fn queries(count: usize) -> Vec<Vec<u8>> {
    names(count).iter().map(|name| query(name, Manner::Edns)).collect()
}

#[test]
fn a_miss_takes_few_allocations() {
    let worker = Worker::forwarding_to(answer_all());
    // The first thousands fill what is bounded: the perimeter's names, tasks and timers that are used again.
    let queries = queries(6_000);
    let (first, others) = queries.split_at(5_000);
    let mut reply = [0; 1232];
    let mut answered = 0;
    let mut are_answered = |batch| {
        answered += std::iter::from_fn(|| worker.client.recv(&mut reply).ok()).count();
        let are_all = answered >= batch;
        answered -= if are_all { batch } else { 0 };
        are_all
    };
    assert!(worker.ask(first, &mut are_answered), "an answer is missing");
    let mut are_others_answered = false;
    let counted = allocation_counter::measure(|| are_others_answered = worker.ask(others, &mut are_answered));
    assert!(are_others_answered, "an answer is missing");
    let each = counted.count_total as f64 / others.len() as f64;
    println!("{each:.2} allocations a miss");
    assert!(each < 7.0, "{each:.2} allocations a miss");
}

/// Octets that each of so many queries takes while all of them wait for a silent upstream; none if they did not all wait
/// at once, because this machine was too slow.
fn octets_a_waiting_query(count: usize) -> Option<u64> {
    let silent = UdpSocket::bind(LOOPBACK).expect("a port on loopback");
    let worker = Worker::forwarding_to(silent.local_addr().expect("it is bound"));
    let queries = queries(32 + count);
    let (first, others) = queries.split_at(32);
    let mut reached = 0;
    let mut are_waiting = |batch| {
        let waiting = worker.bench.engine.waiting.count();
        let are_all = waiting == reached + batch;
        reached += if are_all { batch } else { 0 };
        are_all
    };
    let mut are_all_waiting = worker.ask(first, &mut are_waiting);
    let counted = allocation_counter::measure(|| are_all_waiting &= worker.ask(others, &mut are_waiting));
    (are_all_waiting && worker.bench.engine.waiting.count() == queries.len())
        .then_some(counted.bytes_max / count as u64)
}

#[test]
fn a_query_that_waits_for_an_upstream_takes_little_memory() {
    let octets = (0..10).find_map(|_| octets_a_waiting_query(1_024)).expect("they wait at the same time");
    println!("{octets} octets a query");
    assert!(octets <= 2_048, "{octets} octets a query");
}
