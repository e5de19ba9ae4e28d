//! The rooms of `src/`, and which may import which.
//!
//! A room imports only from rooms in lower layers, never from its own layer. Some packages and words are
//! confined to certain rooms, `unsafe` among them. The code is checked against the tables below. Test code may import
//! anything.

#[path = "layers/source.rs"]
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use source::{Source, mentions, sources, words};

/// Every room with its layer. The binary's `main.rs` stands above them all.
const LAYERS: &[(&str, u8)] = &[
    ("wire", 0),
    ("clock", 0),
    ("networks", 0),
    ("plural", 0),
    ("files", 0),
    ("system_error", 0),
    ("net", 1),
    ("tls", 1),
    ("metrics", 1),
    ("dnstap", 1),
    ("otlp", 1),
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

/// The most files of `upstream/link` that import each other in one circle.
const MOST_IN_CIRCLE: usize = 6;

/// Words that stand only in files whose path below `src/`, without `.rs`, begins with one of these.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("hickory_net", &["cli/validate/"]),
    ("hickory_proto", &["cli/validate/"]),
    ("hickory_server", &["cli/demo/"]),
    ("prost", &["dnstap/message", "otlp/message"]),
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
fn few_files_of_the_link_import_each_other_in_a_circle() {
    let sources = sources();
    let circle = largest_circle(&sources, "upstream/link/");
    assert!(circle.len() <= MOST_IN_CIRCLE, "{circle:?} import each other");
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
fn files_that_import_each_other_are_a_circle() {
    let sources = [
        Source::new("f/mod", "mod a; mod b; mod c; use self::a::A;"),
        Source::new("f/a", "use super::{b::B, c};"),
        Source::new("f/b", "use super::F;"),
        Source::new("f/c", "use super::d::D;"),
        Source::new("f/d", "use std::fmt;"),
        Source::new("g/e", "use super::a::A;"),
    ];
    assert_eq!(largest_circle(&sources, "f/"), ["a", "b", "mod"].into());
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

/// The most files of a folder each of which imports all others, directly or through others. Files below it do not count.
fn largest_circle<'s>(sources: &'s [Source], folder: &str) -> BTreeSet<&'s str> {
    let within = |source: &'s Source| {
        let file = source.path.strip_prefix(folder).filter(|file| !file.contains('/'))?;
        Some((file, source))
    };
    let files: BTreeMap<&str, &Source> = sources.iter().filter_map(within).collect();
    let imports = |file: &str| -> BTreeSet<&str> {
        let prefix = if file == "mod" { "self::" } else { "super::" };
        let imported = mentions(&files[file].product, prefix).into_iter();
        // What is no file of the folder is in its `mod.rs`.
        let named = imported.map(|path| files.get_key_value(first(&path).as_str()).map_or("mod", |(file, _)| file));
        named.collect()
    };
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = files.keys().map(|file| (*file, imports(file))).collect();
    loop {
        let before = reached.clone();
        for files in reached.values_mut() {
            let further: Vec<&str> = files.iter().flat_map(|file| &before[file]).copied().collect();
            files.extend(further);
        }
        if reached == before {
            break;
        }
    }
    let circle_of =
        |file: &&str| reached[file].iter().filter(|other| reached[*other].contains(file)).copied().collect();
    files.keys().map(circle_of).max_by_key(BTreeSet::len).unwrap_or_default()
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
