//! Source ports: few, random, long-lived, renewed one by one.
//!
//! Policy (Route 53 suffers past 40,000 address-port pairs; RFC 5452 wants ports that cannot be guessed): a server has
//! `source_ports` of them over all workers, each worker an equal share, at least one. A port is opened when it is first
//! drawn, at a number the kernel picks at random, and is given up 60 to 120 s later, at random; it is read until its
//! queries are done. A port is drawn at random for each turn of the worker's loop, so who is off the path has port and
//! id to guess, and the far end sees at most two ports a slot in any minute.
//!
//! When a server goes down its ports are given up, and those opened meanwhile live ten seconds at most: a connected
//! socket keeps its source address, and the way to the server may come back with another.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use rand::RngExt;
use tokio::{net::UdpSocket, task::AbortHandle};

use crate::{clock::Moment, net::socket::upstream_udp, upstream::server::health::State};

use super::{Link, udp};

/// A port is renewed no sooner than this,
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// and at most this much later.
const LIFE_SPREAD_MS: u64 = 60_000;
/// The life of a port that is opened while its server is down.
const LIFE_WHILE_DOWN: Duration = Duration::from_secs(10);

/// A connected UDP socket.
pub(super) struct Port {
    /// No other port of this link has had it; never 0.
    pub(super) serial: u32,
    pub(super) socket: UdpSocket,
    /// Queries that left by it and have not ended.
    pub(super) waiting: Cell<u32>,
    expires: Moment,
    reader: RefCell<Option<AbortHandle>>,
}

/// One worker's ports to one server.
#[derive(Default)]
pub(super) struct Pool {
    slots: Vec<Option<Rc<Port>>>,
    /// Given up, but with queries left.
    retired: Vec<Rc<Port>>,
    last_serial: u32,
    was_down: bool,
}

impl Pool {
    /// A query of this port ended other than by its answer.
    pub(super) fn forget_one(&self, serial: u32) {
        let ports = self.slots.iter().flatten().chain(&self.retired);
        if let Some(port) = ports.into_iter().find(|port| port.serial == serial) {
            port.waiting.set(port.waiting.get().saturating_sub(1));
        }
    }

    fn retire(&mut self, slot: usize) {
        self.retired.extend(self.slots[slot].take());
    }

    fn resize(&mut self, share: usize) {
        for slot in share..self.slots.len() {
            self.retire(slot);
        }
        self.slots.resize_with(share, || None);
    }
}

/// A port for this turn.
pub(super) fn draw(link: &Rc<Link>, source_ports: u16, now: Moment) -> io::Result<Rc<Port>> {
    let mut pool = link.pool.borrow_mut();
    let share = link.shared.worker.share_of(source_ports);
    if pool.slots.len() != share {
        pool.resize(share);
    }
    let (slot, life) = {
        let mut random = link.shared.random.borrow_mut();
        let life = LEAST_LIFE + Duration::from_millis(random.random_range(0..LIFE_SPREAD_MS));
        (random.random_range(0..share), life)
    };
    match &pool.slots[slot] {
        Some(port) if port.expires > now => return Ok(Rc::clone(port)),
        Some(_) => pool.retire(slot),
        None => {}
    }
    let life = if link.server.state() == State::Down { LIFE_WHILE_DOWN } else { life };
    match open_port(link, pool.last_serial.wrapping_add(1).max(1), now + life) {
        Ok(port) => {
            pool.last_serial = port.serial;
            pool.slots[slot] = Some(Rc::clone(&port));
            Ok(port)
        }
        // Out of descriptors: fewer ports will do.
        Err(error) => pool.slots.iter().flatten().next().map(Rc::clone).ok_or(error),
    }
}

fn open_port(link: &Rc<Link>, serial: u32, expires: Moment) -> io::Result<Rc<Port>> {
    let spec = link.server.spec();
    let socket = UdpSocket::from_std(upstream_udp(spec.address, &spec.via)?)?;
    let port = Rc::new(Port { serial, socket, waiting: Cell::new(0), expires, reader: RefCell::default() });
    let reader = tokio::task::spawn_local(udp::read(Rc::clone(&port), Rc::downgrade(link)));
    port.reader.replace(Some(reader.abort_handle()));
    link.server.tally.ports(link.shared.stripe, 1);
    Ok(port)
}

/// Gives up ports whose time is over, and closes those whose queries are done.
pub(super) fn tend(link: &Link, now: Moment) {
    let mut pool = link.pool.borrow_mut();
    let is_down = link.server.state() == State::Down;
    let has_gone_down = is_down && !pool.was_down;
    pool.was_down = is_down;
    for slot in 0..pool.slots.len() {
        if pool.slots[slot].as_ref().is_some_and(|port| has_gone_down || port.expires <= now) {
            pool.retire(slot);
        }
    }
    pool.retired.retain(|port| {
        let is_done = port.waiting.get() == 0;
        if is_done {
            close(link, port);
        }
        !is_done
    });
}

/// Closes every port.
pub(super) fn close_all(link: &Link) {
    let pool = link.pool.take();
    for port in pool.slots.iter().flatten().chain(&pool.retired) {
        close(link, port);
    }
}

fn close(link: &Link, port: &Port) {
    if let Some(reader) = port.reader.take() {
        reader.abort();
    }
    link.server.tally.ports(link.shared.stripe, -1);
}
