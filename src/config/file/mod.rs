//! The file as typed: every key optional, every value with its place, nothing checked but its type.
//!
//! The only place that knows TOML.

mod edit;
mod load;
mod merge;
mod read;
mod suggest;

pub use edit::{EditError, group_table, set_servers};
pub(super) use load::{Loaded, load, parse};
pub(super) use read::{Flag, Float, Integer, Located, NumberOrWord, ServerEntry, Text, Texts};
use read::{Reader, Table as _, table};
pub(super) use suggest::nearest;

/// All that was typed, over the including file and the included ones.
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
            ServerEntry::Table(table) => table.address.as_ref(),
        })
    }
}

/// The tables at the top of a file.
const TOP: &[&str] =
    &["include", "server", "limits", "cache", "admin", "log", "upstream", "forward", "local", "local_hosts", "special"];

/// Every other table and its keys, for advice on a key in the wrong one.
const KEYS_BY_TABLE: &[(&str, &[&str])] = &[
    ("the file's top, before any [table]", TOP),
    ("[server]", ServerSection::KEYS),
    ("[server.tls]", TlsSection::KEYS),
    ("[limits]", LimitsSection::KEYS),
    ("[cache]", CacheSection::KEYS),
    ("[admin]", AdminSection::KEYS),
    ("[log]", LogSection::KEYS),
    ("[upstream.NAME]", UpstreamSection::KEYS),
    ("[upstream.NAME.health]", HealthSection::KEYS),
    ("[[forward]]", ForwardSection::KEYS),
    ("[[local]]", LocalSection::KEYS),
];

table! {
    /// `[server]`
    ServerSection {
        listen: Texts, freebind: Flag, allow: Texts, deny: Texts, workers: Located<NumberOrWord>,
        udp_payload: Integer, deadline: Text, lameduck: Text, proxy_protocol: Texts, cookie_secrets: Texts,
        chaos: Text, sandbox: Text, tls: Located<TlsSection>,
    }
}

table! {
    /// `[server.tls]`
    TlsSection { tls: Texts, https: Texts, quic: Texts, certificate: Text, key: Text }
}

table! {
    /// `[limits]`
    LimitsSection {
        client_qps: Integer, client_burst: Integer, exempt: Texts, tcp_connections: Integer, tcp_per_client: Integer,
        pipeline: Integer, tcp_idle: Text, in_flight: Integer,
    }
}

table! {
    /// `[cache]`
    CacheSection {
        size: Text, min_ttl: Text, max_ttl: Text, negative_ttl: Text, no_soa_ttl: Text, failure_ttl: Text,
        stale: Text, stale_after: Text, stale_ttl: Text, prefetch: Flag, rotate: Flag, snapshot: Text,
    }
}

table! {
    /// `[admin]`
    AdminSection { http: Text, allow: Texts, hosts: Texts, socket: Text }
}

table! {
    /// `[log]`
    LogSection { level: Text, format: Text, queries: Text, sample: Float, dnstap: Text, otlp: Text }
}

table! {
    /// `[upstream.NAME]`
    UpstreamSection {
        servers: Located<Vec<ServerEntry>>, backup: Located<Vec<Located<Vec<ServerEntry>>>>, policy: Text,
        timeout: Text, attempts: Integer, hedge: Flag, hedge_budget: Float, max_qps: Integer, in_flight: Integer,
        connections: Integer, source: Text, device: Text, mark: Integer, source_ports: Integer, mix_case: Flag,
        fail_back: Text, ca: Text, health: Located<HealthSection>,
    }
}

table! {
    /// `[upstream.NAME.health]`
    HealthSection {
        probe: Text, expect: Texts, interval: Text, interval_down: Text, fall: Integer, rise: Integer,
    }
}

table! {
    /// A server with a way of its own: `{ address = "10.20.1.10", device = "vpn0" }`.
    ServerTable { address: Text, source: Text, device: Text, mark: Integer }
}

table! {
    /// `[[forward]]`
    ForwardSection {
        name: Text, zones: Texts, to: Text, clients: Texts, private: Texts, on_public: Text, except: Texts,
        rebind: Text, negative_ttl: Text, when_down: Text, aaaa: Text, follow: Flag,
    }
}

table! {
    /// `[[local]]`
    LocalSection { zone: Text, file: Text, records: Texts }
}

table! {
    /// `[local_hosts]`
    LocalHostsSection { file: Text }
}

table! {
    /// `[special]`
    SpecialSection { enabled: Flag }
}
