//! `tidegate presets`.

use schemars::JsonSchema;
use serde::Serialize;

use super::output::{OUT, print_json};
use crate::config::{PRESETS, PUBLIC_ONLY, Preset, PresetDomain};

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The document of `--json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PresetsDocument {
    /// Every preset.
    presets: &'static [Preset],
    /// Families in no preset, since they exist in public only.
    public_only: &'static [PresetDomain],
}

pub(super) fn run(options: &Options) -> i32 {
    if options.json {
        print_json(&PresetsDocument { presets: PRESETS, public_only: PUBLIC_ONLY });
        return super::OK;
    }
    for preset in PRESETS {
        writeln!(OUT, "preset:{}  {}", preset.name, preset.about);
        print_families(preset.families);
    }
    writeln!(OUT, "in no preset, public only");
    print_families(PUBLIC_ONLY);
    super::OK
}

fn print_families(families: &[PresetDomain]) {
    for family in families {
        writeln!(OUT, "  {:<30} {}", family.domain, family.about);
    }
    writeln!(OUT);
}
