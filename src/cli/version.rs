//! `tidegate version`.

use serde_json::json;

use super::output::OUT;

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> i32 {
    let version = env!("CARGO_PKG_VERSION");
    let revision = option_env!("TIDEGATE_REVISION").unwrap_or("unknown");
    if options.json {
        writeln!(OUT, "{}", json!({ "version": version, "revision": revision, "features": [] }));
    } else {
        writeln!(OUT, "tidegate {version} ({revision})");
    }
    super::OK
}
