//! The commented reference against the true defaults.

use std::fs;

use tidegate::config::defaults;
use toml::{Table, Value};

use crate::plan;

/// The keys of the reference that have no default, as `table.key`.
const WITHOUT_DEFAULT: &[&str] = &[
    "upstream.servers",
    "forward.name",
    "forward.zones",
    "forward.to",
    "forward.on_public",
    "local.zone",
    "local.file",
    "local.records",
];

/// `table.key` and value for each key, names of groups left out of the path, the first of several tables only.
fn flat(table: &Table, path: &str, into: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(groups) if here == "upstream" => {
                let first =
                    groups.get("vpc").or_else(|| groups.get("NAME")).and_then(Value::as_table).expect("a group");
                flat(first, "upstream", into);
            }
            Value::Table(inner) => flat(inner, &here, into),
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                for item in items.iter().take(if here == "local" { 2 } else { 1 }) {
                    flat(item.as_table().expect("a table"), &here, into);
                }
            }
            _ => into.push((here, value.clone())),
        }
    }
}

fn read(text: &str) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    flat(&text.parse().expect("TOML"), "", &mut keys);
    keys
}

#[test]
fn every_default_of_the_reference_is_the_true_default() {
    let reference = read(&fs::read_to_string("config/reference.toml").unwrap());
    let truth = read(&defaults());
    let mut compared = 0;
    for (key, value) in &reference {
        if WITHOUT_DEFAULT.contains(&key.as_str()) {
            continue;
        }
        let (_, default) = truth.iter().find(|(known, _)| known == key).unwrap_or_else(|| panic!("{key} missing"));
        // The reference shows an example of tiers, and of networks.
        if !["upstream.backup", "forward.private"].contains(&key.as_str()) {
            assert_eq!(value, default, "{key}");
        }
        compared += 1;
    }
    assert_eq!(compared, truth.len(), "the reference lacks a key");
}

#[test]
fn the_printed_defaults_change_nothing() {
    let text = defaults()
        .replace("[upstream.NAME]", "[upstream.NAME]\nservers = [\"192.0.2.1\"]")
        .replace("[[forward]]", "[[forward]]\nzones = [\".\"]\nto = \"NAME\"");
    let written = plan(&text);
    let silent = plan("[upstream.NAME]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"NAME\"");
    assert_eq!(written.live, silent.live);
    assert_eq!(written.boot.streams, silent.boot.streams);
}
