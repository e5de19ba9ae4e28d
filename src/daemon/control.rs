//! The control thread: everything that is not a query. It owns the configuration in force.

use std::{net::TcpListener, os::unix::net::UnixListener, rc::Rc, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{error, info, warn};

use super::{StartError, report::Report, state::Reloaded, state::State, worker::EndNotice};
use crate::{
    admin::{self, control::OrderRequest},
    clock::Moment,
    config::Live,
    net::changes::{NetworkChange, NetworkChanges},
    system_error::SystemError,
    upstream::{
        self, UpstreamClient,
        loops::{self, watch::Timing},
        prober, resolution, system,
    },
    zones::ZoneError,
};

/// How often files with local data are polled.
const WATCH: Duration = Duration::from_secs(2);

/// Commands to the control thread.
pub(super) enum Command {
    /// Put this configuration into force.
    Reload(Box<Live>, oneshot::Sender<Result<Reloaded, Vec<ZoneError>>>),
}

/// Starts the thread. It ends when the sender of commands is gone, or one of its tasks ends; `end` is told of it.
pub(super) fn spawn(
    state: State,
    workers: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    report: Arc<Report>,
    listeners: AdminListeners,
    end: mpsc::UnboundedSender<()>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let run = move || {
        let _notice = EndNotice(end);
        // Not a LocalSet: waking its tasks costs a system call each time.
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "the control thread cannot run: {}", SystemError(&error)),
        };
        runtime.block_on(async {
            listeners.serve(&report);
            control(state, workers, commands, &report).await;
            report.close_live_pages().await;
        });
    };
    thread::Builder::new().name("control".to_owned()).spawn(run).map_err(StartError::Thread)
}

/// Listeners for operators: HTTP and the control socket.
pub(super) struct AdminListeners {
    /// Status page, metrics and health.
    pub http: Option<TcpListener>,
    /// Connections over HTTP at a time.
    pub connections: usize,
    /// The control socket.
    pub socket: Option<UnixListener>,
    /// Receives the orders of the control socket.
    pub order: mpsc::Sender<OrderRequest>,
}

impl AdminListeners {
    fn serve(self, report: &Arc<Report>) {
        match self.http.map(tokio::net::TcpListener::from_std).transpose() {
            Ok(Some(listener)) => {
                drop(tokio::task::spawn_local(admin::serve(listener, report.pages(), self.connections)))
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "no status page and no metrics: {}", SystemError(&error)),
        }
        match self.socket.map(tokio::net::UnixListener::from_std).transpose() {
            Ok(Some(listener)) => {
                drop(tokio::task::spawn_local(admin::control::serve(listener, self.order, report.pages())))
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "no control socket: {}", SystemError(&error)),
        }
    }
}

async fn control(mut state: State, workers: usize, mut commands: mpsc::UnboundedReceiver<Command>, report: &Report) {
    let upstream_client = Rc::new(UpstreamClient::new(upstream::WorkerNumber { index: workers, count: workers + 1 }));
    let mut tasks = JoinSet::new();
    tasks.spawn_local(prober::run(Rc::clone(&upstream_client), state.targets(), state.alarm()));
    let loops = Arc::clone(&state.engine.loops);
    tasks.spawn_local(loops::watch::run(upstream_client, loops, state.loop_targets(), Timing::default()));
    let renamed = Arc::new(Notify::new());
    tasks.spawn_local(resolution::run(
        state.ours(),
        state.names(),
        Arc::clone(&renamed),
        resolution::RefreshTiming::default(),
    ));
    let mut system = system::ResolvConfWatch::new(state.system_files(), state.ours());
    let mut zones = state.zones().watch().clone();
    let mut wall = crate::clock::WallWatch::default();
    let mut network = NetworkWatch::start();
    let mut ticks = interval_at(Instant::now() + WATCH, WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Reload(live, reply)) => {
                    let result = state.replace(*live);
                    match &result {
                        Ok(reloaded) => report.reloaded(&state.live, reloaded.changes.clone()),
                        Err(problems) => report.reload_failed(lines(problems)),
                    }
                    system = system::ResolvConfWatch::new(state.system_files(), state.ours());
                    zones = state.zones().watch().clone();
                    // The sender may be gone; the configuration is in force all the same.
                    drop(reply.send(result));
                }
            },
            // Without probes, nobody knows which servers answer.
            Some(_) = tasks.join_next() => return,
            () = renamed.notified() => state.rebuild(),
            changes = network.next() => report.network_changed(&changes),
            _ = ticks.tick() => {
                wall.look();
                state.forget(Moment::now());
                if system.check() == system::Changes::Servers {
                    state.rebuild();
                }
                state.poll_certificate(Moment::now());
                if zones.poll() && reread(&mut state, report) {
                    zones = state.zones().watch().clone();
                }
            }
        }
    }
}

/// Changes of addresses, routes and links; reports none if there is no netlink.
struct NetworkWatch(Option<NetworkChanges>);

impl NetworkWatch {
    fn start() -> Self {
        Self(NetworkChanges::listen().inspect_err(|error| warn!("changes of the network are not heard: {error}")).ok())
    }

    async fn next(&mut self) -> Vec<NetworkChange> {
        if let Some(changes) = &mut self.0 {
            match changes.next().await {
                Ok(changes) => return changes,
                Err(error) => warn!("changes of the network are not heard any more: {error}"),
            }
            self.0 = None;
        }
        std::future::pending().await
    }
}

/// Reads local files again; true if they could be used. Errors are logged once: the watch is not renewed until the files
/// change again.
fn reread(state: &mut State, report: &Report) -> bool {
    let result = state.reread_zones();
    match &result {
        Ok(changes) => {
            info!(
                "local files were read again: {}",
                if changes.is_empty() { "nothing changed".into() } else { changes.join(", ") }
            );
            report.reloaded(&state.live, changes.clone());
        }
        Err(problems) => {
            report.reload_failed(lines(problems));
            for problem in problems {
                warn!(%problem, "a changed local file was refused, the old one stays in force: {problem}");
            }
        }
    }
    result.is_ok()
}

fn lines(problems: &[ZoneError]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::Cache,
        config::Plan,
        daemon::{listeners::Bound, state::Startup},
        metrics,
        serve::connections::Connections,
        upstream::{Alarm, OwnAddresses},
    };

    const TEXT: &str = "[upstream.site]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n";

    #[test]
    fn the_end_of_the_thread_is_told() {
        let plan = Plan::from_text("t.toml", TEXT).unwrap();
        let rules = Arc::new(metrics::RuleRegistry::new(1));
        let state = State::new(
            plan.live,
            Startup::default(),
            Cache::new(0),
            Arc::clone(&rules),
            OwnAddresses::new([]),
            Arc::<Alarm>::default(),
        )
        .unwrap();
        let (engine, connections) = (Arc::clone(&state.engine), Connections::new(1, 1));
        let report = Report::new(Vec::new(), rules, engine, connections, Arc::default(), &Bound::default(), &state);
        let (commands, told) = mpsc::unbounded_channel();
        let (end, mut ended) = mpsc::unbounded_channel();
        let listeners = AdminListeners { http: None, connections: 1, socket: None, order: mpsc::channel(1).0 };
        let thread = spawn(state, 1, told, Arc::new(report), listeners, end).unwrap();
        assert!(ended.try_recv().is_err(), "it goes on");
        drop(commands);
        thread.join().unwrap();
        assert!(ended.try_recv().is_ok(), "whoever waits for threads hears of it");
    }
}
