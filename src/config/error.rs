//! Problems of a configuration: where, what, what to do. All of them are reported, each with its line.
//!
//! The first line of a problem is `file:line:column: message`; below it the line is shown with the place marked, then
//! the advice. A problem with a command-line flag names the flag and shows no line.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Place, Source, locate};

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
            Some(place) => (place.source.0, place.span().start),
            None => (u32::MAX, usize::MAX),
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
            Source::File(file) => Some(file.name.as_str()),
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
        // The line alone: the renderer reads all that it is given, for each problem.
        if let Some((text, number, span)) = marked(&self.sources, problem) {
            let annotation = AnnotationKind::Primary.span(span);
            group = group.element(Snippet::source(text).line_start(number).annotation(annotation));
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

/// The line of a problem with its number, and the span to mark in it, which ends with the line it begins on.
fn marked<'a>(sources: &'a [Source], problem: &Problem) -> Option<(&'a str, usize, Range<usize>)> {
    let place = problem.place.as_ref()?;
    let Source::File(file) = place.source_of(sources)? else { return None };
    let line = file.line_at(place.span().start);
    let text = file.text.get(line.octets.clone())?.trim_end_matches('\r');
    let within = |at: usize| at.saturating_sub(line.octets.start).min(text.len());
    let Range { start, end } = place.span();
    Some((text, line.number, within(start)..within(end)))
}

fn headline(sources: &[Source], problem: &Problem, word: &str) -> String {
    match problem.place.as_ref() {
        // The format of compilers, which editors understand; a flag has no line.
        Some(place) if matches!(place.source_of(sources), Some(Source::File(_))) => {
            format!("{}: {word}{}", locate(sources, place), problem.message)
        }
        Some(place) => format!("{word}{}: {}", locate(sources, place), problem.message),
        None => format!("{word}{}", problem.message),
    }
}
