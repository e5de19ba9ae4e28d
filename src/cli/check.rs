//! `tidegate check`: everything a start does, except opening listening sockets.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use super::output::{ERR, OUT};
use crate::{
    config::{self, Color, Plan},
    daemon::{self, Now},
    plural::Plural,
};

/// Intended if clients ask only for AWS names here, so `serve` does not log it.
const REFUSES_THE_REST: &str = "no rule has \".\": names that no zone covers are REFUSED. To have the site's DNS answer \
                                them, write a [[forward]] table with zones = [\".\"]";

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file [default: TIDEGATE_CONFIG, else /etc/tidegate/tidegate.toml]
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration file, as other verbs take it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Resolves the servers that are given by name, and prints their addresses
    #[arg(long)]
    resolve: bool,
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

/// The problems found so far.
#[derive(Default)]
struct Found {
    errors: usize,
    warnings: usize,
}

impl Found {
    fn error(&mut self, line: &dyn Display) {
        self.errors += 1;
        writeln!(ERR, "error: {line}");
    }

    fn warning(&mut self, line: &dyn Display) {
        self.warnings += 1;
        writeln!(ERR, "warning: {line}");
    }

    /// Prints the number of problems, if any, and whether the file can be used.
    fn conclude(&self, file: &Path) -> i32 {
        let counts = [(self.errors, "error"), (self.warnings, "warning")].into_iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, noun)| Plural(count, noun).to_string()).collect();
        let verdict = if self.errors > 0 { "it cannot be used" } else { "it can be used" };
        if !counts.is_empty() {
            writeln!(ERR, "\n{}: {}; {verdict}", file.display(), counts.join(", "));
        }
        if self.errors > 0 { super::UNUSABLE } else { super::OK }
    }
}

pub(super) fn run(options: &Options) -> i32 {
    if options.defaults {
        write!(OUT, "{}", config::defaults());
        return super::OK;
    }
    let mut found = Found::default();
    let file = options.file();
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let plan = match Plan::load(&file) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(ERR, "{}", problems.render(color));
            found.errors = problems.len();
            return found.conclude(&file);
        }
    };
    write!(ERR, "{}", plan.warnings.render(color));
    found.warnings = plan.warnings.len();
    let missing = daemon::missing_listeners(&plan.boot).into_iter().chain(daemon::few_descriptors(&plan.boot));
    let missing = missing.chain(daemon::undiscoverable(&plan.live, &plan.boot));
    missing.chain(daemon::missing_upstreams(&plan.live, &plan.boot)).for_each(|line| found.warning(&line));
    let zones = match daemon::build_zones(&plan.live, None) {
        Ok(zones) => {
            zones.warnings().for_each(|warning| found.warning(&warning));
            zones.errors().iter().for_each(|error| found.error(error));
            zones
        }
        Err(errors) => {
            errors.iter().for_each(|error| found.error(error));
            return found.conclude(&file);
        }
    };
    if found.errors == 0 {
        if found.warnings > 0 {
            writeln!(ERR);
        }
        if plan.live.refuses_the_rest() {
            writeln!(ERR, "note: {REFUSES_THE_REST}\n");
        }
        plan.write_routing_table(|piece| OUT.write(piece.as_bytes()));
        daemon::delegation_plans(&plan.live, &zones).iter().for_each(|delegation| writeln!(OUT, "{delegation}"));
    }
    if found.errors == 0 {
        name_lines(options, &plan, &mut found);
    }
    found.conclude(&file)
}

/// Prints the addresses of servers that are given by name, with `--resolve`; otherwise which servers will be asked for
/// them.
fn name_lines(options: &Options, plan: &Plan, found: &mut Found) {
    let now = if options.resolve { Now::Resolve } else { Now::Tell };
    for name in daemon::resolve_names(&plan.live, &plan.boot, now) {
        match name {
            Ok(line) => writeln!(OUT, "{line}"),
            Err(line) => found.warning(&line),
        }
    }
}
