//! Extended DNS errors (RFC 8914): the reason behind an RCODE, for people.

use std::fmt;

use super::edns::{Edns, OptionCode};

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
    /// The upstream's extended error, sent as a second option.
    pub relayed: Option<&'a RelayedEde>,
}

impl<'a> Ede<'a> {
    /// The longest text put on the wire, in octets, so that an error fits every datagram.
    pub const MAX_TEXT: usize = 160;

    /// A code with words.
    pub const fn new(code: EdeCode, text: &'a str) -> Self {
        Ede { code, text, relayed: None }
    }

    /// A code without words.
    pub const fn bare(code: EdeCode) -> Self {
        Self::new(code, "")
    }

    /// The text as it goes out: whole characters up to the limit.
    pub fn wire_text(&self) -> &'a str {
        &self.text[..self.text.floor_char_boundary(Self::MAX_TEXT)]
    }

    /// The octets this takes as EDNS options, four of code and length for each included.
    pub fn options_length(&self) -> usize {
        let relayed = self.relayed.map_or(0, |relayed| OPTION_HEAD + relayed.text.len());
        OPTION_HEAD + self.wire_text().len() + relayed
    }

    /// Writes the options at the start of `out`, which has room for them; returns their length.
    pub(super) fn write_options(&self, out: &mut [u8]) -> Option<usize> {
        let end = write_option(self.code.number(), self.wire_text(), out)?;
        let Some(relayed) = self.relayed else { return Some(end) };
        Some(end + write_option(relayed.code, &relayed.text, &mut out[end..])?)
    }

    /// The option's code on the wire.
    pub const OPTION: OptionCode = OptionCode(15);
}

/// Octets of an option before its text: option code, length, info-code.
const OPTION_HEAD: usize = 6;

fn write_option(code: u16, text: &str, out: &mut [u8]) -> Option<usize> {
    let end = OPTION_HEAD + text.len();
    let option = out.get_mut(..end)?;
    option[..2].copy_from_slice(&Ede::OPTION.0.to_be_bytes());
    option[2..4].copy_from_slice(&u16::try_from(2 + text.len()).ok()?.to_be_bytes());
    option[4..OPTION_HEAD].copy_from_slice(&code.to_be_bytes());
    option[OPTION_HEAD..].copy_from_slice(text.as_bytes());
    Some(end)
}

/// An upstream's extended error, to be passed on. The code is theirs, whatever it is; the text says whose it is, since
/// an EDNS option seems to come from the server that sends it (RFC 8914 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayedEde {
    /// The info-code.
    pub code: u16,
    /// One line of printable text, at most [`Ede::MAX_TEXT`] octets.
    text: String,
}

impl RelayedEde {
    /// Reads the first extended error of a response's options that is long enough to have an info-code. In its text,
    /// octets that are not UTF-8 are replaced, and characters that could disturb a terminal become spaces.
    pub fn read(edns: &Edns<'_>) -> Option<Self> {
        let option = edns.options().find(|(code, data)| *code == Ede::OPTION && data.len() >= 2);
        let (code, text) = option?.1.split_first_chunk::<2>()?;
        // Of a longer text nothing beyond this could be sent.
        let text = String::from_utf8_lossy(&text[..text.len().min(Ede::MAX_TEXT)]);
        let text: String = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
        Some(Self { code: u16::from_be_bytes(*code), text: text.trim().to_owned() })
    }

    /// The same, with `source` before its text.
    pub fn attributed(&self, source: impl fmt::Display) -> Self {
        let colon = if self.text.is_empty() { "" } else { ": " };
        let mut text = format!("{source}{colon}{}", self.text);
        text.truncate(text.floor_char_boundary(Ede::MAX_TEXT));
        Self { code: self.code, text }
    }

    /// The text, on one line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Control characters, and those that change the line or its direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
