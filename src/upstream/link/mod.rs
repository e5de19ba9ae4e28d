//! What one worker has towards one server: its queries on the wire, its UDP ports, its streams.
//!
//! Every query ends here exactly once, and is counted then: when its answer is read, when the network refuses it, or
//! when the group's time-out has passed, long after its question may have been answered by another server.

mod client;
mod framed;
mod https;
mod open;
mod pool;
mod quic;
mod requests;
mod single;
mod stream;
mod udp;

use std::{cell::RefCell, io, rc::Rc, sync::Arc};

use hashbrown::HashMap;
use rand::Rng;

use crate::{
    clock::Moment,
    upstream::{
        race::{EdnsUse, Flight, Leg, Outcome, Race},
        server::{
            Role, Server,
            health::Event,
            tally::{MismatchReason, QueryResult},
        },
        spec::{LetterCase, Transport},
    },
    wire::{MessageId, header},
};

use self::{
    client::Shared,
    pool::{Pool, Port},
    stream::Streams,
    udp::Turn,
};
pub use self::{
    client::{Courier, Worker},
    single::ask_once,
};

/// Half of all ids: a random one is then free at the second attempt on average.
const MOST_IN_FLIGHT: usize = 32_768;

/// Queries by id.
pub(super) type Flights = HashMap<u16, Flight, foldhash::fast::FixedState>;

/// One worker's way to one server.
pub(crate) struct Link {
    pub(super) server: Arc<Server>,
    pub(super) shared: Rc<Shared>,
    flights: RefCell<Flights>,
    pool: RefCell<Pool>,
    turn: RefCell<Turn>,
    streams: RefCell<Streams>,
}

impl Link {
    pub(super) fn new(server: Arc<Server>, shared: Rc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            server,
            shared,
            flights: RefCell::default(),
            pool: RefCell::default(),
            turn: RefCell::new(Turn::new()),
            streams: RefCell::default(),
        })
    }

    /// Sends a query by datagram at the end of this turn. On an error nothing was sent.
    pub(super) fn post(
        self: &Rc<Self>,
        race: &Rc<Race>,
        leg: Leg,
        edns: EdnsUse,
        now: Moment,
    ) -> Result<(), QueryResult> {
        let limits = race.group.limits();
        let is_first = self.turn.borrow().port.is_none();
        if is_first {
            let drawn = pool::draw(self, limits.source_ports, now);
            let port = drawn.map_err(|error| self.unsent(error.kind(), now))?;
            self.turn.borrow_mut().port = Some(port);
            self.shared.needs_flush(self);
        } else if self.turn.borrow().is_full() {
            udp::send(self, now);
        }
        let mut turn = self.turn.borrow_mut();
        let mut flights = self.flights.borrow_mut();
        if flights.len() >= MOST_IN_FLIGHT {
            return Err(QueryResult::Network);
        }
        let Some(port) = turn.port.clone() else { return Err(QueryResult::Network) };
        let (id, case_seed) = self.shared.draw_id(&flights, limits.case);
        let payload = (edns == EdnsUse::With).then_some(limits.udp_payload);
        turn.push(id, |buffer| race.query.write(MessageId(id), payload, case_seed, buffer));
        let flight = Flight { race: Rc::clone(race), leg, sent_at: now, edns, case_seed, serial: port.serial };
        flights.insert(id, flight);
        port.waiting.set(port.waiting.get() + 1);
        self.server.tally.waiting(self.shared.stripe, 1);
        Ok(())
    }

    /// A datagram came to `port`.
    fn receive(&self, port: &Port, datagram: &[u8], now: Moment) {
        let mut flights = self.flights.borrow_mut();
        let outcome = match header::id(datagram) {
            Err(_) => Err(MismatchReason::Short),
            Ok(id) => match flights.get(&id.0) {
                None => Err(MismatchReason::Id),
                Some(flight) if flight.serial != port.serial => Err(MismatchReason::Socket),
                Some(flight) => flight.read(datagram, id).map(|outcome| (id, outcome)),
            },
        };
        let (id, outcome) = match outcome {
            Ok(matched) => matched,
            Err(reason) => return self.server.tally.mismatched(self.shared.stripe, reason),
        };
        let Some(flight) = flights.remove(&id.0) else { return };
        drop(flights);
        port.waiting.set(port.waiting.get().saturating_sub(1));
        self.settle(&flight, outcome, Transport::Udp, now);
    }

    /// The far host says that nobody listens: every query on that socket is lost, and the server is down.
    fn refused(&self, port: &Port, now: Moment) {
        let lost = self.take_flights(|_, flight| flight.serial == port.serial);
        self.server.observe(Event::Refused, now);
        self.lose(lost, Transport::Udp, now);
    }

    /// The network took none of these queries.
    pub(super) fn undeliverable(&self, ids: &[u16], kind: io::ErrorKind, now: Moment) {
        let mut lost = Vec::with_capacity(ids.len());
        for id in ids {
            lost.extend(self.flights.borrow_mut().remove(id));
        }
        self.unsent(kind, now);
        self.lose(lost, Transport::Udp, now);
    }

    /// A query could not leave. A route that is gone is silence, not yet a verdict; want of descriptors is our own fault.
    fn unsent(&self, kind: io::ErrorKind, now: Moment) -> QueryResult {
        tracing::debug!(group = self.server.group(), server = self.server.label(), %kind, "upstream query not sent");
        if is_about_the_path(kind) {
            self.server.late(now, now, Role::Traffic);
        }
        QueryResult::Network
    }

    /// Queries whose time is over, and ports and streams to renew.
    pub(super) fn tick(self: &Rc<Self>, now: Moment) {
        let timeout = self.server.rules().timeout;
        let over = self.take_flights(|_, flight| now.since(flight.sent_at) >= timeout);
        for flight in over {
            self.pool.borrow().forget_one(flight.serial);
            self.ended(Transport::Udp, QueryResult::Timeout);
        }
        pool::tend(self, now);
        stream::tend(self, timeout, now);
    }

    fn take_flights(&self, mut which: impl FnMut(u16, &Flight) -> bool) -> Vec<Flight> {
        self.flights.borrow_mut().extract_if(|id, flight| which(*id, flight)).map(|(_, flight)| flight).collect()
    }

    fn lose(&self, lost: Vec<Flight>, transport: Transport, now: Moment) {
        for flight in lost {
            self.pool.borrow().forget_one(flight.serial);
            self.settle(&flight, Outcome::Failed(QueryResult::Network, None), transport, now);
        }
    }

    /// A query ended: counts it, tells health and the question.
    pub(super) fn settle(&self, flight: &Flight, outcome: Outcome, transport: Transport, now: Moment) {
        let server = &*self.server;
        self.ended(transport, outcome.result());
        if !matches!(outcome, Outcome::Closed | Outcome::Failed(QueryResult::Network, _)) {
            let rtt = now.since(flight.sent_at);
            server.lives(now);
            server.tally.took(self.shared.stripe, rtt);
            if transport == server.spec().transport && flight.race.role != Role::Tagged {
                server.sample(rtt);
            }
        }
        if flight.race.role == Role::Traffic {
            if matches!(outcome, Outcome::Answer(_)) {
                server.answered(now);
            } else if outcome.is_broken() {
                server.observe(Event::Broken, now);
            }
        }
        flight.deliver(outcome, now);
    }

    /// Counts a query's end.
    pub(super) fn ended(&self, transport: Transport, result: QueryResult) {
        self.server.tally.ended(self.shared.stripe, transport, result);
        self.server.tally.waiting(self.shared.stripe, -1);
    }
}

fn is_about_the_path(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, NotFound, PermissionDenied,
    };
    // The host's firewall, or a route that prohibits, denies the permission.
    matches!(kind, AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable | NotFound | PermissionDenied)
}

impl Shared {
    /// An id that is not in use, and the letter case.
    pub(super) fn draw_id(&self, flights: &Flights, case: LetterCase) -> (u16, Option<u64>) {
        let mut random = self.random.borrow_mut();
        let seed = (case == LetterCase::Mixed).then(|| random.next_u64());
        loop {
            let bits = random.next_u32();
            let halves = [bits & 0xffff, bits >> 16].map(|half| u16::try_from(half).unwrap_or(0));
            if let Some(&id) = halves.iter().find(|id| !flights.contains_key(*id)) {
                return (id, seed);
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let waiting = i64::try_from(self.flights.borrow().len()).unwrap_or(0);
        self.server.tally.waiting(self.shared.stripe, -waiting);
        pool::close_all(self);
        stream::close_all(self);
    }
}
