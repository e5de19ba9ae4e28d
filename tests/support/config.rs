//! The configuration of one test's daemon.

use std::{collections::BTreeMap, fmt::Write as _};

use super::upstream::Upstream;

/// Keys of a group for tests that count upstream queries or hold answers back: one try, with plenty of time. A busy
/// machine is late by more than the 20 ms after which a try would be repeated.
pub const ONE_PATIENT_TRY: &str = "attempts = 1\nhedge = false\ntimeout = \"3s\"";

/// Builds a `tidegate.toml`. Every test gets free ports, no control socket, and JSON log lines.
#[derive(Debug, Clone)]
pub struct Config {
    listen: Vec<String>,
    sections: BTreeMap<&'static str, String>,
    tables: String,
}

impl Config {
    /// A daemon on a free port of 127.0.0.1, without rules.
    pub fn new() -> Self {
        let sections =
            [("server", ""), ("admin", "http = \"127.0.0.1:0\"\nsocket = \"\"\n"), ("log", "format = \"json\"\n")];
        Self {
            listen: vec!["127.0.0.1:0".to_owned()],
            sections: sections.map(|(name, text)| (name, text.to_owned())).into(),
            tables: String::new(),
        }
    }

    /// Like [`Self::new`], without `[admin]`, which the test adds itself.
    pub fn without_admin() -> Self {
        let mut config = Self::new();
        config.sections.remove("admin");
        config
    }

    /// One group `site` with these upstreams, [asked once](ONE_PATIENT_TRY), and a rule `everything` that sends every
    /// name to it.
    pub fn forwarding_to(upstreams: &[&Upstream]) -> Self {
        Self::new().upstream("site", upstreams, ONE_PATIENT_TRY).forward("everything", &["."], "site", "")
    }

    /// Sets the listen addresses.
    pub fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    /// Adds keys to a table such as `server` or `cache`.
    pub fn section(mut self, name: &'static str, lines: &str) -> Self {
        let section = self.sections.entry(name).or_default();
        section.push_str(lines);
        section.push('\n');
        self
    }

    /// Adds a group of scripted upstreams, with further keys.
    pub fn upstream(self, group: &str, upstreams: &[&Upstream], lines: &str) -> Self {
        let servers: Vec<String> = upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
        self.servers(group, &servers, lines)
    }

    /// Adds a group of servers given as text, with further keys.
    pub fn servers(self, group: &str, servers: &[String], lines: &str) -> Self {
        self.raw(&format!("[upstream.{group}]\nservers = {servers:?}\n{lines}"))
    }

    /// Adds a rule.
    pub fn forward(self, name: &str, zones: &[&str], group: &str, lines: &str) -> Self {
        self.raw(&format!("[[forward]]\nname = {name:?}\nzones = {zones:?}\nto = {group:?}\n{lines}"))
    }

    /// Adds any other tables.
    pub fn raw(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.tables.push_str("\n\n");
        self
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, lines) in &self.sections {
            writeln!(text, "[{name}]").expect("writing to a string");
            if *name == "server" && !self.listen.is_empty() {
                writeln!(text, "listen = {:?}", self.listen).expect("writing to a string");
            }
            writeln!(text, "{lines}").expect("writing to a string");
        }
        text + &self.tables
    }
}
