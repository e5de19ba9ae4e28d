//! `tidegate perimeter --from DATE --to DATE`: a report for auditors, from the record on disk.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    duration::utc,
    output::{ERR, OUT, print_json},
};
use crate::{
    clock,
    config::{self, Plan, Remedy},
    perimeter::record::{self, Gap, History, NameHistory, Unguarded},
    system_error::SystemError,
};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// A line a name, for spreadsheets
    Csv,
    /// A page to print or to attach
    Html,
}

/// What is to be reported.
pub(super) struct Wanted<'a> {
    /// Days in UTC, the last one included.
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) format: ReportFormat,
    /// The folder; else what the configuration says.
    pub(super) record: Option<&'a Path>,
    pub(super) config: Option<&'a Path>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("\"{0}\" is not a date; write it as 2026-11-29")]
    NotADate(String),
    #[error("the last day comes before the first")]
    Backwards,
    #[error("the first day is still to come")]
    Future,
    #[error("{} has no `record` in [perimeter], so nothing is recorded; say --record DIR if it lies elsewhere", .0.display())]
    NotRecorded(PathBuf),
    #[error("{file} is not a configuration that can be used: {1}; say --record DIR", file = .0.display())]
    Config(PathBuf, String),
    #[error("{} cannot be read: {}", path.display(), SystemError(error))]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Seconds without a new line after which a report says that the record ends early.
const LATE: u64 = 2 * record::EVERY;
const DAY: u64 = 86_400;

/// The verdicts on names in the order shown.
const WORSTS: [(&str, &str); 7] = [
    ("leaked", "clients got public addresses; traffic to these left the perimeter"),
    ("stripped", "public addresses, which the guard left out of the answers"),
    ("refused", "public addresses, which the guard kept from clients"),
    ("excepted", "public addresses, which `except` of the rule lets through"),
    ("unreachable-private", "private addresses that clients cannot reach"),
    ("private", "stayed private all the time"),
    ("absent", "no such name, or no address"),
];

/// Prints the report; 1 if something leaked, or if there is no report, 2 if a date is wrong.
pub(super) fn run(wanted: &Wanted<'_>) -> i32 {
    match report(wanted) {
        Ok((history, span)) => {
            let now = clock::wall().as_secs();
            match wanted.format {
                ReportFormat::Text => write!(OUT, "{}", text(&history, span, now)),
                ReportFormat::Json => print_json(&PerimeterReport::new(&history, span, now)),
                ReportFormat::Csv => write!(OUT, "{}", csv(&history)),
                ReportFormat::Html => write!(OUT, "{}", html(&history, span, now)),
            }
            if history.count("leaked") == 0 { super::OK } else { super::FAILED }
        }
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            // A script must not take a date that it wrote wrong for a leak.
            let is_argument = matches!(error, ReportError::NotADate(_) | ReportError::Backwards | ReportError::Future);
            if is_argument { super::UNUSABLE } else { super::FAILED }
        }
    }
}

fn report(wanted: &Wanted<'_>) -> Result<(History, (u64, u64)), ReportError> {
    let today = clock::wall().as_secs() / DAY * DAY;
    let from = wanted.from.map_or(Ok(0), date)?;
    let to = wanted.to.map_or(Ok(today), date)? + DAY;
    if from > today {
        return Err(ReportError::Future);
    }
    if to <= from {
        return Err(ReportError::Backwards);
    }
    let folder = folder(wanted)?;
    let history =
        record::read(&folder, from, to).map_err(|error| ReportError::Unreadable { path: folder.clone(), error })?;
    let from = if wanted.from.is_some() { from } else { history.first.unwrap_or(from) };
    Ok((history, (from, to)))
}

fn folder(wanted: &Wanted<'_>) -> Result<PathBuf, ReportError> {
    if let Some(folder) = wanted.record {
        return Ok(folder.to_owned());
    }
    let file = wanted.config.unwrap_or_else(|| Path::new(super::serve::DEFAULT_FILE));
    let plan = Plan::load(file)
        .map_err(|problems| ReportError::Config(file.to_owned(), problems.lines().next().unwrap_or_default()))?;
    plan.boot.perimeter.map(|record| record.folder).ok_or_else(|| ReportError::NotRecorded(file.to_owned()))
}

/// The first second of a day in UTC.
fn date(text: &str) -> Result<u64, ReportError> {
    let wrong = || ReportError::NotADate(text.to_owned());
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return Err(wrong()) };
    let is_number = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    if !parts.iter().all(is_number) || (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return Err(wrong());
    }
    let month: u8 = month.parse().map_err(|_| wrong())?;
    let month = time::Month::try_from(month).map_err(|_| wrong())?;
    let (year, day) = (year.parse().map_err(|_| wrong())?, day.parse().map_err(|_| wrong())?);
    let date = time::Date::from_calendar_date(year, month, day).map_err(|_| wrong())?;
    u64::try_from(date.midnight().assume_utc().unix_timestamp()).map_err(|_| wrong())
}

/// The gaps in the record, including one after the last line if more lines were expected.
fn gaps(history: &History, (from, to): (u64, u64), now: u64) -> Vec<Gap> {
    let mut gaps = history.gaps.clone();
    let end = to.min(now);
    match (history.first, history.last) {
        (Some(first), Some(last)) => {
            if first > from.saturating_add(LATE) {
                gaps.insert(0, Gap { from, to: first, why: "the record begins later".to_owned() });
            }
            if end > last.saturating_add(LATE) {
                gaps.push(Gap { from: last, to: end, why: "the record ends earlier".to_owned() });
            }
        }
        _ => gaps.push(Gap { from, to: end, why: "nothing was recorded".to_owned() }),
    }
    gaps
}

/// How to make a public name private, in a sentence.
fn remedy(name: &NameHistory) -> Option<String> {
    if !matches!(name.worst.as_str(), "leaked" | "stripped" | "refused" | "excepted") {
        return None;
    }
    Some(match config::remedy(&name.name.parse().ok()?) {
        Remedy::Endpoint(service) => format!("an interface endpoint for {service} with private DNS makes it private"),
        Remedy::RegionalName(service) => format!("no endpoint covers it; ask for the regional name of {service}"),
        Remedy::PublicOnly => "it exists in public only; add it to `except` if it must resolve".to_owned(),
        Remedy::Unknown => "no endpoint is known for it; perhaps a resource with a public address".to_owned(),
    })
}

fn joined<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn plain(name: &str) -> &str {
    name.trim_end_matches('.')
}

/// The lines above and below the names, without their mark.
fn summary(history: &History, span: (u64, u64), now: u64) -> Vec<String> {
    let mut lines = vec![format!("{} names were asked for", history.names.len())];
    for (worst, _) in WORSTS {
        let count = history.count(worst);
        if count > 0 || worst == "leaked" {
            lines.push(format!("{count} {worst}"));
        }
    }
    for was in &history.unguarded {
        let to = was.to.map_or_else(|| "the end".to_owned(), utc);
        let why = if was.why == "log" { "counted public addresses and let them pass" } else { "had no guard" };
        lines.push(format!("rule {} {why} from {} to {to}", was.rule, utc(was.from)));
    }
    for gap in gaps(history, span, now) {
        lines.push(format!("gap in the record from {} to {}: {}", utc(gap.from), utc(gap.to), gap.why));
    }
    if history.damaged > 0 {
        lines.push(format!("{} lines of the record cannot be read", history.damaged));
    }
    if history.left_out > 0 {
        lines.push(format!("{} names were left out to bound memory and disk", history.left_out));
    }
    if !history.configurations.is_empty() {
        lines.push(format!("configurations in force: {}", joined(&history.configurations)));
    }
    lines
}

fn title((from, to): (u64, u64)) -> String {
    format!("AWS names asked for from {} to {} (UTC)", record::day_of(from), record::day_of(to - 1))
}

fn text(history: &History, span: (u64, u64), now: u64) -> String {
    let mut text = title(span) + "\n\n";
    for line in summary(history, span, now) {
        text += &format!("  {line}\n");
    }
    for (worst, meaning) in WORSTS {
        let names: Vec<&NameHistory> = history.names.iter().filter(|name| name.worst == worst).collect();
        if names.is_empty() {
            continue;
        }
        text += &format!("\n{worst}: {meaning}\n");
        for name in names {
            let answers: u64 = name.answers.iter().sum();
            text += &format!(
                "  {}  {}  rule {}, {answers} answers, at least {} clients, {} to {}, at the end {}\n",
                plain(&name.name),
                joined(&name.networks),
                joined(&name.rules),
                name.clients,
                utc(name.first),
                utc(name.last),
                name.verdict
            );
            text += &remedy(name).map(|remedy| format!("    {remedy}\n")).unwrap_or_default();
        }
    }
    text
}

/// The document of `--format json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PerimeterReport<'h> {
    /// The begin of the period, in seconds since 1970.
    from: u64,
    /// The end of the period, not part of it.
    to: u64,
    /// The number of names, by the worst that happened to them.
    counts: BTreeMap<&'static str, usize>,
    /// The names, the worst first.
    names: Vec<ReportedName<'h>>,
    /// When AWS names were forwarded without a guard that keeps public addresses from clients.
    unguarded: &'h [Unguarded],
    /// When nothing was recorded.
    gaps: Vec<Gap>,
    /// Lines that cannot be read.
    damaged: u64,
    /// Names that were left out of full files, or given up to bound memory.
    left_out: u64,
    /// Hashes of the configurations in force, in their order.
    configurations: &'h [String],
    /// The first line, in seconds since 1970; null without any.
    first: Option<u64>,
    /// The last line.
    last: Option<u64>,
}

/// One name over the period.
#[derive(Debug, Serialize, JsonSchema)]
struct ReportedName<'h> {
    #[serde(flatten)]
    history: &'h NameHistory,
    /// How to make it private, in a sentence; null where it is.
    remedy: Option<String>,
}

impl<'h> PerimeterReport<'h> {
    fn new(history: &'h History, span: (u64, u64), now: u64) -> Self {
        Self {
            from: span.0,
            to: span.1,
            counts: WORSTS.iter().map(|(worst, _)| (*worst, history.count(worst))).collect(),
            names: history.names.iter().map(|name| ReportedName { history: name, remedy: remedy(name) }).collect(),
            unguarded: &history.unguarded,
            gaps: gaps(history, span, now),
            damaged: history.damaged,
            left_out: history.left_out,
            configurations: &history.configurations,
            first: history.first,
            last: history.last,
        }
    }
}

fn csv(history: &History) -> String {
    let mut text =
        "name,worst,at_the_end,absent,private,unreachable_private,public,clients,networks,rules,configurations,\
                    first,last,remedy\n"
            .to_owned();
    for name in &history.names {
        let [absent, private, unreachable, public] = name.answers.map(|count| count.to_string());
        let fields = [
            plain(&name.name).to_owned(),
            name.worst.clone(),
            name.verdict.clone(),
            absent,
            private,
            unreachable,
            public,
            name.clients.to_string(),
            joined(&name.networks),
            joined(&name.rules),
            joined(&name.configurations),
            utc(name.first),
            utc(name.last),
            remedy(name).unwrap_or_default(),
        ];
        text += &(fields.map(|field| csv_field(&field)).join(",") + "\n");
    }
    text
}

/// A CSV field, quoted if necessary. It never begins like a formula, since names of rules and clients go into
/// spreadsheets.
fn csv_field(text: &str) -> String {
    let safe = if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    match safe.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

fn html(history: &History, span: (u64, u64), now: u64) -> String {
    let title = title(span);
    let page = maud::html! {
        (maud::DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                style {
                    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}table{border-collapse:collapse}"
                    "th,td{border-bottom:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}"
                }
            }
            body {
                h1 { (title) }
                ul { @for line in summary(history, span, now) { li { (line) } } }
                table {
                    thead { tr {
                        @for head in ["name", "worst", "at the end", "answers", "clients", "networks", "rules", "from", "to", "remedy"] {
                            th scope="col" { (head) }
                        }
                    } }
                    tbody { @for name in &history.names { tr {
                        td { (plain(&name.name)) }
                        td { (name.worst) }
                        td { (name.verdict) }
                        td { (name.answers.iter().sum::<u64>()) }
                        td { (name.clients) }
                        td { (joined(&name.networks)) }
                        td { (joined(&name.rules)) }
                        td { (utc(name.first)) }
                        td { (utc(name.last)) }
                        td { (remedy(name).unwrap_or_default()) }
                    } } }
                }
                p { "Made by tidegate " (crate::metrics::registry::VERSION) " at " (utc(now)) "." }
            }
        }
    };
    page.into_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_of_utc() {
        assert_eq!(date("2026-11-29").unwrap(), 1_795_910_400);
        for wrong in ["", "2026-11", "2026-13-01", "2026-02-30", "29.11.2026", "2026-1-1", "+026-11-29"] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_field_of_csv_is_quoted_and_no_formula() {
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_field("=1+1"), "'=1+1");
        assert_eq!(csv_field("plain"), "plain");
    }

    #[test]
    fn a_report_says_what_it_does_not_know() {
        let text = text(&History::default(), (0, DAY), 10 * DAY);
        assert!(text.contains("0 names were asked for") && text.contains("nothing was recorded"), "{text}");
    }
}
