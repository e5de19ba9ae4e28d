//! Descriptors that systemd passed to this process (sd_listen_fds(3)).

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// True once they were taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the descriptors of `LISTEN_FDS` with their names, if `LISTEN_PID` is this process. A second call finds none.
///
/// Call it before the process opens anything, so that the numbers cannot be those of its own descriptors.
///
/// # Errors
/// The variables contradict each other or the descriptors that are open.
pub fn inherited_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    if TAKEN.swap(true, Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    // SAFETY: each number is open, as `listen_fds_with_names` has just set its flags; whoever set LISTEN_PID to this very
    // process gave it to us; and nothing else here owns it, since they are taken once and before anything is opened.
    Ok(passed.map(|(number, name)| (unsafe { OwnedFd::from_raw_fd(number) }, name)).collect())
}
