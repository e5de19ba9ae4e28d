//! Start, reload, stop: from a plan to sockets, workers and the admin server, and back.
//!
//! [`Daemon::start`] binds everything, spawns the workers and the control thread, and returns; READY does not wait for
//! any upstream. The control thread owns all that is not a question: probes, the admin server, what is watched
//! (resolv.conf, zone files), reloads. A worker that ends, ends the process.

pub mod logging;
pub mod perimeter;

mod control;
mod groups;
mod state;
mod worker;

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

pub use self::state::build_zones;
use self::{control::Command, state::State, worker::WorkerSpec};
use crate::{
    cache::Cache,
    config::{Boot, Live, Need, Workers},
    engine::Engine,
    metrics,
    net::{
        mmsg::{allowed_cpus, raise_open_files},
        socket::{self, BindError, Listeners, Options},
    },
    serve::{connections::Connections, stream::StreamLimits},
    upstream::{Alarm, Ours},
    zones::ZoneProblem,
};

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The interface of a listen address does not exist.
    #[error("cannot listen on {0}: there is no such interface")]
    NoInterface(String),
    /// None of the default addresses could be bound.
    #[error("there is no address to listen on; set `listen` in [server]")]
    NoAddress,
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Something that the kernel should give was not to be had.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// Local zones with mistakes.
    #[error("{}", lines(.0))]
    Zones(Vec<ZoneProblem>),
}

fn lines(problems: &[ZoneProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A running server. Dropped, it stops without waiting.
#[derive(Debug)]
pub struct Daemon {
    addresses: Vec<SocketAddr>,
    engine: Arc<Engine>,
    commands: mpsc::UnboundedSender<Command>,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<()>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    control: JoinHandle<()>,
}

impl Daemon {
    /// Binds every address, starts the workers and the control thread.
    pub fn start(boot: &Boot, live: Live) -> Result<Self, StartError> {
        if let Err(error) = raise_open_files() {
            warn!(%error, "the limit on open files stays as it is");
        }
        let count = workers(boot)?;
        let mut listeners = bind(boot, count)?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.address).collect();
        let ours = Ours::new(addresses.iter().copied());
        let rules = Arc::new(metrics::Rules::new(count));
        let cache = Cache::new(usize::try_from(boot.cache_size).unwrap_or(usize::MAX));
        let payload = usize::from(live.udp_payload);
        let state = State::new(live, cache, rules, ours, Arc::new(Alarm::default())).map_err(StartError::Zones)?;
        let engine = Arc::clone(&state.engine);
        let limit = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let connections = Connections::new(limit(boot.streams.connections), limit(boot.streams.per_client));
        let limits = StreamLimits { pipeline: limit(boot.streams.pipeline), idle: boot.streams.idle };
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let spec = WorkerSpec {
                index,
                workers: count,
                engine: Arc::clone(&engine),
                counters: Arc::new(metrics::Worker::new(index)),
                connections: Arc::clone(&connections),
                limits,
                payload,
                udp: listeners.iter_mut().filter_map(|listener| listener.udp.pop()).collect(),
                tcp: listeners.iter_mut().filter_map(|listener| listener.tcp.pop()).collect(),
                stop: stopping.clone(),
                end: end.clone(),
            };
            workers.push(worker::spawn(spec)?);
        }
        let (commands, told) = mpsc::unbounded_channel();
        let control = control::spawn(state, count, told)?;
        for address in &addresses {
            info!(%address, "listening");
        }
        Ok(Self { addresses, engine, commands, stop, ended, workers, control })
    }

    /// The addresses it answers on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the workers share.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Brings another configuration into force, or leaves the one in force as it is and says why.
    pub async fn reload(&self, live: Live) -> Result<(), Vec<ZoneProblem>> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Reload(Box::new(live), reply)).is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Waits until a worker ends, which none should before it is told to.
    pub async fn worker_ended(&mut self) {
        self.ended.recv().await;
    }

    /// Stops reading, answers what was received, and ends.
    pub fn stop(self) {
        // Without receivers every worker has ended already.
        self.stop.send_replace(true);
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "a worker ended"),
                Err(_) => warn!("a worker panicked"),
            }
        }
        drop(self.commands);
        if self.control.join().is_err() {
            warn!("the control thread panicked");
        }
    }
}

/// How many workers: one for each core that this process may use, unless the configuration says.
fn workers(boot: &Boot) -> Result<usize, StartError> {
    Ok(match boot.workers {
        Workers::Auto => allowed_cpus()?.len().max(1),
        Workers::Count(count) => usize::try_from(count.get()).unwrap_or(1),
    })
}

fn bind(boot: &Boot, count: usize) -> Result<Vec<Listeners>, StartError> {
    let options = Options { freebind: boot.freebind, ..Options::default() };
    let mut all = Vec::with_capacity(boot.listen.len());
    for listen in &boot.listen {
        let address =
            groups::resolve(&listen.endpoint).ok_or_else(|| StartError::NoInterface(listen.endpoint.to_string()))?;
        match socket::listeners(address, count, &options) {
            Ok(listeners) => all.push(listeners),
            Err(BindError::NoIpv6 { .. } | BindError::NotHere { .. }) if listen.need == Need::IfSupported => {}
            Err(error) => return Err(error.into()),
        }
    }
    if all.is_empty() { Err(StartError::NoAddress) } else { Ok(all) }
}
