//! The load generator over TCP: [`CONNECTIONS`] connections with [`IN_FLIGHT`] questions in flight on each, in a closed
//! loop. Answers may come in any order (RFC 7766 section 6.2.1.1). A connection that the server closes is opened again,
//! its questions asked again.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tidegate::{clock::Moment, net::mmsg::wait_readable};

use crate::{
    Result,
    load::{Edge, Outcome},
    mix::Mix,
    query::{self, QUESTION_MAX, Verdict},
};

/// Connections at all times.
pub(crate) const CONNECTIONS: usize = 20;
/// Questions on each.
pub(crate) const IN_FLIGHT: usize = 10;
const RAMP: Duration = Duration::from_millis(300);
/// A server that answers nothing at all for this long has failed.
const SILENCE: Duration = Duration::from_secs(5);

struct Connection {
    stream: TcpStream,
    slots: [([u8; QUESTION_MAX], usize); IN_FLIGHT],
    uses: u16,
    received: Vec<u8>,
    unsent: Vec<u8>,
    waiting: usize,
}

/// Asks `server` for the names of `mix` until they or the time are over. `meter` is called at the edges.
pub(crate) fn run(server: SocketAddr, mix: &mut Mix, time: Duration, meter: &mut dyn FnMut(Edge)) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(server, mix)?);
    }
    let start = Moment::now();
    let mut begun = None;
    loop {
        let sockets: Vec<BorrowedFd<'_>> = connections.iter().map(|connection| connection.stream.as_fd()).collect();
        let ready = wait_readable(&sockets, Some(SILENCE))?;
        if ready.is_empty() {
            return Err("no answer on any connection".into());
        }
        for at in ready {
            if connections[at].turn(mix, &mut outcome)? == State::Closed {
                outcome.lost += connections[at].waiting as u64;
                connections[at] = Connection::open(server, mix)?;
            }
        }
        if !mix.is_endless() && connections.iter().all(|connection| connection.waiting == 0) {
            break;
        }
        let now = Moment::now();
        match begun {
            None if now.since(start) > RAMP => {
                outcome = Outcome::default();
                begun = Some(now);
                meter(Edge::Begin);
            }
            Some(begun) if now.since(begun) > time => break,
            _ => {}
        }
    }
    meter(Edge::End);
    outcome.time = Moment::now().since(begun.unwrap_or(start));
    Ok(outcome)
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

impl Connection {
    fn open(server: SocketAddr, mix: &mut Mix) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let slots = [([0; QUESTION_MAX], 0); IN_FLIGHT];
        let mut connection = Self { stream, slots, uses: 0, received: Vec::new(), unsent: Vec::new(), waiting: 0 };
        for slot in 0..IN_FLIGHT {
            connection.ask(slot, mix);
        }
        connection.send()?;
        Ok(connection)
    }

    fn ask(&mut self, slot: usize, mix: &mut Mix) {
        let Some(name) = mix.next() else { return };
        self.waiting += 1;
        self.uses = self.uses.wrapping_add(1);
        let id = (self.uses << 4) | u16::try_from(slot).unwrap_or_default();
        let (question, length) = &mut self.slots[slot];
        *length = query::write(id, name, question);
        self.unsent.extend(u16::try_from(*length).unwrap_or_default().to_be_bytes());
        self.unsent.extend(&question[..*length]);
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there, and asks as many questions as were answered.
    fn turn(&mut self, mix: &mut Mix, outcome: &mut Outcome) -> Result<State> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(State::Closed),
            Ok(read) => self.received.extend(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(State::Closed),
            Err(error) => return Err(error.into()),
        }
        let mut at = 0;
        while let Some((length, rest)) = self.received[at..].split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(message) = rest.get(..length) else { break };
            let slot = usize::from(message.get(1).copied().unwrap_or(u8::MAX) & 15);
            at += 2 + length;
            let right =
                self.slots.get(slot).filter(|(question, _)| message.first_chunk::<2>() == question.first_chunk());
            match right.map(|(question, length)| query::judge(message, &question[..*length])) {
                Some(Verdict::Answer) => outcome.answered += 1,
                Some(Verdict::Failure) => outcome.failures += 1,
                Some(Verdict::Wrong) | None => {
                    outcome.wrong += 1;
                    continue;
                }
            }
            self.waiting = self.waiting.saturating_sub(1);
            self.ask(slot, mix);
        }
        self.received.drain(..at);
        match self.send() {
            Ok(()) => Ok(State::Open),
            Err(_) => Ok(State::Closed),
        }
    }
}
