//! `tidegate check`: the whole start without opening a socket.

use std::path::PathBuf;

use super::output::{ERR, OUT};
use crate::{
    config::{self, Color, Plan},
    daemon,
};

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(default_value = super::serve::DEFAULT_FILE)]
    file: PathBuf,
    /// Prints every default instead
    #[arg(long)]
    defaults: bool,
}

pub(super) fn run(options: &Options) -> i32 {
    if options.defaults {
        write!(OUT, "{}", config::defaults());
        return super::OK;
    }
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let plan = match Plan::load(&options.file) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(ERR, "{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    write!(ERR, "{}", plan.warnings.render(color));
    if let Err(problems) = daemon::build_zones(&plan.live) {
        for problem in problems {
            writeln!(ERR, "{problem}");
        }
        return super::UNUSABLE;
    }
    write!(OUT, "{}", plan.routing_table());
    super::OK
}
