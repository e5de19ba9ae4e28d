//! Figures of many rounds as a Markdown table: medians, with the least and the most.

use std::fmt::Write;

use crate::servers::Role;

/// The figures of one round of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    /// Microseconds of processor time a query; where nothing is asked, milliseconds a minute.
    pub(crate) processor: f64,
    /// Those outside the kernel.
    pub(crate) user: f64,
    /// Answers a second.
    pub(crate) rate: f64,
    /// Questions that the server passed on, as a share of its answers.
    pub(crate) forwarded: f64,
    /// The share of answers that were not in the cache, of names that are asked for again.
    pub(crate) misses: f64,
    /// How often a second the server went to sleep.
    pub(crate) switches: f64,
    /// Questions without a right answer.
    pub(crate) lost: u64,
    /// Microseconds to the median answer, and to the 99th of a hundred; not a number where they are not measured.
    pub(crate) latency: [f64; 2],
    /// Milliseconds to the first answer.
    pub(crate) start: f64,
}

/// One server's rounds.
pub(crate) struct Row {
    /// Its name and version.
    pub(crate) name: String,
    /// What it is compared as.
    pub(crate) role: Role,
    /// How resident memory grew, where it is measured: bytes a name, or MiB for a cache that is too small.
    pub(crate) memory: Option<f64>,
    /// Its figures.
    pub(crate) rounds: Vec<Round>,
}

/// A column: its head, a figure of a round, and how many decimals.
type Column = (&'static str, fn(&Round) -> f64, usize);

const PROCESSOR: Column = ("CPU µs a query", |round| round.processor, 2);
const OTHERS: [Column; 4] = [
    ("of it user", |round| round.user, 2),
    ("answers/s", |round| round.rate, 0),
    ("forwarded %", |round| round.forwarded * 100.0, 1),
    ("lost", |round| round.lost as f64, 0),
];
const LATENCY: [Column; 2] = [("p50 µs", |round| round.latency[0], 0), ("p99 µs", |round| round.latency[1], 0)];
const MISSES: Column = ("misses %", |round| round.misses * 100.0, 1);
const IDLE: Column = ("CPU ms a minute", |round| round.processor, 0);
const SWITCHES: Column = ("context switches/s", |round| round.switches, 1);
const START: Column = ("ms to the first answer", |round| round.start, 1);

/// What a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Processor time.
    Processor,
    /// Processor time and latency.
    Latency,
    /// Starting.
    Start,
    /// What a server uses while nothing is asked.
    Idle,
    /// The share of hits.
    Ratio,
}

/// Renders the table; the rows with the least of the first figure first.
pub(crate) fn render(subject: Subject, rows: &mut [Row]) -> String {
    let first = match subject {
        Subject::Start => START,
        Subject::Idle => IDLE,
        Subject::Ratio => MISSES,
        Subject::Processor | Subject::Latency => PROCESSOR,
    };
    rows.sort_by(|a, b| median(a, first).total_cmp(&median(b, first)));
    let least = |role| rows.iter().filter(|row| row.role == role).map(|row| median(row, first)).min_by(f64::total_cmp);
    let (floor, peer) = (least(Role::Floor), least(Role::Peer));
    let columns: Vec<Column> = match subject {
        Subject::Processor => OTHERS.to_vec(),
        Subject::Latency => LATENCY.into_iter().chain(OTHERS).collect(),
        Subject::Start => Vec::new(),
        Subject::Idle => vec![SWITCHES],
        Subject::Ratio => [PROCESSOR].into_iter().chain(OTHERS).collect(),
    };
    let memory = rows.iter().any(|row| row.memory.is_some());
    let mut text = format!("| server | {} (min–max) | ÷ floor | ÷ best peer |", first.0);
    if memory {
        text.push_str(if subject == Subject::Ratio { " MiB grown |" } else { " bytes a name |" });
    }
    for (head, ..) in &columns {
        let _ = write!(text, " {head} |");
    }
    let count = text.matches('|').count() - 1;
    let _ = writeln!(text, "\n|{}", " --- |".repeat(count));
    for row in rows.iter() {
        let own = median(row, first);
        let (low, high) = range(row, first);
        let decimals = first.2;
        let _ = write!(text, "| {} | **{own:.decimals$}** ({low:.decimals$}–{high:.decimals$}) |", row.name);
        for other in [floor, peer] {
            let _ = match other {
                Some(other) if other > 0.0 => write!(text, " {:.2} |", own / other),
                _ => write!(text, " |"),
            };
        }
        if memory {
            let _ = match row.memory {
                Some(bytes) => write!(text, " {bytes:.0} |"),
                None => write!(text, " |"),
            };
        }
        for column in &columns {
            let _ = write!(text, " {:.*} |", column.2, median(row, *column));
        }
        text.push('\n');
    }
    text
}

fn sorted(row: &Row, (_, figure, _): Column) -> Vec<f64> {
    let mut figures: Vec<f64> = row.rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(row: &Row, column: Column) -> f64 {
    let figures = sorted(row, column);
    let Some(upper) = figures.get(figures.len() / 2) else { return f64::NAN };
    if figures.len().is_multiple_of(2) { f64::midpoint(*upper, figures[figures.len() / 2 - 1]) } else { *upper }
}

fn range(row: &Row, column: Column) -> (f64, f64) {
    let figures = sorted(row, column);
    (figures.first().copied().unwrap_or(f64::NAN), figures.last().copied().unwrap_or(f64::NAN))
}
