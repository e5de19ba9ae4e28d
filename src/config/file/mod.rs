//! The file as typed: every key optional, every value with its place, checked as far as possible by itself.
//!
//! The only place that knows TOML.

mod edit;
mod expectations;
mod keys;
mod kind;
mod load;
mod merge;
mod read;
mod suggest;

pub use edit::{EditError, group_table, set_servers};
pub(super) use expectations::{CaseSection, ExpectationsFile};
pub(super) use keys::{
    ADMIN_ALLOW, ADMIN_HTTP, ALLOW, AdminSection, CHAOS, COOKIE_SECRETS, CacheSection, ForwardSection, HealthSection,
    LISTEN, LimitsSection, LocalHostsSection, LocalSection, LogSection, PerimeterSection, ServerSection,
    SpecialSection, TABLES, TlsSection, Top, UpstreamSection,
};
pub use keys::{CONTROL_SOCKET, MAX_SERVERS};
pub(super) use kind::{Key, Keyword, no_such_word};
pub use load::is_configuration;
pub(super) use load::{Loaded, load, parse};
use read::Reader;
pub(super) use read::{Located, ServerEntry, Table, Text, Texts};

/// The content of the including file and the included ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct File {
    pub(super) include: Option<Texts>,
    pub(super) server: Option<Located<ServerSection>>,
    pub(super) limits: Option<Located<LimitsSection>>,
    pub(super) cache: Option<Located<CacheSection>>,
    pub(super) admin: Option<Located<AdminSection>>,
    pub(super) log: Option<Located<LogSection>>,
    pub(super) upstream: Vec<Upstream>,
    pub(super) forward: Vec<Located<ForwardSection>>,
    pub(super) local: Vec<Located<LocalSection>>,
    pub(super) local_hosts: Option<Located<LocalHostsSection>>,
    pub(super) perimeter: Option<Located<PerimeterSection>>,
    pub(super) special: Option<Located<SpecialSection>>,
}

/// `[upstream.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Upstream {
    pub(super) name: Text,
    pub(super) table: UpstreamSection,
}

impl Upstream {
    /// The addresses of the servers of every tier, as typed.
    pub(super) fn server_texts(&self) -> impl Iterator<Item = &Text> {
        let backup = self.table.backup.iter().flat_map(|backup| &backup.value);
        let entries = self.table.servers.iter().chain(backup).flat_map(|tier| &tier.value);
        entries.filter_map(|entry| match entry {
            ServerEntry::Text(text) => Some(text),
            ServerEntry::Table(table) => table.server.as_ref(),
        })
    }
}
