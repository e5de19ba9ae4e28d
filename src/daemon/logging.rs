//! Log output: the journal under systemd, text on a terminal, JSON elsewhere.
//!
//! Each kind is written by a thread of its own: if standard error or the journal blocks, lines are lost and counted,
//! and no thread that logs has to wait. Lines of the query log have their own queue and thread, so that a flood of them
//! loses no other line; they follow `log.queries` alone, not the level.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, ParseError, filter_fn},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::journal::{self, Journal, JournalLayer};
use crate::{
    config::{LogFormat, LogLevel},
    engine::query_log,
};

/// The modules that directives name.
fn modules(directives: &str) -> impl Iterator<Item = &str> {
    let targets = directives.split(',').filter_map(|part| part.split_once('=')).map(|(target, _)| target);
    targets.map(|target| target.split('[').next().unwrap_or_default().trim()).filter(|module| !module.is_empty())
}

/// Whether a module is meant as one of ours, and is none. Those of libraries are not known.
fn is_missing(module: &str) -> bool {
    match module.split_once("::") {
        Some(("tidegate", rest)) => !MODULES.contains(&rest.split("::").next().unwrap_or_default()),
        Some((first, _)) => MODULES.contains(&first),
        None => MODULES.contains(&module),
    }
}

/// Changes the level of a running log.
pub type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Limits for libraries that would log each request, frame or datagram that failed. Our own lines report what matters
/// of it.
const QUIET: &str = "hyper=warn,axum=warn,h2=warn,quinn=error,quinn_proto=error,quinn_udp=error";

/// Lines that may wait for standard error or the journal, some 300 octets each.
const MOST_LINES: usize = 2048;
/// The same for lines of the query log.
const MOST_QUERY_LINES: usize = 8192;

/// A running log. On drop it writes the waiting lines, for at most a second.
#[derive(Debug)]
pub struct Log {
    /// Changes its level.
    pub level: LevelHandle,
    /// Counts the lines that were lost.
    pub lost: LostLines,
    _writers: [WorkerGuard; 2],
}

/// Counts log lines that were lost, of both queues.
#[derive(Debug, Clone)]
pub struct LostLines([ErrorCounter; 2]);

impl LostLines {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.iter().map(ErrorCounter::dropped_lines).sum()
    }
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging to standard error or the journal. Does nothing if a logger is set already (tests).
pub fn start(level: LogLevel, format: LogFormat) -> Log {
    let format = chosen(format);
    let (filter, level) = reload::Layer::new(filter(level));
    let (others, lost, writer) = lines(format, "log", MOST_LINES);
    let (queries, lost_queries, query_writer) = lines(format, "query-log", MOST_QUERY_LINES);
    let others = others.with_filter(filter.and(filter_fn(|metadata| metadata.target() != query_log::TARGET)));
    let queries = queries.with_filter(filter_fn(|metadata| metadata.target() == query_log::TARGET));
    // A logger that is already set stays.
    drop(tracing_subscriber::registry().with(vec![others.boxed(), queries.boxed()]).try_init());
    Log { level, lost: LostLines([lost, lost_queries]), _writers: [writer, query_writer] }
}

/// Lines in a format with a bounded queue and a thread, which has this name.
fn lines(format: LogFormat, thread: &str, most: usize) -> (Lines, ErrorCounter, WorkerGuard) {
    let to = |sink: Box<dyn Write + Send>| {
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(most);
        builder.thread_name(thread).finish(sink)
    };
    let journal = match format {
        LogFormat::Journald => Journal::open(Path::new(journal::SOCKET)).ok(),
        LogFormat::Json | LogFormat::Text | LogFormat::Auto => None,
    };
    if let Some(journal) = journal {
        let (lines, guard) = to(Box::new(journal));
        let lost = lines.error_counter();
        return (JournalLayer::new(lines).boxed(), lost, guard);
    }
    let (lines, guard) = to(unlocked_standard_error());
    let lost = lines.error_counter();
    let layer = tracing_subscriber::fmt::layer();
    let layer = match format {
        LogFormat::Journald => layer.with_writer(lines).with_ansi(false).boxed(),
        LogFormat::Json => layer.json().with_writer(lines).boxed(),
        LogFormat::Text | LogFormat::Auto => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            layer.with_writer(lines).with_ansi(colour).with_target(false).boxed()
        }
    };
    (layer, lost, guard)
}

/// Standard error without the standard library's lock: a blocked write would hold the lock for good, and block whoever
/// ends the process or panics.
fn unlocked_standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// The modules of ours that log.
const MODULES: [&str; 13] = [
    "admin",
    "cache",
    "cli",
    "config",
    "daemon",
    "engine",
    "metrics",
    "net",
    "perimeter",
    "serve",
    "tls",
    "upstream",
    "zones",
];

/// Why the log level was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// A single word that is no level. tracing would take it for a module and silence all others.
    #[error("\"{0}\" is no level; write off, error, warn, info, debug or trace, or MODULE=LEVEL")]
    NotALevel(String),
    /// A module of ours that there is not. Nothing would be logged of it, and nothing said.
    #[error("there is no module \"{0}\"; write tidegate::upstream=debug, or another of {list}", list = MODULES.join(", "))]
    NoModule(String),
    /// The directives do not parse.
    #[error("\"{directives}\" cannot be read: {error}")]
    Directives {
        /// The directives as given.
        directives: String,
        /// The parser's error.
        #[source]
        error: ParseError,
    },
    /// Another log was there first.
    #[error("the log is not this daemon's: {0}")]
    NotOurs(#[from] reload::Error),
}

/// Changes what a running log lets through: a level, or directives as tracing writes them. If they set no level for
/// everything, `base` applies: more output of one module must not mean less of the others.
pub fn change(handle: &LevelHandle, base: LogLevel, directives: &str) -> Result<(), LevelError> {
    handle.reload(read(base, directives)?)?;
    Ok(())
}

fn read(base: LogLevel, directives: &str) -> Result<EnvFilter, LevelError> {
    let words: Vec<&str> = directives.split(',').map(str::trim).filter(|part| !part.contains(['=', '['])).collect();
    if let Some(word) = words.iter().find(|word| word.is_empty() || word.parse::<LevelFilter>().is_err()) {
        return Err(LevelError::NotALevel((*word).to_owned()));
    }
    if let Some(module) = modules(directives).find(|module| is_missing(module)) {
        return Err(LevelError::NoModule(module.to_owned()));
    }
    let base = if words.is_empty() { word(base) } else { "off" };
    // Of two directives for the same target the later one applies.
    EnvFilter::try_new(format!("{base},{QUIET},{directives}"))
        .map_err(|error| LevelError::Directives { directives: directives.to_owned(), error })
}

/// Changes the level of a running log.
pub fn set(handle: &LevelHandle, level: LogLevel) {
    // A logger that is not ours (tests) cannot be changed.
    handle.reload(filter(level)).ok();
}

/// The directives for a level, with limits for libraries that log each query.
pub fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("{},{QUIET}", word(level)))
}

const fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn chosen(format: LogFormat) -> LogFormat {
    match format {
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => LogFormat::Journald,
        LogFormat::Auto if io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        format => format,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_there_is_not_is_refused() {
        for (given, missing) in [
            ("upstream=debug", Some("upstream")),
            ("engine::resolve=debug", Some("engine::resolve")),
            ("info,tidegate::upstraem=debug", Some("tidegate::upstraem")),
            ("tidegate::upstream::link=trace,hyper=debug", None),
            ("tidegate=debug", None),
            ("tidegate::engine[query]=debug", None),
        ] {
            let refused = read(LogLevel::Info, given).err().map(|error| error.to_string());
            let expected = missing.map(|module| format!("there is no module \"{module}\""));
            assert_eq!(refused.as_ref().map(|text| text.split(';').next().unwrap().to_owned()), expected, "{given}");
        }
        let rooms: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().collect();
        let is_room = |name: &str| rooms.iter().any(|room| room.as_ref().unwrap().path().file_stem().unwrap() == name);
        assert!(MODULES.iter().all(|module| is_room(module)));
    }

    #[test]
    fn a_module_is_heard_beside_the_others_and_never_instead_of_them() {
        for (given, hint) in [
            ("debug", LevelFilter::DEBUG),
            ("tidegate::upstream=trace", LevelFilter::TRACE),
            ("warn,tidegate::upstream=debug", LevelFilter::DEBUG),
        ] {
            let filter = read(LogLevel::Info, given).unwrap();
            assert_eq!(filter.max_level_hint(), Some(hint), "{given}: {filter}");
        }
        let off = read(LogLevel::Info, "OFF").unwrap().to_string();
        assert!(off.split(',').any(|directive| directive == "off") && !off.contains("info"), "{off}");
        let filter = read(LogLevel::Info, "tidegate::upstream=trace").unwrap().to_string();
        assert!(filter.split(',').any(|directive| directive == "info"), "{filter}");
    }

    #[test]
    fn a_slip_of_the_pen_silences_nothing() {
        for given in ["", "debgu", "info,", "tidegate", "info,tidegate::upstream", " "] {
            assert!(matches!(read(LogLevel::Info, given), Err(LevelError::NotALevel(_))), "{given:?}");
        }
        for given in ["tidegate=loud", "=", "a=b=c", "info,[=debug"] {
            assert!(matches!(read(LogLevel::Info, given), Err(LevelError::Directives { .. })), "{given:?}");
        }
    }
}
