//! `tidegate check`: the whole start without opening a listening socket.

use std::path::PathBuf;

use super::output::{ERR, OUT};
use crate::{
    config::{self, Color, Plan},
    daemon,
};

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file [default: TIDEGATE_CONFIG, else /etc/tidegate/tidegate.toml]
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as other verbs take it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints every default instead
    #[arg(long)]
    defaults: bool,
}

impl Options {
    fn file(&self) -> PathBuf {
        let named = self.file.clone().or_else(|| self.config.clone());
        let variable = || super::variable("TIDEGATE_CONFIG").map(PathBuf::from);
        named.or_else(variable).unwrap_or_else(|| super::serve::DEFAULT_FILE.into())
    }
}

pub(super) fn run(options: &Options) -> i32 {
    if options.defaults {
        write!(OUT, "{}", config::defaults());
        return super::OK;
    }
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let plan = match Plan::load(&options.file()) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(ERR, "{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    write!(ERR, "{}", plan.warnings.render(color));
    let missing = daemon::missing_listeners(&plan.boot).into_iter().chain(daemon::few_descriptors(&plan.boot));
    let missing = missing.chain(daemon::undiscoverable(&plan.live, &plan.boot));
    for line in missing.chain(daemon::missing_upstreams(&plan.live, &plan.boot)) {
        writeln!(ERR, "warning: {line}");
    }
    let delegations = match daemon::build_zones(&plan.live, None) {
        Ok(zones) => {
            zones.warnings().for_each(|warning| writeln!(ERR, "warning: {warning}"));
            if !zones.errors().is_empty() {
                zones.errors().iter().for_each(|error| writeln!(ERR, "{error}"));
                return super::UNUSABLE;
            }
            daemon::delegation_plans(&plan.live, &zones)
        }
        Err(errors) => {
            errors.iter().for_each(|error| writeln!(ERR, "{error}"));
            return super::UNUSABLE;
        }
    };
    write!(OUT, "{}", plan.routing_table());
    delegations.iter().for_each(|delegation| writeln!(OUT, "{delegation}"));
    super::OK
}
