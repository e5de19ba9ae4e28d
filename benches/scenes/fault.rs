//! What a server does wrong. Whatever it sends holds an address that no client should believe.

use std::net::Ipv4Addr;

/// In everything that a bad server says.
pub(crate) const LIE: Ipv4Addr = Ipv4Addr::new(6, 6, 6, 6);

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;
const TC: u8 = 0x02;

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

    /// Makes of a sound answer over UDP what the server sends in its place.
    pub(crate) fn spoil(self, message: &mut Vec<u8>) {
        match self {
            Self::Servfail => message[3] |= SERVFAIL,
            Self::Refused => message[3] |= REFUSED,
            Self::Garbage => {
                message.truncate(2);
                message.extend([0xff; 40]);
            }
            Self::WrongId => message[0] ^= 0xa5,
            // No name that is asked here begins so; the root has no letter, and is asked for another type.
            Self::WrongQuestion if message[12] > 0 => message[13] = b'x',
            Self::WrongQuestion => message[14] ^= 1,
            Self::NoTcp | Self::MuteTcp | Self::SlowTcp => message[2] |= TC,
        }
    }
}
