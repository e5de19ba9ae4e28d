//! The twelve octets every message starts with (RFC 1035 4.1.1, RFC 6895 2).

use super::{Malformed, Rcode, read_u16};

/// The length of a header in octets.
pub const HEADER: usize = 12;

/// The number that matches a response to its query (RFC 1035 4.1.1, RFC 5452).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u16);

/// The kind of message (RFC 6895 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opcode(pub u8);

impl Opcode {
    /// A standard query.
    pub const QUERY: Self = Self(0);
}

/// The second pair of octets of a header: QR, opcode, AA, TC, RD, RA, Z, AD, CD, RCODE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// The message is a response.
    pub const QR: u16 = 0x8000;
    /// The answer is authoritative.
    pub const AA: u16 = 0x0400;
    /// The message was truncated to fit its datagram.
    pub const TC: u16 = 0x0200;
    /// Recursion is desired.
    pub const RD: u16 = 0x0100;
    /// Recursion is available.
    pub const RA: u16 = 0x0080;
    /// The responder validated the answer (RFC 4035 3.1.6).
    pub const AD: u16 = 0x0020;
    /// The sender validates signatures itself (RFC 4035 3.1.6).
    pub const CD: u16 = 0x0010;

    /// Whether every bit of `mask` is set.
    pub const fn has(self, mask: u16) -> bool {
        self.0 & mask == mask
    }

    /// The kind of message.
    pub const fn opcode(self) -> Opcode {
        Opcode(((self.0 >> 11) & 0x0f) as u8)
    }

    /// The lower four bits of the response code.
    pub const fn rcode(self) -> Rcode {
        Rcode(self.0 & 0x000f)
    }
}

/// A header as it stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's id.
    pub id: MessageId,
    /// The flags.
    pub flags: Flags,
    /// Entries in the question, answer, authority and additional sections.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the first twelve octets.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let Some(header) = message.first_chunk::<HEADER>() else { return Err(Malformed::Short) };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Ok(Self { id: MessageId(word(0)), flags: Flags(word(2)), counts: [word(4), word(6), word(8), word(10)] })
    }

    /// The header's octets.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let words = [self.id.0, self.flags.0, self.counts[0], self.counts[1], self.counts[2], self.counts[3]];
        for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
            pair.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// The id of a message, if it is long enough to have one.
pub fn id(message: &[u8]) -> Result<MessageId, Malformed> {
    read_u16(message, 0).map(MessageId)
}
