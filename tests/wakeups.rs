//! A query on its own wakes its worker no more often than it must: at light load, that costs more than all that is
//! decided about it.

#![expect(clippy::print_stdout, reason = "figures, for --no-capture")]

#[path = "../benches/support/mod.rs"]
mod support;

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use support::{Bench, Manner, answer_all, names, query};
use tidegate::{
    engine::Context,
    net::socket::{ListenOptions, udp_listeners},
    serve::udp,
    upstream::{ServerSpec, TierMember, UpstreamClient, WorkerNumber},
    wire::{Name, Transport},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
};

/// A worker on a thread of its own.
struct Worker {
    client: UdpSocket,
    /// How often it has gone to sleep, or only looked for events.
    sleeps: Arc<AtomicU32>,
    /// It serves until this is dropped.
    _stop: watch::Sender<bool>,
}

impl Worker {
    fn start(bench: Bench) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = udp_listeners(address, 1, &ListenOptions::default()).expect("a port on loopback").remove(0);
        let client = UdpSocket::bind(address).expect("a port on loopback");
        client.connect(socket.local_addr().expect("it is bound")).expect("the worker is on loopback");
        let sleeps = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&sleeps);
        let (stop, stopped) = watch::channel(false);
        thread::spawn(move || {
            let count = move || {
                counted.fetch_add(1, SeqCst);
            };
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().on_thread_park(count).build_local(LocalOptions::default());
            runtime.expect("a runtime").block_on(async {
                let upstream_client = Rc::new(UpstreamClient::new(WorkerNumber::ALONE));
                let context = Context::new(Arc::clone(&bench.engine), upstream_client, Arc::clone(&bench.counters));
                udp::serve(socket, Rc::new(context), 1232, stopped).await.ok();
            });
        });
        Self { client, sleeps, _stop: stop }
    }

    /// How often the worker sleeps for one of these queries, most often: it also wakes up for what none of them needs.
    fn sleeps_a_query(&self, names: &[Name]) -> u32 {
        let mut sleeps: Vec<u32> = names.iter().map(|name| self.ask(&query(name, Manner::Edns))).collect();
        sleeps.sort_unstable();
        sleeps[sleeps.len() / 2]
    }

    /// Asks, and counts until the timers of a query that is answered at once would have been due.
    fn ask(&self, query: &[u8]) -> u32 {
        let before = self.sleeps.load(SeqCst);
        let mut reply = [0; 1232];
        self.client.set_read_timeout(Some(Duration::from_secs(10))).expect("it is not zero");
        self.client.send(query).expect("loopback takes a datagram");
        self.client.recv(&mut reply).expect("every query is answered");
        self.client.set_read_timeout(Some(Duration::from_millis(10))).expect("it is not zero");
        let more = self.client.recv(&mut reply).expect_err("there is one answer");
        assert!(matches!(more.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{more}");
        self.sleeps.load(SeqCst) - before
    }
}

#[test]
fn a_hit_on_its_own_wakes_its_worker_once() {
    let names = names(21);
    let sleeps = Worker::start(Bench::with_names(&names)).sleeps_a_query(&names);
    println!("{sleeps} a hit");
    assert_eq!(sleeps, 1);
}

/// For the query and for its answer. Once more it does not sleep: the runtime wakes itself, to take note of the timer.
#[test]
fn a_miss_on_its_own_wakes_its_worker_twice() {
    let upstream = TierMember::Server(ServerSpec::plain(Transport::Udp, answer_all()));
    let sleeps = Worker::start(Bench::forwarding(vec![upstream])).sleeps_a_query(&names(41));
    println!("{sleeps} a miss");
    assert!(sleeps <= 3, "{sleeps} times");
}
