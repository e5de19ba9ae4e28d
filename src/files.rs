//! Opens files that the configuration names: regular files only, and without ever waiting.
//!
//! A FIFO without a writer holds up whoever opens it, a device may act on being opened, and a rename over either would
//! replace it. So the type of a file is checked before it is opened (symlinks are followed), and once more on the open
//! file.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::OFlags;

/// The largest file that is read, in octets: some millions of records, and a bound on what a wrong path costs.
const MAX_FILE: u64 = 1 << 30;

/// The folders that the sandbox lets this process read, once it is in force.
static ALLOWED: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// From now on, errors say that a file outside these folders needs a restart. The sandbox itself refuses access.
pub fn confine(folders: impl IntoIterator<Item = PathBuf>) {
    // A process has one sandbox, for good.
    drop(ALLOWED.set(folders.into_iter().collect()));
}

/// Opens a regular file for reading.
///
/// # Errors
/// It cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file_type = fs::metadata(path)?.file_type();
    require_regular(file_type)?;
    // A FIFO may have taken its place meanwhile; regular files do not care about the flag.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| explained(error, path))?;
    require_regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a regular file of at most 1 GiB.
///
/// # Errors
/// It cannot be read, is not a regular file, or is larger.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    // Room for all at once: a file of many millions of octets is not moved while it is read.
    let length = file.metadata()?.len().min(MAX_FILE);
    let mut octets = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 GiB"));
    }
    Ok(octets)
}

/// Reads a regular file of UTF-8.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Checks that a regular file may be put in place at `path`: one is there, or nothing is.
///
/// # Errors
/// Something else is there.
pub fn require_replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) => require_regular(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The error; in words if the sandbox caused it.
fn explained(error: io::Error, path: &Path) -> io::Error {
    let is_within = |folders: &Vec<PathBuf>| {
        fs::canonicalize(path).is_ok_and(|path| folders.iter().any(|folder| path.starts_with(folder)))
    };
    match ALLOWED.get() {
        Some(folders) if error.kind() == io::ErrorKind::PermissionDenied && !is_within(folders) => {
            let words = "it is outside the folders that were in use at the start, which server.sandbox holds to: it needs \
                         a restart";
            io::Error::new(io::ErrorKind::PermissionDenied, words)
        }
        _ => error,
    }
}

fn require_regular(file_type: FileType) -> io::Result<()> {
    let what = match file_type {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => "a directory",
        found if found.is_fifo() => "a FIFO",
        found if found.is_socket() => "a socket",
        found if found.is_char_device() || found.is_block_device() => "a device",
        _ => "something else",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    /// A folder with one thing of each kind, and links to them.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("directory")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
        assert!(made.success());
        drop(UnixListener::bind(path("socket")).unwrap());
        symlink("/dev/null", path("device")).unwrap();
        for name in ["file", "directory", "fifo", "socket", "device"] {
            symlink(name, path(&format!("link-to-{name}"))).unwrap();
        }
        symlink("nowhere", path("dangling")).unwrap();
        folder
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let folder = folder();
        for (name, what) in
            [("directory", "a directory"), ("fifo", "a FIFO"), ("socket", "a socket"), ("device", "a device")]
        {
            for name in [name.to_owned(), format!("link-to-{name}")] {
                let path = folder.path().join(&name);
                for error in [open(&path).unwrap_err(), require_replaceable(&path).unwrap_err()] {
                    assert_eq!(error.to_string(), format!("it is {what}, not a regular file"), "{name}");
                }
            }
        }
        for name in ["file", "link-to-file"] {
            let path = folder.path().join(name);
            assert_eq!(read_to_string(&path).unwrap(), "text");
            require_replaceable(&path).unwrap();
        }
        let dangling = folder.path().join("dangling");
        assert_eq!(read(&dangling).unwrap_err().kind(), io::ErrorKind::NotFound);
        require_replaceable(&dangling).unwrap();
    }
}
