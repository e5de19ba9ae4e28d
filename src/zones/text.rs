//! Reads zones from master-file text (RFC 1035 5, RFC 2308 4, RFC 3597): files, or lines of the configuration.
//!
//! - Every error is reported with file, line and record, and reading goes on.
//! - A record without a TTL takes that of `$TTL`; before any `$TTL` the last one written (RFC 1035 5.1); before any
//!   at all the SOA its own MINIMUM, and inline records [`INLINE_TTL`].
//! - `$INCLUDE` is relative to the zone file's folder and must lie in it or below, wherever symbolic links lead. It
//!   takes an origin; origin and owner of the including file come back after it (RFC 1035 5.1).
//! - A zone file has a SOA and NS at its apex, as BIND demands; for inline records they are made where missing.
//! - Refused: CNAME beside other data, a second SOA, owners outside the zone, NS and DNAME of wildcards (RFC 4592 4.2,
//!   4.4), signatures and NSEC (the zone is served unsigned).

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    InlineRecord, LocalSpec, ZoneSource,
    build::Builder,
    complete, encoding,
    entry::{Entries, Entry, Quoting, Start, Token},
    error::{RecordPlace, ZoneError, ZoneErrorKind},
    generate::{self, MOST_GENERATED, Range},
    rdata, rdata_text,
    watch::FileWatch,
    zone::Zone,
};
use crate::wire::{Name, RecordType, name};

/// The TTL of inline records that have none, and of the SOA and NS made for them, in seconds.
pub const INLINE_TTL: u32 = 300;
/// The most errors reported for one zone; the others are counted.
const MOST_ERRORS: usize = 100;
/// How deep files include files.
const MAX_DEPTH: usize = 8;

/// Reads the zone of a specification, or returns all its errors.
pub(super) fn read(spec: &LocalSpec, watch: &mut FileWatch) -> Result<Zone, Vec<ZoneError>> {
    let mut reader = Reader::new(&spec.zone, watch);
    match &spec.source {
        ZoneSource::File(path) => reader.file(path, &spec.place),
        ZoneSource::Records(records) => reader.inline(records),
    }
    let (mut zone, mut errors) = reader.finish();
    match &spec.source {
        ZoneSource::Records(_) => {
            let made = complete::make(&mut zone);
            errors.extend(made.err().map(|kind| ZoneError { place: spec.place.clone(), kind, record: String::new() }));
        }
        ZoneSource::File(path) if errors.is_empty() => complete::demand(&zone, path, &mut errors),
        ZoneSource::File(_) => {}
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let zone = zone.finish();
    complete::bound(&zone, &spec.place, &mut errors);
    if errors.is_empty() { Ok(zone) } else { Err(errors) }
}

/// The state that the next record inherits from those before it.
struct Reader<'a> {
    zone: Builder,
    watch: &'a mut FileWatch,
    /// The first of them, [`MOST_ERRORS`] at most, and how many more there are.
    errors: Vec<ZoneError>,
    untold: usize,
    soa: Option<RecordPlace>,
    /// The folder that included files must lie in, and the files being read, all canonical.
    folder: Option<PathBuf>,
    open: Vec<PathBuf>,
    /// The origin in wire form.
    origin: Vec<u8>,
    /// In wire form and lower case; empty where there is none.
    owner: Vec<u8>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
    generated: usize,
}

impl<'a> Reader<'a> {
    fn new(apex: &Name, watch: &'a mut FileWatch) -> Self {
        Self {
            zone: Builder::new(apex.clone()),
            watch,
            errors: Vec::new(),
            untold: 0,
            soa: None,
            folder: None,
            open: Vec::new(),
            origin: apex.as_wire().to_vec(),
            owner: Vec::new(),
            default_ttl: None,
            last_ttl: None,
            generated: 0,
        }
    }

    fn file(&mut self, path: &Path, declared: &RecordPlace) {
        let text = match self.watch.read(path) {
            Ok(text) => text,
            Err(error) => {
                let place = RecordPlace { file: path.to_owned(), line: 0 };
                let record = format!("zone {}, {declared}", self.zone.apex());
                self.report(place, ZoneErrorKind::Read(error), record);
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
            // The default holds for each line: a line's own TTL is not inherited by the next.
            self.last_ttl = Some(INLINE_TTL);
        }
    }

    fn text(&mut self, text: &[u8], file: &Path, line: usize) {
        for entry in Entries::new(text, line) {
            let (line, kind, record) = match entry {
                Ok(entry) => {
                    let place = || RecordPlace { file: file.to_owned(), line: entry.line };
                    let Err(kind) = self.entry(&entry, &place) else { continue };
                    (entry.line, kind, entry.shown())
                }
                Err((line, kind)) => (line, kind, String::new()),
            };
            self.report(RecordPlace { file: file.to_owned(), line }, kind, record);
        }
    }

    fn report(&mut self, place: RecordPlace, kind: ZoneErrorKind, record: String) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(ZoneError { place, kind, record });
        } else {
            self.untold += 1;
        }
    }

    fn finish(mut self) -> (Builder, Vec<ZoneError>) {
        if let Some(last) = self.errors.last().filter(|_| self.untold > 0) {
            let place = RecordPlace { line: 0, ..last.place.clone() };
            self.errors.push(ZoneError { place, kind: ZoneErrorKind::More(self.untold), record: String::new() });
        }
        (self.zone, self.errors)
    }

    fn entry(&mut self, entry: &Entry<'_>, place: &dyn Fn() -> RecordPlace) -> Result<(), ZoneErrorKind> {
        let first = &entry.tokens[0];
        if entry.start == Start::Word && rdata_text::is_bare(first) && first.text.starts_with(b"$") {
            return self.directive(first, &entry.tokens[1..], place);
        }
        let tokens = match entry.start {
            Start::Word => {
                // If the name is bad, the records that follow have no owner either; one error is better than many.
                self.owner.clear();
                self.owner = rdata_text::name(first, &self.origin)?;
                self.owner.make_ascii_lowercase();
                &entry.tokens[1..]
            }
            Start::Blank => &entry.tokens[..],
        };
        if self.owner.is_empty() {
            return Err(ZoneErrorKind::NoOwner);
        }
        let (ttl, rtype, words) = head(tokens)?;
        let rdata = rdata_text::rdata(rtype, words, &self.origin)?;
        let ttl = self.ttl(ttl, rtype, &rdata)?;
        let owner = std::mem::take(&mut self.owner);
        let added = self.record(&owner, rtype, ttl, &rdata, place);
        self.owner = owner;
        added
    }

    fn ttl(&mut self, written: Option<u32>, rtype: RecordType, rdata: &[u8]) -> Result<u32, ZoneErrorKind> {
        if let Some(written) = written {
            self.last_ttl = Some(written);
            return Ok(written);
        }
        if let Some(ttl) = self.default_ttl.or(self.last_ttl) {
            return Ok(ttl);
        }
        if rtype != RecordType::SOA {
            return Err(ZoneErrorKind::NoTtl);
        }
        let minimum = rdata::soa_minimum(rdata);
        self.last_ttl = Some(minimum);
        Ok(minimum)
    }

    fn record(
        &mut self,
        owner: &[u8],
        rtype: RecordType,
        ttl: u32,
        rdata: &[u8],
        place: &dyn Fn() -> RecordPlace,
    ) -> Result<(), ZoneErrorKind> {
        let apex = self.zone.apex().as_wire();
        let named = |wire: &[u8]| Name::from_wire(wire).unwrap_or_else(|_| Name::root());
        if !name::is_within(owner, apex) {
            return Err(ZoneErrorKind::OutOfZone { owner: named(owner), zone: self.zone.apex().clone() });
        }
        if owner.starts_with(b"\x01*") && matches!(rtype, RecordType::NS | RecordType::DNAME) {
            return Err(ZoneErrorKind::WildcardOwner(rtype));
        }
        if rtype == RecordType::SOA {
            if owner != apex {
                return Err(ZoneErrorKind::SoaBelow(self.zone.apex().clone()));
            }
            if let Some(first) = &self.soa {
                return Err(ZoneErrorKind::SecondSoa(first.clone()));
            }
            self.soa = Some(place());
        }
        self.zone.add(owner, rtype, ttl, rdata)
    }

    fn directive(
        &mut self,
        directive: &Token<'_>,
        words: &[Token<'_>],
        place: &dyn Fn() -> RecordPlace,
    ) -> Result<(), ZoneErrorKind> {
        if directive.is("$TTL") {
            let [word] = words else { return Err(ZoneErrorKind::Usage("$TTL takes one TTL")) };
            self.default_ttl = Some(encoding::seconds(word.text).ok_or_else(|| ZoneErrorKind::Ttl(word.shown()))?);
            return Ok(());
        }
        if directive.is("$ORIGIN") {
            let [word] = words else { return Err(ZoneErrorKind::Usage("$ORIGIN takes one name")) };
            self.origin = rdata_text::name(word, &self.origin)?;
            return Ok(());
        }
        if directive.is("$INCLUDE") {
            return match words {
                [file] => self.include(file, None),
                [file, origin] => {
                    let origin = rdata_text::name(origin, &self.origin)?;
                    self.include(file, Some(origin))
                }
                _ => Err(ZoneErrorKind::Usage("$INCLUDE takes a file, and perhaps an origin")),
            };
        }
        if directive.is("$GENERATE") {
            return self.generate(words, place);
        }
        Err(ZoneErrorKind::Directive(directive.shown()))
    }

    fn generate(&mut self, words: &[Token<'_>], place: &dyn Fn() -> RecordPlace) -> Result<(), ZoneErrorKind> {
        const USAGE: ZoneErrorKind = ZoneErrorKind::Usage(
            "$GENERATE takes START-STOP or START-STOP/STEP, an owner, a type, and the data, in quotes if it has blanks",
        );
        const MODIFIER: ZoneErrorKind =
            ZoneErrorKind::Usage("a modifier is ${OFFSET,WIDTH,BASE}, with the base d, o, x, X, n or N");
        let [range, owner, rest @ ..] = words else { return Err(USAGE) };
        let range = Range::read(range.text).ok_or(USAGE)?;
        let (ttl, rtype, data) = head(rest)?;
        let [data] = data else { return Err(USAGE) };
        let data = data.unquoted();
        self.generated = self.generated.saturating_add(range.count());
        if self.generated > MOST_GENERATED {
            return Err(ZoneErrorKind::Generated(MOST_GENERATED));
        }
        for number in range.numbers() {
            let owner = generate::expand(owner.text, number).ok_or(MODIFIER)?;
            let mut owner = rdata_text::name(&Token { text: &owner, quoting: Quoting::Bare }, &self.origin)?;
            owner.make_ascii_lowercase();
            let data = generate::expand(&data, number).ok_or(MODIFIER)?;
            let entry = Entries::new(&data, 1).next().ok_or(USAGE)?.map_err(|(_, kind)| kind)?;
            let rdata = rdata_text::rdata(rtype, &entry.tokens, &self.origin)?;
            let ttl = self.ttl(ttl, rtype, &rdata)?;
            self.record(&owner, rtype, ttl, &rdata, place)?;
        }
        Ok(())
    }

    fn include(&mut self, file: &Token<'_>, origin: Option<Vec<u8>>) -> Result<(), ZoneErrorKind> {
        let Some(folder) = self.folder.clone() else { return Err(ZoneErrorKind::IncludeInline) };
        let text = || String::from_utf8_lossy(file.text).into_owned();
        let failed = |source| ZoneErrorKind::Include { text: text(), source };
        let path = folder.join(OsStr::from_bytes(file.text));
        let real = fs::canonicalize(&path).map_err(|error| {
            // Watch the missing file: its creation counts as a change.
            let _ = self.watch.read(&path);
            failed(error)
        })?;
        if !real.starts_with(&folder) {
            return Err(ZoneErrorKind::IncludeOutside(text()));
        }
        if self.open.len() >= MAX_DEPTH || self.open.contains(&real) {
            return Err(ZoneErrorKind::IncludeDepth(MAX_DEPTH));
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
fn head<'t, 'e>(tokens: &'e [Token<'t>]) -> Result<(Option<u32>, RecordType, &'e [Token<'t>]), ZoneErrorKind> {
    let mut ttl = None;
    let mut rest = tokens;
    while let Some((word, behind)) = rest.split_first() {
        rest = behind;
        if ttl.is_none() && word.text.first().is_some_and(u8::is_ascii_digit) {
            ttl = Some(encoding::seconds(word.text).ok_or_else(|| ZoneErrorKind::Ttl(word.shown()))?);
            continue;
        }
        if word.is("IN") || word.is("CLASS1") {
            continue;
        }
        if ["CH", "HS", "CS"].iter().any(|class| word.is(class))
            || word.text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"CLASS"))
        {
            return Err(ZoneErrorKind::Class(word.shown()));
        }
        let rtype = word.shown().parse().map_err(|_| ZoneErrorKind::Type(word.shown()))?;
        return match rtype {
            RecordType::RRSIG
            | RecordType::NSEC
            | RecordType::NSEC3
            | RecordType::NSEC3PARAM
            | RecordType::SIG
            | RecordType::NXT => Err(ZoneErrorKind::Signed(rtype)),
            RecordType::OPT | RecordType(0 | 128..=255) => Err(ZoneErrorKind::Meta(rtype)),
            _ => Ok((ttl, rtype, rest)),
        };
    }
    Err(ZoneErrorKind::NoType)
}

#[cfg(test)]
mod tests;
