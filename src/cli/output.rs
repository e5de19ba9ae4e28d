//! Standard output and standard error: every verb writes to [`OUT`] and [`ERR`], with `write!` and `writeln!`.
//!
//! Policy: a write never panics and returns nothing. The first error of a stream is kept, and nothing more is written
//! to it; [`finish`] turns it into the exit code. A reader that closes the pipe (`| head`) is not an error: the verb
//! ends with its own exit code, since an order that was carried out stays carried out. Any other error, such as a full
//! disk, gives one line on standard error and exit code 1.

use std::{
    fmt,
    io::{self, ErrorKind, IsTerminal, Write},
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::system_error::SystemError;

/// Results.
pub(super) static OUT: Stream = Stream::new(Target::Output);
/// Errors, and what to do about them.
pub(super) static ERR: Stream = Stream::new(Target::Error);

/// Standard output or standard error, with the first write error.
pub(super) struct Stream {
    target: Target,
    error: Mutex<Option<io::Error>>,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Output,
    Error,
}

impl Stream {
    const fn new(target: Target) -> Self {
        Self { target, error: Mutex::new(None) }
    }

    /// Writes formatted text; this is what `write!` and `writeln!` call.
    pub(super) fn write_fmt(&self, text: fmt::Arguments<'_>) {
        match text.as_str() {
            Some(text) => self.write(text.as_bytes()),
            // In one write, so that lines of two processes do not mix on a terminal.
            None => self.write(text.to_string().as_bytes()),
        }
    }

    /// Writes bytes that something else has rendered.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.attempt(|stream| stream.write_all(bytes));
    }

    /// Whether the reader has closed the stream, so that a verb that runs until stopped can stop.
    pub(super) fn is_closed(&self) -> bool {
        self.flush();
        self.error.lock().is_some()
    }

    /// Whether text may be coloured: on a terminal, unless NO_COLOR is set (no-color.org) or the terminal is "dumb".
    pub(super) fn has_colour(&self) -> bool {
        let is_terminal = match self.target {
            Target::Output => io::stdout().is_terminal(),
            Target::Error => io::stderr().is_terminal(),
        };
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        is_terminal && !is_unwanted && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
    }

    /// Whether it goes to systemd's journal: JOURNAL_STREAM then names its device and inode (systemd.exec(5)).
    pub(super) fn is_journal(&self) -> bool {
        let file = match self.target {
            Target::Output => rustix::fs::fstat(io::stdout()),
            Target::Error => rustix::fs::fstat(io::stderr()),
        };
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        file.is_ok_and(|file| journal == format!("{}:{}", file.st_dev, file.st_ino))
    }

    fn flush(&self) {
        self.attempt(|stream| stream.flush());
    }

    fn attempt(&self, action: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let mut error = self.error.lock();
        if error.is_none() {
            let result = match self.target {
                Target::Output => action(&mut io::stdout()),
                Target::Error => action(&mut io::stderr()),
            };
            *error = result.err();
        }
    }

    /// The error to report, if there was one.
    fn take_error(&self) -> Option<io::Error> {
        self.flush();
        self.error.lock().take().filter(|error| error.kind() != ErrorKind::BrokenPipe)
    }
}

/// Writes a document of `--json` as a line.
pub(super) fn print_json(document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(text) => writeln!(OUT, "{text}"),
        Err(error) => writeln!(ERR, "tidegate: {error}"),
    }
}

/// The exit code of a verb with this result, after everything it wrote has been flushed.
pub(super) fn finish(verdict: i32) -> i32 {
    if let Some(error) = OUT.take_error() {
        writeln!(ERR, "tidegate: standard output cannot be written: {}", SystemError(&error));
        return super::FAILED;
    }
    // An error of standard error cannot be reported anywhere.
    if ERR.take_error().is_some() { super::FAILED } else { verdict }
}
