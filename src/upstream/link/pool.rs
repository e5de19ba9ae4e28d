//! Source ports: few, random, long-lived, renewed one by one.
//!
//! Policy (Route 53 suffers past 40,000 address-port pairs; RFC 5452 wants ports that cannot be guessed): a server has
//! `source_ports` ports over all workers, each worker an equal share and at least one. A port is opened when it is
//! first drawn, at a random number chosen by the kernel, and is retired 60 to 120 s later, at random; it is read until
//! its queries are done. A port is drawn at random for each turn of the worker's loop, so an off-path attacker must
//! guess port and id, and the server sees at most two ports per slot in any minute.
//!
//! When a server goes down its ports are retired, and those opened meanwhile live at most ten seconds.
//!
//! A connected socket keeps its source address and device, but the path to the server may change. So a new socket is
//! compared with the pool's when the kernel reports a change ([`changes`]), and, for hosts that report nothing, when
//! nobody answered for [`SILENCE`], a socket cannot send any more, or another is opened on another path. While the
//! silence lasts, that is done again each time it has doubled, and at least every [`LONGEST_PAUSE`]. If the new socket
//! would leave by another address or device, every port is retired and its queries are sent again by new ones. If the
//! path is the same and other workers get answers, the ports themselves may be dead (a firewall forgot their flows) and
//! are retired too; or the names may be slow, so that their queries go on waiting. A port that fails to send is retired
//! at once. None of this counts against the server.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
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

use super::{Link, is_about_the_path, udp};

/// The least life of a port.
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// The most that is added to it, at random.
const LIFE_SPREAD_MS: u64 = 60_000;
/// The life of a port that is opened while its server is down.
const LIFE_WHILE_DOWN: Duration = Duration::from_secs(10);

/// Nothing arrived for this long although queries wait: check whether the path has changed.
const SILENCE: Duration = Duration::from_millis(250);
/// The longest pause between checks while a server stays silent.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// The same where the kernel does not report changes.
const LONGEST_PAUSE_UNHEARD: Duration = Duration::from_secs(1);
/// Nothing arrived on these ports for this long, after so many queries, while the server answered elsewhere: the ports
/// may be dead. Early enough for the third try of a query, after 750 ms, to leave by another.
const DEAD_PORTS: Duration = Duration::from_millis(500);
const DEAD_PORTS_QUERIES: u32 = 2;

/// The path that a socket's queries take out of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalPath {
    pub(super) source: IpAddr,
    /// The index of the device the socket is bound to, 0 for none.
    device: u32,
    /// The index of the interface of a link-local server, 0 for others.
    scope: u32,
}

/// Queries sent since something last arrived from the server.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    since: Moment,
    queries: u32,
    /// When to check the path.
    check_at: Moment,
}

impl Unanswered {
    fn new(now: Moment) -> Self {
        Self { since: now, queries: 0, check_at: now + SILENCE }
    }

    /// Whether to check the path now. A server may be silent for days, and a check opens a socket.
    fn is_check_due(&mut self, now: Moment, longest_pause: Duration) -> bool {
        let is_due = now >= self.check_at;
        if is_due {
            self.check_at = now + now.since(self.since).min(longest_pause);
        }
        is_due
    }

    /// Whether the ports are dead, if the server answered elsewhere.
    fn may_be_of_dead_ports(&self, now: Moment) -> bool {
        self.queries >= DEAD_PORTS_QUERIES && now.since(self.since) >= DEAD_PORTS
    }
}

/// A connected UDP socket.
pub(super) struct Port {
    /// Unique among the ports of this link; never 0.
    pub(super) serial: u32,
    pub(super) socket: AsyncFd<UdpSocket>,
    /// Queries sent from this port that have not ended.
    pub(super) waiting: Cell<u32>,
    /// Whether it has sent before: then an error was not there from the start.
    pub(super) has_sent: Cell<bool>,
    expires: Moment,
    reader: RefCell<Option<AbortHandle>>,
}

impl Port {
    /// A port that has not sent anything.
    pub(super) fn new(serial: u32, socket: AsyncFd<UdpSocket>, expires: Moment) -> Self {
        let (waiting, has_sent) = (Cell::new(0), Cell::new(false));
        Self { serial, socket, waiting, has_sent, expires, reader: RefCell::default() }
    }
}

/// One worker's ports to one server.
#[derive(Default)]
pub(super) struct Pool {
    slots: Vec<Option<Rc<Port>>>,
    /// Retired, but with queries left.
    retired: Vec<Rc<Port>>,
    last_serial: u32,
    was_down: bool,
    /// The path of the open ports; none before the first.
    path: Option<LocalPath>,
    /// The network generation in which the path was checked; none if there is a reason to check it again.
    generation: Option<u64>,
    unanswered: Option<Unanswered>,
}

impl Pool {
    /// Notes that a query of this port ended without its answer.
    pub(super) fn forget_one(&self, serial: u32) {
        let ports = self.slots.iter().flatten().chain(&self.retired);
        if let Some(port) = ports.into_iter().find(|port| port.serial == serial) {
            port.waiting.set(port.waiting.get().saturating_sub(1));
        }
    }

    /// Notes that a query was put on a port.
    pub(super) fn asked(&mut self, now: Moment) {
        let unanswered = self.unanswered.get_or_insert_with(|| Unanswered::new(now));
        unanswered.queries = unanswered.queries.saturating_add(1);
    }

    /// Notes that something arrived that belongs to a query.
    pub(super) fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Retires a port.
    pub(super) fn give_up(&mut self, serial: u32) {
        let place = self.slots.iter().position(|slot| slot.as_ref().is_some_and(|port| port.serial == serial));
        if let Some(slot) = place {
            self.retire(slot);
        }
    }

    /// Retires every port.
    pub(super) fn give_all_up(&mut self) {
        for slot in 0..self.slots.len() {
            self.retire(slot);
        }
        self.unanswered = None;
    }

    /// Compares the path of a socket that was just opened with that of the others.
    fn compare(&mut self, path: LocalPath) {
        match self.path {
            None => (self.path, self.generation) = (Some(path), Some(changes::generation())),
            Some(known) if known != path => self.doubt_path(),
            Some(_) => {}
        }
    }

    /// Notes that a socket that could send before cannot any more.
    pub(super) const fn doubt_path(&mut self) {
        self.generation = None;
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

/// Draws a port for this turn.
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
        Ok((port, path)) => {
            pool.last_serial = port.serial;
            pool.compare(path);
            pool.slots[slot] = Some(Rc::clone(&port));
            Ok(port)
        }
        // No descriptors left: share a port that is open.
        Err(error) => pool.slots.iter().flatten().next().map(Rc::clone).ok_or(error),
    }
}

fn open_port(link: &Rc<Link>, serial: u32, expires: Moment) -> io::Result<(Rc<Port>, LocalPath)> {
    let (socket, path) = open_socket(link.server.spec())?;
    let socket = for_reading(socket)?;
    let port = Rc::new(Port::new(serial, socket, expires));
    let reader = tokio::task::spawn_local(udp::read(Rc::clone(&port), Rc::downgrade(link)));
    port.reader.replace(Some(reader.abort_handle()));
    link.server.tally.ports(link.shared.stripe, 1);
    Ok((port, path))
}

fn open_socket(spec: &ServerSpec) -> io::Result<(UdpSocket, LocalPath)> {
    let socket = upstream_udp(spec.address, &spec.via)?;
    let device = spec.via.device.as_deref().map_or(Ok(0), interface_index)?;
    let scope = if let SocketAddr::V6(peer) = socket.peer_addr()? { peer.scope_id() } else { 0 };
    let path = LocalPath { source: socket.local_addr()?.ip(), device, scope };
    Ok((socket, path))
}

/// The path of a connection that is about to be opened, if there is one.
pub(super) fn path_now(link: &Link) -> Option<LocalPath> {
    let (_, path) = open_socket(link.server.spec()).ok()?;
    link.pool.borrow_mut().compare(path);
    Some(path)
}

/// Result of checking a link's path to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathState {
    /// There was no reason to check, or no way to.
    Unchecked,
    /// The path is unchanged.
    Same,
    /// Queries would now leave by this path.
    Moved(LocalPath),
    /// The path is unchanged and the server answers others, but nothing arrives at these ports.
    PortsDead,
}

/// Checks, if there is a reason to, whether a new port would take the same path as the open ones.
pub(super) fn look(link: &Link, now: Moment) -> PathState {
    let mut pool = link.pool.borrow_mut();
    let generation = changes::generation();
    let Some(old) = pool.path else { return PathState::Unchecked };
    let is_waiting = !link.in_flight.borrow().is_empty() || link.waits_on_streams();
    let unanswered = pool.unanswered.as_mut().filter(|_| is_waiting);
    let longest_pause = if changes::are_heard() { LONGEST_PAUSE } else { LONGEST_PAUSE_UNHEARD };
    let (is_due, are_ports_dead) = unanswered.map_or((false, false), |unanswered| {
        let are_ports_dead = unanswered.may_be_of_dead_ports(now) && link.server.liveness.heard_since(unanswered.since);
        (unanswered.is_check_due(now, longest_pause), are_ports_dead)
    });
    let is_other_network = pool.generation != Some(generation);
    if !is_other_network && !is_due && !are_ports_dead && !link.server.had_no_path() {
        return PathState::Unchecked;
    }
    let path = match open_socket(link.server.spec()) {
        Ok((_, path)) => path,
        Err(error) => {
            // Without any path, the old sockets are no worse than new ones. The kernel reports the next path.
            if is_about_the_path(error.kind()) {
                link.server.has_no_route(now);
                pool.generation = Some(generation);
            } else {
                link.server.could_not_send(&error, now);
                pool.generation = if link.server.has_no_path() { Some(generation) } else { pool.generation };
            }
            return PathState::Unchecked;
        }
    };
    (pool.path, pool.generation) = (Some(path), Some(generation));
    if is_other_network {
        link.server.may_have_a_path();
    }
    if path != old {
        return PathState::Moved(path);
    }
    if are_ports_dead { PathState::PortsDead } else { PathState::Same }
}

/// Retires ports whose time is over, and closes those whose queries are done.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_to_a_silent_server_is_checked_ever_less_often() {
        let start = Moment::at(Duration::from_hours(1));
        for (longest_pause, expected) in [(LONGEST_PAUSE, 19), (LONGEST_PAUSE_UNHEARD, 62)] {
            let mut unanswered = Unanswered::new(start);
            let ticks = (1..=240).map(|tick| start + Duration::from_millis(250) * tick);
            let checks: Vec<_> = ticks.filter(|&now| unanswered.is_check_due(now, longest_pause)).collect();
            assert_eq!(checks[0].since(start), SILENCE, "the first is soon");
            assert_eq!(checks.len(), expected, "in a minute");
            assert!(checks.windows(2).all(|pair| pair[1].since(pair[0]) <= longest_pause), "and never for good");
        }
    }
}
