//! `tidegate version`.

use serde_json::json;

use super::output::OUT;
use crate::metrics::registry::{REVISION, RUSTC, VERSION};

/// Why the commit is not known; empty where it is.
const REVISION_UNKNOWN: &str = env!("TIDEGATE_REVISION_UNKNOWN");
/// The Cargo features, separated by commas.
const FEATURES: &str = env!("TIDEGATE_FEATURES");

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> i32 {
    let is_known = REVISION_UNKNOWN.is_empty();
    let features: Vec<&str> = FEATURES.split(',').filter(|feature| !feature.is_empty()).collect();
    if options.json {
        let mut document = json!({ "version": VERSION, "revision": REVISION, "rustc": RUSTC, "features": features });
        if !is_known {
            document["revision_unknown"] = REVISION_UNKNOWN.into();
        }
        writeln!(OUT, "{document}");
        return super::OK;
    }
    writeln!(OUT, "tidegate {VERSION}");
    match is_known {
        true => writeln!(OUT, "commit   {REVISION}"),
        false => writeln!(OUT, "commit   unknown: {REVISION_UNKNOWN}"),
    }
    writeln!(OUT, "rustc    {RUSTC}");
    writeln!(OUT, "features {}", if features.is_empty() { "none".to_owned() } else { features.join(", ") });
    super::OK
}
