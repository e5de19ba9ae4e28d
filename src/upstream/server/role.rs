//! Why a server is asked, which decides what its silence or its answer says about it.

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A client's query.
    Traffic,
    /// A probe, whose outcome the prober judges.
    Probe,
    /// A probe for loops, which says nothing about the server (see `loops`).
    Tagged,
}
