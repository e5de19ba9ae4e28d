//! Log output: the journal under systemd, text on a terminal, JSON elsewhere.
//!
//! Each kind is written by a thread of its own: if standard error or the journal blocks, lines are lost and counted,
//! and no thread that logs has to wait.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, ParseError},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::journal::{self, Journal, JournalLayer};
use crate::config::{LogFormat, LogLevel};

/// Changes the level of a running log.
pub type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Limits for libraries that would log each request, frame or datagram that failed. Our own lines report what matters
/// of it.
const QUIET: &str = "hyper=warn,axum=warn,h2=warn,quinn=error,quinn_proto=error,quinn_udp=error";

/// Lines that may wait for standard error or the journal, some 300 octets each.
const MOST_LINES: usize = 2048;

/// A running log. On drop it writes the waiting lines, for at most a second.
#[derive(Debug)]
pub struct Log {
    /// Changes its level.
    pub level: LevelHandle,
    /// Counts the lines that were lost.
    pub lost: Option<ErrorCounter>,
    _writer: Option<WorkerGuard>,
}

/// Starts logging to standard error or the journal. Does nothing if a logger is set already (tests).
pub fn start(level: LogLevel, format: LogFormat) -> Log {
    let (filter, level) = reload::Layer::new(filter(level));
    let mut lost = None;
    let mut writer = None;
    let mut to = |sink: Box<dyn Write + Send>| -> NonBlocking {
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MOST_LINES);
        let (lines, guard) = builder.thread_name("log").finish(sink);
        lost = Some(lines.error_counter());
        writer = Some(guard);
        lines
    };
    let standard_error = unlocked_standard_error;
    let lines = match chosen(format) {
        LogFormat::Journald => match Journal::open(Path::new(journal::SOCKET)) {
            Ok(journal) => JournalLayer::new(to(Box::new(journal))).boxed(),
            Err(_) => tracing_subscriber::fmt::layer().with_writer(to(standard_error())).with_ansi(false).boxed(),
        },
        LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(to(standard_error())).boxed(),
        LogFormat::Text | LogFormat::Auto => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            tracing_subscriber::fmt::layer()
                .with_writer(to(standard_error()))
                .with_ansi(colour)
                .with_target(false)
                .boxed()
        }
    };
    // A logger that is already set stays.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
    Log { level, lost, _writer: writer }
}

/// Standard error without the standard library's lock: a blocked write would hold the lock for good, and block whoever
/// ends the process or panics.
fn unlocked_standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// Why the log level was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// A single word that is no level. tracing would take it for a module and silence all others.
    #[error("\"{0}\" is no level; write off, error, warn, info, debug or trace, or MODULE=LEVEL")]
    NotALevel(String),
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
