//! The screen of `tidegate top`, as lines of text.

use super::{
    super::duration::{rough, utc},
    rates::Rates,
};
use crate::{
    admin::{
        status::{ServerStatus, Severity, Status},
        top::Top,
    },
    plural::Plural,
};

/// Number of changes of state shown.
const EVENTS: usize = 8;
/// Number of names, clients and failures shown.
const HOTTEST: usize = 5;

/// The screen, most important lines first: a small window shows only the beginning.
pub(super) fn text(status: &Status, rates: &Rates, top: &Top, now: u64) -> String {
    let mut lines = vec![headline(status, now)];
    let wrong = status.findings.iter().filter(|finding| finding.severity != Severity::Ok);
    lines.extend(wrong.map(|finding| format!("  {:<8} {}", finding.severity.to_string(), finding.text)));
    lines.push(String::new());
    lines.extend(traffic(status, rates));
    lines.push(String::new());
    lines.extend(servers(status, rates));
    lines.extend(hottest(top));
    if !status.events.is_empty() {
        lines.push(String::new());
        lines.extend(status.events.iter().take(EVENTS).map(|event| {
            let ago = rough(now.saturating_sub(event.at));
            format!("{:>8} ago  {}", ago, event.text)
        }));
    }
    lines.join("\n") + "\n"
}

fn headline(status: &Status, now: u64) -> String {
    let health = match status.health {
        Severity::Ok => "all is well",
        Severity::Note => "as it was ordered",
        Severity::Warning => "something is wrong",
        Severity::Error => "clients do not get their answers",
    };
    let (up, time) = (rough(status.uptime), utc(now));
    format!("tidegate {}, up {up}, {} workers, {time}: {health}", status.version, status.workers)
}

fn traffic(status: &Status, rates: &Rates) -> Vec<String> {
    let cache = &status.cache;
    // An empty sum of floats is -0.0.
    let sum = |rates: &std::collections::BTreeMap<String, f64>| rates.values().sum::<f64>() + 0.0;
    let stale = rates.responses.get("stale").copied().unwrap_or(0.0);
    let hits = rates.hit_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", 100.0 * ratio));
    let mut lines = vec![
        row("queries", sum(&rates.queries), &rates.queries),
        row("responses", sum(&rates.responses), &rates.responses),
        row("dropped", sum(&rates.dropped), &rates.dropped),
    ];
    if status.guard.values().any(|&count| count > 0) {
        lines.push(row("guard", sum(&rates.guard), &rates.guard));
    }
    lines.push(format!(
        "hits      {hits:>10}    stale {stale:.1}/s, {}, {} of {} MiB",
        Plural(cache.entries, "entry"),
        cache.bytes.div_ceil(1 << 20),
        cache.capacity.div_ceil(1 << 20)
    ));
    lines.push(format!(
        "latency   {:>10}    99th percentile {}; {} in flight, {}",
        time(rates.median),
        time(rates.p99),
        status.in_flight,
        Plural(status.connections, "connection")
    ));
    lines
}

fn row(what: &str, total: f64, parts: &std::collections::BTreeMap<String, f64>) -> String {
    let parts: Vec<String> =
        parts.iter().filter(|(_, rate)| **rate > 0.0).map(|(label, rate)| format!("{label} {rate:.1}")).collect();
    format!("{what:<10}{:>10}    {}", format!("{total:.1}/s"), parts.join(", ")).trim_end().to_owned()
}

/// An upper bound of a time: buckets allow no more precision.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("<{:.0} us", 1e6 * seconds),
        Some(seconds) if seconds < 1.0 => format!("<{:.0} ms", 1e3 * seconds),
        Some(seconds) => format!("<{seconds:.0} s"),
    }
}

fn servers(status: &Status, rates: &Rates) -> Vec<String> {
    let all = || status.groups.iter().flat_map(|group| group.servers().map(move |server| (group, server)));
    let wide = |header: &str, of: &dyn Fn(&str, &ServerStatus) -> usize| {
        all().map(|(group, server)| of(&group.name, server)).max().unwrap_or(0).max(header.len())
    };
    let (group_width, server_width) =
        (wide("upstream", &|group, _| group.len()), wide("server", &|_, server| server.server.len()));
    let mut lines = vec![format!(
        "{:<group_width$} tier {:<server_width$} {:>10} {:>10} {:>9} {:>9}  state",
        "upstream", "server", "queries/s", "failed/s", "in flight", "rtt"
    )];
    for group in &status.groups {
        for (tier, servers) in group.tiers.iter().enumerate() {
            for server in servers {
                let rates = rates.of(&group.name, &server.server).cloned().unwrap_or_default();
                let rtt = server.rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{:.1} ms", 1000.0 * rtt));
                let mark = if tier == group.tier { '*' } else { ' ' };
                lines.push(format!(
                    "{:<group_width$} {tier:>3}{mark} {:<server_width$} {:>10.1} {:>10.1} {:>9} {rtt:>9}  {}",
                    group.name, server.server, rates.queries, rates.failed, server.in_flight, server.words
                ));
            }
        }
    }
    lines
}

fn hottest(top: &Top) -> Vec<String> {
    if top.queries == 0 {
        return Vec::new();
    }
    let row = |of: &str, queries: u64, share: f64| format!("{queries:>10} {:>6.1} %  {of}", 100.0 * share);
    let mut lines = vec![String::new(), format!("hottest names of the last {}", rough(top.window))];
    lines.extend(top.names.iter().take(HOTTEST).map(|name| row(&name.name, name.queries, name.share)));
    lines.extend([String::new(), "busiest clients".to_owned()]);
    lines.extend(top.clients.iter().take(HOTTEST).map(|client| row(&client.client, client.queries, client.share)));
    if !top.failures.is_empty() {
        lines.extend([String::new(), "failures".to_owned()]);
        lines.extend(top.failures.iter().take(HOTTEST).map(|failure| {
            let reason = failure.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
            format!("{:>10}  {}  {}{reason}", failure.queries, failure.name, failure.rcode)
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{
        status::{EventStatus, Finding, GroupStatus},
        top::{TopClient, TopFailure, TopName},
    };

    fn hottest_names() -> Top {
        let failure = TopFailure {
            name: "bad.example.".to_owned(),
            rcode: "SERVFAIL".to_owned(),
            reason: Some("Blocked".to_owned()),
            queries: 3,
        };
        Top {
            window: 120,
            queries: 1000,
            sampled: 1000,
            names: vec![TopName { name: "hot.example.".to_owned(), queries: 900, share: 0.9 }],
            clients: vec![TopClient { client: "10.0.0.1".to_owned(), queries: 1000, share: 1.0 }],
            failures: vec![failure],
        }
    }

    #[test]
    fn a_screen_has_what_is_wrong_first_then_rates_then_servers() {
        let server = ServerStatus {
            server: "10.20.1.10".to_owned(),
            words: "up".to_owned(),
            rtt: Some(0.0123),
            ..ServerStatus::default()
        };
        let group = GroupStatus { name: "vpc".to_owned(), tiers: vec![vec![server]], ..GroupStatus::default() };
        let finding = Finding {
            severity: Severity::Warning,
            kind: "tier".to_owned(),
            group: None,
            server: None,
            text: "upstream vpc: on tier 1".to_owned(),
        };
        let event = EventStatus {
            at: 940,
            severity: Severity::Ok,
            text: "over: group down".to_owned(),
            ..EventStatus::default()
        };
        let mut status = Status {
            version: "0.1.0".to_owned(),
            workers: 2,
            uptime: 60,
            health: Severity::Warning,
            findings: vec![finding],
            groups: vec![group],
            events: vec![event],
            ..Status::default()
        };
        status.cache.capacity = 128 << 20;
        let mut rates = Rates { hit_ratio: Some(0.981), median: Some(0.00002), ..Rates::default() };
        rates.queries.extend([("udp".to_owned(), 1200.5), ("tcp".to_owned(), 0.0)]);
        let expected = "\
tidegate 0.1.0, up 60 s, 2 workers, 1970-01-01 00:16:40 UTC: something is wrong
  warning  upstream vpc: on tier 1

queries     1200.5/s    udp 1200.5
responses      0.0/s
dropped        0.0/s
hits          98.1 %    stale 0.0/s, 0 entries, 0 of 128 MiB
latency       <20 us    99th percentile -; 0 in flight, 0 connections

upstream tier server      queries/s   failed/s in flight       rtt  state
vpc        0* 10.20.1.10        0.0        0.0         0   12.3 ms  up

hottest names of the last 2 min
       900   90.0 %  hot.example.

busiest clients
      1000  100.0 %  10.0.0.1

failures
         3  bad.example.  SERVFAIL, Blocked

    60 s ago  over: group down
";
        assert_eq!(text(&status, &rates, &hottest_names(), 1000), expected);
    }
}
