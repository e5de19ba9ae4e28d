//! Limits on connections and on the memory they hold: in all, and for each client.
//!
//! Policy: a client is an IPv4 address or an IPv6 /64. When a limit on connections (`tcp_connections`,
//! `tcp_per_client`) is reached, the oldest idle connection makes room for the new one: one of the client's own if its
//! limit is reached, else any. The new one is refused only if none is idle. A connection is idle while none of its
//! queries waits for an answer: it may be unused, may send half a message, or may not read what it was sent. Unsent
//! responses and unfinished queries are limited per connection, per client and in all. A connection at its own limit
//! holds nothing more; at the other limits the oldest idle connections, most likely such as do not read, make room
//! as above, and what an evicted one holds counts no more. To find it, no flood of new connections makes the server look at all others: see `idle`.

mod idle;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::idle::{BUSY, IdleList, Place};
use super::proxy::UNKNOWN_CLIENT;
use crate::{clock::Moment, networks::client_prefix, wire::MAX_MESSAGE, wire::Transport};

/// The most octets held for one connection: unsent responses, plus one response and one unfinished query of any length.
pub const MOST_HELD: usize = MAX_UNSENT + 2 * (2 + MAX_MESSAGE);
/// A connection with this many octets of unsent responses is not read from.
pub const MAX_UNSENT: usize = 256 * 1024;
/// The most octets held for all connections of one client.
const MOST_HELD_FOR_CLIENT: usize = 16 * MOST_HELD;
/// The most octets held for all connections.
const MOST_HELD_IN_ALL: usize = 512 * MOST_HELD;
/// How often the log says that connections are refused.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The limits and what counts against them, for all workers.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_client: usize,
    held: AtomicUsize,
    open: [AtomicUsize; Transport::ALL.len()],
    table: Mutex<Table>,
    /// Locked after the table, where both are.
    idle: Mutex<IdleList>,
    warned: Mutex<Option<Moment>>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    places: HashMap<u64, Arc<Place>>,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug, Default)]
struct Client {
    connections: Vec<u64>,
    held: Arc<AtomicUsize>,
}

impl Connections {
    /// No connections yet.
    pub fn new(most: usize, most_per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            most_per_client: most_per_client.max(1),
            held: AtomicUsize::new(0),
            open: Default::default(),
            table: Mutex::default(),
            idle: Mutex::default(),
            warned: Mutex::default(),
        })
    }

    /// Counts a connection in, which may evict the oldest idle one; none if there is no room.
    pub fn admit(self: &Arc<Self>, client: IpAddr, transport: Transport, now: Moment) -> Option<Admission> {
        let client = client_prefix(client);
        let mut table = self.table.lock();
        let own = table.clients.get(&client).map_or(&[][..], |client| &client.connections);
        if own.len() >= self.most_per_client && client != UNKNOWN_CLIENT {
            let oldest = table.oldest_idle(own.iter().copied())?;
            self.evict(&mut table, oldest);
        }
        if table.places.len() >= self.most {
            let oldest = self.idle.lock().oldest(&table.places, None)?;
            self.evict(&mut table, oldest);
        }
        table.last_id += 1;
        let id = table.last_id;
        let idle_since = AtomicU64::new(now.micros());
        let is_listed = AtomicBool::new(true);
        let place = Arc::new(Place { client, idle_since, is_listed, held: AtomicUsize::new(0), close: Notify::new() });
        table.places.insert(id, Arc::clone(&place));
        self.idle.lock().push_new((now.micros(), id), &table.places);
        let entry = table.clients.entry(client).or_default();
        entry.connections.push(id);
        let client_held = Arc::clone(&entry.held);
        drop(table);
        self.open[transport as usize].fetch_add(1, Relaxed);
        Some(Admission { connections: Arc::clone(self), id, place, client_held, held: 0, transport })
    }

    /// Tells a connection to close; its place and what it holds are free at once.
    fn evict(&self, table: &mut Table, id: u64) {
        let client_held = table.places.get(&id).and_then(|place| table.clients.get(&place.client));
        let client_held = client_held.map(|client| Arc::clone(&client.held));
        let Some(place) = table.remove(id) else { return };
        let held = place.held.swap(0, Relaxed);
        self.held.fetch_sub(held, Relaxed);
        if let Some(client_held) = client_held {
            client_held.fetch_sub(held, Relaxed);
        }
        place.close.notify_one();
    }

    /// Whether a worker that cannot accept a connection may log it: one line a minute for all workers.
    pub fn may_warn(&self, now: Moment) -> bool {
        let mut warned = self.warned.lock();
        let may = warned.is_none_or(|last| now.since(last) >= WARN_EVERY);
        if may {
            *warned = Some(now);
        }
        may
    }

    /// Number of open connections over this transport.
    pub fn open(&self, transport: Transport) -> usize {
        self.open[transport as usize].load(Relaxed)
    }

    /// Number of open connections.
    pub fn all_open(&self) -> usize {
        Transport::ALL.iter().map(|&transport| self.open(transport)).sum()
    }

    /// Whether over half of the places are taken: then clients must prove their address (RFC 9000 8.1.2).
    pub fn is_crowded(&self) -> bool {
        self.table.lock().places.len() * 2 > self.most
    }
}

impl Table {
    fn oldest_idle(&self, among: impl Iterator<Item = u64>) -> Option<u64> {
        let idle = among.filter_map(|id| {
            let since = self.places.get(&id)?.idle_since.load(Relaxed);
            (since != BUSY).then_some((since, id))
        });
        idle.min().map(|(_, id)| id)
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Place>> {
        let place = self.places.remove(&id)?;
        if let Some(client) = self.clients.get_mut(&place.client) {
            client.connections.retain(|&other| other != id);
            if client.connections.is_empty() {
                self.clients.remove(&place.client);
            }
        }
        Some(place)
    }
}

/// A connection's place among the others; dropping it frees the place.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<Connections>,
    id: u64,
    place: Arc<Place>,
    client_held: Arc<AtomicUsize>,
    held: usize,
    transport: Transport,
}

impl Admission {
    /// Completes when the connection has to make room for another.
    pub async fn evicted(&self) {
        self.place.close.notified().await;
    }

    /// A handle that completes on eviction, independent of the admission.
    pub fn eviction(&self) -> Eviction {
        Eviction(Arc::clone(&self.place))
    }

    /// Marks the connection busy: a query waits for its answer, so it is not evicted.
    pub fn mark_busy(&self) {
        self.place.idle_since.store(BUSY, Relaxed);
    }

    /// Marks the connection idle: no query waits, and its last whole message arrived at `since`.
    pub fn mark_idle(&self, since: Moment) {
        self.place.idle_since.store(since.micros(), SeqCst);
        if !self.place.is_listed.load(SeqCst) && !self.place.is_listed.swap(true, SeqCst) {
            self.connections.idle.lock().push((since.micros(), self.id));
        }
    }

    /// Sets how many octets the connection holds. Returns false and changes nothing if that exceeds a limit.
    pub fn hold(&mut self, octets: usize) -> bool {
        if octets <= self.held {
            self.release(self.held - octets);
            self.held = octets;
            return true;
        }
        if octets > MOST_HELD {
            return false;
        }
        let more = octets - self.held;
        self.client_held.fetch_add(more, Relaxed);
        self.connections.held.fetch_add(more, Relaxed);
        self.place.held.fetch_add(more, Relaxed);
        let fits = self.fits();
        if fits {
            self.held = octets;
        } else {
            self.release(more);
        }
        fits
    }

    /// Gives octets back, but for those that an eviction has given back.
    fn release(&self, octets: usize) {
        let rest = |held: usize| Some(held.saturating_sub(octets));
        let before = self.place.held.fetch_update(Relaxed, Relaxed, rest).unwrap_or_default();
        let less = before.min(octets);
        self.client_held.fetch_sub(less, Relaxed);
        self.connections.held.fetch_sub(less, Relaxed);
    }

    /// Whether the limits of the client and of all are kept, if need be by evicting others that are idle.
    fn fits(&self) -> bool {
        let client = self.place.client;
        while self.client_held.load(Relaxed) > MOST_HELD_FOR_CLIENT {
            if !self.evict_another(Some(client)) {
                return false;
            }
        }
        while self.connections.held.load(Relaxed) > MOST_HELD_IN_ALL {
            if !self.evict_another(None) {
                return false;
            }
        }
        true
    }

    /// Evicts the oldest other idle connection: of a client one that holds something, or of all; false if there is none.
    fn evict_another(&self, client: Option<IpAddr>) -> bool {
        let mut table = self.connections.table.lock();
        let of_client = client.and_then(|client| table.clients.get(&client)).map(|client| client.connections.clone());
        let oldest = match of_client {
            Some(connections) => {
                let holds = |id: &u64| table.places.get(id).is_some_and(|place| place.held.load(Relaxed) > 0);
                table.oldest_idle(connections.into_iter().filter(|&id| id != self.id).filter(holds))
            }
            None => self.connections.idle.lock().oldest(&table.places, Some(self.id)),
        };
        oldest.map(|oldest| self.connections.evict(&mut table, oldest)).is_some()
    }
}

/// Completes when a connection has to make room for another.
#[derive(Debug)]
pub struct Eviction(Arc<Place>);

impl Eviction {
    /// Waits for the eviction.
    pub async fn told(&self) {
        self.0.close.notified().await;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.hold(0);
        self.connections.open[self.transport as usize].fetch_sub(1, Relaxed);
        self.connections.table.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::{idle::FEW_CLOSED, *};

    fn admit(connections: &Arc<Connections>, client: &str, now: Moment) -> Option<Admission> {
        connections.admit(client.parse().unwrap(), Transport::Tcp, now)
    }

    async fn is_evicted(admission: &Admission) -> bool {
        tokio::time::timeout(Duration::from_millis(1), admission.evicted()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_idle_one_makes_room() {
        let connections = Connections::new(3, 2);
        let at = |second| Moment::default() + Duration::from_secs(second);
        let first = admit(&connections, "192.0.2.1", at(1)).unwrap();
        let second = admit(&connections, "192.0.2.1", at(2)).unwrap();
        let others = admit(&connections, "192.0.2.2", at(0)).unwrap();
        first.mark_idle(at(3));
        let third = admit(&connections, "192.0.2.1", at(4)).unwrap();
        assert!(is_evicted(&second).await, "the client's own oldest, though another's is older");
        assert!(!is_evicted(&first).await && !is_evicted(&others).await);
        let fourth = admit(&connections, "192.0.2.3", at(5)).unwrap();
        assert!(is_evicted(&others).await, "the oldest of all");
        for admission in [&first, &third, &fourth] {
            admission.mark_busy();
        }
        assert!(admit(&connections, "192.0.2.4", at(6)).is_none(), "nobody is idle");
        drop((first, second, others, third, fourth));
        assert_eq!(connections.open(Transport::Tcp), 0);
        let table = connections.table.lock();
        assert!(table.places.is_empty() && table.clients.is_empty());
    }

    #[tokio::test]
    async fn one_that_was_busy_since_the_last_eviction_is_no_longer_the_oldest() {
        let connections = Connections::new(4, 4);
        let at = |second| Moment::default() + Duration::from_secs(second);
        let admit = |number: u64, second| admit(&connections, &format!("192.0.2.{number}"), at(second)).unwrap();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|number| admit(number, number));
        let _fifth = admit(5, 5);
        assert!(is_evicted(&first).await);
        second.mark_busy();
        second.mark_idle(at(6));
        third.mark_busy();
        let _sixth = admit(6, 7);
        assert!(is_evicted(&fourth).await, "the second was used, the third is in use");
        third.mark_idle(at(8));
        let _seventh = admit(7, 9);
        let _eighth = admit(8, 10);
        assert!(is_evicted(&second).await, "after the fifth");
        assert!(!is_evicted(&third).await);
    }

    /// Room for so many, and what admits a client of this number.
    fn room_for(most: usize) -> (Arc<Connections>, impl Fn(usize) -> Option<Admission>) {
        let connections = Connections::new(most, 1);
        let owner = Arc::clone(&connections);
        let admit = move |number: usize| {
            let client = IpAddr::from(std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
            let now = Moment::default() + Duration::from_micros(u64::try_from(number).unwrap());
            owner.admit(client, Transport::Tcp, now)
        };
        (connections, admit)
    }

    #[test]
    fn a_flood_of_new_connections_takes_one_look_at_each() {
        const MOST: usize = 100;
        let (connections, admit) = room_for(MOST);
        let mut all: Vec<Admission> = (0..MOST).filter_map(&admit).collect();
        for evicted in 1..=2 * MOST {
            all.extend(admit(MOST + evicted));
            assert_eq!((connections.table.lock().places.len(), connections.idle.lock().0.len()), (MOST, MOST));
        }
        assert_eq!(all.len(), 3 * MOST);
    }

    #[tokio::test]
    async fn a_refused_connection_looks_at_no_other() {
        const MOST: usize = 100;
        let (connections, admit) = room_for(MOST);
        let all: Vec<Admission> = (0..MOST).filter_map(&admit).collect();
        all.iter().for_each(Admission::mark_busy);
        for refused in 0..MOST {
            assert!(admit(MOST + refused).is_none(), "nobody is idle");
            assert_eq!(connections.idle.lock().0.len(), 0, "there is nobody to look at");
        }
        let later = |micros| Moment::default() + Duration::from_micros(micros);
        all[7].mark_idle(later(2000));
        all[8].mark_idle(later(1000));
        all[8].mark_idle(later(3000));
        assert_eq!(connections.idle.lock().0.len(), 2, "each once");
        let new = admit(2 * MOST).unwrap();
        assert!(is_evicted(&all[7]).await && !is_evicted(&all[8]).await, "the eighth was idle before, but not since");
        new.mark_busy();
        let newer = admit(2 * MOST + 1).unwrap();
        assert!(is_evicted(&all[8]).await);
        newer.mark_busy();
        assert!(admit(2 * MOST + 2).is_none());
    }

    #[test]
    fn connections_that_come_and_go_do_not_pile_up() {
        let (connections, admit) = room_for(1000);
        (0..10_000).for_each(|number| drop(admit(number).unwrap()));
        assert!(connections.idle.lock().0.len() <= 2 + FEW_CLOSED);
    }

    #[test]
    fn one_that_becomes_idle_while_another_looks_is_found() {
        const MOST: usize = 4;
        for _ in 0..20 {
            let (_, admit) = room_for(MOST);
            let all: Vec<Admission> = (0..MOST).filter_map(&admit).collect();
            all.iter().for_each(Admission::mark_busy);
            std::thread::scope(|scope| {
                for admission in &all {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            admission.mark_idle(Moment::default());
                            admission.mark_busy();
                        }
                        admission.mark_idle(Moment::default());
                    });
                }
                // It evicts some of them, or none.
                (0..1000).for_each(|_| drop(admit(MOST)));
            });
            let new: Vec<_> = (0..MOST).filter_map(|number| admit(100 + number)).collect();
            assert_eq!(new.len(), MOST, "nobody is busy");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_64_bits() {
        let connections = Connections::new(10, 1);
        let first = admit(&connections, "2001:db8::1", Moment::default()).unwrap();
        first.mark_busy();
        assert!(admit(&connections, "2001:db8::ffff:0:0:1", Moment::default()).is_none());
        assert!(admit(&connections, "2001:db8:0:1::1", Moment::default()).is_some());
        let mapped = admit(&connections, "::ffff:192.0.2.1", Moment::default()).unwrap();
        mapped.mark_busy();
        assert!(admit(&connections, "192.0.2.1", Moment::default()).is_none());
    }

    #[tokio::test]
    async fn held_memory_is_bounded_and_given_back() {
        let connections = Connections::new(2000, 1000);
        let mut one = admit(&connections, "192.0.2.1", Moment::default()).unwrap();
        assert!(one.hold(MOST_HELD) && !one.hold(MOST_HELD + 1) && one.hold(1) && one.hold(MOST_HELD));
        one.mark_busy();
        let mut same = Vec::new();
        for _ in 0..16 {
            let other = admit(&connections, "192.0.2.1", Moment::default()).unwrap();
            other.mark_busy();
            same.push(other);
        }
        assert_eq!(same.iter_mut().filter_map(|other| other.hold(MOST_HELD).then_some(())).count(), 15);
        let last = same.last_mut().unwrap();
        assert!(!last.hold(1000), "nobody is idle");
        one.mark_idle(Moment::default());
        assert!(last.hold(1000));
        assert!(is_evicted(&one).await, "what it held makes room");
        assert!(last.hold(MOST_HELD), "at once, though the evicted one is not gone yet");
        drop(same);
        drop(one);
        assert_eq!(connections.held.load(Relaxed), 0);
    }

    /// A burst of what must be held: only those are evicted whose octets are needed.
    #[tokio::test]
    async fn no_more_are_evicted_than_must_be() {
        let connections = Connections::new(2000, 1000);
        let admit = || admit(&connections, "192.0.2.1", Moment::default()).unwrap();
        let unused = admit();
        let mut holders: Vec<Admission> = (0..16).map(|_| admit()).collect();
        assert!(holders.iter_mut().all(|holder| holder.hold(MOST_HELD)));
        let mut burst = admit();
        assert!((1..=64).all(|part| burst.hold(part * 1000)));
        let evicted = futures_util::future::join_all(holders.iter().map(is_evicted)).await;
        assert_eq!(evicted.iter().filter(|evicted| **evicted).count(), 1);
        assert!(evicted[0] && !is_evicted(&unused).await, "the oldest that holds something");
        assert_eq!(connections.held.load(Relaxed), 15 * MOST_HELD + 64_000);
    }
}
