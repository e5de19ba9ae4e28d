//! `/api/v1/explain?name=&type=&client=`: how a query would be handled, and why; `/explain` says it to people, and
//! `/api/v1/cache/NAME?type=A` gives only what the cache has.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Pages,
    router::{document, refusal},
};
use crate::{
    engine::explain::{
        Asked,
        document::{CacheEntry, Explanation},
        text::text,
    },
    wire::{Name, RecordType, Transport},
};

/// The query parameters, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Words {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) qtype: Option<String>,
    pub(super) client: Option<String>,
    transport: Option<String>,
    dnssec: Option<bool>,
    pub(super) address: Option<String>,
}

type Read = Result<Query<Words>, QueryRejection>;

/// The cache's entries for a name and a type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheEntries {
    /// The name, absolute and in lower case.
    pub name: String,
    /// The record type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The entries that a client may be answered from.
    pub entries: Vec<CacheEntry>,
}

/// The explanation, or 400 with what is wrong with the query.
pub(super) async fn page(State(pages): State<Pages>, words: Read) -> Response {
    match explained(&pages, words.map(|Query(words)| words)) {
        Ok(explanation) => document(&explanation),
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

/// The same for people, with the form to ask again.
pub(super) async fn form(State(pages): State<Pages>, words: Read) -> Response {
    let filled = words.as_ref().map(|Query(words)| words.clone()).unwrap_or_default();
    let is_empty = filled == Words::default() && words.is_ok();
    let explanation = (!is_empty).then(|| explained(&pages, words.map(|Query(words)| words)).map(|one| text(&one)));
    let status = if matches!(explanation, Some(Err(_))) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    (status, Html(super::page::explain::page(&filled, explanation.as_ref()))).into_response()
}

/// What the cache has for a name, or 400 with what is wrong with the query.
pub(super) async fn cache(State(pages): State<Pages>, Path(name): Path<String>, words: Read) -> Response {
    let words = words.map(|Query(words)| Words { name: Some(name), ..words });
    match explained(&pages, words) {
        Ok(Explanation { name, qtype, steps, .. }) => {
            let entries = steps.into_iter().next().unwrap_or_default().cache;
            document(&CacheEntries { name, qtype, entries })
        }
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

fn explained(pages: &Pages, words: Result<Words, QueryRejection>) -> Result<Explanation, String> {
    let (asked, addresses) = words.map_err(|rejection| rejection.body_text())?.read()?;
    Ok((pages.explain)(&asked, &addresses))
}

impl Words {
    fn read(&self) -> Result<(Asked, Vec<IpAddr>), String> {
        // A form sends its empty fields too.
        let given = |field: &'_ Option<String>| field.clone().filter(|text| !text.is_empty());
        let name = given(&self.name).ok_or("which name? Write /api/v1/explain?name=www.example&type=A")?;
        let name: Name = name.parse().map_err(|error| format!("\"{name}\" is no name: {error}"))?;
        let qtype = match given(&self.qtype) {
            Some(text) => text.parse().map_err(|_| format!("\"{text}\" is no record type"))?,
            None => RecordType::A,
        };
        let client = match given(&self.client) {
            Some(text) => address(&text)?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let transport = match given(&self.transport) {
            Some(text) => transport(&text)?,
            None => Transport::Udp,
        };
        let texts = self.address.as_deref().unwrap_or_default().split(',').filter(|text| !text.is_empty());
        let addresses = texts.map(address).collect::<Result<_, _>>()?;
        Ok((Asked { name, qtype, client, transport, do_bit: self.dnssec.unwrap_or_default() }, addresses))
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no address"))
}

fn transport(text: &str) -> Result<Transport, String> {
    let found = Transport::ALL.into_iter().find(|transport| transport.label() == text);
    found.ok_or_else(|| {
        let all = Transport::ALL.map(Transport::label).join(", ");
        format!("\"{text}\" is no transport; there are {all}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_the_parameters_are_explained() {
        let words = |name: &str| Words { name: Some(name.to_owned()), ..Words::default() };
        let (asked, addresses) = words("WWW.Example.").read().unwrap();
        assert_eq!((asked.name.to_string().as_str(), asked.qtype), ("www.example.", RecordType::A));
        assert_eq!((asked.client.to_string().as_str(), asked.transport), ("127.0.0.1", Transport::Udp));
        assert!(addresses.is_empty());
        for (words, why) in [
            (Words::default(), "which name?"),
            (words("a..b"), "\"a..b\" is no name"),
            (Words { qtype: Some("B".into()), ..words("a") }, "\"B\" is no record type"),
            (Words { client: Some("here".into()), ..words("a") }, "\"here\" is no address"),
            (Words { transport: Some("sctp".into()), ..words("a") }, "there are udp, tcp, tls, https, quic"),
            (Words { address: Some("10.0.0.1,x".into()), ..words("a") }, "\"x\" is no address"),
        ] {
            let error = words.read().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
