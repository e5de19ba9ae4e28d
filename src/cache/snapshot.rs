//! The format of a cache snapshot file: writer, and a reader that trusts nothing it cannot check.
//!
//! ```text
//! 16  MAGIC
//!  4  VERSION, u32
//!  8  a nonce, u64
//!     blocks: 4  octets of the body, u32
//!             4  entries in it, u32
//!             8  checksum of these two and the body, seeded with the nonce and the block's number, u64
//!                the body
//! ```
//!
//! The first block holds when the file was written and the rules that its entries name; the last has no body, and counts
//! the entries of all blocks. Integers are little-endian. A file that ends early, goes on behind its last block, or has a
//! flipped bit is a [`SnapshotError`], and the reader's caller must discard the entries it got so far. Checksums are seeded
//! so that a block of an older file, left on the disk, does not pass as one of this file.
//!
//! Ages are seconds at the time of writing. Views and rules are numbers of the configuration that wrote the file; its
//! list of rules says which those were. Nothing here knows rules, files or folders: the engine and the daemon do.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

use super::{CacheKey, EntryView, Integrity};
use crate::{
    system_error::SystemError,
    wire::{Class, RecordType, header::HEADER, name},
};

/// First octets of every snapshot file.
const MAGIC: [u8; 16] = *b"tidegate cache\r\n";
/// Version of the format. Others are not read.
const VERSION: u32 = 1;
/// Length of the file header in front of the blocks.
const PREAMBLE: usize = MAGIC.len() + 4 + 8;
/// Length of the header in front of a block's body.
const FRAME: usize = 16;
/// A block is written once its body is as long as this.
const BLOCK: usize = 64 << 10;
/// The longest body: a block that was nearly full, and one more entry of the longest kind.
const MAX_BODY: usize = BLOCK + FIXED + 2 * 65_535 + 65_535;
/// The longest first body, which names the rules: a million of them.
const MAX_HEADER: usize = 160 << 20;
/// An entry's numbers.
const FIXED: usize = 28;
/// The largest view that is written; those of audiences lie above.
const MAX_SAVED_VIEW: u32 = (1 << 24) - 1;
/// In an entry's flags.
const DO: u8 = 1;
const CD: u8 = 2;
const STRIPPED: u8 = 4;

/// Why a snapshot file is rejected.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read.
    #[error("it cannot be read: {}", SystemError(.0))]
    Io(#[from] io::Error),
    /// It is not a snapshot.
    #[error("it is no cache snapshot")]
    Foreign,
    /// It has another version of the format.
    #[error("it is of format version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// It is cut off.
    #[error("it is torn: it ends within block {0}")]
    Torn(u64),
    /// A checksum or a field is wrong.
    #[error("it is damaged in block {0}")]
    Checksum(u64),
    /// It goes on behind its last block.
    #[error("it goes on behind its end")]
    Trailing,
}

/// Header of a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotHeader {
    /// When it was written, in seconds of the wall clock since 1970.
    pub written: u64,
    /// About how many entries follow.
    pub entries: u64,
    /// The rules that entries name by their position.
    pub rules: Vec<SnapshotRule>,
}

/// A rule as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRule {
    /// Its name.
    pub name: String,
    /// The fingerprint of all that shapes its answers.
    pub fingerprint: u64,
}

/// An entry in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedEntry<'a> {
    /// What it was stored under; the view is of the configuration that wrote the file.
    pub key: CacheKey<'a>,
    /// The message.
    pub message: &'a [u8],
    /// Its age when the file was written, in seconds.
    pub age: u32,
    /// Its lifetime since it came in, in seconds.
    pub lifetime: u32,
    /// The position of its rule among those of the file.
    pub rule: u32,
    /// The fingerprint of all rules that shaped it.
    pub fingerprint: u64,
    /// Whether the guard left addresses out of it.
    pub integrity: Integrity,
}

/// Writes a file.
#[derive(Debug)]
pub struct SnapshotWriter<W> {
    out: W,
    nonce: u64,
    number: u64,
    body: Vec<u8>,
    entries: u32,
    total: u32,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins a file. `nonce` is another for each file.
    pub fn begin(mut out: W, nonce: u64, header: &SnapshotHeader) -> io::Result<Self> {
        let mut preamble = Vec::with_capacity(PREAMBLE);
        preamble.extend_from_slice(&MAGIC);
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        preamble.extend_from_slice(&nonce.to_le_bytes());
        out.write_all(&preamble)?;
        let mut writer = Self { out, nonce, number: 0, body: Vec::new(), entries: 0, total: 0 };
        writer.body.extend_from_slice(&header.written.to_le_bytes());
        writer.body.extend_from_slice(&header.entries.to_le_bytes());
        for rule in &header.rules {
            writer.body.extend_from_slice(&rule.fingerprint.to_le_bytes());
            writer.body.extend_from_slice(&u32::try_from(rule.name.len()).unwrap_or(0).to_le_bytes());
            writer.body.extend_from_slice(rule.name.as_bytes());
        }
        writer.block()?;
        Ok(writer)
    }

    /// Buffers an entry that was stored `age` seconds ago. Writes nothing, so it may be called under a lock.
    pub fn push(&mut self, entry: &EntryView<'_>, age: u32) {
        let (Ok(length), Ok(count)) = (u16::try_from(entry.message.len()), u16::try_from(entry.ttl_offsets.len()))
        else {
            return;
        };
        if entry.key.view > MAX_SAVED_VIEW {
            return;
        }
        let is_stripped = entry.integrity == Integrity::Stripped;
        let flags = [(entry.key.do_bit, DO), (entry.key.cd, CD), (is_stripped, STRIPPED)];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        let body = &mut self.body;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        // The third octet of the view stands in front: files have two for it since before there were so many.
        let [view @ .., high, _] = entry.key.view.to_le_bytes();
        body.extend_from_slice(&[flags, high]);
        body.extend_from_slice(&view);
        body.extend_from_slice(&entry.stamp.rule.to_le_bytes());
        body.extend_from_slice(&entry.lifetime.to_le_bytes());
        body.extend_from_slice(&age.to_le_bytes());
        body.extend_from_slice(&entry.stamp.fingerprint.to_le_bytes());
        entry.ttl_offsets.iter().for_each(|offset| body.extend_from_slice(&offset.to_le_bytes()));
        body.extend_from_slice(entry.message);
        self.entries += 1;
    }

    /// Writes the buffered entries if there are enough for a block.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.body.len() >= BLOCK { self.block() } else { Ok(()) }
    }

    /// Finishes the file; returns the output and the number of entries.
    pub fn finish(mut self) -> io::Result<(W, u32)> {
        if !self.body.is_empty() {
            self.block()?;
        }
        let total = self.total;
        self.entries = total;
        self.block()?;
        self.out.flush()?;
        Ok((self.out, total))
    }

    fn block(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let [length, entries] = [length, self.entries].map(u32::to_le_bytes);
        self.out.write_all(&length)?;
        self.out.write_all(&entries)?;
        self.out.write_all(&checksum(self.nonce, self.number, length, entries, &self.body).to_le_bytes())?;
        self.out.write_all(&self.body)?;
        self.number += 1;
        self.total = self.total.saturating_add(self.entries);
        self.entries = 0;
        self.body.clear();
        Ok(())
    }
}

fn checksum(nonce: u64, number: u64, length: [u8; 4], entries: [u8; 4], body: &[u8]) -> u64 {
    let mut digest = Xxh3::with_seed(nonce.wrapping_add(number));
    digest.update(&length);
    digest.update(&entries);
    digest.update(body);
    digest.digest()
}

/// Reads a file.
#[derive(Debug)]
pub struct SnapshotReader<R> {
    input: R,
    nonce: u64,
    number: u64,
    body: Vec<u8>,
    header: SnapshotHeader,
}

/// Result of reading a block.
enum Next {
    Block { entries: u32 },
    End { total: u32 },
}

impl<R: Read> SnapshotReader<R> {
    /// Reads as far as the header.
    pub fn begin(mut input: R) -> Result<Self, SnapshotError> {
        let mut preamble = Vec::with_capacity(PREAMBLE);
        input.by_ref().take(PREAMBLE as u64).read_to_end(&mut preamble)?;
        let (magic, rest) = preamble.split_at_checked(MAGIC.len()).ok_or(SnapshotError::Foreign)?;
        if magic != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        let mut rest = Fields(rest);
        let version = rest.u32().ok_or(SnapshotError::Torn(0))?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let nonce = rest.u64().ok_or(SnapshotError::Torn(0))?;
        let mut reader = Self { input, nonce, number: 0, body: Vec::new(), header: SnapshotHeader::default() };
        reader.next()?;
        reader.header = header(&reader.body).ok_or(SnapshotError::Checksum(0))?;
        Ok(reader)
    }

    /// The file's header.
    pub const fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// Calls `take` with every entry and the offsets of its TTLs. Only after it returns without an error is the file
    /// known to be complete and undamaged. It proves nothing about who wrote the file.
    pub fn read(mut self, mut take: impl FnMut(&SavedEntry<'_>, &[u16])) -> Result<u32, SnapshotError> {
        let mut offsets = Vec::new();
        let mut seen = 0_u32;
        loop {
            let entries = match self.next()? {
                Next::End { total } if total == seen => break,
                Next::End { .. } => return Err(SnapshotError::Checksum(self.number)),
                Next::Block { entries } => entries,
            };
            let mut fields = Fields(&self.body);
            for _ in 0..entries {
                let saved = entry(&mut fields, &mut offsets).ok_or(SnapshotError::Checksum(self.number))?;
                take(&saved, &offsets);
            }
            if !fields.0.is_empty() {
                return Err(SnapshotError::Checksum(self.number));
            }
            seen = seen.saturating_add(entries);
        }
        match self.input.read(&mut [0])? {
            0 => Ok(seen),
            _ => Err(SnapshotError::Trailing),
        }
    }

    /// Reads a block into `body`.
    fn next(&mut self) -> Result<Next, SnapshotError> {
        let number = self.number;
        let mut frame = [0; FRAME];
        read_whole(&mut self.input, &mut frame, number)?;
        let mut fields = Fields(&frame);
        let (Some(length), Some(entries), Some(sum)) = (fields.four(), fields.four(), fields.u64()) else {
            return Err(SnapshotError::Torn(number));
        };
        let octets = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if octets > if number == 0 { MAX_HEADER } else { MAX_BODY } {
            return Err(SnapshotError::Checksum(number));
        }
        // Memory for what is there, not for what a length says.
        self.body.clear();
        let there = self.input.by_ref().take(octets as u64).read_to_end(&mut self.body)?;
        if there < octets {
            return Err(SnapshotError::Torn(number));
        }
        if checksum(self.nonce, number, length, entries, &self.body) != sum {
            return Err(SnapshotError::Checksum(number));
        }
        self.number += 1;
        let entries = u32::from_le_bytes(entries);
        Ok(if octets == 0 { Next::End { total: entries } } else { Next::Block { entries } })
    }
}

fn read_whole(input: &mut impl Read, buffer: &mut [u8], number: u64) -> Result<(), SnapshotError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Torn(number),
        _ => SnapshotError::Io(error),
    })
}

fn header(body: &[u8]) -> Option<SnapshotHeader> {
    let mut fields = Fields(body);
    let mut header = SnapshotHeader { written: fields.u64()?, entries: fields.u64()?, rules: Vec::new() };
    while !fields.0.is_empty() {
        let fingerprint = fields.u64()?;
        let length = usize::try_from(fields.u32()?).ok()?;
        let name = String::from_utf8(fields.octets(length)?.to_vec()).ok()?;
        header.rules.push(SnapshotRule { name, fingerprint });
    }
    Some(header)
}

/// Reads one entry. Its key is the message's question section.
fn entry<'a>(fields: &mut Fields<'a>, offsets: &mut Vec<u16>) -> Option<SavedEntry<'a>> {
    let (length, count) = (fields.u16()?, fields.u16()?);
    let [flags, high] = fields.u16()?.to_le_bytes();
    let (view, rule) = (u32::from(high) << 16 | u32::from(fields.u16()?), fields.u32()?);
    let (lifetime, age, fingerprint) = (fields.u32()?, fields.u32()?, fields.u64()?);
    offsets.clear();
    for _ in 0..count {
        offsets.push(fields.u16()?);
    }
    let message = fields.octets(usize::from(length))?;
    let question = message.get(HEADER..)?;
    let (name, rest) = question.split_at_checked(name::skip_uncompressed(question, 0).ok()?)?;
    let [t0, t1, c0, c1] = *rest.first_chunk()?;
    let key = CacheKey {
        name,
        qtype: RecordType(u16::from_be_bytes([t0, t1])),
        qclass: Class(u16::from_be_bytes([c0, c1])),
        do_bit: flags & DO != 0,
        cd: flags & CD != 0,
        view,
    };
    let integrity = if flags & STRIPPED == 0 { Integrity::Whole } else { Integrity::Stripped };
    Some(SavedEntry { key, message, age, lifetime, rule, fingerprint, integrity })
}

/// Reads fields from octets.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn octets(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn four(&mut self) -> Option<[u8; 4]> {
        self.octets(4)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.octets(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        self.four().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.octets(8)?.try_into().ok()?))
    }
}
