//! Records which AWS names were asked for, and whether their addresses were private or public.
//!
//! This is reporting only and decides nothing: the engine hands in answers, operators read the [`document`].
//!
//! Policy:
//! - A name is noted if its rule has a guard, or if it is of an AWS name family. It is noted when an upstream's answer
//!   comes in, before the guard strips or refuses anything; never when the cache answers.
//! - Each query type of a name has the verdict of its last answer, so that a fix shows at once. The name's verdict is
//!   the worst of them. Types without addresses have no verdict.
//! - Under a guard, private is what lies in its networks; without one, the private networks. Private addresses that
//!   clients cannot reach (outside the guard's networks; link-local, such as VPC Lattice's) are a verdict of their own.
//! - Memory is bounded: [`MAX_NAMES`] names. When full, a new name replaces the least important of a few chosen at
//!   random: absent before private before unreachable before public, the one seen longest ago first.
//!
//! Each new name that is resolved is noted, so this is a part of what a miss costs: names are spread over tables by their
//! hash, so that workers seldom meet at one lock; what is given up is found in a small array of ranks; and the memory of a
//! name that is given up is used for the new one.

pub mod document;
pub mod record;

mod clients;
mod judge;

use std::{mem, net::IpAddr, sync::Arc};

use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use self::{clients::Clients, judge::Sight};
use crate::{
    clock::Moment,
    wire::{Name, RecordType, Response},
};

/// Names kept, about 300 octets each.
pub const MAX_NAMES: usize = TABLES * SHARE;
/// Tables, each behind a lock of its own.
const TABLES: usize = 16;
/// Names kept in each table: an octet counts them.
const SHARE: usize = 256;
/// Names compared to choose one to evict.
const SAMPLE: usize = 8;

/// The verdict on a name's addresses, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NameVerdict {
    /// There is no such name, or it has no address.
    Absent,
    /// All addresses are private, and clients reach them.
    Private,
    /// An address is private, and clients do not reach it.
    #[serde(rename = "unreachable-private")]
    Unreachable,
    /// An address is public.
    Public,
}

impl NameVerdict {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Absent, Self::Private, Self::Unreachable, Self::Public];

    /// The value in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Private => "private",
            Self::Unreachable => "unreachable-private",
            Self::Public => "public",
        }
    }
}

/// The fate of public addresses, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exposure {
    /// Clients got them: the rule's `except` has the name.
    Excepted,
    /// The guard refused the answer.
    Refused,
    /// The guard left them out of the answer.
    Stripped,
    /// Clients got them: the rule has no guard.
    Unguarded,
    /// Clients got them: the guard only counts.
    Leaked,
}

impl Exposure {
    /// The value in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Excepted => "excepted",
            Self::Refused => "refused",
            Self::Stripped => "stripped",
            Self::Unguarded | Self::Leaked => "leaked",
        }
    }
}

/// A name that was asked for.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The name.
    pub name: Name,
    /// The rule that brought its last answer.
    pub rule: Arc<str>,
    /// Whether the rule's guard leaves it alone (`except`).
    pub excepted: bool,
    /// The verdict on its last answers.
    pub verdict: NameVerdict,
    /// The fate of the public addresses, if there were any.
    pub outcome: Option<Exposure>,
    /// The address that the verdict is about, if any.
    pub address: Option<IpAddr>,
    /// Answers so far, by verdict, in the order of [`NameVerdict::ALL`].
    pub answers: [u64; NameVerdict::ALL.len()],
    /// Clients that waited for an upstream's answer: an estimate, exact for a few.
    pub clients: u32,
    /// When the first answer came.
    pub first: Moment,
    /// When the last answer came.
    pub last: Moment,
}

/// Everything recorded so far.
#[derive(Debug, Clone)]
pub struct Report {
    /// When recording began.
    pub since: Moment,
    /// The names, the worst first, then in their order.
    pub names: Vec<Seen>,
    /// Names evicted to keep memory bounded.
    pub given_up: u64,
}

impl Report {
    /// Names with a public address that no rule excepts.
    pub fn public(&self) -> usize {
        self.names.iter().filter(|seen| seen.outcome.is_some_and(|outcome| outcome != Exposure::Excepted)).count()
    }

    /// Names whose public addresses had this fate, by its value in reports.
    pub fn count(&self, label: &str) -> usize {
        self.names.iter().filter(|seen| seen.outcome.is_some_and(|outcome| outcome.label() == label)).count()
    }
}

/// Names with public answers that a guard judged, by what it did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Violations {
    /// Names whose public addresses clients got.
    pub leaked: usize,
    /// Names whose public addresses were left out.
    pub stripped: usize,
    /// Names whose answers were refused.
    pub refused: usize,
    /// The name with the latest answer.
    pub newest: Option<Name>,
}

/// All names, each in the table that its hash selects.
#[derive(Debug)]
pub struct Perimeter {
    since: Moment,
    tables: [CachePadded<Mutex<Table>>; TABLES],
}

/// Some of the names.
///
/// Invariants: `places` has each entry's position, under the hash of its name, and nothing else; `ranks` has what each
/// entry's worst sight is, and the second in which it was last seen.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    ranks: Vec<(NameVerdict, u32)>,
    places: HashTable<u8>,
    given_up: u64,
}

#[derive(Debug)]
struct Entry {
    /// In wire form.
    name: Vec<u8>,
    hash: u64,
    rule: Arc<str>,
    excepted: bool,
    /// By [`Kind`].
    last_of: [Option<Sight>; 3],
    answers: [u64; NameVerdict::ALL.len()],
    clients: Clients,
    first: Moment,
    last: Moment,
}

/// Query types whose answers have addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipv4,
    Ipv6,
    Hints,
}

impl Perimeter {
    /// An empty table.
    pub fn new(now: Moment) -> Self {
        Self { since: now, tables: Default::default() }
    }

    /// Records an upstream's answer. `reaches` says whether clients can reach an address, as far as the rule knows.
    pub fn note(&self, about: &About<'_>, response: &Response, reaches: impl Fn(IpAddr) -> Option<bool>, now: Moment) {
        let Some(kind) = Kind::of(about.qtype) else { return };
        let Ok(sight) = judge::look(response, reaches, about.outcome) else { return };
        let hash = hash(about.name);
        self.table(hash).lock().note(hash, kind, sight, about, now);
    }

    /// Records a client whose query for this name waits for the answer to an equal query.
    pub fn note_client(&self, name: &Name, client: IpAddr) {
        let hash = hash(name);
        let mut table = self.table(hash).lock();
        if let Some(at) = table.find(hash, name) {
            table.entries[at].clients.add(client);
        }
    }

    /// A report of everything recorded so far.
    pub fn report(&self) -> Report {
        let (mut names, mut given_up) = (Vec::new(), 0);
        for table in &self.tables {
            let table = table.lock();
            names.extend(table.entries.iter().filter_map(Entry::seen));
            given_up += table.given_up;
        }
        names.sort_by(|one, other| other.verdict.cmp(&one.verdict).then_with(|| one.name.cmp(&other.name)));
        Report { since: self.since, names, given_up }
    }

    /// Counts the names whose last public answer a guard judged after `since`, by what it did.
    ///
    /// The daemon asks this each second, so names without a public answer cost as good as nothing.
    pub fn violations(&self, since: Moment) -> Violations {
        let mut found = Violations::default();
        let mut newest: Option<(Moment, Vec<u8>)> = None;
        for table in &self.tables {
            let table = table.lock();
            let is_recent = |(verdict, second): &(NameVerdict, u32)| {
                *verdict == NameVerdict::Public && *second >= since.whole_seconds()
            };
            for (entry, _) in table.entries.iter().zip(&table.ranks).filter(|(_, rank)| is_recent(rank)) {
                let count = match entry.worst().outcome {
                    Some(Exposure::Leaked) => &mut found.leaked,
                    Some(Exposure::Stripped) => &mut found.stripped,
                    Some(Exposure::Refused) => &mut found.refused,
                    Some(Exposure::Excepted | Exposure::Unguarded) | None => continue,
                };
                *count += 1;
                if newest.as_ref().is_none_or(|(last, _)| *last < entry.last) {
                    newest = Some((entry.last, entry.name.clone()));
                }
            }
        }
        found.newest = newest.and_then(|(_, name)| Name::from_wire(&name).ok());
        found
    }

    fn table(&self, hash: u64) -> &Mutex<Table> {
        // A table goes by the lowest and the highest bits of the hash.
        let [_, _, octet, ..] = hash.to_le_bytes();
        &self.tables[usize::from(octet) % TABLES]
    }
}

/// The context of an answer.
#[derive(Debug)]
pub struct About<'a> {
    /// The name that was asked for.
    pub name: &'a Name,
    /// The type that was asked for.
    pub qtype: RecordType,
    /// The rule that brought the answer.
    pub rule: &'a Arc<str>,
    /// The fate of public addresses of this name.
    pub outcome: Exposure,
    /// Who asked.
    pub client: IpAddr,
}

impl Table {
    fn note(&mut self, hash: u64, kind: Kind, sight: Sight, about: &About<'_>, now: Moment) {
        let at = self.find(hash, about.name).unwrap_or_else(|| self.place(hash, about, now));
        let entry = &mut self.entries[at];
        if entry.rule != *about.rule {
            entry.rule = Arc::clone(about.rule);
        }
        entry.excepted = about.outcome == Exposure::Excepted;
        entry.last_of[kind as usize] = Some(sight);
        entry.answers[sight.verdict as usize] += 1;
        entry.clients.add(about.client);
        entry.last = now;
        self.ranks[at] = (entry.worst().verdict, now.whole_seconds());
    }

    fn find(&self, hash: u64, name: &Name) -> Option<usize> {
        let is_it = |&at: &u8| self.entries[usize::from(at)].name == name.as_wire();
        self.places.find(hash, is_it).map(|&at| at.into())
    }

    /// Adds a new name, evicting another if the table is full.
    fn place(&mut self, hash: u64, about: &About<'_>, now: Moment) -> usize {
        let at = match u8::try_from(self.entries.len()) {
            Ok(at) => {
                self.entries.push(Entry::new(Vec::new(), about, hash, now));
                self.ranks.push((NameVerdict::Absent, 0));
                at
            }
            Err(_) => {
                let sample: [u8; SAMPLE] = rand::random();
                let at = sample.into_iter().min_by_key(|&at| self.ranks[usize::from(at)]).unwrap_or(0);
                let entry = &mut self.entries[usize::from(at)];
                if let Ok(place) = self.places.find_entry(entry.hash, |&other| other == at) {
                    place.remove();
                }
                *entry = Entry::new(mem::take(&mut entry.name), about, hash, now);
                self.given_up += 1;
                at
            }
        };
        self.places.insert_unique(hash, at, |&at| self.entries[usize::from(at)].hash);
        at.into()
    }
}

fn hash(name: &Name) -> u64 {
    xxh3_64(name.as_wire())
}

impl Entry {
    /// A name that was not seen yet, written where another stood.
    fn new(mut place: Vec<u8>, about: &About<'_>, hash: u64, now: Moment) -> Self {
        place.clear();
        place.extend_from_slice(about.name.as_wire());
        Self {
            name: place,
            hash,
            rule: Arc::clone(about.rule),
            excepted: false,
            last_of: [None; 3],
            answers: [0; NameVerdict::ALL.len()],
            clients: Clients::default(),
            first: now,
            last: now,
        }
    }

    fn worst(&self) -> Sight {
        let worst = self.last_of.iter().flatten().max_by_key(|sight| (sight.verdict, sight.outcome));
        worst.copied().unwrap_or(Sight { verdict: NameVerdict::Absent, address: None, outcome: None })
    }

    fn seen(&self) -> Option<Seen> {
        let Sight { verdict, address, outcome } = self.worst();
        Some(Seen {
            name: Name::from_wire(&self.name).ok()?,
            rule: self.rule.clone(),
            excepted: self.excepted,
            verdict,
            outcome,
            address,
            answers: self.answers,
            clients: self.clients.estimate(),
            first: self.first,
            last: self.last,
        })
    }
}

impl Kind {
    const fn of(qtype: RecordType) -> Option<Self> {
        match qtype {
            RecordType::A => Some(Self::Ipv4),
            RecordType::AAAA => Some(Self::Ipv6),
            RecordType::SVCB | RecordType::HTTPS => Some(Self::Hints),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::LazyLock, time::Duration};

    use super::*;

    const START: Moment = Moment::at(Duration::from_secs(1_000_000));

    fn private(address: &str) -> Sight {
        Sight { verdict: NameVerdict::Private, address: Some(address.parse().unwrap()), outcome: None }
    }

    fn public() -> Sight {
        Sight {
            verdict: NameVerdict::Public,
            address: Some("52.1.2.3".parse().unwrap()),
            outcome: Some(Exposure::Refused),
        }
    }

    const ABSENT: Sight = Sight { verdict: NameVerdict::Absent, address: None, outcome: None };

    fn about<'a>(name: &'a Name, client: &str) -> About<'a> {
        static RULE: LazyLock<Arc<str>> = LazyLock::new(|| "aws".into());
        About { name, qtype: RecordType::A, rule: &RULE, outcome: Exposure::Refused, client: client.parse().unwrap() }
    }

    fn note(table: &mut Table, kind: Kind, sight: Sight, about: &About<'_>, now: Moment) {
        table.note(hash(about.name), kind, sight, about, now);
    }

    #[test]
    fn a_names_verdict_is_the_worst_of_its_types_last_answers() {
        let mut table = Table::default();
        let name: Name = "sts.eu-west-1.amazonaws.com".parse().unwrap();
        let worst = |table: &Table| table.entries[0].worst().verdict;
        note(&mut table, Kind::Ipv6, ABSENT, &about(&name, "10.0.0.1"), START);
        assert_eq!(worst(&table), NameVerdict::Absent);
        note(&mut table, Kind::Ipv4, public(), &about(&name, "10.0.0.1"), START);
        assert_eq!(worst(&table), NameVerdict::Public);
        note(&mut table, Kind::Hints, ABSENT, &about(&name, "10.0.0.2"), START);
        assert_eq!(worst(&table), NameVerdict::Public, "another type mends nothing");
        note(&mut table, Kind::Ipv4, private("10.0.0.9"), &about(&name, "10.0.0.3"), START + Duration::from_secs(9));
        let seen = table.entries[0].seen().unwrap();
        assert_eq!((seen.verdict, seen.answers, seen.clients), (NameVerdict::Private, [2, 1, 0, 1], 3));
        assert_eq!((seen.first, seen.last), (START, START + Duration::from_secs(9)));
    }

    #[test]
    fn violations_are_recent_public_answers_that_a_guard_judged() {
        let perimeter = Perimeter::new(START);
        let judged = |name: &str, outcome, at| {
            let name: Name = name.parse().unwrap();
            let sight = Sight { outcome: Some(outcome), ..public() };
            let about = about(&name, "10.0.0.1");
            perimeter.table(hash(&name)).lock().note(hash(&name), Kind::Ipv4, sight, &about, at);
        };
        let later = START + Duration::from_secs(60);
        judged("old.amazonaws.com", Exposure::Leaked, START);
        assert_eq!(perimeter.violations(later), Violations::default());
        judged("a.amazonaws.com", Exposure::Refused, later);
        judged("b.amazonaws.com", Exposure::Stripped, later + Duration::from_secs(2));
        judged("c.amazonaws.com", Exposure::Refused, later + Duration::from_secs(1));
        judged("d.amazonaws.com", Exposure::Excepted, later + Duration::from_secs(3));
        judged("e.amazonaws.com", Exposure::Unguarded, later + Duration::from_secs(3));
        let newest = Some("b.amazonaws.com".parse().unwrap());
        assert_eq!(perimeter.violations(later), Violations { leaked: 0, stripped: 1, refused: 2, newest });
    }

    #[test]
    fn a_full_table_stays_full_and_keeps_what_is_public() {
        let mut table = Table::default();
        let names = |kind: &str, count: usize| -> Vec<Name> {
            (0..count).map(|n| format!("{kind}{n}.amazonaws.com").parse().unwrap()).collect()
        };
        for name in names("public", SHARE / 4) {
            note(&mut table, Kind::Ipv4, public(), &about(&name, "10.0.0.1"), START);
        }
        for name in names("absent", 3 * SHARE) {
            note(&mut table, Kind::Ipv4, ABSENT, &about(&name, "10.0.0.1"), START);
        }
        assert_eq!((table.entries.len(), table.places.len()), (SHARE, SHARE));
        assert_eq!(table.given_up, u64::try_from(9 * SHARE / 4).unwrap());
        for (at, entry) in table.entries.iter().enumerate() {
            assert_eq!(table.find(entry.hash, &entry.seen().unwrap().name), Some(at));
        }
        let left = table.entries.iter().filter(|entry| entry.worst().verdict == NameVerdict::Public).count();
        // All of a sample are public once in 4^8 times.
        assert!(left >= SHARE / 4 - 2, "{left}");
    }
}
