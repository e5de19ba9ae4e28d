//! The configuration as users meet it: example files, every kind of mistake by its message, defaults, includes, flags.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod cookies;
mod encrypted;
mod examples;
mod flags;
mod guard;
mod includes;
mod meaning;
mod mistakes;
mod presets;
mod reference;
mod schema;
mod servers;
mod warned;

use tidegate::config::{Plan, Problems};

/// A valid beginning for texts that test one thing.
const BASE: &str =
    "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[[forward]]\nzones = [\".\", \"reverse:private\"]\nto = \"vpc\"\n";

fn plan(text: &str) -> Plan {
    match Plan::from_text("t.toml", text) {
        Ok(plan) => plan,
        Err(problems) => panic!("{problems}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    match Plan::from_text("t.toml", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.lines().collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    plan(text).warnings.lines().collect()
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.lines().collect()
}
