//! `tidegate serve`: the server in the foreground, with its signals and its word to systemd.

use std::{
    path::{Path, PathBuf},
    pin::pin,
};

use sd_notify::NotifyState;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tracing::{error, info, warn};

use super::output::ERR;
use crate::{
    admin::control::{Account, Order, Request, Verdict},
    config::{Boot, Color, Flags, Live, Plan, Problems},
    daemon::{
        self, Daemon, Duty, Event, Reread, StartError,
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
            let color = if ERR.has_colour() { Color::Always } else { Color::Never };
            write!(ERR, "{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    let level = logging::start(plan.live.log_level, plan.boot.log_format);
    for line in plan.warnings.lines().chain(daemon::missing_upstreams(&plan.live, &plan.boot)) {
        warn!("{line}");
    }
    match serve(options, plan, &level) {
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
fn serve(options: &Options, plan: Plan, level: &LevelHandle) -> Result<i32, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Before the start, which may have a snapshot to read: signals that come meanwhile wait for its end.
    let [mut terminate, mut interrupt, mut hangup, mut save, mut status] = {
        let _runtime = runtime.enter();
        signals()?
    };
    let daemon = Daemon::start(&plan.boot, plan.live.clone())?;
    let mut running = Running { options, level, daemon, boot: plan.boot, live: plan.live };
    let code = runtime.block_on(async {
        info!("ready");
        tell(&[NotifyState::Ready, NotifyState::Status("answering")]);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => drop(running.reload().await),
                _ = save.recv() => running.daemon.save_snapshot(),
                _ = status.recv() => running.daemon.log_status(),
                event = running.daemon.next() => match event {
                    Event::Order(request) => running.answer(request).await,
                    Event::ThreadEnded => {
                        error!("a thread ended; the process ends with it");
                        return Ok(super::FAILED);
                    }
                },
            }
        }
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        running.daemon.drain();
        running.be_lame().await;
        Ok::<i32, std::io::Error>(super::OK)
    })?;
    running.daemon.stop();
    info!("stopped");
    Ok(code)
}

fn signals() -> std::io::Result<[Signal; 5]> {
    let (save, status) = (SignalKind::user_defined1(), SignalKind::user_defined2());
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), save, status];
    let [terminate, interrupt, hangup, save, status] = kinds.map(signal);
    Ok([terminate?, interrupt?, hangup?, save?, status?])
}

/// The daemon and what it was started with.
struct Running<'a> {
    options: &'a Options,
    level: &'a LevelHandle,
    daemon: Daemon,
    boot: Boot,
    live: Live,
}

impl Running<'_> {
    /// Answers, and takes orders, for as long as the configuration in force says.
    async fn be_lame(&mut self) {
        let mut end = pin!(sleep(self.live.lameduck));
        loop {
            tokio::select! {
                () = &mut end => return,
                event = self.daemon.next() => match event {
                    Event::Order(request) => self.answer(request).await,
                    Event::ThreadEnded => return,
                },
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        let verdict = self.carry_out(request.order).await;
        // Who asked may have gone.
        drop(request.reply.send(verdict));
    }

    async fn carry_out(&mut self, order: Order) -> Verdict {
        match order {
            Order::Reload => self.reload().await,
            Order::Drain(server) => self.daemon.set_duty(&server, Duty::Off),
            Order::Undrain(server) => self.daemon.set_duty(&server, Duty::On),
            Order::Flush(what) => Ok(self.daemon.flush(&what)),
            Order::Log(directives) => match logging::change(self.level, self.live.log_level, &directives) {
                Ok(()) => Ok(Account::new(vec![format!("logging {directives}")]).with("log", directives)),
                Err(error) => Err(Account::new(vec![error.to_string()])),
            },
        }
    }

    /// Reads the configuration again; says what changed, or why it was refused. systemd knows before whoever asked does:
    /// for `systemctl reload` it is over with our word to the one who asked.
    async fn reload(&mut self) -> Verdict {
        tell(&[NotifyState::Reloading]);
        let verdict = match self.replace().await {
            Ok(account) => {
                info!("reloaded");
                Ok(account)
            }
            Err(problems) => {
                for problem in &problems {
                    error!("{problem}");
                }
                let last = "the configuration was refused; the old one stays in force";
                warn!("{last}");
                let lines = problems.iter().cloned().chain([last.to_owned()]);
                Err(Account::new(lines.collect()).with("problems", problems))
            }
        };
        tell(&[NotifyState::Ready]);
        verdict
    }

    async fn replace(&mut self) -> Result<Account, Vec<String>> {
        let plan = self.options.plan().map_err(|problems| {
            let lines: Vec<String> = problems.lines().collect();
            self.daemon.reload_failed(lines.clone());
            lines
        })?;
        let missing = daemon::missing_upstreams(&plan.live, &plan.boot);
        let mut warnings: Vec<String> = plan.warnings.lines().chain(missing).collect();
        let restart = self.boot.differences(&plan.boot);
        let mut lines = warnings.clone();
        lines.extend(restart.iter().map(|key| format!("{key}: this change needs a restart")));
        for line in &lines {
            warn!("{line}");
        }
        let reread = self.daemon.reload(plan.live.clone()).await;
        let reread = reread.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let changes = changes(&self.live, &plan.live, &reread);
        lines.extend(reread.warnings.iter().cloned());
        warnings.extend(reread.warnings);
        if self.live.log_level != plan.live.log_level {
            logging::set(self.level, plan.live.log_level);
        }
        self.live = plan.live;
        lines.extend(if changes.is_empty() { vec!["nothing changed".to_owned()] } else { changes.clone() });
        Ok(Account::new(lines).with("changes", changes).with("restart", restart).with("warnings", warnings))
    }
}

/// What is another in the configuration, and in the files that it names.
fn changes(old: &Live, new: &Live, reread: &Reread) -> Vec<String> {
    let mut changes = old.changes(new);
    let zones = reread.zones.iter().map(|zone| format!("local zone {zone} changed"));
    let hosts = reread.hosts.then(|| "local_hosts.file changed".to_owned());
    for line in zones.chain(hosts) {
        if !changes.contains(&line) {
            changes.push(line);
        }
    }
    changes
}

/// Tells systemd, where there is one.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told");
    }
}
