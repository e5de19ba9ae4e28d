//! Writes the perimeter record, on a [thread](WriterThread) of its own.
//!
//! The table of names is read once a minute, as `/api/v1/perimeter` reads it; the query path does not know the record.
//! Write errors are logged at most once in ten minutes, and the write is tried again together with newer data.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{
    StartError,
    report::Report,
    writer_thread::{Occasion, WriterThread},
};
use crate::{
    clock::{self, Moment},
    config::PerimeterRecord,
    engine::Engine,
    metrics::registry::VERSION,
    perimeter::record::Recorder,
    system_error::SystemError,
};

/// An error is logged at most this often.
const WARN_EVERY: Duration = Duration::from_mins(10);

/// Starts the thread. The record begins at once, so that it says since when the daemon runs.
pub(super) fn start(
    record: &PerimeterRecord,
    engine: &Arc<Engine>,
    report: &Arc<Report>,
) -> Result<WriterThread, StartError> {
    let mut work = Work {
        folder: record.folder.clone(),
        recorder: Recorder::new(&record.folder, record.keep, VERSION),
        engine: Arc::clone(engine),
        report: Arc::clone(report),
        warned: None,
    };
    let thread = WriterThread::start("perimeter", Recorder::interval(), move |occasion| work.write(occasion))?;
    thread.save();
    Ok(thread)
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

impl Work {
    fn write(&mut self, occasion: Occasion) {
        let (live, hash) = self.report.configuration();
        self.recorder.configure(&hash, &live);
        let (seen, wall, now) = (self.engine.perimeter.report(), clock::wall().as_secs(), Moment::now());
        let written = match occasion {
            Occasion::Interval | Occasion::Request => self.recorder.append(&seen, wall),
            Occasion::End => self.recorder.stop(&seen, wall),
        };
        let folder = self.folder.display();
        match written {
            Ok(()) if self.warned.take().is_some() => info!(%folder, "the perimeter is recorded again in {folder}"),
            Ok(()) => {}
            Err(error) if self.warned.is_none_or(|last| now.since(last) >= WARN_EVERY) => {
                self.warned = Some(now);
                let error = SystemError(&error);
                warn!(
                    %folder,
                    %error,
                    "the perimeter cannot be recorded in {folder}: {error}; it is tried again every minute, and the report \
                     will list the gap"
                );
            }
            Err(_) => {}
        }
    }
}
