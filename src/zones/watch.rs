//! Whether a file that was read is still what it was: its inode, size and time of change, without reading it again.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{clock, files};

/// A file that changed in this many seconds before it was read is read again whenever that is asked for.
const YOUNG: u64 = 2;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Of the inode: it moves on where a tool sets the time of modification back.
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

    /// Whether the file changed so lately that another change may leave the same stamp: the clock of a file system
    /// ticks slowly.
    fn is_young(&self) -> bool {
        let now = clock::wall().as_secs();
        u64::try_from(self.changed.0).is_ok_and(|changed| now.saturating_sub(changed) < YOUNG)
    }

    /// The state of a file now; none if there is none.
    fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// Files and the state each was in.
#[derive(Debug, Clone, Default)]
pub struct FileWatch {
    files: Vec<(PathBuf, Option<FileStamp>)>,
    /// Whether a file was so young when it was read that its next change may bear the same stamp.
    is_unsettled: bool,
}

impl FileWatch {
    /// Whether a file changed, came or went since it was read.
    pub fn changed(&self) -> bool {
        self.files.iter().any(|(path, stamp)| *stamp != FileStamp::now(path))
    }

    /// Whether what was read is what the files hold now, beyond doubt.
    pub(super) fn is_current(&self) -> bool {
        !self.is_unsettled && !self.changed()
    }

    /// Adds the files of another.
    pub(super) fn extend(&mut self, other: &Self) {
        self.files.extend(other.files.iter().cloned());
        self.is_unsettled |= other.is_unsettled;
    }

    /// Takes the present state of every file as known, and tells whether it was not: a file that turned bad is tried
    /// once, not at every poll.
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

    /// Reads a file whole, and knows its state from before the reading: a change during it counts as one.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let stamp = FileStamp::now(path);
        self.is_unsettled |= stamp.is_some_and(|stamp| stamp.is_young());
        self.files.push((path.to_owned(), stamp));
        files::read(path)
    }
}

/// A file's text without the marks that Windows puts around it: a byte order mark in front, an end-of-file mark behind.
pub(super) fn plain(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.strip_suffix(b"\x1a").unwrap_or(text)
}
