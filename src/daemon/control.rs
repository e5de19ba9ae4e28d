//! The control thread: everything that is not a question. It owns the configuration in force.

use std::{net::TcpListener, os::unix::net::UnixListener, rc::Rc, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{info, warn};

use super::{
    StartError,
    report::Report,
    state::{Reread, State},
};
use crate::{
    admin::{self, control::Request},
    config::Live,
    upstream::{
        self, Courier,
        loops::{self, watch::Timing},
        prober, system,
    },
    zones::ZoneProblem,
};

/// How often files that answers come from are looked at.
const WATCH: Duration = Duration::from_secs(2);

/// What the control thread can be told.
pub(super) enum Command {
    /// Bring this into force.
    Reload(Box<Live>, oneshot::Sender<Result<Reread, Vec<ZoneProblem>>>),
}

/// Starts the thread. It ends when the sender of commands is gone.
pub(super) fn spawn(
    state: State,
    workers: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    report: Arc<Report>,
    doors: Doors,
) -> Result<thread::JoinHandle<()>, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        LocalSet::new().block_on(&runtime, async {
            doors.open(&report);
            control(state, workers, commands, &report).await;
        });
    };
    thread::Builder::new().name("control".to_owned()).spawn(run).map_err(StartError::Thread)
}

/// Where operators come in.
pub(super) struct Doors {
    /// To look.
    pub http: Option<TcpListener>,
    /// To give orders,
    pub socket: Option<UnixListener>,
    /// which go here.
    pub order: mpsc::Sender<Request>,
}

impl Doors {
    fn open(self, report: &Arc<Report>) {
        match self.http.map(tokio::net::TcpListener::from_std).transpose() {
            Ok(Some(listener)) => drop(tokio::task::spawn_local(admin::serve(listener, report.pages()))),
            Ok(None) => {}
            Err(error) => warn!(%error, "no admin server"),
        }
        match self.socket.map(tokio::net::UnixListener::from_std).transpose() {
            Ok(Some(listener)) => drop(tokio::task::spawn_local(admin::control::serve(listener, self.order))),
            Ok(None) => {}
            Err(error) => warn!(%error, "no control socket"),
        }
    }
}

async fn control(mut state: State, workers: usize, mut commands: mpsc::UnboundedReceiver<Command>, report: &Report) {
    let courier = Rc::new(Courier::new(upstream::Worker { index: workers, count: workers + 1 }));
    tokio::task::spawn_local(prober::run(Rc::clone(&courier), state.targets(), state.alarm()));
    let loops = Arc::clone(&state.engine.loops);
    tokio::task::spawn_local(loops::watch::run(courier, loops, state.loop_targets(), Timing::default()));
    let mut system = system::Watch::new(state.system_files(), state.ours());
    let mut zones = state.zones().watch().clone();
    let mut ticks = interval_at(Instant::now() + WATCH, WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Reload(live, reply)) => {
                    let result = state.replace(*live);
                    match &result {
                        Ok(_) => report.reloaded(&state.live),
                        Err(_) => report.reload_failed(),
                    }
                    system = system::Watch::new(state.system_files(), state.ours());
                    zones = state.zones().watch().clone();
                    // Who asked may have gone; the configuration is in force all the same.
                    drop(reply.send(result));
                }
            },
            _ = ticks.tick() => {
                if system.check() == system::Changes::Servers {
                    state.rebuild();
                }
                if zones.poll() && reread(&mut state, report) {
                    zones = state.zones().watch().clone();
                }
            }
        }
    }
}

/// Whether the files could be used. Bad ones are said once: their watch is not renewed until they change again.
fn reread(state: &mut State, report: &Report) -> bool {
    let result = state.reread_zones();
    match &result {
        Ok(()) => {
            info!("zone files changed and were read again");
            report.reloaded(&state.live);
        }
        Err(problems) => {
            report.reload_failed();
            for problem in problems {
                warn!(%problem, "a changed zone file was refused; the old one stays in force");
            }
        }
    }
    result.is_ok()
}
