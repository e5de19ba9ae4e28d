//! Coalesces equal queries in the whole process: the first asks upstream, later ones wait for its answer.
//!
//! Queries share one rule's part of an answer. A leader never waits for another leader, so that no chain of CNAMEs,
//! however twisted, can make two queries wait for each other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;
use hashbrown::{HashTable, hash_table::Entry};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{route::Audience, wire::UpstreamQuery};

/// Shards, so that workers seldom meet; a power of two.
const SHARDS: usize = 64;

/// Identifies equal queries: question and flags, rule, audience, and the snapshot that decided these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingKey {
    /// The query to the upstream.
    pub query: Arc<UpstreamQuery>,
    /// The clients it is for.
    pub audience: Audience,
    /// The rule it goes through.
    pub rule: u32,
    /// The snapshot's generation.
    pub generation: u32,
}

/// Queries that wait for an upstream.
#[derive(Debug)]
pub struct Pending<T> {
    shards: Box<[Shard<T>]>,
}

type Shard<T> = CachePadded<Mutex<HashTable<Slot<T>>>>;

#[derive(Debug)]
struct Slot<T> {
    hash: u64,
    key: PendingKey,
    waiters: Vec<oneshot::Sender<T>>,
}

/// The role of a query among equal ones.
#[derive(Debug)]
pub enum Place<'a, T> {
    /// The caller asks, then calls [`Lead::finish`].
    Lead(Lead<'a, T>),
    /// An equal query is already asking; the channel closes if it gives up.
    Follow(oneshot::Receiver<T>),
}

/// The obligation to answer all followers. Dropped without an answer, it closes their channels.
#[derive(Debug)]
pub struct Lead<'a, T> {
    pending: &'a Pending<T>,
    hash: u64,
    key: PendingKey,
    /// True once its slot in the table is given up: another leader may have it by now.
    is_over: bool,
}

impl<T: Clone> Pending<T> {
    /// An empty table.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| CachePadded::new(Mutex::new(HashTable::new()))).collect();
        Self { shards }
    }

    /// Adds a query for `key`, whose hash is `hash`.
    pub fn join(&self, hash: u64, key: PendingKey) -> Place<'_, T> {
        let mut shard = self.shard(hash).lock();
        match shard.entry(hash, |slot| slot.key == key, |slot| slot.hash) {
            Entry::Occupied(mut slot) => {
                let (sender, receiver) = oneshot::channel();
                slot.get_mut().waiters.push(sender);
                Place::Follow(receiver)
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { hash, key: key.clone(), waiters: Vec::new() });
                Place::Lead(Lead { pending: self, hash, key, is_over: false })
            }
        }
    }
}

impl<T> Pending<T> {
    /// How many queries wait for the answer to another.
    pub fn followers(&self) -> usize {
        let waiting = |waiters: &[oneshot::Sender<T>]| waiters.iter().filter(|waiter| !waiter.is_closed()).count();
        self.shards.iter().map(|shard| shard.lock().iter().map(|slot| waiting(&slot.waiters)).sum::<usize>()).sum()
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<Slot<T>>> {
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        &self.shards[index]
    }

    fn take(&self, hash: u64, key: &PendingKey) -> Vec<oneshot::Sender<T>> {
        let mut shard = self.shard(hash).lock();
        shard.find_entry(hash, |slot| slot.key == *key).map_or_else(|_| Vec::new(), |slot| slot.remove().0.waiters)
    }
}

impl<T: Clone> Default for Pending<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Lead<'_, T> {
    /// Gives the answer to all followers. The next equal query leads again.
    pub fn finish(mut self, answer: &T) {
        self.is_over = true;
        for waiter in self.pending.take(self.hash, &self.key) {
            // A follower may have timed out.
            drop(waiter.send(answer.clone()));
        }
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        if !self.is_over {
            drop(self.pending.take(self.hash, &self.key));
        }
    }
}

/// The number of queries that wait for an upstream, in the whole process.
#[derive(Debug, Default)]
pub struct Waiting(CachePadded<AtomicUsize>);

impl Waiting {
    /// Admits a query unless `most` wait already. It counts until the permit is dropped.
    pub fn admit(self: &Arc<Self>, most: usize) -> Option<Permit> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= most {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit(Arc::clone(self)))
    }

    /// How many queries wait.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A query's right to wait for an upstream.
#[derive(Debug)]
pub struct Permit(Arc<Waiting>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Class, RecordType};

    fn key(name: &str) -> PendingKey {
        let query = UpstreamQuery {
            name: name.parse().unwrap(),
            qtype: RecordType::A,
            qclass: Class::IN,
            do_bit: false,
            cd: false,
        };
        PendingKey { query: Arc::new(query), audience: 0, rule: 0, generation: 1 }
    }

    #[test]
    fn a_follower_gets_the_leaders_answer() {
        let pending = Pending::new();
        let Place::Lead(lead) = pending.join(7, key("a.example")) else { panic!("the first leads") };
        let Place::Follow(mut one) = pending.join(7, key("a.example")) else { panic!("the second follows") };
        // The same hash does not make another query equal.
        let Place::Lead(other) = pending.join(7, key("b.example")) else { panic!("another query leads") };
        lead.finish(&"answer");
        assert_eq!(one.try_recv(), Ok("answer"));
        drop(other);
        assert!(matches!(pending.join(7, key("a.example")), Place::Lead(_)), "an answered query is asked again");
    }

    #[test]
    fn a_leader_that_gives_up_lets_go() {
        let pending = Pending::<u8>::new();
        let Place::Lead(lead) = pending.join(7, key("a.example")) else { panic!("the first leads") };
        let Place::Follow(mut one) = pending.join(7, key("a.example")) else { panic!("the second follows") };
        drop(lead);
        assert_eq!(one.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(matches!(pending.join(7, key("a.example")), Place::Lead(_)));
    }

    /// An answer that runs a callback when it is cloned for a follower.
    struct CallsBack(Arc<dyn Fn() + Send + Sync>);

    impl Clone for CallsBack {
        fn clone(&self) -> Self {
            self.0();
            Self(Arc::clone(&self.0))
        }
    }

    #[test]
    fn a_new_leader_is_kept_while_the_last_one_gives_out_its_answer() {
        let pending = &*Box::leak(Box::new(Pending::<CallsBack>::new()));
        let next = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&next);
        // Another worker asks the same while the waiters are given their answers.
        let answer = CallsBack(Arc::new(move || *kept.lock() = Some(pending.join(7, key("a.example")))));
        let Place::Lead(lead) = pending.join(7, key("a.example")) else { panic!("the first leads") };
        let Place::Follow(_one) = pending.join(7, key("a.example")) else { panic!("the second follows") };
        lead.finish(&answer);
        let Some(Place::Lead(_second)) = next.lock().take() else { panic!("who came later leads") };
        assert!(
            matches!(pending.join(7, key("a.example")), Place::Follow(_)),
            "the second leader is still in the table"
        );
    }

    #[test]
    fn no_more_than_the_bound_wait() {
        let waiting = Arc::new(Waiting::default());
        let first = waiting.admit(2);
        let second = waiting.admit(2);
        assert!(first.is_some() && second.is_some() && waiting.admit(2).is_none());
        drop(first);
        assert!(waiting.admit(2).is_some());
        drop(second);
        assert_eq!(waiting.count(), 0);
    }
}
