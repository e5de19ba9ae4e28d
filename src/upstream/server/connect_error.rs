//! Why there is no connection to a server, kept for whoever looks after it.

use std::io;

use crate::tls;

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The network, or a socket of ours, said no.
    #[error("{0}")]
    Network(io::ErrorKind),
    /// It was not open, handshake included, within the group's time-out.
    #[error("no connection within the time-out")]
    Slow,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] tls::HandshakeError),
    /// It answers HTTP with this status code.
    #[error("it answers with HTTP status {0}")]
    Status(u16),
    /// It does not speak HTTP/2, or its answers are no DNS messages.
    #[error("it does not speak DNS over HTTP/2")]
    Http,
    /// The server's specification does not say how it shows who it is.
    #[error("there is nothing to know it by")]
    Unidentified,
}

impl ConnectError {
    /// Whether the server answered, and is not who it should be.
    pub const fn is_about_identity(&self) -> bool {
        matches!(self, Self::Handshake(fault) if fault.is_about_identity())
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Network(error.kind())
    }
}
