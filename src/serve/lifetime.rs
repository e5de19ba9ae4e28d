//! When a worker's listeners begin and end, also where their sockets outlive the process (`daemon::handover`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::watch;

/// The process before this one, from which the sockets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// It reads them too.
    Reads,
    /// It answers what it has read.
    Drains,
    /// It has ended, or there was none.
    Gone,
}

/// What listeners are told of the process they belong to. Clones are told the same.
#[derive(Debug, Clone)]
pub struct ListenerLife {
    /// Becomes true when reading stops.
    pub stop: watch::Receiver<bool>,
    /// Becomes true after the stop, when what still waits is given up.
    pub cut: watch::Receiver<bool>,
    /// True from right before the stop if another process has the sockets then.
    pub outlived: Arc<AtomicBool>,
    /// The process before this one.
    pub predecessor: watch::Receiver<Predecessor>,
}

impl ListenerLife {
    /// Whether reading has stopped, or is about to, and another process has the sockets.
    pub(super) fn is_outlived(&self) -> bool {
        self.outlived.load(Relaxed)
    }
}
