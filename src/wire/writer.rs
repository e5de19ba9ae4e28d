//! Writes messages with name compression (RFC 1035 4.1.4). Everything sent to clients is written here.

use smallvec::SmallVec;

use super::{
    Class, Header, MAX_MESSAGE, Malformed, RecordType, Ttl,
    edns::OPT_WITH_COOKIE,
    header::HEADER,
    name::{Labels, NameBuf, is_same},
    rdata::{self, RdataField},
    record::{Record, Section},
};

/// Where QNAME begins: behind the header.
const QNAME_AT: u16 = 12;
const _: () = assert!(QNAME_AT as usize == HEADER);
/// The first offset that a pointer cannot reach.
const POINTER_END: usize = 0x4000;
/// How many suffixes are remembered; more would make long answers slow, not smaller.
const MAX_SUFFIXES: usize = 128;
/// The longest message written here: our OPT record fits behind it, even over a stream, where nothing may be cut.
const MAX_WRITTEN: usize = MAX_MESSAGE - OPT_WITH_COOKIE;

/// Whether a name may be replaced by a pointer, and be pointed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As RFC 1035 allows.
    Allowed,
    /// Only the types of RFC 1035 may hold compressed names (RFC 3597 4).
    Forbidden,
}

/// A message that is being written.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    /// Where each name suffix written so far begins, with its uncompressed length.
    suffixes: SmallVec<[(u16, u8); 16]>,
    counts: [u16; 4],
    /// Where the last owner name stands in full: QNAME's place, until a record is written.
    owner_at: Option<u16>,
}

/// How far a message was written; see [`Writer::rewind`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    length: usize,
    suffixes: usize,
    counts: [u16; 4],
    owner_at: Option<u16>,
}

impl Writer {
    /// A message with this question, whose name is uncompressed.
    pub fn new(name: &[u8], qtype: RecordType, qclass: Class, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity.max(HEADER + name.len() + 4));
        out.extend_from_slice(&[0; HEADER]);
        let mut writer = Self { out, suffixes: SmallVec::new(), counts: [1, 0, 0, 0], owner_at: None };
        // In one piece: nothing stands before it that a pointer could lead to.
        let mut at = 0;
        for label in Labels::of(name) {
            writer.remember(HEADER + at, name.len() - at);
            at += 1 + label.len();
        }
        writer.out.extend_from_slice(name);
        // The root takes one octet, and needs no pointer.
        writer.owner_at = (name.len() > 1).then_some(QNAME_AT);
        writer.out.extend_from_slice(&qtype.0.to_be_bytes());
        writer.out.extend_from_slice(&qclass.0.to_be_bytes());
        writer
    }

    /// The octets written so far, room for the header first.
    pub fn written(&self) -> &[u8] {
        &self.out
    }

    /// What has been written until now.
    pub fn mark(&self) -> Mark {
        let Self { out, suffixes, counts, owner_at } = self;
        Mark { length: out.len(), suffixes: suffixes.len(), counts: *counts, owner_at: *owner_at }
    }

    /// Takes back all that was written since the mark, after an error too.
    pub fn rewind(&mut self, mark: Mark) {
        self.out.truncate(mark.length);
        self.suffixes.truncate(mark.suffixes);
        (self.counts, self.owner_at) = (mark.counts, mark.owner_at);
    }

    /// Writes an uncompressed wire name.
    pub fn name(&mut self, name: &[u8], compression: Compression) {
        let mut at = 0;
        for label in Labels::of(name) {
            let suffix = &name[at..];
            if compression == Compression::Allowed
                && let Some(offset) = self.find(suffix)
            {
                self.out.extend_from_slice(&(0xc000 | offset).to_be_bytes());
                return;
            }
            if compression == Compression::Allowed {
                self.remember(self.out.len(), suffix.len());
            }
            self.out.extend_from_slice(&suffix[..=label.len()]);
            at += 1 + label.len();
        }
        self.out.push(0);
    }

    /// Writes an owner name, and remembers where it stands if a pointer can lead there.
    fn owner(&mut self, name: &[u8]) {
        let at = self.out.len();
        self.name(name, Compression::Allowed);
        let written = self.out.get(at..).and_then(<[u8]>::first_chunk::<2>).map(|pair| u16::from_be_bytes(*pair));
        self.owner_at = match written {
            Some(pointer) if pointer >= 0xc000 => Some(pointer & 0x3fff),
            // The root takes one octet, and needs no pointer.
            Some(_) if at < POINTER_END && name.len() > 1 => u16::try_from(at).ok(),
            _ => None,
        };
    }

    /// Writes type, class and TTL and room for RDLENGTH; gives where the TTL stands.
    fn fixed(&mut self, rtype: RecordType, class: Class, ttl: Ttl) -> usize {
        self.out.extend_from_slice(&rtype.0.to_be_bytes());
        self.out.extend_from_slice(&class.0.to_be_bytes());
        let ttl_at = self.out.len();
        self.out.extend_from_slice(&ttl.seconds().to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        ttl_at
    }

    /// Writes a record whose RDATA stands in `source`, perhaps with compressed names, and gives where its TTL stands.
    /// Sections are written in order. After an error the message is of use only [up to a mark](Writer::rewind).
    pub fn record(&mut self, source: &[u8], record: &Record, owner: &NameBuf) -> Result<usize, Malformed> {
        self.copy(source, record, owner.as_wire())
    }

    /// Writes a record as [`Writer::record`] does, for an owner that is an uncompressed wire name.
    pub fn copy(&mut self, source: &[u8], record: &Record, owner: &[u8]) -> Result<usize, Malformed> {
        self.owner(owner);
        self.body(source, record)
    }

    /// Writes a record as [`Writer::record`] does, for the owner of the previous record, or QNAME for the first.
    pub(super) fn copy_at_last_owner(&mut self, source: &[u8], record: &Record) -> Result<usize, Malformed> {
        match self.owner_at {
            Some(offset) => self.out.extend_from_slice(&(0xc000 | offset).to_be_bytes()),
            None => {
                let mut name = NameBuf::new();
                name.expand(source, record.owner_at)?;
                self.owner(name.as_wire());
            }
        }
        self.body(source, record)
    }

    fn body(&mut self, source: &[u8], record: &Record) -> Result<usize, Malformed> {
        let ttl_at = self.fixed(record.rtype, record.class, record.ttl());
        let rdata_at = self.out.len();
        self.rdata(source, record)?;
        self.close(rdata_at)?;
        self.count(record.section)?;
        Ok(ttl_at)
    }

    /// Writes a record of ours whose RDATA holds no compressed name.
    pub fn plain(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: RecordType,
        class: Class,
        ttl: Ttl,
        rdata: &[u8],
    ) -> Result<usize, Malformed> {
        self.owner(owner);
        let ttl_at = self.fixed(rtype, class, ttl);
        let rdata_at = self.out.len();
        self.out.extend_from_slice(rdata);
        self.close(rdata_at)?;
        self.count(section)?;
        Ok(ttl_at)
    }

    fn count(&mut self, section: Section) -> Result<(), Malformed> {
        let count = &mut self.counts[1 + section as usize];
        *count = count.checked_add(1).ok_or(Malformed::Counts)?;
        Ok(())
    }

    fn close(&mut self, rdata_at: usize) -> Result<(), Malformed> {
        let length = u16::try_from(self.out.len() - rdata_at).map_err(|_| Malformed::TooLong)?;
        self.out[rdata_at - 2..rdata_at].copy_from_slice(&length.to_be_bytes());
        if self.out.len() > MAX_WRITTEN { Err(Malformed::TooLong) } else { Ok(()) }
    }

    fn rdata(&mut self, source: &[u8], record: &Record) -> Result<(), Malformed> {
        let mut at = record.rdata_at;
        let end = record.rdata_end;
        for field in rdata::fields(record.rtype) {
            match field {
                RdataField::Octets(length) => {
                    let octets = source.get(at..at + length).filter(|_| at + length <= end);
                    self.out.extend_from_slice(octets.ok_or(Malformed::Rdata)?);
                    at += length;
                }
                RdataField::Text => {
                    let length = 1 + usize::from(*source.get(at).filter(|_| at < end).ok_or(Malformed::Rdata)?);
                    let octets = source.get(at..at + length).filter(|_| at + length <= end);
                    self.out.extend_from_slice(octets.ok_or(Malformed::Rdata)?);
                    at += length;
                }
                RdataField::Name(compression) => {
                    let mut name = NameBuf::new();
                    at = name.expand(source, at)?;
                    if at > end {
                        return Err(Malformed::Rdata);
                    }
                    self.name(name.as_wire(), *compression);
                }
                RdataField::Rest => {
                    self.out.extend_from_slice(source.get(at..end).ok_or(Malformed::Rdata)?);
                    at = end;
                }
            }
        }
        if at == end { Ok(()) } else { Err(Malformed::Rdata) }
    }

    /// The message, with its header.
    pub fn finish(mut self, mut header: Header) -> Vec<u8> {
        header.counts = self.counts;
        self.out[..HEADER].copy_from_slice(&header.to_bytes());
        self.out
    }

    /// Remembers that a suffix of this length stands at `at`.
    fn remember(&mut self, at: usize, suffix_length: usize) {
        if at >= POINTER_END || self.suffixes.len() == MAX_SUFFIXES {
            return;
        }
        if let (Ok(offset), Ok(length)) = (u16::try_from(at), u8::try_from(suffix_length)) {
            self.suffixes.push((offset, length));
        }
    }

    fn find(&self, suffix: &[u8]) -> Option<u16> {
        let candidates = self.suffixes.iter().filter(|(_, length)| usize::from(*length) == suffix.len());
        candidates.map(|(offset, _)| *offset).find(|&offset| self.stands_at(usize::from(offset), suffix))
    }

    /// Whether the name written at `at` is `name`, in whatever letter case (RFC 4343).
    fn stands_at(&self, mut at: usize, name: &[u8]) -> bool {
        let mut matched = 0;
        loop {
            let octet = self.out[at];
            if octet >= 0xc0 {
                at = usize::from(octet & 0x3f) << 8 | usize::from(self.out[at + 1]);
                continue;
            }
            let length = 1 + usize::from(octet);
            if !is_same(&self.out[at..at + length], &name[matched..matched + length]) {
                return false;
            }
            if octet == 0 {
                return true;
            }
            at += length;
            matched += length;
        }
    }
}
