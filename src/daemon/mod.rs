//! Start, reload, stop: from a plan to sockets, workers and the admin server, and back.
//!
//! [`Daemon::start`] binds everything, spawns the workers and the control thread, and returns; READY does not wait for
//! any upstream. The control thread owns everything that is not a query: probes, the admin server, watched files
//! (resolv.conf, zone files), reloads. When a worker or the control thread ends, the process ends.

pub mod logging;

mod certificate;
mod control;
mod delegations;
mod descriptors;
mod designated;
mod groups;
mod handover;
mod headline;
mod host;
mod journal;
mod listeners;
mod orders;
mod perimeter_recorder;
mod report;
mod run;
mod sandbox;
mod snapshot_writer;
mod socket_file;
mod state;
mod worker;
mod writer_thread;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use self::{
    certificate::WatchedCertificate,
    control::{AdminListeners, Command},
    handover::{Giver, SocketLife},
    listeners::{Bound, KeptSocket, Origin},
    logging::LostLines,
    report::Report,
    snapshot_writer::SnapshotStatus,
    socket_file::{Occupied, SocketFile},
    state::{Startup, State},
    worker::WorkerSpec,
    writer_thread::WriterThread,
};
pub use self::{
    delegations::{DelegationPlan, delegation_plans},
    descriptors::DescriptorBudget,
    designated::undiscoverable,
    groups::{group_specs, server_spec, watched_names},
    handover::HandedOver,
    host::{Now, few_descriptors, missing_listeners, missing_upstreams, resolve_names},
    orders::Drain,
    run::{ExitReason, run},
    state::{Reloaded, build_zones, offline_engine},
};
use crate::{
    admin::{control::OrderRequest, status::Finding},
    cache::Cache,
    clock::Moment,
    config::{Boot, Live, Workers},
    dnstap::DnstapWriter,
    engine::Engine,
    metrics,
    net::{
        mmsg::{allowed_cpus, open_files, raise_open_files},
        socket::{BindError, Inherited, PortProtocol},
    },
    otlp::OtlpExporter,
    serve::{ConnectionLimits, Predecessor, connections::Connections},
    system_error::SystemError,
    upstream::{Alarm, OwnAddresses},
    zones::{ZoneError, Zones},
};

/// Orders from the control socket that may wait; further clients wait to be accepted.
const ORDERS: usize = 16;

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
    /// The operators' HTTP could not be bound.
    #[error(
        "cannot listen on {address} for the status page and metrics: {}; choose another address, or switch them off: \
         `http` in [admin], or --admin ADDR:PORT or --admin off",
        reason(source)
    )]
    Admin {
        /// The address it should listen on.
        address: SocketAddr,
        /// Why it cannot.
        source: BindError,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {}", SystemError(.0))]
    Thread(io::Error),
    /// A system call failed.
    #[error("cannot start: {}", SystemError(.0))]
    Io(#[from] io::Error),
    /// Local zones have errors.
    #[error("{}", lines(.0))]
    Zones(Vec<ZoneError>),
}

/// Why an address cannot be bound, without the advice for DNS listeners.
fn reason(error: &BindError) -> String {
    match error {
        BindError::InUse { owner, .. } => format!("it is in use by {owner}"),
        BindError::Forbidden { .. } => "a port that low needs CAP_NET_BIND_SERVICE".to_owned(),
        BindError::NoIpv6 { .. } => "this host has IPv6 switched off".to_owned(),
        BindError::NotHere { .. } => "this host does not have the address".to_owned(),
        BindError::Io { source, .. } => source.to_string(),
    }
}

fn lines(problems: &[ZoneError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Events that the caller of [`Daemon::next`] must handle.
#[derive(Debug)]
pub enum Event {
    /// An order came in over the control socket.
    Order(OrderRequest),
    /// A worker or the control thread ended before it was told to.
    ThreadEnded,
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Daemon {
    addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    engine: Arc<Engine>,
    report: Arc<Report>,
    commands: mpsc::UnboundedSender<Command>,
    stop: watch::Sender<bool>,
    outlived: Arc<AtomicBool>,
    predecessor: watch::Sender<Predecessor>,
    listening: Vec<KeptSocket>,
    socket_life: SocketLife,
    ended: mpsc::UnboundedReceiver<()>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    control: JoinHandle<()>,
    snapshot_writer: Option<WriterThread>,
    perimeter_recorder: Option<WriterThread>,
    dnstap: Option<DnstapWriter>,
    otlp: Option<OtlpExporter>,
    orders: mpsc::Receiver<OrderRequest>,
    _socket: Option<SocketFile>,
}

impl Daemon {
    /// Binds every address and starts the workers and the control thread. `log_lost` counts log lines that were lost.
    pub fn start(boot: &Boot, live: Live, log_lost: Option<LostLines>) -> Result<Self, StartError> {
        Self::start_within(boot, live, log_lost, HandedOver::default(), |_, _| {})
    }

    /// Like [`Self::start`], with sockets that were `handed` over; `confine` runs after files are read and sockets bound,
    /// before any thread starts.
    #[expect(clippy::too_many_lines, reason = "what is started, in its order: each part needs those before it")]
    fn start_within(
        boot: &Boot,
        live: Live,
        log_lost: Option<LostLines>,
        mut handed: HandedOver,
        confine: impl FnOnce(&Live, &Zones),
    ) -> Result<Self, StartError> {
        let count = workers(boot)?;
        let descriptors = share_descriptors(boot, count);
        let certificate = live.certificate.as_ref().map(WatchedCertificate::new);
        let shared = certificate.as_ref().map(WatchedCertificate::shared);
        let mut bound = Bound::bind(boot, shared.as_ref(), count, &mut handed.sockets)?;
        let addresses = bound.plain.clone();
        let admin = bind_admin(boot, &mut handed.sockets)?;
        let mut listening = bound.take_kept();
        let giver = handed.giver();
        let socket_life = handover::store(&listening, giver);
        handover::dismiss(&handed.sockets.into_strangers());
        listening.extend(admin.as_ref().map(|(listener, address)| keep_admin(listener, *address)).transpose()?);
        let ours = OwnAddresses::new(addresses.iter().copied());
        let rules = Arc::new(metrics::RuleRegistry::new(count));
        let cache = Cache::new(usize::try_from(boot.cache_size).unwrap_or(usize::MAX));
        let payload = usize::from(live.udp_payload);
        let startup = Startup {
            certificate,
            listeners: bound.showing_certificate().collect(),
            source_ports: Some(descriptors.source_ports),
        };
        let state = State::new(live, startup, cache, Arc::clone(&rules), ours, Arc::new(Alarm::default()))
            .map_err(StartError::Zones)?;
        boot.perimeter.iter().for_each(perimeter_recorder::make_folder);
        confine(&state.live, state.zones());
        let engine = Arc::clone(&state.engine);
        let limit = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let connections = Connections::new(descriptors.clients, limit(boot.streams.per_client));
        let limits = ConnectionLimits { pipeline: limit(boot.streams.pipeline), idle: boot.streams.idle };
        let counters: Vec<_> = (0..count).map(|index| Arc::new(metrics::WorkerCounters::new(index))).collect();
        let snapshot_status = Arc::new(SnapshotStatus::default());
        let start_writer = |path| snapshot_writer::start(path, &engine, &snapshot_status);
        let snapshot_writer = boot.snapshot.as_deref().map(start_writer).transpose()?;
        let report = Report::new(
            counters.clone(),
            rules,
            Arc::clone(&engine),
            Arc::clone(&connections),
            snapshot_status,
            &bound,
            &state,
        );
        let version = concat!("tidegate ", env!("CARGO_PKG_VERSION"));
        let dnstap = boot.dnstap.clone().map(|target| DnstapWriter::start(target, version));
        let dnstap = dnstap.transpose().map_err(StartError::Thread)?;
        let tap = dnstap.as_ref().map(DnstapWriter::tap);
        let otlp = boot.otlp.clone().map(|target| OtlpExporter::start(target, env!("CARGO_PKG_VERSION")));
        let otlp = otlp.transpose().map_err(StartError::Thread)?;
        let tracer = otlp.as_ref().map(OtlpExporter::tracer);
        let report = Arc::new(report.with_log(log_lost, tap.clone(), tracer.clone()));
        let start_recorder = |record| perimeter_recorder::start(record, &engine, &report);
        let perimeter_recorder = boot.perimeter.as_ref().map(start_recorder).transpose()?;
        let (stop, stopping) = watch::channel(false);
        let outlived = Arc::<AtomicBool>::default();
        let before = if giver == Giver::Predecessor { Predecessor::Reads } else { Predecessor::Gone };
        let (predecessor, told_of_predecessor) = watch::channel(before);
        let (end, ended) = mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(count);
        for (index, (counters, sockets)) in counters.into_iter().zip(bound.take()).enumerate() {
            let spec = WorkerSpec {
                index,
                workers: count,
                engine: Arc::clone(&engine),
                counters,
                connections: Arc::clone(&connections),
                limits,
                payload,
                sockets,
                tap: tap.clone(),
                tracer: tracer.clone(),
                stop: stopping.clone(),
                outlived: Arc::clone(&outlived),
                predecessor: told_of_predecessor.clone(),
                end: end.clone(),
            };
            workers.push(worker::spawn(spec)?);
        }
        let (commands, told) = mpsc::unbounded_channel();
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let (order, orders) = mpsc::channel(ORDERS);
        let occupied = if giver == Giver::Predecessor { Occupied::Replace } else { Occupied::Refuse };
        let (socket, file) = boot.admin_socket.as_deref().and_then(|path| socket_file::bind(path, occupied)).unzip();
        let http = admin.map(|(listener, _)| listener);
        let listeners = AdminListeners { http, connections: descriptors.operators, socket, order };
        let control = control::spawn(state, count, told, Arc::clone(&report), listeners, end)?;
        bound.log();
        if let Some(address) = admin_address {
            info!(%address, "status page and metrics on http://{address}/");
        }
        Ok(Self {
            addresses,
            admin_address,
            engine,
            report,
            commands,
            stop,
            outlived,
            predecessor,
            listening,
            socket_life,
            ended,
            workers,
            control,
            snapshot_writer,
            perimeter_recorder,
            dnstap,
            otlp,
            orders,
            _socket: file,
        })
    }

    /// The addresses it answers on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of the operators' HTTP; none if it is off.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The engine that the workers share.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Live> {
        self.report.live()
    }

    /// Puts another configuration into force and returns what changed, or keeps the current one and returns why.
    pub async fn reload(&self, live: Live) -> Result<Reloaded, Vec<ZoneError>> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Reload(Box::new(live), reply)).is_err() {
            return Ok(Reloaded::default());
        }
        answer.await.unwrap_or_else(|_| Ok(Reloaded::default()))
    }

    /// Counts a reload whose configuration could not be read or built.
    pub fn reload_failed(&self, problems: Vec<String>) {
        self.report.reload_failed(problems);
    }

    /// Saves the cache snapshot and the perimeter record, if they are configured.
    pub fn save_snapshot(&self) {
        self.perimeter_recorder.iter().for_each(WriterThread::save);
        match &self.snapshot_writer {
            Some(writer) => writer.save(),
            None => info!("no snapshot is configured"),
        }
    }

    /// Takes a sample of the state for the history. Returns all findings, the worst first.
    fn observe(&self) -> Vec<Finding> {
        self.report.observe(Moment::now())
    }

    /// Whether every worker has turned its loop lately.
    fn is_turning(&self) -> bool {
        self.report.is_turning(Moment::now())
    }

    /// Logs the overall state in one line.
    pub fn log_status(&self) {
        self.report.log_status(Moment::now());
    }

    /// Makes `/readyz` answer 503 from now on; queries are answered as before.
    pub fn drain(&self) {
        self.report.drain();
    }

    /// Sends every listening socket to the process that listens at `path` and takes over.
    fn hand_over(&self, path: &Path) -> io::Result<UnixStream> {
        handover::give(&self.listening, path)
    }

    /// From now on the listening sockets live on in a successor, and QUIC is not read any more: stop at once.
    fn outlived_by_sockets(&mut self) {
        self.socket_life = SocketLife::LivesOn;
        self.outlived.store(true, Relaxed);
    }

    /// Notes what the process before this one does now.
    fn predecessor_is(&self, state: Predecessor) {
        self.predecessor.send_replace(state);
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            Some(request) = self.orders.recv() => Event::Order(request),
            _ = self.ended.recv() => Event::ThreadEnded,
        }
    }

    /// Stops reading, answers what was received, and ends.
    pub fn stop(self) {
        self.drain();
        // Clients waiting for the result of an order learn at once that there will be none.
        drop(self.orders);
        self.outlived.store(self.socket_life == SocketLife::LivesOn, Relaxed);
        // If there is no receiver, every worker has already ended.
        self.stop.send_replace(true);
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "a worker ended: {error}"),
                Err(_) => warn!("a worker panicked"),
            }
        }
        drop(self.commands);
        if self.control.join().is_err() {
            warn!("the control thread panicked");
        }
        if let Some(writer) = self.snapshot_writer {
            writer.stop();
        }
        if let Some(writer) = self.dnstap {
            writer.stop();
        }
        if let Some(exporter) = self.otlp {
            exporter.stop();
        }
        if let Some(recorder) = self.perimeter_recorder {
            recorder.stop();
        }
    }
}

/// Raises the limit on open files as far as possible, and divides it.
fn share_descriptors(boot: &Boot, workers: usize) -> DescriptorBudget {
    let limit = raise_open_files().unwrap_or_else(|error| {
        warn!(%error, "the limit on open files stays as it is: {}", SystemError(&error));
        open_files()
    });
    let budget = DescriptorBudget::new(boot, workers, limit);
    if let Some(warning) = budget.warning() {
        warn!("{warning}");
    }
    budget
}

/// The number of workers: as configured, or one for each core that this process may use.
fn workers(boot: &Boot) -> Result<usize, StartError> {
    Ok(match boot.workers {
        Workers::Auto => allowed_cpus()?.len().max(1),
        Workers::Count(count) => usize::try_from(count.get()).unwrap_or(1),
    })
}

/// The listener of the operators' HTTP, and its address with the port that the kernel chose.
fn bind_admin(boot: &Boot, inherited: &mut Inherited) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let Some(endpoint) = &boot.admin_http else { return Ok(None) };
    let address = groups::resolve(endpoint).ok_or_else(|| StartError::NoInterface(endpoint.to_string()))?;
    let mut bind = || {
        let listener = match inherited.take_tcp(address)?.pop() {
            Some(listener) => listener,
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let explain = |error| StartError::Admin { address, source: BindError::explain(PortProtocol::Tcp, address, error) };
    bind().map(Some).map_err(explain)
}

/// A second descriptor of the operators' listener, for a successor. systemd does not store it: scrapes come again.
fn keep_admin(listener: &TcpListener, address: SocketAddr) -> io::Result<KeptSocket> {
    let descriptor = listener.as_fd().try_clone_to_owned()?;
    Ok(KeptSocket { name: format!("admin {address}"), origin: Origin::Own, descriptor })
}
