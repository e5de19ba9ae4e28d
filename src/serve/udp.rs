//! DNS over UDP in batches: read many datagrams, decide each, send many.
//!
//! One system call reads up to [`BATCH`] datagrams and one sends their replies; snapshot and time are read once per
//! batch. Replies to queries that had to wait gather in an outbox, which is sent after the worker has run all ready
//! tasks.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{debug, warn};

use super::proxy;
use crate::{
    clock::Moment,
    engine::{Action, ClientChannel, Context, Incoming, Query, resolve, snapshot::Snapshot},
    metrics::{
        self, DropReason, QueryOutcome,
        worker::{Counted, SampledQuery},
    },
    net::mmsg::{self, Batch, Outbox, Path, Pushed, Sent},
    system_error::SystemError,
    wire::Transport,
};

/// Datagrams read by one system call. More would not be cheaper, and their buffers would not stay in the cache.
pub const BATCH: usize = 32;
const _: () = assert!(BATCH <= 64, "`Sent` names refused replies by a bit each");
/// Batches read without a pause before other tasks of the worker get their turn.
const BATCHES_A_TURN: usize = 8;
/// Batches read after the stop; more than a socket's queue holds. A client that keeps asking cannot delay the end.
const LAST_BATCHES: usize = 1024;
/// The longest query read; longer ones are malformed to us. Not a power of two: buffers a page apart would compete for
/// the same lines of the processor's cache.
const LONGEST_QUERY: usize = 1232;
/// How long a batch's replies wait for room in the socket's buffer. Nothing is read meanwhile, since there would be no
/// room for its replies either.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);
/// Errors in a row, with nothing read between them, after which reading pauses. Reading an error clears it; one that stays
/// would keep the worker busy for ever.
const MOST_ERRORS: u32 = 64;
/// How long reading pauses then.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// The least time between two warnings that reading fails.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Idle tasks kept for the next queries of a socket, a kilobyte each.
const MOST_IDLE: usize = 512;

/// One socket of one worker.
struct Listener {
    socket: AsyncFd<UdpSocket>,
    /// Replies of the batch that the kernel has not taken yet, with how each is counted.
    unsent: RefCell<VecDeque<Counted>>,
    /// Replies to queries that had to wait.
    outbox: RefCell<Outbox>,
    /// The replies in the outbox, with how each is counted.
    unsent_late: RefCell<VecDeque<Counted>>,
    counters: Arc<metrics::WorkerCounters>,
    /// Notified when the outbox gets its first reply.
    filled: Notify,
    /// Tasks without a query, kept for the next one.
    idle: RefCell<Vec<Rc<Resolver>>>,
    /// When a warning that reading fails was last logged.
    warned: Cell<Option<Moment>>,
}

/// A query that waits for its answer, with what it is resolved in.
type Job = (Box<Query>, Rc<Context>);

/// A task that resolves query after query. A new task per query would allocate and copy a kilobyte.
struct Resolver {
    next: Cell<Option<Job>>,
    /// Where the reply to its query goes.
    path: Cell<Path>,
    waker: Cell<Option<Waker>>,
}

impl Resolver {
    fn assign(&self, job: Job, path: Path) {
        self.next.set(Some(job));
        self.path.set(path);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn next(&self) -> Job {
        poll_fn(|context| match self.next.take() {
            Some(job) => Poll::Ready(job),
            None => {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// Serves a socket until the worker ends.
pub async fn serve(
    socket: UdpSocket,
    context: Rc<Context>,
    payload: usize,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = Rc::new(Listener {
        socket: mmsg::for_reading(socket)?,
        unsent: RefCell::new(VecDeque::with_capacity(BATCH)),
        outbox: RefCell::new(Outbox::new(BATCH, payload)),
        unsent_late: RefCell::new(VecDeque::with_capacity(BATCH)),
        counters: Arc::clone(&context.counters),
        filled: Notify::new(),
        idle: RefCell::default(),
        warned: Cell::default(),
    });
    tokio::task::spawn_local(send_late_replies(Rc::clone(&listener)));
    let mut batch = Batch::new(BATCH, LONGEST_QUERY, payload);
    let (mut room, mut errors) = (payload, 0_u32);
    // Registered once: a wake-up for a single query would pay for it each time.
    let mut stopping = stop.clone();
    let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
    loop {
        tokio::select! {
            biased;
            ready = poll_fn(|task| listener.socket.poll_read_ready(task)) => ready?.retain_ready(),
            _ = &mut stopped => break,
        }
        let mut queue = Queue::MayHoldMore;
        for _ in 0..BATCHES_A_TURN {
            let snapshot = context.engine.snapshot();
            // A reload may have raised the payload.
            let payload = usize::from(snapshot.udp_payload);
            if payload > room && listener.make_room(payload) {
                batch = Batch::new(BATCH, LONGEST_QUERY, payload);
                room = payload;
            }
            queue = listener.turn(&mut batch, &context, &snapshot);
            listener.finish(&mut batch).await;
            errors = if matches!(queue, Queue::Unreadable(_)) { errors.saturating_add(1) } else { 0 };
            if matches!(queue, Queue::Empty) {
                break;
            }
        }
        match queue {
            // Waiting for more lets other tasks run.
            Queue::Empty => {}
            Queue::Unreadable(error) if errors >= MOST_ERRORS => {
                listener.say_that_reading_pauses(&error);
                if timeout(READ_PAUSE, &mut stopped).await.is_ok() {
                    break;
                }
            }
            // A socket that is never empty hides the stop from the wait above.
            Queue::MayHoldMore | Queue::Unreadable(_) if *stop.borrow() => break,
            Queue::MayHoldMore | Queue::Unreadable(_) => tokio::task::yield_now().await,
        }
    }
    // Queries received before the stop are answered. The socket is read directly, as the runtime may not have seen them
    // yet.
    for _ in 0..LAST_BATCHES {
        let Ok(read) = batch.recv(listener.socket.as_fd()) else { break };
        listener.take(&mut batch, read, &context, &context.engine.snapshot());
        listener.finish(&mut batch).await;
    }
    Ok(())
}

/// What is known of a socket's receive queue after a batch was read.
#[derive(Debug)]
enum Queue {
    Empty,
    MayHoldMore,
    /// An error was read in place of datagrams.
    Unreadable(io::Error),
}

impl Listener {
    fn turn(self: &Rc<Self>, batch: &mut Batch, context: &Rc<Context>, snapshot: &Snapshot) -> Queue {
        let mut read = 0;
        // A batch that is not full has emptied the queue. Reporting this as "would block" makes the runtime wait for
        // more, without another system call that finds nothing.
        let result = self.socket.try_io(Interest::READABLE, |socket| {
            read = batch.recv(socket.as_fd())?;
            if read < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if read > 0 {
            self.take(batch, read, context, snapshot);
        }
        match result {
            Ok(()) => Queue::MayHoldMore,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Queue::Empty,
            Err(error) => {
                // An error of an earlier reply is reported here; it no longer matters.
                debug!(%error, "reading datagrams");
                Queue::Unreadable(error)
            }
        }
    }

    fn say_that_reading_pauses(&self, error: &io::Error) {
        self.counters.accept_paused(Transport::Udp);
        let now = Moment::now();
        if self.warned.get().is_none_or(|last| now.since(last) >= WARN_EVERY) {
            self.warned.set(Some(now));
            let (transport, error) = (Transport::Udp.label(), SystemError(error));
            warn!(transport, %error, "queries over {transport} are not read for the moment: {error}");
        }
    }

    fn take(self: &Rc<Self>, batch: &mut Batch, read: usize, context: &Rc<Context>, snapshot: &Snapshot) {
        let now = Moment::now();
        if context.counters.sampled.is_due(read) {
            context.counters.sampled.pick(read, |at| {
                let message = batch.message(at);
                let (client, datagram) = behind_balancer(snapshot, message.origin.ip(), message.datagram)?;
                SampledQuery::read(datagram, client)
            });
        }
        for at in 0..read {
            let message = batch.message(at);
            let from = message.origin.ip();
            let Some((client, datagram)) = behind_balancer(snapshot, from, message.datagram) else {
                context.counters.asked(Transport::Udp, from.is_ipv4());
                context.counters.record(QueryOutcome::Dropped(DropReason::Malformed));
                continue;
            };
            context.counters.asked(Transport::Udp, client.is_ipv4());
            let incoming = Incoming { message: datagram, client, carrier: ClientChannel::DATAGRAM, now };
            match context.handle(snapshot, &incoming, message.reply) {
                Action::Drop => {}
                Action::Reply(length) => self.reply(batch, at, length),
                Action::ReplyAndRefresh(length, query) => {
                    self.reply(batch, at, length);
                    refresh(context, query);
                }
                Action::Resolve(query) => self.wait_for(query, message.origin.path(), context),
            }
        }
        self.send(batch);
        context.counters.took_batch(Moment::now().since(now));
    }

    fn reply(&self, batch: &mut Batch, slot: usize, length: usize) {
        batch.reply(slot, length);
        self.unsent.borrow_mut().push_back(self.counters.last_reply());
    }

    fn send(&self, batch: &mut Batch) {
        let sent = batch.send(self.socket.as_fd());
        settle(sent, &mut self.unsent.borrow_mut(), &self.counters);
    }

    /// Sends the remaining replies as soon as the kernel has room.
    async fn finish(&self, batch: &mut Batch) {
        if self.unsent.borrow().is_empty() {
            return;
        }
        let rest = async {
            while !self.unsent.borrow().is_empty() && mmsg::writable(self.socket.get_ref()).await.is_ok() {
                self.send(batch);
            }
        };
        // Replies still left after that are counted as dropped.
        drop(timeout(SEND_TIMEOUT, rest).await);
        self.unsent.borrow_mut().drain(..).for_each(|reply| self.counters.not_sent(reply));
    }

    fn wait_for(self: &Rc<Self>, query: Box<Query>, path: Path, context: &Rc<Context>) {
        let job = (query, Rc::clone(context));
        if let Some(resolver) = self.idle.borrow_mut().pop() {
            return resolver.assign(job, path);
        }
        let resolver = Resolver { next: Cell::new(Some(job)), path: Cell::new(path), waker: Cell::default() };
        tokio::task::spawn_local(resolve_one_by_one(Rc::clone(self), Rc::new(resolver)));
    }

    fn push(&self, path: &Path, write: impl Fn(&mut [u8]) -> usize) {
        let mut outbox = self.outbox.borrow_mut();
        let mut pushed = outbox.push(path, |out| Some(write(out)));
        if pushed == Pushed::Full {
            self.flush(&mut outbox);
            pushed = outbox.push(path, |out| Some(write(out)));
        }
        match pushed {
            Pushed::Queued => self.unsent_late.borrow_mut().push_back(self.counters.last_reply()),
            // The kernel has no room either. The reply is dropped, like any datagram in an overload.
            Pushed::Full => self.counters.dropped(DropReason::Overload),
            Pushed::Unwritten => {}
        }
        self.filled.notify_one();
    }

    /// Makes room for longer late replies, unless shorter ones are still waiting for the kernel.
    fn make_room(&self, payload: usize) -> bool {
        let is_empty = self.flush_late() == 0;
        if is_empty {
            self.outbox.replace(Outbox::new(BATCH, payload));
        }
        is_empty
    }

    /// Sends the late replies and returns how many still wait.
    fn flush_late(&self) -> usize {
        let mut outbox = self.outbox.borrow_mut();
        self.flush(&mut outbox);
        outbox.waiting()
    }

    fn flush(&self, outbox: &mut Outbox) {
        let sent = outbox.flush(self.socket.as_fd());
        settle(sent, &mut self.unsent_late.borrow_mut(), &self.counters);
    }
}

/// The client of a datagram and its query, behind the header that a balancer's begins with; none if that is damaged.
#[inline]
fn behind_balancer<'a>(snapshot: &Snapshot, from: IpAddr, datagram: &'a [u8]) -> Option<(IpAddr, &'a [u8])> {
    if !proxy::is_balancer(&snapshot.balancers, from) {
        return Some((from, datagram));
    }
    let (client, start) = proxy::parse(datagram, SocketAddr::new(from, 0))?;
    Some((client.ip(), &datagram[start..]))
}

/// Forgets the replies that were sent, and counts those that the kernel refused.
fn settle(sent: io::Result<Sent>, unsent: &mut VecDeque<Counted>, counters: &metrics::WorkerCounters) {
    let (gone, refused) = match sent {
        Ok(sent) => {
            if let Some(error) = sent.error {
                debug!(%error, "replies were not sent");
            }
            (sent.sent + sent.failed, sent.failed_slots)
        }
        Err(error) => {
            debug!(%error, "replies were not sent");
            (unsent.len(), u64::MAX)
        }
    };
    let gone = unsent.drain(..gone.min(unsent.len()));
    if refused != 0 {
        let is_refused = |slot: usize| refused >> slot & 1 == 1;
        gone.enumerate().filter(|(slot, _)| is_refused(*slot)).for_each(|(_, reply)| counters.not_sent(reply));
    }
}

/// Resolves the queries that the task is assigned. An idle task holds nothing of the worker but its socket. What lives
/// over the wait for an answer is as little as can be: thousands of queries may wait.
async fn resolve_one_by_one(listener: Rc<Listener>, own: Rc<Resolver>) {
    loop {
        let (query, context) = own.next().await;
        {
            let reply = resolve::resolve(&context, &query).await;
            listener.push(&own.path.get(), |out| reply.write(&context, &query, out));
        }
        drop((query, context));
        let mut idle = listener.idle.borrow_mut();
        if idle.len() == MOST_IDLE {
            return;
        }
        idle.push(Rc::clone(&own));
    }
}

async fn send_late_replies(listener: Rc<Listener>) {
    loop {
        listener.filled.notified().await;
        // The rest is sent as soon as the kernel has room.
        while listener.flush_late() > 0 {
            if let Err(error) = mmsg::writable(listener.socket.get_ref()).await {
                debug!(%error, "waiting to send late replies");
                break;
            }
        }
    }
}

/// Fetches an answer again, only for the cache.
pub(super) fn refresh(context: &Rc<Context>, query: Box<Query>) {
    let context = Rc::clone(context);
    tokio::task::spawn_local(async move {
        resolve::resolve(&context, &query).await;
    });
}
