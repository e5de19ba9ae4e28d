//! What the program is made of: why each dependency is there, under which licence, from where, for which compiler.
//! `cargo deny check` knows more; this needs neither it nor a network.

use std::{collections::HashSet, fs, process::Command};

use serde_json::Value;
use toml::Table;

fn read(file: &str) -> String {
    fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect("a file of the project")
}

fn table(file: &str) -> Table {
    read(file).parse().expect("it is TOML")
}

/// Every package that Cargo.lock names, as cargo describes it.
fn packages() -> Vec<Value> {
    metadata()["packages"].as_array().expect("a list").clone()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        // Those for other systems need not have been fetched.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// The words of a list in deny.toml.
fn allowed(section: &str, key: &str) -> HashSet<String> {
    let list = table("deny.toml")[section][key].as_array().expect("a list").clone();
    list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

#[test]
fn each_dependency_says_why_it_is_there() {
    let text = read("Cargo.toml");
    let lines: Vec<&str> = text.lines().collect();
    for section in ["dependencies", "dev-dependencies"] {
        let start = lines.iter().position(|line| *line == format!("[{section}]")).expect("the section");
        for name in table("Cargo.toml")[section].as_table().expect("a table").keys() {
            let here = lines[start..].iter().position(|line| line.starts_with(&format!("{name} =")));
            let at = start + here.unwrap_or_else(|| panic!("{name} stands on a line of its own"));
            let why = lines[at - 1];
            assert!(why.starts_with("# ") && why.ends_with('.'), "a sentence is missing above {name} in Cargo.toml");
        }
    }
}

/// An expression is good if one of its alternatives is, which is if all it joins are.
fn is_allowed(expression: &str, licences: &HashSet<String>) -> bool {
    let plain = expression.replace(" / ", "/").replace('/', " OR ");
    // No package nests deeper than alternatives in brackets that are joined.
    let groups = plain.split(" AND ").flat_map(|part| part.split(") AND ("));
    let is_one_good = |group: &str| {
        let mut alternatives = group.split(" OR ").map(|name| name.trim().trim_matches(['(', ')']));
        alternatives.any(|name| licences.contains(name))
    };
    groups.into_iter().all(is_one_good)
}

#[test]
fn licences_and_sources_are_those_of_deny_toml() {
    let (licences, registries) = (allowed("licenses", "allow"), allowed("sources", "allow-registry"));
    for package in packages().iter().filter(|package| !package["source"].is_null()) {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(is_allowed(licence, &licences), "{name}: {licence}");
        let source = package["source"].as_str().expect("it is a text");
        assert!(registries.contains(source.trim_start_matches("registry+")), "{name}: {source}");
    }
}

#[test]
fn licences_are_told_apart() {
    let licences = HashSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for good in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "ISC AND (GPL-3.0 OR MIT)", "(MIT OR X) AND ISC"] {
        assert!(is_allowed(good, &licences), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "ISC AND (GPL-3.0 OR X)", "(MIT OR ISC) AND GPL-3.0"] {
        assert!(!is_allowed(bad, &licences), "{bad}");
    }
}

#[test]
fn no_dependency_needs_a_newer_compiler_than_we_say() {
    let version = |text: &str| -> [u32; 3] {
        let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
        std::array::from_fn(|_| parts.next().unwrap_or(0))
    };
    let ours = table("Cargo.toml")["package"]["rust-version"].as_str().map(version).expect("rust-version is said");
    for package in packages() {
        let Some(theirs) = package["rust_version"].as_str() else { continue };
        assert!(version(theirs) <= ours, "{} needs Rust {theirs}", package["name"]);
    }
}
