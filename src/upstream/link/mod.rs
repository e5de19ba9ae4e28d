//! One worker's link to one server: its queries on the wire, its UDP ports, its streams.
//!
//! Every query ends here exactly once and is counted then: when its answer is read, when the network refuses it, or
//! when the group's time-out has passed, which may be long after another server answered the client.

mod allowance;
mod client;
mod framed;
mod https;
mod in_flight;
mod open;
mod pool;
mod quic;
mod requests;
mod stream;
mod udp;

use std::{cell::RefCell, io, rc::Rc, sync::Arc};

use crate::{
    clock::Moment,
    system_error::ErrorCause,
    upstream::{
        race::{EdnsUse, Leg, Outcome, Race, SendError},
        server::{
            Role, Server,
            health::Event,
            tally::{MismatchReason, QueryResult},
        },
        spec::LetterCase,
    },
    wire::Transport,
};

use self::{
    client::Shared,
    in_flight::{Flight, InFlight},
    pool::{PathState, Pool, Port},
    stream::Streams,
    udp::SendBatch,
};
pub use self::{
    client::{UpstreamClient, WorkerNumber},
    open::{ask_once, quic_certificate},
};

/// One worker's link to one server.
pub(crate) struct Link {
    pub(super) server: Arc<Server>,
    pub(super) shared: Rc<Shared>,
    in_flight: RefCell<InFlight>,
    pool: RefCell<Pool>,
    batch: RefCell<SendBatch>,
    streams: RefCell<Streams>,
}

impl Link {
    pub(super) fn new(server: Arc<Server>, shared: Rc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            server,
            shared,
            in_flight: RefCell::default(),
            pool: RefCell::default(),
            batch: RefCell::new(SendBatch::new()),
            streams: RefCell::default(),
        })
    }

    /// Sends a query over this transport: by datagram at the end of this turn, else on a connection. On an error
    /// nothing was sent.
    pub(super) fn post(
        self: &Rc<Self>,
        race: &Rc<Race>,
        leg: Leg,
        transport: Transport,
        edns: EdnsUse,
        now: Moment,
    ) -> Result<(), SendError> {
        match transport {
            Transport::Udp => self.post_datagram(race, leg, edns, now),
            _ => self.post_stream(race, leg, edns, now),
        }
    }

    fn post_datagram(self: &Rc<Self>, race: &Rc<Race>, leg: Leg, edns: EdnsUse, now: Moment) -> Result<(), SendError> {
        let is_first = self.batch.borrow().port.is_none();
        if is_first {
            let drawn = pool::draw(self, race.group.limits().source_ports, now);
            let port = drawn.map_err(|error| self.unsent(&error, now))?;
            self.batch.borrow_mut().port = Some(port);
            self.shared.needs_flush(self);
        } else if self.batch.borrow().is_full() {
            udp::send(self, now);
        }
        let mut batch = self.batch.borrow_mut();
        let Some(port) = batch.port.clone() else { return Err(SendError::Network) };
        let mut in_flight = self.in_flight.borrow_mut();
        let flight = Flight::new(race, leg, edns, port.serial, now);
        let is_mixed = race.group.limits().case == LetterCase::Mixed && self.server.quirks.keeps_case(now);
        let case = if is_mixed { LetterCase::Mixed } else { LetterCase::Lower };
        let flight = in_flight.insert(flight, case, &mut self.shared.random.borrow_mut()).ok_or(SendError::Network)?;
        batch.push(flight.id(), |buffer| {
            let length = flight.write(buffer)?;
            self.shared.record_query(&self.server, Transport::Udp, &buffer[..length], now);
            Some(length)
        });
        port.waiting.set(port.waiting.get() + 1);
        self.pool.borrow_mut().asked(now);
        self.server.tally.waiting(self.shared.stripe, 1);
        Ok(())
    }

    /// Handles a datagram that arrived at `port`.
    fn receive(&self, port: &Port, datagram: &[u8], now: Moment) {
        let taken = self.in_flight.borrow_mut().take(datagram, Some(port.serial));
        match taken {
            Ok((flight, outcome)) => {
                port.waiting.set(port.waiting.get().saturating_sub(1));
                self.pool.borrow_mut().answered();
                self.shared.record_response(&self.server, Transport::Udp, datagram, (flight.sent_at(), now));
                self.conclude(&flight, outcome, Transport::Udp, now);
            }
            Err(reason) => {
                if reason == MismatchReason::Question
                    && self.in_flight.borrow().note_changed_case(datagram, port.serial, now)
                {
                    self.pool.borrow_mut().answered();
                }
                self.server.tally.mismatched(self.shared.stripe, reason);
            }
        }
    }

    /// Handles an ICMP port unreachable: every query on that socket is lost.
    fn refused(&self, port: &Port, now: Moment) {
        let lost = self.in_flight.borrow_mut().take_of(port.serial);
        self.server.observe(Event::Refused, now);
        self.lose(lost, || Outcome::Failed(QueryResult::Network, None), now);
    }

    /// Closes a port that only returns errors; its queries move to another.
    fn port_failed(self: &Rc<Self>, port: &Port, now: Moment) {
        self.pool.borrow_mut().give_up(port.serial);
        if self.batch.borrow().port.as_ref().is_some_and(|drawn| drawn.serial == port.serial) {
            udp::send(self, now);
            self.batch.borrow_mut().port = None;
        }
        let waiting = self.in_flight.borrow_mut().take_of(port.serial);
        self.send_again(waiting, now);
    }

    /// Handles queries that the kernel did not take. A port that has sent before is closed and its queries move to
    /// another: its source or device may be gone. If the new port fails too, there is no path.
    fn not_sent(self: &Rc<Self>, port: &Port, ids: &[u16], cause: ErrorCause, now: Moment) {
        let mut flights = Vec::with_capacity(ids.len());
        for id in ids {
            flights.extend(self.in_flight.borrow_mut().take_id(*id));
        }
        self.pool.borrow_mut().give_up(port.serial);
        if port.has_sent.get() {
            self.pool.borrow_mut().doubt_path();
            self.batch.borrow_mut().port = None;
            self.send_again(flights, now);
        } else {
            let error = self.unsent(&cause.into(), now);
            let outcome = || match error {
                SendError::Local => Outcome::NotSent,
                SendError::Network => Outcome::Failed(QueryResult::Network, None),
            };
            self.lose(flights, outcome, now);
        }
    }

    /// Sends queries again by other ports, unnoticed by their tries.
    fn send_again(self: &Rc<Self>, flights: Vec<Flight>, now: Moment) {
        for flight in flights {
            self.pool.borrow().forget_one(flight.sender());
            if flight.race().has_ended() {
                self.ended(&flight, Transport::Udp, QueryResult::Network);
                continue;
            }
            let (race, leg, edns) = flight.parts();
            match self.post_datagram(race, leg, edns, now) {
                // It already counts as waiting.
                Ok(()) => self.server.tally.waiting(self.shared.stripe, -1),
                Err(SendError::Local) => self.conclude(&flight, Outcome::NotSent, Transport::Udp, now),
                Err(SendError::Network) => {
                    self.conclude(&flight, Outcome::Failed(QueryResult::Network, None), Transport::Udp, now);
                }
            }
        }
    }

    /// Renews ports and connections if the path to the server has changed, and ports that receive nothing.
    fn follow_path_changes(self: &Rc<Self>, now: Moment) {
        let state = pool::look(self, now);
        match state {
            PathState::Unchecked => return,
            PathState::Same => return self.server.path_is_the_same(),
            PathState::Moved(path) => {
                self.server.path_changed(path.source, now);
                stream::renew(self, path, now);
            }
            PathState::PortsDead => return self.leave_dead_ports(now),
        }
        let waiting = {
            self.pool.borrow_mut().give_all_up();
            self.batch.borrow_mut().port = None;
            self.in_flight.borrow_mut().drain()
        };
        self.send_again(waiting, now);
    }

    /// Lets new queries leave by other ports. Those that wait go on waiting, since a name may just be slow at its origin;
    /// each is asked again as its tries have it.
    fn leave_dead_ports(self: &Rc<Self>, now: Moment) {
        udp::send(self, now);
        self.pool.borrow_mut().give_all_up();
        self.batch.borrow_mut().port = None;
    }

    /// Classifies a send error. A missing route counts as silence, not yet as a verdict; a local shortage or
    /// prohibition is not the server's fault.
    fn unsent(&self, error: &io::Error, now: Moment) -> SendError {
        if is_about_the_path(error.kind()) {
            tracing::debug!(group = self.server.group(), server = self.server.label(), %error, "upstream query not sent");
            self.server.has_no_route(now);
            self.server.late(now, now, Role::Traffic);
            return SendError::Network;
        }
        self.server.could_not_send(error, now);
        SendError::Local
    }

    /// Expires queries, and renews ports and streams.
    pub(super) fn tick(self: &Rc<Self>, now: Moment) {
        let timeout = self.server.rules().timeout;
        let over = self.in_flight.borrow_mut().expire(timeout, now);
        for flight in over {
            self.pool.borrow().forget_one(flight.sender());
            self.ended(&flight, Transport::Udp, QueryResult::Timeout);
        }
        self.follow_path_changes(now);
        pool::tend(self, now);
        stream::tend(self, timeout, now);
    }

    /// Whether no query waits and no stream is open.
    fn is_idle(&self) -> bool {
        self.in_flight.borrow().is_empty() && self.streams.borrow().is_empty()
    }

    /// Ends queries that will get no answer on their port.
    fn lose(&self, lost: Vec<Flight>, outcome: impl Fn() -> Outcome, now: Moment) {
        for flight in lost {
            self.pool.borrow().forget_one(flight.sender());
            self.conclude(&flight, outcome(), Transport::Udp, now);
        }
    }

    /// Ends a query: counts it and reports its outcome to health and to its race.
    fn conclude(&self, flight: &Flight, outcome: Outcome, transport: Transport, now: Moment) {
        let server = &*self.server;
        self.ended(flight, transport, outcome.result());
        let is_tagged = flight.race().role == Role::Tagged;
        if !matches!(outcome, Outcome::Closed | Outcome::NotSent | Outcome::Failed(QueryResult::Network, _)) {
            let rtt = now.since(flight.sent_at());
            server.heard(flight.sent_at(), now);
            if !is_tagged {
                server.tally.took(self.shared.stripe, rtt);
            }
            if transport == server.spec().transport && !is_tagged {
                server.sample(rtt);
            }
        }
        if flight.race().role == Role::Traffic {
            if matches!(outcome, Outcome::Answer(_)) {
                server.answered(&flight.race().query, now);
            } else if outcome.is_broken() {
                server.broken(&flight.race().query, now);
            }
        }
        flight.deliver(outcome, now);
    }

    /// Counts the end of a query; not of a probe for loops, which a good server may well refuse.
    fn ended(&self, flight: &Flight, transport: Transport, result: QueryResult) {
        if flight.race().role != Role::Tagged {
            self.server.tally.ended(self.shared.stripe, transport, result);
        }
        self.server.tally.waiting(self.shared.stripe, -1);
    }
}

fn is_about_the_path(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(kind, HostUnreachable | NetworkDown | NetworkUnreachable)
}

impl Drop for Link {
    fn drop(&mut self) {
        let waiting = i64::try_from(self.in_flight.borrow().len()).unwrap_or(0);
        self.server.tally.waiting(self.shared.stripe, -waiting);
        pool::close_all(self);
        stream::close_all(self);
    }
}
