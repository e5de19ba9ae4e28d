//! Configuration text: it is a plan, or every problem is told at its place; a plan can be built into what serves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::{
    config::{Color, Plan},
    daemon::build_zones,
};

fuzz_target!(|text: &str| {
    // Files that a text names are no part of it, and some never end.
    if ["include", "/dev", "/proc", "/sys"].iter().any(|word| text.contains(word)) {
        return;
    }
    match Plan::from_text("fuzz.toml", text) {
        Ok(plan) => {
            assert!(plan.boot.differences(&plan.boot).is_empty());
            if let Err(problems) = build_zones(&plan.live, None) {
                assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
            }
        }
        Err(problems) => assert!(!problems.render(Color::Never).is_empty()),
    }
});
