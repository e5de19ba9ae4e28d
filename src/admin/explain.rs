//! `/api/v1/explain?name=&type=&client=`: how a query would be handled, and why.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;

use super::{
    Pages,
    router::{document, refusal},
};
use crate::{
    engine::explain::Asked,
    wire::{Name, RecordType, Transport},
};

/// The query parameters, as text.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Words {
    name: Option<String>,
    #[serde(rename = "type")]
    qtype: Option<String>,
    client: Option<String>,
    transport: Option<String>,
    dnssec: Option<bool>,
    address: Option<String>,
}

/// The explanation, or 400 with what is wrong with the query.
pub(super) async fn page(
    State(pages): State<Pages>,
    words: Result<Query<Words>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let read = words.map_err(|rejection| rejection.body_text()).and_then(|Query(words)| words.read());
    match read {
        Ok((asked, addresses)) => document(&(pages.explain)(&asked, &addresses)),
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

impl Words {
    fn read(&self) -> Result<(Asked, Vec<IpAddr>), String> {
        let name = self.name.as_deref().ok_or("which name? Write /api/v1/explain?name=www.example&type=A")?;
        let name: Name = name.parse().map_err(|error| format!("\"{name}\" is no name: {error}"))?;
        let qtype = match self.qtype.as_deref() {
            Some(text) => text.parse().map_err(|_| format!("\"{text}\" is no record type"))?,
            None => RecordType::A,
        };
        let client = match self.client.as_deref() {
            Some(text) => address(text)?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let transport = match self.transport.as_deref() {
            Some(text) => transport(text)?,
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
    fn what_is_wrong_with_a_query_is_told() {
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
