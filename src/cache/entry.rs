//! The layout of an entry in the ring.
//!
//! ```text
//!  0  length of the message, u16
//!  2  count of TTLs, u8; 255: the count stands in front of the offsets, u16
//!  3  flags, u8
//!  4  stored at, u32, seconds
//!  8  lifetime, u32, seconds
//! 12  stamp: generation, u32
//! 16  stamp: fingerprint, u64
//! 24  stamp: rule, u16
//! 26  view, u16
//! 28  offsets of the TTLs in the message, u16 each
//!     the message without its id and QDCOUNT: flags, three counts, question, records
//! ```
//!
//! The key's name, type and class are those of the question, and its hash is computed again where an entry moves or is
//! removed: this saves 12 octets a name. The id is the client's, QDCOUNT is 1.

use crate::wire::{Class, RecordType, header::HEADER, name};

use super::{CacheKey, Hash, Integrity, New, Refusal, Stamp, ring::UNIT};

/// The fixed part.
const FIXED: usize = 28;
/// The octets of the header that are not stored.
const OMITTED: usize = 4;
/// The octets of the header that are stored: flags and three counts.
const STORED_HEADER: usize = HEADER - OMITTED;
/// QTYPE and QCLASS.
const QUESTION_TAIL: usize = 4;
/// Marks a count of TTLs that takes two octets.
const MANY: u8 = u8::MAX;

/// A flag of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u8);

impl Flag {
    /// Hit since it was stored or last passed over.
    pub(super) const VISITED: Self = Self(0x01);
    /// Of the key: DO.
    pub(super) const DO: Self = Self(0x02);
    /// Of the key: CD.
    pub(super) const CD: Self = Self(0x04);
    /// Hit at least once.
    pub(super) const HIT: Self = Self(0x08);
    /// Hit at least twice.
    pub(super) const POPULAR: Self = Self(0x10);
    /// A caller was told to fetch it again.
    pub(super) const CLAIMED: Self = Self(0x20);
    /// Removed or replaced: only its length still counts.
    pub(super) const DEAD: Self = Self(0x40);
    /// The guard removed addresses.
    pub(super) const STRIPPED: Self = Self(0x80);
}

/// An entry to be read; the slice may be longer than the entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a [u8]);

impl<'a> Entry<'a> {
    /// The fixed part, whose fields are read without another look at the length.
    fn fixed(self) -> &'a [u8; FIXED] {
        self.0.first_chunk().expect("an entry is at least its fixed part")
    }

    fn u16(self, at: usize) -> u16 {
        let fixed = self.fixed();
        u16::from_le_bytes([fixed[at], fixed[at + 1]])
    }

    fn u32(self, at: usize) -> u32 {
        let fixed = self.fixed();
        u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
    }

    /// Bytes in the ring.
    pub(super) fn size(self) -> usize {
        let (offsets, count) = self.offsets_at();
        size_of_entry(offsets - FIXED + 2 * count, self.length())
    }

    /// Octets of the whole message.
    pub(super) fn length(self) -> usize {
        usize::from(self.u16(0))
    }

    pub(super) fn has(self, flag: Flag) -> bool {
        self.fixed()[3] & flag.0 != 0
    }

    pub(super) fn stored_at(self) -> u32 {
        self.u32(4)
    }

    pub(super) fn lifetime(self) -> u32 {
        self.u32(8)
    }

    pub(super) fn generation(self) -> u32 {
        self.u32(12)
    }

    pub(super) fn rule(self) -> u16 {
        self.u16(24)
    }

    pub(super) fn stamp(self) -> Stamp {
        let fingerprint = u64::from(self.u32(16)) | u64::from(self.u32(20)) << 32;
        Stamp { generation: self.generation(), fingerprint, rule: self.rule() }
    }

    pub(super) fn integrity(self) -> Integrity {
        if self.has(Flag::STRIPPED) { Integrity::Stripped } else { Integrity::Whole }
    }

    /// Where the offsets start, and how many there are.
    fn offsets_at(self) -> (usize, usize) {
        match self.fixed()[2] {
            MANY => (FIXED + 2, usize::from(u16::from_le_bytes([self.0[FIXED], self.0[FIXED + 1]]))),
            count => (FIXED, usize::from(count)),
        }
    }

    /// Where in the message the TTLs stand.
    pub(super) fn ttl_offsets(self) -> impl Iterator<Item = u16> + 'a {
        let (start, count) = self.offsets_at();
        self.0[start..start + 2 * count].as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair))
    }

    /// The message without its id and QDCOUNT.
    fn body(self) -> &'a [u8] {
        let (offsets, count) = self.offsets_at();
        let start = offsets + 2 * count;
        &self.0[start..start + self.length() - OMITTED]
    }

    /// Whether this is the entry for `key`.
    pub(super) fn is_for(self, key: &CacheKey<'_>) -> bool {
        // A wire name ends with its root label, so that no name is the beginning of another.
        let Some((name, rest)) = self.body()[STORED_HEADER..].split_at_checked(key.name.len()) else { return false };
        name == key.name
            && rest.starts_with(&question_tail(key))
            && self.fixed()[3] & (Flag::DO.0 | Flag::CD.0) == key_flags(key)
            && self.u16(26) == key.view
    }

    /// The key it is stored under.
    pub(super) fn key(self) -> CacheKey<'a> {
        let question = &self.body()[STORED_HEADER..];
        let end = name::skip_uncompressed(question, 0).expect("a stored question was compared with its key");
        let (name, rest) = question.split_at(end);
        let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        CacheKey {
            name,
            qtype: RecordType(word(0)),
            qclass: Class(word(2)),
            do_bit: self.has(Flag::DO),
            cd: self.has(Flag::CD),
            view: self.u16(26),
        }
    }

    /// The hash of its key.
    pub(super) fn hash(self) -> Hash {
        self.key().hash()
    }

    /// Writes the whole message to the front of `reply`, its id zero, if it fits; gives its octets.
    pub(super) fn copy_to(self, reply: &mut [u8]) -> Option<&mut [u8]> {
        let body = self.body();
        let message = reply.get_mut(..self.length())?;
        write_message(message, body);
        Some(message)
    }

    /// Writes header and question alone, as far as they fit, with the last three counts zero; gives the octets.
    pub(super) fn copy_question_to(self, reply: &mut [u8]) -> usize {
        let question = HEADER + self.key().name.len() + QUESTION_TAIL;
        let Some(front) = reply.get_mut(..question) else { return 0 };
        write_message(front, &self.body()[..question - OMITTED]);
        front[6..HEADER].fill(0);
        question
    }
}

fn write_message(message: &mut [u8], body: &[u8]) {
    message[..2].fill(0);
    message[2..4].copy_from_slice(&body[..2]);
    message[4..6].copy_from_slice(&[0, 1]);
    message[6..].copy_from_slice(&body[2..]);
}

/// Sets flags of the entry that `bytes` start with.
pub(super) fn set(bytes: &mut [u8], flag: Flag) {
    // Written only if it is not set: a cache line that is only read stays shared between cores.
    if bytes[3] & flag.0 == 0 {
        bytes[3] |= flag.0;
    }
}

/// Unsets a flag of the entry that `bytes` start with.
pub(super) fn unset(bytes: &mut [u8], flag: Flag) {
    bytes[3] &= !flag.0;
}

/// Gives the entry that `bytes` start with another stamp.
pub(super) fn restamp(bytes: &mut [u8], stamp: Stamp) {
    bytes[12..16].copy_from_slice(&stamp.generation.to_le_bytes());
    bytes[16..24].copy_from_slice(&stamp.fingerprint.to_le_bytes());
    bytes[24..26].copy_from_slice(&stamp.rule.to_le_bytes());
}

fn question_tail(key: &CacheKey<'_>) -> [u8; QUESTION_TAIL] {
    let [a, b] = key.qtype.0.to_be_bytes();
    let [c, d] = key.qclass.0.to_be_bytes();
    [a, b, c, d]
}

fn key_flags(key: &CacheKey<'_>) -> u8 {
    (u8::from(key.do_bit) * Flag::DO.0) | (u8::from(key.cd) * Flag::CD.0)
}

fn size_of_entry(offsets: usize, length: usize) -> usize {
    (FIXED + offsets + length - OMITTED).next_multiple_of(UNIT)
}

/// An answer that has been checked and can be stored.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    key: CacheKey<'a>,
    new: New<'a>,
    length: u16,
    count: u16,
}

impl<'a> Draft<'a> {
    /// Checks what later reads rely on: the question matches the key, and all offsets lie inside the message.
    pub(super) fn new(key: &CacheKey<'a>, new: New<'a>) -> Result<Self, Refusal> {
        if new.lifetime == 0 {
            return Err(Refusal::NoLifetime);
        }
        let length = u16::try_from(new.message.len()).map_err(|_| Refusal::TooLarge)?;
        let count = u16::try_from(new.ttl_offsets.len()).map_err(|_| Refusal::TooLarge)?;
        let (header, rest) = new.message.split_at_checked(HEADER).ok_or(Refusal::Mismatch)?;
        let question = rest.strip_prefix(key.name).ok_or(Refusal::Mismatch)?;
        let is_whole = name::skip_uncompressed(key.name, 0) == Ok(key.name.len());
        let is_inside = |&at: &u16| usize::from(at) >= HEADER && usize::from(at) + 4 <= usize::from(length);
        if header[4..6] != [0, 1]
            || !is_whole
            || !question.starts_with(&question_tail(key))
            || !new.ttl_offsets.iter().all(is_inside)
        {
            return Err(Refusal::Mismatch);
        }
        Ok(Self { key: *key, new, length, count })
    }

    fn is_many(&self) -> bool {
        self.count >= u16::from(MANY)
    }

    /// Bytes in the ring.
    pub(super) fn size(&self) -> usize {
        size_of_entry(2 * (usize::from(self.is_many()) + usize::from(self.count)), usize::from(self.length))
    }

    /// Writes the entry to the front of `bytes`.
    pub(super) fn write(&self, bytes: &mut [u8], flags: &[Flag]) {
        let New { message, ttl_offsets, lifetime, now, stamp, integrity } = self.new;
        bytes[..2].copy_from_slice(&self.length.to_le_bytes());
        bytes[2] = u8::try_from(self.count).unwrap_or(MANY);
        bytes[3] = flags.iter().fold(key_flags(&self.key), |all, flag| all | flag.0);
        if integrity == Integrity::Stripped {
            bytes[3] |= Flag::STRIPPED.0;
        }
        bytes[4..8].copy_from_slice(&now.to_le_bytes());
        bytes[8..12].copy_from_slice(&lifetime.to_le_bytes());
        restamp(bytes, stamp);
        bytes[26..28].copy_from_slice(&self.key.view.to_le_bytes());
        let mut at = FIXED;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        if self.is_many() {
            put(&self.count.to_le_bytes());
        }
        for offset in ttl_offsets {
            put(&offset.to_le_bytes());
        }
        put(&message[2..4]);
        put(&message[6..]);
    }
}

/// An entry as callers see it.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// Its key.
    pub key: CacheKey<'a>,
    /// The message, its id zero, its TTLs as they were when it was stored.
    pub message: &'a [u8],
    /// Where in the message the TTLs stand.
    pub ttl_offsets: &'a [u16],
    /// When it was stored, in seconds.
    pub stored_at: u32,
    /// Seconds that it is good for from then.
    pub lifetime: u32,
    /// The rules it was made under.
    pub stamp: Stamp,
    /// Whether the guard removed addresses.
    pub integrity: Integrity,
}

/// Buffers to show entries from.
#[derive(Debug, Default)]
pub(super) struct Showcase {
    message: Vec<u8>,
    ttl_offsets: Vec<u16>,
}

impl Showcase {
    /// Decodes an entry.
    pub(super) fn show<'a>(&'a mut self, entry: Entry<'a>) -> EntryView<'a> {
        self.message.resize(entry.length(), 0);
        write_message(&mut self.message, entry.body());
        self.ttl_offsets.clear();
        self.ttl_offsets.extend(entry.ttl_offsets());
        EntryView {
            key: entry.key(),
            message: &self.message,
            ttl_offsets: &self.ttl_offsets,
            stored_at: entry.stored_at(),
            lifetime: entry.lifetime(),
            stamp: entry.stamp(),
            integrity: entry.integrity(),
        }
    }
}
