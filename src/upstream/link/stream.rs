//! Kept connections to a server (RFC 7766, RFC 7858): queries pipelined on them, answers in any order.
//!
//! A connection is opened by the first query that needs one, up to `connections` of them while the others are busy, and
//! is closed after it was idle for a while. If nothing arrived for a whole time-out although queries wait, or a query
//! was meanwhile answered on another connection, the connection takes no more queries and closes when its own have
//! ended. If the server closes a connection that carried answers before, its queries are asked again on a new one (RFC
//! 7766 6.2.4). A server that sends one octet a second, or never finishes a handshake, delays no other query: each
//! keeps its own limit. A server with a wrong certificate gets no query and is down.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    ops::ControlFlow,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::task::AbortHandle;

use crate::{
    clock::Moment,
    upstream::{
        race::{EdnsUse, Leg, Outcome, Race, SendError},
        server::{Role, Server, connect_error::ConnectError, health::Event, tally::QueryResult},
        spec::LetterCase,
    },
    wire::{MessageId, Transport, UpstreamQuery},
};

use super::{
    Link,
    allowance::Allowance,
    framed::{self, SendQueue},
    https,
    in_flight::{Flight, FlightKey, InFlight},
    open::{Carrier, open},
    pool::{self, LocalPath},
    quic,
    requests::{self, Reply, RequestError, RequestResult},
};

/// How long an idle connection is kept (RFC 7766 6.2.3: the order of seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long an idle encrypted connection is kept: another handshake costs more than the memory (RFC 7858 3.4).
const IDLE_ENCRYPTED: Duration = Duration::from_secs(60);
/// The most queries in flight on one connection; more would mean that nobody reads them.
const MOST_IN_FLIGHT: usize = 8192;

/// Messages allowed on a connection beyond one for each query. A late answer belongs to a query.
const MOST_UNASKED: u64 = 8;

/// The most connections to a server that answers only one query on each.
const MOST_ONE_EACH: usize = 64;

/// One worker's connections to one server.
#[derive(Default)]
pub(super) struct Streams(Vec<Rc<Stream>>);

impl Streams {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A connection, being opened or open.
pub(super) struct Stream {
    /// The path on which it was opened.
    path: Option<LocalPath>,
    transport: Transport,
    in_flight: RefCell<InFlight>,
    /// Serial number of the last query.
    last_serial: Cell<u32>,
    queue: SendQueue,
    /// What the server may send.
    allowance: Allowance,
    /// Messages that have arrived.
    received: Cell<u64>,
    /// When the connection opened; the RTT of its queries starts no earlier.
    opened: Cell<Moment>,
    /// When a query was last put on it.
    last_query: Cell<Moment>,
    /// When a message last arrived.
    last_message: Cell<Moment>,
    /// Whether it takes no more queries, and closes when its own have ended.
    is_retired: Cell<bool>,
    task: RefCell<Option<AbortHandle>>,
}

impl Link {
    /// Sends a query on a connection. On an error nothing was sent.
    pub(super) fn post_stream(
        self: &Rc<Self>,
        race: &Rc<Race>,
        leg: Leg,
        edns: EdnsUse,
        now: Moment,
    ) -> Result<(), SendError> {
        let is_repeat = leg.slot > 0 || leg.number > 1;
        let stream = self.stream(race, is_repeat, now).ok_or(SendError::Network)?;
        let mut in_flight = stream.in_flight.borrow_mut();
        let serial = stream.last_serial.get().wrapping_add(1);
        stream.last_serial.set(serial);
        let flight = Flight::new(race, leg, edns, serial, now);
        // Off-path attackers cannot inject into a connection, so the letter case needs no randomness.
        let case = LetterCase::Lower;
        let flight = in_flight.insert(flight, case, &mut self.shared.random.borrow_mut()).ok_or(SendError::Network)?;
        let mut query = [0; UpstreamQuery::MAX_PADDED];
        let mut length = flight.write(&mut query).unwrap_or(0);
        if stream.transport.is_encrypted() && flight.has_edns() {
            length = UpstreamQuery::pad(&mut query, length);
        }
        stream.allowance.add_query();
        stream.queue.push(&query[..length]);
        self.shared.record_query(&self.server, stream.transport, &query[..length], now);
        stream.last_query.set(now);
        if self.is_proper(&stream) {
            self.pool.borrow_mut().asked(now);
        }
        self.shared.asked.notify_one();
        self.server.tally.waiting(self.shared.stripe, 1);
        Ok(())
    }

    /// Notes that a query was answered on the connection it was sent on at `asked_at`. If another connection had
    /// carried answers and has been mute since, the server answers only one query per connection.
    pub(crate) fn note_mute(&self, race: &Rc<Race>, asked_at: Moment, now: Moment) {
        let is_mute = |stream: &Rc<Stream>| {
            stream.received.get() > 0 && stream.last_message.get() < asked_at && stream.in_flight.borrow().has(race)
        };
        let mute: Vec<_> = self.streams.borrow().0.iter().filter(|stream| is_mute(stream)).map(Rc::clone).collect();
        if !mute.is_empty() {
            self.server.quirks.was_mute(now);
        }
        for stream in mute {
            stream.is_retired.set(true);
        }
    }

    /// Whether there is a connection that has carried answers.
    pub(crate) fn has_stream(&self) -> bool {
        self.streams.borrow().0.iter().any(|stream| stream.received.get() > 0 && !stream.is_retired.get())
    }

    /// The least busy connection, or a new one if all are busy and another is allowed. A query that was left unanswered
    /// on one connection is asked again on another.
    fn stream(self: &Rc<Self>, race: &Rc<Race>, is_repeat: bool, now: Moment) -> Option<Rc<Stream>> {
        let mut streams = self.streams.borrow_mut();
        let limits = race.group.limits();
        let waiting = |stream: &Rc<Stream>| stream.in_flight.borrow().len();
        let answers_once = self.server.quirks.answers_once(now);
        let is_open = |stream: &&Rc<Stream>| !stream.is_retired.get();
        let is_other = |stream: &&Rc<Stream>| !is_repeat || !stream.in_flight.borrow().has(race);
        let is_unused = |stream: &&Rc<Stream>| !answers_once || (stream.received.get() == 0 && waiting(stream) == 0);
        let usable = || streams.0.iter().filter(is_open).filter(is_other).filter(is_unused);
        let least = usable().min_by_key(|stream| waiting(stream)).map(Rc::clone);
        let is_left_out = streams.0.iter().filter(is_open).any(|stream| !is_other(&stream));
        let most = if answers_once { MOST_ONE_EACH } else { limits.connections.max(1) + usize::from(is_left_out) };
        let is_full = streams.0.iter().filter(is_open).count() >= most;
        let least = least.or_else(|| {
            let any = || streams.0.iter().filter(is_open).min_by_key(|stream| waiting(stream)).map(Rc::clone);
            is_full.then(any).flatten()
        });
        if let Some(stream) = least
            && (waiting(&stream) == 0 || is_full)
        {
            return (waiting(&stream) < MOST_IN_FLIGHT).then_some(stream);
        }
        let timeout = limits.timeout;
        let stream = Rc::new(Stream {
            path: pool::path_now(self),
            transport: self.server.spec().transport.of_streams(),
            in_flight: RefCell::default(),
            last_serial: Cell::default(),
            queue: SendQueue::default(),
            allowance: Allowance::default(),
            received: Cell::new(0),
            opened: Cell::default(),
            last_query: Cell::new(now),
            last_message: Cell::default(),
            is_retired: Cell::new(false),
            task: RefCell::default(),
        });
        let task = tokio::task::spawn_local(run(Rc::clone(&stream), Rc::downgrade(self), timeout));
        stream.task.replace(Some(task.abort_handle()));
        streams.0.push(Rc::clone(&stream));
        Some(stream)
    }

    /// Ends a connection; its queries are to be asked elsewhere.
    fn stream_ended(&self, stream: &Rc<Stream>, end: End, now: Moment) {
        self.retire(stream);
        let lost = stream.in_flight.borrow_mut().drain();
        let is_renewable = end == End::Moved || end == End::Closed && stream.received.get() > 0;
        if end == End::Closed && stream.received.get() == 1 && !lost.is_empty() {
            self.server.quirks.was_mute(now);
        }
        if self.server.spec().transport == stream.transport {
            match end {
                End::Refused => self.server.observe(Event::Refused, now),
                End::Untrusted => self.server.observe(Event::Untrusted, now),
                End::Unreachable => self.server.late(now, now, Role::Traffic),
                // The server accepts connections but answers nothing on them.
                End::Closed if !is_renewable && !lost.is_empty() => self.server.observe(Event::Broken, now),
                End::Closed | End::Moved | End::Local => {}
            }
        }
        for flight in lost {
            let outcome = match end {
                _ if is_renewable => Outcome::Closed,
                End::Local => Outcome::NotSent,
                _ => Outcome::Failed(QueryResult::Network, None),
            };
            self.conclude(&flight, outcome, stream.transport, now);
        }
    }

    /// Handles a message on a connection. Too many unsolicited messages end the connection.
    fn receive_framed(&self, stream: &Stream, message: &[u8], now: Moment) -> ControlFlow<()> {
        self.count_message(stream, now);
        let taken = stream.in_flight.borrow_mut().take(message, None);
        match taken {
            Ok((mut flight, outcome)) => {
                flight.sent_no_sooner_than(stream.opened.get());
                self.shared.record_response(&self.server, stream.transport, message, (flight.sent_at(), now));
                // TC has no meaning on a stream.
                let outcome = if matches!(outcome, Outcome::Truncated) { Outcome::malformed() } else { outcome };
                if self.server.quirks.answers_once(now) {
                    stream.is_retired.set(true);
                }
                self.conclude(&flight, outcome, stream.transport, now);
            }
            Err(reason) => self.server.tally.mismatched(self.shared.stripe, reason),
        }
        let asked = u64::from(stream.last_serial.get());
        if stream.received.get() > asked + MOST_UNASKED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Handles the end of a query on its own stream. If it had expired before, its id may already be reused.
    fn receive_alone(&self, stream: &Stream, key: FlightKey, ended: RequestResult, now: Moment) {
        let taken = stream.in_flight.borrow_mut().take_key(key);
        let Some(mut flight) = taken else { return };
        flight.sent_no_sooner_than(stream.opened.get());
        let outcome = match ended {
            Ok(reply) => {
                self.count_message(stream, now);
                let times = (flight.sent_at(), now);
                self.shared.record_response(&self.server, stream.transport, &reply.message, times);
                self.read_alone(&flight, &reply)
            }
            Err(RequestError::Late) => return self.ended(&flight, stream.transport, QueryResult::Timeout),
            Err(RequestError::Closed) if stream.received.get() > 0 => Outcome::Closed,
            Err(RequestError::Closed) => Outcome::Failed(QueryResult::Network, None),
            Err(RequestError::Refused(error)) => {
                self.server.set_connect_error(Some(error));
                Outcome::malformed()
            }
        };
        self.conclude(&flight, outcome, stream.transport, now);
    }

    fn count_message(&self, stream: &Stream, now: Moment) {
        stream.received.set(stream.received.get() + 1);
        stream.last_message.set(now);
        if self.is_proper(stream) {
            self.pool.borrow_mut().answered();
        }
    }

    /// Whether it has the server's own transport, and is not just for what was truncated over UDP.
    fn is_proper(&self, stream: &Stream) -> bool {
        self.server.spec().transport == stream.transport
    }

    /// Whether queries wait on a connection.
    pub(super) fn waits_on_streams(&self) -> bool {
        self.streams.borrow().0.iter().any(|stream| !stream.in_flight.borrow().is_empty())
    }

    fn read_alone(&self, flight: &Flight, reply: &Reply) -> Outcome {
        match flight.read(&reply.message, MessageId(0)) {
            Ok(Outcome::Answer(mut response)) => {
                response.age(reply.age);
                Outcome::Answer(response)
            }
            Ok(Outcome::Truncated) => Outcome::malformed(),
            Ok(other) => other,
            Err(reason) => {
                self.server.tally.mismatched(self.shared.stripe, reason);
                Outcome::malformed()
            }
        }
    }

    /// Sends no more queries on this connection.
    fn retire(&self, stream: &Rc<Stream>) {
        self.streams.borrow_mut().0.retain(|kept| !Rc::ptr_eq(kept, stream));
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server's host refused the connection.
    Refused,
    /// It could not be opened.
    Unreachable,
    /// This host could not open it.
    Local,
    /// The server could not prove its identity.
    Untrusted,
    /// It was open, and was closed.
    Closed,
    /// We closed it, because the path to the server has changed.
    Moved,
}

impl End {
    fn of(error: &ConnectError) -> Self {
        match error {
            ConnectError::Network(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Self::Refused,
            ConnectError::Local { .. } => Self::Local,
            other if other.is_about_identity() => Self::Untrusted,
            _ => Self::Unreachable,
        }
    }
}

async fn run(stream: Rc<Stream>, link: Weak<Link>, timeout: Duration) {
    // Held only until the connection is open: a server that only its link refers to is forgotten.
    let Some(server) = link.upgrade().map(|link| Arc::clone(&link.server)) else { return };
    let opening =
        tokio::time::timeout(timeout, open(server.spec(), stream.transport, server.tls(), &stream.allowance)).await;
    let opened = opening.unwrap_or(Err(ConnectError::Slow));
    note(&server, stream.transport, opened.as_ref().err());
    drop(server);
    let end = match opened {
        Ok(carrier) => {
            stream.opened.set(Moment::now());
            carry(&stream, &link, carrier).await;
            End::Closed
        }
        Err(error) => End::of(&error),
    };
    if let Some(link) = link.upgrade() {
        link.stream_ended(&stream, end, Moment::now());
    }
}

async fn carry(stream: &Rc<Stream>, link: &Weak<Link>, carrier: Carrier) {
    let receive = |message: &[u8]| match link.upgrade() {
        Some(link) => link.receive_framed(stream, message, Moment::now()),
        None => ControlFlow::Break(()),
    };
    match carrier {
        Carrier::Tcp(io) => framed::carry(&stream.queue, io, receive).await,
        Carrier::Tls(io) => framed::carry(&stream.queue, io, receive).await,
        Carrier::Https(https, uri) => {
            let (sender, closed, _kept) = https.into_parts();
            let ask = move |query| https::ask(sender.clone(), uri.clone(), query);
            carry_requests(stream, link, closed, ask).await;
        }
        Carrier::Quic(quic) => {
            let (sender, closed, _kept) = quic.into_parts();
            let ask = move |query| quic::ask(sender.clone(), query);
            carry_requests(stream, link, closed, ask).await;
        }
    }
}

async fn carry_requests<F: Future<Output = RequestResult> + 'static>(
    stream: &Rc<Stream>,
    link: &Weak<Link>,
    closed: impl Future<Output = ()>,
    ask: impl Fn(Vec<u8>) -> F,
) {
    let closed = async {
        closed.await;
        if let Some(link) = link.upgrade() {
            link.retire(stream);
        }
    };
    let find = |id| stream.in_flight.borrow().key(id);
    let settle = |key, ended| {
        if let Some(link) = link.upgrade() {
            link.receive_alone(stream, key, ended, Moment::now());
        }
    };
    requests::carry(&stream.queue, closed, ask, find, settle).await;
}

/// Records why a connection failed, or that it opened, for status and log.
fn note(server: &Server, transport: Transport, error: Option<&ConnectError>) {
    if let Some(cause) = error {
        let (group, label) = (server.group(), server.label());
        tracing::debug!(group, server = label, transport = transport.label(), %cause, "upstream connection not opened");
        if let ConnectError::Local { code } = cause {
            server.could_not_send(&io::Error::from_raw_os_error(*code), Moment::now());
        }
    }
    if server.spec().transport == transport {
        server.set_connect_error(error.cloned());
    }
}

/// Expires queries, and closes connections that are idle or dead.
pub(super) fn tend(link: &Rc<Link>, timeout: Duration, now: Moment) {
    let all: Vec<_> = link.streams.borrow().0.iter().map(Rc::clone).collect();
    for stream in all {
        let over = stream.in_flight.borrow_mut().expire(timeout, now);
        for flight in &over {
            link.ended(flight, stream.transport, QueryResult::Timeout);
        }
        drop(over);
        // A server that is gone sends nothing, not even an end. Open queries stay: a slow server may still answer them.
        if stream.in_flight.borrow().has_waited(timeout, stream.last_message.get(), now) {
            stream.is_retired.set(true);
        }
        let idle = if stream.transport == Transport::Tcp { IDLE } else { IDLE_ENCRYPTED };
        let last_use = stream.last_query.get().max(stream.last_message.get());
        if !stream.in_flight.borrow().is_empty() {
            continue;
        }
        if stream.is_retired.get() {
            close(&stream);
            link.retire(&stream);
        } else if now.since(last_use) >= idle {
            link.retire(&stream);
            stream.queue.leave();
        }
    }
}

/// Closes connections that were opened on another path than the current one; their queries are asked again.
pub(super) fn renew(link: &Rc<Link>, path: LocalPath, now: Moment) {
    let is_old = |stream: &&Rc<Stream>| stream.path != Some(path);
    let all: Vec<_> = link.streams.borrow().0.iter().filter(is_old).map(Rc::clone).collect();
    for stream in all {
        close(&stream);
        link.stream_ended(&stream, End::Moved, now);
    }
}

/// Closes every connection.
pub(super) fn close_all(link: &Link) {
    for stream in link.streams.take().0 {
        close(&stream);
        let waiting = i64::try_from(stream.in_flight.borrow().len()).unwrap_or(0);
        link.server.tally.waiting(link.shared.stripe, -waiting);
    }
}

fn close(stream: &Stream) {
    if let Some(task) = stream.task.take() {
        task.abort();
    }
}

#[cfg(test)]
mod tests;
