//! `tidegate serve`: the server in the foreground, with its signals and its word to systemd.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tracing::{error, info, warn};

use crate::{
    config::{Color, Flags, LogLevel, Plan, Problems},
    daemon::{
        Daemon, StartError,
        logging::{self, LevelHandle},
    },
};

/// Where the configuration is looked for.
pub(super) const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";

/// Flags beat environment variables, which beat the file.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// The configuration file [default: /etc/tidegate/tidegate.toml, unless --aws or --default is given]
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Addresses to listen on
    #[arg(long, env = "TIDEGATE_LISTEN", value_name = "ADDR:PORT", value_delimiter = ',')]
    listen: Vec<String>,
    /// Addresses of the inbound endpoint: AWS names go there
    #[arg(long, env = "TIDEGATE_AWS", value_name = "IP", value_delimiter = ',')]
    aws: Vec<String>,
    /// Where all other names go: addresses, or "system" for the host's own name servers
    #[arg(long, env = "TIDEGATE_DEFAULT", value_name = "IP|system", value_delimiter = ',')]
    default: Vec<String>,
    /// Networks that addresses of AWS names must lie in
    #[arg(long, env = "TIDEGATE_PRIVATE", value_name = "CIDR", value_delimiter = ',')]
    private: Vec<String>,
    /// What becomes of other addresses: log, strip or refuse [default: refuse]
    #[arg(long, value_name = "ACTION")]
    on_public: Option<String>,
}

impl Options {
    fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone(),
            aws: self.aws.clone(),
            default: self.default.clone(),
            private: self.private.clone(),
            on_public: self.on_public.clone(),
        }
    }

    /// The plan of the file, or of the flags alone where they say all that a file must.
    fn plan(&self) -> Result<Plan, Problems> {
        let is_sidecar = !self.aws.is_empty() || !self.default.is_empty();
        match &self.config {
            Some(file) => Plan::load_with(file, &self.flags()),
            None if is_sidecar => Plan::from_flags(&self.flags()),
            None => Plan::load_with(Path::new(DEFAULT_FILE), &self.flags()),
        }
    }
}

pub(super) fn run(options: &Options) -> i32 {
    let plan = match options.plan() {
        Ok(plan) => plan,
        Err(problems) => {
            let color = if super::colour(&std::io::stderr()) { Color::Always } else { Color::Never };
            eprint!("{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    let log = logging::start(plan.live.log_level, plan.boot.log_format);
    for line in plan.warnings.lines() {
        warn!("{line}");
    }
    match serve(options, plan, &log) {
        Ok(code) => code,
        Err(StartError::Zones(problems)) => {
            for problem in problems {
                error!("{problem}");
            }
            super::UNUSABLE
        }
        Err(error) => {
            error!("{}", super::with_causes(&error));
            super::FAILED
        }
    }
}

/// Runs until a signal ends it; gives the exit code.
fn serve(options: &Options, plan: Plan, log: &LevelHandle) -> Result<i32, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before anything takes its time: a reload that is asked for during the start must wait, and not end it.
    let mut signals = runtime.block_on(async { Signals::catch() })?;
    let boot = plan.boot;
    let mut lameduck = plan.live.lameduck;
    let mut daemon = Daemon::start(&boot, plan.live)?;
    let code = runtime.block_on(async {
        info!("ready");
        tell(&[NotifyState::Ready, NotifyState::Status("answering")]);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hangup.recv() => {
                    if let Some(settings) = reload(options, &daemon, &boot).await {
                        lameduck = settings.lameduck;
                        // Who logs elsewhere (tests) has a log without this handle.
                        drop(log.reload(logging::filter(settings.log_level)));
                    }
                }
                _ = signals.save.recv() => daemon.save_snapshot(),
                () = daemon.thread_ended() => {
                    error!("a thread ended; the process ends with it");
                    return super::FAILED;
                }
            }
        }
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        daemon.drain();
        sleep(lameduck).await;
        super::OK
    });
    daemon.stop();
    info!("stopped");
    Ok(code)
}

/// What the process listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    save: Signal,
}

impl Signals {
    /// From now on they are caught. Within a runtime.
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            save: signal(SignalKind::user_defined1())?,
        })
    }
}

/// What this file minds of a configuration that came into force.
struct Settings {
    lameduck: Duration,
    log_level: LogLevel,
}

/// Brings the file into force as it is now; none if it is refused.
async fn reload(options: &Options, daemon: &Daemon, boot: &crate::config::Boot) -> Option<Settings> {
    tell(&[NotifyState::Reloading]);
    let settings = try_reload(options, daemon, boot).await;
    match &settings {
        Some(_) => info!("reloaded"),
        None => warn!("the configuration was refused; the old one stays in force"),
    }
    tell(&[NotifyState::Ready]);
    settings
}

async fn try_reload(options: &Options, daemon: &Daemon, boot: &crate::config::Boot) -> Option<Settings> {
    let plan = match options.plan() {
        Ok(plan) => plan,
        Err(problems) => {
            for line in problems.lines() {
                error!("{line}");
            }
            daemon.reload_failed();
            return None;
        }
    };
    for line in plan.warnings.lines() {
        warn!("{line}");
    }
    for key in boot.differences(&plan.boot) {
        warn!(key, "this change needs a restart");
    }
    let settings = Settings { lameduck: plan.live.lameduck, log_level: plan.live.log_level };
    match daemon.reload(plan.live).await {
        Ok(()) => Some(settings),
        Err(problems) => {
            for problem in problems {
                error!("{problem}");
            }
            None
        }
    }
}

/// Tells systemd, where there is one.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told");
    }
}
