//! Where log lines go: the journal under systemd, text on a terminal, JSON elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::{LogFormat, LogLevel};

/// Changes the level of a running log.
pub type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Libraries that would log each request.
const QUIET: &str = "hyper=warn,axum=warn";

/// Starts logging to standard error or the journal. Does nothing where somebody does already (tests).
pub fn start(level: LogLevel, format: LogFormat) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = match chosen(format) {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => layer.boxed(),
            Err(_) => tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).boxed(),
        },
        LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(io::stderr).boxed(),
        LogFormat::Text | LogFormat::Auto => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour).with_target(false).boxed()
        }
    };
    // A log that is there already stays.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
    handle
}

/// Changes what a running log lets through: a level, or directives as tracing has them.
pub fn change(handle: &LevelHandle, directives: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{directives}")).map_err(|error| error.to_string())?;
    handle.reload(filter).map_err(|error| error.to_string())
}

/// Changes the level of a running log.
pub fn set(handle: &LevelHandle, level: LogLevel) {
    // A log that is not ours (tests) has nothing to change.
    handle.reload(filter(level)).ok();
}

/// The directives for a level; libraries that log each query keep quiet.
pub fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!("{level},{QUIET}"))
}

fn chosen(format: LogFormat) -> LogFormat {
    match format {
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => LogFormat::Journald,
        LogFormat::Auto if io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        format => format,
    }
}
