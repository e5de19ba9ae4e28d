//! Why a server is asked, which decides what its silence or its answer says about it.

/// The purpose of a query to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A query on behalf of a client.
    Traffic,
    /// A health probe; the prober judges its outcome.
    Probe,
    /// A loop probe, which says nothing about the server's health (see `loops`).
    Tagged,
}
