//! One worker: a thread, a runtime of its own, its sockets for every address.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::StartError;
use crate::{
    clock::Moment,
    engine::{Context, Engine},
    metrics,
    serve::{
        connections::Connections,
        stream::{self, StreamLimits},
        udp,
    },
    upstream::{self, Courier},
};

/// How often a worker shows that it turns.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a stopping worker waits for questions that still wait.
const DRAIN: Duration = Duration::from_secs(5);

/// What a worker needs to begin.
pub(super) struct WorkerSpec {
    pub index: usize,
    pub workers: usize,
    pub engine: Arc<Engine>,
    pub counters: Arc<metrics::Worker>,
    pub connections: Arc<Connections>,
    pub limits: StreamLimits,
    pub payload: usize,
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    /// Becomes true when reading stops.
    pub stop: watch::Receiver<bool>,
    /// Dropped with the thread, whatever ends it.
    pub end: mpsc::UnboundedSender<()>,
}

/// Says that the worker has ended, also when it panicked.
struct Farewell(mpsc::UnboundedSender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens once the daemon stops.
        self.0.send(()).ok();
    }
}

/// Starts the worker's thread.
pub(super) fn spawn(spec: WorkerSpec) -> Result<JoinHandle<io::Result<()>>, StartError> {
    let name = format!("worker-{}", spec.index);
    thread::Builder::new().name(name).spawn(move || run(spec)).map_err(StartError::Thread)
}

fn run(spec: WorkerSpec) -> io::Result<()> {
    let _farewell = Farewell(spec.end.clone());
    // Not a LocalSet: its waker is the root task's, and waking that costs a system call each turn.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(work(spec))
}

async fn work(spec: WorkerSpec) -> io::Result<()> {
    let courier = Rc::new(Courier::new(upstream::Worker { index: spec.index, count: spec.workers + 1 }));
    let context = Rc::new(Context::new(spec.engine, courier, spec.counters));
    for socket in spec.udp {
        tokio::task::spawn_local(udp::serve(socket, Rc::clone(&context), spec.payload, spec.stop.clone()));
    }
    for listener in spec.tcp {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let connections = Arc::clone(&spec.connections);
        tokio::task::spawn_local(stream::accept(
            listener,
            Rc::clone(&context),
            connections,
            spec.limits,
            spec.stop.clone(),
        ));
    }
    let mut stop = spec.stop;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => context.counters.beat(Moment::now().micros()),
            _ = stop.wait_for(|stopping| *stopping) => break,
        }
    }
    // Who holds the context still has something to answer.
    let drained = async {
        while Rc::strong_count(&context) > 1 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    drop(timeout(DRAIN, drained).await);
    // Replies that were made last leave with the tasks that are ready now.
    sleep(Duration::from_millis(1)).await;
    Ok(())
}
