//! `tidegate version`.

use schemars::JsonSchema;
use serde::Serialize;

use super::output::{OUT, print_json};
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

/// The document of `--json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VersionDocument {
    /// The version.
    version: &'static str,
    /// The commit; empty if it is not known.
    revision: &'static str,
    /// Why the commit is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision_unknown: Option<&'static str>,
    /// The compiler.
    rustc: &'static str,
    /// The Cargo features.
    features: Vec<&'static str>,
}

pub(super) fn run(options: &Options) -> i32 {
    let is_known = REVISION_UNKNOWN.is_empty();
    let features: Vec<&str> = FEATURES.split(',').filter(|feature| !feature.is_empty()).collect();
    if options.json {
        let revision_unknown = (!is_known).then_some(REVISION_UNKNOWN);
        print_json(&VersionDocument { version: VERSION, revision: REVISION, revision_unknown, rustc: RUSTC, features });
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
