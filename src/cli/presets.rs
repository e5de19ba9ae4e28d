//! `tidegate presets`.

use serde_json::json;

use crate::config::{Family, PRESETS, PUBLIC_ONLY};

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
        println!("{}", json!({ "presets": presets, "public_only": families(PUBLIC_ONLY) }));
        return super::OK;
    }
    for preset in PRESETS {
        println!("preset:{}  {}", preset.name, preset.about);
        print_families(preset.families);
    }
    println!("in no preset, public only");
    print_families(PUBLIC_ONLY);
    super::OK
}

fn families(families: &[Family]) -> Vec<serde_json::Value> {
    families.iter().map(|family| json!({ "domain": family.domain, "about": family.about })).collect()
}

fn print_families(families: &[Family]) {
    for family in families {
        println!("  {:<30} {}", family.domain, family.about);
    }
    println!();
}
