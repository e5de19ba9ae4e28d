//! What the perimeter looks like from here: the AWS names that were asked for, and whether their addresses are private.
//!
//! Policy:
//! - A name is noted if its rule has a guard, or if it is of an AWS name family. It is noted when an upstream's answer
//!   comes in, before the guard strips or refuses anything; never when the cache answers.
//! - Each of a name's question types has a verdict, that of its last answer, so that what was mended is seen to be. The
//!   name's is the worst of them. Types that bring no addresses say nothing.
//! - Under a guard, private is what lies in its networks; without one, the private networks. Private addresses that
//!   clients cannot reach (outside the guard's networks; link-local, such as VPC Lattice's) are a verdict of their own.
//! - Memory is bounded: [`MAX_NAMES`] names. Then a new name takes the place of the least telling of a few at random:
//!   absent before private before unreachable before public, the one seen longest ago first.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use hashbrown::HashTable;
use ipnet::IpNet;
use parking_lot::Mutex;
use rand::RngExt;
use xxhash_rust::xxh3::xxh3_64;

use super::{guard::Guard, resolution::Resolution, snapshot::Rule};
use crate::{
    clock::Moment,
    config,
    networks::Networks,
    wire::{Malformed, Name, RecordType, Response, addresses},
};

/// Names kept, about 300 octets each.
pub const MAX_NAMES: usize = 4096;
/// Names looked at for one to give up.
const SAMPLE: usize = 8;

/// What a name's addresses are, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is no such name, or it has no address.
    Absent,
    /// All addresses are private, and clients reach them.
    Private,
    /// An address is private, and clients do not reach it.
    Unreachable,
    /// An address is public.
    Public,
}

impl Verdict {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Absent, Self::Private, Self::Unreachable, Self::Public];

    /// As reports spell it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Private => "private",
            Self::Unreachable => "unreachable-private",
            Self::Public => "public",
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
    pub verdict: Verdict,
    /// The address that made the verdict, where one did.
    pub address: Option<IpAddr>,
    /// Answers so far, by verdict, in the order of [`Verdict::ALL`].
    pub answers: [u64; Verdict::ALL.len()],
    /// Clients that waited for such an answer: about so many, exact for a few.
    pub clients: u32,
    /// When the first answer came.
    pub first: Moment,
    /// When the last answer came.
    pub last: Moment,
}

/// All that is known.
#[derive(Debug, Clone)]
pub struct Report {
    /// Since when.
    pub since: Moment,
    /// The names, the worst first, then in their order.
    pub names: Vec<Seen>,
    /// Names that were given up to keep memory bounded.
    pub given_up: u64,
}

impl Report {
    /// Names with a public address that no rule excepts.
    pub fn public(&self) -> usize {
        self.names.iter().filter(|seen| seen.verdict == Verdict::Public && !seen.excepted).count()
    }
}

/// The table of names.
#[derive(Debug)]
pub struct Perimeter {
    since: Moment,
    table: Mutex<Table>,
}

/// Invariant: `places` has each entry's position, under the hash of its name, and nothing else.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    places: HashTable<usize>,
    given_up: u64,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    rule: Arc<str>,
    excepted: bool,
    /// By [`Kind`].
    last_of: [Option<Sight>; 3],
    answers: [u64; Verdict::ALL.len()],
    clients: Clients,
    first: Moment,
    last: Moment,
}

/// What one answer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    verdict: Verdict,
    address: Option<IpAddr>,
}

/// Question types that bring addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipv4,
    Ipv6,
    Hints,
}

impl Perimeter {
    /// Nothing seen yet.
    pub fn new(now: Moment) -> Self {
        Self { since: now, table: Mutex::default() }
    }

    /// Takes note of an upstream's answer to the resolution.
    pub(super) fn note(&self, resolution: &Resolution, rule: &Rule, response: &Response, now: Moment) {
        let name = &resolution.query.name;
        if !rule.guard.has_networks() && !config::is_aws_name(name) {
            return;
        }
        let Some(kind) = Kind::of(resolution.query.qtype) else { return };
        let Ok(sight) = look(&rule.guard, response) else { return };
        let about = About { rule: &rule.name, excepted: rule.guard.spares(name.as_wire()), client: resolution.client };
        self.table.lock().note(name, kind, sight, &about, now);
    }

    /// Takes note of a client that waits for the answer to another's question.
    pub(super) fn note_client(&self, resolution: &Resolution) {
        let mut table = self.table.lock();
        if let Some(at) = table.find(&resolution.query.name) {
            table.entries[at].clients.add(resolution.client);
        }
    }

    /// What was seen so far.
    pub fn report(&self) -> Report {
        let table = self.table.lock();
        let mut names: Vec<Seen> = table.entries.iter().map(Entry::seen).collect();
        let given_up = table.given_up;
        drop(table);
        names.sort_by(|one, other| other.verdict.cmp(&one.verdict).then_with(|| one.name.cmp(&other.name)));
        Report { since: self.since, names, given_up }
    }
}

/// What stands beside an answer.
struct About<'a> {
    rule: &'a Arc<str>,
    excepted: bool,
    client: IpAddr,
}

impl Table {
    fn note(&mut self, name: &Name, kind: Kind, sight: Sight, about: &About<'_>, now: Moment) {
        let at = match self.find(name) {
            Some(at) => at,
            None => self.place(Entry::new(name.clone(), about.rule, now)),
        };
        let entry = &mut self.entries[at];
        if entry.rule != *about.rule {
            entry.rule = Arc::clone(about.rule);
        }
        entry.excepted = about.excepted;
        entry.last_of[kind as usize] = Some(sight);
        entry.answers[sight.verdict as usize] += 1;
        entry.clients.add(about.client);
        entry.last = now;
    }

    fn find(&self, name: &Name) -> Option<usize> {
        self.places.find(hash(name), |&at| self.entries[at].name == *name).copied()
    }

    /// Puts a new name at a free place, or at that of a name given up.
    fn place(&mut self, entry: Entry) -> usize {
        let new = hash(&entry.name);
        let at = if self.entries.len() < MAX_NAMES {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let mut random = rand::rng();
            let sample = (0..SAMPLE).map(|_| random.random_range(0..MAX_NAMES));
            let at = sample.min_by_key(|&at| (self.entries[at].worst().verdict, self.entries[at].last)).unwrap_or(0);
            if let Ok(place) = self.places.find_entry(hash(&self.entries[at].name), |&other| other == at) {
                place.remove();
            }
            self.entries[at] = entry;
            self.given_up += 1;
            at
        };
        self.places.insert_unique(new, at, |&at| hash(&self.entries[at].name));
        at
    }
}

fn hash(name: &Name) -> u64 {
    xxh3_64(name.as_wire())
}

impl Entry {
    fn new(name: Name, rule: &Arc<str>, now: Moment) -> Self {
        Self {
            name,
            rule: Arc::clone(rule),
            excepted: false,
            last_of: [None; 3],
            answers: [0; Verdict::ALL.len()],
            clients: Clients::default(),
            first: now,
            last: now,
        }
    }

    fn worst(&self) -> Sight {
        let worst = self.last_of.iter().flatten().max_by_key(|sight| sight.verdict);
        worst.copied().unwrap_or(Sight { verdict: Verdict::Absent, address: None })
    }

    fn seen(&self) -> Seen {
        let Sight { verdict, address } = self.worst();
        Seen {
            name: self.name.clone(),
            rule: self.rule.clone(),
            excepted: self.excepted,
            verdict,
            address,
            answers: self.answers,
            clients: self.clients.estimate(),
            first: self.first,
            last: self.last,
        }
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

/// Goes through every address of the answer.
fn look(guard: &Guard, response: &Response) -> Result<Sight, Malformed> {
    let mut worst = Sight { verdict: Verdict::Absent, address: None };
    addresses::find_address(response.message(), |address| {
        let verdict = judge(guard, address);
        if verdict > worst.verdict {
            worst = Sight { verdict, address: Some(address) };
        }
        None::<()>
    })?;
    Ok(worst)
}

fn judge(guard: &Guard, address: IpAddr) -> Verdict {
    let reach = PRIVATE.lookup(address);
    match (guard.reaches(address), reach) {
        (Some(true), _) | (None, Some(Reach::Routed)) => Verdict::Private,
        (Some(false), Some(_)) | (None, Some(Reach::Local)) => Verdict::Unreachable,
        (_, None) => Verdict::Public,
    }
}

/// Whether private addresses can be reached from another network at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Routed,
    Local,
}

/// RFC 1918, 6598 and 4193; link-local, loopback and "this host" (RFC 6890), and what AWS uses within a VPC alone.
static PRIVATE: LazyLock<Networks<Reach>> = LazyLock::new(|| {
    let networks = [
        ("10.0.0.0/8", Reach::Routed),
        ("100.64.0.0/10", Reach::Routed),
        ("172.16.0.0/12", Reach::Routed),
        ("192.168.0.0/16", Reach::Routed),
        ("fc00::/7", Reach::Routed),
        ("0.0.0.0/8", Reach::Local),
        ("127.0.0.0/8", Reach::Local),
        ("169.254.0.0/16", Reach::Local),
        ("::/128", Reach::Local),
        ("::1/128", Reach::Local),
        ("fd00:ec2::/32", Reach::Local),
        ("fe80::/10", Reach::Local),
    ];
    Networks::new(networks.iter().filter_map(|(text, reach)| Some((text.parse::<IpNet>().ok()?, *reach))))
});

/// About how many different clients: linear counting over 256 bits, exact for one, within a tenth up to some hundreds,
/// and no more than [`Clients::MOST`].
#[derive(Debug, Clone, Copy, Default)]
struct Clients([u64; 4]);

impl Clients {
    const BITS: u32 = 256;
    /// What a full bitmap stands for.
    const MOST: u32 = 1420;

    fn add(&mut self, client: IpAddr) {
        let hash = match client.to_canonical() {
            IpAddr::V4(address) => xxh3_64(&address.octets()),
            // A host has as many addresses as it likes within its /64.
            IpAddr::V6(address) => xxh3_64(&address.octets()[..8]),
        };
        let bit = hash % u64::from(Self::BITS);
        self.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    fn estimate(self) -> u32 {
        let free = Self::BITS - self.0.iter().map(|word| word.count_ones()).sum::<u32>();
        if free == 0 {
            return Self::MOST;
        }
        let bits = f64::from(Self::BITS);
        let estimate = (bits * (bits / f64::from(free)).ln()).round();
        (0..=Self::MOST).find(|&count| f64::from(count) >= estimate).unwrap_or(Self::MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Moment = Moment::at(Duration::from_secs(1_000_000));

    fn private(address: &str) -> Sight {
        Sight { verdict: Verdict::Private, address: Some(address.parse().unwrap()) }
    }

    fn public() -> Sight {
        Sight { verdict: Verdict::Public, address: Some("52.1.2.3".parse().unwrap()) }
    }

    const ABSENT: Sight = Sight { verdict: Verdict::Absent, address: None };

    fn about(client: &str) -> About<'static> {
        static RULE: LazyLock<Arc<str>> = LazyLock::new(|| "aws".into());
        About { rule: &RULE, excepted: false, client: client.parse().unwrap() }
    }

    fn guard(private: &str) -> Guard {
        let on_public = if private.is_empty() { "" } else { "on_public = \"refuse\"" };
        let text = format!(
            "[upstream.vpc]\nservers = [\"10.0.0.1\"]\n[[forward]]\nzones = [\"a.example\"]\nto = \"vpc\"\n\
             private = [{private}]\n{on_public}"
        );
        Guard::of(&config::Plan::from_text("t.toml", &text).unwrap().live.rules[0])
    }

    #[test]
    fn a_names_verdict_is_the_worst_of_its_types_last_answers() {
        let mut table = Table::default();
        let name: Name = "sts.eu-west-1.amazonaws.com".parse().unwrap();
        let worst = |table: &Table| table.entries[0].worst().verdict;
        table.note(&name, Kind::Ipv6, ABSENT, &about("10.0.0.1"), START);
        assert_eq!(worst(&table), Verdict::Absent);
        table.note(&name, Kind::Ipv4, public(), &about("10.0.0.1"), START);
        assert_eq!(worst(&table), Verdict::Public);
        table.note(&name, Kind::Hints, ABSENT, &about("10.0.0.2"), START);
        assert_eq!(worst(&table), Verdict::Public, "another type mends nothing");
        table.note(&name, Kind::Ipv4, private("10.0.0.9"), &about("10.0.0.3"), START + Duration::from_secs(9));
        let seen = table.entries[0].seen();
        assert_eq!((seen.verdict, seen.answers, seen.clients), (Verdict::Private, [2, 1, 0, 1], 3));
        assert_eq!((seen.first, seen.last), (START, START + Duration::from_secs(9)));
    }

    #[test]
    fn a_full_table_stays_full_and_keeps_what_is_public() {
        let mut table = Table::default();
        let names = |kind: &str, count: usize| -> Vec<Name> {
            (0..count).map(|n| format!("{kind}{n}.amazonaws.com").parse().unwrap()).collect()
        };
        for name in names("public", MAX_NAMES / 4) {
            table.note(&name, Kind::Ipv4, public(), &about("10.0.0.1"), START);
        }
        for name in names("absent", 3 * MAX_NAMES) {
            table.note(&name, Kind::Ipv4, ABSENT, &about("10.0.0.1"), START);
        }
        assert_eq!((table.entries.len(), table.places.len()), (MAX_NAMES, MAX_NAMES));
        assert_eq!(table.given_up, u64::try_from(9 * MAX_NAMES / 4).unwrap());
        for (at, entry) in table.entries.iter().enumerate() {
            assert_eq!(table.find(&entry.name), Some(at));
        }
        let left = table.entries.iter().filter(|entry| entry.worst().verdict == Verdict::Public).count();
        // All of a sample are public once in 4^8 times.
        assert!(left >= MAX_NAMES / 4 - 8, "{left}");
    }

    #[test]
    fn private_addresses_that_clients_cannot_reach_are_told_apart() {
        for (networks, address, verdict) in [
            ("\"10.20.0.0/16\"", "10.20.1.1", Verdict::Private),
            ("\"10.20.0.0/16\"", "10.21.1.1", Verdict::Unreachable),
            ("\"10.20.0.0/16\"", "169.254.171.5", Verdict::Unreachable),
            ("\"10.20.0.0/16\"", "52.1.2.3", Verdict::Public),
            ("\"10.20.0.0/16\", \"52.1.2.0/24\"", "52.1.2.3", Verdict::Private),
            ("\"10.20.0.0/16\"", "fd00::1", Verdict::Unreachable),
            ("", "10.21.1.1", Verdict::Private),
            ("", "169.254.171.5", Verdict::Unreachable),
            ("", "fd00:ec2:80::1", Verdict::Unreachable),
            ("", "fd12::1", Verdict::Private),
            ("", "2600::1", Verdict::Public),
            ("", "::ffff:10.0.0.1", Verdict::Private),
        ] {
            assert_eq!(judge(&guard(networks), address.parse().unwrap()), verdict, "{address} in [{networks}]");
        }
    }

    #[test]
    fn clients_are_counted_about_right_and_bounded() {
        let count = |clients: u32| {
            let mut set = Clients::default();
            for client in 0..clients {
                set.add(IpAddr::from((0x0a00_0000 + client * 7).to_be_bytes()));
            }
            set.estimate()
        };
        assert_eq!((count(0), count(1)), (0, 1));
        assert!((9..=11).contains(&count(10)), "{}", count(10));
        assert!((170..=230).contains(&count(200)), "{}", count(200));
        assert_eq!(count(1_000_000), Clients::MOST);
        let mut one_host = Clients::default();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            one_host.add(address.parse().unwrap());
        }
        assert_eq!(one_host.estimate(), 1);
    }
}
