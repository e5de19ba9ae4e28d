//! Which records of an upstream's message stay: the CNAME chain from QNAME, the data at its end, the proof that there
//! is none.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::super::{
    Malformed, Name, NameBuf, RecordType, UpstreamQuery, name, read_u16,
    record::{Record, Section},
};

/// The longest chain of CNAMEs in one message; a longer one is taken for endless. Chains of a dozen are in use.
pub(super) const MAX_CHAIN: usize = 64;
/// Up to so many names each is compared with each, which no table is faster than. More of them are put into one: their
/// number squared, each as long as a name can be, would be for the sender to choose.
const FEW: usize = 8;

/// How a chain of CNAMEs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At a name that no CNAME in the message renames.
    Name,
    /// In a circle, or beyond [`MAX_CHAIN`].
    Never,
    /// At a name that a DNAME rewrites into one of more than 255 octets: YXDOMAIN (RFC 6672 2.2).
    TooLong,
}

/// A record that is kept.
pub(super) struct Kept {
    pub(super) owner: Owner,
    pub(super) record: Record,
}

/// The records that are kept; most answers have no more than four.
pub(super) type KeptRecords = SmallVec<[Kept; 4]>;

/// Where a kept record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// At the name of this place in the chain.
    At(usize),
    /// Above it: a DNAME that made the next.
    Above(usize),
    /// At the name of this place: a CNAME that is made of the record, a DNAME (RFC 6672 3.1).
    Made(usize),
    /// At a name of its own, in another section.
    Apart,
}

impl Owner {
    /// The place in the chain that it belongs to.
    pub(super) const fn place(self) -> usize {
        match self {
            Self::At(place) | Self::Above(place) | Self::Made(place) => place,
            Self::Apart => usize::MAX,
        }
    }
}

/// The record that leads from one name of the chain to the next.
enum Link {
    /// A CNAME.
    Cname(Record),
    /// A DNAME that came without its CNAME, and the target of the CNAME that is made of it (RFC 6672 3.4).
    Dname(Record, Name),
}

/// The CNAME chain from QNAME.
///
/// Invariant: `links[n]` is at name `n` and leads to name `n + 1`, where there is one.
pub(super) struct Chain<'a> {
    query: &'a UpstreamQuery,
    /// The targets, in lower case.
    pub(super) targets: Vec<Name>,
    links: Vec<Link>,
    /// The DNAMEs of the answer section with their owners, in lower case; no more than can be of use.
    dnames: Vec<(Record, NameBuf)>,
    /// The DNAMEs that made links: the name each rewrote, and its owner.
    rewrites: Vec<(usize, NameBuf)>,
    pub(super) end: End,
}

impl<'a> Chain<'a> {
    /// Follows the CNAMEs of the answer section, in whatever order they stand. The first at a name counts: two are one
    /// too many (RFC 2181 10.1).
    pub(super) fn read(message: &[u8], records: &[Record], query: &'a UpstreamQuery) -> Result<Self, Malformed> {
        let (targets, links, rewrites) = (Vec::new(), Vec::new(), Vec::new());
        let dnames = dnames(message, records)?;
        let mut chain = Self { query, targets, links, dnames, rewrites, end: End::Name };
        let cnames = Cnames::of(message, records)?;
        let is_followed = !matches!(query.qtype, RecordType::CNAME | RecordType::ANY);
        loop {
            let target = match cnames.at(message, chain.last())? {
                Some(link) => {
                    let target = target_of(message, &link)?;
                    chain.find_rewrite(message, &target)?;
                    chain.links.push(Link::Cname(link));
                    target.to_name()
                }
                None => match chain.rewritten(message, records)? {
                    Some((dname, target)) => {
                        chain.links.push(Link::Dname(dname, target.clone()));
                        target
                    }
                    None => break,
                },
            };
            if !is_followed {
                break;
            }
            if chain.targets.len() == MAX_CHAIN || target == query.name || chain.targets.contains(&target) {
                chain.end = End::Never;
                break;
            }
            chain.targets.push(target);
        }
        Ok(chain)
    }

    /// QNAME, or the target before it, of each place in the chain.
    pub(super) fn name(&self, place: usize) -> &Name {
        place.checked_sub(1).map_or(&self.query.name, |before| &self.targets[before])
    }

    /// Where the chain ends.
    pub(super) fn last(&self) -> &Name {
        self.targets.last().unwrap_or(&self.query.name)
    }

    /// Whether the record is data that was asked for, at the end of the chain.
    pub(super) fn is_data(&self, kept: &Kept) -> bool {
        let last = self.targets.len();
        match kept.owner {
            Owner::At(place) => place == last && self.is_asked_for(kept.record.rtype),
            Owner::Made(place) => place == last && self.is_asked_for(RecordType::CNAME),
            Owner::Above(_) | Owner::Apart => false,
        }
    }

    /// The target of the CNAME that is made at this place.
    pub(super) fn made(&self, place: usize) -> Option<&Name> {
        match self.links.get(place) {
            Some(Link::Dname(_, target)) => Some(target),
            _ => None,
        }
    }

    fn is_asked_for(&self, rtype: RecordType) -> bool {
        rtype == self.query.qtype || matches!(self.query.qtype, RecordType::ANY | RecordType::MAILA | RecordType::MAILB)
    }

    /// The answer records that belong to this answer, in the chain's order.
    pub(super) fn keep(&self, message: &[u8], records: &[Record]) -> Result<KeptRecords, Malformed> {
        let mut kept = KeptRecords::with_capacity(records.len());
        let mut known = None;
        let places = self.places();
        for record in records.iter().filter(|record| record.section == Section::Answer) {
            // The records of a set mostly share one pointer for their owner.
            let pointer = name::pointer(message, record.owner_at);
            let place = match (known, &places) {
                (Some((same, place)), _) if Some(same) == pointer => Some(place),
                (_, Some(places)) => places.get(lowercase(message, record.owner_at)?.as_wire()).copied(),
                (_, None) => self.place(message, record)?,
            };
            known = pointer.zip(place);
            let owner = match place {
                Some(place) if self.belongs(message, place, record)? => Some(Owner::At(place)),
                _ => self.owner_above(message, record)?,
            };
            kept.extend(owner.map(|owner| Kept { owner, record: *record }));
        }
        for (place, link) in self.links.iter().enumerate() {
            if let Link::Dname(record, _) = link {
                kept.push(Kept { owner: Owner::Made(place), record: *record });
            }
        }
        kept.sort_by_key(|kept| kept.owner.place());
        Ok(kept)
    }

    /// The places of a long chain's names.
    fn places(&self) -> Option<HashMap<&[u8], usize>> {
        let is_long = self.targets.len() > FEW;
        is_long.then(|| (0..=self.targets.len()).map(|place| (self.name(place).as_wire(), place)).collect())
    }

    /// The place in the chain at whose name the record stands.
    fn place(&self, message: &[u8], record: &Record) -> Result<Option<usize>, Malformed> {
        for place in 0..=self.targets.len() {
            if name::stands_at(message, record.owner_at, self.name(place).as_wire())? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn belongs(&self, message: &[u8], place: usize, record: &Record) -> Result<bool, Malformed> {
        let link = match self.links.get(place) {
            Some(Link::Cname(link)) => Some(link),
            _ => None,
        };
        let is_last = place == self.targets.len();
        Ok(match record.rtype {
            RecordType::CNAME => link.is_some_and(|link| link.owner_at == record.owner_at),
            _ if is_last && self.is_asked_for(record.rtype) => true,
            RecordType::RRSIG => {
                let covered = subject(message, record)?;
                (link.is_some() && covered == RecordType::CNAME) || (is_last && self.is_asked_for(covered))
            }
            _ => false,
        })
    }

    /// A DNAME stands above the name that it rewrites, with its signature (RFC 6672 3.1).
    fn owner_above(&self, message: &[u8], record: &Record) -> Result<Option<Owner>, Malformed> {
        if self.rewrites.is_empty() || subject(message, record)? != RecordType::DNAME {
            return Ok(None);
        }
        for (place, owner) in &self.rewrites {
            if name::stands_at(message, record.owner_at, owner.as_wire())? {
                return Ok(Some(Owner::Above(*place)));
            }
        }
        Ok(None)
    }

    /// Looks for the DNAME above the last name, which has no CNAME, and gives it with the target it makes. The nearest
    /// counts. A target that is no name ends the chain.
    fn rewritten(&mut self, message: &[u8], records: &[Record]) -> Result<Option<(Record, Name)>, Malformed> {
        let name = self.last().as_wire();
        let above = self.dnames.iter().filter(|(_, owner)| is_above(owner.as_wire(), name));
        // Of two with one owner the first counts.
        let Some((record, owner)) = above.rev().max_by_key(|(_, owner)| owner.as_wire().len()) else { return Ok(None) };
        let (record, owner) = (*record, owner.clone());
        // Data at the name itself: the DNAME has nothing to do with it.
        for other in records.iter().filter(|other| other.section == Section::Answer && self.is_asked_for(other.rtype)) {
            if name::stands_at(message, other.owner_at, name)? {
                return Ok(None);
            }
        }
        let front = &name[..name.len() - owner.as_wire().len()];
        let made = Name::from_wire(&[front, target_of(message, &record)?.as_wire()].concat());
        self.rewrites.push((self.targets.len(), owner));
        match made {
            Ok(target) => Ok(Some((record, target))),
            Err(_) => {
                self.end = End::TooLong;
                Ok(None)
            }
        }
    }

    /// Looks for the DNAME that leads from the last name to `target`. One that leads elsewhere says nothing about this
    /// question.
    fn find_rewrite(&mut self, message: &[u8], target: &NameBuf) -> Result<(), Malformed> {
        let name = self.last().as_wire();
        for (record, owner) in self.dnames.iter().filter(|(_, owner)| is_above(owner.as_wire(), name)) {
            let front = &name[..name.len() - owner.as_wire().len()];
            if target.as_wire().strip_prefix(front) == Some(target_of(message, record)?.as_wire()) {
                self.rewrites.push((self.targets.len(), owner.clone()));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether the wire name `owner` is an ancestor of `name`.
fn is_above(owner: &[u8], name: &[u8]) -> bool {
    owner.len() < name.len() && name::is_within(name, owner)
}

/// The DNAMEs of the answer section with their owners in lower case; as many as a chain can use.
fn dnames(message: &[u8], records: &[Record]) -> Result<Vec<(Record, NameBuf)>, Malformed> {
    let is_dname = |record: &&Record| record.section == Section::Answer && record.rtype == RecordType::DNAME;
    let dnames = records.iter().filter(is_dname).take(MAX_CHAIN);
    dnames.map(|record| Ok((*record, lowercase(message, record.owner_at)?))).collect()
}

/// The CNAMEs of the answer section, by their owners. The first at a name counts.
enum Cnames<'a> {
    /// Compared one by one.
    Few(&'a [Record]),
    Many(HashMap<Name, Record>),
}

impl<'a> Cnames<'a> {
    fn of(message: &[u8], records: &'a [Record]) -> Result<Self, Malformed> {
        if records.iter().filter(|record| is_cname(record)).count() <= FEW {
            return Ok(Self::Few(records));
        }
        let mut cnames = HashMap::new();
        for record in records.iter().filter(|record| is_cname(record)) {
            cnames.entry(lowercase(message, record.owner_at)?.to_name()).or_insert(*record);
        }
        Ok(Self::Many(cnames))
    }

    fn at(&self, message: &[u8], name: &Name) -> Result<Option<Record>, Malformed> {
        let records = match self {
            Self::Few(records) => records,
            Self::Many(cnames) => return Ok(cnames.get(name).copied()),
        };
        for record in records.iter().filter(|record| is_cname(record)) {
            if name::stands_at(message, record.owner_at, name.as_wire())? {
                return Ok(Some(*record));
            }
        }
        Ok(None)
    }
}

fn is_cname(record: &Record) -> bool {
    record.section == Section::Answer && record.rtype == RecordType::CNAME
}

/// The name that stands at `at`, in lower case.
fn lowercase(message: &[u8], at: usize) -> Result<NameBuf, Malformed> {
    let mut name = NameBuf::new();
    name.expand(message, at)?;
    name.make_lowercase();
    Ok(name)
}

/// The name that is all of a record's RDATA, in lower case.
fn target_of(message: &[u8], record: &Record) -> Result<NameBuf, Malformed> {
    let mut target = NameBuf::new();
    if target.expand(message, record.rdata_at)? != record.rdata_end {
        return Err(Malformed::Rdata);
    }
    target.make_lowercase();
    Ok(target)
}

/// The type that a record is about: its own, or the one whose signature it is (RFC 4034 3.1.1).
pub(super) fn subject(message: &[u8], record: &Record) -> Result<RecordType, Malformed> {
    match record.rtype {
        RecordType::RRSIG if record.rdata_end < record.rdata_at + 2 => Err(Malformed::Rdata),
        RecordType::RRSIG => read_u16(message, record.rdata_at).map(RecordType),
        rtype => Ok(rtype),
    }
}
