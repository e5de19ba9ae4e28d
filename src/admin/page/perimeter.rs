//! Which AWS names upstreams answered privately and which not, from `/api/v1/perimeter`.

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{quantity::count, since};

/// Names in the table.
const SHOWN: usize = 20;

/// The parts of the document that the page shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    names: Vec<NameRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NameRow {
    name: String,
    verdict: String,
    address: Option<String>,
    rule: String,
    excepted: bool,
    clients: u64,
    last_seen: u64,
    remedy: Option<RemedyRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RemedyRow {
    kind: String,
    service: String,
}

/// Empty if no name of a guarded rule was asked for.
pub(super) fn perimeter(document: &Value, now: u64) -> Markup {
    let Document { names } = Document::deserialize(document).unwrap_or_default();
    let with = |verdict: &str| count(names.iter().filter(|name| name.verdict == verdict).count() as u64);
    let mut open: Vec<&NameRow> = names.iter().filter(|name| is_open(name)).collect();
    open.sort_by_key(|name| std::cmp::Reverse(name.last_seen));
    html! {
        @if !names.is_empty() {
            section aria-labelledby="perimeter" {
                h2 #perimeter { "Perimeter" }
                p {
                    "Names that upstreams answered for guarded rules: " (with("private")) " privately, "
                    (with("public")) " publicly, " (with("unreachable")) " with addresses that clients do not reach, "
                    (with("absent")) " without an address."
                }
                @if !open.is_empty() { (table(&open, now)) }
                @if open.len() > SHOWN { p.more { "And " (count((open.len() - SHOWN) as u64)) " more." } }
            }
        }
    }
}

fn is_open(name: &NameRow) -> bool {
    matches!(&*name.verdict, "public" | "unreachable") && !name.excepted
}

fn table(open: &[&NameRow], now: u64) -> Markup {
    html! {
        table.perimeter {
            thead {
                tr {
                    th scope="col" { "Not private" }
                    th scope="col" { "Address" }
                    th scope="col" { "Rule" }
                    th.number scope="col" { "Clients" }
                    th.number scope="col" { "Last" }
                    th.state scope="col" { "What would make it private" }
                }
            }
            tbody {
                @for name in open.iter().take(SHOWN) {
                    tr.warning {
                        th scope="row" { span.sign aria-hidden="true" { "!" } " " (name.name.trim_end_matches('.')) }
                        td data-label="Address" { (name.address.as_deref().unwrap_or("–")) }
                        td data-label="Rule" { (name.rule) }
                        td.number data-label="Clients" { (count(name.clients)) }
                        td.number data-label="Last" { (since(name.last_seen, now)) }
                        td data-label="What would make it private" { (remedy(name.remedy.as_ref())) }
                    }
                }
            }
        }
    }
}

fn remedy(remedy: Option<&RemedyRow>) -> String {
    match remedy.map(|remedy| (&*remedy.kind, &remedy.service)) {
        Some(("endpoint", service)) => format!("an interface endpoint for {service}, with private DNS"),
        Some(("regional-name", service)) => format!("the regional name of {service}"),
        Some(("public-only", _)) => "nothing: it is public alone".to_owned(),
        _ => "not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_open_names_are_listed_the_latest_first() {
        let name = |name: &str, verdict: &str, excepted: bool, last_seen: u64| {
            json!({ "name": name, "verdict": verdict, "address": "203.0.113.9", "rule": "<aws>", "excepted": excepted,
                    "clients": 2, "last_seen": last_seen, "remedy": { "kind": "endpoint", "service": "sts" } })
        };
        let names = [
            name("old.example.", "public", false, 10),
            name("new.example.", "public", false, 90),
            name("spared.example.", "public", true, 90),
            name("well.example.", "private", false, 90),
        ];
        let text = perimeter(&json!({ "names": names }), 100).into_string();
        assert!(
            text.contains("1 privately, 3 publicly, 0 with") && text.contains("an interface endpoint for sts"),
            "{text}"
        );
        assert!(text.find("new.example") < text.find("old.example") && text.contains("&lt;aws&gt;"), "{text}");
        assert!(!text.contains("spared.example") && !text.contains("well.example"), "{text}");
        assert_eq!(perimeter(&json!({ "names": [] }), 100).into_string(), "");
    }
}
