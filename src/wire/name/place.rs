//! Names where they stand in a message, with the compression pointers of RFC 1035 4.1.4.

use std::fmt;

use super::{DisplayWire, MAX_NAME, Name};
use crate::wire::{Malformed, read_u16};

/// The most compression pointers in one name: one before each of its 127 labels. More of them can only be pointers to
/// pointers, sent to cost us time (RFC 9267 2).
const MAX_POINTERS: usize = 127;

/// Octets that letter case is changed for at once.
const BLOCK: usize = 32;
/// Room for any name, in whole blocks.
const ROOM: usize = MAX_NAME.next_multiple_of(BLOCK);

/// A name on the stack, in the letter case it came in.
#[derive(Clone)]
pub struct NameBuf {
    bytes: [u8; ROOM],
    length: u8,
}

impl NameBuf {
    /// The root.
    pub const fn new() -> Self {
        Self { bytes: [0; ROOM], length: 1 }
    }

    /// Copies an uncompressed wire name in lower case; octets beyond 255 are left out.
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

    /// An owned copy in lower case.
    pub fn to_name(&self) -> Name {
        Name(self.as_wire().to_ascii_lowercase().into())
    }

    /// ASCII capitals become small letters; length octets (at most 63) are below them.
    pub fn make_lowercase(&mut self) {
        // In whole blocks, which the compiler turns into a few instructions each; what is behind the name does not count.
        for block in self.bytes.as_chunks_mut::<BLOCK>().0.iter_mut().take(usize::from(self.length).div_ceil(BLOCK)) {
            block.make_ascii_lowercase();
        }
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
                    *self.bytes[..MAX_NAME].get_mut(length).ok_or(Malformed::LongName)? = 0;
                    self.length = u8::try_from(length + 1).map_err(|_| Malformed::LongName)?;
                    return Ok(behind.unwrap_or(at + 1));
                }
                1..=0x3f => {
                    let end = at + 1 + usize::from(octet);
                    let label = message.get(at..end).ok_or(Malformed::Short)?;
                    let place =
                        self.bytes[..MAX_NAME].get_mut(length..length + label.len()).ok_or(Malformed::LongName)?;
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

/// Whether the name at `at`, compressed or not, equals the uncompressed wire name `name` in any letter case (RFC 4343).
/// Pointers are checked only as far as the names are equal.
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

/// Whether octets are equal in any letter case. The exact comparison comes first because it is faster and mostly true.
pub(in crate::wire) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || one.eq_ignore_ascii_case(other)
}

/// The target of the pointer at `at`, if the name there is only a pointer.
pub(in crate::wire) fn pointer(message: &[u8], at: usize) -> Option<u16> {
    read_u16(message, at).ok().filter(|&word| word >= 0xc000)
}

/// The target of the pointer at `at`, which must be before `floor`; `pointers` were followed already.
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

/// The place behind the uncompressed name at `at`. A question's name is uncompressed: there is nothing to point to.
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
    fn pointers_only_lead_backwards() {
        let mut buffer = NameBuf::new();
        let message = b"\x03com\0\x07example\xc0\x00\xc0\x05";
        assert_eq!(buffer.expand(message, 15), Ok(17));
        assert_eq!(buffer.as_wire(), b"\x07example\x03com\0");
        // To itself, to the pointer before it, which leads to itself, and forwards.
        for (message, at) in [(&b"\xc0\x00"[..], 0), (b"\xc0\x00\xc0\x00", 2), (b"\x01a\xc0\x04\0", 0)] {
            assert_eq!(buffer.expand(message, at), Err(Malformed::Pointer), "{message:?}");
        }
        assert_eq!(buffer.expand(b"\x01a\0\xc0\x00", 3), Ok(5), "backwards is fine");
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
