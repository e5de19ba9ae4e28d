//! Whether a file that was read is still what it was: its inode, size and time of change, without reading it again.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The largest file that is read, in octets: some millions of records, and a bound on what a wrong path costs.
const MAX_FILE: u64 = 1 << 30;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// The state of a file now; none if there is none.
    fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// Files and the state each was in.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

impl Watch {
    /// Whether a file changed, came or went since it was read.
    pub fn changed(&self) -> bool {
        self.files.iter().any(|(path, stamp)| *stamp != Stamp::now(path))
    }

    /// Takes the present state of every file as known, and tells whether it was not: a file that turned bad is tried
    /// once, not at every poll.
    pub fn poll(&mut self) -> bool {
        let mut changed = false;
        for (path, stamp) in &mut self.files {
            let now = Stamp::now(path);
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
        let stamp = Stamp::now(path);
        self.files.push((path.to_owned(), stamp));
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 GiB"));
        }
        Ok(text)
    }
}
