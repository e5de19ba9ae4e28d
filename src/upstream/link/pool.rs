//! Source ports: few, random, long-lived, renewed one by one.
//!
//! Policy (Route 53 suffers past 40,000 address-port pairs; RFC 5452 wants ports that cannot be guessed): a server has
//! `source_ports` of them over all workers, each worker an equal share, at least one. A port is opened when it is first
//! drawn, at a number the kernel picks at random, and is given up 60 to 120 s later, at random; it is read until its
//! queries are done. A port is drawn at random for each turn of the worker's loop, so who is off the path has port and
//! id to guess, and the far end sees at most two ports a slot in any minute.
//!
//! When a server goes down its ports are given up, and those opened meanwhile live ten seconds at most.
//!
//! A connected socket keeps its source address and its device; the way to the server may come to need others. So a new
//! socket is compared with the pool's, and where it would leave by another address or device, every port is given up
//! and what waits on them is sent again by new ones: when the kernel tells of a change ([`changes`]), and, for hosts where
//! nothing is heard, when nobody answered for [`SILENCE`]. Where the way is the same and the server answers others, it is
//! the ports that nothing comes through any more (a firewall forgot their flows): they are given up too. A port whose
//! send fails is given up at once. None of this is held against the server.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, UdpSocket},
    rc::Rc,
    time::Duration,
};

use rand::RngExt;
use tokio::{io::unix::AsyncFd, task::AbortHandle};

use crate::{
    clock::Moment,
    net::{
        changes,
        mmsg::{for_reading, interface_index},
        socket::upstream_udp,
    },
    upstream::{server::health::HealthState, spec::ServerSpec},
};

use super::{Link, udp};

/// A port is renewed no sooner than this,
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// and at most this much later.
const LIFE_SPREAD_MS: u64 = 60_000;
/// The life of a port that is opened while its server is down.
const LIFE_WHILE_DOWN: Duration = Duration::from_secs(10);

/// Nothing came for so long though queries wait: time to look whether the way is another now.
const SILENCE: Duration = Duration::from_millis(250);
/// Nothing came for so long to so many queries, while the server answered others: the ports are at fault.
const DEAD_PORTS: Duration = Duration::from_millis(500);
const DEAD_PORTS_QUERIES: u32 = 3;

/// The way that a socket's queries take out of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LocalPath {
    source: IpAddr,
    /// The index of the device that it is bound to, 0 for none.
    device: u32,
}

/// What was asked since something last came from the server.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    since: Moment,
    queries: u32,
}

/// A connected UDP socket.
pub(super) struct Port {
    /// No other port of this link has had it; never 0.
    pub(super) serial: u32,
    pub(super) socket: AsyncFd<UdpSocket>,
    /// Queries that left by it and have not ended.
    pub(super) waiting: Cell<u32>,
    /// It has sent before: an error is no fault of its making.
    pub(super) has_sent: Cell<bool>,
    expires: Moment,
    reader: RefCell<Option<AbortHandle>>,
}

impl Port {
    /// A port that nothing was sent by.
    pub(super) fn new(serial: u32, socket: AsyncFd<UdpSocket>, expires: Moment) -> Self {
        let (waiting, has_sent) = (Cell::new(0), Cell::new(false));
        Self { serial, socket, waiting, has_sent, expires, reader: RefCell::default() }
    }
}

/// One worker's ports to one server.
#[derive(Default)]
pub(super) struct Pool {
    slots: Vec<Option<Rc<Port>>>,
    /// Given up, but with queries left.
    retired: Vec<Rc<Port>>,
    last_serial: u32,
    was_down: bool,
    /// The way of the ports that are open; none before the first.
    way: Option<LocalPath>,
    /// The network that the way was seen in.
    generation: u64,
    unanswered: Option<Unanswered>,
}

impl Pool {
    /// A query of this port ended other than by its answer.
    pub(super) fn forget_one(&self, serial: u32) {
        let ports = self.slots.iter().flatten().chain(&self.retired);
        if let Some(port) = ports.into_iter().find(|port| port.serial == serial) {
            port.waiting.set(port.waiting.get().saturating_sub(1));
        }
    }

    /// A query was put on a port.
    pub(super) fn asked(&mut self, now: Moment) {
        let unanswered = self.unanswered.get_or_insert(Unanswered { since: now, queries: 0 });
        unanswered.queries = unanswered.queries.saturating_add(1);
    }

    /// Something came that belongs to a query.
    pub(super) fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Gives a port up.
    pub(super) fn give_up(&mut self, serial: u32) {
        let place = self.slots.iter().position(|slot| slot.as_ref().is_some_and(|port| port.serial == serial));
        if let Some(slot) = place {
            self.retire(slot);
        }
    }

    /// Gives every port up.
    pub(super) fn give_all_up(&mut self) {
        for slot in 0..self.slots.len() {
            self.retire(slot);
        }
        self.unanswered = None;
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
    let life = if link.server.state() == HealthState::Down { LIFE_WHILE_DOWN } else { life };
    match open_port(link, pool.last_serial.wrapping_add(1).max(1), now + life) {
        Ok((port, way)) => {
            pool.last_serial = port.serial;
            if pool.way.is_none() {
                (pool.way, pool.generation) = (Some(way), changes::generation());
            }
            pool.slots[slot] = Some(Rc::clone(&port));
            Ok(port)
        }
        // Out of descriptors: fewer ports will do.
        Err(error) => pool.slots.iter().flatten().next().map(Rc::clone).ok_or(error),
    }
}

fn open_port(link: &Rc<Link>, serial: u32, expires: Moment) -> io::Result<(Rc<Port>, LocalPath)> {
    let (socket, way) = open_socket(link.server.spec())?;
    let socket = for_reading(socket)?;
    let port = Rc::new(Port::new(serial, socket, expires));
    let reader = tokio::task::spawn_local(udp::read(Rc::clone(&port), Rc::downgrade(link)));
    port.reader.replace(Some(reader.abort_handle()));
    link.server.tally.ports(link.shared.stripe, 1);
    Ok((port, way))
}

fn open_socket(spec: &ServerSpec) -> io::Result<(UdpSocket, LocalPath)> {
    let socket = upstream_udp(spec.address, &spec.via)?;
    let device = spec.via.device.as_deref().map_or(Ok(0), interface_index)?;
    let way = LocalPath { source: socket.local_addr()?.ip(), device };
    Ok((socket, way))
}

/// Remembers the way for a link that opens connections and may never open a port.
pub(super) fn learn_path(link: &Link) {
    let mut pool = link.pool.borrow_mut();
    if pool.way.is_none()
        && let Ok((_, way)) = open_socket(link.server.spec())
    {
        (pool.way, pool.generation) = (Some(way), changes::generation());
    }
}

/// How a link's way to its server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathState {
    /// Nothing speaks against it.
    Same,
    /// Queries would leave by another address or device now, which is this.
    Moved(IpAddr),
    /// It is the same, the server answers others, and nothing comes to these ports.
    PortsDead,
}

/// Looks, where there is a reason to, whether the ports still are what a new one would be.
pub(super) fn look(link: &Link, now: Moment) -> PathState {
    let mut pool = link.pool.borrow_mut();
    let generation = changes::generation();
    let Some(old) = pool.way else { return PathState::Same };
    let unanswered = pool.unanswered.filter(|_| !link.in_flight.borrow().is_empty());
    let is_silent = unanswered.is_some_and(|unanswered| now.since(unanswered.since) >= SILENCE);
    if pool.generation == generation && !is_silent {
        return PathState::Same;
    }
    // Without any way now, the old sockets are as good as others.
    let Ok((_, way)) = open_socket(link.server.spec()) else { return PathState::Same };
    (pool.way, pool.generation) = (Some(way), generation);
    if way != old {
        return PathState::Moved(way.source);
    }
    let are_ports_dead = unanswered.is_some_and(|unanswered| {
        unanswered.queries >= DEAD_PORTS_QUERIES
            && now.since(unanswered.since) >= DEAD_PORTS
            && link.server.liveness.heard_since(unanswered.since)
    });
    if are_ports_dead { PathState::PortsDead } else { PathState::Same }
}

/// Gives up ports whose time is over, and closes those whose queries are done.
pub(super) fn tend(link: &Link, now: Moment) {
    let mut pool = link.pool.borrow_mut();
    let is_down = link.server.state() == HealthState::Down;
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
