//! Problems of a configuration: where, what, what to do. All of them are reported, each with its line.
//!
//! The first line of a problem is `file:line:column: message`; below it the line is shown with the place marked, then
//! the advice. A problem with a command-line flag names the flag and shows no line.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::plan::WrittenAt;

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file: its name as it was given, and its text.
    File {
        /// Its name.
        name: String,
        /// Its whole text.
        text: String,
    },
    /// A flag of the command line, such as `--aws`.
    Flag(&'static str),
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
        let [start, end] = [span.start, span.end].map(|at| u32::try_from(at).unwrap_or(u32::MAX));
        Self { source, start, end }
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

/// One mistake or likely mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where it is; none if the cause is something not written.
    pub(super) place: Option<Place>,
    /// The message, in one line.
    pub(super) message: String,
    /// The advice.
    pub(super) help: Option<String>,
}

impl Problem {
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: Some(*place), message: message.into(), help: None }
    }

    pub(super) fn without_place(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Whether text may be coloured; the caller knows the terminal and `NO_COLOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// With ANSI colours.
    Always,
    /// Plain.
    Never,
}

/// All errors or all warnings of a configuration, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    sources: Arc<Vec<Source>>,
    problems: Vec<Problem>,
    severity: ProblemLevel,
}

/// Whether a problem prevents the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProblemLevel {
    Error,
    Warning,
}

impl Problems {
    pub(super) fn new(sources: Arc<Vec<Source>>, problems: Vec<Problem>) -> Self {
        Self::sorted(sources, problems, ProblemLevel::Error)
    }

    pub(super) fn warnings(sources: Arc<Vec<Source>>, problems: Vec<Problem>) -> Self {
        Self::sorted(sources, problems, ProblemLevel::Warning)
    }

    fn sorted(sources: Arc<Vec<Source>>, mut problems: Vec<Problem>, severity: ProblemLevel) -> Self {
        problems.sort_by_key(|problem| match &problem.place {
            Some(place) => (place.source.0, place.start),
            None => (u32::MAX, u32::MAX),
        });
        Self { sources, problems, severity }
    }

    /// Whether there are no problems.
    pub const fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.problems.len()
    }

    /// Names of the files that the configuration was read from, as they were given.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|source| match source {
            Source::File { name, .. } => Some(name.as_str()),
            Source::Flag(_) => None,
        })
    }

    /// Each problem in a line, `file:line:column: message`, for logs.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| headline(&self.sources, problem, ""))
    }

    /// All problems for people, with their lines and advice; ends with a whole line.
    pub fn render(&self, color: Color) -> String {
        let renderer = match color {
            Color::Always => Renderer::styled(),
            Color::Never => Renderer::plain(),
        };
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&renderer.render(&[self.group(problem)]));
            text.push_str("\n\n");
        }
        // An empty line between problems, but not after the last.
        if text.ends_with("\n\n") {
            text.pop();
        }
        text
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let (level, word) = match self.severity {
            ProblemLevel::Error => (Level::ERROR, "error: "),
            ProblemLevel::Warning => (Level::WARNING, "warning: "),
        };
        let mut group = Group::with_title(level.no_name().primary_title(headline(&self.sources, problem, word)));
        if let Some((text, span)) = marked(&self.sources, problem) {
            group = group.element(Snippet::source(text).annotation(AnnotationKind::Primary.span(span)));
        }
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Color::Never).trim_end())
    }
}

impl std::error::Error for Problems {}

/// The text of a problem and the span to mark, which ends with the line it begins on.
fn marked<'a>(sources: &'a [Source], problem: &Problem) -> Option<(&'a str, Range<usize>)> {
    let place = problem.place.as_ref()?;
    let Source::File { text, .. } = place.source_of(sources)? else { return None };
    let Range { start, end } = place.span();
    let line_end = text.get(start..)?.find('\n').map_or(text.len(), |length| start + length);
    Some((text, start..end.clamp(start, line_end)))
}

fn headline(sources: &[Source], problem: &Problem, word: &str) -> String {
    match problem.place.as_ref() {
        // The format of compilers, which editors understand; a flag has no line.
        Some(place) if matches!(place.source_of(sources), Some(Source::File { .. })) => {
            format!("{}: {word}{}", locate(sources, place), problem.message)
        }
        Some(place) => format!("{word}{}: {}", locate(sources, place), problem.message),
        None => format!("{word}{}", problem.message),
    }
}

/// The file and line of a place; a flag is a file of that name.
pub(super) fn written_at(sources: &[Source], place: &Place) -> WrittenAt {
    match place.source_of(sources) {
        Some(Source::File { name, text }) => {
            let before = text.get(..place.span().start).unwrap_or(text);
            WrittenAt { file: name.into(), line: before.matches('\n').count() + 1 }
        }
        Some(Source::Flag(flag)) => WrittenAt { file: flag.into(), line: 0 },
        None => WrittenAt::default(),
    }
}

/// `file:line:column`, both counted from one, the column in characters; or the flag.
pub(super) fn locate(sources: &[Source], place: &Place) -> String {
    match place.source_of(sources) {
        Some(Source::File { name, text }) => {
            let before = text.get(..place.span().start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{name}:{line}:{column}")
        }
        Some(Source::Flag(flag)) => (*flag).to_owned(),
        None => "?".to_owned(),
    }
}
