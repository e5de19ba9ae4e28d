//! How many stream connections there may be: in all, and from one client.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// The bounds (`tcp_connections`, `tcp_per_client`) and what counts against them, for all workers.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_client: usize,
    open: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    /// No connections yet.
    pub fn new(most: usize, most_per_client: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_client, open: AtomicUsize::new(0), clients: Mutex::new(HashMap::new()) })
    }

    /// Counts a connection in; none if there are too many already.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admission> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut clients = self.clients.lock();
        let count = clients.entry(client).or_insert(0);
        if *count >= self.most_per_client {
            drop(clients);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *count += 1;
        drop(clients);
        Some(Admission { connections: Arc::clone(self), client })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A connection's place among the others; dropped, it is free again.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let mut clients = self.connections.clients.lock();
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold_and_places_become_free_again() {
        let connections = Connections::new(3, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let two: IpAddr = "192.0.2.2".parse().unwrap();
        let first = connections.admit(one).unwrap();
        let second = connections.admit(one);
        assert!(second.is_some() && connections.admit(one).is_none(), "two for one client");
        let third = connections.admit(two);
        assert!(third.is_some() && connections.admit(two).is_none(), "three in all");
        drop(first);
        assert!(connections.admit(two).is_some());
        drop((second, third));
        assert_eq!(connections.open(), 0);
        assert!(connections.clients.lock().is_empty());
    }
}
