//! Names that are answered locally: local zones, hosts files, special-use names.
//!
//! [`Zones`] is built with each configuration and whenever a file of it changes ([`Zones::changed`]); it never changes
//! itself. `route` learns from [`Zones::domains`] and [`Zones::special_domains`] which names to send here, `engine`
//! calls [`Zones::answer`] on a miss and keeps the message in the cache under the domain's fingerprint.
//!
//! **Overrides.** A `[[local]]` zone is authoritative for its name and everything below, down to the next longer domain
//! (another local zone, a host, a rule): below a forwarded domain it takes its subtree out and leaves the rest alone. A
//! name that such a zone lacks does not exist; no other server is asked. A name of `local_hosts` overrides only itself:
//! all types of that name are answered here, with NODATA if the file has no such address (an override whose AAAA came
//! from elsewhere would be useless). Names below it are routed as usual. The longest domain decides, so a host inside a
//! local zone beats the zone; at a zone's own name the zone does. Special-use names come last, but before a local zone
//! ".".
//!
//! **Not on hickory-server's Catalog.** It sets AA in referrals, drops the chain when a CNAME ends in a name that does
//! not exist, takes ANY and NS at a cut for data, has no DNAME, and logs each question with DO at info
//! (`zone_handler/catalog.rs`, 0.26.3): none of it can be mended from a `ZoneHandler`. The rules fit in two files,
//! [`answer`](mod@answer) and `zone`, are synchronous, and `tests/zones.rs` holds them against BIND.
//!
//! Class IN only. AXFR, IXFR and other queries that are not for data are refused before they come here.

pub mod answer;
pub mod hosts;
pub mod special;
pub mod text;

mod build;
mod complete;
mod encoding;
mod entry;
mod error;
mod generate;
mod load;
mod message;
mod names;
mod rdata;
mod rdata_text;
mod svcb;
mod watch;
mod zone;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use hashbrown::{HashMap, HashSet};

pub use self::{
    error::{RecordPlace, ZoneError, ZoneErrorKind},
    special::DesignatedResolver,
    watch::FileWatch,
};
use self::{
    hosts::Hosts,
    load::{Findings, LoadedHosts, LoadedZone, Start},
    special::Special,
    zone::{Found, Zone},
};
use crate::wire::{Class, Name, Rcode, RecordType};

/// A local zone as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSpec {
    /// The zone's name.
    pub zone: Name,
    /// Where it is declared.
    pub place: RecordPlace,
    /// Where its records are.
    pub source: ZoneSource,
}

/// Where a zone's records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSource {
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
    pub place: RecordPlace,
}

/// Whether the special-use names are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialUse {
    /// Answered here, where nothing else covers them.
    Answered,
    /// Treated like any other name.
    Ignored,
}

/// A domain that is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDomain<'a> {
    /// The name.
    pub name: &'a Name,
    /// A digest of everything that answers below it depend on.
    pub fingerprint: u64,
}

/// A query for a local name.
#[derive(Debug, Clone, Copy)]
pub struct LocalQuery<'a> {
    /// The name.
    pub name: &'a Name,
    /// The type.
    pub qtype: RecordType,
    /// The class.
    pub qclass: Class,
}

/// The answer to a [`LocalQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAnswer {
    /// The whole message: id 0, QR and perhaps AA, the question with the name in lower case, no OPT. For
    /// [`LocalOutcome::Leaves`] the chain so far; for [`LocalOutcome::Endless`] SERVFAIL and no records.
    pub message: Vec<u8>,
    /// Its response code.
    pub rcode: Rcode,
    /// How the answer ends.
    pub outcome: LocalOutcome,
    /// How many aliases (CNAMEs, those made from DNAMEs included) the message follows.
    pub aliases: u8,
}

/// How an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalOutcome {
    /// The answer is complete.
    Done,
    /// An alias leads to a name that this zone does not answer for: resolution continues there.
    Leaves {
        /// The name to ask for next, with the same type.
        target: Name,
    },
    /// The name is delegated to other servers. The message is the referral, perhaps behind a CNAME chain.
    Delegated {
        /// The zone that begins there.
        cut: Name,
        /// The name that was looked up last, at or below the cut.
        target: Name,
    },
    /// The aliases do not end: more than [`answer::MAX_ALIASES`], or a loop.
    Endless,
    /// The zone's file could not be used when the server started.
    Broken {
        /// The zone.
        zone: Name,
    },
}

/// Lines of a hosts file that were left out.
#[derive(Debug)]
pub struct SkippedLines {
    /// How many.
    pub count: usize,
    /// What is wrong with the first of them.
    pub first: ZoneError,
}

impl fmt::Display for SkippedLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, first) = (self.first.place.file.display(), &self.first);
        match self.count {
            1 => write!(f, "{file}: 1 line was skipped, the others are served: {first}"),
            count => write!(f, "{file}: {count} lines were skipped, the others are served; the first: {first}"),
        }
    }
}

/// The fingerprint of a zone whose file is broken: nothing of it is kept.
const BROKEN: u64 = 0;

/// A zone cut in a local zone (RFC 1034 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The local zone.
    pub zone: Name,
    /// The delegated domain.
    pub cut: Name,
    /// The names of its servers.
    pub names: Vec<Name>,
    /// Their addresses, as far as the zone has them.
    pub servers: Vec<IpAddr>,
}

/// All local names of a configuration.
#[derive(Debug, Default)]
pub struct Zones {
    zones: HashMap<Box<[u8]>, Arc<LoadedZone>>,
    hosts: Arc<LoadedHosts>,
    special: HashMap<Box<[u8]>, Special>,
    watch: FileWatch,
    findings: Findings,
}

impl Zones {
    /// Builds the zones, hosts and special-use names of a configuration, or returns all errors in them. Files that have
    /// not changed since `previous` are not read again. See `load` for files that cannot be used.
    pub fn build(
        specs: &[LocalSpec],
        hosts: Option<&Path>,
        special_use: SpecialUse,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<ZoneError>> {
        let start = if previous.is_some() { Start::Later } else { Start::First };
        let mut built = Self::default();
        let mut findings = Findings::default();
        let mut declared = HashSet::new();
        for spec in specs {
            if !declared.insert(&spec.zone) {
                let kind = ZoneErrorKind::Twice(spec.zone.clone());
                findings.refused.push(ZoneError { place: spec.place.clone(), kind, record: String::new() });
                continue;
            }
            let before = previous.and_then(|previous| previous.zones.get(spec.zone.as_wire()));
            if let Some(zone) = load::zone(spec, before, start, &mut findings) {
                built.watch.extend(&zone.files);
                built.zones.insert(spec.zone.as_wire().into(), zone);
            }
        }
        if let Some(hosts) = load::hosts(hosts, previous.map(|previous| &previous.hosts), start, &mut findings) {
            built.watch.extend(&hosts.files);
            built.hosts = hosts;
        }
        if !findings.refused.is_empty() {
            return Err(findings.refused);
        }
        if special_use == SpecialUse::Answered {
            let special = special::zones();
            built.special = special.map(|(apex, special)| (apex.as_wire().into(), special)).collect();
            built.designate(&[]);
        }
        built.findings = findings;
        Ok(built)
    }

    /// Answers `_dns.resolver.arpa` with these designated resolvers (RFC 9462), where special-use names are answered.
    pub fn designate(&mut self, resolvers: &[DesignatedResolver]) {
        let (apex, zone) = special::resolver_arpa(resolvers);
        if let Some(special) = self.special.get_mut(apex.as_wire()) {
            *special = zone;
        }
    }

    /// The errors in files that were read for this value and cannot be used: their zones answer SERVFAIL.
    pub fn errors(&self) -> &[ZoneError] {
        &self.findings.broken
    }

    /// The warnings about files that were read for this value: lines that were skipped.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.findings.skipped.iter().map(ToString::to_string)
    }

    /// The zones that answer SERVFAIL because their files cannot be used.
    pub fn broken(&self) -> impl Iterator<Item = &Name> {
        self.zones.values().filter(|zone| zone.zone().is_none()).map(|zone| &zone.spec.zone)
    }

    /// The hosts file, if it cannot be read: its names are not answered here.
    pub fn unreadable_hosts(&self) -> Option<&Path> {
        self.hosts.unreadable()
    }

    /// The special-use domains that are answered here, where nothing but "." covers them otherwise.
    pub fn special_domains(&self) -> impl Iterator<Item = LocalDomain<'_>> {
        self.special
            .values()
            .map(|special| LocalDomain { name: special.zone().apex(), fingerprint: special.zone().fingerprint() })
    }

    /// The local zones.
    pub fn domains(&self) -> impl Iterator<Item = LocalDomain<'_>> {
        self.zones.values().map(|zone| LocalDomain {
            name: &zone.spec.zone,
            fingerprint: zone.zone().map_or(BROKEN, Zone::fingerprint),
        })
    }

    /// Whether a wire name in lower case stands in the hosts file: it is answered here, and it alone. At a zone's own
    /// name the zone answers.
    pub fn is_host(&self, name: &[u8]) -> bool {
        self.hosts.hosts().is_some_and(|hosts| hosts.holds(name)) && !self.zones.contains_key(name)
    }

    /// Whether a special-use domain, and no local zone or host, answers for a wire name in lower case.
    pub fn is_special(&self, name: &[u8]) -> bool {
        matches!(self.origin(name, RecordType::A), Some(Origin::Special(_)))
    }

    /// A digest of the hosts file that does not depend on the order of its lines.
    pub fn hosts_fingerprint(&self) -> u64 {
        self.hosts.hosts().map_or(0, Hosts::fingerprint)
    }

    /// A digest of everything that the answer for a wire name in lower case depends on; 0 if nothing here covers it.
    pub fn fingerprint(&self, name: &[u8], qtype: RecordType) -> u64 {
        match self.origin(name, qtype) {
            Some(Origin::Host(hosts)) => hosts.print_of(name),
            Some(Origin::Zone(loaded)) => loaded.zone().map_or(BROKEN, Zone::fingerprint),
            Some(Origin::Special(special)) => special.zone().fingerprint(),
            None => 0,
        }
    }

    /// Who answers a query for a wire name in lower case; none where nothing here covers it.
    pub fn owner(&self, name: &[u8], qtype: RecordType) -> Option<LocalOwner<'_>> {
        self.origin(name, qtype).map(|origin| match origin {
            Origin::Host(_) => LocalOwner::Hosts,
            Origin::Zone(loaded) => LocalOwner::Zone(&loaded.spec.zone),
            Origin::Special(special) => LocalOwner::Special(special.zone().apex()),
        })
    }

    /// The source of the answer.
    fn origin(&self, name: &[u8], qtype: RecordType) -> Option<Origin<'_>> {
        let loaded = covering(&self.zones, name);
        let is_apex = loaded.is_some_and(|loaded| loaded.spec.zone.as_wire() == name);
        if !is_apex && let Some(hosts) = self.hosts.hosts().filter(|hosts| hosts.holds(name)) {
            return Some(Origin::Host(hosts));
        }
        let is_ours =
            |loaded: &&Arc<LoadedZone>| !loaded.spec.zone.is_root() || covering(&self.special, name).is_none();
        if let Some(loaded) = loaded.filter(is_ours) {
            let parents = if is_apex && qtype == RecordType::DS { self.parent_of_cut(name) } else { None };
            return Some(Origin::Zone(parents.unwrap_or(loaded)));
        }
        covering(&self.special, name).map(Origin::Special)
    }

    /// Answers a query; none if nothing here covers its name. An alias is followed within the zone only where `stays`
    /// says that the target is answered here: a rule may cover it.
    pub fn answer(&self, question: &LocalQuery<'_>, stays: impl Fn(&Name) -> bool) -> Option<LocalAnswer> {
        let name = question.name.as_wire();
        match self.origin(name, question.qtype)? {
            Origin::Host(hosts) => hosts.answer(question),
            Origin::Zone(loaded) => {
                let Some(zone) = loaded.zone() else { return Some(answer::broken(question, &loaded.spec.zone)) };
                let is_ours = |target: &Name| {
                    let nearest = covering(&self.zones, target.as_wire());
                    nearest.is_some_and(|nearest| nearest.spec.zone == *zone.apex())
                        && !self.is_host(target.as_wire())
                        && stays(target)
                };
                Some(answer::answer(zone, question, &is_ours))
            }
            Origin::Special(Special::Zone(zone)) => Some(answer::answer(zone, question, &stays)),
            Origin::Special(Special::Absent(zone)) => Some(answer::absent(zone, question)),
        }
    }

    /// For DS at a zone's own name, the local zone that delegates it: DS is the parent's (RFC 4035 3.1.4.1).
    fn parent_of_cut(&self, name: &[u8]) -> Option<&Arc<LoadedZone>> {
        let length = name.first().copied().filter(|&length| length > 0)?;
        let parent = covering(&self.zones, &name[1 + usize::from(length)..])?;
        let Some(zone) = parent.zone() else { return Some(parent) };
        matches!(zone.find(name), Found::Cut { .. }).then_some(parent)
    }

    /// Every delegation of every zone that no other local zone takes over, in no order.
    pub fn delegations(&self) -> Vec<Delegation> {
        let zones = self.zones.values().filter_map(|loaded| loaded.zone());
        let all = zones.flat_map(|zone| zone.cuts().filter_map(|cut| answer::delegation(zone, cut)));
        all.filter(|delegation| {
            let nearest = covering(&self.zones, delegation.cut.as_wire());
            nearest.is_some_and(|nearest| nearest.spec.zone == delegation.zone)
        })
        .collect()
    }

    /// Whether a file that was read changed, came or went since.
    pub fn changed(&self) -> bool {
        self.watch.changed()
    }

    /// The files that were read and their state then, for polling.
    pub const fn watch(&self) -> &FileWatch {
        &self.watch
    }
}

/// Who answers a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalOwner<'z> {
    /// The hosts file.
    Hosts,
    /// A local zone.
    Zone(&'z Name),
    /// A special-use domain.
    Special(&'z Name),
}

/// The source of an answer.
enum Origin<'z> {
    Host(&'z Hosts),
    Zone(&'z Arc<LoadedZone>),
    Special(&'z Special),
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

#[cfg(test)]
mod tests;
