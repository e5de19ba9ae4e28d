//! The process's own settings in the kernel: cores and open files.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Room for this many cores; the kernel's own limit is 8192.
const CORES: usize = 8192;
const WORD: usize = u64::BITS as usize;
type Cores = [u64; CORES / WORD];

/// The cores that this thread may run on, in ascending order.
///
/// # Errors
/// The kernel refuses to say.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut cores: Cores = [0; CORES / WORD];
    // SAFETY: the mask is alive and as long as said; the call writes no more than that.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<Cores>(), cores.as_mut_ptr().cast()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..CORES).filter(|core| cores[core / WORD] >> (core % WORD) & 1 == 1).collect())
}

/// Whether something keeps the system clock in step with others: `STA_UNSYNC` is clear (adjtimex(2)).
///
/// # Errors
/// The kernel does not say.
pub fn clock_is_synchronized() -> io::Result<bool> {
    // SAFETY: `timex` holds integers alone, for which all zeroes are values.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is alive and writable; with `modes` 0 the call changes nothing but it.
    if unsafe { libc::adjtimex(&raw mut state) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state.status & libc::STA_UNSYNC == 0)
}

/// Binds the calling thread to one core.
///
/// # Errors
/// There is no such core, or the process may not use it.
pub fn pin_to_cpu(core: usize) -> io::Result<()> {
    let mut cores: Cores = [0; CORES / WORD];
    let Some(word) = cores.get_mut(core / WORD) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    *word = 1 << (core % WORD);
    // SAFETY: the mask is alive and as long as said; the call only reads it.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<Cores>(), cores.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit of open files as far as this process may, and returns it. Descriptors are used by poll and never
/// by `select`, which is why the default is lower than the most.
///
/// # Errors
/// The kernel refuses.
pub fn raise_open_files() -> io::Result<u64> {
    let most = most_open_files();
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    Ok(most.unwrap_or(u64::MAX))
}

/// The limit of open files in force.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The limit of open files that this process may raise its own to; none where there is no limit.
pub fn most_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_thread_may_use_one_core() {
        std::thread::spawn(|| {
            let core = *allowed_cpus().unwrap().last().unwrap();
            pin_to_cpu(core).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn core_that_is_not_there_is_an_error() {
        assert!(pin_to_cpu(CORES - 1).is_err());
        assert!(pin_to_cpu(CORES).is_err());
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        let limit = raise_open_files().unwrap();
        assert!(limit >= 1024);
        assert_eq!(raise_open_files().unwrap(), limit);
    }
}
