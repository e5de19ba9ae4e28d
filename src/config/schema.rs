//! A JSON Schema (draft-07) of the configuration file, for editors that complete and check it.
//!
//! It is generated from the declarations that the reader uses, with the words of `config/reference.toml`. The reader
//! refuses everything that it refuses; checks of several values or of the host are left to the reader.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::file::{
    AdminSection, CacheSection, ForwardSection, Key, LimitsSection, LocalHostsSection, LocalSection, LogSection,
    PerimeterSection, ServerSection, SpecialSection, Table, Top, UpstreamSection,
};

const REFERENCE: &str = include_str!("../../config/reference.toml");

/// The required keys of each table.
const REQUIRED: &[(&str, &[&str])] =
    &[("server", &["server"]), ("upstream.NAME", &["servers"]), ("forward", &["zones", "to"]), ("local", &["zone"])];

/// The schema of a whole file.
pub fn schema() -> Value {
    let mut file = table(&Top::keys(), Top::TABLE);
    let tables = json!({
        "server": section::<ServerSection>(),
        "limits": section::<LimitsSection>(),
        "cache": section::<CacheSection>(),
        "admin": section::<AdminSection>(),
        "log": section::<LogSection>(),
        "upstream": { "type": "object", "additionalProperties": section::<UpstreamSection>() },
        "forward": { "type": "array", "items": section::<ForwardSection>() },
        "local": { "type": "array", "items": section::<LocalSection>() },
        "local_hosts": section::<LocalHostsSection>(),
        "perimeter": section::<PerimeterSection>(),
        "special": section::<SpecialSection>(),
    });
    if let (Some(Value::Object(properties)), Value::Object(tables)) = (file.get_mut("properties"), tables) {
        properties.extend(tables);
    }
    file["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    file["title"] = "tidegate.toml".into();
    file
}

fn section<T: Table>() -> Value {
    table(&T::keys(), T::TABLE)
}

/// The schema of a table with these keys, called `name` in the reference.
pub(super) fn table(keys: &[Key], name: &str) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), property(key, name))).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    // A server's table has the same name as [server], but another required key.
    let required = REQUIRED.iter().find(|(table, required)| {
        *table == name && required.iter().all(|required| keys.iter().any(|key| key.name == *required))
    });
    if let Some((_, required)) = required {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key, table: &str) -> Value {
    let mut schema = key.kind.schema();
    let words = DESCRIPTIONS.get(&format!("{table}.{}", key.name)).map_or("", String::as_str);
    if !words.is_empty() {
        schema["description"] = words.into();
    }
    if let Some(default) = key.json_default() {
        schema["default"] = default;
    }
    schema
}

/// The description of each key in the reference, by `table.key`.
static DESCRIPTIONS: LazyLock<HashMap<String, String>> = LazyLock::new(|| describe(REFERENCE));

fn describe(reference: &str) -> HashMap<String, String> {
    let mut words: HashMap<String, String> = HashMap::new();
    let (mut table, mut last) = ("the file".to_owned(), None);
    for line in reference.lines() {
        let (code, comment) = line.split_once('#').unwrap_or((line, ""));
        let (code, comment) = (code.trim_end(), comment.trim());
        if let Some(header) = code.strip_prefix('[') {
            let path = header.split(']').next().unwrap_or_default().trim_start_matches('[');
            table = path
                .split('.')
                .enumerate()
                .map(|(at, part)| if at == 1 && path.starts_with("upstream.") { "NAME" } else { part })
                .collect::<Vec<_>>()
                .join(".");
            last = None;
        } else if let Some((key, _)) = code.split_once('=').filter(|_| !code.starts_with([' ', '"'])) {
            let path = format!("{table}.{}", key.trim());
            // If a table has several examples, the first one counts.
            last = (!words.contains_key(&path)).then(|| path.clone());
            if let Some(path) = &last {
                words.insert(path.clone(), comment.to_owned());
            }
        } else if !code.is_empty() || comment.is_empty() {
            last = None;
        } else if let Some(text) = last.as_ref().and_then(|path| words.get_mut(path)).filter(|_| line.starts_with(' '))
        {
            text.push(' ');
            text.push_str(comment);
        }
    }
    words.retain(|_, text| !text.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_described_in_the_words_of_the_reference() {
        let schema = schema();
        let key = |pointer: &str| schema.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert!(key("/properties/cache/properties/negative_ttl/description").starts_with("cap for NXDOMAIN"));
        let guard = key("/properties/forward/items/properties/private/description");
        assert!(guard.contains("the guard") && guard.contains("on premises"), "{guard}");
        let policy = key("/properties/upstream/additionalProperties/properties/policy/description");
        assert!(policy.starts_with("within a tier"), "{policy}");
        assert_eq!(key("/properties/cache/properties/max_ttl/default"), "1d");
    }

    #[test]
    fn every_word_of_the_reference_is_about_a_key() {
        let tables = super::super::file::TABLES;
        for path in DESCRIPTIONS.keys() {
            let known = tables.iter().any(|(header, keys)| {
                let table = if header.is_empty() { "the file" } else { header.trim_matches(['[', ']']) };
                keys().iter().any(|key| format!("{table}.{}", key.name) == *path)
            });
            assert!(known, "{path}");
        }
    }
}
