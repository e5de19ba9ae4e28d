//! From files to [`File`]: syntax, the tables at the top, includes.
//!
//! Includes are read in name order, one level deep, relative to the including file; `*` and `?` are wildcards in the
//! last part of a path. A pattern without matches is fine (an empty conf.d); a missing plain path is a problem.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    super::{
        error::Problem,
        source::{Place, Source, SourceFile, SourceId},
    },
    File, Located, Reader, Text, Upstream,
    keys::TOP,
    read::{Value, join},
};
use crate::{files, system_error::SystemError};

/// The beginning of a rule.
const RULE_LINE: &str = "\n[[forward]]";
/// The least octets of a text that is read in pieces, and of a piece. In larger pieces the allocator gives memory back
/// to the kernel after each and takes it again for the next, which costs more than reading.
const LARGE: usize = 128 << 10;
const PIECE: usize = 4 << 10;

/// The files as read, and their problems.
#[derive(Debug, Default)]
pub(in crate::config) struct Loaded {
    pub(in crate::config) file: File,
    pub(in crate::config) sources: Vec<Source>,
    pub(in crate::config) problems: Vec<Problem>,
    pub(in crate::config) warnings: Vec<Problem>,
    /// Whether a part is missing from `file`, so that building it would report false problems.
    pub(in crate::config) unreadable: bool,
}

/// Reads the file at `path` and what it includes.
pub(in crate::config) fn load(path: &Path) -> Loaded {
    match files::read(path) {
        Ok(octets) => parse(&path.display().to_string(), octets),
        Err(error) => {
            let mut loaded = Loaded::default();
            loaded.problems.push(unreadable(path, &error));
            loaded.unreadable = true;
            loaded
        }
    }
}

/// Reads the text `octets`, known as `name`, and what it includes.
pub(in crate::config) fn parse(name: &str, octets: Vec<u8>) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.file = loaded.read_source(name.to_owned(), octets);
    let Some(include) = loaded.file.include.clone() else { return loaded };
    let base = Path::new(name).parent().unwrap_or_else(|| Path::new("")).to_owned();
    for pattern in &include.value {
        for path in loaded.matching(&base, pattern) {
            loaded.include(&path, pattern);
        }
    }
    loaded
}

/// Whether a text is a configuration of tidegate: TOML with groups of servers or rules.
pub fn is_configuration(text: &str) -> bool {
    DeTable::parse(text).is_ok_and(|table| ["upstream", "forward"].iter().any(|key| table.get_ref().contains_key(*key)))
}

impl Loaded {
    /// The text of the next source.
    pub(super) fn text(&mut self, octets: Vec<u8>) -> String {
        let source = SourceId::next(&self.sources);
        String::from_utf8(octets).unwrap_or_else(|error| {
            self.unreadable = true;
            let start = error.utf8_error().valid_up_to();
            // Invalid UTF-8 becomes one U+FFFD, three octets long, in the text that is shown.
            let place = Place::new(source, start..start + 3);
            self.problems.push(Problem::at(&place, "this is not UTF-8").help("save the file as UTF-8"));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }

    fn read_source(&mut self, name: String, octets: Vec<u8>) -> File {
        let source = SourceId::next(&self.sources);
        let written = SourceFile::new(name, self.text(octets));
        let file = self.read_text(source, &written);
        self.sources.push(Source::File(written));
        file
    }

    fn read_text(&mut self, source: SourceId, written: &SourceFile) -> File {
        if let Some(file) = self.read_pieces(source, &written.text) {
            return file;
        }
        let (table, errors) = DeTable::parse_recoverable(&written.text);
        if !errors.is_empty() {
            self.unreadable = true;
            self.note_syntax(source, written, &errors);
            // If parts are unreadable, only [admin] is used: it says where the daemon with the last good file is.
            let mut reader = Reader { source, start: 0, problems: &mut Vec::new() };
            let admin = read_file(table.get_ref(), &mut reader).admin;
            return File { admin, ..File::default() };
        }
        let mut reader = Reader { source, start: 0, problems: &mut self.problems };
        read_file(table.get_ref(), &mut reader)
    }

    /// Reads a large text in pieces, if it is some tables and then rules alone. The tree of a text takes fifty times its
    /// memory: that of one piece after the other takes next to none.
    ///
    /// Pieces begin where a line does with `[[forward]]`. If that is within a text of several lines, the piece before it
    /// does not end well; then, and if anything else stands in the way, nothing is read here.
    fn read_pieces(&mut self, source: SourceId, text: &str) -> Option<File> {
        let (head, rules) = text.split_at(text.find(RULE_LINE)? + 1);
        if rules.len() < LARGE {
            return None;
        }
        let mut problems = Vec::new();
        let (table, errors) = DeTable::parse_recoverable(head);
        if !errors.is_empty() || table.get_ref().contains_key("forward") {
            return None;
        }
        let mut file = read_file(table.get_ref(), &mut Reader { source, start: 0, problems: &mut problems });
        let mut rest = rules;
        while !rest.is_empty() {
            let later = (PIECE..rest.len()).find(|&at| rest.is_char_boundary(at));
            let end = later.and_then(|from| Some(from + rest[from..].find(RULE_LINE)? + 1)).unwrap_or(rest.len());
            let (table, errors) = DeTable::parse_recoverable(&rest[..end]);
            if !errors.is_empty() || table.get_ref().keys().any(|key| key.get_ref() != "forward") {
                return None;
            }
            let start = text.len() - rest.len();
            let mut reader = Reader { source, start, problems: &mut problems };
            file.forward.extend(read_tables(table.get_ref(), "forward", &mut reader));
            rest = &rest[end..];
        }
        self.problems.append(&mut problems);
        Some(file)
    }

    /// Notes the first syntax error of each line; further ones follow from it.
    pub(super) fn note_syntax(&mut self, source: SourceId, written: &SourceFile, errors: &[toml::de::Error]) {
        let mut noted = BTreeSet::new();
        for error in errors {
            let span = error.span().unwrap_or_default();
            if noted.insert(written.line_at(span.start).number) {
                let message = format!("not TOML: {}", error.message().trim());
                self.problems.push(Problem::at(&Place::new(source, span), message));
            }
        }
    }

    fn include(&mut self, path: &Path, pattern: &Text) {
        let name = path.display().to_string();
        if self.sources.iter().any(|source| matches!(source, Source::File(read) if read.name == name)) {
            self.problems.push(Problem::at(&pattern.place, format!("{name} is included twice")));
            return;
        }
        let octets = match files::read(path) {
            Ok(octets) => octets,
            Err(error) => {
                self.problems.push(Problem::at(&pattern.place, unreadable(path, &error).message));
                self.unreadable = true;
                return;
            }
        };
        let file = self.read_source(name, octets);
        if let Some(include) = &file.include {
            let problem = Problem::at(&include.place, "an included file cannot include others");
            self.problems.push(problem.help("move this line to the including file"));
        }
        self.file.merge(file, &self.sources, &mut self.problems);
    }

    /// The files that match `pattern`, in name order.
    fn matching(&mut self, base: &Path, pattern: &Text) -> Vec<PathBuf> {
        let path = base.join(&pattern.value);
        let Some(last) = path.file_name().and_then(|last| last.to_str()) else {
            self.problems.push(Problem::at(&pattern.place, "include must name a file"));
            return Vec::new();
        };
        let directory = path.parent().unwrap_or_else(|| Path::new(""));
        if has_wildcard(directory) {
            let problem = Problem::at(&pattern.place, "* and ? may stand in the last part of an include only");
            self.problems.push(problem);
            return Vec::new();
        }
        if !has_wildcard(Path::new(last)) {
            return vec![path];
        }
        let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let entries = match fs::read_dir(listed) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.problems.push(Problem::at(&pattern.place, unreadable(listed, &error).message));
                return Vec::new();
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.') && matches(last, name)).collect();
        names.sort_unstable();
        names.into_iter().map(|name| directory.join(name)).collect()
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let path = path.display();
    let problem = Problem::without_place(format!("{path}: cannot be read: {}", SystemError(error)));
    match error.kind() {
        std::io::ErrorKind::NotFound => problem.help("write one, or name another with --config"),
        std::io::ErrorKind::PermissionDenied => problem.help("the user that tidegate runs as must be able to read it"),
        _ => problem,
    }
}

fn has_wildcard(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?'])
}

/// Whether `name` matches `pattern`, where `*` is any text and `?` any character.
fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return name.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        return name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]));
    }
    let Some(letter) = name.chars().next() else { return false };
    (first == '?' || first == letter) && matches(rest, &name[letter.len_utf8()..])
}

fn read_file(table: &DeTable<'_>, reader: &mut Reader<'_>) -> File {
    reader.refuse_unknown_keys(table, "", TOP);
    File {
        include: reader.value(table, "", "include"),
        server: reader.value(table, "", "server"),
        limits: reader.value(table, "", "limits"),
        cache: reader.value(table, "", "cache"),
        admin: reader.value(table, "", "admin"),
        log: reader.value(table, "", "log"),
        upstream: read_upstreams(table, reader),
        forward: read_tables(table, "forward", reader),
        local: read_tables(table, "local", reader),
        local_hosts: reader.value(table, "", "local_hosts"),
        perimeter: reader.value(table, "", "perimeter"),
        special: reader.value(table, "", "special"),
    }
}

/// `[upstream.NAME]` in the order of the text.
fn read_upstreams(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Vec<Upstream> {
    let Some(value) = table.get("upstream") else { return Vec::new() };
    let DeValue::Table(named) = value.get_ref() else {
        let problem = Problem::at(&reader.place(value.span()), "upstream must be tables, each with a name of its own");
        reader.problems.push(problem.help("write [upstream.NAME], and below it servers = [\"10.20.1.10\"]"));
        return Vec::new();
    };
    let mut upstreams = Vec::new();
    for (name, value) in named.iter() {
        let place = reader.place(name.span());
        let Some(section) = Located::read(value, &join("upstream", name.get_ref()), reader) else { continue };
        let name = Located::new(name.get_ref().to_string(), place);
        upstreams.push(Upstream { name, table: section.into_value() });
    }
    upstreams.sort_by_key(|upstream| upstream.name.place.span().start);
    upstreams
}

/// Reads `[[key]]`; a single `[key]` is a problem.
pub(super) fn read_tables<T>(table: &DeTable<'_>, key: &str, reader: &mut Reader<'_>) -> Vec<Located<T>>
where
    Located<T>: Value,
{
    let Some(value) = table.get(key) else { return Vec::new() };
    if let Some(items) = value.get_ref().as_array() {
        let mut tables = Vec::with_capacity(items.len());
        tables.extend(items.iter().filter_map(|item| Located::read(item, key, reader)));
        return tables;
    }
    let place = reader.place(key_span(table, key).unwrap_or_else(|| value.span()));
    reader.problems.push(Problem::at(&place, format!("write [[{key}]] with two brackets: there may be several")));
    Vec::new()
}

fn key_span(table: &DeTable<'_>, key: &str) -> Option<std::ops::Range<usize>> {
    table.get_key_value(key).map(|(key, _)| Spanned::span(key))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn a_large_text_is_read_in_pieces_as_it_would_be_whole() {
        let head = "[server]\nworkers = 2\n[upstream.site]\nservers = [\"192.0.2.1\"]\n";
        let mut rules = String::new();
        for number in 0..5000 {
            let zone = if number == 4321 { "7".to_owned() } else { format!("\"zone{number}.example\"") };
            write!(rules, "[[forward]]\nzones = [{zone}] # é\nto = \"site\"\n").unwrap();
        }
        let read = |text: String, in_pieces| {
            let mut loaded = Loaded::default();
            assert_eq!(loaded.read_pieces(SourceId(0), &text).is_some(), in_pieces, "{}", &text[text.len() - 80..]);
            parse("t.toml", text.into())
        };
        let pieces = read(format!("{head}{rules}"), true);
        // A table behind the rules: it is read whole.
        let whole = read(format!("{head}{rules}[limits]\n"), false);
        assert_eq!(pieces.file.forward.len(), 5000);
        assert_eq!((&pieces.file.forward, &pieces.file.server), (&whole.file.forward, &whole.file.server));
        assert_eq!((pieces.problems.len(), &pieces.problems), (1, &whole.problems));
        for bad in ["[[forward]]\nzones = \n", "[[forward]]\nname = \"\"\"\n[[forward]]\n", "[server]\n", "x"] {
            let (loaded, alone) = (read(format!("{head}{rules}{bad}"), false), read(format!("{head}{bad}"), false));
            assert!(loaded.problems.len() >= alone.problems.len() && !loaded.problems.is_empty(), "{bad}");
        }
        // A text of several lines that a piece would cut.
        let cut = format!("{head}{rules}[[forward]]\nname = \"\"\"\n{rules}\"\"\"\n");
        assert_eq!(read(cut, false).file.forward.len(), 5001);
    }

    #[test]
    fn wildcards_match_file_names() {
        for (pattern, name, expected) in [
            ("*.toml", "10-aws.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "aws.toml.bak", false),
            ("?0-*", "10-aws", true),
            ("?0-*", "0-aws", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("é?", "éé", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
