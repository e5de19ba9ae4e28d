//! Listening sockets that outlive the process, so that a restart loses no query.
//!
//! Policy:
//! - systemd's descriptor store gets each socket that we bound ourselves (`FDSTORE=1`), once it is bound. What came from a
//!   socket unit or from the store is there already. systemd watches none of them (`FDPOLL=0`): an error on a socket is
//!   ours to read.
//! - A socket that was handed over and is no longer configured is closed, logged, and removed from the store.
//! - A successor (`serve --takeover`) asks for the sockets over the control socket and names a Unix socket to send them to.
//!   Both processes read until the successor says that it is ready; if it ends before that, this one simply goes on. QUIC
//!   is read by one of them alone: by the successor once this one has said that it reads no more (`serve::quic`).
//! - If the sockets live on, queries that wait for an upstream get [`HANDED_OVER_DRAIN`] instead of the full drain: new
//!   queries fill the receive buffers meanwhile, and clients retry what was not answered.

use std::{
    env, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::Path,
    time::Duration,
};

use tracing::{info, warn};

use super::listeners::{KeptSocket, Origin};
use crate::net::socket::{Inherited, Stranger, send_descriptors, send_with_descriptors};

/// How long queries in flight are waited for when the sockets live on.
pub(super) const HANDED_OVER_DRAIN: Duration = Duration::from_millis(300);
/// How long a successor may take to read its sockets.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// What a successor says once it serves.
pub(super) const READY: u8 = 1;
/// What it hears then: this process reads no more, and ends when it has answered.
pub(super) const DRAINING: u8 = 2;
/// How long a successor waits for that before it reads all the same.
pub(super) const DRAINING_TIMEOUT: Duration = Duration::from_secs(5);

/// What systemd or the process before this one handed over.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// Listening sockets.
    pub sockets: Inherited,
    /// The process before this one, which goes on until it hears that this one is ready; none where there is none.
    pub predecessor: Option<UnixStream>,
}

impl HandedOver {
    pub(super) const fn giver(&self) -> Giver {
        if self.predecessor.is_some() { Giver::Predecessor } else { Giver::Systemd }
    }
}

/// Whether the listening sockets outlive this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketLife {
    /// They close with it.
    Process,
    /// systemd or a successor has them.
    LivesOn,
}

/// Who handed sockets over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Giver {
    /// systemd, if anyone.
    Systemd,
    /// The process before this one.
    Predecessor,
}

/// Puts the sockets that systemd does not have yet into its store, and says whether all live on there.
pub(super) fn store(sockets: &[KeptSocket], giver: Giver) -> SocketLife {
    let is_new = |socket: &&KeptSocket| socket.origin == Origin::Own || giver == Giver::Predecessor;
    let own: Vec<&KeptSocket> = sockets.iter().filter(is_new).collect();
    if own.is_empty() && !sockets.is_empty() {
        return SocketLife::LivesOn;
    }
    for same in own.chunk_by(|a, b| a.name == b.name) {
        let descriptors: Vec<BorrowedFd<'_>> = same.iter().map(|socket| socket.descriptor.as_fd()).collect();
        // systemd takes as many at once as a message carries.
        for part in descriptors.chunks(128) {
            let message = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0\n", same[0].name);
            match tell(&message, part) {
                Ok(true) => {}
                Ok(false) => return SocketLife::Process,
                Err(error) => {
                    warn!(%error, "systemd did not take the listening sockets; a restart will close them: {error}");
                    return SocketLife::Process;
                }
            }
        }
    }
    SocketLife::LivesOn
}

/// Logs sockets that no listener uses, and removes them from systemd's store.
pub(super) fn dismiss(strangers: &[Stranger]) {
    for stranger in strangers {
        warn!("{stranger}");
        if let Err(error) = tell(&format!("FDSTOREREMOVE=1\nFDNAME={}\n", stranger.name), &[]) {
            warn!(%error, "systemd keeps the socket {:?}: {error}", stranger.name);
        }
    }
}

/// Sends the sockets to the successor that listens at `path`. The stream will say when it is ready.
pub(super) fn give(sockets: &[KeptSocket], path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(SEND_TIMEOUT))?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.descriptor.as_fd()).collect();
    send_descriptors(&stream, &descriptors)?;
    stream.set_nonblocking(true)?;
    info!("a process that takes over has the listening sockets; this one answers until that is ready");
    Ok(stream)
}

/// Sends a message with descriptors to systemd; false where there is none.
fn tell(message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(false) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    send_with_descriptors(&socket, message.as_bytes(), descriptors)?;
    Ok(true)
}
