//! A thread that writes a file at intervals, on request and at the end, so that a slow or full disk blocks nobody: the
//! cache's snapshot and the perimeter's record.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::warn;

use super::StartError;

/// Why a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The interval has passed.
    Interval,
    /// Somebody asked.
    Request,
    /// The daemon is ending.
    End,
}

/// The thread, until [`WriterThread::stop`].
#[derive(Debug)]
pub(super) struct WriterThread {
    requests: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl WriterThread {
    /// Starts the thread, which calls `write` on each occasion.
    pub(super) fn start(
        name: &str,
        interval: Duration,
        mut write: impl FnMut(Occasion) + Send + 'static,
    ) -> Result<Self, StartError> {
        let (requests, requested) = mpsc::channel();
        let run = move || {
            loop {
                match requested.recv_timeout(interval) {
                    Ok(()) => write(Occasion::Request),
                    Err(RecvTimeoutError::Timeout) => write(Occasion::Interval),
                    Err(RecvTimeoutError::Disconnected) => return write(Occasion::End),
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Self { requests, thread })
    }

    /// Has the file written now.
    pub(super) fn save(&self) {
        // If the thread is gone, `stop` says so.
        self.requests.send(()).ok();
    }

    /// Has the file written a last time, and waits for that.
    pub(super) fn stop(self) {
        drop(self.requests);
        let name = self.thread.thread().name().unwrap_or_default().to_owned();
        if self.thread.join().is_err() {
            warn!("the {name} thread panicked");
        }
    }
}
