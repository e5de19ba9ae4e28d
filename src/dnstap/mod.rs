//! dnstap: copies of DNS messages for a collector, as Frame Streams over a Unix socket or TCP (<https://dnstap.info>).
//!
//! [`Tap`] is what the query path has. It copies a message into a bounded queue, or counts it as dropped, and never
//! waits. [`DnstapWriter`] is the thread that connects, encodes and writes; while there is no collector it tries again,
//! with growing pauses. Without a tap, a query costs one comparison.

mod frames;
mod message;
mod writer;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
};

pub use self::writer::DnstapWriter;
use crate::{clock::Moment, wire::Transport};

/// The most messages in the queue.
const MOST_MESSAGES: usize = 8192;
/// The most octets of the messages in the queue.
const MOST_OCTETS: usize = 8 << 20;

/// Where the collector listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DnstapTarget {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for DnstapTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Which way a message went. The numbers are dnstap's (`Message.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TappedKind {
    /// From a client to us.
    ClientQuery = 5,
    /// From us to a client.
    ClientResponse = 6,
    /// From us to an upstream.
    ForwarderQuery = 7,
    /// From an upstream to us.
    ForwarderResponse = 8,
}

/// A message to be copied.
#[derive(Debug, Clone, Copy)]
pub struct Tapped<'a> {
    /// Which way it went.
    pub kind: TappedKind,
    /// What carried it.
    pub transport: Transport,
    /// The client, of client messages.
    pub client: Option<IpAddr>,
    /// The upstream, of forwarder messages.
    pub server: Option<SocketAddr>,
    /// Its octets.
    pub message: &'a [u8],
    /// When the query was read or sent.
    pub asked: Moment,
    /// When this message was read or sent.
    pub at: Moment,
}

/// Takes copies of messages. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Tap {
    queue: SyncSender<Copied>,
    load: Arc<Load>,
}

/// Counts of waiting and dropped messages.
#[derive(Debug, Default)]
struct Load {
    octets: AtomicUsize,
    dropped: AtomicU64,
}

/// A message in the queue.
#[derive(Debug)]
struct Copied {
    kind: TappedKind,
    transport: Transport,
    client: Option<IpAddr>,
    server: Option<SocketAddr>,
    message: Box<[u8]>,
    asked: Moment,
    at: Moment,
}

impl Tap {
    /// A tap, and the receiver of its queue.
    fn new() -> (Self, std::sync::mpsc::Receiver<Copied>) {
        let (queue, copied) = sync_channel(MOST_MESSAGES);
        (Self { queue, load: Arc::default() }, copied)
    }

    /// Copies a message into the queue, or counts it as dropped where there is no room.
    #[cold]
    #[inline(never)]
    pub fn record(&self, tapped: &Tapped<'_>) {
        let length = tapped.message.len();
        if self.load.octets.fetch_add(length, Relaxed) + length <= MOST_OCTETS {
            let &Tapped { kind, transport, client, server, message, asked, at } = tapped;
            let copied = Copied { kind, transport, client, server, message: message.into(), asked, at };
            if self.queue.try_send(copied).is_ok() {
                return;
            }
        }
        self.load.octets.fetch_sub(length, Relaxed);
        self.load.count_dropped(1);
    }

    /// How many messages no collector got.
    pub fn dropped(&self) -> u64 {
        self.load.dropped.load(Relaxed)
    }
}

impl Load {
    fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let (tap, copied) = Tap::new();
        let record = |message: &[u8]| {
            tap.record(&Tapped {
                kind: TappedKind::ClientQuery,
                transport: Transport::Udp,
                client: None,
                server: None,
                message,
                asked: Moment::default(),
                at: Moment::default(),
            });
        };
        (0..MOST_MESSAGES + 3).for_each(|_| record(&[0; 12]));
        assert_eq!(tap.dropped(), 3);
        assert_eq!(copied.try_iter().count(), MOST_MESSAGES);
        let (tap, _copied) = Tap::new();
        let long = vec![0; 65_535];
        for _ in 0..MOST_MESSAGES {
            tap.record(&Tapped {
                kind: TappedKind::ClientResponse,
                transport: Transport::Tcp,
                client: None,
                server: None,
                message: &long,
                asked: Moment::default(),
                at: Moment::default(),
            });
        }
        assert_eq!(
            tap.dropped(),
            (MOST_MESSAGES - MOST_OCTETS / 65_535) as u64,
            "long ones are bounded by their octets"
        );
    }
}
