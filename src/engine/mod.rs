//! Decides what to answer, from which source, to which client.
//!
//! [`Engine::handle`] decides at once what it can; [`resolve`] does the rest. Both read one [`snapshot`] of the
//! configuration, which a reload replaces whole.

pub mod access;
pub mod client_limit;
pub mod error;
pub mod explain;
pub mod guard;
pub mod handle;
pub mod part;
pub mod pending;
pub mod persist;
pub mod query;
pub mod query_log;
pub mod resolution;
pub mod resolve;
pub mod snapshot;

mod rotation;
mod shape;
mod store;
mod trace;

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    rc::Rc,
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};

use self::{
    client_limit::ClientBuckets,
    part::Part,
    pending::{Pending, Waiting},
    persist::Restored,
    snapshot::Snapshot,
};
pub use self::{
    handle::{Action, Incoming},
    query::{ClientChannel, Query},
};
use crate::{
    cache::{Cache, failures::Failures, snapshot::SnapshotError},
    clock::Moment,
    dnstap::{Tap, Tapped, TappedKind},
    metrics,
    otlp::Tracer,
    perimeter::Perimeter,
    upstream::{Loops, UpstreamClient},
    wire::{Flags, Header, MAX_MESSAGE, MessageId, cookie::Secret},
};

/// The header of a message that we write for the cache.
const OUR_HEADER: Header = Header { id: MessageId(0), flags: Flags(Flags::QR | Flags::RA), counts: [0; 4] };

/// The state that all workers share.
#[derive(Debug)]
pub struct Engine {
    snapshot: ArcSwap<Snapshot>,
    /// Answers.
    pub cache: Cache,
    /// Failures, beside the answers (RFC 9520).
    pub failures: Failures<store::KnownFailure>,
    /// Failed attempts for names with a stale answer, with the state of the servers at that time.
    pub(crate) stale_rounds: Failures<u64>,
    /// Queries that wait for an upstream.
    pub pending: Pending<Part>,
    /// How many queries wait.
    pub waiting: Arc<Waiting>,
    /// The random cookie secret used if none is configured. It is not stored.
    own_secret: [Secret; 1],
    /// Which names were private or public, as upstreams answered.
    pub perimeter: Perimeter,
    /// Our own probes that may come back through an upstream.
    pub loops: Arc<Loops>,
    /// Names whose answers the guard was warned about lately.
    warned: part::Warned,
    /// How often each client asks.
    clients: ClientBuckets,
}

impl Engine {
    /// An engine with this snapshot and cache.
    pub fn new(snapshot: Snapshot, cache: Cache, loops: Arc<Loops>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            cache,
            failures: Failures::new(),
            stale_rounds: Failures::new(),
            pending: Pending::new(),
            waiting: Arc::default(),
            own_secret: [Secret::new(rand::random())],
            perimeter: Perimeter::new(Moment::now()),
            loops,
            warned: part::Warned::default(),
            clients: ClientBuckets::default(),
        }
    }

    /// The configuration in force, to be held no longer than a batch. Tasks that wait use [`Engine::snapshot_owned`].
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The configuration in force, owned.
    pub fn snapshot_owned(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration in force.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Forgets every failure: other rules are in force, or other servers.
    pub fn forget_failures(&self) {
        self.failures.clear();
        self.stale_rounds.clear();
    }

    /// Decides about one message. `reply` takes a reply of `udp_payload` octets, or 65,535 for a stream.
    pub fn handle(
        &self,
        snapshot: &Snapshot,
        counters: &metrics::WorkerCounters,
        incoming: &Incoming<'_>,
        reply: &mut [u8],
    ) -> Action {
        handle::handle(self, snapshot, counters, incoming, reply)
    }

    /// Writes the cache as of `now`, which is `wall` seconds since 1970; returns the output and the number of entries.
    pub fn save<W: Write>(&self, out: W, now: Moment, wall: u64) -> io::Result<(W, u32)> {
        persist::save(self, out, now, wall)
    }

    /// Restores the entries of a snapshot file, at `wall` seconds since 1970.
    pub fn restore<R: Read>(&self, input: R, now: Moment, wall: u64) -> Result<Restored, SnapshotError> {
        persist::restore(self, input, now, wall)
    }

    /// Takes what a snapshot from elsewhere holds into the cache that is in use, `wall` seconds since 1970. A damaged
    /// one changes nothing.
    pub fn import(&self, octets: &[u8], now: Moment, wall: u64) -> Result<Restored, SnapshotError> {
        persist::import(self, octets, now, wall)
    }
}

/// The state of one worker. It stays on the worker's thread.
#[derive(Clone)]
pub struct Context {
    /// Shared by all workers.
    pub engine: Arc<Engine>,
    /// This worker's sockets to upstreams.
    pub upstream_client: Rc<UpstreamClient>,
    /// This worker's counters.
    pub counters: Arc<metrics::WorkerCounters>,
    /// Room for one message of any length; borrowed for a moment at a time.
    pub scratch: Rc<RefCell<Box<[u8]>>>,
    /// Where copies of clients' messages go.
    pub tap: Option<Tap>,
    /// Begins traces of queries that the cache cannot answer.
    pub tracer: Option<Tracer>,
}

impl Context {
    /// The context of one worker.
    pub fn new(
        engine: Arc<Engine>,
        upstream_client: Rc<UpstreamClient>,
        counters: Arc<metrics::WorkerCounters>,
    ) -> Self {
        let scratch = Rc::new(RefCell::new(vec![0; MAX_MESSAGE].into()));
        Self { engine, upstream_client, counters, scratch, tap: None, tracer: None }
    }

    /// Adds a tap of clients' messages.
    pub fn with_tap(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// The same, with traces.
    pub fn with_tracer(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// [`Engine::handle`], past the tap.
    #[inline]
    pub fn handle(&self, snapshot: &Snapshot, incoming: &Incoming<'_>, reply: &mut [u8]) -> Action {
        let action = self.engine.handle(snapshot, &self.counters, incoming, reply);
        if let Some(tap) = &self.tap {
            record(tap, incoming, &action, reply);
        }
        action
    }
}

/// Copies a client's query, and the reply where it was made at once. What gets no reply is not copied.
#[cold]
#[inline(never)]
fn record(tap: &Tap, incoming: &Incoming<'_>, action: &Action, reply: &[u8]) {
    let &Incoming { message, client, carrier, now } = incoming;
    let length = match action {
        Action::Drop => return,
        Action::Resolve(_) => None,
        Action::Reply(length) | Action::ReplyAndRefresh(length, _) => Some(*length),
    };
    let transport = carrier.transport;
    let query = Tapped {
        kind: TappedKind::ClientQuery,
        transport,
        client: Some(client),
        server: None,
        message,
        asked: now,
        at: now,
    };
    tap.record(&query);
    if let Some(message) = length.and_then(|length| reply.get(..length)) {
        tap.record(&Tapped { kind: TappedKind::ClientResponse, message, at: Moment::now(), ..query });
    }
}
