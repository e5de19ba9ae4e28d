//! Every key and its default as TOML, and the keys that are not supported yet.

use std::fmt::Write;

use super::file::{Key, Mark, ServerSection, TABLES};

/// Every key that has a default, with it, as TOML; a comment marks what is not supported yet.
pub fn defaults() -> String {
    let mut page = String::new();
    for (header, keys) in TABLES {
        let lines: Vec<String> = keys().iter().filter_map(line).collect();
        // `[[local]]` has no default.
        if lines.is_empty() {
            continue;
        }
        if !header.is_empty() {
            let _ = writeln!(page, "\n{header}");
        }
        page.extend(lines);
    }
    page
}

/// The UDP payload size that queries advertise by default.
pub fn default_udp_payload() -> u16 {
    u16::try_from(ServerSection::default().udp_payload()).unwrap_or(u16::MAX)
}

fn line(key: &Key) -> Option<String> {
    let default = key.kind.shown_default()?;
    let mark = match key.mark {
        Some(Mark::NotYet) => "  # not supported yet",
        None => "",
    };
    Some(format!("{} = {default}{mark}\n", key.name))
}

/// The keys that parse and are not supported yet, as `table.key`.
pub fn not_supported() -> Vec<String> {
    let tables = TABLES.iter().map(|(header, keys)| (header.trim_matches(['[', ']']), keys()));
    let marked = tables.flat_map(|(table, keys)| {
        let marked = keys.into_iter().filter(|key| key.mark.is_some());
        marked.map(move |key| format!("{}.{}", table.replace(".NAME", ""), key.name))
    });
    marked.collect()
}
