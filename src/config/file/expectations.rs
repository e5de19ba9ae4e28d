//! The file of expectations for `tidegate test`, as typed.

use toml::de::DeTable;

use super::{
    super::{
        expectations::ExpectedVerdict,
        source::{Source, SourceFile, SourceId},
    },
    Located, Reader, Table, Text,
    kind::{Keyed, Keyword, Word, given_text, given_texts, given_word, limit, text, texts},
    load::{Loaded, read_tables},
    read::table,
};

table! {
    /// The keys before any case.
    ExpectationsTop in "the file" { config: String = text("") }
}

table! {
    /// `[[case]]`
    CaseSection in "case" {
        name: String = given_text(),
        qtype("type"): String = text("A"),
        client: String = text("127.0.0.1"),
        transport: String = text("udp"),
        dnssec: bool = false,
        address: Vec<Text> = texts(&[]),
        rule: String = given_text(),
        group: String = given_text(),
        view: String = given_text(),
        zone: String = given_text(),
        local: bool = false,
        guard: ExpectedVerdict = given_word(ExpectedVerdict::Pass),
        rcode: String = given_text(),
        records: Vec<Text> = given_texts(),
        // An info-code is 16 bits wide (RFC 8914 2).
        ede: u32 = limit(0, 0, 65_535),
    }
}

impl Keyword for ExpectedVerdict {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pass", Self::Pass), ("log", Self::Log), ("strip", Self::Strip), ("refuse", Self::Refuse)];
}

impl Keyed for ExpectedVerdict {
    type Kind = Word<Self>;
}

/// The whole file as typed.
#[derive(Debug, Default)]
pub(in crate::config) struct ExpectationsFile {
    pub(in crate::config) config: Option<Text>,
    pub(in crate::config) cases: Vec<Located<CaseSection>>,
}

impl ExpectationsFile {
    /// Reads the text `octets`, known as `name`, and returns it with its problems.
    pub(in crate::config) fn parse(name: &str, octets: Vec<u8>) -> (Self, Loaded) {
        let mut loaded = Loaded::default();
        let written = SourceFile::new(name.to_owned(), loaded.text(octets));
        let (table, errors) = DeTable::parse_recoverable(&written.text);
        let source = SourceId(0);
        let mut file = Self::default();
        if errors.is_empty() {
            let mut reader = Reader { source, start: 0, problems: &mut loaded.problems };
            file = read(table.get_ref(), &mut reader);
        } else {
            loaded.unreadable = true;
            loaded.note_syntax(source, &written, &errors);
        }
        loaded.sources.push(Source::File(written));
        (file, loaded)
    }
}

fn read(table: &DeTable<'_>, reader: &mut Reader<'_>) -> ExpectationsFile {
    reader.refuse_unknown_keys(table, "", &[ExpectationsTop::NAMES, &["case"]].concat());
    ExpectationsFile { config: reader.value(table, "", "config"), cases: read_tables(table, "case", reader) }
}
