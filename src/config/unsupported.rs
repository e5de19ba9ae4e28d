//! What parses and is not there yet: each line names a key and finds the places where it holds more than "off".
//!
//! An issue that brings a key takes its line out. A key is never silently ignored.

use super::{
    error::{Place, Problem},
    file::{File, Float, Text},
};

type Find = fn(&File) -> Vec<Place>;

/// The keys, and where they hold more than "off".
const UNSUPPORTED: &[(&str, Find)] = &[
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

fn other_than(off: &[&str], text: Option<&Text>) -> Vec<Place> {
    text.filter(|text| !off.contains(&text.value.as_str())).map(|text| text.place.clone()).into_iter().collect()
}

fn not_one(float: Option<&Float>) -> Vec<Place> {
    float.filter(|float| (float.value - 1.0).abs() > 0.0).map(|float| float.place.clone()).into_iter().collect()
}
