//! Waiting for a condition, for a bounded time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time limit for anything that must happen, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The real time: tests watch processes from outside.
#[expect(clippy::disallowed_methods, reason = "a test times other processes; no clock of theirs can be faked")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds, at most [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
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
