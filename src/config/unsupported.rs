//! What parses and is not there yet: each line names a key and finds the places where it holds more than "off".
//!
//! An issue that brings a key takes its line out. A key is never silently ignored.

use super::{
    error::{Place, Problem},
    file::{File, Float, Integer, Located, Text, Texts},
};

type Find = fn(&File) -> Vec<Place>;

/// The keys, and where they hold more than "off".
const UNSUPPORTED: &[(&str, Find)] = &[
    ("server.proxy_protocol", |file| list(server(file).and_then(|server| server.proxy_protocol.as_ref()))),
    ("server.tls", tls),
    ("limits.client_qps", |file| not_zero(file.limits.as_ref().and_then(|limits| limits.value.client_qps.as_ref()))),
    ("limits.client_burst", |file| {
        not_zero(file.limits.as_ref().and_then(|limits| limits.value.client_burst.as_ref()))
    }),
    ("log.queries", |file| other_than(&["off"], file.log.as_ref().and_then(|log| log.value.queries.as_ref()))),
    ("log.sample", |file| not_one(file.log.as_ref().and_then(|log| log.value.sample.as_ref()))),
    ("log.dnstap", |file| other_than(&[""], file.log.as_ref().and_then(|log| log.value.dnstap.as_ref()))),
    ("log.otlp", |file| other_than(&[""], file.log.as_ref().and_then(|log| log.value.otlp.as_ref()))),
];

/// A problem for each place where the file asks for what is not there yet.
pub(super) fn problems(file: &File) -> Vec<Problem> {
    let refuse = |(key, find): &(&str, Find)| {
        let message = format!("not supported yet: {key}");
        find(file).into_iter().map(move |place| Problem::at(&place, message.clone())).collect::<Vec<_>>()
    };
    UNSUPPORTED.iter().flat_map(refuse).collect()
}

fn server(file: &File) -> Option<&super::file::ServerSection> {
    file.server.as_ref().map(|server| &server.value)
}

fn list(texts: Option<&Texts>) -> Vec<Place> {
    texts.filter(|texts| !texts.value.is_empty()).map(|texts| texts.place.clone()).into_iter().collect()
}

fn other_than(off: &[&str], text: Option<&Text>) -> Vec<Place> {
    text.filter(|text| !off.contains(&text.value.as_str())).map(|text| text.place.clone()).into_iter().collect()
}

fn not_zero(integer: Option<&Integer>) -> Vec<Place> {
    integer.filter(|integer| integer.value != 0).map(|integer| integer.place.clone()).into_iter().collect()
}

fn not_one(float: Option<&Float>) -> Vec<Place> {
    float.filter(|float| (float.value - 1.0).abs() > 0.0).map(|float| float.place.clone()).into_iter().collect()
}

/// Encrypted listeners: the table may stand there with nothing in it.
fn tls(file: &File) -> Vec<Place> {
    let Some(Located { value: tls, .. }) = server(file).and_then(|server| server.tls.as_ref()) else {
        return Vec::new();
    };
    let lists = [&tls.tls, &tls.https, &tls.quic].into_iter().flat_map(|texts| list(texts.as_ref()));
    lists.chain([&tls.certificate, &tls.key].into_iter().flat_map(|text| other_than(&[""], text.as_ref()))).collect()
}
