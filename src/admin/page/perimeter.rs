//! Which AWS names upstreams answered privately and which not, from `/api/v1/perimeter`.

use maud::{Markup, html};

use super::{quantity::count, since};
use crate::{
    config::Remedy,
    perimeter::{
        NameVerdict,
        document::{PerimeterDocument, PerimeterName},
    },
};

/// Names in the table.
const SHOWN: usize = 20;

/// Empty if no name of a guarded rule was asked for.
pub(super) fn perimeter(document: &PerimeterDocument, now: u64) -> Markup {
    let names = &document.names;
    let with = |verdict: NameVerdict| count(names.iter().filter(|name| name.verdict == verdict).count() as u64);
    let mut open: Vec<&PerimeterName> = names.iter().filter(|name| is_open(name)).collect();
    open.sort_by_key(|name| std::cmp::Reverse(name.last_seen));
    html! {
        @if !names.is_empty() {
            section aria-labelledby="perimeter" {
                h2 #perimeter { "Perimeter" }
                p {
                    "Names that upstreams answered for guarded rules: " (with(NameVerdict::Private)) " privately, "
                    (with(NameVerdict::Public)) " publicly, " (with(NameVerdict::Unreachable)) " with addresses that clients do not reach, "
                    (with(NameVerdict::Absent)) " without an address."
                }
                @if !open.is_empty() { (table(&open, now)) }
                @if open.len() > SHOWN { p.more { "And " (count((open.len() - SHOWN) as u64)) " more." } }
            }
        }
    }
}

fn is_open(name: &PerimeterName) -> bool {
    matches!(name.verdict, NameVerdict::Public | NameVerdict::Unreachable) && !name.excepted
}

fn table(open: &[&PerimeterName], now: u64) -> Markup {
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
                        td data-label="Address" { @match name.address { Some(address) => (address), None => "–" } }
                        td data-label="Rule" { (name.rule) }
                        td.number data-label="Clients" { (count(name.clients.into())) }
                        td.number data-label="Last" { (since(name.last_seen, now)) }
                        td data-label="What would make it private" { (remedy(name.remedy.as_ref())) }
                    }
                }
            }
        }
    }
}

fn remedy(remedy: Option<&Remedy>) -> String {
    match remedy {
        Some(Remedy::Endpoint(service)) => format!("an interface endpoint for {service}, with private DNS"),
        Some(Remedy::RegionalName(service)) => format!("the regional name of {service}"),
        Some(Remedy::PublicOnly) => "nothing: it is public alone".to_owned(),
        Some(Remedy::Unknown) | None => "not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn document(names: Vec<PerimeterName>) -> PerimeterDocument {
        PerimeterDocument { names, ..PerimeterDocument::default() }
    }

    #[test]
    fn only_open_names_are_listed_the_latest_first() {
        let name = |name: &str, verdict: NameVerdict, excepted: bool, last_seen: u64| PerimeterName {
            name: name.to_owned(),
            verdict,
            outcome: None,
            address: Some([203, 0, 113, 9].into()),
            rule: "<aws>".to_owned(),
            excepted,
            answers: BTreeMap::new(),
            clients: 2,
            first_seen: 0,
            last_seen,
            remedy: Some(Remedy::Endpoint("sts".to_owned())),
        };
        let names = vec![
            name("old.example.", NameVerdict::Public, false, 10),
            name("new.example.", NameVerdict::Public, false, 90),
            name("spared.example.", NameVerdict::Public, true, 90),
            name("well.example.", NameVerdict::Private, false, 90),
            name("lattice.example.", NameVerdict::Unreachable, false, 50),
        ];
        let text = perimeter(&document(names), 100).into_string();
        assert!(
            text.contains("1 privately, 3 publicly, 1 with") && text.contains("an interface endpoint for sts"),
            "{text}"
        );
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("new.example") < at("lattice.example") && at("lattice.example") < at("old.example"), "{text}");
        assert!(text.contains("&lt;aws&gt;"), "{text}");
        assert!(!text.contains("spared.example") && !text.contains("well.example"), "{text}");
        assert_eq!(perimeter(&document(Vec::new()), 100).into_string(), "");
    }
}
