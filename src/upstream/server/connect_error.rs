//! Why a connection to a server failed, kept for operators.
//!
//! A firewall on this host that drops outgoing connections looks like a silent server: Linux does not report the EPERM
//! of a SYN but sends it again, until the time-out. A firewall that rejects them looks like a closed port. For
//! datagrams the EPERM is reported.

use std::io;

use crate::{
    system_error::{ErrorCause, SystemError},
    tls,
};

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// A network error on this side or an ICMP error from the far host.
    #[error("{0}")]
    Network(ErrorCause),
    /// A local error: no descriptor, memory, port or permission, or the source address is gone. The server is not to
    /// blame.
    #[error("this host cannot: {}", SystemError(&io::Error::from_raw_os_error(*code)))]
    Local {
        /// The error of the system call.
        code: i32,
    },
    /// The connection, handshake included, did not open within the group's time-out.
    #[error("no connection within the time-out")]
    Slow,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] tls::HandshakeError),
    /// The server answered HTTP with this status code.
    #[error("it answers with HTTP status {0}")]
    Status(u16),
    /// The server does not speak HTTP/2, or its responses are not DNS messages.
    #[error("it does not speak DNS over HTTP/2")]
    Http,
    /// The configuration does not say how to verify the server.
    #[error("there is nothing to know it by")]
    Unidentified,
}

impl ConnectError {
    /// Whether the server answered but could not prove its identity.
    pub const fn is_about_identity(&self) -> bool {
        matches!(self, Self::Handshake(fault) if fault.is_about_identity())
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) if is_local(&error) => Self::Local { code },
            _ => Self::Network(ErrorCause::from(&error)),
        }
    }
}

/// Whether an error says something about this host alone: EMFILE, ENFILE, ENOMEM, ENOBUFS, EPERM and EACCES (a firewall of
/// ours, a route that prohibits), EINVAL (a route that is a black hole), EADDRNOTAVAIL and EADDRINUSE, ENODEV, EAGAIN of a
/// socket that finds no free port.
pub fn is_local(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, InvalidInput, OutOfMemory, PermissionDenied, WouldBlock};
    use rustix::io::Errno;

    let is_bare = |code| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NODEV].iter().any(|errno| errno.raw_os_error() == code)
    };
    matches!(error.kind(), AddrInUse | AddrNotAvailable | InvalidInput | OutOfMemory | PermissionDenied | WouldBlock)
        || error.raw_os_error().is_some_and(is_bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_errors_are_told_from_network_errors() {
        // EPERM, EAGAIN, ENOMEM, EACCES, ENODEV, EINVAL, ENFILE, EMFILE, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS.
        for code in [1, 11, 12, 13, 19, 22, 23, 24, 98, 99, 105] {
            let error = ConnectError::from(io::Error::from_raw_os_error(code));
            assert_eq!(error, ConnectError::Local { code });
        }
        // ENETDOWN, ENETUNREACH, ECONNRESET, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH.
        for code in [100, 101, 104, 110, 111, 113] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(ConnectError::from(error), ConnectError::Network(ErrorCause::Code(code)));
        }
        let told = ConnectError::Local { code: 24 }.to_string();
        assert_eq!(told, "this host cannot: too many open files");
    }
}
