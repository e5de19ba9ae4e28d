//! The box that explains a query, on the status page and on a page of its own, which needs no JavaScript.

use maud::{Markup, PreEscaped, html};

use super::frame;
use crate::admin::explain::Words;

/// Record types to choose from.
const TYPES: [&str; 12] = ["A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT", "DS", "CAA"];

/// The page at `/explain`: the form as it was filled in, and the explanation, or why there is none.
pub(in crate::admin) fn page(words: &Words, explanation: Option<&Result<String, String>>) -> String {
    let body = html! {
        header { p.brand { a href="/" { "tidegate" } } p { "Explains what would be done with a query" } }
        main {
            section aria-labelledby="explain" {
                h1 #explain { "Explain a query" }
                (form(words))
                (result(explanation))
            }
        }
    };
    frame("Explain – tidegate", html! {}, None, body).into_string()
}

/// The section of the status page. The form waits for the script: a page that reloads itself would lose what is typed.
pub(super) fn section() -> Markup {
    html! {
        section aria-labelledby="explain" data-keep {
            h2 #explain { "Explain a query" }
            noscript { p { a href="/explain" { "What would be done with a query, and why?" } } }
            div data-scripted hidden { (form(&Words::default())) }
            (result(None))
        }
    }
}

fn form(words: &Words) -> Markup {
    let chosen = words.qtype.as_deref().unwrap_or("A").to_uppercase();
    let field = |id: &str, label: &str, value: Option<&String>, more: &str| {
        html! {
            div {
                label for=(id) { (label) }
                input id=(id) name=(id) value=[value] placeholder=(more) spellcheck="false" autocapitalize="none"
                    autocomplete="off" required[id == "name"];
            }
        }
    };
    html! {
        form.explain action="/explain" method="get" {
            (field("name", "Name", words.name.as_ref(), "s3.eu-west-1.amazonaws.com"))
            div {
                label for="type" { "Type" }
                select #type name="type" {
                    @for one in TYPES { option selected[one == chosen] { (one) } }
                    @if !TYPES.contains(&&*chosen) { option selected { (chosen) } }
                }
            }
            (field("client", "Client", words.client.as_ref(), "127.0.0.1"))
            (field("address", "If the answer were", words.address.as_ref(), "any address"))
            button { "Explain" }
        }
    }
}

fn result(explanation: Option<&Result<String, String>>) -> Markup {
    html! {
        div #explanation role="status" {
            @match explanation {
                None => {}
                // Can also be scrolled with the keyboard.
                Some(Ok(text)) => { pre tabindex="0" role="region" aria-label="Explanation" { (text) } }
                Some(Err(why)) => { p.error { span.sign aria-hidden="true" { (PreEscaped("✗")) } " " (why) } }
            }
        }
    }
}
