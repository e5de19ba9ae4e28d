//! What a server does wrong. Whatever it sends holds an address that no client should believe.

use std::net::Ipv4Addr;

/// In everything that a bad server says.
pub(crate) const LIE: Ipv4Addr = Ipv4Addr::new(6, 6, 6, 6);

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Servfail,
    Refused,
    Garbage,
    WrongId,
    WrongQuestion,
    /// Truncated over UDP, and nobody listens on TCP.
    NoTcp,
    /// Truncated over UDP, and nothing comes back on TCP.
    MuteTcp,
    /// Truncated over UDP, and one octet a second on TCP.
    SlowTcp,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Servfail,
        Self::Refused,
        Self::Garbage,
        Self::WrongId,
        Self::WrongQuestion,
        Self::NoTcp,
        Self::MuteTcp,
        Self::SlowTcp,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Servfail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::Garbage => "garbage",
            Self::WrongId => "wrong id",
            Self::WrongQuestion => "wrong question",
            Self::NoTcp => "truncated, TCP refused",
            Self::MuteTcp => "truncated, TCP silent",
            Self::SlowTcp => "truncated, TCP one octet a second",
        }
    }
}
