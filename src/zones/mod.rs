//! What is answered here: local zones, hosts, special-use names.
//!
//! [`Zones`] is built with each configuration and whenever a file of it changes ([`Zones::changed`]); it never changes
//! itself. `route` learns from [`Zones::domains`] and [`special::domains`] which names to send here, `engine` calls
//! [`Zones::answer`] on a miss and keeps the message in the cache under the domain's fingerprint.
//!
//! **Overrides.** A `[[local]]` zone is authoritative for its name and everything below, down to the next longer
//! domain (another local zone, a host, a rule): below a forwarded domain it takes its subtree out and leaves the rest
//! alone. What such a zone lacks does not exist; nobody else is asked. A name of `local_hosts` is taken out alone: all
//! types of that one name are answered here, NODATA for those the file has no address of (an override whose AAAA came
//! from elsewhere would be none), while names below it go their own way. The longest domain decides, so a host inside
//! a local zone beats the zone; at a zone's own name the zone does. Special-use names come last, but before a local
//! zone ".".
//!
//! **Not on hickory-server's Catalog.** It sets AA in referrals, drops the chain when a CNAME ends in a name that does
//! not exist, takes ANY and NS at a cut for data, has no DNAME, and logs each question with DO at info
//! (`zone_handler/catalog.rs`, 0.26.3): none of it can be mended from a `ZoneHandler`. The rules fit in two files,
//! [`answer`](mod@answer) and `zone`, are synchronous, and `tests/zones.rs` holds them against BIND.
//!
//! Class IN only; AXFR, IXFR, and the other questions that are not about data are refused before they come here.

pub mod answer;
pub mod special;

mod message;
mod problem;
mod rdata;
mod zone;

use std::path::{Path, PathBuf};

use hashbrown::HashMap;

pub use self::problem::{Fault, Place, ZoneProblem};
use self::{special::Special, zone::Zone};
use crate::wire::{Class, Name, Rcode, RecordType};

/// A local zone as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSpec {
    /// The zone's name.
    pub zone: Name,
    /// Where it is declared.
    pub place: Place,
    /// Where its records are.
    pub source: Source,
}

/// Where a zone's records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a master file (RFC 1035 5).
    File(PathBuf),
    /// In the configuration.
    Records(Vec<InlineRecord>),
}

/// A line of master-file text in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineRecord {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// Whether the special-use names are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialUse {
    /// They are, where nothing else covers them.
    Answered,
    /// They are names like any other.
    Ignored,
}

/// What of a domain is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The name and all below it.
    Subtree,
    /// The name alone.
    Name,
}

/// Names that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDomain<'a> {
    /// The name.
    pub name: &'a Name,
    /// How far it reaches.
    pub scope: Scope,
    /// A digest of all that shapes answers below it: equal content, equal digest.
    pub fingerprint: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct LocalQuestion<'a> {
    /// The name.
    pub name: &'a Name,
    /// The type.
    pub qtype: RecordType,
    /// The class.
    pub qclass: Class,
    /// Whether the client wants DNSSEC records; referrals have DS then.
    pub do_bit: bool,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAnswer {
    /// The whole message: id 0, QR and perhaps AA, the question with the name in lower case, no OPT. For
    /// [`Outcome::Leaves`] the chain so far; for [`Outcome::Endless`] SERVFAIL and no records.
    pub message: Vec<u8>,
    /// Its response code.
    pub rcode: Rcode,
    /// Whether that is all.
    pub outcome: Outcome,
    /// How many aliases (CNAMEs, those made from DNAMEs included) the message follows.
    pub aliases: u8,
}

/// How an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is whole.
    Done,
    /// An alias leads to a name that is not this zone's to answer: go on there.
    Leaves {
        /// The name to ask for next, with the same type.
        target: Name,
    },
    /// The name is delegated to other servers, and the message is the referral (behind a chain, perhaps).
    Delegated {
        /// The zone that begins there.
        cut: Name,
        /// The name that was looked up last, at or below the cut.
        target: Name,
    },
    /// The aliases do not end: more than [`answer::MAX_ALIASES`], or a loop.
    Endless,
}

/// All that is answered here.
#[derive(Debug, Default)]
pub struct Zones {
    zones: HashMap<Box<[u8]>, Zone>,
    special: HashMap<Box<[u8]>, Special>,
}

impl Zones {
    /// The zones, hosts and special-use names of a configuration, or all that is wrong with them.
    pub fn build(
        specs: &[LocalSpec],
        _hosts: Option<&Path>,
        special_use: SpecialUse,
    ) -> Result<Self, Vec<ZoneProblem>> {
        let _ = specs;
        let special = match special_use {
            SpecialUse::Answered => special::zones().map(|(apex, special)| (apex.as_wire().into(), special)).collect(),
            SpecialUse::Ignored => HashMap::new(),
        };
        Ok(Self { zones: HashMap::new(), special })
    }

    /// The names that are answered here, special-use names apart ([`special::domains`]).
    pub fn domains(&self) -> impl Iterator<Item = LocalDomain<'_>> {
        self.zones.values().map(|zone| LocalDomain {
            name: zone.apex(),
            scope: Scope::Subtree,
            fingerprint: zone.fingerprint(),
        })
    }

    /// Answers a question; none if nothing here covers its name. An alias is followed to a name of the same zone if
    /// `stays` says that the question would come back here anyway: `route` may have a rule for it.
    pub fn answer(&self, question: &LocalQuestion<'_>, stays: impl Fn(&Name) -> bool) -> Option<LocalAnswer> {
        let name = question.name.as_wire();
        if let Some(zone) = self.zone_of(name) {
            return Some(answer::answer(zone, question, &stays));
        }
        match covering(&self.special, name)? {
            Special::Zone(zone) => Some(answer::answer(zone, question, &stays)),
            Special::Absent(zone) => Some(answer::absent(zone, question)),
        }
    }

    fn zone_of(&self, name: &[u8]) -> Option<&Zone> {
        covering(&self.zones, name)
    }
}

/// The entry of the longest domain that `name` is at or below.
fn covering<'m, T>(domains: &'m HashMap<Box<[u8]>, T>, name: &[u8]) -> Option<&'m T> {
    let mut at = 0;
    loop {
        if let Some(found) = domains.get(&name[at..]) {
            return Some(found);
        }
        let length = usize::from(*name.get(at)?);
        if length == 0 {
            return None;
        }
        at += 1 + length;
    }
}
