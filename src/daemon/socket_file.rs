//! The control socket's file: its permissions, what happens to an existing one, and its removal at the end.
//!
//! Policy:
//! - The file is open only to owner and group from the first moment, whatever the umask: the kernel creates it with the
//!   socket's mode at the time of binding, less the umask, and the remaining bits are added afterwards.
//! - A file left behind by a dead process is replaced; that of a running one, or anything but a socket, never is. The
//!   check does not wait for the other process, so one that hangs cannot block the start.
//! - A daemon that takes over replaces the file of the running one, which keeps the connections it has.
//! - At the end only our own file is removed. Somebody may have put another in its place.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use crate::system_error::SystemError;

/// The file's mode: owner and group may give orders.
const MODE: u32 = 0o660;
/// Connections that the kernel keeps until we accept them.
const BACKLOG: i32 = 64;

/// The bound socket's file; removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode. No other file can have both as long as the socket is open.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // No harm if it stays: the next start replaces it.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// What to do with the file of a running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupied {
    /// Leave it and fail.
    Refuse,
    /// Replace it.
    Replace,
}

/// Binds the control socket. On failure this is logged, and the daemon runs without it.
pub(super) fn bind(path: &Path, occupied: Occupied) -> Option<(UnixListener, SocketFile)> {
    match try_bind(path, occupied) {
        Ok(bound) => Some(bound),
        Err(error) => {
            let path = path.display();
            warn!(
                %path,
                %error,
                "no control socket at {path}: {}; without one `reload`, `drain`, `flush` and `log` cannot reach this \
                 daemon: {}, or name another file or switch it off: `socket` in [admin], or --socket PATH or --socket off",
                reason(&error),
                advice(&error)
            );
            None
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not make a file there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        _ => SystemError(error).to_string(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the other daemon",
        _ => "make a folder that this user may write to",
    }
}

fn try_bind(path: &Path, occupied: Occupied) -> io::Result<(UnixListener, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        if occupied == Occupied::Refuse && is_alive(&address)? {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there"));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&address)?;
    // From here on the file is ours, and is removed if anything fails.
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

/// Whether a process listens there: a socket that a dead process left behind refuses connections.
fn is_alive(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => Ok(true),
        // Its queue is full, because it is busy or hangs.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_hangs_with_a_full_queue_is_alive_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let hanging = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        hanging.bind(&address).unwrap();
        hanging.listen(0).unwrap();
        let queued = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        queued.connect(&address).unwrap();
        assert_eq!(try_bind(&path, Occupied::Refuse).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn only_our_own_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let (_listener, file) = try_bind(&path, Occupied::Refuse).unwrap();
        fs::remove_file(&path).unwrap();
        let (_other, others) = try_bind(&path, Occupied::Refuse).unwrap();
        drop(file);
        assert!(path.exists(), "it is another's now");
        drop(others);
        assert!(!path.exists());
    }

    #[test]
    fn a_daemon_that_takes_over_has_the_file_and_the_one_before_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let (_listener, before) = try_bind(&path, Occupied::Refuse).unwrap();
        let (_next, _file) = try_bind(&path, Occupied::Replace).unwrap();
        drop(before);
        assert!(path.exists());
    }

    #[test]
    fn files_that_are_not_our_socket_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(try_bind(&path, Occupied::Refuse).is_err() && path.exists());
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(try_bind(&link, Occupied::Refuse).is_err() && link.is_symlink());
        assert!(try_bind(&folder.path().join("x".repeat(200)), Occupied::Refuse).is_err(), "longer than an address");
        assert!(try_bind(folder.path(), Occupied::Refuse).is_err());
    }
}
