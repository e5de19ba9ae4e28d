//! Extended DNS errors (RFC 8914): the reason behind an RCODE, for people.

use super::edns::OptionCode;

/// The info-codes this server gives (IANA, Extended DNS Error Codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum EdeCode {
    /// 0: the text says what it is.
    Other = 0,
    /// 3: answered from an expired cache entry (RFC 8767).
    StaleAnswer = 3,
    /// 13: a failure that is remembered (RFC 9520).
    CachedError = 13,
    /// 15: withheld by this server's policy.
    Blocked = 15,
    /// 18: this client is not served.
    Prohibited = 18,
    /// 19: NXDOMAIN from an expired cache entry (RFC 8767).
    StaleNxdomain = 19,
    /// 20: no rule covers the name.
    NotAuthoritative = 20,
    /// 22: every upstream failed.
    NoReachableAuthority = 22,
    /// 30: a type that cannot be queried for (RFC 9824 3.5).
    InvalidQueryType = 30,
}

impl EdeCode {
    /// Every code this server gives.
    pub const ALL: [Self; 9] = [
        Self::Other,
        Self::StaleAnswer,
        Self::CachedError,
        Self::Blocked,
        Self::Prohibited,
        Self::StaleNxdomain,
        Self::NotAuthoritative,
        Self::NoReachableAuthority,
        Self::InvalidQueryType,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The position in [`EdeCode::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|&code| code == self).unwrap_or(0)
    }
}

/// The registered name of an info-code.
pub const fn meaning(code: u16) -> &'static str {
    match code {
        0 => "Other",
        1 => "Unsupported DNSKEY Algorithm",
        2 => "Unsupported DS Digest Type",
        3 => "Stale Answer",
        4 => "Forged Answer",
        5 => "DNSSEC Indeterminate",
        6 => "DNSSEC Bogus",
        7 => "Signature Expired",
        8 => "Signature Not Yet Valid",
        9 => "DNSKEY Missing",
        10 => "RRSIGs Missing",
        11 => "No Zone Key Bit Set",
        12 => "NSEC Missing",
        13 => "Cached Error",
        14 => "Not Ready",
        15 => "Blocked",
        16 => "Censored",
        17 => "Filtered",
        18 => "Prohibited",
        19 => "Stale NXDOMAIN Answer",
        20 => "Not Authoritative",
        21 => "Not Supported",
        22 => "No Reachable Authority",
        23 => "Network Error",
        24 => "Invalid Data",
        25 => "Signature Expired before Valid",
        26 => "Too Early",
        27 => "Unsupported NSEC3 Iterations Value",
        28 => "Unable to conform to policy",
        29 => "Synthesized",
        30 => "Invalid Query Type",
        _ => "unassigned",
    }
}

/// An extended error: a code and words for people, which a client must not act upon (RFC 8914 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ede<'a> {
    /// The reason.
    pub code: EdeCode,
    /// The words, UTF-8, cut at [`Ede::MAX_TEXT`] octets.
    pub text: &'a str,
}

impl<'a> Ede<'a> {
    /// The longest text put on the wire, in octets, so that an error fits every datagram.
    pub const MAX_TEXT: usize = 160;

    /// A code without words.
    pub const fn bare(code: EdeCode) -> Self {
        Ede { code, text: "" }
    }

    /// The text as it goes out: whole characters up to the limit.
    pub fn wire_text(&self) -> &'a str {
        &self.text[..self.text.floor_char_boundary(Self::MAX_TEXT)]
    }

    /// The octets this takes as an EDNS option, its four of code and length included.
    pub fn option_length(&self) -> usize {
        4 + 2 + self.wire_text().len()
    }

    /// The option's code on the wire.
    pub const OPTION: OptionCode = OptionCode(15);
}
