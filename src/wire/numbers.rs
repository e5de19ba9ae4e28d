//! The numbers of DNS that cross modules, each a type of its own, with their names from the IANA registries.

use std::{fmt, str::FromStr};

/// A record type or query type (RFC 1035 3.2.2, 3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

/// A class (RFC 1035 3.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class(pub u16);

/// A response code, twelve bits with EDNS (RFC 6895 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

/// A time to live in seconds, below 2^31 (RFC 2181 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

impl Ttl {
    /// Zero: not to be cached.
    pub const ZERO: Self = Self(0);

    /// The longest TTL.
    pub const MAX: Self = Self(i32::MAX.cast_unsigned());

    /// Converts from the wire. A value with the highest bit set is taken as the maximum (RFC 8767 4, which updates
    /// RFC 2181 8).
    pub const fn from_wire(seconds: u32) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// In seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl RecordType {
    /// Whether this type cannot be queried for as data: OPT, NXNAME, and the meta and query types (RFC 6895 3.1, RFC
    /// 9824 3.2). Of these AXFR, IXFR and ANY are handled by their own rules.
    pub const fn is_meta(self) -> bool {
        matches!(self.0, 41 | 128..=250 | 253 | 254)
    }
}

macro_rules! named {
    ($type:ident, $prefix:literal, $($constant:ident = $number:literal $text:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the constants are the registry's own mnemonics")]
        impl $type {
            $(pub const $constant: Self = Self($number);)*

            /// The registered mnemonic, if we know it.
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(text) => f.write_str(text),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }

        impl FromStr for $type {
            type Err = UnknownMnemonic;

            /// Reads a mnemonic, or the generic form of RFC 3597 5 (`TYPE65280`), in any letter case.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $(if text.eq_ignore_ascii_case($text) {
                    return Ok(Self($number));
                })*
                let head = text.get(..$prefix.len()).unwrap_or_default();
                if !head.eq_ignore_ascii_case($prefix) {
                    return Err(UnknownMnemonic);
                }
                text[$prefix.len()..].parse().map(Self).map_err(|_| UnknownMnemonic)
            }
        }
    };
}

/// The text is not a known type, class or code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known mnemonic")]
pub struct UnknownMnemonic;

named!(RecordType, "TYPE",
    A = 1 "A", NS = 2 "NS", MD = 3 "MD", MF = 4 "MF", CNAME = 5 "CNAME", SOA = 6 "SOA", MB = 7 "MB", MG = 8 "MG",
    MR = 9 "MR", NULL = 10 "NULL", WKS = 11 "WKS", PTR = 12 "PTR", HINFO = 13 "HINFO", MINFO = 14 "MINFO",
    MX = 15 "MX", TXT = 16 "TXT", RP = 17 "RP", AFSDB = 18 "AFSDB", RT = 21 "RT", SIG = 24 "SIG", KEY = 25 "KEY",
    PX = 26 "PX", AAAA = 28 "AAAA", LOC = 29 "LOC", NXT = 30 "NXT", SRV = 33 "SRV", NAPTR = 35 "NAPTR", KX = 36 "KX",
    CERT = 37 "CERT", DNAME = 39 "DNAME", OPT = 41 "OPT", APL = 42 "APL", DS = 43 "DS", SSHFP = 44 "SSHFP",
    IPSECKEY = 45 "IPSECKEY", RRSIG = 46 "RRSIG", NSEC = 47 "NSEC", DNSKEY = 48 "DNSKEY", DHCID = 49 "DHCID",
    NSEC3 = 50 "NSEC3", NSEC3PARAM = 51 "NSEC3PARAM", TLSA = 52 "TLSA", SMIMEA = 53 "SMIMEA", HIP = 55 "HIP",
    CDS = 59 "CDS", CDNSKEY = 60 "CDNSKEY", OPENPGPKEY = 61 "OPENPGPKEY", CSYNC = 62 "CSYNC", ZONEMD = 63 "ZONEMD",
    SVCB = 64 "SVCB", HTTPS = 65 "HTTPS", SPF = 99 "SPF", EUI48 = 108 "EUI48", EUI64 = 109 "EUI64",
    NXNAME = 128 "NXNAME", TKEY = 249 "TKEY", TSIG = 250 "TSIG", IXFR = 251 "IXFR", AXFR = 252 "AXFR", MAILB = 253 "MAILB",
    MAILA = 254 "MAILA", ANY = 255 "ANY", URI = 256 "URI", CAA = 257 "CAA",
);

named!(Class, "CLASS", IN = 1 "IN", CH = 3 "CH", HS = 4 "HS", NONE = 254 "NONE", ANY = 255 "ANY");

named!(Rcode, "RCODE",
    NOERROR = 0 "NOERROR", FORMERR = 1 "FORMERR", SERVFAIL = 2 "SERVFAIL", NXDOMAIN = 3 "NXDOMAIN",
    NOTIMP = 4 "NOTIMP", REFUSED = 5 "REFUSED", YXDOMAIN = 6 "YXDOMAIN", YXRRSET = 7 "YXRRSET",
    NXRRSET = 8 "NXRRSET", NOTAUTH = 9 "NOTAUTH", NOTZONE = 10 "NOTZONE", BADVERS = 16 "BADVERS",
    BADCOOKIE = 23 "BADCOOKIE",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_types_read_and_print_as_rfc_3597() {
        assert_eq!("type65280".parse(), Ok(RecordType(65280)));
        assert_eq!(RecordType(65280).to_string(), "TYPE65280");
        assert_eq!("aaaa".parse(), Ok(RecordType::AAAA));
        assert_eq!("TYPE1".parse(), Ok(RecordType::A));
        assert_eq!("nonsense".parse::<RecordType>(), Err(UnknownMnemonic));
        assert_eq!("TYPE99999".parse::<RecordType>(), Err(UnknownMnemonic));
    }

    #[test]
    fn a_ttl_with_the_highest_bit_is_positive() {
        assert_eq!(Ttl::from_wire(0x8000_0000).seconds(), 0x7fff_ffff);
        assert_eq!(Ttl::from_wire(0x7fff_ffff).seconds(), 0x7fff_ffff);
    }
}
