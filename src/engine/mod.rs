//! The decisions: what to answer, from where, to whom.
//!
//! [`Engine::handle`] decides at once what it can; [`resolve`] does the rest. Both read one [`snapshot`] of the
//! configuration, which a reload replaces whole.

pub mod access;
pub mod errand;
pub mod failure;
pub mod guard;
pub mod handle;
pub mod part;
pub mod pending;
pub mod perimeter;
pub mod persist;
pub mod query;
pub mod resolve;
pub mod snapshot;

mod shape;
mod store;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use arc_swap::{ArcSwap, Guard};

pub use self::{
    handle::{Action, Asked},
    query::{Carrier, Query},
};
use self::{
    part::Part,
    pending::{Pending, Waiting},
    perimeter::Perimeter,
    snapshot::Snapshot,
};
use crate::{
    cache::{Cache, failures::Failures},
    clock::Moment,
    metrics,
    upstream::{Loops, UpstreamClient},
    wire::{Flags, Header, MAX_MESSAGE, MessageId, cookie::Secret},
};

/// The header of a message that we write for the cache.
const OUR_HEADER: Header = Header { id: MessageId(0), flags: Flags(Flags::QR | Flags::RA), counts: [0; 4] };

/// What all workers share.
#[derive(Debug)]
pub struct Engine {
    snapshot: ArcSwap<Snapshot>,
    /// Answers.
    pub cache: Cache,
    /// Failures, beside the answers (RFC 9520).
    pub failures: Failures,
    /// Questions that wait for an upstream.
    pub pending: Pending<Arc<Part>>,
    /// How many they are.
    pub waiting: Arc<Waiting>,
    /// What cookies are made with where no secret is configured; it ends with the process.
    own_secret: [Secret; 1],
    /// What the answers of upstreams showed of the data perimeter.
    pub perimeter: Perimeter,
    /// Probes of ours that may come back.
    pub loops: Arc<Loops>,
    warned: store::Warned,
}

impl Engine {
    /// With a cache of `cache_size` octets.
    pub fn new(snapshot: Snapshot, cache: Cache, loops: Arc<Loops>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            cache,
            failures: Failures::new(),
            pending: Pending::new(),
            waiting: Arc::default(),
            own_secret: [Secret::new(rand::random())],
            perimeter: Perimeter::new(Moment::now()),
            loops,
            warned: store::Warned::default(),
        }
    }

    /// The configuration in force. Held no longer than a batch; [`Engine::snapshot_owned`] is for what waits.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The configuration in force, to be kept.
    pub fn snapshot_owned(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration in force.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}

/// What one worker works with. It stays on its thread.
#[derive(Clone)]
pub struct Context {
    /// Shared by all workers.
    pub engine: Arc<Engine>,
    /// This worker's sockets to upstreams.
    pub upstream_client: Rc<UpstreamClient>,
    /// This worker's counters.
    pub counters: Arc<metrics::Worker>,
    /// Room for one message of any length; borrowed for a moment at a time.
    pub scratch: Rc<RefCell<Box<[u8]>>>,
}

impl Context {
    /// For one worker.
    pub fn new(engine: Arc<Engine>, upstream_client: Rc<UpstreamClient>, counters: Arc<metrics::Worker>) -> Self {
        Self { engine, upstream_client, counters, scratch: Rc::new(RefCell::new(vec![0; MAX_MESSAGE].into())) }
    }
}
