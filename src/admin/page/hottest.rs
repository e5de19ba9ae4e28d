//! The hottest names, the busiest clients and the names that fail most.

use maud::{Markup, html};

use super::{
    chart,
    quantity::{count, counted, percent, span},
};
use crate::admin::top::Top;

/// Rows of each table.
const SHOWN: usize = 8;

/// Empty if nothing was asked lately.
pub(super) fn hottest(top: &Top) -> Markup {
    html! {
        @if top.queries > 0 {
            section aria-labelledby="hottest" {
                h2 #hottest { "Hottest" }
                p {
                    "The last " (span(top.window.max(1))) ": " (counted(top.queries, "query"))
                    @if top.sampled < top.queries { ", estimated from a sample of " (count(top.sampled)) }
                    "."
                }
                div.side-by-side {
                    (shares("Names", "Name", top.names.iter().map(|name| (breakable(&name.name), name.queries, name.share))))
                    (shares("Clients", "Client", top.clients.iter().map(|one| (html! { (one.client) }, one.queries, one.share))))
                    (failures(top))
                }
            }
        }
    }
}

fn shares(title: &str, of: &str, rows: impl Iterator<Item = (Markup, u64, f64)>) -> Markup {
    html! {
        div {
            h3 { (title) }
            table.plain {
                thead { tr { th scope="col" { (of) } th.number scope="col" { "Queries" } th.number scope="col" { "Share" } } }
                tbody {
                    @for (name, queries, share) in rows.take(SHOWN) {
                        tr {
                            th scope="row" { (name) (chart::share_bar(share)) }
                            td.number data-label="Queries" { (count(queries)) }
                            td.number data-label="Share" { (percent(share)) }
                        }
                    }
                }
            }
        }
    }
}

fn failures(top: &Top) -> Markup {
    html! {
        div {
            h3 { "Failures" }
            @if top.failures.is_empty() {
                p.ok { span.sign aria-hidden="true" { "✓" } " none" }
            } @else {
                table.plain {
                    thead { tr { th scope="col" { "Name" } th.why scope="col" { "Why" } th.number scope="col" { "Queries" } } }
                    tbody {
                        @for failure in top.failures.iter().take(SHOWN) {
                            tr {
                                th scope="row" { (breakable(&failure.name)) }
                                td data-label="Why" {
                                    (failure.rcode) @if let Some(reason) = &failure.reason { ", " (reason) }
                                }
                                td.number data-label="Queries" { (count(failure.queries)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A name as people write it, which may be broken behind a dot; the root stays a dot.
fn breakable(name: &str) -> Markup {
    let name = name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name);
    let mut labels = name.split_inclusive('.');
    html! { (labels.next().unwrap_or_default()) @for label in labels { wbr; (label) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::top::{TopClient, TopFailure, TopName};

    #[test]
    fn names_clients_and_failures_are_shown_and_estimates_said_to_be_so() {
        let top = Top {
            window: 65,
            queries: 1_000,
            sampled: 100,
            names: vec![TopName { name: "hot.<b>.".into(), queries: 900, share: 0.9 }],
            clients: vec![TopClient { client: "10.0.0.1".into(), queries: 1_000, share: 1.0 }],
            failures: vec![TopFailure {
                name: ".".into(),
                rcode: "SERVFAIL".into(),
                reason: Some("Blocked".into()),
                queries: 3,
            }],
        };
        let text = hottest(&top).into_string();
        assert!(text.contains("The last 1 min 5 s: 1,000 queries, estimated from a sample of 100."), "{text}");
        assert!(
            text.contains("hot.<wbr>&lt;b&gt;<svg") && text.contains("90.0 %") && text.contains("10.0.0.1"),
            "{text}"
        );
        assert!(text.contains(">.</th>") && text.contains("SERVFAIL, Blocked"), "{text}");
        let exact = hottest(&Top { sampled: 1_000, failures: Vec::new(), ..top }).into_string();
        assert!(!exact.contains("estimated") && exact.contains("none"), "{exact}");
        assert_eq!(hottest(&Top::default()).into_string(), "");
    }
}
