//! One worker: a thread with a runtime and its own sockets for every address. A listener that ends before the stop,
//! even by a panic, ends the worker: the kernel would keep sending its socket a share of the queries.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{StartError, handover::HANDED_OVER_DRAIN, listeners::Socket};
use crate::{
    dnstap::Tap,
    engine::{Context, Engine},
    metrics,
    otlp::Tracer,
    serve::{ConnectionLimits, ListenerLife, Predecessor, accept, connections::Connections, quic, udp},
    upstream::{self, UpstreamClient},
};

/// How long a stopping worker waits for queries in flight, unless its sockets live on.
const DRAIN: Duration = Duration::from_secs(5);
/// How long it then waits for connections to close.
const CLOSING: Duration = Duration::from_millis(50);

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
    /// Whether the sockets live on in another process; set before the stop.
    pub outlived: Arc<AtomicBool>,
    /// The process before this one.
    pub predecessor: watch::Receiver<Predecessor>,
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
    let (counters, its_counters) = (Arc::clone(&spec.counters), Arc::clone(&spec.counters));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || counters.pulse.falls_asleep())
        .on_thread_unpark(move || its_counters.pulse.wakes_up())
        .build_local(LocalOptions::default())?;
    runtime.block_on(work(spec))
}

async fn work(spec: WorkerSpec) -> io::Result<()> {
    let number = upstream::WorkerNumber { index: spec.index, count: spec.workers + 1 };
    let upstream_client = Rc::new(UpstreamClient::tapped(number, spec.tap.clone()));
    let context =
        Rc::new(Context::new(spec.engine, upstream_client, spec.counters).with_tap(spec.tap).with_tracer(spec.tracer));
    let (cut, cutting) = watch::channel(false);
    let lifetime = ListenerLife {
        stop: spec.stop.clone(),
        cut: cutting,
        outlived: Arc::clone(&spec.outlived),
        predecessor: spec.predecessor,
    };
    let mut listeners = listen(spec.sockets, &context, &spec.connections, spec.limits, spec.payload, &lifetime)?;
    let mut stop = spec.stop;
    let ended = loop {
        tokio::select! {
            () = context.counters.pulse.answer() => {}
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
    let drain = if spec.outlived.load(Relaxed) { HANDED_OVER_DRAIN } else { DRAIN };
    if timeout(drain, drained).await.is_err() {
        // Connections whose queries still wait are closed.
        cut.send_replace(true);
        drop(timeout(CLOSING, async { while listeners.join_next().await.is_some() {} }).await);
    }
    // The last replies leave with the tasks that are ready now.
    sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// Starts the listeners of the worker's sockets.
fn listen(
    sockets: Vec<Socket>,
    context: &Rc<Context>,
    connections: &Arc<Connections>,
    limits: ConnectionLimits,
    payload: usize,
    lifetime: &ListenerLife,
) -> io::Result<JoinSet<io::Result<()>>> {
    let mut listeners = JoinSet::new();
    for socket in sockets {
        let (context, connections, lifetime) = (Rc::clone(context), Arc::clone(connections), lifetime.clone());
        match socket {
            Socket::Udp(socket) => drop(listeners.spawn_local(udp::serve(socket, context, payload, lifetime.stop))),
            Socket::Quic(socket, server) => {
                drop(listeners.spawn_local(quic::serve(socket, server, context, connections, limits, lifetime)));
            }
            Socket::Stream(listener, protocol) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let accepting = accept::accept(listener, protocol, context, connections, limits, lifetime);
                listeners.spawn_local(async {
                    accepting.await;
                    Ok(())
                });
            }
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::UdpSocket, os::fd::OwnedFd};

    use super::*;
    use crate::{
        cache::Cache,
        clock::Moment,
        config::Plan,
        daemon::state::{Startup, State},
        serve::QuicServer,
        tls,
        upstream::{Alarm, OwnAddresses},
    };

    const TEXT: &str = "[upstream.site]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n";

    struct Worker {
        thread: JoinHandle<io::Result<()>>,
        stop: watch::Sender<bool>,
        outlived: Arc<AtomicBool>,
        predecessor: watch::Sender<Predecessor>,
        ended: mpsc::UnboundedReceiver<()>,
        registry: metrics::Registry,
    }

    impl Worker {
        /// A worker with this file for a socket.
        fn start(no_socket: OwnedFd) -> Self {
            Self::with(vec![Socket::Udp(UdpSocket::from(no_socket))], Predecessor::Gone)
        }

        fn with(sockets: Vec<Socket>, before: Predecessor) -> Self {
            let plan = Plan::from_text("t.toml", TEXT).unwrap();
            let rules = Arc::new(metrics::RuleRegistry::new(1));
            let (own, alarm) = (OwnAddresses::new([]), Arc::<Alarm>::default());
            let state =
                State::new(plan.live, Startup::default(), Cache::new(0), Arc::clone(&rules), own, alarm).unwrap();
            let counters = Arc::new(metrics::WorkerCounters::new(0));
            let (stop, stopping) = watch::channel(false);
            let (end, ended) = mpsc::unbounded_channel();
            let (outlived, (predecessor, told)) = (Arc::<AtomicBool>::default(), watch::channel(before));
            let spec = WorkerSpec {
                index: 0,
                workers: 1,
                engine: Arc::clone(&state.engine),
                counters: Arc::clone(&counters),
                connections: Connections::new(1, 1),
                limits: ConnectionLimits { pipeline: 1, idle: Duration::from_secs(1) },
                payload: 1232,
                sockets,
                tap: None,
                tracer: None,
                stop: stopping,
                outlived: Arc::clone(&outlived),
                predecessor: told,
                end,
            };
            let registry = metrics::Registry::new(vec![counters], rules, Duration::ZERO);
            Self { thread: spawn(spec).unwrap(), stop, outlived, predecessor, ended, registry }
        }

        fn ends(&mut self) -> bool {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { timeout(Duration::from_secs(15), self.ended.recv()).await }).is_ok()
        }
    }

    fn quic_server() -> QuicServer {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pair = tls::KeyPair::from_pem(chain.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let reset_key = Arc::new(pair.reset_key().at("here"));
        let tls = tls::TlsServer::new(&tls::ServerCertificate::new(pair), &[tls::Alpn::Doq]).unwrap();
        QuicServer { tls, reset_key, id_key: 1 }
    }

    /// Two processes that read would take each other's packets.
    #[test]
    fn quic_is_read_neither_before_the_predecessor_stops_nor_once_there_is_a_successor() {
        let (quic, plain) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (at_quic, at_plain, queue) =
            (quic.local_addr().unwrap(), plain.local_addr().unwrap(), quic.try_clone().unwrap());
        for socket in [&quic, &plain] {
            socket.set_nonblocking(true).unwrap();
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let sockets = vec![Socket::Quic(quic, quic_server()), Socket::Udp(plain)];
        let worker = Worker::with(sockets, Predecessor::Reads);
        let is_left = || queue.peek(&mut [0; 16]).is_ok();
        // Answered, so the worker turns: a header without a question is FORMERR.
        let turns = || {
            client.send_to(&[0; 12], at_plain).unwrap();
            client.recv(&mut [0; 512]).unwrap();
        };
        client.send_to(b"a datagram", at_quic).unwrap();
        turns();
        assert!(is_left(), "the predecessor reads it");
        worker.predecessor.send_replace(Predecessor::Drains);
        let deadline = Moment::now() + Duration::from_secs(15);
        while is_left() {
            assert!(Moment::now() < deadline, "it is never read");
            thread::sleep(Duration::from_millis(2));
        }
        worker.outlived.store(true, Relaxed);
        client.send_to(b"a datagram", at_quic).unwrap();
        turns();
        assert!(is_left(), "the successor reads it");
        worker.stop.send_replace(true);
        worker.thread.join().unwrap().unwrap();
        assert!(is_left(), "the successor reads it");
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
