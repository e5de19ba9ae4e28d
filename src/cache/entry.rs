//! One entry as octets in the ring: a head of fixed length, the places of its TTLs, the message.

use super::key::{Key, Tag};
use crate::wire::{Class, RecordType, header::HEADER, name};

/// What shaped an answer, and when that was last looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The configuration under which it was last found valid.
    pub generation: u32,
    /// All that shaped it.
    pub fingerprint: u64,
    /// The rule that brought it, in that configuration.
    pub rule: u16,
}

/// The length of an entry's head in octets.
pub(super) const HEAD: usize = 36;
/// Entries begin at multiples of this.
pub(super) const ALIGN: usize = 4;

const SIZE: usize = 0;
const HASH: usize = 4;
const STORED_AT: usize = 8;
const LIFETIME: usize = 12;
const GENERATION: usize = 16;
const FINGERPRINT: usize = 20;
const RULE: usize = 28;
const VIEW: usize = 30;
const TTLS: usize = 32;
const MESSAGE: usize = 34;
/// The flags share a word with the size, whose upper octet it does not need.
const FLAGS: usize = 3;

/// The entry is no longer in the table.
pub(super) const DEAD: u8 = 1;
/// It was asked for since it came to the head.
pub(super) const VISITED: u8 = 2;
/// It was asked for twice in its life.
pub(super) const POPULAR: u8 = 4;
/// Somebody was told to fetch it again.
pub(super) const CLAIMED: u8 = 8;
/// Key: DO.
pub(super) const DO_BIT: u8 = 16;
/// Key: CD.
pub(super) const CD: u8 = 32;

/// An entry that stands at the start of these octets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a [u8]);

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |word| u32::from_le_bytes(*word))
}

fn half(octets: &[u8], at: usize) -> u16 {
    octets.get(at..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |half| u16::from_le_bytes(*half))
}

impl<'a> Entry<'a> {
    /// In octets, a multiple of [`ALIGN`].
    pub(super) fn size(self) -> usize {
        usize::try_from(word(self.0, SIZE) & 0x00ff_ffff).unwrap_or(0) * ALIGN
    }

    pub(super) fn flags(self) -> u8 {
        self.0[FLAGS]
    }

    pub(super) fn hash(self) -> u32 {
        word(self.0, HASH)
    }

    pub(super) fn stored_at(self) -> u32 {
        word(self.0, STORED_AT)
    }

    pub(super) fn lifetime(self) -> u32 {
        word(self.0, LIFETIME)
    }

    pub(super) fn stamp(self) -> Stamp {
        let fingerprint = u64::from(word(self.0, FINGERPRINT)) | u64::from(word(self.0, FINGERPRINT + 4)) << 32;
        Stamp { generation: word(self.0, GENERATION), fingerprint, rule: half(self.0, RULE) }
    }

    pub(super) fn rule(self) -> u16 {
        half(self.0, RULE)
    }

    pub(super) fn generation(self) -> u32 {
        word(self.0, GENERATION)
    }

    fn ttls(self) -> usize {
        usize::from(half(self.0, TTLS))
    }

    /// Where in the message its TTLs stand.
    pub(super) fn ttl_offsets(self) -> impl ExactSizeIterator<Item = usize> + use<'a> {
        let places = &self.0[HEAD..HEAD + 2 * self.ttls()];
        places.chunks_exact(2).map(|place| usize::from(u16::from_le_bytes([place[0], place[1]])))
    }

    pub(super) fn message(self) -> &'a [u8] {
        let at = HEAD + 2 * self.ttls();
        &self.0[at..at + usize::from(half(self.0, MESSAGE))]
    }

    /// Whether this is the entry of the key.
    pub(super) fn is_for(self, tag: &Tag<'_, '_>) -> bool {
        if self.hash() != tag.hash || half(self.0, VIEW) != tag.key.view {
            return false;
        }
        let key_flags = flags_of(tag.key);
        if self.flags() & (DO_BIT | CD) != key_flags {
            return false;
        }
        let question = &self.message()[HEADER..];
        let name = tag.key.name;
        let [t0, t1] = tag.key.qtype.0.to_be_bytes();
        let [c0, c1] = tag.key.qclass.0.to_be_bytes();
        question.starts_with(name) && question[name.len()..].starts_with(&[t0, t1, c0, c1])
    }
}

/// The flags that are part of the key.
pub(super) fn flags_of(key: &Key<'_>) -> u8 {
    (if key.do_bit { DO_BIT } else { 0 }) | (if key.cd { CD } else { 0 })
}

/// The octets an entry takes.
pub(super) fn size_of(ttls: usize, message: usize) -> usize {
    (HEAD + 2 * ttls + message).next_multiple_of(ALIGN)
}

/// Writes size and flags at the start of an entry, or of octets that are none.
pub(super) fn mark(octets: &mut [u8], size: usize, flags: u8) {
    let units = u32::try_from(size / ALIGN).unwrap_or(0) & 0x00ff_ffff;
    octets[SIZE..SIZE + 4].copy_from_slice(&(units | u32::from(flags) << 24).to_le_bytes());
}

/// Sets flags of an entry.
pub(super) fn add_flags(octets: &mut [u8], flags: u8) {
    octets[FLAGS] |= flags;
}

/// Clears flags of an entry.
pub(super) fn clear_flags(octets: &mut [u8], flags: u8) {
    octets[FLAGS] &= !flags;
}

/// Writes a stamp into an entry.
pub(super) fn write_stamp(octets: &mut [u8], stamp: Stamp) {
    octets[GENERATION..GENERATION + 4].copy_from_slice(&stamp.generation.to_le_bytes());
    octets[FINGERPRINT..FINGERPRINT + 8].copy_from_slice(&stamp.fingerprint.to_le_bytes());
    octets[RULE..RULE + 2].copy_from_slice(&stamp.rule.to_le_bytes());
}

/// Writes a whole entry.
pub(super) fn write(octets: &mut [u8], tag: &Tag<'_, '_>, new: &super::New<'_>) {
    let size = size_of(new.ttl_offsets.len(), new.message.len());
    mark(octets, size, flags_of(tag.key));
    octets[HASH..HASH + 4].copy_from_slice(&tag.hash.to_le_bytes());
    octets[STORED_AT..STORED_AT + 4].copy_from_slice(&new.now.to_le_bytes());
    octets[LIFETIME..LIFETIME + 4].copy_from_slice(&new.lifetime.to_le_bytes());
    write_stamp(octets, new.stamp);
    octets[VIEW..VIEW + 2].copy_from_slice(&tag.key.view.to_le_bytes());
    octets[TTLS..TTLS + 2].copy_from_slice(&u16::try_from(new.ttl_offsets.len()).unwrap_or(0).to_le_bytes());
    octets[MESSAGE..MESSAGE + 2].copy_from_slice(&u16::try_from(new.message.len()).unwrap_or(0).to_le_bytes());
    let mut at = HEAD;
    for place in new.ttl_offsets {
        octets[at..at + 2].copy_from_slice(&place.to_le_bytes());
        at += 2;
    }
    octets[at..at + new.message.len()].copy_from_slice(new.message);
}

/// An entry as others see it.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    entry: Entry<'a>,
}

impl<'a> EntryView<'a> {
    pub(super) const fn new(entry: Entry<'a>) -> Self {
        Self { entry }
    }

    /// The key.
    pub fn key(&self) -> Key<'a> {
        let message = self.message();
        let end = name::skip_uncompressed(message, HEADER).unwrap_or(HEADER);
        let number = |at: usize| message.get(at..at + 2).map_or(0, |n| u16::from_be_bytes([n[0], n[1]]));
        Key {
            name: &message[HEADER..end],
            qtype: RecordType(number(end)),
            qclass: Class(number(end + 2)),
            do_bit: self.entry.flags() & DO_BIT != 0,
            cd: self.entry.flags() & CD != 0,
            view: half(self.entry.0, VIEW),
        }
    }

    /// The message, its TTLs as they were when it was stored.
    pub fn message(&self) -> &'a [u8] {
        self.entry.message()
    }

    /// Where in the message its TTLs stand.
    pub fn ttl_offsets(&self) -> impl ExactSizeIterator<Item = usize> + use<'a> {
        self.entry.ttl_offsets()
    }

    /// When it was stored, in seconds.
    pub fn stored_at(&self) -> u32 {
        self.entry.stored_at()
    }

    /// How long it is fresh, in seconds.
    pub fn lifetime(&self) -> u32 {
        self.entry.lifetime()
    }

    /// What shaped it.
    pub fn stamp(&self) -> Stamp {
        self.entry.stamp()
    }
}
