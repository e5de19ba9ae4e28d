//! What every test binary builds on: the `tidegate` process, upstreams that follow a script, a small DNS client, real
//! DNS servers and `dig` from Debian, and namespaces of their own.
//!
//! All of it works on loopback and on ports that the kernel picks. Whatever waits, waits for a condition and for a
//! bounded time; nothing sleeps to let something happen.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses the part that it needs")]

pub mod authority;
pub mod client;
pub mod config;
pub mod encrypted;
pub mod namespace;
pub mod peers;
pub mod query;
pub mod records;
pub mod script;
pub mod tidegate;
pub mod upstream;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The real time: tests watch processes from outside.
#[expect(clippy::disallowed_methods, reason = "a test times other processes; no clock of theirs can be faked")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds, at most [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `look` finds something, at most [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
