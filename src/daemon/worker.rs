//! One worker: a thread with a runtime and its own sockets for every address. A listener that ends before the stop,
//! even by a panic, ends the worker: the kernel would keep sending its socket a share of the queries.

use std::{
    io,
    rc::Rc,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{StartError, listeners::Socket};
use crate::{
    clock::Moment,
    dnstap::Tap,
    engine::{Context, Engine},
    metrics,
    otlp::Tracer,
    serve::{ConnectionLimits, accept, connections::Connections, quic, udp},
    upstream::{self, UpstreamClient},
};

/// How often a worker records that it is alive; `MAX_SILENCE` without it counts as hanging.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a stopping worker waits for queries in flight, unless `WorkerSpec::drain` says otherwise.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything a worker starts with.
pub(super) struct WorkerSpec {
    pub index: usize,
    pub workers: usize,
    pub engine: Arc<Engine>,
    pub counters: Arc<metrics::WorkerCounters>,
    pub connections: Arc<Connections>,
    pub limits: ConnectionLimits,
    pub payload: usize,
    pub sockets: Vec<Socket>,
    /// Where copies of messages go.
    pub tap: Option<Tap>,
    /// Begins traces.
    pub tracer: Option<Tracer>,
    /// Becomes true when reading stops.
    pub stop: watch::Receiver<bool>,
    /// How long to wait for queries in flight after the stop, if not [`DRAIN`]; set before the stop.
    pub drain: Arc<OnceLock<Duration>>,
    /// Dropped with the thread, whatever ends it.
    pub end: mpsc::UnboundedSender<()>,
}

/// Reports on drop that a thread has ended, also by a panic.
pub(super) struct EndNotice(pub(super) mpsc::UnboundedSender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // Nobody receives it once the daemon stops.
        self.0.send(()).ok();
    }
}

/// Starts the worker's thread.
pub(super) fn spawn(spec: WorkerSpec) -> Result<JoinHandle<io::Result<()>>, StartError> {
    let name = format!("worker-{}", spec.index);
    thread::Builder::new().name(name).spawn(move || run(spec)).map_err(StartError::Thread)
}

fn run(spec: WorkerSpec) -> io::Result<()> {
    let _notice = EndNotice(spec.end.clone());
    // Not a LocalSet: its waker is the root task's, and waking that costs a system call per turn.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(work(spec))
}

async fn work(spec: WorkerSpec) -> io::Result<()> {
    let number = upstream::WorkerNumber { index: spec.index, count: spec.workers + 1 };
    let upstream_client = Rc::new(UpstreamClient::tapped(number, spec.tap.clone()));
    let context =
        Rc::new(Context::new(spec.engine, upstream_client, spec.counters).with_tap(spec.tap).with_tracer(spec.tracer));
    let mut listeners = JoinSet::new();
    for socket in spec.sockets {
        let (context, connections) = (Rc::clone(&context), Arc::clone(&spec.connections));
        let (limits, stop) = (spec.limits, spec.stop.clone());
        match socket {
            Socket::Udp(socket) => drop(listeners.spawn_local(udp::serve(socket, context, spec.payload, stop))),
            Socket::Quic(socket, tls) => {
                drop(listeners.spawn_local(quic::serve(socket, tls, context, connections, limits, stop)));
            }
            Socket::Stream(listener, protocol) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let accepting = accept::accept(listener, protocol, context, connections, limits, stop);
                listeners.spawn_local(async {
                    accepting.await;
                    Ok(())
                });
            }
        }
    }
    let mut stop = spec.stop;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            _ = beat.tick() => context.counters.beat(Moment::now().micros()),
            _ = stop.wait_for(|stopping| *stopping) => break None,
            Some(ended) = listeners.join_next() => break Some(ended),
        }
    };
    if let Some(ended) = ended
        && !*stop.borrow()
    {
        ended.map_err(io::Error::other)??;
        return Err(io::Error::other("a listener ended"));
    }
    // Every task that holds the context still has a query to answer.
    let drained = async {
        while Rc::strong_count(&context) > 1 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    drop(timeout(spec.drain.get().copied().unwrap_or(DRAIN), drained).await);
    // The last replies leave with the tasks that are ready now.
    sleep(Duration::from_millis(1)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::UdpSocket, os::fd::OwnedFd};

    use super::*;
    use crate::{
        cache::Cache,
        config::Plan,
        daemon::state::{Startup, State},
        upstream::{Alarm, OwnAddresses},
    };

    const TEXT: &str = "[upstream.site]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n";

    /// A worker with this file for a socket.
    struct Worker {
        thread: JoinHandle<io::Result<()>>,
        stop: watch::Sender<bool>,
        ended: mpsc::UnboundedReceiver<()>,
        registry: metrics::Registry,
    }

    impl Worker {
        fn start(no_socket: OwnedFd) -> Self {
            let plan = Plan::from_text("t.toml", TEXT).unwrap();
            let rules = Arc::new(metrics::RuleRegistry::new(1));
            let (own, alarm) = (OwnAddresses::new([]), Arc::<Alarm>::default());
            let state =
                State::new(plan.live, Startup::default(), Cache::new(0), Arc::clone(&rules), own, alarm).unwrap();
            let counters = Arc::new(metrics::WorkerCounters::new(0));
            let (stop, stopping) = watch::channel(false);
            let (end, ended) = mpsc::unbounded_channel();
            let spec = WorkerSpec {
                index: 0,
                workers: 1,
                engine: Arc::clone(&state.engine),
                counters: Arc::clone(&counters),
                connections: Connections::new(1, 1),
                limits: ConnectionLimits { pipeline: 1, idle: Duration::from_secs(1) },
                payload: 1232,
                sockets: vec![Socket::Udp(UdpSocket::from(no_socket))],
                tap: None,
                tracer: None,
                stop: stopping,
                drain: Arc::default(),
                end,
            };
            let registry = metrics::Registry::new(vec![counters], rules, Duration::ZERO);
            Self { thread: spawn(spec).unwrap(), stop, ended, registry }
        }

        fn ends(&mut self) -> bool {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { timeout(Duration::from_secs(15), self.ended.recv()).await }).is_ok()
        }
    }

    #[test]
    fn a_listener_that_ends_ends_its_worker() {
        // A file cannot be waited on for datagrams.
        let mut worker = Worker::start(tempfile::tempfile().unwrap().into());
        assert!(worker.ends(), "the worker goes on without its socket");
        assert!(!matches!(worker.thread.join(), Ok(Ok(()))), "it says that something is wrong");
    }

    #[test]
    fn a_socket_that_only_gives_errors_is_read_with_pauses_and_holds_no_stop_up() {
        // A pipe is readable but not a socket: every read is an error that stays.
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let mut worker = Worker::start(reader.into());
        let pauses = || {
            let text = worker.registry.encode(metrics::Format::Text, |_| {});
            let line = "tidegate_accept_pauses_total{transport=\"udp\"} ";
            text.lines().find_map(|family| family.strip_prefix(line)?.parse::<u32>().ok()).unwrap()
        };
        let deadline = Moment::now() + Duration::from_secs(15);
        while pauses() < 2 {
            assert!(Moment::now() < deadline, "it reads on and on");
            thread::sleep(Duration::from_millis(10));
        }
        worker.stop.send(true).unwrap();
        assert!(worker.ends(), "the stop is not seen");
    }
}
