//! The daemon as a process: READY, signals, orders, reloads, and the drain at the end.
//!
//! Policy:
//! - SIGHUP and `tidegate reload` read the configuration with the caller's closure and put it into force, or keep the
//!   old one and say why. A change that needs a restart is reported and waits for the restart.
//! - SIGTERM or SIGINT starts the lame duck: `/readyz` is 503 while queries and orders are answered as before, for
//!   `server.lameduck`. A second signal ends the lame duck, but not the drain after it.
//! - A process started with `serve --takeover` gets the listening sockets; once it is ready, this one drains at once,
//!   without a lame duck.
//! - Findings are checked once a second: systemd's STATUS= follows each change, and there is a log line when a group
//!   loses its last usable server or gets one back.
//! - Once a second, systemd's watchdog (`WatchdogSec=`) hears that every worker turns or sleeps. A worker that hangs, or
//!   this thread, keeps the word back; systemd then kills the process and starts another, and the sockets stay open.

use std::{
    future::pending,
    io,
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    pin::pin,
};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    Daemon, Event, HandedOver, StartError, handover,
    headline::Headline,
    host::missing_upstreams,
    logging::{self, LevelHandle, Log},
    orders::Drain,
    sandbox,
};
use crate::{
    admin::control::{Order, OrderFacts, OrderReport, OrderRequest, OrderResult},
    config::{Boot, Live, Plan, Problems},
    serve::Predecessor,
    system_error::SystemError,
    zones::Zones,
};

/// How often findings are checked.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// Why the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// It was told to end.
    Told,
    /// A thread ended unexpectedly.
    ThreadEnded,
}

/// Runs until a signal or a successor ends it. `read` reads the configuration for a reload.
pub fn run(
    plan: Plan,
    handed: HandedOver,
    read: impl Fn() -> Result<Plan, Problems>,
    log: &Log,
) -> Result<ExitReason, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before the start, which may have to read a snapshot: signals received meanwhile wait until it is done.
    let (signals, ticks) = {
        let _runtime = runtime.enter();
        (Signals::catch()?, ticks())
    };
    let configuration: Vec<PathBuf> = files(&plan.warnings).into_iter().map(PathBuf::from).collect();
    let confine = |live: &Live, zones: &Zones| sandbox::enter(&configuration, &plan.boot, live, zones);
    let predecessor = handed.predecessor.as_ref().map(StdUnixStream::try_clone).transpose()?;
    let predecessor = {
        let _runtime = runtime.enter();
        PredecessorStream::new(predecessor)?
    };
    let daemon = Daemon::start_within(&plan.boot, plan.live, Some(log.lost.clone()), handed, confine)?;
    let mut running = Running {
        read,
        level: &log.level,
        daemon,
        boot: plan.boot,
        signals,
        ticks,
        headline: Headline::default(),
        is_watched: sd_notify::watchdog_enabled().is_some(),
        predecessor,
        successor: Successor(None),
    };
    let ended = runtime.block_on(running.until_the_end());
    running.daemon.stop();
    info!("stopped");
    Ok(ended)
}

fn ticks() -> Interval {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The signals that the daemon handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    save: Signal,
    status: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            save: signal(SignalKind::user_defined1())?,
            status: signal(SignalKind::user_defined2())?,
        })
    }
}

/// The daemon, and what is needed to run it.
struct Running<'a, R> {
    read: R,
    level: &'a LevelHandle,
    daemon: Daemon,
    boot: Boot,
    signals: Signals,
    ticks: Interval,
    headline: Headline,
    /// Whether systemd's watchdog waits for word from this process.
    is_watched: bool,
    /// The process before this one, until it is told that this one is ready.
    predecessor: PredecessorStream,
    successor: Successor,
}

/// The process before this one, until it has ended.
struct PredecessorStream {
    stream: Option<UnixStream>,
    /// When to go on as if it had said that it reads no more; none once it has.
    reads_until: Option<Instant>,
}

impl PredecessorStream {
    fn new(stream: Option<StdUnixStream>) -> io::Result<Self> {
        let open = |stream: StdUnixStream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        };
        Ok(Self { stream: stream.map(open).transpose()?, reads_until: None })
    }

    /// Tells it that it may end.
    async fn supersede(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if let Err(error) = stream.write_u8(handover::READY).await {
            let error = SystemError(&error);
            warn!(%error, "the daemon before this one was not told to end: {error}; stop it if it runs");
        }
        self.reads_until = Some(Instant::now() + handover::DRAINING_TIMEOUT);
    }

    /// Waits until it does something else.
    async fn next(&mut self) -> Predecessor {
        let Some(stream) = &mut self.stream else { return pending().await };
        let late = async {
            match self.reads_until {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        let said = tokio::select! {
            said = stream.read_u8() => said,
            () = late => Ok(handover::DRAINING),
        };
        self.reads_until = None;
        if let Ok(handover::DRAINING) = said {
            return Predecessor::Drains;
        }
        self.stream = None;
        Predecessor::Gone
    }
}

/// The process that has the listening sockets too and is not ready yet, if there is one.
struct Successor(Option<UnixStream>);

impl Successor {
    /// Waits until it is ready. One that ends before is forgotten.
    async fn ready(&mut self) {
        if let Some(stream) = &mut self.0 {
            if let Ok(handover::READY) = stream.read_u8().await {
                return;
            }
            warn!("the process that was to take over ended before it was ready; this one goes on");
            self.0 = None;
        }
        pending().await
    }

    /// Tells it that this process reads no more.
    async fn begin_drain(&mut self) {
        if let Some(stream) = &mut self.0
            && let Err(error) = stream.write_u8(handover::DRAINING).await
        {
            warn!(%error, "the process that took over was not told that it reads alone: {error}");
        }
    }
}

/// Why a phase of answering ended.
enum Step {
    Stop,
    Superseded,
    ThreadEnded,
}

impl<R: Fn() -> Result<Plan, Problems>> Running<'_, R> {
    async fn until_the_end(&mut self) -> ExitReason {
        info!("ready");
        tell(&[NotifyState::Ready]);
        self.predecessor.supersede().await;
        match self.answer_until(None).await {
            Some(Step::ThreadEnded) => {
                error!("a thread ended; the process ends with it");
                return ExitReason::ThreadEnded;
            }
            Some(Step::Superseded) => return self.give_way().await,
            Some(Step::Stop) | None => {}
        }
        tell(&[NotifyState::Stopping]);
        self.daemon.drain();
        let lameduck = self.daemon.live().lameduck;
        if !lameduck.is_zero() {
            info!("answering for another {} s, and not ready for more", lameduck.as_secs_f64());
        }
        match self.answer_until(Some(Instant::now() + lameduck)).await {
            Some(Step::Stop) => info!("a second signal to stop: not waiting for `lameduck` to pass"),
            Some(Step::Superseded) => return self.give_way().await,
            Some(Step::ThreadEnded) | None => {}
        }
        tell(&[NotifyState::Status("answering what was received, then it ends")]);
        ExitReason::Told
    }

    /// Stops reading what a successor reads too, and tells it.
    async fn give_way(&mut self) -> ExitReason {
        self.daemon.outlived_by_sockets();
        self.successor.begin_drain().await;
        ExitReason::Told
    }

    /// Handles signals and orders until one says to stop, or until `end`, if given.
    async fn answer_until(&mut self, end: Option<Instant>) -> Option<Step> {
        let end = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        let mut end = pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return None,
                _ = self.signals.terminate.recv() => return Some(Step::Stop),
                _ = self.signals.interrupt.recv() => return Some(Step::Stop),
                _ = self.signals.hangup.recv() => drop(self.reload().await),
                _ = self.signals.save.recv() => self.daemon.save_snapshot(),
                _ = self.signals.status.recv() => self.daemon.log_status(),
                _ = self.ticks.tick() => {
                    self.look();
                    self.feed_watchdog();
                }
                () = self.successor.ready() => {
                    info!("another process took over; this one ends");
                    return Some(Step::Superseded);
                }
                state = self.predecessor.next() => self.daemon.predecessor_is(state),
                event = self.daemon.next() => match event {
                    Event::Order(request) => self.answer(request).await,
                    Event::ThreadEnded => return Some(Step::ThreadEnded),
                },
            }
        }
    }

    /// Samples the state for the history; reports changed findings to systemd and the log.
    fn look(&mut self) {
        if let Some(status) = self.headline.update(&self.daemon.observe()) {
            tell(&[NotifyState::Status(&status)]);
        }
    }

    /// Tells systemd's watchdog that the process works, if it does.
    fn feed_watchdog(&self) {
        if self.is_watched && self.daemon.is_turning() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    async fn answer(&mut self, request: OrderRequest) {
        let verdict = self.carry_out(request.order).await;
        self.look();
        // The sender may be gone.
        drop(request.reply.send(verdict));
    }

    async fn carry_out(&mut self, order: Order) -> OrderResult {
        match order {
            Order::Reload => self.reload().await,
            Order::Drain(server) => self.daemon.set_drained(&server, Drain::Begin),
            Order::Undrain(server) => self.daemon.set_drained(&server, Drain::End),
            Order::Flush(what) => Ok(self.daemon.flush(&what)),
            Order::Log(directives) => match logging::change(self.level, self.daemon.live().log_level, &directives) {
                Ok(()) => {
                    let report = OrderReport::new(vec![format!("logging {directives}")]);
                    Ok(report.with(OrderFacts { log: Some(directives), ..OrderFacts::default() }))
                }
                Err(error) => Err(OrderReport::new(vec![error.to_string()])),
            },
            Order::HandOver(path) => self.hand_over(&path),
        }
    }

    fn hand_over(&mut self, path: &Path) -> OrderResult {
        let refused = |line: String| Err(OrderReport::new(vec![line]));
        if self.successor.0.is_some() {
            return refused("another process is taking over already".to_owned());
        }
        match self.daemon.hand_over(path).and_then(UnixStream::from_std) {
            Ok(stream) => {
                self.successor.0 = Some(stream);
                Ok(OrderReport::new(vec!["the listening sockets were handed over".to_owned()]))
            }
            Err(error) => {
                let (path, error) = (path.display(), SystemError(&error));
                refused(format!("the listening sockets cannot be sent to {path}: {error}"))
            }
        }
    }

    /// Reads the configuration again and returns what changed, or why it was refused. systemd is told before the sender
    /// of the order: for `systemctl reload` the reload is over when the sender has its answer.
    async fn reload(&mut self) -> OrderResult {
        // Type=notify-reload requires the time with the message.
        let time = NotifyState::monotonic_usec_now().ok();
        tell(&[NotifyState::Reloading].into_iter().chain(time).collect::<Vec<_>>());
        let read = (self.read)();
        let files = files(read.as_ref().map_or_else(|problems| problems, |plan| &plan.warnings));
        let verdict = match self.replace(read).await {
            Ok(mut report) => {
                info!("reloaded");
                report.facts.files = Some(files);
                Ok(report)
            }
            Err(problems) => {
                for problem in &problems {
                    error!("{problem}");
                }
                let last = "the configuration was refused; the old one stays in force";
                warn!("{last}");
                let lines = problems.iter().cloned().chain([last.to_owned()]);
                let report = OrderReport::new(lines.collect());
                Err(report.with(OrderFacts { problems: Some(problems), files: Some(files), ..OrderFacts::default() }))
            }
        };
        tell(&[NotifyState::Ready]);
        self.look();
        verdict
    }

    async fn replace(&mut self, read: Result<Plan, Problems>) -> Result<OrderReport, Vec<String>> {
        let plan = read.map_err(|problems| {
            let lines: Vec<String> = problems.lines().collect();
            self.daemon.reload_failed(lines.clone());
            lines
        })?;
        let missing = missing_upstreams(&plan.live, &plan.boot);
        let mut warnings: Vec<String> = plan.warnings.lines().chain(missing).collect();
        let restart = self.boot.differences(&plan.boot);
        let mut lines = warnings.clone();
        lines.extend(restart.iter().map(|key| format!("{key}: this change needs a restart")));
        for line in &lines {
            warn!("{line}");
        }
        let before = self.daemon.live().log_level;
        let reloaded = self.daemon.reload(plan.live).await;
        let reloaded = reloaded.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let changes = reloaded.changes;
        lines.extend(reloaded.warnings.iter().cloned());
        warnings.extend(reloaded.warnings);
        let after = self.daemon.live().log_level;
        if before != after {
            logging::set(self.level, after);
        }
        lines.extend(changes.iter().cloned());
        if changes.is_empty() && restart.is_empty() {
            lines.push("nothing changed".to_owned());
        }
        let facts = OrderFacts {
            changes: Some(changes),
            restart: Some(restart.into_iter().map(str::to_owned).collect()),
            warnings: Some(warnings),
            ..OrderFacts::default()
        };
        Ok(OrderReport::new(lines).with(facts))
    }
}

/// The files that a configuration was read from, by their full names.
fn files(problems: &Problems) -> Vec<String> {
    let full =
        |name: &str| std::fs::canonicalize(name).map_or_else(|_| name.to_owned(), |path| path.display().to_string());
    problems.files().map(full).collect()
}

/// Notifies systemd, if it runs this process.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told: {error}");
    }
}
