//! Writes the perimeter record, on a thread of its own: a slow or full disk blocks nobody.
//!
//! The table of names is read once a minute, as `/api/v1/perimeter` reads it; the query path does not know the record.
//! Write errors are logged at most once in ten minutes, and the write is tried again together with newer data.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{info, warn};

use super::{StartError, report::Report};
use crate::{
    clock::{self, Moment},
    config::PerimeterRecord,
    engine::Engine,
    metrics::registry::VERSION,
    perimeter::record::Recorder,
};

/// An error is logged at most this often.
const WARN_EVERY: Duration = Duration::from_mins(10);

/// The thread. Stopping it writes what is new, and that the daemon ended in order.
#[derive(Debug)]
pub(super) struct PerimeterRecorder {
    orders: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl PerimeterRecorder {
    /// Starts the thread, which writes at once that the daemon has begun.
    pub(super) fn start(
        record: &PerimeterRecord,
        engine: &Arc<Engine>,
        report: &Arc<Report>,
    ) -> Result<Self, StartError> {
        let (orders, told) = mpsc::channel();
        let work = Work {
            folder: record.folder.clone(),
            recorder: Recorder::new(&record.folder, record.keep, VERSION),
            engine: Arc::clone(engine),
            report: Arc::clone(report),
            warned: None,
        };
        let run = move || work.run(&told);
        let thread = thread::Builder::new().name("perimeter".to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Self { orders, thread })
    }

    /// Writes the record now.
    pub(super) fn save(&self) {
        // If the thread is gone, it has logged why.
        self.orders.send(()).ok();
    }

    /// Writes what is new, and ends the thread.
    pub(super) fn stop(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            warn!("the thread that records the perimeter panicked");
        }
    }
}

/// Creates the folder before the sandbox could forbid it. Errors are reported when the record is written.
pub(super) fn make_folder(record: &PerimeterRecord) {
    drop(Recorder::make_folder(&record.folder));
}

struct Work {
    folder: PathBuf,
    recorder: Recorder,
    engine: Arc<Engine>,
    report: Arc<Report>,
    warned: Option<Moment>,
}

/// Why the record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// A minute has passed, or somebody asked.
    Minute,
    /// The daemon is ending.
    End,
}

impl Work {
    fn run(mut self, told: &mpsc::Receiver<()>) {
        self.write(Occasion::Minute);
        loop {
            match told.recv_timeout(Recorder::interval()) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => self.write(Occasion::Minute),
                Err(RecvTimeoutError::Disconnected) => return self.write(Occasion::End),
            }
        }
    }

    fn write(&mut self, occasion: Occasion) {
        let (live, hash) = self.report.configuration();
        self.recorder.configure(&hash, &live);
        let (seen, wall, now) = (self.engine.perimeter.report(), clock::wall().as_secs(), Moment::now());
        let written = match occasion {
            Occasion::Minute => self.recorder.append(&seen, wall),
            Occasion::End => self.recorder.stop(&seen, wall),
        };
        let folder = self.folder.display();
        match written {
            Ok(()) if self.warned.take().is_some() => info!(%folder, "the perimeter is recorded again in {folder}"),
            Ok(()) => {}
            Err(error) if self.warned.is_none_or(|last| now.since(last) >= WARN_EVERY) => {
                self.warned = Some(now);
                warn!(
                    %folder,
                    %error,
                    "the perimeter cannot be recorded in {folder}: {error}; it is tried again every minute, and the report \
                     will tell of the gap"
                );
            }
            Err(_) => {}
        }
    }
}
