//! Which connections are idle, so that the oldest is found without a look at all.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use hashbrown::HashMap;
use tokio::sync::Notify;

/// Value of `idle_since` for a connection that is not idle.
pub(super) const BUSY: u64 = u64::MAX;

/// State of one connection that other connections read.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) client: IpAddr,
    /// When it became idle, in microseconds, or [`BUSY`].
    pub(super) idle_since: AtomicU64,
    /// Whether the [`IdleList`] has it.
    pub(super) is_listed: AtomicBool,
    /// Octets that it holds; none from its eviction on, whatever it still has to drop.
    pub(super) held: AtomicUsize,
    pub(super) close: Notify,
}

/// Since when, and which: the idle connections, the oldest on top.
///
/// - Every idle connection is listed; a busy one may be, until it gets to the top.
/// - A connection is listed once, with a time no later than that since which it is idle.
/// - At least half of them are open, but for a few.
///
/// So what is taken off the top was put there by a new connection or by one that became idle: a refused one, which
/// finds the list empty, costs nothing.
#[derive(Debug, Default)]
pub(super) struct IdleList(pub(super) BinaryHeap<Reverse<(u64, u64)>>);

/// Closed connections that may be listed whatever the number of open ones.
pub(super) const FEW_CLOSED: usize = 64;

impl IdleList {
    /// Adds a connection that is not listed.
    pub(super) fn push(&mut self, entry: (u64, u64)) {
        self.0.push(Reverse(entry));
    }

    /// Adds a new one, and drops closed ones once they are most of the list.
    pub(super) fn push_new(&mut self, entry: (u64, u64), places: &HashMap<u64, Arc<Place>>) {
        self.push(entry);
        if self.0.len() > 2 * places.len() + FEW_CLOSED {
            self.0.retain(|Reverse((_, id))| places.contains_key(id));
        }
    }

    /// Takes the connection off that has been idle longest, except one.
    pub(super) fn oldest(&mut self, places: &HashMap<u64, Arc<Place>>, except: Option<u64>) -> Option<u64> {
        let mut kept = None;
        let mut oldest = None;
        while let Some(Reverse((since, id))) = self.0.pop() {
            let Some(place) = places.get(&id) else { continue };
            if except == Some(id) {
                kept = Some((since, id));
                continue;
            }
            let idle_since = place.idle_since.load(SeqCst);
            if idle_since == since {
                oldest = Some(id);
                break;
            } else if idle_since != BUSY {
                self.push((idle_since, id));
            } else if let Some(since) = place.unlist() {
                self.push((since, id));
            }
        }
        kept.into_iter().for_each(|kept| self.push(kept));
        oldest
    }
}

impl Place {
    /// Marks it as not listed. If it has become idle meanwhile it must be listed again, with the time returned.
    fn unlist(&self) -> Option<u64> {
        self.is_listed.store(false, SeqCst);
        // Either this sees that it became idle, or `mark_idle` sees that it is not listed.
        let idle_since = self.idle_since.load(SeqCst);
        (idle_since != BUSY && !self.is_listed.swap(true, SeqCst)).then_some(idle_since)
    }
}
