//! Zones from master-file text (RFC 1035 5, RFC 2308 4, RFC 3597), a file or lines of the configuration.
//!
//! - Every fault is reported with file, line and record, and reading goes on.
//! - A record without a TTL takes that of `$TTL`; before any `$TTL` the last one written (RFC 1035 5.1); before any
//!   at all the SOA its own MINIMUM, and inline records [`INLINE_TTL`].
//! - `$INCLUDE` is relative to the zone file's folder and must lie in it or below, wherever symbolic links lead. It
//!   takes an origin; origin and owner of the including file come back after it (RFC 1035 5.1).
//! - A zone file has a SOA and NS at its apex, as BIND demands; for inline records they are made where missing.
//! - Refused: CNAME beside other data, a second SOA, owners outside the zone, NS and DNAME of wildcards (RFC 4592 4.2,
//!   4.4), `$GENERATE`, signatures and NSEC (the zone is served unsigned).

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    InlineRecord, LocalSpec, Source,
    entry::{Entries, Entry, Start, Token},
    field,
    problem::{Fault, Place, ZoneProblem},
    rdata, special,
    watch::Watch,
    zone::Zone,
};
use crate::wire::{MAX_MESSAGE, Name, RecordType, name::MAX_NAME};

/// The TTL of inline records that have none, and of the SOA and NS made for them, in seconds.
pub const INLINE_TTL: u32 = 300;
/// How deep files include files.
const MAX_DEPTH: usize = 8;
/// The octets of a message that no record of the answer can have: header, question, and a SOA besides.
const RESERVED: usize = 12 + MAX_NAME + 4 + 3 * MAX_NAME;

/// Reads the zone of a specification; what is wrong goes to `problems`, and then there is no zone.
pub(super) fn read(spec: &LocalSpec, watch: &mut Watch, problems: &mut Vec<ZoneProblem>) -> Option<Zone> {
    let mut found = Vec::new();
    let mut reader = Reader::new(&spec.zone, watch, &mut found);
    match &spec.source {
        Source::File(path) => reader.file(path, &spec.place),
        Source::Records(records) => reader.inline(records),
    }
    let mut zone = reader.zone;
    match &spec.source {
        Source::Records(_) => complete(&mut zone),
        Source::File(path) if found.is_empty() => demand(&zone, path, &mut found),
        Source::File(_) => {}
    }
    if found.is_empty() {
        bound(&zone, &spec.place, &mut found);
    }
    if !found.is_empty() {
        problems.append(&mut found);
        return None;
    }
    zone.seal();
    Some(zone)
}

/// What the next record may take from those before it.
struct Reader<'a> {
    zone: Zone,
    watch: &'a mut Watch,
    problems: &'a mut Vec<ZoneProblem>,
    soa: Option<Place>,
    /// The folder that included files must lie in, and the files being read, all canonical.
    folder: Option<PathBuf>,
    open: Vec<PathBuf>,
    /// The origin in wire form.
    origin: Vec<u8>,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl<'a> Reader<'a> {
    fn new(apex: &Name, watch: &'a mut Watch, problems: &'a mut Vec<ZoneProblem>) -> Self {
        Self {
            zone: Zone::new(apex.clone()),
            watch,
            problems,
            soa: None,
            folder: None,
            open: Vec::new(),
            origin: apex.as_wire().to_vec(),
            owner: None,
            default_ttl: None,
            last_ttl: None,
        }
    }

    fn file(&mut self, path: &Path, declared: &Place) {
        let text = match self.watch.read(path) {
            Ok(text) => text,
            Err(error) => {
                let place = Place { file: path.to_owned(), line: 0 };
                let record = format!("zone {}, {declared}", self.zone.apex());
                self.problems.push(ZoneProblem { place, fault: Fault::Read(error), record });
                return;
            }
        };
        if let Ok(real) = fs::canonicalize(path) {
            self.open.push(real);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        self.folder = fs::canonicalize(parent).ok();
        self.text(&text, path, 1);
    }

    fn inline(&mut self, records: &[InlineRecord]) {
        self.last_ttl = Some(INLINE_TTL);
        for record in records {
            self.text(record.text.as_bytes(), &record.place.file, record.place.line);
            // The default holds for each line: one with a TTL does not pass it on to the next.
            self.last_ttl = Some(INLINE_TTL);
        }
    }

    fn text(&mut self, text: &[u8], file: &Path, line: usize) {
        for entry in Entries::new(text, line) {
            let (line, fault, record) = match entry {
                Ok(entry) => {
                    let place = || Place { file: file.to_owned(), line: entry.line };
                    let Err(fault) = self.entry(&entry, &place) else { continue };
                    (entry.line, fault, entry.shown())
                }
                Err((line, fault)) => (line, fault, String::new()),
            };
            self.problems.push(ZoneProblem { place: Place { file: file.to_owned(), line }, fault, record });
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, place: &dyn Fn() -> Place) -> Result<(), Fault> {
        let first = &entry.tokens[0];
        if entry.start == Start::Word && field::is_bare(first) && first.text.starts_with(b"$") {
            return self.directive(first, &entry.tokens[1..]);
        }
        let tokens = match entry.start {
            Start::Word => {
                // If the name is bad, records that follow it have no owner either; better one fault than many.
                let owner = field::name(first, &self.origin)?;
                self.owner = Name::from_wire(&owner).ok();
                &entry.tokens[1..]
            }
            Start::Blank => &entry.tokens[..],
        };
        let Some(owner) = self.owner.clone() else { return Err(Fault::NoOwner) };
        let (ttl, rtype, words) = head(tokens)?;
        let rdata = field::rdata(rtype, words, &self.origin)?;
        let ttl = self.ttl(ttl, rtype, &rdata)?;
        self.record(&owner, rtype, ttl, rdata, place)
    }

    fn ttl(&mut self, written: Option<u32>, rtype: RecordType, rdata: &[u8]) -> Result<u32, Fault> {
        if let Some(written) = written {
            self.last_ttl = Some(written);
            return Ok(written);
        }
        if let Some(ttl) = self.default_ttl.or(self.last_ttl) {
            return Ok(ttl);
        }
        if rtype != RecordType::SOA {
            return Err(Fault::NoTtl);
        }
        let minimum = rdata::soa_minimum(rdata);
        self.last_ttl = Some(minimum);
        Ok(minimum)
    }

    fn record(
        &mut self,
        owner: &Name,
        rtype: RecordType,
        ttl: u32,
        rdata: Box<[u8]>,
        place: &dyn Fn() -> Place,
    ) -> Result<(), Fault> {
        let apex = self.zone.apex().clone();
        if !owner.is_within(&apex) {
            return Err(Fault::OutOfZone { owner: owner.clone(), zone: apex });
        }
        let is_wildcard = owner.labels().next() == Some(b"*");
        if is_wildcard && matches!(rtype, RecordType::NS | RecordType::DNAME) {
            return Err(Fault::WildcardOwner(rtype));
        }
        if rtype == RecordType::SOA {
            if *owner != apex {
                return Err(Fault::SoaBelow(apex));
            }
            if let Some(first) = &self.soa {
                return Err(Fault::SecondSoa(first.clone()));
            }
            self.soa = Some(place());
        }
        if let Some(node) = self.zone.node(owner.as_wire()) {
            let is_alias = rtype == RecordType::CNAME;
            if node.sets().iter().any(|set| (set.rtype == RecordType::CNAME) != is_alias) {
                return Err(Fault::CnameAndOther(owner.clone()));
            }
            let present = node.set(rtype).filter(|_| is_alias || rtype == RecordType::DNAME);
            if present.is_some_and(|set| !rdata::same(rtype, &set.rdata[0], &rdata)) {
                return Err(Fault::Single { owner: owner.clone(), rtype });
            }
        }
        self.zone.add(owner, rtype, ttl, rdata);
        Ok(())
    }

    fn directive(&mut self, directive: &Token<'_>, words: &[Token<'_>]) -> Result<(), Fault> {
        if directive.is("$TTL") {
            let [word] = words else { return Err(Fault::Usage("$TTL takes one TTL")) };
            self.default_ttl = Some(field::seconds(word.text).ok_or_else(|| Fault::Ttl(word.shown()))?);
            return Ok(());
        }
        if directive.is("$ORIGIN") {
            let [word] = words else { return Err(Fault::Usage("$ORIGIN takes one name")) };
            self.origin = field::name(word, &self.origin)?;
            return Ok(());
        }
        if directive.is("$INCLUDE") {
            return match words {
                [file] => self.include(file, None),
                [file, origin] => {
                    let origin = field::name(origin, &self.origin)?;
                    self.include(file, Some(origin))
                }
                _ => Err(Fault::Usage("$INCLUDE takes a file, and perhaps an origin")),
            };
        }
        if directive.is("$GENERATE") { Err(Fault::Generate) } else { Err(Fault::Directive(directive.shown())) }
    }

    fn include(&mut self, file: &Token<'_>, origin: Option<Vec<u8>>) -> Result<(), Fault> {
        let Some(folder) = self.folder.clone() else { return Err(Fault::IncludeInline) };
        let text = || String::from_utf8_lossy(file.text).into_owned();
        let failed = |source| Fault::Include { text: text(), source };
        let path = folder.join(OsStr::from_bytes(file.text));
        let real = fs::canonicalize(&path).map_err(|error| {
            // It may come yet: its coming is a change.
            let _ = self.watch.read(&path);
            failed(error)
        })?;
        if !real.starts_with(&folder) {
            return Err(Fault::IncludeOutside(text()));
        }
        if self.open.len() >= MAX_DEPTH || self.open.contains(&real) {
            return Err(Fault::IncludeDepth(MAX_DEPTH));
        }
        let content = self.watch.read(&path).map_err(failed)?;
        self.open.push(real);
        let outer = (self.origin.clone(), self.owner.clone());
        self.origin = origin.unwrap_or_else(|| self.origin.clone());
        self.text(&content, &path, 1);
        (self.origin, self.owner) = outer;
        self.open.pop();
        Ok(())
    }
}

/// TTL and class in either order, then the type; the words of the RDATA are left.
fn head<'t, 'e>(tokens: &'e [Token<'t>]) -> Result<(Option<u32>, RecordType, &'e [Token<'t>]), Fault> {
    let mut ttl = None;
    let mut rest = tokens;
    while let Some((word, behind)) = rest.split_first() {
        rest = behind;
        if ttl.is_none() && word.text.first().is_some_and(u8::is_ascii_digit) {
            ttl = Some(field::seconds(word.text).ok_or_else(|| Fault::Ttl(word.shown()))?);
            continue;
        }
        if word.is("IN") || word.is("CLASS1") {
            continue;
        }
        if ["CH", "HS", "CS"].iter().any(|class| word.is(class))
            || word.text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"CLASS"))
        {
            return Err(Fault::Class(word.shown()));
        }
        let rtype = word.shown().parse().map_err(|_| Fault::Type(word.shown()))?;
        return match rtype {
            RecordType::RRSIG
            | RecordType::NSEC
            | RecordType::NSEC3
            | RecordType::NSEC3PARAM
            | RecordType::SIG
            | RecordType::NXT => Err(Fault::Signed(rtype)),
            RecordType::OPT | RecordType(0 | 128..=255) => Err(Fault::Meta(rtype)),
            _ => Ok((ttl, rtype, rest)),
        };
    }
    Err(Fault::NoType)
}

/// Makes SOA and NS where they are missing: the zone itself is its server, as in RFC 6303 3.
fn complete(zone: &mut Zone) {
    let apex = zone.apex().clone();
    let has = |zone: &Zone, rtype| zone.top().is_some_and(|node| node.set(rtype).is_some());
    if !has(zone, RecordType::SOA) {
        let soa = special::soa(&apex, special::NOBODY, [1, 3600, 1200, 604_800, INLINE_TTL]);
        zone.add(&apex, RecordType::SOA, INLINE_TTL, soa);
    }
    if !has(zone, RecordType::NS) && !has(zone, RecordType::CNAME) {
        zone.add(&apex, RecordType::NS, INLINE_TTL, apex.as_wire().into());
    }
}

fn demand(zone: &Zone, path: &Path, problems: &mut Vec<ZoneProblem>) {
    for rtype in [RecordType::SOA, RecordType::NS] {
        if zone.top().is_none_or(|node| node.set(rtype).is_none()) {
            let place = Place { file: path.to_owned(), line: 0 };
            let fault = Fault::Missing { zone: zone.apex().clone(), rtype };
            problems.push(ZoneProblem { place, fault, record: String::new() });
        }
    }
}

/// No record set may be larger than a message.
fn bound(zone: &Zone, place: &Place, problems: &mut Vec<ZoneProblem>) {
    for (owner, node) in zone.nodes() {
        for set in node.sets() {
            let octets: usize = set.rdata.iter().map(|rdata| 12 + rdata.len()).sum();
            if octets + RESERVED > MAX_MESSAGE
                && let Ok(owner) = Name::from_wire(owner)
            {
                let fault = Fault::TooMany { owner, rtype: set.rtype };
                problems.push(ZoneProblem { place: place.clone(), fault, record: String::new() });
            }
        }
    }
}
