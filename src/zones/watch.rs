//! Tells whether a file has changed since it was read, by its inode, size and times, without reading it again.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{clock, files};

/// A file that changed less than this many seconds before it was read is read again at every reload.
const YOUNG: u64 = 2;

/// Identifies one state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// The inode's change time, which moves on even if a tool resets the modification time.
    changed: (i64, i64),
}

impl FileStamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file changed so recently that another change could leave the same stamp: file system clocks are
    /// coarse.
    fn is_young(&self) -> bool {
        let now = clock::wall().as_secs();
        u64::try_from(self.changed.0).is_ok_and(|changed| now.saturating_sub(changed) < YOUNG)
    }

    /// The state of a file now; none if there is none.
    fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// Files and the state in which each was read.
#[derive(Debug, Clone, Default)]
pub struct FileWatch {
    files: Vec<(PathBuf, Option<FileStamp>)>,
    /// Whether a file had changed so recently that its next change could leave the same stamp.
    is_unsettled: bool,
}

impl FileWatch {
    /// Whether a file changed, came or went since it was read.
    pub fn changed(&self) -> bool {
        self.files.iter().any(|(path, stamp)| *stamp != FileStamp::now(path))
    }

    /// Whether the files are certainly unchanged.
    pub(super) fn is_current(&self) -> bool {
        !self.is_unsettled && !self.changed()
    }

    /// Adds the files of another.
    pub(super) fn extend(&mut self, other: &Self) {
        self.files.extend(other.files.iter().cloned());
        self.is_unsettled |= other.is_unsettled;
    }

    /// Whether a file changed since the last poll. Its new state counts as known afterwards, so that a file that became
    /// invalid is tried once, not at every poll.
    pub fn poll(&mut self) -> bool {
        let mut changed = false;
        for (path, stamp) in &mut self.files {
            let now = FileStamp::now(path);
            changed |= *stamp != now;
            *stamp = now;
        }
        changed
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Reads a whole file. Its state is taken before reading, so that a change while reading counts as a change.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let stamp = FileStamp::now(path);
        self.is_unsettled |= stamp.is_some_and(|stamp| stamp.is_young());
        self.files.push((path.to_owned(), stamp));
        files::read(path)
    }
}

/// The text without the marks that Windows programs add: a byte order mark in front, an end-of-file mark at the end.
pub(super) fn plain(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.strip_suffix(b"\x1a").unwrap_or(text)
}
