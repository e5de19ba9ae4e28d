//! Log lines for systemd's journal, in its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! The thread that logs a line formats it, and the log's own thread sends it, as for text and JSON: a journal that
//! hangs costs lines, which are counted, and blocks nobody. tracing-journald sends in the thread that logs, and blocks
//! there.

use std::{
    fmt,
    io::{self, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest value of a field, in octets; a datagram must hold a few.
const LONGEST_VALUE: usize = 32 * 1024;
/// The identifier of our entries.
const IDENTIFIER: &str = "tidegate";

/// The journal's socket: each write is one entry.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Opens a socket to the journal at `path`, if there is one, even one that does not read at the moment.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // The journal ignores an empty datagram.
        match socket.send_to(&[], path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
        socket.set_nonblocking(false)?;
        Ok(Self { socket, path: path.to_owned() })
    }
}

impl Write for Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send_to(entry, &self.path)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats entries and passes them to the log's thread. Our fields are called `F_NAME`.
#[derive(Debug)]
pub(super) struct JournalLayer {
    lines: NonBlocking,
}

impl JournalLayer {
    pub(super) const fn new(lines: NonBlocking) -> Self {
        Self { lines }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry(Vec::with_capacity(512));
        entry.add("PRIORITY", priority(*metadata.level()).as_bytes());
        entry.add("SYSLOG_IDENTIFIER", IDENTIFIER.as_bytes());
        entry.add("TARGET", metadata.target().as_bytes());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            entry.add("CODE_FILE", file.as_bytes());
            entry.add("CODE_LINE", line.to_string().as_bytes());
        }
        event.record(&mut entry);
        // The writer counts lines that do not fit, and never fails.
        drop(self.lines.make_writer().write(&entry.0));
    }
}

/// The priorities of syslog (RFC 5424 6.2.1), with room for TRACE below DEBUG.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    }
}

/// An entry being built.
struct Entry(Vec<u8>);

impl Entry {
    /// Adds a field in the form that allows any value: name, length in 8 octets (little-endian), value.
    fn add(&mut self, name: &str, value: &[u8]) {
        let value = &value[..value.len().min(LONGEST_VALUE)];
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        self.record_str(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.add("MESSAGE", value.as_bytes()),
            name => {
                let letter =
                    |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
                let name: String = "F_".chars().chain(name.chars().map(letter)).collect();
                self.add(&name, value.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_appender::non_blocking::NonBlockingBuilder;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// More lines than the journal's queue and ours hold together.
    const FLOOD: usize = 5000;

    #[test]
    fn a_journal_that_hangs_holds_up_nobody_and_lost_lines_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let hanging = UnixDatagram::bind(&path).unwrap();
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(64);
        let (lines, guard) = builder.finish(Journal::open(&path).unwrap());
        let lost = lines.error_counter();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(JournalLayer::new(lines)), || {
            for number in 0..FLOOD {
                tracing::warn!(number, "line {number}");
            }
        });
        // A blocking writer would have hung for ever at the journal's first full queue.
        assert!(lost.dropped_lines() > 0);
        let mut entry = vec![0; 65_536];
        let mut next = || {
            let length = hanging.recv(&mut entry).unwrap();
            entry[..length].to_vec()
        };
        assert!(next().is_empty(), "the test whether there is a journal");
        let first = next();
        let holds = |field: &[u8]| first.windows(field.len()).any(|window| window == field);
        assert!(holds(b"PRIORITY\n\x01\0\0\0\0\0\0\x004\n") && holds(b"SYSLOG_IDENTIFIER\n"), "{first:?}");
        assert!(
            holds(b"MESSAGE\n\x06\0\0\0\0\0\0\0line 0\n") && holds(b"F_NUMBER\n\x01\0\0\0\0\0\0\x000\n"),
            "{first:?}"
        );
        // Waiting lines leave once the journal reads again: all that were not lost arrive.
        let arrives = FLOOD - lost.dropped_lines();
        for _ in 1..arrives {
            next();
        }
        drop(guard);
    }

    #[test]
    fn no_journal_is_an_error_and_one_that_does_not_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Journal::open(&path).is_err());
        let _hanging = UnixDatagram::bind(&path).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"x", &path).is_ok() {}
        Journal::open(&path).unwrap();
    }
}
