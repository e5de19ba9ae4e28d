//! The cache snapshot file: read before the first answer, written by a [thread](WriterThread) of its own.
//!
//! The file is written under another name, synced and renamed, so that a crash leaves the old one or the new one.
//! Errors with the file or its folder are logged at most once a minute and counted; they prevent neither the start nor
//! answers. A file that cannot be trusted is moved to `FILE.rejected`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tracing::{info, warn};

use super::{
    StartError,
    writer_thread::{Occasion, WriterThread},
};
use crate::{
    cache::snapshot::SnapshotError,
    clock::{self, Moment},
    engine::Engine,
    files,
    metrics::counter::SharedCounter,
    plural::Plural,
    system_error::SystemError,
};

/// How often the file is written if anything changed.
const EVERY: Duration = Duration::from_secs(30);
/// How often the same error is logged.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Size of reads and writes.
const BUFFER: usize = 256 << 10;

/// State of the snapshot file, for the report.
#[derive(Debug, Default)]
pub(super) struct SnapshotStatus {
    /// When the file was last written, in microseconds of [`Moment`]; 0 = never.
    written: AtomicU64,
    /// How often it could not be written, or was rejected.
    pub(super) errors: SharedCounter,
}

impl SnapshotStatus {
    /// The file's age; none before there is one.
    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        let written = self.written.load(Relaxed);
        (written > 0).then(|| now.since(Moment::from_micros(written)))
    }

    fn set_written(&self, moment: Moment) {
        self.written.store(moment.micros(), Relaxed);
    }
}

/// Reads the file, and starts the thread that writes it.
pub(super) fn start(
    path: &Path,
    engine: &Arc<Engine>,
    snapshot_status: &Arc<SnapshotStatus>,
) -> Result<WriterThread, StartError> {
    // The file behind a symlink is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    restore(path, engine, snapshot_status);
    let mut work = Work {
        path: path.to_owned(),
        engine: Arc::clone(engine),
        snapshot_status: Arc::clone(snapshot_status),
        as_written: Contents::of(engine),
        warned: None,
    };
    WriterThread::start("snapshot", EVERY, move |occasion| match occasion {
        Occasion::Request => work.save(),
        Occasion::Interval | Occasion::End => work.save_changes(),
    })
}

fn restore(path: &Path, engine: &Engine, snapshot_status: &SnapshotStatus) {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return info!(path = %path.display(), "no snapshot yet at {}", path.display());
        }
        Err(error) => {
            snapshot_status.errors.add(1);
            let error = SystemError(&error);
            return warn!(
                path = %path.display(),
                %error,
                "the snapshot cannot be opened; the cache starts empty: {}: {error}",
                path.display()
            );
        }
    };
    let now = Moment::now();
    match engine.restore(BufReader::with_capacity(BUFFER, file), now, clock::wall().as_secs()) {
        Ok(restored) => {
            snapshot_status.set_written(now - Duration::from_secs(restored.age));
            let (entries, left_out, age) = (restored.entries, restored.left_out, restored.age);
            info!(
                path = %path.display(),
                entries,
                left_out,
                age,
                "snapshot read: {}, {left_out} left out, {age} s old",
                Plural(entries, "entry")
            );
        }
        Err(damage) => {
            snapshot_status.errors.add(1);
            warn!(
                path = %path.display(),
                %damage,
                "the snapshot is not used; the cache starts empty: {}: {damage}",
                path.display()
            );
            leave_aside(path, &damage);
        }
    }
}

/// Moves a rejected file aside, so that the next write does not overwrite what an operator may want to examine.
fn leave_aside(path: &Path, damage: &SnapshotError) {
    if !matches!(damage, SnapshotError::Io(_))
        && let Err(error) = fs::rename(path, beside(path, "rejected"))
    {
        let error = SystemError(&error);
        warn!(path = %path.display(), %error, "the snapshot cannot be left aside: {}: {error}", path.display());
    }
}

/// A cheap summary of the cache, to see whether anything changed since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contents {
    inserts: u64,
    entries: usize,
}

impl Contents {
    fn of(engine: &Engine) -> Self {
        let stats = engine.cache.stats();
        Self { inserts: stats.inserts, entries: stats.entries }
    }
}

struct Work {
    path: PathBuf,
    engine: Arc<Engine>,
    snapshot_status: Arc<SnapshotStatus>,
    as_written: Contents,
    warned: Option<Moment>,
}

impl Work {
    fn save_changes(&mut self) {
        if Contents::of(&self.engine) != self.as_written {
            self.save();
        }
    }

    fn save(&mut self) {
        let (contents, now) = (Contents::of(&self.engine), Moment::now());
        match write(&self.path, &self.engine, now) {
            Ok(entries) => {
                (self.as_written, self.warned) = (contents, None);
                self.snapshot_status.set_written(now);
                tracing::debug!(path = %self.path.display(), entries, "snapshot written");
            }
            Err(error) => {
                self.snapshot_status.errors.add(1);
                if self.warned.is_none_or(|last| now.since(last) >= WARN_EVERY) {
                    self.warned = Some(now);
                    let (path, error) = (self.path.display(), SystemError(&error));
                    warn!(%path, %error, "the snapshot cannot be written; the old one stays: {path}: {error}");
                }
            }
        }
    }
}

fn write(path: &Path, engine: &Engine, now: Moment) -> io::Result<u32> {
    files::require_replaceable(path)?;
    let aside = beside(path, "new");
    // A crash may have left one behind. A symlink of that name must not be followed.
    drop(fs::remove_file(&aside));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = fill(file, engine, now).and_then(|entries| fs::rename(&aside, path).map(|()| entries));
    if written.is_err() {
        drop(fs::remove_file(&aside));
        return written;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()?;
    written
}

fn fill(file: File, engine: &Engine, now: Moment) -> io::Result<u32> {
    let out = BufWriter::with_capacity(BUFFER, file);
    let (out, entries) = engine.save(out, now, clock::wall().as_secs())?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(entries)
}

/// The file's name with an extension appended.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
