//! `tidegate serve`: the server in the foreground. What flags and file say is read here, and again for each reload.

use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::output::ERR;
use crate::{
    config::{Color, Plan, Problems, ServeFlags},
    daemon::{self, ExitReason, StartError, logging},
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
    fn flags(&self) -> ServeFlags {
        ServeFlags {
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
    let log = logging::start(plan.live.log_level, plan.boot.log_format);
    for line in plan.warnings.lines().chain(daemon::missing_upstreams(&plan.live, &plan.boot)) {
        warn!("{line}");
    }
    match daemon::run(plan, || options.plan(), &log) {
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
