//! Every key of the configuration file: what it takes, its default, its bounds, and where they come from.
//!
//! Reading, `tidegate check --defaults`, the JSON Schema and the "not supported yet" marks all come from here; a test
//! checks `config/reference.toml` against it.

use std::time::Duration;

use super::{
    super::{
        group::Policy,
        plan::{Aaaa, LogFormat, LogLevel, LoggedQueries, OnPublic, Rebind, Sandbox, Workers},
    },
    kind::{
        Key, Keyed, Keyword, Servers, Threads, Tiers, Word, given_text, given_texts, given_word, inner, limit, text,
        texts, word,
    },
    read::{Located, ServerEntry, Table, Text, table},
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

/// The most servers of a group, over all tiers: one query may go to any of them.
pub const MAX_SERVERS: usize = 16;
/// Two are enough for rolling a secret over (RFC 9018 5); each costs a hash for a client whose cookie does not match.
pub(in crate::config) const COOKIE_SECRETS: usize = 4;
/// A character-string of a TXT record (RFC 1035 3.3.14).
pub(in crate::config) const CHAOS: usize = 255;
/// The default path of the control socket.
pub const CONTROL_SOCKET: &str = "/run/tidegate/control.sock";
/// The default address of the operators' HTTP.
pub(in crate::config) const ADMIN_HTTP: &str = "127.0.0.1:9153";
/// The default listeners of plain DNS.
pub(in crate::config) const LISTEN: &[&str] = &["127.0.0.1:53", "[::1]:53"];
/// The networks served by default.
pub(in crate::config) const ALLOW: &[&str] = &["loopback", "private"];
/// The networks that see more than metrics and health by default.
pub(in crate::config) const ADMIN_ALLOW: &[&str] = &["loopback"];

/// Returns the keys of a table.
pub(in crate::config) type Keys = fn() -> Vec<Key>;

/// Every table and its header, in the order of the page that `tidegate check --defaults` prints.
pub(in crate::config) const TABLES: &[(&str, Keys)] = &[
    ("", Top::keys),
    ("[server]", ServerSection::keys),
    ("[server.tls]", TlsSection::keys),
    ("[limits]", LimitsSection::keys),
    ("[cache]", CacheSection::keys),
    ("[admin]", AdminSection::keys),
    ("[log]", LogSection::keys),
    ("[upstream.NAME]", UpstreamSection::keys),
    ("[upstream.NAME.health]", HealthSection::keys),
    ("[[forward]]", ForwardSection::keys),
    ("[[local]]", LocalSection::keys),
    ("[local_hosts]", LocalHostsSection::keys),
    ("[perimeter]", PerimeterSection::keys),
    ("[special]", SpecialSection::keys),
];

/// The tables at the top of a file, and the only key outside any table.
pub(in crate::config) const TOP: &[&str] = &[
    "include",
    "server",
    "limits",
    "cache",
    "admin",
    "log",
    "upstream",
    "forward",
    "local",
    "local_hosts",
    "perimeter",
    "special",
];

table! {
    /// The keys before any table.
    Top in "the file" {
        include: Vec<Text> = texts(&[]),
    }
}

table! {
    /// `[server]`
    ServerSection in "server" {
        listen: Vec<Text> = texts(LISTEN),
        freebind: bool = false,
        allow: Vec<Text> = texts(ALLOW),
        deny: Vec<Text> = texts(&[]),
        // More threads than any one host's cores only cost memory.
        workers: Workers = Threads(1024),
        // 512 is what every client takes (RFC 6891 6.2.3); over 4096 fragments are sure.
        udp_payload: u32 = limit(1232, 512, 4096),
        // Stub resolvers give up at 5 s; what asks slower than that may wait a minute.
        deadline: Duration = limit(ms(3500), ms(100), s(MINUTE)),
        // Orchestrators kill what takes longer than an hour to stop.
        lameduck: Duration = limit(s(0), s(0), s(HOUR)),
        proxy_protocol: Vec<Text> = texts(&[]),
        cookie_secrets: Vec<Text> = texts(&[]),
        chaos: String = text(""),
        sandbox: Sandbox = word(Sandbox::Auto),
        tls: TlsSection = inner(),
    }
}

table! {
    /// `[server.tls]`
    TlsSection in "server.tls" {
        tls: Vec<Text> = texts(&[]),
        https: Vec<Text> = texts(&[]),
        quic: Vec<Text> = texts(&[]),
        certificate: String = text(""),
        key: String = text(""),
    }
}

table! {
    /// `[limits]`
    LimitsSection in "limits" {
        // A figure that no client reaches is as good as none.
        client_qps: u32 = limit(0, 0, 10_000_000),
        // As above.
        client_burst: u32 = limit(0, 0, 10_000_000),
        exempt: Vec<Text> = texts(&[]),
        // A descriptor each; a million is what Linux gives a process at most by default (fs.nr_open).
        tcp_connections: u32 = limit(4096, 1, 1 << 20),
        // As above.
        tcp_per_client: u32 = limit(100, 1, 1 << 20),
        // A message id is 16 bits wide.
        pipeline: u32 = limit(64, 1, 1 << 16),
        // RFC 7766 6.2.3 asks for seconds; a connection silent for an hour is dead.
        tcp_idle: Duration = limit(s(10), ms(100), s(HOUR)),
        // About 3 KiB each: tests/allocations.rs.
        in_flight: u32 = limit(65536, 1, 1 << 24),
    }
}

table! {
    /// `[cache]`
    CacheSection in "cache" {
        // Under a mebibyte (but for 0, off) the shards hold nothing; a tebibyte is beyond any use.
        size: u64 = limit(128 * MIB, MIB, 1 << 40),
        // Keeping answers past their TTL for long breaks fail-over of what they name.
        min_ttl: Duration = limit(s(0), s(0), s(HOUR)),
        // RFC 8767 4 caps at a week.
        max_ttl: Duration = limit(s(DAY), s(1), s(7 * DAY)),
        // RFC 2308 5: one to three hours are sensible, over a day is problematic.
        negative_ttl: Duration = limit(s(15 * MINUTE), s(0), s(DAY)),
        // RFC 2308 5 would not keep them at all, so not for long.
        no_soa_ttl: Duration = limit(s(15), s(0), s(HOUR)),
        // RFC 9520 3.2: at least a second, at most five minutes.
        failure_ttl: Duration = limit(s(2), s(1), s(5 * MINUTE)),
        // RFC 8767 5 proposes one to three days.
        stale: Duration = limit(s(DAY), s(0), s(30 * DAY)),
        // RFC 8767 5 proposes 1.8 s; it must come before the deadline.
        stale_after: Duration = limit(ms(400), s(0), s(MINUTE)),
        // RFC 8767 4: above zero, 30 s proposed.
        stale_ttl: Duration = limit(s(30), s(1), s(HOUR)),
        prefetch: bool = true,
        rotate: bool = true,
        snapshot: String = text(""),
    }
}

table! {
    /// `[admin]`
    AdminSection in "admin" {
        http: String = text(ADMIN_HTTP),
        allow: Vec<Text> = texts(ADMIN_ALLOW),
        hosts: Vec<Text> = texts(&[]),
        socket: String = text(CONTROL_SOCKET),
    }
}

table! {
    /// `[log]`
    LogSection in "log" {
        level: LogLevel = word(LogLevel::Info),
        format: LogFormat = word(LogFormat::Auto),
        queries: LoggedQueries = word(LoggedQueries::Off),
        // A fraction of queries.
        sample: f64 = limit(1.0, 0.0, 1.0),
        dnstap: String = text(""),
        otlp: String = text(""),
    }
}

table! {
    /// `[upstream.NAME]`
    UpstreamSection in "upstream.NAME" {
        servers: Vec<ServerEntry> = Servers,
        backup: Vec<Located<Vec<ServerEntry>>> = Tiers,
        policy: Policy = word(Policy::Fastest),
        bootstrap: Vec<Text> = texts(&[]),
        // A try's limit starts at 20 ms.
        timeout: Duration = limit(s(1), ms(20), s(30)),
        // A query costs a bounded number of upstream messages.
        attempts: u32 = limit(3, 1, 16),
        hedge: bool = true,
        // A share of queries.
        hedge_budget: f64 = limit(0.03, 0.0, 1.0),
        // A figure that no server reaches is as good as none.
        max_qps: u32 = limit(0, 0, 10_000_000),
        // About 3 KiB each: tests/allocations.rs.
        in_flight: u32 = limit(16384, 1, 1 << 24),
        // Servers close what one client has too many of.
        connections: u32 = limit(1, 1, 64),
        source: String = text(""),
        device: String = text(""),
        // SO_MARK is 32 bits wide.
        mark: u32 = limit(0, 0, u32::MAX),
        // A descriptor each; over 40000 address-port pairs hurt a Route 53 endpoint.
        source_ports: u32 = limit(256, 1, 16384),
        mix_case: bool = false,
        // A day is as good as never.
        fail_back: Duration = limit(s(MINUTE), s(0), s(DAY)),
        ca: String = text(""),
        health: HealthSection = inner(),
    }
}

table! {
    /// `[upstream.NAME.health]`
    HealthSection in "upstream.NAME.health" {
        probe: String = text(""),
        expect: Vec<Text> = texts(&[]),
        // Upstream queries are billed.
        interval: Duration = limit(s(5), ms(50), s(HOUR)),
        // As above.
        interval_down: Duration = limit(s(1), ms(50), s(HOUR)),
        // More is not a verdict but a wait.
        fall: u32 = limit(3, 1, 100),
        // As above.
        rise: u32 = limit(2, 1, 100),
    }
}

table! {
    /// A server with a path of its own: `{ server = "10.20.1.10", device = "vpn0" }`.
    ServerTable in "server" {
        server: String = given_text(),
        source: String = text(""),
        device: String = text(""),
        mark: u32 = limit(0, 0, u32::MAX),
    }
}

table! {
    /// `[[forward]]`
    ForwardSection in "forward" {
        name: String = given_text(),
        zones: Vec<Text> = given_texts(),
        to: String = given_text(),
        clients: Vec<Text> = texts(&[]),
        private: Vec<Text> = texts(&[]),
        // No default in a file; this one serves `--private` without `--on-public`.
        on_public: OnPublic = given_word(OnPublic::Refuse),
        except: Vec<Text> = texts(&[]),
        rebind: Rebind = word(Rebind::Allow),
        // Without it the cache's holds.
        negative_ttl: Duration = limit(s(15 * MINUTE), s(0), s(DAY)),
        when_down: String = text("stale"),
        aaaa: Aaaa = word(Aaaa::Forward),
        follow: bool = true,
    }
}

table! {
    /// `[[local]]`
    LocalSection in "local" { zone: String = given_text(), file: String = given_text(), records: Vec<Text> = given_texts() }
}

table! {
    /// `[local_hosts]`
    LocalHostsSection in "local_hosts" { file: String = text("") }
}

table! {
    /// `[perimeter]`
    PerimeterSection in "perimeter" {
        record: String = text(""),
        // Ten years are longer than any audit asks for.
        keep: Duration = limit(s(400 * DAY), s(DAY), s(3650 * DAY)),
    }
}

table! {
    /// `[special]`
    SpecialSection in "special" { enabled: bool = true }
}

macro_rules! words {
    ($($type:ident { $($word:literal => $value:ident),* $(,)? })*) => {
        $(
            impl Keyword for $type {
                const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$value)),*];
            }

            impl Keyed for $type {
                type Kind = Word<Self>;
            }
        )*
    };
}

words! {
    Sandbox { "auto" => Auto, "off" => Off }
    LogLevel { "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace }
    LoggedQueries { "off" => Off, "errors" => Errors, "all" => All }
    LogFormat { "auto" => Auto, "text" => Text, "json" => Json, "journald" => Journald }
    Policy { "fastest" => Fastest, "spread" => Spread, "ordered" => Ordered }
    OnPublic { "log" => Log, "strip" => Strip, "refuse" => Refuse }
    Rebind { "allow" => Allow, "refuse" => Refuse }
    Aaaa { "forward" => Forward, "empty" => Empty }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
