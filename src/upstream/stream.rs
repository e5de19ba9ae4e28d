//! DNS over TCP (RFC 7766): kept connections, pipelined, answers in any order, two octets of length before each message.
//!
//! A connection is opened by the first query that needs one, up to `connections` of them while the others are busy, and
//! is closed after ten idle seconds or when nothing came for a whole time-out though queries wait. If the far end closes
//! a connection that carried answers before, the queries on it are asked once more on a new one (RFC 7766 6.2.4). A far
//! end that sends one octet a second holds nobody up: the limit of a try is kept by its question, not here.
//!
//! [`carry`] needs no more than an ordered stream of octets; TLS will bring its own.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
    sync::Notify,
    task::AbortHandle,
};

use crate::{
    clock::Moment,
    net::socket::upstream_tcp,
    wire::{MAX_MESSAGE, MessageId, UpstreamQuery, header},
};

use super::{
    health::Event,
    link::{Flights, Link},
    race::{EdnsUse, Flight, Leg, Outcome, Race, Role},
    spec::Transport,
    tally::{MismatchReason, QueryResult},
};

/// A connection without queries is kept this long (RFC 7766 6.2.3: the order of seconds).
const IDLE: Duration = Duration::from_secs(10);
/// More queries than this wait on one connection only where nobody reads them.
const MOST_IN_FLIGHT: usize = 8192;

/// One worker's connections to one server.
#[derive(Default)]
pub(super) struct Streams(Vec<Rc<Stream>>);

/// A connection, being opened or open.
struct Stream {
    flights: RefCell<Flights>,
    /// Framed queries that wait to be written.
    outgoing: RefCell<Vec<u8>>,
    has_work: Notify,
    /// Messages that came in.
    received: Cell<u64>,
    /// When a query was last put on it,
    last_query: Cell<Moment>,
    /// and when a message last came in.
    last_message: Cell<Moment>,
    task: RefCell<Option<AbortHandle>>,
}

impl Link {
    /// Sends a query on a stream. On an error nothing was sent.
    pub(super) fn post_stream(
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
        let mut query = [0; UpstreamQuery::MAX];
        let length = race.query.write(MessageId(id), payload, case_seed, &mut query).unwrap_or(0);
        let mut outgoing = stream.outgoing.borrow_mut();
        outgoing.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
        outgoing.extend_from_slice(&query[..length]);
        flights.insert(id, Flight { race: Rc::clone(race), leg, sent_at: now, edns, case_seed, port: 0 });
        stream.last_query.set(now);
        self.server.tally.waiting(self.shared.stripe, 1);
        stream.has_work.notify_one();
        Ok(())
    }

    /// Whether a connection is there that carried answers already.
    pub(super) fn has_stream(&self) -> bool {
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
            flights: RefCell::default(),
            outgoing: RefCell::default(),
            has_work: Notify::new(),
            received: Cell::new(0),
            last_query: Cell::new(now),
            last_message: Cell::default(),
            task: RefCell::default(),
        });
        let task = tokio::task::spawn_local(run(Rc::clone(&stream), Rc::downgrade(self), timeout));
        stream.task.replace(Some(task.abort_handle()));
        streams.0.push(Rc::clone(&stream));
        Some(stream)
    }

    /// The connection ended: its queries are to be asked elsewhere.
    fn stream_ended(&self, stream: &Rc<Stream>, end: End, now: Moment) {
        self.streams.borrow_mut().0.retain(|kept| !Rc::ptr_eq(kept, stream));
        let is_own_transport = self.server.spec().transport == Transport::Tcp;
        if is_own_transport && end == End::Refused {
            self.server.observe(Event::Refused, now);
        } else if is_own_transport && end == End::Unreachable {
            self.server.late(now, now, Role::Traffic);
        }
        let lost: Vec<Flight> = stream.flights.borrow_mut().drain().map(|(_, flight)| flight).collect();
        if is_own_transport && end == End::Closed && stream.received.get() == 0 && !lost.is_empty() {
            // It takes connections and answers nothing on them.
            self.server.observe(Event::Broken, now);
        }
        for flight in lost {
            let outcome = if end == End::Closed && stream.received.get() > 0 {
                Outcome::Closed
            } else {
                Outcome::Failed(QueryResult::Network, None)
            };
            self.settle(&flight, outcome, Transport::Tcp, now);
        }
    }

    /// A message came in on a stream.
    fn receive_framed(&self, stream: &Stream, message: &[u8], now: Moment) {
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
        let Some(flight) = flights.remove(&id.0) else { return };
        drop(flights);
        self.settle(&flight, outcome, Transport::Tcp, now);
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody listens there.
    Refused,
    /// It could not be opened.
    Unreachable,
    /// It was open.
    Closed,
}

async fn run(stream: Rc<Stream>, link: Weak<Link>, timeout: Duration) {
    let Some(spec) = link.upgrade().map(|link| link.server.spec().clone()) else { return };
    let connecting = async {
        let socket = upstream_tcp(spec.address, &spec.via)?;
        TcpSocket::from_std_stream(socket.into()).connect(spec.address).await
    };
    let end = match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(io)) => {
            carry(&stream, &link, io).await;
            End::Closed
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => End::Refused,
        Ok(Err(_)) | Err(_) => End::Unreachable,
    };
    if let Some(link) = link.upgrade() {
        link.stream_ended(&stream, end, Moment::now());
    }
}

/// Writes what waits and reads what comes, until either end is done.
async fn carry<S: AsyncRead + AsyncWrite>(stream: &Stream, link: &Weak<Link>, io: S) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut incoming = Vec::with_capacity(2048);
    let mut sending: Vec<u8> = Vec::new();
    let mut sent = 0;
    loop {
        if sent == sending.len() {
            sending.clear();
            sent = 0;
            std::mem::swap(&mut sending, &mut stream.outgoing.borrow_mut());
        }
        tokio::select! {
            read = reader.read_buf(&mut incoming) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let Some(link) = link.upgrade() else { return };
                take_frames(stream, &link, &mut incoming, Moment::now());
            }
            written = writer.write(&sending[sent..]), if sent < sending.len() => match written {
                Ok(length @ 1..) => sent += length,
                Ok(0) | Err(_) => return,
            },
            () = stream.has_work.notified(), if sent == sending.len() => {}
        }
    }
}

fn take_frames(stream: &Stream, link: &Link, incoming: &mut Vec<u8>, now: Moment) {
    let mut start = 0;
    while let Some(head) = incoming[start..].first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*head));
        let Some(message) = incoming.get(start + 2..start + 2 + length) else { break };
        link.receive_framed(stream, message, now);
        start += 2 + length;
    }
    incoming.drain(..start);
    if incoming.is_empty() && incoming.capacity() > MAX_MESSAGE {
        *incoming = Vec::with_capacity(2048);
    }
}

/// Ends queries whose time is over, and connections that are idle or dead.
pub(super) fn tend(link: &Rc<Link>, timeout: Duration, now: Moment) {
    let all: Vec<_> = link.streams.borrow().0.iter().map(Rc::clone).collect();
    for stream in all {
        let is_over = |_: &u16, flight: &mut Flight| now.since(flight.sent_at) >= timeout;
        let over: Vec<Flight> = stream.flights.borrow_mut().extract_if(is_over).map(|(_, flight)| flight).collect();
        for _ in &over {
            link.ended(Transport::Tcp, QueryResult::Timeout);
        }
        let last_use = stream.last_query.get().max(stream.last_message.get());
        let is_idle = stream.flights.borrow().is_empty() && now.since(last_use) >= IDLE;
        let is_dead = over.iter().any(|flight| flight.sent_at > stream.last_message.get());
        if is_idle || is_dead {
            close(&stream);
            link.stream_ended(&stream, End::Closed, now);
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
