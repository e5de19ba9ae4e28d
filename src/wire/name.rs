//! Names (RFC 1035 3.1, RFC 2181 11, RFC 4343): label sequences of any octets, at most 255 long with the root.

mod place;

use std::{
    cmp::Ordering,
    fmt::{self, Write as _},
    str::FromStr,
};

pub use self::place::{NameBuf, skip, skip_uncompressed, stands_at};
pub(super) use self::place::{is_same, pointer};
use super::Malformed;

/// The longest name, its root label included (RFC 1035 3.1).
pub const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A name without compression, in lower case, the root label included: `3www7example3com0`.
///
/// Invariant: the octets are labels of 1 to 63, then one zero; 255 in all at most; no ASCII capitals.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root, ".".
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Takes an uncompressed name from its wire form, which must end with the root label.
    pub fn from_wire(wire: &[u8]) -> Result<Self, Malformed> {
        let mut buffer = NameBuf::new();
        let end = buffer.expand(wire, 0)?;
        if end != wire.len() || buffer.as_wire().len() != wire.len() {
            return Err(Malformed::Trailing);
        }
        buffer.make_lowercase();
        Ok(buffer.to_name())
    }

    /// The wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The labels from the left, without the root.
    pub fn labels(&self) -> Labels<'_> {
        Labels { rest: &self.0 }
    }

    /// The name without its first label; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let first = usize::from(self.0[0]);
        (first > 0).then(|| Self(self.0[1 + first..].into()))
    }

    /// Whether this name is `domain` or below it.
    pub fn is_within(&self, domain: &Self) -> bool {
        is_within(&self.0, &domain.0)
    }

    /// This name with `label` in front; an error if the result is too long.
    pub fn child(&self, label: &[u8]) -> Result<Self, Malformed> {
        let length = u8::try_from(label.len()).ok().filter(|&l| l > 0 && usize::from(l) <= MAX_LABEL);
        let length = length.ok_or(Malformed::Label)?;
        let mut wire = Vec::with_capacity(1 + label.len() + self.0.len());
        wire.push(length);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
        wire.extend_from_slice(&self.0);
        if wire.len() > MAX_NAME { Err(Malformed::LongName) } else { Ok(Self(wire.into())) }
    }
}

/// Whether the wire name `name` equals or is below `domain`. Both must be uncompressed and in the same letter case.
pub fn is_within(name: &[u8], domain: &[u8]) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else { return false };
    let mut at = 0;
    while at < start {
        at += 1 + usize::from(name[at]);
    }
    at == start && name[start..] == *domain
}

/// The labels of a name from the left, without the root.
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Labels<'a> {
    /// The labels of an uncompressed wire name that is known to be well formed.
    pub fn of(wire: &'a [u8]) -> Self {
        Self { rest: wire }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.rest.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(label)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DisplayWire(&self.0).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Canonical order (RFC 4034 6.1): by labels from the right.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (LabelStarts::of(self), LabelStarts::of(other));
        ours.right_to_left(self).cmp(theirs.right_to_left(other))
    }
}

/// Where each label of a name begins.
struct LabelStarts {
    starts: [u8; MAX_NAME / 2],
    count: usize,
}

impl LabelStarts {
    fn of(name: &Name) -> Self {
        // A name has 255 octets at most, and each label but the root at least two.
        let (mut starts, mut count, mut at) = ([0; MAX_NAME / 2], 0, 0_u8);
        while name.0[usize::from(at)] > 0 {
            starts[count] = at;
            count += 1;
            at += 1 + name.0[usize::from(at)];
        }
        Self { starts, count }
    }

    fn right_to_left<'a>(&self, name: &'a Name) -> impl Iterator<Item = &'a [u8]> {
        self.starts[..self.count].iter().rev().map(|&start| {
            let start = usize::from(start);
            &name.0[start + 1..][..usize::from(name.0[start])]
        })
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Shows an uncompressed wire name as text with a final dot; octets that are not plain are escaped (RFC 1035 5.1).
#[derive(Debug, Clone, Copy)]
pub struct DisplayWire<'a>(pub &'a [u8]);

impl fmt::Display for DisplayWire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.first().is_none_or(|&length| length == 0) {
            return f.write_str(".");
        }
        for label in Labels::of(self.0) {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => f.write_char(char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text.
    #[error("it is empty (the root is \".\")")]
    Empty,
    /// Two dots in a row, or one in front.
    #[error("it has an empty label")]
    EmptyLabel,
    /// A label is too long.
    #[error("it has a label of more than 63 octets")]
    LongLabel,
    /// The name is too long.
    #[error("it is longer than 255 octets")]
    LongName,
    /// A backslash not followed by a character or three digits up to 255.
    #[error("it has an escape that is not \\DDD or \\X")]
    Escape,
    /// White space or an octet beyond ASCII, which must be written in the A-label form or escaped.
    #[error("it has a character that must be escaped (use the xn-- form of an international name)")]
    Character,
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads the text form of RFC 1035 5.1; the name is absolute with a final dot or without.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text == "." {
            return Ok(Self::root());
        }
        // A length in front of the first label, the root behind the last.
        let mut wire = Vec::with_capacity(text.len() + 2);
        wire.push(0_u8);
        let mut start = 0;
        let mut octets = text.bytes();
        while let Some(octet) = octets.next() {
            let octet = match octet {
                b'.' => {
                    close_label(&mut wire, start)?;
                    start = wire.len();
                    wire.push(0);
                    continue;
                }
                b'\\' => unescape(&mut octets)?,
                0x21..=0x7e => octet,
                _ => return Err(NameError::Character),
            };
            wire.push(octet.to_ascii_lowercase());
        }
        if wire.len() > start + 1 {
            close_label(&mut wire, start)?;
            wire.push(0);
        }
        if wire.len() > MAX_NAME { Err(NameError::LongName) } else { Ok(Self(wire.into())) }
    }
}

fn close_label(wire: &mut [u8], start: usize) -> Result<(), NameError> {
    let length = wire.len() - start - 1;
    match u8::try_from(length) {
        Ok(0) => Err(NameError::EmptyLabel),
        Ok(length) if usize::from(length) <= MAX_LABEL => {
            wire[start] = length;
            Ok(())
        }
        _ => Err(NameError::LongLabel),
    }
}

fn unescape(octets: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = octets.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut number = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = octets.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        number = number * 10 + u16::from(digit - b'0');
    }
    u8::try_from(number).map_err(|_| NameError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        for (text, wire) in [
            (".", &b"\0"[..]),
            ("example.com", b"\x07example\x03com\0"),
            ("Example.COM.", b"\x07example\x03com\0"),
            ("a\\.b.c", b"\x03a.b\x01c\0"),
            ("\\000\\255", b"\x02\x00\xff\0"),
        ] {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.as_wire(), wire, "{text}");
            assert_eq!(name.to_string().parse::<Name>().unwrap(), name, "{text}");
        }
    }

    #[test]
    fn names_are_in_canonical_order() {
        // RFC 4034 section 6.1, and a name of 127 labels.
        let long = "a.".repeat(127);
        let ordered = [
            ".",
            "a",
            &long,
            "example",
            "a.example",
            "yljkjljk.a.example",
            "z.a.example",
            "zabc.a.example",
            "z.example",
            "\\001.z.example",
            "*.z.example",
            "\\200.z.example",
        ];
        let names = ordered.map(|text| text.parse::<Name>().unwrap());
        assert!(names.is_sorted_by(|one, other| one < other));
        assert!(names.iter().all(|name| name.cmp(name) == Ordering::Equal));
    }

    #[test]
    fn a_text_that_is_no_name_says_why() {
        let long = "a".repeat(64);
        let many = "abcdefg.".repeat(32);
        for (text, error) in [
            ("", NameError::Empty),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a b", NameError::Character),
            ("bücher.example", NameError::Character),
            ("a\\25", NameError::Escape),
            ("a\\256", NameError::Escape),
            ("a\\", NameError::Escape),
            (&long, NameError::LongLabel),
            (&many, NameError::LongName),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_domain_holds_itself_and_what_is_below_it_by_labels() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert!(name("a.example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&Name::root()));
        assert!(!name("notexample.com").is_within(&name("example.com")));
        assert!(!name("com").is_within(&name("example.com")));
        // The octets of ".com" inside a label are no boundary.
        assert!(!name("a\\003com.").is_within(&name("com")));
    }
}
