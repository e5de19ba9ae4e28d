//! The encrypted listeners: addresses, certificate and key; and the settings for PROXY headers and rate limits.

use std::num::NonZeroU32;

use super::{
    super::{
        address::Endpoint,
        file::{LimitsSection, ServerSection, Text, Texts, TlsSection},
        plan::{Certificate, ClientLimit, Encryption, HttpsListen},
        source::Place,
    },
    Builder, section,
};
use crate::{
    clock, files,
    system_error::SystemError,
    tls::{CertificateFacts, KeyPair},
};

/// DNS over TLS (RFC 7858 3.1), and over QUIC (RFC 9250 4.1.1).
const DNS_PORT: u16 = 853;
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

impl Builder<'_> {
    /// The listeners of `tls` or `quic`.
    pub(super) fn encrypted(&mut self, server: &ServerSection, key: &str) -> Vec<Endpoint> {
        let tls = section(server.tls.as_ref());
        let texts = if key == "tls" { tls.tls.as_ref() } else { tls.quic.as_ref() };
        let mut endpoints = Vec::new();
        for text in texts.iter().flat_map(|texts| &texts.value) {
            let Some(endpoint) = self.listener(text, key, DNS_PORT) else { continue };
            self.once(&mut endpoints, endpoint, text, key);
        }
        self.refuse_plain_port(server, key, &endpoints, texts);
        endpoints
    }

    pub(super) fn https(&mut self, server: &ServerSection) -> Vec<HttpsListen> {
        let tls = section(server.tls.as_ref());
        let has_balancers = server.proxy_protocol.as_ref().is_some_and(|texts| !texts.value.is_empty());
        let mut listen: Vec<HttpsListen> = Vec::new();
        let mut endpoints = Vec::new();
        for text in tls.https.iter().flat_map(|texts| &texts.value) {
            let (rest, encryption, port) = match text.value.split_once("://") {
                Some(("http", rest)) => (rest, Encryption::InFront, HTTP_PORT),
                Some(("https", rest)) => (rest, Encryption::Here, HTTPS_PORT),
                _ => (text.value.as_str(), Encryption::Here, HTTPS_PORT),
            };
            if encryption == Encryption::InFront && !has_balancers {
                let message =
                    format!("https \"{}\" is plain HTTP, and proxy_protocol in [server] is empty", text.value);
                let help = "name the proxy's network in proxy_protocol: its PROXY v2 header says who the client is";
                self.problem_with_help(&text.place, message, help);
                continue;
            }
            let bare = Text::new(rest.trim_end_matches('/').to_owned(), text.place);
            let Some(endpoint) = self.listener(&bare, "https", port) else { continue };
            if self.once(&mut endpoints, endpoint.clone(), text, "https") {
                listen.push(HttpsListen { endpoint, encryption });
            }
        }
        self.refuse_plain_port(server, "https", &endpoints, tls.https.as_ref());
        listen
    }

    fn once(&mut self, endpoints: &mut Vec<Endpoint>, endpoint: Endpoint, text: &Text, key: &str) -> bool {
        let is_new = endpoint.port == 0 || !endpoints.contains(&endpoint);
        if is_new {
            endpoints.push(endpoint);
        } else {
            self.problem(&text.place, format!("{key} names {endpoint} twice"));
        }
        is_new
    }

    /// Refuses an address and port that `listen`, or another list over the same protocol, already has.
    fn refuse_plain_port(&mut self, server: &ServerSection, key: &str, endpoints: &[Endpoint], texts: Option<&Texts>) {
        let Some(texts) = texts else { return };
        let tls = section(server.tls.as_ref());
        let mut others = vec![("listen", server.listen.as_ref(), 53)];
        if key == "https" {
            others.push(("tls", tls.tls.as_ref(), DNS_PORT));
        }
        for (other, listen, port) in others {
            let taken = |endpoint: &Endpoint| {
                let parse = |text: &Text| Endpoint::parse(&text.value, port).ok();
                listen.is_some_and(|listen| listen.value.iter().filter_map(parse).any(|known| known == *endpoint))
            };
            if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.port != 0 && taken(endpoint)) {
                self.problem(&texts.place, format!("{key} names {endpoint}, and so does {other}"));
            }
        }
    }

    /// Reads chain and key, if an encrypted listener needs them.
    pub(super) fn certificate(&mut self, server: &ServerSection) -> Option<Certificate> {
        let located = server.tls.as_ref()?;
        let tls = &located.value;
        let given = |text: &Option<Text>| text.clone().filter(|text| !text.value.is_empty());
        let (chain, key) = (given(&tls.certificate), given(&tls.key));
        if chain.is_none() && key.is_none() {
            if let Some(place) = wants_certificate(tls) {
                let help = "give `certificate` (a PEM chain) and `key` in [server.tls]";
                self.problem_with_help(&place, "an encrypted listener needs a certificate and its key", help);
            }
            return None;
        }
        let (Some(chain), Some(key)) = (&chain, &key) else {
            let there = chain.or(key)?;
            self.problem(&there.place, "[server.tls] needs both: `certificate` and `key`");
            return None;
        };
        let (chain_path, key_path) = (self.path(Some(chain))?, self.path(Some(key))?);
        let read = |builder: &mut Self, text: &Text, path: &std::path::Path, whose: &str| match files::read(path) {
            Ok(content) => Some(content),
            Err(error) => {
                builder.problem(
                    &text.place,
                    format!("{whose} \"{}\" cannot be read: {}", text.value, SystemError(&error)),
                );
                None
            }
        };
        let chain_text = read(self, chain, &chain_path, "certificate");
        let key_text = read(self, key, &key_path, "key");
        match KeyPair::from_pem(&chain_text?, &key_text?) {
            Ok(pair) => {
                self.warn_of_certificate(chain, pair.facts());
                Some(Certificate { chain: chain_path, key: key_path, pair })
            }
            Err(error) => {
                let (text, whose) = if error.is_about_key() { (key, "key") } else { (chain, "certificate") };
                self.problem(&text.place, format!("{whose} \"{}\" cannot be used: {error}", text.value));
                None
            }
        }
    }

    /// Warns of properties for which clients will refuse a certificate.
    fn warn_of_certificate(&mut self, text: &Text, facts: &CertificateFacts) {
        let expired = facts.seconds_left(clock::wall()) < 0;
        let nameless = facts.names.is_empty() && facts.addresses.is_empty();
        let faults = [
            (facts.is_ca, "is a CA's", "have the CA sign one for this server (CA:FALSE)"),
            (expired, "has expired", "renew it"),
            (nameless, "is for no name and no address", "make one with the names that clients use (subjectAltName)"),
        ];
        for (_, fault, help) in faults.into_iter().filter(|(is_so, ..)| *is_so) {
            let message = format!("certificate \"{}\" {fault}: clients will refuse it", text.value);
            self.warning(&text.place, message, help);
        }
    }

    pub(super) fn client_limit(&mut self, bounds: &LimitsSection) -> Option<ClientLimit> {
        let qps = bounds.client_qps();
        let burst = bounds.client_burst();
        let exempt = self.clients(bounds.exempt.as_ref(), &[]);
        let qps = NonZeroU32::new(qps)?;
        Some(ClientLimit { qps, burst: if burst == 0 { qps.get() } else { burst }, exempt })
    }
}

/// The place of a listener that presents a certificate.
fn wants_certificate(tls: &TlsSection) -> Option<Place> {
    let all = [&tls.tls, &tls.quic].into_iter().flatten().flat_map(|texts| &texts.value);
    let https = tls.https.iter().flat_map(|texts| &texts.value).filter(|text| !text.value.starts_with("http://"));
    all.chain(https).next().map(|text| text.place)
}
