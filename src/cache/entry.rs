//! The layout of an entry in the ring.
//!
//! ```text
//!  0  flags, u8
//!  1  form, u8
//!  2  stored at, u32, seconds
//!  6  lifetime, u32, seconds
//! 10  stamp: generation, u32
//! 14  stamp: fingerprint, u64
//! 22  stamp: rule, u24
//! 25  length of the message, u16
//! 27  count of TTLs, u8; 255: the count stands in front of the offsets, u16
//! 28  view, u32, unless it is 0
//!
//!     of a message that is one record set:
//!     its flags, u16, unless they are the usual ones
//!     the question's name and type
//!     the RDATA of each record
//!
//!     of any other:
//!     offsets of the TTLs in the message, u16 each
//!     the message without its id and QDCOUNT: flags, three counts, question, records
//! ```
//!
//! A message is one record set if all its records answer the question (class IN) under a name that is a pointer to it,
//! with RDATA of one length and the lifetime as their TTL. Most answers with addresses are, and the rest of such a message
//! can be written again from the question. It takes 12 to 14 octets less for each record, and some for the header.
//!
//! The key's name, type and class are those of the question, and its hash is computed again where an entry moves or is
//! removed: this saves 12 octets a name. The id is the client's, QDCOUNT is 1.

use crate::wire::{Class, RecordType, header::HEADER, name};

use super::{CacheKey, Hash, Integrity, MAX_RULE, New, Refusal, Stamp};

/// The fixed part.
const FIXED: usize = 28;
/// The octets of the header that are not stored with a whole message.
const OMITTED: usize = 4;
/// The octets of the header that are: flags and three counts.
const STORED_HEADER: usize = HEADER - OMITTED;
/// QTYPE, and QCLASS, which is not stored with a record set.
const QTYPE: usize = 2;
const QCLASS: usize = 2;
/// A record up to its RDATA, its name a pointer: type, class, TTL and RDLENGTH follow.
const RECORD: usize = 12;
/// The place of the TTL in it.
const RECORD_TTL: usize = 6;
/// The name of the question, as a pointer (RFC 1035 4.1.4).
const POINTER: [u8; 2] = [0xc0, 12];
/// Marks a count of TTLs that takes two octets.
const MANY: u8 = u8::MAX;
/// The flags of most answers: QR, RD, RA.
const USUAL_FLAGS: [u8; 2] = [0x81, 0x80];

/// Of the form: the flags of the message are stored. The value is the octets that they take.
const HAS_FLAGS: u8 = 0x02;
/// Of the form: the view is stored. The value is the octets that it takes.
const HAS_VIEW: u8 = 0x04;
/// Of the form, and of the key: DO.
const DO: u8 = 0x08;
/// Of the form, and of the key: CD.
const CD: u8 = 0x10;
/// Of the form: the message is one record set.
const SET: u8 = 0x20;

/// A flag of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u8);

impl Flag {
    /// Hit since it was stored or last passed over.
    pub(super) const VISITED: Self = Self(0x01);
    /// Hit at least once.
    pub(super) const HIT: Self = Self(0x02);
    /// Hit at least twice.
    pub(super) const POPULAR: Self = Self(0x04);
    /// A caller was told to fetch it again.
    pub(super) const CLAIMED: Self = Self(0x08);
    /// Removed or replaced: only its length still counts.
    pub(super) const DEAD: Self = Self(0x10);
    /// The guard removed addresses.
    pub(super) const STRIPPED: Self = Self(0x20);
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

    fn form(self) -> u8 {
        self.fixed()[1]
    }

    fn is_set(self) -> bool {
        self.form() & SET != 0
    }

    /// Bytes in the ring.
    pub(super) fn size(self) -> usize {
        if self.is_set() {
            self.name_at() + self.length() - HEADER - QCLASS - RECORD * usize::from(self.count())
        } else {
            self.body_at() + self.length() - OMITTED
        }
    }

    /// Octets of the whole message.
    pub(super) fn length(self) -> usize {
        usize::from(self.u16(25))
    }

    pub(super) fn has(self, flag: Flag) -> bool {
        self.fixed()[0] & flag.0 != 0
    }

    pub(super) fn stored_at(self) -> u32 {
        self.u32(2)
    }

    pub(super) fn lifetime(self) -> u32 {
        self.u32(6)
    }

    pub(super) fn generation(self) -> u32 {
        self.u32(10)
    }

    pub(super) fn rule(self) -> u32 {
        self.u32(22) & MAX_RULE
    }

    fn count(self) -> u8 {
        self.fixed()[27]
    }

    pub(super) fn stamp(self) -> Stamp {
        let fingerprint = u64::from(self.u32(14)) | u64::from(self.u32(18)) << 32;
        Stamp { generation: self.generation(), fingerprint, rule: self.rule() }
    }

    pub(super) fn integrity(self) -> Integrity {
        if self.has(Flag::STRIPPED) { Integrity::Stripped } else { Integrity::Whole }
    }

    fn view(self) -> u32 {
        let view = self.0[FIXED..].first_chunk().filter(|_| self.form() & HAS_VIEW != 0);
        view.map_or(0, |view| u32::from_le_bytes(*view))
    }

    /// Where what follows the view begins.
    fn variable_at(self) -> usize {
        FIXED + usize::from(self.form() & HAS_VIEW)
    }

    /// Where the offsets start, and how many there are; not of a record set.
    fn offsets_at(self) -> (usize, usize) {
        let start = self.variable_at();
        match self.count() {
            MANY => (start + 2, usize::from(u16::from_le_bytes([self.0[start], self.0[start + 1]]))),
            count => (start, usize::from(count)),
        }
    }

    /// Where the message starts, without its id and QDCOUNT; not of a record set.
    fn body_at(self) -> usize {
        let (offsets, count) = self.offsets_at();
        offsets + 2 * count
    }

    /// Where the question's name starts; its type follows, and its class unless this is a record set.
    fn name_at(self) -> usize {
        if self.is_set() {
            self.variable_at() + usize::from(self.form() & HAS_FLAGS)
        } else {
            self.body_at() + STORED_HEADER
        }
    }

    /// Whether this is the entry for `key`.
    pub(super) fn is_for(self, key: &CacheKey<'_>) -> bool {
        // A wire name ends with its root label, so that no name is the beginning of another.
        let Some((name, rest)) = self.0[self.name_at()..].split_at_checked(key.name.len()) else { return false };
        let is_same_type = match self.is_set() {
            true => key.qclass == Class::IN && rest.starts_with(&key.qtype.0.to_be_bytes()),
            false => rest.starts_with(&question_tail(key)),
        };
        is_same_type
            && self.form() & (DO | CD | HAS_VIEW) == key_form(key)
            && (self.form() & HAS_VIEW == 0 || self.view() == key.view)
            && name == key.name
    }

    /// The key it is stored under.
    pub(super) fn key(self) -> CacheKey<'a> {
        let question = &self.0[self.name_at()..];
        let end = name::skip_uncompressed(question, 0).expect("a stored question was compared with its key");
        let (name, rest) = question.split_at(end);
        let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        CacheKey {
            name,
            qtype: RecordType(word(0)),
            qclass: if self.is_set() { Class::IN } else { Class(word(QTYPE)) },
            do_bit: self.form() & DO != 0,
            cd: self.form() & CD != 0,
            view: self.view(),
        }
    }

    /// The hash of its key.
    pub(super) fn hash(self) -> Hash {
        self.key().hash()
    }

    /// Octets of the question's name.
    pub(super) fn name_length(self) -> usize {
        self.key().name.len()
    }

    /// Writes the whole message to the front of `reply`, its id zero and its TTLs changed, if it fits, and returns it.
    /// `name` is [`Self::name_length`], which callers with a key know.
    pub(super) fn copy_to(self, reply: &mut [u8], name: usize, change: impl Fn(u32) -> u32) -> Option<&mut [u8]> {
        let message = reply.get_mut(..self.length())?;
        if self.is_set() {
            self.write_set(message, name, change(self.lifetime()));
            return Some(message);
        }
        let (offsets, count) = self.offsets_at();
        let (offsets, body) = self.0[offsets..].split_at(2 * count);
        write_message(message, &body[..message.len() - OMITTED]);
        for &offset in offsets.as_chunks().0 {
            let ttl = message.get_mut(usize::from(u16::from_le_bytes(offset))..).and_then(<[u8]>::first_chunk_mut);
            if let Some(ttl) = ttl {
                *ttl = change(u32::from_be_bytes(*ttl)).to_be_bytes();
            }
        }
        Some(message)
    }

    /// Shows where in the message each TTL stands; `name` is [`Self::name_length`].
    pub(super) fn for_each_ttl(self, name: usize, mut show: impl FnMut(u16)) {
        if self.is_set() {
            let count = usize::from(self.count());
            let start = HEADER + name + QTYPE + QCLASS;
            let size = (self.length() - start).checked_div(count).unwrap_or(0).max(1);
            (start + RECORD_TTL..)
                .step_by(size)
                .take(count)
                .filter_map(|at| u16::try_from(at).ok())
                .for_each(&mut show);
        } else {
            let (start, count) = self.offsets_at();
            let stored = self.0[start..start + 2 * count].as_chunks().0;
            stored.iter().for_each(|&pair| show(u16::from_le_bytes(pair)));
        }
    }

    /// Writes the message of a record set.
    fn write_set(self, message: &mut [u8], name: usize, ttl: u32) {
        let (count, at) = (self.count(), self.name_at());
        let (question, data) = self.0[at..].split_at(name + QTYPE);
        let (front, records) = message.split_at_mut(HEADER + question.len() + QCLASS);
        self.write_front(front, at, count, question);
        let mut head = record_head(&question[name..], ttl);
        match records.len() {
            length if length == usize::from(count) * 16 => write_records::<16, 4>(records, head, data),
            length if length == usize::from(count) * 28 => write_records::<28, 16>(records, head, data),
            length => {
                let size = length.checked_div(usize::from(count)).unwrap_or(0).max(RECORD + 1);
                head[RECORD - 2..].copy_from_slice(&rdlength(size));
                for (record, data) in records.chunks_exact_mut(size).zip(data.chunks_exact(size - RECORD)) {
                    let (front, rdata) = record.split_at_mut(RECORD);
                    front.copy_from_slice(&head);
                    rdata.copy_from_slice(data);
                }
            }
        }
    }

    /// Writes header and question of a record set, whose name is stored at `at` and of which `count` records follow.
    fn write_front(self, front: &mut [u8], at: usize, count: u8, question: &[u8]) {
        let [a, b] = if self.form() & HAS_FLAGS == 0 { USUAL_FLAGS } else { [self.0[at - 2], self.0[at - 1]] };
        let Some((header, rest)) = front.split_first_chunk_mut() else { return };
        *header = [0, 0, a, b, 0, 1, 0, count, 0, 0, 0, 0];
        let Some((name_and_type, class)) = rest.split_last_chunk_mut() else { return };
        *class = Class::IN.0.to_be_bytes();
        name_and_type.copy_from_slice(question);
    }

    /// Writes header and question alone, as far as they fit, with the last three counts zero; gives the octets.
    pub(super) fn copy_question_to(self, reply: &mut [u8]) -> usize {
        let name = self.name_length();
        let question = HEADER + name + QTYPE + QCLASS;
        let Some(front) = reply.get_mut(..question) else { return 0 };
        if self.is_set() {
            let at = self.name_at();
            self.write_front(front, at, 0, &self.0[at..at + name + QTYPE]);
        } else {
            write_message(front, &self.0[self.body_at()..][..question - OMITTED]);
            front[6..HEADER].fill(0);
        }
        question
    }
}

fn write_message(message: &mut [u8], body: &[u8]) {
    message[..2].fill(0);
    message[2..4].copy_from_slice(&body[..2]);
    message[4..6].copy_from_slice(&[0, 1]);
    message[6..].copy_from_slice(&body[2..]);
}

/// Writes records of `SIZE` octets each, `RDATA` of them behind the head: their length known, each is a few instructions.
fn write_records<const SIZE: usize, const RDATA: usize>(records: &mut [u8], mut head: [u8; RECORD], data: &[u8]) {
    head[RECORD - 2..].copy_from_slice(&rdlength(SIZE));
    for (record, data) in records.as_chunks_mut::<SIZE>().0.iter_mut().zip(data.as_chunks::<RDATA>().0) {
        record[..RECORD].copy_from_slice(&head);
        record[RECORD..].copy_from_slice(data);
    }
}

/// The front of a record of a set, its RDLENGTH zero.
fn record_head(qtype: &[u8], ttl: u32) -> [u8; RECORD] {
    let mut head = [0; RECORD];
    head[..2].copy_from_slice(&POINTER);
    head[2..4].copy_from_slice(qtype);
    head[4..RECORD_TTL].copy_from_slice(&Class::IN.0.to_be_bytes());
    head[RECORD_TTL..RECORD_TTL + 4].copy_from_slice(&ttl.to_be_bytes());
    head
}

/// RDLENGTH of a record of `size` octets in a set.
fn rdlength(size: usize) -> [u8; 2] {
    u16::try_from(size - RECORD).unwrap_or(0).to_be_bytes()
}

/// Sets flags of the entry that `bytes` start with.
pub(super) fn set(bytes: &mut [u8], flag: Flag) {
    // Written only if it is not set: a cache line that is only read stays shared between cores.
    if bytes[0] & flag.0 == 0 {
        bytes[0] |= flag.0;
    }
}

/// Unsets a flag of the entry that `bytes` start with.
pub(super) fn unset(bytes: &mut [u8], flag: Flag) {
    bytes[0] &= !flag.0;
}

/// Gives the entry that `bytes` start with another stamp.
pub(super) fn restamp(bytes: &mut [u8], stamp: Stamp) {
    bytes[10..14].copy_from_slice(&stamp.generation.to_le_bytes());
    bytes[14..22].copy_from_slice(&stamp.fingerprint.to_le_bytes());
    bytes[22..25].copy_from_slice(&stamp.rule.min(MAX_RULE).to_le_bytes()[..3]);
}

/// QTYPE and QCLASS of the question.
fn question_tail(key: &CacheKey<'_>) -> [u8; QTYPE + QCLASS] {
    let [a, b] = key.qtype.0.to_be_bytes();
    let [c, d] = key.qclass.0.to_be_bytes();
    [a, b, c, d]
}

/// The part of the form that the key decides.
fn key_form(key: &CacheKey<'_>) -> u8 {
    (u8::from(key.do_bit) * DO) | (u8::from(key.cd) * CD) | (u8::from(key.view != 0) * HAS_VIEW)
}

/// An answer that has been checked and can be stored.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    key: CacheKey<'a>,
    new: New<'a>,
    form: u8,
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
        let tail = rest.strip_prefix(key.name).ok_or(Refusal::Mismatch)?;
        let records = tail.strip_prefix(&question_tail(key)).ok_or(Refusal::Mismatch)?;
        let is_whole = name::skip_uncompressed(key.name, 0) == Ok(key.name.len());
        let is_inside = |&at: &u16| usize::from(at) >= HEADER && usize::from(at) + 4 <= usize::from(length);
        if header[4..6] != [0, 1] || !is_whole || !new.ttl_offsets.iter().all(is_inside) {
            return Err(Refusal::Mismatch);
        }
        let mut form = key_form(key);
        if key.qclass == Class::IN && is_record_set(&new, records) {
            form |= SET | (u8::from(header[2..4] != USUAL_FLAGS) * HAS_FLAGS);
        }
        Ok(Self { key: *key, new, form, length, count })
    }

    fn is_set(&self) -> bool {
        self.form & SET != 0
    }

    fn is_many(&self) -> bool {
        self.count >= u16::from(MANY)
    }

    /// Bytes in the ring.
    pub(super) fn size(&self) -> usize {
        let [length, count] = [self.length, self.count].map(usize::from);
        let fixed = FIXED + usize::from(self.form & HAS_VIEW);
        if self.is_set() {
            fixed + usize::from(self.form & HAS_FLAGS) + length - HEADER - QCLASS - RECORD * count
        } else {
            fixed + 2 * (usize::from(self.is_many()) + count) + length - OMITTED
        }
    }

    /// Writes the entry to the front of `bytes`.
    pub(super) fn write(&self, bytes: &mut [u8], flags: &[Flag]) {
        let New { message, ttl_offsets, lifetime, now, stamp, integrity } = self.new;
        bytes[0] = flags.iter().fold(0, |all, flag| all | flag.0);
        if integrity == Integrity::Stripped {
            bytes[0] |= Flag::STRIPPED.0;
        }
        bytes[1] = self.form;
        bytes[2..6].copy_from_slice(&now.to_le_bytes());
        bytes[6..10].copy_from_slice(&lifetime.to_le_bytes());
        restamp(bytes, stamp);
        bytes[25..27].copy_from_slice(&self.length.to_le_bytes());
        bytes[27] = u8::try_from(self.count).unwrap_or(MANY);
        let mut at = FIXED;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        if self.form & HAS_VIEW != 0 {
            put(&self.key.view.to_le_bytes());
        }
        if self.is_set() {
            if self.form & HAS_FLAGS != 0 {
                put(&message[2..4]);
            }
            let (question, records) = message[HEADER..].split_at(self.key.name.len() + QTYPE + QCLASS);
            put(&question[..question.len() - QCLASS]);
            let size = records.len() / usize::from(self.count).max(1);
            records.chunks(size.max(1)).for_each(|record| put(&record[RECORD..]));
            return;
        }
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

/// Whether an answer is one record set as the module describes it; `records` is its message behind the question.
fn is_record_set(new: &New<'_>, records: &[u8]) -> bool {
    let count = match u8::try_from(new.ttl_offsets.len()) {
        Ok(count) if (1..MANY).contains(&count) => count,
        _ => return false,
    };
    let size = records.len() / usize::from(count);
    if new.message[6..HEADER] != [0, count, 0, 0, 0, 0]
        || !records.len().is_multiple_of(usize::from(count))
        || size <= RECORD
    {
        return false;
    }
    let start = new.message.len() - records.len();
    let mut head = record_head(&new.message[start - QTYPE - QCLASS..][..QTYPE], new.lifetime);
    head[RECORD - 2..].copy_from_slice(&rdlength(size));
    let ttls = (start + RECORD_TTL..).step_by(size);
    let is_usual =
        |(record, (&offset, ttl)): (&[u8], (&u16, usize))| record.starts_with(&head) && usize::from(offset) == ttl;
    records.chunks_exact(size).zip(new.ttl_offsets.iter().zip(ttls)).all(is_usual)
}
