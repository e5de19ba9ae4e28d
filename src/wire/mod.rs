//! DNS messages as bytes (RFC 1035, 2181, 3597, 6891), without input or output.
//!
//! Every incoming message is checked here, once: a [`Question`] is a well-formed query that borrows the client's
//! datagram; a [`Response`] is an upstream's response, parsed and rewritten by us. Nothing in this room panics
//! on any input, allocates for a question, or follows a compression pointer anywhere but backwards.

pub mod addresses;
pub mod cookie;
pub mod doq;
pub mod ede;
pub mod edns;
pub mod header;
pub mod name;
pub mod query;
pub mod question;
pub mod rdata;
pub mod record;
pub mod reply;
pub mod response;
pub mod rotate;
pub mod splice;
pub mod text;
pub mod writer;

mod numbers;
mod transport;

pub use cookie::Cookie;
pub use ede::{Ede, EdeCode, RelayedEde};
pub use edns::Edns;
pub use header::{Flags, Header, MessageId, Opcode};
pub use name::{Name, NameBuf};
pub use numbers::{Class, Rcode, RecordType, Ttl};
pub use query::UpstreamQuery;
pub use question::{Question, Reject};
pub use response::{Mismatch, Response, ResponseKind};
pub use transport::Transport;

/// The longest DNS message (RFC 1035 4.2.2: two octets of length).
pub const MAX_MESSAGE: usize = 65_535;

/// Why bytes are not a DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Short,
    /// A label is longer than 63 octets, or uses a label type that does not exist (RFC 6891 5).
    #[error("a label is not valid")]
    Label,
    /// A name is longer than 255 octets (RFC 1035 3.1).
    #[error("a name is longer than 255 octets")]
    LongName,
    /// A compression pointer does not point backwards (RFC 9267 2), or stands where none may.
    #[error("a compression pointer does not point backwards")]
    Pointer,
    /// RDATA is longer or shorter than its type allows.
    #[error("RDATA does not fit its type")]
    Rdata,
    /// More than one OPT, or an OPT with an owner other than the root (RFC 6891 6.1.1).
    #[error("the OPT record is not valid")]
    Opt,
    /// A client's COOKIE option has a length that no cookie has (RFC 7873 4).
    #[error("the COOKIE option is not valid")]
    Cookie,
    /// Octets follow the last record.
    #[error("octets follow the last record")]
    Trailing,
    /// Counts that no message of this kind has.
    #[error("the section counts are not valid")]
    Counts,
    /// The message would be longer than 65,535 octets.
    #[error("the message is too long")]
    TooLong,
}

/// Two octets at `at`, in network order.
pub(crate) fn read_u16(message: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = message.get(at..at + 2).ok_or(Malformed::Short)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Four octets at `at`, in network order.
pub(crate) fn read_u32(message: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = message.get(at..at + 4).ok_or(Malformed::Short)?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
