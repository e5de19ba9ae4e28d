//! The texts that a configuration was read from, and places in them.

use std::ops::Range;

use super::plan::WrittenAt;

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    File(SourceFile),
    /// A flag of the command line, such as `--aws`.
    Flag(&'static str),
}

/// A file's text. It knows where its lines begin, since there may be a place to tell for each of some hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Its name as it was given.
    pub(super) name: String,
    /// Its whole text.
    pub(super) text: String,
    /// The offset of each line but the first.
    lines: Box<[u32]>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: usize,
    /// Its octets in the file, without the end of the line.
    pub(super) octets: Range<usize>,
}

impl SourceFile {
    pub(super) fn new(name: String, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let lines = ends.map(|(at, _)| offset(at + 1)).collect();
        Self { name, text, lines }
    }

    /// The line that holds this octet; the last one for those beyond the end.
    pub(super) fn line_at(&self, at: usize) -> Line {
        let at = offset(at);
        let before = self.lines.partition_point(|&start| start <= at);
        let start = before.checked_sub(1).map_or(0, |last| self.lines[last] as usize);
        let end = self.lines.get(before).map_or(self.text.len(), |&next| next as usize - 1);
        Line { number: before + 1, octets: start..end }
    }
}

/// An offset as it is kept: those beyond 4 GiB are that of the last before.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Identifies a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceId(pub(super) u32);

impl SourceId {
    /// No source, for what is in none.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// The next source behind these.
    pub(super) fn next(sources: &[Source]) -> Self {
        u32::try_from(sources.len()).map_or(Self::NONE, Self)
    }

    fn find(self, sources: &[Source]) -> Option<&Source> {
        sources.get(usize::try_from(self.0).ok()?)
    }
}

/// A place in a source. Every text of a file has one, and a file may have some hundred thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The source.
    pub(super) source: SourceId,
    start: u32,
    end: u32,
}

impl Place {
    /// The place of these octets. Those beyond 4 GiB have the place of the last before.
    pub(super) fn new(source: SourceId, span: Range<usize>) -> Self {
        Self { source, start: offset(span.start), end: offset(span.end) }
    }

    /// The octets in the source.
    pub(super) const fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The source itself.
    pub(super) fn source_of<'s>(&self, sources: &'s [Source]) -> Option<&'s Source> {
        self.source.find(sources)
    }
}

/// The file and line of a place; a flag is a file of that name.
pub(super) fn written_at(sources: &[Source], place: &Place) -> WrittenAt {
    match place.source_of(sources) {
        Some(Source::File(file)) => {
            WrittenAt { file: (&file.name).into(), line: file.line_at(place.span().start).number }
        }
        Some(Source::Flag(flag)) => WrittenAt { file: flag.into(), line: 0 },
        None => WrittenAt::default(),
    }
}

/// `file:line:column`, both counted from one, the column in characters; or the flag.
pub(super) fn locate(sources: &[Source], place: &Place) -> String {
    match place.source_of(sources) {
        Some(Source::File(file)) => {
            let start = place.span().start;
            let line = file.line_at(start);
            let before = file.text.get(line.octets.start..start).unwrap_or_default();
            format!("{}:{}:{}", file.name, line.number, before.chars().count() + 1)
        }
        Some(Source::Flag(flag)) => (*flag).to_owned(),
        None => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_octet_is_in_its_line() {
        let file = SourceFile::new("file".into(), "one\n\nthree\nfour".into());
        for (octets, number, line) in [(0..=3, 1, "one"), (4..=4, 2, ""), (5..=10, 3, "three"), (11..=99, 4, "four")] {
            for at in octets {
                let found = file.line_at(at);
                assert_eq!((found.number, &file.text[found.octets]), (number, line), "octet {at}");
            }
        }
        assert_eq!(SourceFile::new("file".into(), String::new()).line_at(0), Line { number: 1, octets: 0..0 });
    }

    #[test]
    fn a_column_counts_characters() {
        let sources = [Source::File(SourceFile::new("file".into(), "a\n\u{e9}\u{e9}=1\n".into()))];
        assert_eq!(locate(&sources, &Place::new(SourceId(0), 6..7)), "file:2:3");
    }
}
