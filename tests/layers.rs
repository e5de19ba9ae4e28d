//! The rooms of `src/` and who may know whom.
//!
//! A room imports only from rooms in lower layers, never from its own layer; some packages and words have rooms of their
//! Some packages and words are confined to certain rooms. The tables below are the reference that the code is checked
//! against. Test code may import anything; `unsafe` is confined here too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Every room with its layer. The binary's `main.rs` stands above them all.
const LAYERS: &[(&str, u8)] = &[
    ("wire", 0),
    ("clock", 0),
    ("networks", 0),
    ("plural", 0),
    ("files", 0),
    ("net", 1),
    ("tls", 1),
    ("metrics", 1),
    ("dnstap", 1),
    ("cache", 2),
    ("route", 2),
    ("config", 2),
    ("upstream", 3),
    ("zones", 3),
    ("perimeter", 3),
    ("engine", 4),
    ("serve", 5),
    ("admin", 5),
    ("daemon", 6),
    ("cli", 7),
];

/// The folders and files of `upstream`, each importing only from those before it. Its `mod.rs` is for other rooms:
/// nothing inside imports through it.
const UPSTREAM: &[&str] = &["spec", "names", "system", "server", "group", "race", "link", "exchange", "watch"];

/// Words that stand only in files whose path below `src/`, without `.rs`, begins with one of these.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("hickory_server", &["cli/demo/"]),
    ("prost", &["dnstap/message"]),
    ("hickory_resolver", &["upstream/watch/names"]),
    ("rcgen", &["cli/demo/certificates"]),
    ("quinn", &["tls/", "upstream/link/quic", "serve/quic"]),
    ("rustls", &["cli/demo/certificates", "tls/"]),
    ("tokio_rustls", &["tls/"]),
    ("toml", &["config/file"]),
    ("libc", &["daemon/sandbox", "net/mmsg"]),
    ("unsafe", &["net/mmsg"]),
];

/// Words that never stand in these files.
const NEVER_IN: &[(&str, &[&str])] =
    &[("tokio", &["wire/", "cache/", "route", "config/", "metrics/", "engine/handle", "clock", "networks"])];

#[test]
fn every_room_imports_from_lower_layers_only() {
    let faults: Vec<String> = sources().iter().flat_map(layer_faults).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_folder_of_upstream_imports_from_those_before_it_only() {
    let faults: Vec<String> = sources().iter().flat_map(folder_faults).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_table_names_the_folders_of_upstream_that_exist() {
    let mut folders: Vec<String> = sources().iter().filter_map(|source| source.folder().map(str::to_owned)).collect();
    folders.sort_unstable();
    folders.dedup();
    let mut table: Vec<String> = UPSTREAM.iter().map(|&folder| folder.to_owned()).collect();
    table.sort_unstable();
    assert_eq!(folders, table, "in src/upstream (left) and in the table (right)");
}

#[test]
fn no_row_of_the_tables_is_dead() {
    let sources = sources();
    let stands = |word: &str, rooms: &[&str]| {
        let within = |source: &&Source| rooms.iter().any(|room| source.path.starts_with(room));
        sources.iter().filter(within).any(|source| words(&source.code).any(|found| found == word))
    };
    for (word, rooms) in ONLY_IN {
        assert!(stands(word, rooms), "{word} stands nowhere in {rooms:?}");
    }
    for (word, files) in NEVER_IN {
        for file in *files {
            assert!(
                sources.iter().any(|source| source.path.starts_with(file)),
                "{word} is kept out of {file}, which is not there"
            );
        }
    }
}

#[test]
fn packages_stay_in_their_rooms() {
    let faults: Vec<String> = sources().iter().flat_map(fence_faults).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_type_that_crosses_rooms_has_its_name_alone() {
    let faults = name_faults(&sources());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_table_names_the_rooms_that_exist() {
    let mut rooms: Vec<String> = sources().iter().map(|source| source.room().to_owned()).collect();
    rooms.retain(|room| room != "lib" && room != "main");
    rooms.sort_unstable();
    rooms.dedup();
    let mut table: Vec<String> = LAYERS.iter().map(|(room, _)| (*room).to_owned()).collect();
    table.sort_unstable();
    assert_eq!(rooms, table, "rooms in src/ (left) and in the table (right)");
}

#[test]
fn an_import_from_above_or_beside_is_a_fault() {
    let fault = |path: &str, text: &str| layer_faults(&Source::new(path, text)).len();
    assert_eq!(fault("cache/shard", "use crate::wire::Name;"), 0);
    assert_eq!(fault("cache/shard", "use crate::cache::Key;"), 0);
    assert_eq!(fault("cache/shard", "use crate::route::Table;"), 1);
    assert_eq!(fault("cache/shard", "use crate::{\n    engine::{Action, handle},\n    wire::{Name, name},\n};"), 1);
    assert_eq!(fault("cache/shard", "fn f() { crate::serve::udp::run() }"), 1);
    assert_eq!(
        fault("cache/shard", "// crate::serve is above\n/* crate::serve */ const A: &str = \"crate::serve\";"),
        0
    );
    assert_eq!(fault("cache/shard", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::serve::udp; }"), 0);
    assert_eq!(fault("cache/shard", "use super::super::serve::udp;"), 1);
    assert_eq!(fault("cache/mod", "use super::wire;"), 1);
    assert_eq!(fault("main", "use tidegate::cli;"), 0);
}

#[test]
fn an_import_from_a_later_folder_of_upstream_is_a_fault() {
    let fault = |path: &str, text: &str| folder_faults(&Source::new(path, text)).len();
    assert_eq!(fault("upstream/group/select", "use crate::upstream::server::Server;"), 0);
    assert_eq!(
        fault("upstream/group/select", "use crate::{clock::Moment, upstream::{server::Server, spec::Policy}};"),
        0
    );
    assert_eq!(
        fault("upstream/group/select", "use crate::{clock::Moment, upstream::{server::Server, link::Link}};"),
        1
    );
    assert_eq!(fault("upstream/group/mod", "fn f() { crate::upstream::link::f() }"), 1);
    assert_eq!(fault("upstream/group/mod", "use crate::upstream::group::Marks;"), 0);
    assert_eq!(fault("upstream/group/mod", "use crate::upstream::Server;"), 1);
    assert_eq!(fault("upstream/group/mod", "use super::server::Server;"), 1);
    assert_eq!(fault("upstream/group/select", "use super::Group;"), 0);
    assert_eq!(fault("upstream/spec", "use super::system;"), 1);
    assert_eq!(fault("upstream/mod", "pub use link::ask_once;"), 0);
    assert_eq!(fault("zones/mod", "use crate::upstream::Server;"), 0);
}

#[test]
fn a_package_out_of_its_room_is_a_fault() {
    let fault = |path: &str, text: &str| fence_faults(&Source::new(path, text)).len();
    assert_eq!(fault("upstream/link/quic", "use quinn::Endpoint;"), 0);
    assert_eq!(fault("serve/udp", "use quinn::Endpoint;"), 1);
    assert_eq!(fault("upstream/link/stream", "use crate::tls::TlsClient;"), 0);
    assert_eq!(fault("upstream/link/stream", "use rustls::ClientConfig;"), 1);
    assert_eq!(fault("config/file", "use toml::de::DeTable;"), 0);
    assert_eq!(fault("config/plan", "use toml::de::DeTable;"), 1);
    assert_eq!(fault("config/plan", "use toml_edit::DocumentMut;"), 0);
    assert_eq!(fault("net/mmsg", "unsafe { libc::recvmmsg() }"), 0);
    assert_eq!(fault("net/options", "unsafe { f() }"), 1);
    assert_eq!(fault("engine/handle", "tokio::spawn(f())"), 1);
    assert_eq!(fault("engine/resolve", "tokio::spawn(f())"), 0);
    assert_eq!(fault("wire/name", "#[cfg(test)]\nmod tests { fn f() { unsafe {} } }"), 1);
}

#[test]
fn a_second_type_with_the_name_of_one_that_crosses_rooms_is_a_fault() {
    let fault = |texts: &[(&str, &str)]| {
        name_faults(&texts.iter().map(|(path, text)| Source::new(path, text)).collect::<Vec<_>>()).len()
    };
    let here = ("engine/handle", "pub enum Action {}");
    assert_eq!(fault(&[here, ("serve/udp", "use crate::engine::Action;")]), 0);
    assert_eq!(fault(&[here, ("cli/cache", "enum Action {}")]), 0);
    assert_eq!(
        fault(&[here, ("serve/udp", "use crate::engine::{Action, handle};"), ("cli/cache", "enum Action {}")]),
        1
    );
    assert_eq!(fault(&[here, ("serve/udp", "use crate::engine;\nfn f(_: engine::Action) {}\nstruct Action<T>;")]), 1);
    assert_eq!(
        fault(&[here, ("engine/mod", "use crate::engine::handle::Action;"), ("cli/cache", "enum Action {}")]),
        0
    );
    assert_eq!(
        fault(&[here, ("serve/udp", "use crate::engine::Action;\n#[cfg(test)]\nmod tests {\nstruct Action; }")]),
        0
    );
}

/// A file of `src/`.
struct Source {
    /// Below `src/`, without `.rs`.
    path: String,
    /// Without comments and strings.
    code: String,
    /// Also without code that is compiled only for tests.
    product: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = bare(text);
        let product = without_tests(&code);
        Self { path: path.to_owned(), code, product }
    }

    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or(&self.path)
    }

    /// The folder or file of `upstream` that it belongs to.
    fn folder(&self) -> Option<&str> {
        let within = self.path.strip_prefix("upstream/")?;
        within.split('/').next().filter(|folder| *folder != "mod")
    }

    /// How many `super::` lead from this file's own module to the crate's root.
    fn depth(&self) -> usize {
        let inner = self.path.strip_suffix("/mod").unwrap_or(&self.path);
        inner.split('/').count()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("it is below src").with_extension("");
            (path.to_string_lossy().into_owned(), fs::read_to_string(file).expect("src is readable"))
        })
        .collect();
    let for_tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let mut sources: Vec<Source> = texts.iter().map(|(path, text)| Source::new(path, text)).collect();
    for source in &mut sources {
        if for_tests.iter().any(|module| source.path == *module || source.path.starts_with(&format!("{module}/"))) {
            source.product.clear();
        }
    }
    assert!(sources.len() > 10, "src/ was not found");
    sources
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files that `#[cfg(test)] mod name;` brings in.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod")) => format!("{folder}/"),
        _ if path == "lib" => String::new(),
        _ => format!("{path}/"),
    };
    let mut modules = Vec::new();
    for rest in text.split("#[cfg(test)]").skip(1) {
        let item = rest.trim_start();
        let declared = item.strip_prefix("mod ").or_else(|| item.strip_prefix("pub(crate) mod "));
        let name = declared.and_then(|rest| rest.split_once(';')).map(|(name, _)| name.trim());
        modules.extend(name.filter(|name| is_word(name)).map(|name| format!("{folder}{name}")));
    }
    modules
}

fn layer_faults(source: &Source) -> Vec<String> {
    let layer = |room: &str| LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer);
    // lib.rs declares the rooms, main.rs starts the uppermost.
    let own = layer(source.room()).unwrap_or(u8::MAX);
    let mut faults = Vec::new();
    let mut rooms: Vec<String> = mentions(&source.product, "crate::");
    rooms.iter_mut().for_each(|path| path.truncate(path.find("::").unwrap_or(path.len())));
    rooms.dedup();
    for room in rooms {
        let Some(other) = layer(&room) else { continue };
        if room != source.room() && other >= own {
            let mut fault = format!("src/{}.rs (layer {own}) imports from {room} (layer {other});", source.path);
            write!(fault, " a room knows only lower layers").expect("writing to a string");
            faults.push(fault);
        }
    }
    let escape = "super::".repeat(source.depth());
    if own != u8::MAX && source.product.contains(&escape) {
        faults.push(format!("src/{}.rs leaves its room by {escape}; say crate:: instead", source.path));
    }
    faults
}

fn folder_faults(source: &Source) -> Vec<String> {
    let rank = |folder: &str| UPSTREAM.iter().position(|name| *name == folder);
    let Some(folder) = source.folder() else { return Vec::new() };
    let own = rank(folder).unwrap_or(usize::MAX);
    let mut faults = Vec::new();
    for path in mentions(&source.product, "crate::") {
        let Some(within) = path.strip_prefix("upstream::") else { continue };
        let other = within.split("::").next().unwrap_or_default();
        if rank(other).is_none_or(|other| other > own) {
            faults.push(format!(
                "src/{}.rs imports upstream::{other}, which does not stand before {folder}",
                source.path
            ));
        }
    }
    let escape = "super::".repeat(source.depth() - 1);
    if source.product.contains(&escape) {
        faults.push(format!("src/{}.rs leaves its folder by {escape}; say crate::upstream:: instead", source.path));
    }
    faults
}

/// The types that are declared more than once and imported by one room from another.
fn name_faults(sources: &[Source]) -> Vec<String> {
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for name in source.product.lines().filter_map(declared_type) {
            homes.entry(name).or_default().push(&source.path);
        }
    }
    homes.retain(|_, files| files.len() > 1);
    let crossing: BTreeSet<String> = sources.iter().flat_map(imported_names).collect();
    homes.retain(|name, _| crossing.contains(*name));
    let fault = |(name, files): (&str, Vec<&str>)| {
        format!("{name} crosses rooms, and is declared in src/{}.rs", files.join(".rs and src/"))
    };
    homes.into_iter().map(fault).collect()
}

/// The type that this line declares for a whole module.
fn declared_type(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let kinds = ["struct ", "enum ", "trait ", "type "];
    words(kinds.iter().find_map(|kind| line.strip_prefix(kind))?).next()
}

/// The names that a file takes from other rooms, by an import or through an imported module.
fn imported_names(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    for path in mentions(&source.product, "crate::") {
        if path.split("::").next() == Some(source.room()) {
            continue;
        }
        let last = path.rsplit("::").next().unwrap_or_default();
        names.push(last.to_owned());
        if last.chars().all(|letter| !letter.is_uppercase()) {
            names.extend(mentions(&source.product, &format!("{last}::")).iter().map(|path| first(path)));
        }
        // A type's own constants and functions stand behind it.
        names.extend(path.split("::").map(str::to_owned));
    }
    names
}

fn first(path: &str) -> String {
    path.split("::").next().unwrap_or_default().to_owned()
}

fn fence_faults(source: &Source) -> Vec<String> {
    let within = |rooms: &[&str]| rooms.iter().any(|room| source.path.starts_with(room));
    let says = |word: &str| {
        let text = if word == "unsafe" { &source.code } else { &source.product };
        words(text).any(|found| found == word)
    };
    let strays = ONLY_IN.iter().filter(|(word, rooms)| !within(rooms) && says(word)).map(|(word, rooms)| {
        format!("src/{}.rs mentions {word}, which has its place in {}", source.path, rooms.join(", "))
    });
    let guests = NEVER_IN.iter().filter(|(word, rooms)| within(rooms) && says(word));
    strays.chain(guests.map(|(word, _)| format!("src/{}.rs mentions {word}, which is kept out", source.path))).collect()
}

/// The paths behind each `prefix`, groups in braces taken apart.
fn mentions(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split(prefix).skip(1) {
        paths(rest, "", &mut found);
    }
    found
}

/// Collects the paths of the tree that `text` begins with, each behind `base`. Gives the tree's length.
fn paths(text: &str, base: &str, found: &mut Vec<String>) -> usize {
    let mut at = text.len() - text.trim_start().len();
    if text[at..].starts_with('{') {
        while text[at..].starts_with(['{', ',']) {
            at += 1 + paths(&text[at + 1..], base, found);
            // Behind a path may stand `as name`.
            at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
        }
        return text.len().min(at + 1);
    }
    let word = text[at..].find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len() - at);
    let path = format!("{base}{}", &text[at..at + word]);
    at += word;
    if word > 0 && text[at..].starts_with("::") {
        return at + 2 + paths(&text[at + 2..], &format!("{path}::"), found);
    }
    if word > 0 {
        found.push(path);
    }
    at
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}

/// The code without comments, strings and character literals.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if letter == '"' {
            string_length(rest)
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else if letter == '\'' {
            character_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.bytes().take_while(|&byte| byte == b'#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a character literal, 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code without the items that `#[cfg(test)]` marks.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut parts = code.split("#[cfg(test)]");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        kept.push_str(&part[item_length(part)..]);
    }
    kept
}

/// The length of the item that begins here: up to its semicolon, or the end of its braces.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => continue,
        }
        if depth == 0 && letter == '}' {
            return at + 1;
        }
    }
    code.len()
}
