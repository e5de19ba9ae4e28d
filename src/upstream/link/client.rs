//! Sends one worker's queries to servers: the worker's links, its random numbers, its background tasks.
//!
//! A client belongs to one thread and one runtime that can spawn local tasks (a `LocalRuntime`, or a `LocalSet` that is
//! being driven); the tasks start with the first query. One flushes the queries of a turn of the event loop: woken by
//! the first query of the turn, it runs after the other tasks that were ready, so that their queries leave in one
//! batch. Another handles time-outs, ports and idle streams: four times a second while a query waits or a stream is open,
//! otherwise every five seconds. The third wakes queries at their deadlines.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use hashbrown::HashMap;
use rand::rngs::StdRng;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    clock::Moment,
    dnstap::{Tap, Tapped, TappedKind},
    net::mmsg::Inbox,
    upstream::{
        race::{deadlines::Deadlines, late::LateTries},
        server::{Server, tally::Stripe},
    },
    wire::Transport,
};

use super::{Link, udp};

/// How often links are checked while a query waits or a stream is open.
const TICK: Duration = Duration::from_millis(250);
/// How often links are checked otherwise, for ports whose time is over and servers that have left. Each check wakes up a
/// host that may have nothing else to do.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// The index of a worker and the number of workers: each has its share of the source ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerNumber {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl WorkerNumber {
    /// A single worker.
    pub const ALONE: Self = Self { index: 0, count: 1 };

    /// This worker's share of `whole`, at least 1. The shares of all workers add up to `whole`, if there is enough.
    pub(crate) fn share_of(self, whole: u16) -> usize {
        let whole = usize::from(whole);
        let count = self.count.max(1);
        (whole / count + usize::from(self.index < whole % count)).max(1)
    }
}

/// One worker's client for all servers.
pub struct UpstreamClient {
    pub(crate) shared: Rc<Shared>,
    links: Rc<RefCell<Links>>,
    tasks: RefCell<Option<[AbortHandle; 3]>>,
}

type Links = HashMap<u64, Rc<Link>, foldhash::fast::FixedState>;

/// State that the links of a worker share.
pub(crate) struct Shared {
    pub(crate) worker: WorkerNumber,
    tap: Option<Tap>,
    pub(crate) stripe: Stripe,
    pub(crate) random: RefCell<StdRng>,
    pub(crate) inbox: RefCell<Inbox>,
    pub(crate) late_tries: RefCell<LateTries>,
    pub(crate) deadlines: Deadlines,
    /// Links with queries to send at the end of the turn.
    dirty: RefCell<Vec<Rc<Link>>>,
    flusher: Cell<Option<Waker>>,
    /// Notified of queries, so that idle links are checked soon.
    pub(super) asked: Notify,
}

impl Shared {
    /// Copies a query that goes to a server.
    pub(super) fn record_query(&self, server: &Server, transport: Transport, message: &[u8], now: Moment) {
        self.record(TappedKind::ForwarderQuery, server, transport, message, (now, now));
    }

    /// Copies the response to a query that was sent at the first of these times.
    pub(super) fn record_response(
        &self,
        server: &Server,
        transport: Transport,
        message: &[u8],
        times: (Moment, Moment),
    ) {
        self.record(TappedKind::ForwarderResponse, server, transport, message, times);
    }

    fn record(
        &self,
        kind: TappedKind,
        server: &Server,
        transport: Transport,
        message: &[u8],
        (asked, at): (Moment, Moment),
    ) {
        if let Some(tap) = &self.tap {
            let server = Some(server.spec().address);
            tap.record(&Tapped { kind, transport, client: None, server, message, asked, at });
        }
    }

    pub(crate) fn needs_flush(&self, link: &Rc<Link>) {
        self.dirty.borrow_mut().push(Rc::clone(link));
        self.asked.notify_one();
        if let Some(waker) = self.flusher.take() {
            waker.wake();
        }
    }
}

impl UpstreamClient {
    /// A client for this worker. Ids, ports and letter case come from a generator seeded by the operating system.
    pub fn new(worker: WorkerNumber) -> Self {
        Self::tapped(worker, None)
    }

    /// A client with a tap of what it sends and reads.
    pub fn tapped(worker: WorkerNumber, tap: Option<Tap>) -> Self {
        let shared = Shared {
            worker,
            tap,
            stripe: Stripe::of(worker.index),
            random: RefCell::new(rand::make_rng()),
            inbox: RefCell::new(udp::inbox()),
            late_tries: RefCell::default(),
            deadlines: Deadlines::default(),
            dirty: RefCell::default(),
            flusher: Cell::default(),
            asked: Notify::new(),
        };
        Self { shared: Rc::new(shared), links: Rc::default(), tasks: RefCell::default() }
    }

    /// The link to a server.
    pub(crate) fn link(&self, server: &Arc<Server>) -> Rc<Link> {
        if self.tasks.borrow().is_none() {
            self.start();
        }
        let mut links = self.links.borrow_mut();
        let link = links.entry(server.id()).or_insert_with(|| Link::new(Arc::clone(server), Rc::clone(&self.shared)));
        Rc::clone(link)
    }

    fn start(&self) {
        let flusher = tokio::task::spawn_local(flush(Rc::clone(&self.shared)));
        let tender = tokio::task::spawn_local(tend(Rc::clone(&self.shared), Rc::downgrade(&self.links)));
        let shared = Rc::clone(&self.shared);
        let keeper = tokio::task::spawn_local(async move { shared.deadlines.keep().await });
        self.tasks.replace(Some([flusher, tender, keeper].map(|task| task.abort_handle())));
    }
}

impl Drop for UpstreamClient {
    fn drop(&mut self) {
        for task in self.tasks.take().into_iter().flatten() {
            task.abort();
        }
        // The list would keep its links alive.
        self.shared.dirty.take();
    }
}

async fn flush(shared: Rc<Shared>) {
    poll_fn(|context| {
        let mut dirty = shared.dirty.take();
        // A query that could not leave is moved to another port once, and leaves in the next round.
        while !dirty.is_empty() {
            let now = Moment::now();
            for link in dirty.drain(..) {
                udp::flush(&link, now);
            }
            // Keeps the buffer's allocation.
            std::mem::swap(&mut *shared.dirty.borrow_mut(), &mut dirty);
        }
        shared.dirty.replace(dirty);
        shared.flusher.set(Some(context.waker().clone()));
        Poll::<()>::Pending
    })
    .await;
}

async fn tend(shared: Rc<Shared>, links: Weak<RefCell<Links>>) {
    let mut is_idle = false;
    loop {
        match is_idle {
            true => drop(timeout(IDLE_TICK, shared.asked.notified()).await),
            false => sleep(TICK).await,
        }
        let Some(links) = links.upgrade() else { return };
        let now = Moment::now();
        shared.late_tries.borrow_mut().settle(now);
        // A server to which only its link refers has left the configuration, and no query waits for it.
        links.borrow_mut().retain(|_, link| Arc::strong_count(&link.server) > 1);
        let all: Vec<_> = links.borrow().values().map(Rc::clone).collect();
        all.iter().for_each(|link| link.tick(now));
        is_idle = all.iter().all(|link| link.is_idle()) && shared.late_tries.borrow().is_empty();
    }
}
