//! Every number of the configuration: its default, its least, its most, and where they come from; and every word.

use std::time::Duration;

use super::group::Policy;
use super::plan::{Aaaa, LogFormat, LogLevel, OnPublic, Rebind, Sandbox};

/// A number's default and bounds, both included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit<T> {
    pub(super) key: &'static str,
    pub(super) default: T,
    pub(super) least: T,
    pub(super) most: T,
}

/// The words a key may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<T: 'static> {
    pub(super) key: &'static str,
    pub(super) default: T,
    pub(super) all: &'static [(&'static str, T)],
}

impl<T: PartialEq> Words<T> {
    /// The word for `value`.
    pub(super) fn word(&self, value: &T) -> &'static str {
        self.all.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
    }
}

const fn limit<T>(key: &'static str, default: T, least: T, most: T) -> Limit<T> {
    Limit { key, default, least, most }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

/// 512 is what every client takes (RFC 6891 6.2.3); over 4096 fragments are sure.
pub(super) const UDP_PAYLOAD: Limit<u32> = limit("udp_payload", 1232, 512, 4096);
/// More threads than any one host's cores only cost memory.
pub(super) const WORKERS: Limit<u32> = limit("workers", 1, 1, 1024);
/// Stub resolvers give up at 5 s; what asks slower than that may wait a minute.
pub(super) const DEADLINE: Limit<Duration> = limit("deadline", ms(3500), ms(100), s(MINUTE));
/// Two are enough to roll a secret over (RFC 9018 5); each is a hash for a client that shows a cookie of another.
pub(super) const COOKIE_SECRETS: usize = 4;
/// A character-string of a TXT record (RFC 1035 3.3.14).
pub(super) const CHAOS: usize = 255;
/// Orchestrators kill what takes longer than an hour to stop.
pub(super) const LAMEDUCK: Limit<Duration> = limit("lameduck", s(0), s(0), s(HOUR));

/// A descriptor each; a million is what Linux gives a process at most by default (fs.nr_open).
pub(super) const TCP_CONNECTIONS: Limit<u32> = limit("tcp_connections", 4096, 1, 1 << 20);
/// As above.
pub(super) const TCP_PER_CLIENT: Limit<u32> = limit("tcp_per_client", 100, 1, 1 << 20);
/// A message id is 16 bits wide.
pub(super) const PIPELINE: Limit<u32> = limit("pipeline", 64, 1, 1 << 16);
/// RFC 7766 6.2.3 asks for seconds; a connection silent for an hour is dead.
pub(super) const TCP_IDLE: Limit<Duration> = limit("tcp_idle", s(10), ms(100), s(HOUR));
/// About 2 KiB each.
pub(super) const IN_FLIGHT: Limit<u32> = limit("in_flight", 65536, 1, 1 << 24);
/// A figure that no client reaches is as good as none.
pub(super) const CLIENT_QPS: Limit<u32> = limit("client_qps", 0, 0, 10_000_000);
/// As above.
pub(super) const CLIENT_BURST: Limit<u32> = limit("client_burst", 0, 0, 10_000_000);

/// Under a mebibyte (but for 0, off) the shards hold nothing; a tebibyte is beyond any use.
pub(super) const CACHE_SIZE: Limit<u64> = limit("size", 128 * MIB, MIB, 1 << 40);
/// Keeping answers past their TTL for long breaks fail-over of what they name.
pub(super) const MIN_TTL: Limit<Duration> = limit("min_ttl", s(0), s(0), s(HOUR));
/// RFC 8767 4 caps at a week.
pub(super) const MAX_TTL: Limit<Duration> = limit("max_ttl", s(DAY), s(1), s(7 * DAY));
/// RFC 2308 5: one to three hours are sensible, over a day is problematic.
pub(super) const NEGATIVE_TTL: Limit<Duration> = limit("negative_ttl", s(15 * MINUTE), s(0), s(DAY));
/// RFC 2308 5 would not keep them at all, so not for long.
pub(super) const NO_SOA_TTL: Limit<Duration> = limit("no_soa_ttl", s(15), s(0), s(HOUR));
/// RFC 9520 3.2: at least a second, at most five minutes.
pub(super) const FAILURE_TTL: Limit<Duration> = limit("failure_ttl", s(2), s(1), s(5 * MINUTE));
/// RFC 8767 5 proposes one to three days.
pub(super) const STALE: Limit<Duration> = limit("stale", s(DAY), s(0), s(30 * DAY));
/// RFC 8767 5 proposes 1.8 s; it must come before the deadline.
pub(super) const STALE_AFTER: Limit<Duration> = limit("stale_after", ms(400), s(0), s(MINUTE));
/// RFC 8767 4: above zero, 30 s proposed.
pub(super) const STALE_TTL: Limit<Duration> = limit("stale_ttl", s(30), s(1), s(HOUR));

/// A fraction of queries.
pub(super) const LOG_SAMPLE: Limit<f64> = limit("sample", 1.0, 0.0, 1.0);

/// Servers of a group, over all tiers: one question may go to any of them.
pub const MOST_SERVERS: usize = 16;
/// A try's limit starts at 20 ms.
pub(super) const TIMEOUT: Limit<Duration> = limit("timeout", s(1), ms(20), s(30));
/// A question costs a bounded number of upstream messages.
pub(super) const ATTEMPTS: Limit<u32> = limit("attempts", 3, 1, 16);
/// A share of questions.
pub(super) const HEDGE_BUDGET: Limit<f64> = limit("hedge_budget", 0.03, 0.0, 1.0);
/// A figure that no server reaches is as good as none.
pub(super) const MAX_QPS: Limit<u32> = limit("max_qps", 0, 0, 10_000_000);
/// About 2 KiB each.
pub(super) const GROUP_IN_FLIGHT: Limit<u32> = limit("in_flight", 16384, 1, 1 << 24);
/// Servers close what one client has too many of.
pub(super) const CONNECTIONS: Limit<u32> = limit("connections", 1, 1, 64);
/// A descriptor each; over 40000 address-port pairs hurt a Route 53 endpoint.
pub(super) const SOURCE_PORTS: Limit<u32> = limit("source_ports", 256, 1, 16384);
/// SO_MARK is 32 bits wide.
pub(super) const MARK: Limit<u32> = limit("mark", 0, 0, u32::MAX);
/// A day is as good as never.
pub(super) const FAIL_BACK: Limit<Duration> = limit("fail_back", s(MINUTE), s(0), s(DAY));
/// Upstream queries are billed.
pub(super) const INTERVAL: Limit<Duration> = limit("interval", s(5), ms(50), s(HOUR));
/// As above.
pub(super) const INTERVAL_DOWN: Limit<Duration> = limit("interval_down", s(1), ms(50), s(HOUR));
/// More is not a verdict but a wait.
pub(super) const FALL: Limit<u32> = limit("fall", 3, 1, 100);
/// As above.
pub(super) const RISE: Limit<u32> = limit("rise", 2, 1, 100);

/// Who is served by default.
pub(super) const ALLOW: [&str; 2] = ["loopback", "private"];
/// Who sees more than metrics and health by default.
pub(super) const ADMIN_ALLOW: [&str; 1] = ["loopback"];
/// Where the control socket is by default.
pub const CONTROL_SOCKET: &str = "/run/tidegate/control.sock";

pub(super) const SANDBOX: Words<Sandbox> =
    Words { key: "sandbox", default: Sandbox::Auto, all: &[("auto", Sandbox::Auto), ("off", Sandbox::Off)] };

pub(super) const LOG_LEVEL: Words<LogLevel> = Words {
    key: "level",
    default: LogLevel::Info,
    all: &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ],
};

pub(super) const LOG_FORMAT: Words<LogFormat> = Words {
    key: "format",
    default: LogFormat::Auto,
    all: &[
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ],
};

pub(super) const POLICY: Words<Policy> = Words {
    key: "policy",
    default: Policy::Fastest,
    all: &[("fastest", Policy::Fastest), ("spread", Policy::Spread), ("ordered", Policy::Ordered)],
};

/// The default serves `--private` without `--on-public`; in a file the key must be given.
pub(super) const ON_PUBLIC: Words<OnPublic> = Words {
    key: "on_public",
    default: OnPublic::Refuse,
    all: &[("log", OnPublic::Log), ("strip", OnPublic::Strip), ("refuse", OnPublic::Refuse)],
};

pub(super) const REBIND: Words<Rebind> =
    Words { key: "rebind", default: Rebind::Allow, all: &[("allow", Rebind::Allow), ("refuse", Rebind::Refuse)] };

pub(super) const AAAA: Words<Aaaa> =
    Words { key: "aaaa", default: Aaaa::Forward, all: &[("forward", Aaaa::Forward), ("empty", Aaaa::Empty)] };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_lie_within_their_bounds() {
        for limit in [UDP_PAYLOAD, WORKERS, TCP_CONNECTIONS, TCP_PER_CLIENT, PIPELINE, IN_FLIGHT, CLIENT_QPS] {
            assert!((limit.least..=limit.most).contains(&limit.default), "{}", limit.key);
        }
        for limit in [CLIENT_BURST, ATTEMPTS, MAX_QPS, GROUP_IN_FLIGHT, CONNECTIONS, SOURCE_PORTS, MARK, FALL, RISE] {
            assert!((limit.least..=limit.most).contains(&limit.default), "{}", limit.key);
        }
        for limit in [DEADLINE, LAMEDUCK, TCP_IDLE, MIN_TTL, MAX_TTL, NEGATIVE_TTL, NO_SOA_TTL, FAILURE_TTL, STALE] {
            assert!((limit.least..=limit.most).contains(&limit.default), "{}", limit.key);
        }
        for limit in [STALE_AFTER, STALE_TTL, TIMEOUT, FAIL_BACK, INTERVAL, INTERVAL_DOWN] {
            assert!((limit.least..=limit.most).contains(&limit.default), "{}", limit.key);
        }
        for limit in [LOG_SAMPLE, HEDGE_BUDGET] {
            assert!((limit.least..=limit.most).contains(&limit.default), "{}", limit.key);
        }
        assert!((CACHE_SIZE.least..=CACHE_SIZE.most).contains(&CACHE_SIZE.default));
    }
}
