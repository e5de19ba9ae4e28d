//! `tidegate check`: the whole start without opening a socket.

use std::path::PathBuf;

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
        print!("{}", config::defaults());
        return super::OK;
    }
    let color = if super::colour(&std::io::stderr()) { Color::Always } else { Color::Never };
    let plan = match Plan::load(&options.file) {
        Ok(plan) => plan,
        Err(problems) => {
            eprint!("{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    eprint!("{}", plan.warnings.render(color));
    if let Err(problems) = daemon::build_zones(&plan.live) {
        for problem in problems {
            eprintln!("{problem}");
        }
        return super::UNUSABLE;
    }
    print!("{}", plan.routing_table());
    super::OK
}
