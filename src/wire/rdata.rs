//! The shape of RDATA of the types that hold names, and of the addresses (RFC 1035, 3597 4, 9460, 4034).
//!
//! A forwarder must decompress names in RDATA, since old servers compress them where RFC 3597 says they must not. The
//! RDATA of all other types is opaque.

use super::{RecordType, writer::Compression};

/// One field of RDATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdataField {
    /// A fixed number of octets.
    Octets(usize),
    /// A character-string: one octet of length, then so many.
    Text,
    /// A name.
    Name(Compression),
    /// Octets up to the end.
    Rest,
}

use RdataField::{Name, Octets, Rest, Text};

const SMALL: RdataField = Name(Compression::Allowed);
const WHOLE: RdataField = Name(Compression::Forbidden);

/// The fields of a type's RDATA, in order. Together they must cover all of it.
pub const fn fields(rtype: RecordType) -> &'static [RdataField] {
    match rtype {
        RecordType::A => &[Octets(4)],
        RecordType::AAAA => &[Octets(16)],
        RecordType::NS | RecordType::CNAME | RecordType::PTR => &[SMALL],
        RecordType::SOA => &[SMALL, SMALL, Octets(20)],
        RecordType::MX => &[Octets(2), SMALL],
        // RFC 1035 allows compression in these obsolete types too, so their names must be known to be decompressed.
        RecordType::MD | RecordType::MF | RecordType::MB | RecordType::MG | RecordType::MR => &[WHOLE],
        RecordType::MINFO | RecordType::RP => &[WHOLE, WHOLE],
        RecordType::AFSDB | RecordType::RT | RecordType::KX => &[Octets(2), WHOLE],
        RecordType::PX => &[Octets(2), WHOLE, WHOLE],
        RecordType::SIG | RecordType::RRSIG => &[Octets(18), WHOLE, Rest],
        RecordType::NXT | RecordType::NSEC => &[WHOLE, Rest],
        RecordType::SRV => &[Octets(6), WHOLE],
        RecordType::NAPTR => &[Octets(4), Text, Text, Text, WHOLE],
        RecordType::DNAME => &[WHOLE],
        RecordType::SVCB | RecordType::HTTPS => &[Octets(2), WHOLE, Rest],
        _ => &[Rest],
    }
}
