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
    field,
    generate::{self, MOST_GENERATED, Range},
    rdata,
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
        if entry.start == Start::Word && field::is_bare(first) && first.text.starts_with(b"$") {
            return self.directive(first, &entry.tokens[1..], place);
        }
        let tokens = match entry.start {
            Start::Word => {
                // If the name is bad, the records that follow have no owner either; one error is better than many.
                self.owner.clear();
                self.owner = field::name(first, &self.origin)?;
                self.owner.make_ascii_lowercase();
                &entry.tokens[1..]
            }
            Start::Blank => &entry.tokens[..],
        };
        if self.owner.is_empty() {
            return Err(ZoneErrorKind::NoOwner);
        }
        let (ttl, rtype, words) = head(tokens)?;
        let rdata = field::rdata(rtype, words, &self.origin)?;
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
            let mut owner = field::name(&Token { text: &owner, quoting: Quoting::Bare }, &self.origin)?;
            owner.make_ascii_lowercase();
            let data = generate::expand(&data, number).ok_or(MODIFIER)?;
            let entry = Entries::new(&data, 1).next().ok_or(USAGE)?.map_err(|(_, kind)| kind)?;
            let rdata = field::rdata(rtype, &entry.tokens, &self.origin)?;
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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::zones::zone::Found;

    const HEAD: &str = "@ 300 SOA ns hostmaster 1 2h 15m 2w 5m\n@ 300 NS ns\n";

    fn read_file(path: &Path) -> Result<Zone, Vec<String>> {
        let place = RecordPlace { file: "tidegate.toml".into(), line: 7 };
        let zone = "corp.example".parse().unwrap();
        let spec = LocalSpec { zone, place, source: ZoneSource::File(path.to_owned()) };
        let folder = path.parent().unwrap().display().to_string();
        let shown = |errors: &[ZoneError]| errors.iter().map(|p| p.to_string().replace(&folder, "")).collect();
        read(&spec, &mut FileWatch::default()).map_err(|errors| shown(&errors))
    }

    fn errors(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zone");
        fs::write(&path, text).unwrap();
        read_file(&path).err().unwrap_or_default()
    }

    fn inline(records: &[&str]) -> Result<Zone, Vec<String>> {
        let place = |line| RecordPlace { file: "tidegate.toml".into(), line };
        let records =
            (10..).zip(records).map(|(line, text)| InlineRecord { text: (*text).to_owned(), place: place(line) });
        let zone = "edge.example".parse().unwrap();
        let spec = LocalSpec { zone, place: place(9), source: ZoneSource::Records(records.collect()) };
        let zone = read(&spec, &mut FileWatch::default());
        zone.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn ttl(zone: &Zone, name: &str, rtype: RecordType) -> Option<u32> {
        let name: Name = name.parse().unwrap();
        let Found::Exact(node) = zone.find(name.as_wire()) else { return None };
        node.set(rtype).map(|set| set.ttl)
    }

    #[test]
    fn every_error_names_file_line_and_record() {
        let text = "\
@ 300 SOA ns hostmaster 1 2h 15m 2w 5m
a 300 A 10.0.0.999
b 300 CNAME x
b 300 A 10.0.0.1
c 300 CNAME x
c 300 CNAME y
c 300 CNAME X
www.other. 300 A 10.0.0.1
@ 300 SOA ns hostmaster 2 2h 15m 2w 5m
sub 300 SOA ns hostmaster 2 2h 15m 2w 5m
$GENERATE 255-256 h$ A 10.0.0.$
$FOO
*.w 300 NS ns
d 300 NONSENSE 1
e 300 CH A 10.0.0.1
f 300 RRSIG A 5
g 300 MX mail
h 5x A 10.0.0.1
i..j 300 A 10.0.0.1
k 300
l 300 TXT \"open
m 300 A 10.0.0.1 10.0.0.2
n 300 TYPE1 \\# 3 0A0000
";
        let expected = [
            "/zone:2: A: \"10.0.0.999\" is not an IPv4 address, in \"a 300 A 10.0.0.999\"",
            "/zone:4: b.corp.example. has a CNAME and other data; a CNAME stands alone (RFC 1034 3.6.2), in \"b 300 A 10.0.0.1\"",
            "/zone:6: c.corp.example. has more than one CNAME, in \"c 300 CNAME y\"",
            "/zone:8: www.other. is not in the zone corp.example., in \"www.other. 300 A 10.0.0.1\"",
            "/zone:9: a second SOA; the first is at /zone:1, in \"@ 300 SOA ns hostmaster 2 2h 15m 2w 5m\"",
            "/zone:10: a SOA stands at the zone's own name, corp.example., alone, in \"sub 300 SOA ns hostmaster 2 2h 15m 2w 5m\"",
            "/zone:11: A: \"10.0.0.256\" is not an IPv4 address, in \"$GENERATE 255-256 h$ A 10.0.0.$\"",
            "/zone:12: $FOO is not supported; there are $ORIGIN, $TTL, $INCLUDE and $GENERATE, in \"$FOO\"",
            "/zone:13: a wildcard cannot have NS (RFC 4592 4), in \"*.w 300 NS ns\"",
            "/zone:14: \"NONSENSE\" is not a record type; unknown types are written TYPE123 \\# LENGTH HEX (RFC 3597), in \"d 300 NONSENSE 1\"",
            "/zone:15: class CH is not supported, zones are of class IN, in \"e 300 CH A 10.0.0.1\"",
            "/zone:16: RRSIG is not supported; zones are served unsigned, take the file from before signing, in \"f 300 RRSIG A 5\"",
            "/zone:17: MX: \"mail\" is not a number up to 65535, in \"g 300 MX mail\"",
            "/zone:18: \"5x\" is not a TTL: seconds up to 2147483647, or like 1h30m, in \"h 5x A 10.0.0.1\"",
            "/zone:19: \"i..j\" is not a name: it has an empty label, in \"i..j 300 A 10.0.0.1\"",
            "/zone:20: no record type, in \"k 300\"",
            "/zone:21: quotes are opened here and not closed",
            "/zone:22: A: \"10.0.0.2\" is one word too many, in \"m 300 A 10.0.0.1 10.0.0.2\"",
            "/zone:23: A: the octets do not fit the type, in \"n 300 TYPE1 \\# 3 0A0000\"",
        ];
        let found = errors(text);
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected);
        }
        assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn a_file_without_apex_records_or_without_a_file_says_so() {
        assert_eq!(
            errors("a 300 A 10.0.0.1"),
            ["SOA", "NS"].map(|rtype| { format!("/zone: zone corp.example. has no {rtype} at its own name") })
        );
        let missing = read_file(Path::new("/nonexistent/zone")).unwrap_err();
        assert!(missing[0].starts_with("/zone: cannot be read: No such file"), "{missing:?}");
        assert!(missing[0].ends_with("in \"zone corp.example., tidegate.toml:7\""), "{missing:?}");
    }

    #[test]
    fn ttls_come_from_the_record_the_directive_the_record_before_or_the_soa() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zone");
        let text = "@ SOA ns h 1 2 3 4 77\n NS ns\na 60 A 10.0.0.1\nb A 10.0.0.1\n$TTL 1h\nc A 10.0.0.1\nd 5 A 10.0.0.1\n\
                    e A 10.0.0.1\nf 30 A 10.0.0.1\nf 20 A 10.0.0.2\n";
        fs::write(&path, text).unwrap();
        let zone = read_file(&path).unwrap();
        assert_eq!(ttl(&zone, "corp.example", RecordType::SOA), Some(77), "its own MINIMUM");
        assert_eq!(ttl(&zone, "corp.example", RecordType::NS), Some(77));
        for (name, expected) in [("a", 60), ("b", 60), ("c", 3600), ("d", 5), ("e", 3600), ("f", 20)] {
            assert_eq!(ttl(&zone, &format!("{name}.corp.example"), RecordType::A), Some(expected), "{name}");
        }
        assert!(errors("a A 10.0.0.1\n")[0].contains("no TTL here or before"));
    }

    #[test]
    fn included_files_lie_in_the_folder_and_change_nothing_outside_them() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("zones");
        fs::create_dir_all(inside.join("sub")).unwrap();
        let path = inside.join("zone");
        fs::write(folder.path().join("outside"), "x 300 A 10.0.0.1\n").unwrap();
        fs::write(inside.join("sub/part"), "b 300 A 10.0.0.1\n$ORIGIN elsewhere.\n").unwrap();
        symlink(folder.path().join("outside"), inside.join("link-out")).unwrap();
        symlink(inside.join("sub/part"), inside.join("link-in")).unwrap();
        let body = "$INCLUDE sub/part in ; with an origin\n$INCLUDE link-in\n 300 TXT after\nc 300 A 10.0.0.2\n";
        fs::write(&path, format!("{HEAD}a 300 A 10.0.0.1\n{body}")).unwrap();
        let zone = read_file(&path).unwrap();
        assert_eq!(ttl(&zone, "b.in.corp.example", RecordType::A), Some(300));
        assert_eq!(ttl(&zone, "b.corp.example", RecordType::A), Some(300));
        assert_eq!(ttl(&zone, "a.corp.example", RecordType::TXT), Some(300), "the owner comes back");
        assert_eq!(ttl(&zone, "c.corp.example", RecordType::A), Some(300), "the origin comes back");
        let absolute = folder.path().join("outside").display().to_string();
        for (file, kind) in [
            ("../outside", "is outside the zone file's folder"),
            ("sub/../../outside", "is outside the zone file's folder"),
            ("link-out", "is outside the zone file's folder"),
            (&absolute, "is outside the zone file's folder"),
            ("none", "cannot be read"),
            ("sub", "cannot be read"),
            ("zone", "nested deeper"),
        ] {
            fs::write(&path, format!("{HEAD}$INCLUDE {file}\n")).unwrap();
            let errors = read_file(&path).unwrap_err();
            assert!(
                errors.len() == 1 && errors[0].contains(kind) && errors[0].contains("/zone:3:"),
                "{file}: {errors:?}"
            );
        }
    }

    #[test]
    fn inline_records_get_soa_ns_and_ttl_where_they_lack_them() {
        let zone = inline(&["app 60 A 10.1.2.3", "files CNAME bucket.example.", "@ MX 10 app", "$INCLUDE x"]);
        assert_eq!(zone.unwrap_err(), ["tidegate.toml:13: $INCLUDE works in zone files only, in \"$INCLUDE x\""]);
        let zone = inline(&["app 60 A 10.1.2.3", "files CNAME bucket.example.", "@ MX 10 app"]).unwrap();
        for (name, rtype, expected) in [
            ("app.edge.example", RecordType::A, 60),
            ("files.edge.example", RecordType::CNAME, INLINE_TTL),
            ("edge.example", RecordType::MX, INLINE_TTL),
            ("edge.example", RecordType::SOA, INLINE_TTL),
            ("edge.example", RecordType::NS, INLINE_TTL),
        ] {
            assert_eq!(ttl(&zone, name, rtype), Some(expected), "{name} {rtype}");
        }
        let alias = inline(&["@ CNAME bucket.example."]).unwrap();
        assert_eq!(ttl(&alias, "edge.example", RecordType::CNAME), Some(INLINE_TTL), "an override may be an alias");
        assert_eq!(ttl(&alias, "edge.example", RecordType::NS), None);
    }

    #[test]
    fn a_record_set_larger_than_a_message_is_refused() {
        let text: String = (0..300).map(|n| format!("a 300 TXT \"{n}{}\"\n", "x".repeat(240))).collect();
        let found = errors(&format!("{HEAD}{text}"));
        assert!(found.len() == 1 && found[0].contains("more records than a DNS message holds"), "{found:?}");
    }
}
