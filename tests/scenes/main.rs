//! Paths to upstreams that break, and servers that misbehave: clients should notice nothing.

#[path = "../support/mod.rs"]
mod support;

mod bad_servers;
mod crowd;
mod cut;
mod flood;
mod guesses;
mod named_paths;
mod paths;
mod reload;

/// How long a test that can go on does so: five seconds, or `TIDEGATE_SOAK_SECONDS`.
fn soak_seconds() -> u64 {
    asked_for().unwrap_or(5)
}

/// Whether the figures that are promised are asked for, which take longer.
fn is_soak() -> bool {
    asked_for().is_some()
}

fn asked_for() -> Option<u64> {
    std::env::var("TIDEGATE_SOAK_SECONDS").ok()?.parse().ok()
}
