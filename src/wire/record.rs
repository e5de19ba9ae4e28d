//! The records of a message, one after the other, where they stand (RFC 1035 4.1.3).

use super::{Class, Header, Malformed, NameBuf, RecordType, Ttl, header::HEADER, name};

/// Octets of a record between its owner name and its RDATA: type, class, TTL, length.
const FIXED: usize = 10;

/// The section of a message that a record stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section.
    Additional,
}

/// The offsets of one record in its message.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Its section.
    pub section: Section,
    /// Where its owner name begins.
    pub owner_at: usize,
    /// Its type.
    pub rtype: RecordType,
    /// Its class; for OPT the payload size.
    pub class: Class,
    /// Where its TTL stands.
    pub ttl_at: usize,
    /// The TTL as it stands; for OPT the extended RCODE and flags.
    pub raw_ttl: u32,
    /// Where its RDATA begins.
    pub rdata_at: usize,
    /// Where its RDATA ends.
    pub rdata_end: usize,
}

impl Record {
    /// The TTL, at most 2^31-1 (RFC 2181 8).
    pub const fn ttl(&self) -> Ttl {
        Ttl::from_wire(self.raw_ttl)
    }

    /// The RDATA as it stands, perhaps with compressed names.
    pub fn rdata<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.rdata_at..self.rdata_end]
    }
}

/// Walks the records behind the question section.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl<'a> Records<'a> {
    /// The records of `message`, which begin at `at` (behind the question section).
    pub fn new(message: &'a [u8], header: &Header, at: usize) -> Self {
        let [_, answer, authority, additional] = header.counts;
        Self { message, at, left: [answer, authority, additional] }
    }

    /// The records of a message whose question section holds at most one entry.
    pub fn of(message: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::read(message)?;
        let at = match header.counts[0] {
            0 => HEADER,
            1 => name::skip(message, HEADER)? + 4,
            _ => return Err(Malformed::Counts),
        };
        Ok(Self::new(message, &header, at))
    }

    /// Where the next record begins, or where the message should end.
    pub const fn position(&self) -> usize {
        self.at
    }

    fn read(&mut self, section: Section) -> Result<Record, Malformed> {
        let owner_at = self.at;
        let owner_end = name::skip(self.message, owner_at)?;
        let fixed = self.message[owner_end..].first_chunk::<FIXED>().ok_or(Malformed::Short)?;
        let [a, b, c, d, ttl @ .., e, f] = *fixed;
        let rdata_at = owner_end + FIXED;
        let rdata_end = rdata_at + usize::from(u16::from_be_bytes([e, f]));
        if rdata_end > self.message.len() {
            return Err(Malformed::Short);
        }
        self.at = rdata_end;
        let (rtype, class) = (RecordType(u16::from_be_bytes([a, b])), Class(u16::from_be_bytes([c, d])));
        let (ttl_at, raw_ttl) = (owner_end + 4, u32::from_be_bytes(ttl));
        Ok(Record { section, owner_at, rtype, class, ttl_at, raw_ttl, rdata_at, rdata_end })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    /// The next record; after an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let which = self.left.iter().position(|&left| left > 0)?;
        self.left[which] -= 1;
        let record = self.read(sections[which]);
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

/// Calls `see` with the target of each CNAME in the answer section, as a wire name in lower case, until one call gives a
/// value.
pub fn find_alias<T>(message: &[u8], mut see: impl FnMut(&[u8]) -> Option<T>) -> Result<Option<T>, Malformed> {
    let mut target = NameBuf::new();
    for record in Records::of(message)? {
        let record = record?;
        if record.section != Section::Answer {
            break;
        }
        if record.rtype == RecordType::CNAME {
            target.expand(message, record.rdata_at)?;
            target.make_lowercase();
            if let Some(found) = see(target.as_wire()) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
