//! `tidegate serve`: the server in the foreground. Flags and file are read here, and again for each reload.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use tracing::{error, info, warn};

use super::{
    output::ERR,
    takeover::{self, TakeoverError},
};
use crate::{
    config::{Color, Plan, Problems, ServeFlags},
    daemon::{self, ExitReason, HandedOver, StartError, logging},
    net::{mmsg::inherited_descriptors, socket::Inherited},
};

/// The default configuration file.
pub(super) const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";

/// The advice if there is no file.
const SIDECAR_HELP: &str = "a sidecar needs no file: tidegate serve --listen 127.0.0.1:53 --aws 10.20.1.10,10.20.2.10 \
                            --private 10.20.0.0/16 --default system";

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
    /// Where all other names go: addresses, or "system" for the name servers in the host's resolv.conf, this tidegate
    /// itself left out. Private reverse names (10.in-addr.arpa and so on) go there too; without it all are REFUSED
    #[arg(long, env = "TIDEGATE_DEFAULT", value_name = "IP|system", value_delimiter = ',')]
    default: Vec<String>,
    /// Networks that addresses of AWS names must lie in
    #[arg(long, env = "TIDEGATE_PRIVATE", value_name = "CIDR", value_delimiter = ',')]
    private: Vec<String>,
    /// What becomes of other addresses: log, strip or refuse [default: refuse]
    #[arg(long, value_name = "ACTION")]
    on_public: Option<String>,
    /// Where the status page and metrics are, or "off" [default: 127.0.0.1:9153]
    #[arg(long, env = super::client::ADMIN_VARIABLE, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// The control socket for `reload`, `drain`, `flush` and `log`, or "off" [default: /run/tidegate/control.sock]
    #[arg(long, env = super::control::SOCKET_VARIABLE, value_name = "PATH|off")]
    socket: Option<String>,
    /// Take the listening sockets over from the daemon that runs, found by its control socket, which then ends: no query is
    /// lost. Where none runs, this is a start like any other
    #[arg(long)]
    takeover: bool,
}

impl Options {
    fn flags(&self) -> ServeFlags {
        ServeFlags {
            listen: self.listen.clone(),
            aws: self.aws.clone(),
            default: self.default.clone(),
            private: self.private.clone(),
            on_public: self.on_public.clone(),
            admin: self.admin.clone(),
            socket: self.socket.clone(),
        }
    }

    /// The plan of the file, or of the flags alone if they are sufficient.
    fn plan(&self) -> Result<Plan, Problems> {
        match &self.config {
            Some(file) => Plan::load_with(file, &self.flags()),
            None if self.is_sidecar() => Plan::from_flags(&self.flags()),
            None => Plan::load_with(Path::new(DEFAULT_FILE), &self.flags()),
        }
    }

    /// Whether the flags stand alone. A guard without servers and without a file means a sidecar that lacks a flag.
    fn is_sidecar(&self) -> bool {
        // `--aws "$AWS"` without a value says nothing.
        let is_given = |values: &[String]| values.iter().any(|value| !value.is_empty());
        let is_guarded = is_given(&self.private) || self.on_public.is_some();
        is_given(&self.aws) || is_given(&self.default) || (is_guarded && !Path::new(DEFAULT_FILE).exists())
    }
}

pub(super) fn run(options: &Options) -> i32 {
    // Before anything is opened, so that their numbers are theirs.
    let inherited = inherited_descriptors();
    let plan = match options.plan() {
        Ok(plan) => plan,
        Err(problems) => {
            let color = if ERR.has_colour() { Color::Always } else { Color::Never };
            write!(ERR, "{}", problems.render(color));
            if options.config.is_none() && !options.is_sidecar() && !Path::new(DEFAULT_FILE).exists() {
                writeln!(ERR, "{SIDECAR_HELP}");
            }
            return super::UNUSABLE;
        }
    };
    let log = logging::start(plan.live.log_level, plan.boot.log_format);
    for line in plan.warnings.lines().chain(daemon::missing_upstreams(&plan.live, &plan.boot)) {
        warn!("{line}");
    }
    let handed = match handed_over(options, plan.boot.admin_socket.as_deref(), inherited) {
        Ok(handed) => handed,
        Err(error) => {
            error!("{error}");
            return super::FAILED;
        }
    };
    match daemon::run(plan, handed, || options.plan(), &log) {
        Ok(ExitReason::Told) => super::OK,
        Ok(ExitReason::ThreadEnded) => super::FAILED,
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

/// The sockets of the daemon that runs, with `--takeover`; else those that systemd passed.
fn handed_over(
    options: &Options,
    control: Option<&Path>,
    inherited: io::Result<Vec<(OwnedFd, String)>>,
) -> Result<HandedOver, TakeoverError> {
    if options.takeover {
        match takeover::ask(control)? {
            Some(handed) => return Ok(handed),
            None => info!("--takeover: no daemon runs whose sockets could be taken over"),
        }
    }
    let descriptors = inherited.unwrap_or_else(|error| {
        warn!(%error, "the sockets that systemd passes are not used: LISTEN_FDS or LISTEN_FDNAMES is wrong: {error}");
        Vec::new()
    });
    Ok(HandedOver { sockets: Inherited::new(descriptors), predecessor: None })
}
