//! Kept connections to a server (RFC 7766, RFC 7858): queries pipelined on them, answers in any order.
//!
//! A connection is opened by the first query that needs one, up to `connections` of them while the others are busy, and
//! is closed when it was idle for a while or when nothing came for a whole time-out though queries wait. If the far end
//! closes a connection that carried answers before, the queries on it are asked again on a new one (RFC 7766 6.2.4).
//! A far end that sends one octet a second holds nobody up, nor does one that never ends a handshake: the limit of a try
//! is kept by its question, not here. A server whose certificate is not what it should be gets no question, and is down.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hashbrown::hash_map::Entry;
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    clock::Moment,
    upstream::{
        race::{EdnsUse, Flight, Leg, Outcome, Race},
        server::{
            Role, Server,
            health::Event,
            obstacle::Obstacle,
            tally::{MismatchReason, QueryResult},
        },
        spec::Transport,
    },
    wire::{MessageId, UpstreamQuery, header},
};

use super::{
    Flights, Link, framed, https,
    open::{Carrier, open},
    quic::{self, Quic},
    requests::{self, Ended, Reply, Trouble},
};

/// A connection without queries is kept this long (RFC 7766 6.2.3: the order of seconds).
const IDLE: Duration = Duration::from_secs(10);
/// The same where another handshake would cost more than the memory it holds (RFC 7858 3.4).
const IDLE_ENCRYPTED: Duration = Duration::from_secs(60);
/// A far end has this long to hear that a connection ends.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// More queries than this wait on one connection only where nobody reads them.
const MOST_IN_FLIGHT: usize = 8192;

/// One worker's connections to one server.
#[derive(Default)]
pub(super) struct Streams(Vec<Rc<Stream>>);

/// A connection, being opened or open.
pub(super) struct Stream {
    transport: Transport,
    flights: RefCell<Flights>,
    /// Queries so far.
    last_serial: Cell<u32>,
    /// Framed queries that wait to be written.
    outgoing: RefCell<Vec<u8>>,
    has_work: Notify,
    /// Messages that came in.
    received: Cell<u64>,
    /// When it was open: no query on it was asked before.
    opened: Cell<Moment>,
    /// When a query was last put on it,
    last_query: Cell<Moment>,
    /// and when a message last came in.
    last_message: Cell<Moment>,
    /// Nothing more is to be asked on it: it ends once it has said so to the far end.
    is_leaving: Cell<bool>,
    task: RefCell<Option<AbortHandle>>,
}

/// A query on a stream, told from others that had its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    id: u16,
    serial: u32,
}

impl Link {
    /// Sends a query on a stream. On an error nothing was sent.
    pub(crate) fn post_stream(
        self: &Rc<Self>,
        race: &Rc<Race>,
        leg: Leg,
        edns: EdnsUse,
        now: Moment,
    ) -> Result<(), QueryResult> {
        let limits = race.group.limits();
        let stream = self.stream(limits.connections.max(1), limits.timeout, now).ok_or(QueryResult::Network)?;
        let mut flights = stream.flights.borrow_mut();
        let (id, case_seed) = self.shared.draw_id(&flights, limits.case);
        let payload = (edns == EdnsUse::With).then_some(limits.udp_payload);
        let mut query = [0; UpstreamQuery::MAX_PADDED];
        let mut length = race.query.write(MessageId(id), payload, case_seed, &mut query).unwrap_or(0);
        if stream.transport.is_encrypted() && payload.is_some() {
            length = UpstreamQuery::pad(&mut query, length);
        }
        let mut outgoing = stream.outgoing.borrow_mut();
        outgoing.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
        outgoing.extend_from_slice(&query[..length]);
        let serial = stream.last_serial.get().wrapping_add(1);
        stream.last_serial.set(serial);
        flights.insert(id, Flight { race: Rc::clone(race), leg, sent_at: now, edns, case_seed, serial });
        stream.last_query.set(now);
        self.server.tally.waiting(self.shared.stripe, 1);
        stream.has_work.notify_one();
        Ok(())
    }

    /// Whether a connection is there that carried answers already.
    pub(crate) fn has_stream(&self) -> bool {
        self.streams.borrow().0.iter().any(|stream| stream.received.get() > 0)
    }

    /// The least busy connection, or a new one while all are busy and there may be more.
    fn stream(self: &Rc<Self>, most: usize, timeout: Duration, now: Moment) -> Option<Rc<Stream>> {
        let mut streams = self.streams.borrow_mut();
        let waiting = |stream: &Rc<Stream>| stream.flights.borrow().len();
        let least = streams.0.iter().min_by_key(|stream| waiting(stream)).map(Rc::clone);
        if let Some(stream) = least
            && (waiting(&stream) == 0 || streams.0.len() >= most)
        {
            return (waiting(&stream) < MOST_IN_FLIGHT).then_some(stream);
        }
        let stream = Rc::new(Stream {
            transport: self.server.spec().transport.of_streams(),
            flights: RefCell::default(),
            last_serial: Cell::default(),
            outgoing: RefCell::default(),
            has_work: Notify::new(),
            received: Cell::new(0),
            opened: Cell::default(),
            last_query: Cell::new(now),
            last_message: Cell::default(),
            is_leaving: Cell::default(),
            task: RefCell::default(),
        });
        let task = tokio::task::spawn_local(run(Rc::clone(&stream), Rc::downgrade(self), timeout));
        stream.task.replace(Some(task.abort_handle()));
        streams.0.push(Rc::clone(&stream));
        Some(stream)
    }

    /// The connection ended: its queries are to be asked elsewhere.
    fn stream_ended(&self, stream: &Rc<Stream>, end: End, now: Moment) {
        self.retire(stream);
        let lost: Vec<Flight> = stream.flights.borrow_mut().drain().map(|(_, flight)| flight).collect();
        let is_renewable = end == End::Closed && stream.received.get() > 0;
        if self.server.spec().transport == stream.transport {
            match end {
                End::Refused => self.server.observe(Event::Refused, now),
                End::Untrusted => self.server.observe(Event::Untrusted, now),
                End::Unreachable => self.server.late(now, now, Role::Traffic),
                // It takes connections and answers nothing on them.
                End::Closed if !is_renewable && !lost.is_empty() => self.server.observe(Event::Broken, now),
                End::Closed => {}
            }
        }
        for flight in lost {
            let outcome = if is_renewable { Outcome::Closed } else { Outcome::Failed(QueryResult::Network, None) };
            self.settle(&flight, outcome, stream.transport, now);
        }
    }

    /// A message came in on a stream.
    pub(super) fn receive_framed(&self, stream: &Stream, message: &[u8], now: Moment) {
        stream.received.set(stream.received.get() + 1);
        stream.last_message.set(now);
        let mut flights = stream.flights.borrow_mut();
        let outcome = match header::id(message) {
            Err(_) => Err(MismatchReason::Short),
            Ok(id) => match flights.get(&id.0) {
                None => Err(MismatchReason::Id),
                Some(flight) => flight.read(message, id).map(|outcome| (id, outcome)),
            },
        };
        let (id, outcome) = match outcome {
            // TC has no meaning on a stream.
            Ok((id, Outcome::Truncated)) => (id, Outcome::Failed(QueryResult::Malformed, None)),
            Ok(matched) => matched,
            Err(reason) => return self.server.tally.mismatched(self.shared.stripe, reason),
        };
        let Some(mut flight) = flights.remove(&id.0) else { return };
        drop(flights);
        flight.sent_at = flight.sent_at.max(stream.opened.get());
        self.settle(&flight, outcome, stream.transport, now);
    }

    /// A query that had a stream of its own ended. If its time was over before, its id may be another's by now.
    pub(super) fn receive_alone(&self, stream: &Stream, asked: Asked, ended: Ended, now: Moment) {
        let Asked { id, serial } = asked;
        let mut flights = stream.flights.borrow_mut();
        let Entry::Occupied(entry) = flights.entry(id) else { return };
        if entry.get().serial != serial {
            return;
        }
        let mut flight = entry.remove();
        drop(flights);
        flight.sent_at = flight.sent_at.max(stream.opened.get());
        let outcome = match ended {
            Ok(reply) => {
                stream.received.set(stream.received.get() + 1);
                stream.last_message.set(now);
                self.read_alone(&flight, &reply)
            }
            Err(Trouble::Late) => return self.ended(stream.transport, QueryResult::Timeout),
            Err(Trouble::Closed) if stream.received.get() > 0 => Outcome::Closed,
            Err(Trouble::Closed) => Outcome::Failed(QueryResult::Network, None),
            Err(Trouble::Refused(obstacle)) => {
                self.server.set_obstacle(Some(obstacle));
                Outcome::Failed(QueryResult::Malformed, None)
            }
        };
        self.settle(&flight, outcome, stream.transport, now);
    }

    fn read_alone(&self, flight: &Flight, reply: &Reply) -> Outcome {
        match flight.read(&reply.message, MessageId(0)) {
            Ok(Outcome::Answer(mut response)) => {
                response.age(reply.age);
                Outcome::Answer(response)
            }
            Ok(Outcome::Truncated) => Outcome::Failed(QueryResult::Malformed, None),
            Ok(other) => other,
            Err(reason) => {
                self.server.tally.mismatched(self.shared.stripe, reason);
                Outcome::Failed(QueryResult::Malformed, None)
            }
        }
    }

    /// No more queries go on this connection.
    pub(super) fn retire(&self, stream: &Rc<Stream>) {
        self.streams.borrow_mut().0.retain(|kept| !Rc::ptr_eq(kept, stream));
    }
}

impl Stream {
    /// Appends the framed queries that wait to be written.
    pub(super) fn take_outgoing(&self, sending: &mut Vec<u8>) {
        let mut outgoing = self.outgoing.borrow_mut();
        if sending.is_empty() {
            std::mem::swap(sending, &mut outgoing);
        } else {
            sending.append(&mut outgoing);
        }
    }

    /// Which query goes by this id now, if its time is not over.
    pub(super) fn asked(&self, id: u16) -> Option<Asked> {
        self.flights.borrow().get(&id).map(|flight| Asked { id, serial: flight.serial })
    }

    /// Waits until there are some, or the connection is to end.
    pub(super) async fn has_work(&self) {
        self.has_work.notified().await;
    }

    /// Whether it is to end.
    pub(super) const fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    fn leave(&self) {
        self.is_leaving.set(true);
        self.has_work.notify_one();
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody listens there.
    Refused,
    /// It could not be opened.
    Unreachable,
    /// The far end is not who it should be.
    Untrusted,
    /// It was open.
    Closed,
}

impl End {
    const fn of(obstacle: &Obstacle) -> Self {
        match obstacle {
            Obstacle::Network(io::ErrorKind::ConnectionRefused) => Self::Refused,
            other if other.is_about_identity() => Self::Untrusted,
            _ => Self::Unreachable,
        }
    }
}

async fn run(stream: Rc<Stream>, link: Weak<Link>, timeout: Duration) {
    // No longer: a server that only its link remembers is forgotten.
    let Some(server) = link.upgrade().map(|link| Arc::clone(&link.server)) else { return };
    let opening = tokio::time::timeout(timeout, open(server.spec(), stream.transport, server.tls())).await;
    let opened = opening.unwrap_or(Err(Obstacle::Slow));
    note(&server, stream.transport, opened.as_ref().err());
    drop(server);
    let end = match opened {
        Ok(carrier) => {
            stream.opened.set(Moment::now());
            carry(&stream, &link, carrier, timeout).await;
            End::Closed
        }
        Err(obstacle) => End::of(&obstacle),
    };
    if let Some(link) = link.upgrade() {
        link.stream_ended(&stream, end, Moment::now());
    }
}

async fn carry(stream: &Rc<Stream>, link: &Weak<Link>, carrier: Carrier, timeout: Duration) {
    match carrier {
        Carrier::Tcp(io) => framed::carry(stream, link, io).await,
        Carrier::Tls(io) => framed::carry(stream, link, io).await,
        Carrier::Https(https, uri) => {
            let (sender, closed, _kept) = https.into_parts();
            let ask = move |query| https::ask(sender.clone(), uri.clone(), query);
            requests::carry(stream, link, timeout, closed, ask).await;
        }
        Carrier::Quic(Quic { connection, endpoint: _endpoint }) => {
            // Its last handle gone, a connection says goodbye by itself.
            let watched = connection.clone();
            let closed = async move { drop(watched.closed().await) };
            let ask = move |query| quic::ask(connection.clone(), query);
            requests::carry(stream, link, timeout, closed, ask).await;
        }
    }
}

/// Leaves word for operators why there is no connection, or that there is one.
fn note(server: &Server, transport: Transport, obstacle: Option<&Obstacle>) {
    if let Some(cause) = obstacle {
        let (group, server) = (server.group(), server.label());
        tracing::debug!(group, server, transport = transport.label(), %cause, "upstream connection not opened");
    }
    if server.spec().transport == transport {
        server.set_obstacle(obstacle.cloned());
    }
}

/// Ends queries whose time is over, and connections that are idle or dead.
pub(super) fn tend(link: &Rc<Link>, timeout: Duration, now: Moment) {
    let all: Vec<_> = link.streams.borrow().0.iter().map(Rc::clone).collect();
    for stream in all {
        let is_over = |_: &u16, flight: &mut Flight| now.since(flight.sent_at) >= timeout;
        let over: Vec<Flight> = stream.flights.borrow_mut().extract_if(is_over).map(|(_, flight)| flight).collect();
        for _ in &over {
            link.ended(stream.transport, QueryResult::Timeout);
        }
        let idle = if stream.transport == Transport::Tcp { IDLE } else { IDLE_ENCRYPTED };
        let last_use = stream.last_query.get().max(stream.last_message.get());
        let is_idle = stream.flights.borrow().is_empty() && now.since(last_use) >= idle;
        let is_dead = over.iter().any(|flight| flight.sent_at > stream.last_message.get());
        if is_dead {
            close(&stream);
            link.stream_ended(&stream, End::Closed, now);
        } else if is_idle {
            link.retire(&stream);
            stream.leave();
        }
    }
}

/// Closes every connection.
pub(super) fn close_all(link: &Link) {
    for stream in link.streams.take().0 {
        close(&stream);
        let waiting = i64::try_from(stream.flights.borrow().len()).unwrap_or(0);
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
