//! The thread that writes to the collector.
//!
//! Policy:
//! - A collector that is not there, goes away or takes nothing for [`TIMEOUT`] is tried again after 0.25 s, then after
//!   twice that, up to 30 s. What comes meanwhile waits in the queue as long as there is room.
//! - The log has one line when the collector is lost, and one when it is back.
//! - At the end the queue is written out, within [`LAST`].

use std::{
    fs,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tracing::{info, warn};

use super::{
    Copied, DnstapTarget, Load, Tap, frames,
    message::{self, DnstapIdentity},
};
use crate::{
    clock::{self, Moment},
    system_error::SystemError,
};

/// A collector that neither reads nor writes for this long counts as gone.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for the last messages.
const LAST: Duration = Duration::from_secs(1);
/// The pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often an idle writer checks whether to end.
const LOOK: Duration = Duration::from_millis(100);
/// Roughly how many octets are written at once.
const BATCH: usize = 64 << 10;

/// The thread that writes. Dropped without [`DnstapWriter::stop`], it ends with the process.
#[derive(Debug)]
pub struct DnstapWriter {
    tap: Tap,
    is_stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl DnstapWriter {
    /// Starts the thread, which connects later. `version` is our version, as collectors are told.
    pub fn start(target: DnstapTarget, version: &str) -> io::Result<Self> {
        let (tap, queue) = Tap::new();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let host = fs::read("/proc/sys/kernel/hostname").ok().map(|host| host.trim_ascii().to_vec());
        let writer = CollectorWriter {
            target,
            queue,
            load: Arc::clone(&tap.load),
            is_stopping: Arc::clone(&is_stopping),
            identity: DnstapIdentity { host, version: version.as_bytes().to_vec() },
            is_lost: false,
        };
        let run = move || {
            writer.run();
            // If the time limit has passed, nothing waits for this message.
            end.send(()).ok();
        };
        let thread = thread::Builder::new().name("dnstap".to_owned()).spawn(run)?;
        Ok(Self { tap, is_stopping, thread, ended })
    }

    /// A tap into its queue.
    pub fn tap(&self) -> Tap {
        self.tap.clone()
    }

    /// Writes the waiting messages, and ends.
    pub fn stop(self) {
        self.is_stopping.store(true, Relaxed);
        self.thread.thread().unpark();
        self.ended.recv_timeout(LAST).ok();
    }
}

struct CollectorWriter {
    target: DnstapTarget,
    queue: Receiver<Copied>,
    load: Arc<Load>,
    is_stopping: Arc<AtomicBool>,
    identity: DnstapIdentity,
    /// Whether the log says that there is no collector.
    is_lost: bool,
}

impl CollectorWriter {
    fn run(mut self) {
        let mut pause = PAUSES.0;
        while !self.is_stopping.load(Relaxed) {
            let error = match self.connect() {
                Ok(stream) => {
                    pause = PAUSES.0;
                    self.found();
                    match self.write_all_that_comes(stream) {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.lost(&error);
            thread::park_timeout(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn found(&mut self) {
        self.is_lost = false;
        let target = &self.target;
        info!(%target, "dnstap messages go to {target}");
    }

    fn lost(&mut self, error: &io::Error) {
        let (target, error) = (&self.target, SystemError(error));
        if !std::mem::replace(&mut self.is_lost, true) {
            warn!(%target, %error, "no dnstap messages reach {target} (log.dnstap): {error}; it is tried again");
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let (domain, address) = match &self.target {
            DnstapTarget::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
            DnstapTarget::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        };
        let mut stream = Socket::new(domain, Type::STREAM, None)?;
        stream.connect_timeout(&address, TIMEOUT)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        frames::begin(&mut stream)?;
        Ok(stream)
    }

    /// Writes until the end, or until the collector is gone.
    fn write_all_that_comes(&self, mut stream: Socket) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            match self.queue.recv_timeout(LOOK) {
                Ok(first) => self.write_batch(&mut stream, first, &mut batch)?,
                Err(RecvTimeoutError::Timeout) if self.is_stopping.load(Relaxed) => return frames::end(&mut stream),
                Err(RecvTimeoutError::Timeout) => check(&mut stream)?,
                Err(RecvTimeoutError::Disconnected) => return frames::end(&mut stream),
            }
        }
    }

    fn write_batch(&self, stream: &mut Socket, first: Copied, batch: &mut Vec<u8>) -> io::Result<()> {
        batch.clear();
        let clocks = (clock::wall(), Moment::now());
        let (mut next, mut count) = (Some(first), 0);
        while let Some(copied) = next {
            self.load.octets.fetch_sub(copied.message.len(), Relaxed);
            frames::append_data(batch, |out| message::encode(copied, &self.identity, clocks, out));
            count += 1;
            next = if batch.len() < BATCH { self.queue.try_recv().ok() } else { None };
        }
        // A connection that was closed still takes what is written first.
        let written = check(stream).and_then(|()| stream.write_all(batch));
        written.inspect_err(|_| self.load.count_dropped(count))
    }
}

/// Finds out whether the collector has closed the connection: until the end it says nothing.
fn check(stream: &mut Socket) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks out of turn")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
