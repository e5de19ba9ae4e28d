//! The status page at `/`: one document, rendered here from the data of `/api/v1`, that needs no JavaScript.
//!
//! The script gets the same page as an event every other second ([`super::live`]) and replaces what has changed;
//! without it the browser reloads the page. Text goes through [`maud`], which escapes it: names of groups, rules and
//! servers come from the configuration, and errors from servers.
//!
//! State is always shown in words and by a sign; colour only repeats it.

mod chart;
pub(super) mod explain;
mod hottest;
mod perimeter;
mod quantity;

use maud::{DOCTYPE, Markup, html};

use self::quantity::{ago, bytes, count, counted, percent, seconds, span, utc};
use super::{
    status::{Counts, EventStatus, Finding, GroupStatus, ReloadStatus, ServerStatus, Severity, Status},
    top::Top,
};
use crate::perimeter::document::PerimeterDocument;

/// Seconds between two refreshes.
const REFRESH: u8 = 5;
/// Changes that are shown.
const CHANGES: usize = 10;

/// The whole page, as of `now` in seconds since 1970.
pub(super) fn page(status: &Status, perimeter: &PerimeterDocument, top: &Top, now: u64) -> String {
    let (sign, verdict) = verdict(status);
    let class = class(status.health);
    let refresh = html! { noscript { meta http-equiv="refresh" content=(REFRESH); } };
    let body = html! {
        header {
            p.brand { "tidegate" }
            p { "Answers on " (list(&status.listen)) ", up for " (span(status.uptime)) }
        }
        p #connection role="alert" hidden {}
        main {
            section.verdict.(class) aria-labelledby="verdict" {
                // Screen readers announce it when it changes.
                div role="status" { h1 #verdict { span.sign aria-hidden="true" { (sign) } " " (verdict) } }
                (findings(&status.findings))
            }
            section aria-labelledby="upstreams" {
                h2 #upstreams { "Upstreams" }
                @if status.groups.is_empty() { p { "The configuration names none." } }
                @for group in &status.groups { (self::group(group)) }
            }
            (changes(&status.events, now))
            (chart::last_hour(&status.minutes))
            (figures(status))
            (perimeter::perimeter(perimeter, now))
            (hottest::hottest(top))
            (chart::latency(status))
            (explain::section())
            (configuration(status, now))
            p.updated { "As of " time datetime=(utc(now)) { (utc(now)) } }
        }
        footer {
            p {
                "tidegate " (status.version) ", commit " (status.revision) ". For programs: "
                a href="/metrics" { "metrics" }
                @for document in ["status", "upstreams", "rules", "perimeter", "top", "openapi.json"] {
                    ", " a href={ "/api/v1/" (document) } { (document) }
                }
                "."
            }
        }
    };
    let build = format!("{}-{}", status.version, status.revision);
    frame(&format!("{sign} {verdict} – tidegate"), refresh, Some((&build, status.health)), body).into_string()
}

/// A document around `body`. A live one follows the daemon: it has the build that made it, and the icon of its state.
fn frame(title: &str, head: Markup, live: Option<(&str, Severity)>, body: Markup) -> Markup {
    let (build, health) = live.unzip();
    html! {
        (DOCTYPE)
        html lang="en" data-build=[build] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(icon(health.unwrap_or_default()));
                link rel="stylesheet" href="/app.css";
                script src="/app.js" defer data-refresh=(REFRESH) {}
                (head)
            }
            body { (body) }
        }
    }
}

/// The overall state in one line, with a sign.
fn verdict(status: &Status) -> (&'static str, &'static str) {
    let words = match status.health {
        Severity::Ok => "All is well",
        Severity::Note => "All is well, with something to know",
        Severity::Warning => "Something needs attention; clients are answered",
        Severity::Error => "Clients do not get the answers they should",
    };
    (sign(status.health), words)
}

const fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "✓",
        Severity::Note => "i",
        Severity::Warning => "!",
        Severity::Error => "✗",
    }
}

const fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A disc in the colour of the state, for the browser's tab.
fn icon(severity: Severity) -> String {
    let colour = match severity {
        Severity::Ok => "1a7f37",
        Severity::Note => "0969da",
        Severity::Warning => "bf8700",
        Severity::Error => "cf222e",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' \
         r='4' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

fn findings(findings: &[Finding]) -> Markup {
    html! {
        @if !findings.is_empty() {
            ul.findings {
                @for finding in findings {
                    li.(class(finding.severity)) {
                        span.sign aria-hidden="true" { (sign(finding.severity)) }
                        span { strong { (severity(finding.severity)) ":" } " " (words(&finding.text)) }
                    }
                }
            }
        }
    }
}

/// Text with commands between backticks.
fn words(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "Well",
        Severity::Note => "Note",
        Severity::Warning => "Warning",
        Severity::Error => "Error",
    }
}

/// Recent changes.
fn changes(events: &[EventStatus], now: u64) -> Markup {
    html! {
        @if !events.is_empty() {
            section aria-labelledby="changes" {
                h2 #changes { "Lately" }
                ol.changes {
                    @for event in events.iter().take(CHANGES) {
                        li.(class(event.severity)) {
                            time datetime=(utc(event.at)) title=(utc(event.at)) { (since(event.at, now)) }
                            span {
                                span.sign aria-hidden="true" { (sign(event.severity)) } " " (words(&event.text))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn since(at: u64, now: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds of a process's life")]
    let seconds = now.saturating_sub(at) as f64;
    ago(seconds)
}

/// The figures since the start.
fn figures(status: &Status) -> Markup {
    let total = |counts: &Counts| counts.values().sum::<u64>();
    let of = |counts: &Counts, label: &str| counts.get(label).copied().unwrap_or(0);
    let cache = &status.cache;
    let transports: Vec<String> = status
        .queries
        .iter()
        .filter(|(_, queries)| **queries > 0)
        .map(|(transport, queries)| format!("{} {}", count(*queries), transport.to_uppercase()))
        .collect();
    let violations = total(&status.guard);
    html! {
        section aria-labelledby="figures" {
            h2 #figures { "Since the start" }
            dl.figures {
                (figure("Queries", count(total(&status.queries)), &list(&transports)))
                (figure(
                    "Hit ratio",
                    cache.hit_ratio.map_or_else(|| "–".to_owned(), percent),
                    &format!("hits {}, misses {}", count(cache.hits), count(cache.misses)),
                ))
                (figure(
                    "Guard violations",
                    count(violations),
                    &format!(
                        "{} refused, {} stripped, {} only logged",
                        count(of(&status.guard, "refuse")),
                        count(of(&status.guard, "strip")),
                        count(of(&status.guard, "log")),
                    ),
                ))
                (figure("Answered past TTL", count(cache.stale), "no upstream answered in time"))
                (figure(
                    "Failed",
                    count(of(&status.responses, "error")),
                    &format!(
                        "{} refused to clients, {} dropped",
                        count(of(&status.responses, "refused")),
                        count(total(&status.dropped)),
                    ),
                ))
                (figure(
                    "Cache",
                    bytes(cache.bytes),
                    &format!("of {}, {}", bytes(cache.capacity), counted(cache.entries as u64, "entry")),
                ))
            }
        }
    }
}

fn figure(name: &str, value: String, more: &str) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { span.value { (value) } @if !more.is_empty() { " " span.more { (more) } } }
        }
    }
}

fn group(group: &GroupStatus) -> Markup {
    let has_tiers = group.tiers.len() > 1;
    html! {
        article.group.(class(group.health)) aria-label={ "Group " (group.name) } {
            header {
                h3 { (group.name) }
                p { span.sign aria-hidden="true" { (sign(group.health)) } " " (group.words) }
            }
            @if group.servers().next().is_some() {
                table {
                    thead {
                        tr {
                            th scope="col" { "Server" }
                            @if has_tiers { th.tier scope="col" { "Tier" } }
                            th.state scope="col" { "State" }
                            th.trend scope="col" { "Last hour" }
                            th.number scope="col" { "Round trip" }
                            th.number scope="col" { "Answered" }
                            th.number scope="col" { "Failed" }
                            th.number scope="col" { "Last answer" }
                        }
                    }
                    tbody {
                        @for (tier, servers) in group.tiers.iter().enumerate() {
                            @for server in servers { (self::server(server, has_tiers.then_some((tier, group.tier)))) }
                        }
                    }
                }
            }
        }
    }
}

/// One row, with its tier and the tier in use if there are several.
fn server(server: &ServerStatus, tier: Option<(usize, usize)>) -> Markup {
    let health = health(server);
    let sent: u64 = server.queries.values().sum();
    let answered = server.queries.get("ok").copied().unwrap_or(0);
    let failed = sent.saturating_sub(answered);
    html! {
        tr.(class(health)) {
            th scope="row" {
                (server.server)
                @let path = path(server);
                @if !path.is_empty() { " " span.more { (path) } }
            }
            @if let Some((tier, in_use)) = tier {
                td data-label="Tier" {
                    @if tier == 0 { "preferred" } @else { "backup " (tier) }
                    @if tier == in_use { ", in use" }
                }
            }
            td data-label="State" {
                span.sign aria-hidden="true" { (sign(health)) } " " (server.words)
                @if !server.loops_for.is_empty() { "; no queries of rule " (list(&server.loops_for)) }
            }
            td data-label="Last hour" { (chart::server_hour(&server.history)) }
            td.number data-label="Round trip" { (server.rtt.map_or_else(|| "–".to_owned(), seconds)) }
            td.number data-label="Answered" { (count(answered)) }
            td.number data-label="Failed" { (count(failed)) }
            td.number data-label="Last answer" { (server.last_answer.map_or_else(|| "never".to_owned(), ago)) }
        }
    }
}

fn health(server: &ServerStatus) -> Severity {
    match &*server.state {
        _ if server.drained || !server.judged => Severity::Note,
        "up" if server.loops_for.is_empty() => Severity::Ok,
        "down" => Severity::Error,
        _ => Severity::Warning,
    }
}

/// The path to the server, if it is more than its address.
fn path(server: &ServerStatus) -> String {
    let source = server.source.as_ref().map(|source| format!("from {source}"));
    let device = server.device.as_ref().map(|device| format!("by {device}"));
    let mark = (server.mark != 0).then(|| format!("mark {}", server.mark));
    [source, device, mark].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn configuration(status: &Status, now: u64) -> Markup {
    let configuration = &status.configuration;
    html! {
        section aria-labelledby="configuration" {
            h2 #configuration { "Configuration" }
            p { "In force: " code { (configuration.hash) } }
            @match &configuration.last_reload {
                None => { p { "Not reloaded since the start." } }
                Some(reload) => { (self::reload(reload, now)) }
            }
        }
    }
}

fn reload(reload: &ReloadStatus, now: u64) -> Markup {
    html! {
        p.(if reload.success { "ok" } else { "error" }) {
            span.sign aria-hidden="true" { (if reload.success { "✓" } else { "✗" }) } " "
            "Last reload " (since(reload.at, now)) ", at " time datetime=(utc(reload.at)) { (utc(reload.at)) } ": "
            strong { (if reload.success { "in force" } else { "refused; the configuration before it stays in force" }) }
        }
        @if !reload.lines.is_empty() {
            // Can also be scrolled with the keyboard.
            pre tabindex="0" role="region" aria-label="What the last reload said" { (reload.lines.join("\n")) }
        }
    }
}

fn list<T: AsRef<str>>(all: &[T]) -> String {
    all.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_text_whatever_they_contain() {
        let evil = "<script>alert(1)</script>\"'&";
        let server = ServerStatus {
            server: evil.to_owned(),
            words: evil.to_owned(),
            device: Some(evil.to_owned()),
            loops_for: vec![evil.to_owned()],
            ..ServerStatus::default()
        };
        let finding = Finding {
            severity: Severity::Warning,
            kind: evil.to_owned(),
            group: None,
            server: None,
            text: format!("{evil} `{evil}`"),
        };
        let mut status = Status {
            version: evil.to_owned(),
            revision: evil.to_owned(),
            listen: vec![evil.to_owned()],
            findings: vec![finding],
            groups: vec![GroupStatus {
                name: evil.to_owned(),
                words: evil.to_owned(),
                tiers: vec![vec![server.clone()], vec![server]],
                ..GroupStatus::default()
            }],
            ..Status::default()
        };
        status.configuration.hash = evil.to_owned();
        status.configuration.last_reload =
            Some(ReloadStatus { at: 0, success: false, lines: vec![evil.to_owned(), evil.to_owned()] });
        let page = page(&status, &PerimeterDocument::default(), &Top::default(), 60);
        assert!(!page.contains("<script>") && !page.contains("alert(1)</script>"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"), "{page}");
    }

    #[test]
    fn a_page_about_nothing_yet_says_so() {
        let page = page(&Status::default(), &PerimeterDocument::default(), &Top::default(), 0);
        assert!(page.contains("All is well") && page.contains("names none") && page.contains("Not reloaded"), "{page}");
    }
}
