//! `tidegate schema`.

use std::iter;

use clap::builder::PossibleValuesParser;
use schemars::generate::SchemaSettings;

use super::{
    control::OrderDocument, doctor::Diagnosis, output::OUT, perimeter_report::PerimeterReport,
    presets::PresetsDocument, query::QueryDocument, test, top::TopLine, validate::Validation, version::VersionDocument,
};
use crate::{
    admin::{self, Document},
    config,
};

/// The configuration file's name in the list of schemas.
const CONFIGURATION: &str = "configuration";
/// What verbs print with --json and make themselves.
const OF_VERBS: &[Document] = &[
    Document::of::<Diagnosis>("doctor"),
    Document::of::<OrderDocument>("order"),
    Document::of::<PerimeterReport<'static>>("perimeter-report"),
    Document::of::<PresetsDocument>("presets"),
    Document::of::<QueryDocument>("query"),
    Document::of::<test::Results>("test"),
    Document::of::<TopLine<'static>>("top-line"),
    Document::of::<Validation>("validation"),
    Document::of::<VersionDocument>("version"),
];

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file, a document under `/api/v1/`, or what a verb prints with --json
    #[arg(value_name = "DOCUMENT", default_value = CONFIGURATION, value_parser = names())]
    document: String,
}

pub(super) fn run(options: &Options) -> i32 {
    match documents().find(|document| document.name == options.document) {
        // As it is written: what may be left out when it is read is there all the same.
        Some(document) => {
            let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
            writeln!(OUT, "{:#}", (document.schema)(generator).as_value());
        }
        None => writeln!(OUT, "{:#}", config::schema()),
    }
    super::OK
}

fn documents() -> impl Iterator<Item = &'static Document> {
    admin::DOCUMENTS.iter().chain(OF_VERBS)
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(iter::once(CONFIGURATION).chain(documents().map(|document| document.name)))
}
