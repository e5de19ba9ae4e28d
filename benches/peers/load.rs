//! The load generator over UDP.
//!
//! *Closed loop*: so many questions are in flight at all times, and an answer brings the next question, so that a server
//! is as busy as it can be and nothing is lost to full queues. *Paced*: a question every so many microseconds, whatever
//! the answers do, and the time to each answer; it spins, since a timer's slack is longer than an answer takes.
//!
//! A question is known by its id: the slot it waits in, and how often that slot was used. An answer counts when id and
//! question are right. A question without an answer after [`LOST_AFTER`] is lost.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use tidegate::{
    clock::Moment,
    net::{
        mmsg::{Inbox, Outbox, Pushed},
        socket::{Egress, upstream_udp},
    },
};

use crate::{
    Result,
    mix::{Mix, Names},
    query::{self, Name, QUESTION_MAX, Verdict},
};

/// Questions in flight in a closed loop.
pub(crate) const WINDOW: usize = 200;
/// Questions that are sent at once, and answers that are received.
const BURST: usize = 64;
/// Questions in flight while a cache is warmed: no server drops any of them.
const WARM_WINDOW: usize = 50;
const WARM_ATTEMPTS: usize = 4;
/// Before what is measured begins: the loop is full, and the server awake.
const RAMP: Duration = Duration::from_millis(200);
/// A question older than this has no answer.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// How long to sleep at most: how soon losses are seen.
const NAP: Duration = Duration::from_millis(50);
/// The most that slots of one id space can be: two bytes, and four bits for how often a slot was used.
const SLOTS: usize = 4096;

/// How questions follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    /// So many in flight.
    Closed {
        /// How many.
        window: usize,
    },
    /// So many a second.
    Paced {
        /// How many.
        rate: u32,
    },
}

/// The edges of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// From here.
    Begin,
    /// To here.
    End,
}

/// What came of it, between the edges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Right answers.
    pub(crate) answered: u64,
    /// Answers with an error, or without an address.
    pub(crate) failures: u64,
    /// Datagrams that answer no question.
    pub(crate) wrong: u64,
    /// Questions without an answer.
    pub(crate) lost: u64,
    /// The time between the edges.
    pub(crate) time: Duration,
    /// The nanoseconds to each answer, sorted, if they were asked for.
    pub(crate) latencies: Vec<u32>,
}

impl Outcome {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.time.as_secs_f64()
    }

    /// The latency that so many of a thousand answers are within, in microseconds.
    pub(crate) fn latency(&self, of_thousand: usize) -> f64 {
        let at = (self.latencies.len() * of_thousand / 1000).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |nanos| f64::from(*nanos) / 1000.0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, failures, wrong, lost, .. } = self;
        write!(f, "{answered} answered ({:.0}/s), {failures} failures, {wrong} wrong, {lost} lost", self.rate())?;
        if self.latencies.is_empty() {
            return Ok(());
        }
        let [p50, p99, p999] = [500, 990, 999].map(|of_thousand| self.latency(of_thousand));
        write!(f, ", p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs")
    }
}

/// A question that waits for its answer.
#[derive(Clone, Copy)]
struct Slot {
    question: [u8; QUESTION_MAX],
    length: usize,
    asked: Moment,
    uses: u16,
    waiting: bool,
}

struct Client {
    socket: UdpSocket,
    inbox: Inbox,
    outbox: Outbox,
    slots: Vec<Slot>,
    free: Vec<usize>,
    latencies: bool,
    outcome: Outcome,
}

/// Asks every name that a kind needs, so that all of them are in the server's cache; again, a few times, while some have
/// no answer.
pub(crate) fn warm(server: SocketAddr, names: Names) -> Result<Outcome> {
    let Some(each) = names.each() else {
        let mut mix = Mix::new(names);
        // A list that ends fills a cache that is too small for it.
        return match mix.is_endless() {
            true => Ok(Outcome::default()),
            false => run(server, &mut mix, Plan::Closed { window: WINDOW }, Duration::MAX, &mut |_| {}),
        };
    };
    let mut outcome = Outcome::default();
    for _ in 0..WARM_ATTEMPTS {
        let plan = Plan::Closed { window: WARM_WINDOW };
        outcome = run(server, &mut Mix::new(each), plan, Duration::MAX, &mut |_| {})?;
        if outcome.lost + outcome.failures == 0 {
            break;
        }
    }
    // What a server does only when a name is asked for again is no part of what is measured.
    let plan = Plan::Closed { window: WARM_WINDOW };
    run(server, &mut Mix::new(names), plan, Duration::from_secs(1), &mut |_| {})?;
    Ok(outcome)
}

/// Asks `server` for the names of `mix` until they or the time are over. `meter` is called at the edges.
pub(crate) fn run(
    server: SocketAddr,
    mix: &mut Mix,
    plan: Plan,
    time: Duration,
    meter: &mut dyn FnMut(Edge),
) -> Result<Outcome> {
    match plan {
        Plan::Closed { window } => closed(Client::new(server, window, false)?, mix, time, meter),
        Plan::Paced { rate } => paced(Client::new(server, SLOTS, true)?, mix, rate, time, meter),
    }
}

fn closed(mut client: Client, mix: &mut Mix, time: Duration, meter: &mut dyn FnMut(Edge)) -> Result<Outcome> {
    let start = Moment::now();
    // A list of names counts from its first.
    let mut begun = (!mix.is_endless()).then_some(start);
    if begun.is_some() {
        meter(Edge::Begin);
    }
    let mut swept = start;
    let mut more = true;
    loop {
        // Not all at once: the first burst would overflow a server that has the kernel's default of room.
        let now = Moment::now();
        for _ in 0..client.free.len().min(BURST) {
            let Some(name) = mix.next() else {
                more = false;
                break;
            };
            client.ask(name, now)?;
        }
        client.flush()?;
        if !more && client.free.len() == client.slots.len() {
            break;
        }
        client.receive(Wait::ForAnswer)?;
        let now = Moment::now();
        if now.since(swept) > NAP {
            swept = now;
            client.sweep(now);
        }
        match begun {
            None if now.since(start) > RAMP => {
                client.outcome = Outcome::default();
                begun = Some(now);
                meter(Edge::Begin);
            }
            Some(begun) if now.since(begun) > time => break,
            _ => {}
        }
    }
    meter(Edge::End);
    client.outcome.time = Moment::now().since(begun.unwrap_or(start));
    Ok(client.outcome)
}

fn paced(mut client: Client, mix: &mut Mix, rate: u32, time: Duration, meter: &mut dyn FnMut(Edge)) -> Result<Outcome> {
    let step = Duration::from_secs(1) / rate;
    let start = Moment::now();
    let mut due = start;
    let mut begun = None;
    loop {
        let now = Moment::now();
        match begun {
            None if now.since(start) > RAMP => {
                client.outcome = Outcome::default();
                begun = Some(now);
                meter(Edge::Begin);
            }
            Some(begun) if now.since(begun) > time => break,
            _ => {}
        }
        if now >= due {
            due = due + step;
            // A generator that was held up itself does not make up for it with a burst.
            if now.since(due) > 20 * step {
                due = now;
            }
            if client.free.is_empty() {
                client.sweep(now);
            }
            if let Some(name) = mix.next().filter(|_| !client.free.is_empty()) {
                client.ask(name, Moment::now())?;
                client.flush()?;
            }
        }
        client.receive(Wait::No)?;
    }
    meter(Edge::End);
    client.outcome.time = Moment::now().since(begun.unwrap_or(start));
    client.sweep(Moment::now());
    client.outcome.latencies.sort_unstable();
    Ok(client.outcome)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    ForAnswer,
}

impl Client {
    fn new(server: SocketAddr, window: usize, latencies: bool) -> Result<Self> {
        let socket = upstream_udp(server, &Egress::default())?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(NAP))?;
        let slot = Slot { question: [0; QUESTION_MAX], length: 0, asked: Moment::default(), uses: 0, waiting: false };
        let window = window.min(SLOTS);
        Ok(Self {
            socket,
            inbox: Inbox::new(BURST, 1500),
            outbox: Outbox::new(BURST, QUESTION_MAX),
            slots: vec![slot; window],
            free: (0..window).rev().collect(),
            latencies,
            outcome: Outcome::default(),
        })
    }

    fn ask(&mut self, name: Name, now: Moment) -> Result<()> {
        let Some(at) = self.free.pop() else { return Ok(()) };
        let slot = &mut self.slots[at];
        slot.uses = slot.uses.wrapping_add(1);
        slot.length = query::write(id(at, slot.uses), name, &mut slot.question);
        slot.asked = now;
        slot.waiting = true;
        let question = &slot.question[..slot.length];
        let write = |out: &mut [u8]| {
            out[..question.len()].copy_from_slice(question);
            Some(question.len())
        };
        if self.outbox.push_connected(write) == Pushed::Full {
            self.flush()?;
            let question = &self.slots[at].question[..self.slots[at].length];
            let _ = self.outbox.push_connected(|out| {
                out[..question.len()].copy_from_slice(question);
                Some(question.len())
            });
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while self.outbox.waiting() > 0 {
            self.outbox.flush(self.socket.as_fd())?;
        }
        Ok(())
    }

    fn receive(&mut self, wait: Wait) -> Result<()> {
        let received = match wait {
            Wait::ForAnswer => self.inbox.recv_waiting(self.socket.as_fd()),
            Wait::No => self.inbox.recv(self.socket.as_fd()),
        };
        match received {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err("the server has gone: it refuses datagrams".into());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Moment::now();
        for datagram in self.inbox.datagrams() {
            let Some(at) = slot_of(datagram.bytes, &self.slots) else {
                self.outcome.wrong += 1;
                continue;
            };
            let slot = &mut self.slots[at];
            match query::judge(datagram.bytes, &slot.question[..slot.length]) {
                Verdict::Answer => self.outcome.answered += 1,
                Verdict::Failure => self.outcome.failures += 1,
                Verdict::Wrong => {
                    self.outcome.wrong += 1;
                    continue;
                }
            }
            if self.latencies {
                let nanos = now.since(slot.asked).as_nanos();
                self.outcome.latencies.push(u32::try_from(nanos).unwrap_or(u32::MAX));
            }
            slot.waiting = false;
            self.free.push(at);
        }
        Ok(())
    }

    /// Gives up on questions that have waited too long.
    fn sweep(&mut self, now: Moment) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.waiting && now.since(slot.asked) > LOST_AFTER {
                slot.waiting = false;
                self.free.push(at);
                self.outcome.lost += 1;
            }
        }
    }
}

fn id(slot: usize, uses: u16) -> u16 {
    (uses << 12) | (u16::try_from(slot).unwrap_or_default() & 0x0fff)
}

/// The slot whose question has the datagram's id, and waits.
fn slot_of(datagram: &[u8], slots: &[Slot]) -> Option<usize> {
    let received = u16::from_be_bytes(*datagram.first_chunk()?);
    let at = usize::from(received & 0x0fff);
    let slot = slots.get(at)?;
    (slot.waiting && id(at, slot.uses) == received).then_some(at)
}
