//! `tidegate presets`.

use serde_json::json;

use super::output::OUT;
use crate::config::{PRESETS, PUBLIC_ONLY, PresetDomain};

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> i32 {
    if options.json {
        let presets: Vec<_> = PRESETS
            .iter()
            .map(|preset| json!({ "name": preset.name, "about": preset.about, "families": families(preset.families) }))
            .collect();
        writeln!(OUT, "{}", json!({ "presets": presets, "public_only": families(PUBLIC_ONLY) }));
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

fn families(families: &[PresetDomain]) -> Vec<serde_json::Value> {
    families.iter().map(|family| json!({ "domain": family.domain, "about": family.about })).collect()
}

fn print_families(families: &[PresetDomain]) {
    for family in families {
        writeln!(OUT, "  {:<30} {}", family.domain, family.about);
    }
    writeln!(OUT);
}
