//! Every key and its default as TOML, and the keys that are not supported yet.

use std::fmt::Write;

use super::file::{Key, ServerSection, TABLES};

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
    Some(format!("{} = {default}\n", key.name))
}
