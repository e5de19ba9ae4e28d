//! Reads the record of a period: each name's history, when no guard was in force, and gaps in the record itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{EVERY, Line, NameLine, PREFIX, RuleLine, SUFFIX};

/// Seconds between two lines beyond which there is a gap: a minute, and time for a slow disk.
const LATE: u64 = EVERY + 30;
/// No line is longer.
const LONGEST: u64 = 1 << 20;

/// The contents of the record for a period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The names, the worst first, then in their order.
    pub names: Vec<NameHistory>,
    /// When AWS names were forwarded without a guard that keeps public addresses from clients.
    pub unguarded: Vec<Unguarded>,
    /// When nothing was recorded.
    pub gaps: Vec<Gap>,
    /// Lines that cannot be read.
    pub damaged: u64,
    /// Names that were left out of full files, or given up to bound memory.
    pub left_out: u64,
    /// Hashes of the configurations in force, in their order.
    pub configurations: Vec<String>,
    /// The first and the last line, in seconds since 1970; null without any.
    pub first: Option<u64>,
    /// The last line.
    pub last: Option<u64>,
}

/// One name over the period.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct NameHistory {
    /// The name.
    pub name: String,
    /// The worst that happened to it: `leaked`, `stripped`, `refused`, `excepted`, or its worst verdict.
    pub worst: String,
    /// The verdict at the end.
    pub verdict: String,
    /// Answers: absent, private, out of reach, public.
    pub answers: [u64; 4],
    /// At least this many clients asked.
    pub clients: u32,
    /// The networks of its addresses.
    pub networks: BTreeSet<String>,
    /// The rules that brought answers.
    pub rules: BTreeSet<String>,
    /// The configurations that were in force then.
    pub configurations: BTreeSet<String>,
    /// The first minute with an answer.
    pub first: u64,
    /// The last minute with an answer.
    pub last: u64,
}

/// A period without a guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Unguarded {
    /// The rule.
    pub rule: String,
    /// `no guard`, or `log`: public addresses are counted and pass.
    pub why: String,
    /// When it began.
    pub from: u64,
    /// When it ended; null = not before the end of the report.
    pub to: Option<u64>,
}

/// A gap in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Gap {
    /// The last line before it.
    pub from: u64,
    /// The first line behind it.
    pub to: u64,
    /// The reason, as far as the record shows it.
    pub why: String,
}

/// The day of a time as `2026-11-29`, in UTC.
pub fn day_of(wall: u64) -> String {
    let seconds = i64::try_from(wall).unwrap_or(i64::MAX);
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// The files of a folder by their day, in order.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let day = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)).map(str::to_owned);
        files.extend(day.map(|day| (day, entry.path())));
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads what was recorded from `from` to before `to`, in seconds since 1970.
pub fn read(folder: &Path, from: u64, to: u64) -> io::Result<History> {
    let mut reading = HistoryBuilder { from, ..HistoryBuilder::default() };
    // The day before shows which configuration was in force at the beginning; each file begins with it.
    let (first, last) = (day_of(from), day_of(to.saturating_sub(1)));
    for (day, path) in files(folder)? {
        if day < first || day > last {
            continue;
        }
        let mut lines = BufReader::new(File::open(path)?);
        let mut octets = Vec::new();
        loop {
            octets.clear();
            if lines.by_ref().take(LONGEST).read_until(b'\n', &mut octets)? == 0 {
                break;
            }
            let text = octets.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(text) {
                Ok(line) if line.at() >= to => {}
                Ok(line) => reading.take(line),
                Err(_) => reading.history.damaged += 1,
            }
        }
    }
    Ok(reading.finish())
}

#[derive(Debug, Default)]
struct HistoryBuilder {
    from: u64,
    history: History,
    names: BTreeMap<String, NameHistory>,
    /// The last line, and whether the daemon ended in order with it.
    before: Option<(u64, bool)>,
    given_up: u64,
    full: u64,
}

impl HistoryBuilder {
    fn take(&mut self, line: Line) {
        let at = line.at();
        if let Line::Configuration { hash, rules, .. } = &line {
            // Lines from before the period show the state at its beginning.
            self.configure(at.max(self.from), hash, rules);
        }
        if at < self.from {
            return;
        }
        self.look_for_gap(at, &line);
        self.history.first.get_or_insert(at);
        self.history.last = Some(at);
        match line {
            Line::Name(line) => self.name(line),
            Line::Minute { given_up, left_out, .. } => {
                (self.given_up, self.full) = (self.given_up.max(given_up), self.full.max(left_out));
            }
            Line::Start { .. } => {
                self.history.left_out += self.given_up + self.full;
                (self.given_up, self.full) = (0, 0);
            }
            Line::Stop { .. } | Line::Configuration { .. } => {}
        }
    }

    fn look_for_gap(&mut self, at: u64, line: &Line) {
        let is_stop = matches!(line, Line::Stop { .. });
        if let Some((before, was_stopped)) = self.before {
            let is_start = matches!(line, Line::Start { .. });
            let why = match (is_start, was_stopped) {
                (true, true) if at > before => Some("the daemon was stopped"),
                (true, true) => None,
                (true, false) => {
                    Some("the daemon ended without a word (killed, or the machine); up to a minute before is missing")
                }
                (false, _) if at < before => Some("the clock was set back"),
                (false, _) if at - before > LATE => {
                    Some("nothing could be written (a full disk, or a machine that slept)")
                }
                (false, _) => None,
            };
            self.history.gaps.extend(why.map(|why| Gap { from: before, to: at, why: why.to_owned() }));
        }
        self.before = Some((at, is_stop));
    }

    fn configure(&mut self, at: u64, hash: &str, rules: &[RuleLine]) {
        if self.history.configurations.last().is_none_or(|last| last != hash) {
            self.history.configurations.push(hash.to_owned());
        }
        let open: Vec<(String, &'static str)> = rules
            .iter()
            .filter(|rule| rule.aws)
            .filter_map(|rule| match rule.on_public.as_deref() {
                None => Some((rule.rule.clone(), "no guard")),
                Some("log") => Some((rule.rule.clone(), "log")),
                Some(_) => None,
            })
            .collect();
        let is_open = |was: &Unguarded| open.iter().any(|(rule, why)| *rule == was.rule && *why == was.why);
        for was in self.history.unguarded.iter_mut().filter(|was| was.to.is_none()) {
            if !is_open(was) {
                was.to = Some(at);
            }
        }
        for (rule, why) in open {
            let known = self.history.unguarded.iter().any(|was| was.to.is_none() && was.rule == rule && was.why == why);
            if !known {
                self.history.unguarded.push(Unguarded { rule, why: why.to_owned(), from: at, to: None });
            }
        }
    }

    fn name(&mut self, line: NameLine) {
        let NameLine { at, name, verdict, outcome, network, rule, configuration, answers, clients, .. } = line;
        let history =
            self.names.entry(name.clone()).or_insert_with(|| NameHistory { name, first: at, ..NameHistory::default() });
        let became = outcome.unwrap_or_else(|| verdict.clone());
        if badness(&became) > badness(&history.worst) {
            history.worst = became;
        }
        history.verdict = verdict;
        history.answers.iter_mut().zip(answers).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        history.clients = history.clients.max(clients);
        history.networks.extend(network);
        history.rules.insert(rule);
        history.configurations.insert(configuration);
        history.last = at;
    }

    fn finish(mut self) -> History {
        self.history.left_out += self.given_up + self.full;
        self.history.unguarded.retain(|was| was.to != Some(was.from));
        self.history.names = self.names.into_values().collect();
        self.history.names.sort_by(|one, other| {
            badness(&other.worst).cmp(&badness(&one.worst)).then_with(|| one.name.cmp(&other.name))
        });
        self.history
    }
}

impl History {
    /// The number of names with this outcome.
    pub fn count(&self, worst: &str) -> usize {
        self.names.iter().filter(|name| name.worst == worst).count()
    }
}

/// The severity of what happened to a name.
pub(super) fn badness(what: &str) -> u8 {
    match what {
        "leaked" => 7,
        "stripped" => 6,
        "refused" => 5,
        "excepted" => 4,
        "unreachable-private" => 3,
        "private" => 2,
        "absent" => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: u64, verdict: &str, outcome: Option<&str>) -> Line {
        Line::Name(NameLine {
            at,
            name: "sts.amazonaws.com.".to_owned(),
            verdict: verdict.to_owned(),
            outcome: outcome.map(str::to_owned),
            address: None,
            network: Some("10.20.0.0/16".to_owned()),
            rule: "aws".to_owned(),
            configuration: "h".to_owned(),
            answers: [0, 1, 0, 0],
            clients: 2,
        })
    }

    fn minute(at: u64) -> Line {
        Line::Minute { at, given_up: 0, left_out: 0 }
    }

    fn start(at: u64) -> Line {
        Line::Start { at, version: "0.1.0".to_owned() }
    }

    fn configuration(at: u64, hash: &str, on_public: Option<&str>) -> Line {
        let on_public = on_public.map(str::to_owned);
        let rules = vec![RuleLine { rule: "aws".to_owned(), aws: true, on_public, networks: Vec::new() }];
        Line::Configuration { at, hash: hash.to_owned(), rules }
    }

    fn history(lines: Vec<Line>) -> History {
        let mut reading = HistoryBuilder::default();
        lines.into_iter().for_each(|line| reading.take(line));
        reading.finish()
    }

    #[test]
    fn gaps_are_told_by_what_lies_around_them() {
        let gaps = |lines| history(lines).gaps.into_iter().map(|gap| (gap.from, gap.to, gap.why)).collect::<Vec<_>>();
        assert_eq!(gaps(vec![start(0), minute(0), minute(60), minute(125)]), []);
        let why =
            |lines| gaps(lines).into_iter().map(|(from, to, why)| format!("{from} {to} {why}")).collect::<Vec<_>>();
        assert!(why(vec![minute(0), start(400)])[0].starts_with("0 400 the daemon ended without a word"));
        assert!(
            why(vec![minute(0), Line::Stop { at: 30 }, start(400)])[0].starts_with("30 400 the daemon was stopped")
        );
        assert!(why(vec![minute(0), minute(400)])[0].starts_with("0 400 nothing could be written"));
        assert!(why(vec![minute(400), minute(0)])[0].contains("clock"));
    }

    #[test]
    fn a_name_has_its_worst_and_its_last_and_unguarded_times_end() {
        let history = history(vec![
            configuration(0, "a", Some("log")),
            name(60, "public", Some("leaked")),
            configuration(120, "b", Some("refuse")),
            name(180, "private", None),
            configuration(240, "c", None),
        ]);
        let name = &history.names[0];
        assert_eq!(
            (&*name.worst, &*name.verdict, name.answers, name.first, name.last),
            ("leaked", "private", [0, 2, 0, 0], 60, 180)
        );
        let times: Vec<_> = history.unguarded.iter().map(|was| (&*was.why, was.from, was.to)).collect();
        assert_eq!(times, [("log", 0, Some(120)), ("no guard", 240, None)]);
        assert_eq!(history.configurations, ["a", "b", "c"]);
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!((day_of(0), day_of(1_795_896_900)), ("1970-01-01".to_owned(), "2026-11-28".to_owned()));
    }
}
