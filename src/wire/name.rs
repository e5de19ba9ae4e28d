//! Names (RFC 1035 3.1, RFC 2181 11, RFC 4343): label sequences of any octets, at most 255 long with the root.

use std::{cmp::Ordering, fmt, str::FromStr};

use super::{Malformed, read_u16};

/// The longest name, its root label included (RFC 1035 3.1).
pub const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 2.3.4).
pub const MAX_LABEL: usize = 63;
/// The most pointers one name may lead through: one before each of the 127 labels that fit it. A longer way leads
/// through pointers to pointers, and is there to cost time (RFC 9267 2).
const MAX_POINTERS: usize = 127;

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

    /// This name with `label` in front, if the result is a name.
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

/// Whether the wire name `name` is the wire name `domain` or below it; both without compression and of one letter case.
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
        let reversed = |name: &Self| {
            let mut labels: Vec<Vec<u8>> = name.labels().map(<[u8]>::to_vec).collect();
            labels.reverse();
            labels
        };
        reversed(self).cmp(&reversed(other))
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
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
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
        let mut wire = vec![0_u8];
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

/// A name on the stack, in the letter case it came in.
#[derive(Clone)]
pub struct NameBuf {
    bytes: [u8; MAX_NAME],
    length: u8,
}

impl NameBuf {
    /// The root.
    pub const fn new() -> Self {
        Self { bytes: [0; MAX_NAME], length: 1 }
    }

    /// An uncompressed wire name of at most 255 octets in lower case; what is beyond is left out.
    pub fn lowercase_of(wire: &[u8]) -> Self {
        let mut name = Self::new();
        let length = wire.len().min(MAX_NAME);
        name.bytes[..length].copy_from_slice(&wire[..length]);
        name.length = u8::try_from(length).unwrap_or(u8::MAX);
        name.make_lowercase();
        name
    }

    /// The wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// An owned copy, which must be in lower case already or is made so.
    pub fn to_name(&self) -> Name {
        Name(self.as_wire().to_ascii_lowercase().into())
    }

    /// ASCII capitals become small letters; length octets (at most 63) are below them.
    pub fn make_lowercase(&mut self) {
        self.bytes[..usize::from(self.length)].make_ascii_lowercase();
    }

    /// Reads the name at `at`, following compression pointers, and gives the place behind it. Each pointer must lead
    /// before the place where the octets last jumped to began, so that the walk ends (RFC 1035 4.1.4, RFC 9267 2).
    pub fn expand(&mut self, message: &[u8], at: usize) -> Result<usize, Malformed> {
        let mut at = at;
        let mut floor = at;
        let mut behind = None;
        let mut length = 0;
        let mut pointers = 0;
        loop {
            let octet = *message.get(at).ok_or(Malformed::Short)?;
            match octet {
                0 => {
                    *self.bytes.get_mut(length).ok_or(Malformed::LongName)? = 0;
                    self.length = u8::try_from(length + 1).map_err(|_| Malformed::LongName)?;
                    return Ok(behind.unwrap_or(at + 1));
                }
                1..=0x3f => {
                    let end = at + 1 + usize::from(octet);
                    let label = message.get(at..end).ok_or(Malformed::Short)?;
                    let place = self.bytes.get_mut(length..length + label.len()).ok_or(Malformed::LongName)?;
                    place.copy_from_slice(label);
                    length += label.len();
                    at = end;
                }
                0xc0.. => {
                    behind.get_or_insert(at + 2);
                    at = follow(message, at, floor, pointers)?;
                    floor = at;
                    pointers += 1;
                }
                _ => return Err(Malformed::Label),
            }
        }
    }
}

impl Default for NameBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", DisplayWire(self.as_wire()))
    }
}

/// Whether the name at `at`, compressed or not, is `name`, a wire name without compression, in any letter case
/// (RFC 4343). The way is checked as far as the names are equal.
pub fn stands_at(message: &[u8], at: usize, name: &[u8]) -> Result<bool, Malformed> {
    let mut at = at;
    let mut floor = at;
    let mut matched = 0;
    let mut pointers = 0;
    loop {
        let octet = *message.get(at).ok_or(Malformed::Short)?;
        match octet {
            0..=0x3f => {
                let length = 1 + usize::from(octet);
                let label = message.get(at..at + length).ok_or(Malformed::Short)?;
                let wanted = name.get(matched..matched + length);
                if !wanted.is_some_and(|wanted| is_same(wanted, label)) {
                    return Ok(false);
                }
                if octet == 0 {
                    return Ok(true);
                }
                at += length;
                matched += length;
            }
            0xc0.. => {
                at = follow(message, at, floor, pointers)?;
                floor = at;
                pointers += 1;
            }
            _ => return Err(Malformed::Label),
        }
    }
}

/// Whether octets are equal in any letter case. Mostly the case is the same too, and that is found out sooner.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || one.eq_ignore_ascii_case(other)
}

/// The offset in the pointer that stands at `at`, if the name there is nothing else.
pub(super) fn pointer(message: &[u8], at: usize) -> Option<u16> {
    read_u16(message, at).ok().filter(|&word| word >= 0xc000)
}

/// Where the pointer at `at` leads: before `floor`, after `pointers` others.
fn follow(message: &[u8], at: usize, floor: usize, pointers: usize) -> Result<usize, Malformed> {
    let target = usize::from(read_u16(message, at)? & 0x3fff);
    if target < floor && pointers < MAX_POINTERS { Ok(target) } else { Err(Malformed::Pointer) }
}

/// The place behind the name at `at`, compressed or not. A pointer is checked when it is followed, not here.
pub fn skip(message: &[u8], at: usize) -> Result<usize, Malformed> {
    let mut at = at;
    loop {
        let octet = *message.get(at).ok_or(Malformed::Short)?;
        match octet {
            0 => return Ok(at + 1),
            1..=0x3f => at += 1 + usize::from(octet),
            0xc0.. => return if at + 1 < message.len() { Ok(at + 2) } else { Err(Malformed::Short) },
            _ => return Err(Malformed::Label),
        }
    }
}

/// The place behind the uncompressed name at `at`: what a question has, since nothing stands before it to point to.
pub fn skip_uncompressed(message: &[u8], at: usize) -> Result<usize, Malformed> {
    let mut end = at;
    loop {
        let octet = *message.get(end).ok_or(Malformed::Short)?;
        match octet {
            0 if end + 1 - at > MAX_NAME => return Err(Malformed::LongName),
            0 => return Ok(end + 1),
            1..=0x3f => end += 1 + usize::from(octet),
            0xc0.. => return Err(Malformed::Pointer),
            _ => return Err(Malformed::Label),
        }
    }
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

    #[test]
    fn pointers_only_lead_backwards() {
        let mut buffer = NameBuf::new();
        let message = b"\x03com\0\x07example\xc0\x00\xc0\x05";
        assert_eq!(buffer.expand(message, 15), Ok(17));
        assert_eq!(buffer.as_wire(), b"\x07example\x03com\0");
        for (message, at) in [(&b"\xc0\x00"[..], 0), (b"\x01a\xc0\x00", 2), (b"\xc0\x02\xc0\x00", 2)] {
            let result = buffer.expand(message, at);
            assert!(result.is_err() || at == 2, "{message:?} {result:?}");
        }
        assert_eq!(buffer.expand(b"\xc0\x02\xc0\x00", 0), Err(Malformed::Pointer));
        assert_eq!(buffer.expand(b"\x01a\xc0\x00", 0), Err(Malformed::Pointer));
    }

    #[test]
    fn a_way_through_pointers_to_pointers_is_cut_short() {
        for (pointers, is_taken) in [(127_u8, true), (128, false)] {
            let mut message = vec![0];
            for number in 0..pointers {
                message.extend([0xc0, if number == 0 { 0 } else { number * 2 - 1 }]);
            }
            let at = message.len() - 2;
            assert_eq!(NameBuf::new().expand(&message, at).is_ok(), is_taken, "{pointers}");
            assert_eq!(stands_at(&message, at, b"\0").is_ok(), is_taken, "{pointers}");
        }
    }

    #[test]
    fn a_name_is_compared_where_it_stands() {
        let message = b"\x03cOm\0\x07Example\xc0\x00";
        for (name, at, expected) in [
            (&b"\x07example\x03com\0"[..], 5, Ok(true)),
            (b"\x03com\0", 0, Ok(true)),
            (b"\x07example\x03org\0", 5, Ok(false)),
            (b"\x07example\0", 5, Ok(false)),
            (b"\x03com\x07example\0", 0, Ok(false)),
            (b"\0", 4, Ok(true)),
            (b"\0", 15, Err(Malformed::Short)),
        ] {
            assert_eq!(stands_at(message, at, name), expected, "{name:?}");
        }
        assert_eq!(stands_at(b"\xc0\x00", 0, b"\0"), Err(Malformed::Pointer));
        assert_eq!(stands_at(b"\x40", 0, b"\0"), Err(Malformed::Label));
    }

    #[test]
    fn names_over_255_octets_are_refused_even_through_pointers() {
        let mut message = Vec::new();
        for _ in 0..4 {
            message.push(63);
            message.extend([b'a'; 63]);
        }
        message.push(0);
        assert_eq!(NameBuf::new().expand(&message, 0), Err(Malformed::LongName));
        assert_eq!(skip_uncompressed(&message, 0), Err(Malformed::LongName));
        assert_eq!(Name::from_wire(&message), Err(Malformed::LongName));
    }
}
