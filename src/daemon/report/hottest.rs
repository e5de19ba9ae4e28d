//! The hottest names, clients and failures of the last minutes, from the samples of all workers.
//!
//! The main thread takes the samples every second. Each minute has its own counts, of at most [`KEYS`] keys
//! each: when there are more, those counted least are forgotten, as in lossy counting, so a flood of random names costs
//! no memory.

use std::{
    cmp::{Ordering, Reverse},
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
};

use parking_lot::Mutex;

use crate::{
    admin::top::{Top, TopClient, TopFailure, TopName},
    metrics::{
        WorkerCounters,
        samples::Samples,
        worker::{SampledFailure, SampledQuery},
    },
    wire::{Name, ede},
};

/// Minutes that are kept, the current one among them.
const MINUTES: usize = 5;
/// Keys of a count; twice as many before those counted least are forgotten.
const KEYS: usize = 500;
/// Entries of each list in the document.
const SHOWN: usize = 20;

/// The counts of the last minutes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Hottest(Mutex<VecDeque<Minute>>);

#[derive(Debug, Default)]
struct Minute {
    /// When it began, in seconds since 1970.
    at: u64,
    queries: u64,
    sampled: u64,
    names: KeyCounts<Name>,
    clients: KeyCounts<IpAddr>,
    failures: KeyCounts<SampledFailure>,
}

/// A bounded count by key.
#[derive(Debug)]
struct KeyCounts<K>(HashMap<K, u64>);

impl Hottest {
    /// Takes the samples of the workers.
    pub(super) fn take<'a>(&self, workers: impl Iterator<Item = &'a WorkerCounters>, wall: u64) {
        let mut minutes = self.0.lock();
        let minute = current(&mut minutes, wall - wall % 60);
        for worker in workers {
            minute.count(worker.sampled.drain(), worker.failed.drain());
        }
    }

    /// The document, at `wall` seconds since 1970.
    pub(super) fn top(&self, wall: u64) -> Top {
        let minutes = self.0.lock();
        let recent = || minutes.iter().filter(|minute| minute.at + 60 * MINUTES as u64 > wall);
        let queries: u64 = recent().map(|minute| minute.queries).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let share = |part: u64| part as f64 / queries.max(1) as f64;
        let names = largest(recent().map(|minute| &minute.names), Ord::cmp);
        let clients = largest(recent().map(|minute| &minute.clients), Ord::cmp);
        let by_name = |one: &SampledFailure, other: &SampledFailure| one.name.cmp(&other.name);
        let failures = largest(recent().map(|minute| &minute.failures), by_name);
        let name = |(name, queries): (&Name, u64)| TopName { name: name.to_string(), queries, share: share(queries) };
        let client = |(client, queries): (&IpAddr, u64)| TopClient {
            client: client.to_canonical().to_string(),
            queries,
            share: share(queries),
        };
        let failure = |(failure, queries): (&SampledFailure, u64)| TopFailure {
            name: failure.name.to_string(),
            rcode: failure.rcode.to_string(),
            reason: failure.ede.map(|code| ede::meaning(code.number()).to_owned()),
            queries,
        };
        Top {
            window: recent().next().map_or(0, |oldest| wall.saturating_sub(oldest.at)),
            queries,
            sampled: recent().map(|minute| minute.sampled).sum(),
            names: names.into_iter().map(name).collect(),
            clients: clients.into_iter().map(client).collect(),
            failures: failures.into_iter().map(failure).collect(),
        }
    }
}

/// The counts of the minute that began at `at`. If the clock was set back, no earlier minute is added.
fn current(minutes: &mut VecDeque<Minute>, at: u64) -> &mut Minute {
    let last = match minutes.pop_back() {
        Some(last) if last.at >= at => last,
        last => {
            minutes.extend(last);
            if minutes.len() == MINUTES {
                minutes.pop_front();
            }
            Minute { at, ..Minute::default() }
        }
    };
    minutes.push_back(last);
    let newest = minutes.len() - 1;
    &mut minutes[newest]
}

impl Minute {
    fn count(&mut self, queries: Samples<SampledQuery>, failures: Samples<SampledFailure>) {
        for query in queries.events {
            self.queries += queries.every;
            self.sampled += 1;
            self.names.add(query.name.to_name(), queries.every);
            self.clients.add(query.client, queries.every);
        }
        for failure in failures.events {
            self.failures.add(failure, failures.every);
        }
    }
}

impl<K> Default for KeyCounts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> KeyCounts<K> {
    fn add(&mut self, key: K, count: u64) {
        *self.0.entry(key).or_default() += count;
        if self.0.len() > 2 * KEYS {
            self.forget_least();
        }
    }

    fn forget_least(&mut self) {
        let mut counts: Vec<u64> = self.0.values().copied().collect();
        let (more, &mut least, _) = counts.select_nth_unstable_by_key(KEYS, |count| Reverse(*count));
        // Of those counted equally often, some stay.
        let mut room = KEYS - more.iter().filter(|count| **count > least).count();
        self.0.retain(|_, count| {
            let stays = *count > least || (*count == least && room > 0);
            room -= usize::from(stays && *count == least);
            stays
        });
    }
}

/// The keys with the largest sums, the largest first, and those with equal ones in an order that stays.
fn largest<'a, K: Hash + Eq + 'a>(
    minutes: impl Iterator<Item = &'a KeyCounts<K>>,
    order: impl Fn(&K, &K) -> Ordering,
) -> Vec<(&'a K, u64)> {
    let mut sums: HashMap<&K, u64> = HashMap::new();
    for (key, count) in minutes.flat_map(|counts| &counts.0) {
        *sums.entry(key).or_default() += count;
    }
    let mut sums: Vec<(&K, u64)> = sums.into_iter().collect();
    sums.sort_unstable_by(|(one, count), (other, more)| more.cmp(count).then_with(|| order(one, other)));
    sums.truncate(SHOWN);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EdeCode, NameBuf, Rcode};

    fn ask(worker: &WorkerCounters, name: &str, client: u8) {
        let name: Name = name.parse().unwrap();
        let query =
            SampledQuery { name: NameBuf::lowercase_of(name.as_wire()), client: IpAddr::from([10, 0, 0, client]) };
        if worker.sampled.is_due(1) {
            worker.sampled.pick(1, |_| Some(query.clone()));
        }
    }

    #[test]
    fn the_hottest_of_all_workers_come_first_and_old_ones_go() {
        let (hottest, workers) = (Hottest::default(), [WorkerCounters::new(0), WorkerCounters::new(1)]);
        let take = |wall| hottest.take(workers.iter(), wall);
        (0..3).for_each(|_| ask(&workers[0], "hot.example", 1));
        ask(&workers[1], "hot.example", 2);
        ask(&workers[1], "warm.example", 2);
        workers[1].failed(&"bad.example".parse().unwrap(), Rcode::SERVFAIL, Some(EdeCode::NoReachableAuthority));
        take(600);
        ask(&workers[0], "warm.example", 1);
        take(725);
        let top = hottest.top(730);
        assert_eq!((top.window, top.queries, top.sampled), (130, 6, 6));
        let names: Vec<(&str, u64)> = top.names.iter().map(|name| (name.name.as_str(), name.queries)).collect();
        assert_eq!(names, [("hot.example.", 4), ("warm.example.", 2)]);
        assert_eq!((top.clients[0].client.as_str(), top.clients[0].queries), ("10.0.0.1", 4));
        let failure = &top.failures[0];
        assert_eq!((failure.name.as_str(), failure.rcode.as_str(), failure.queries), ("bad.example.", "SERVFAIL", 1));
        assert_eq!(failure.reason.as_deref(), Some("No Reachable Authority"));
        assert_eq!(hottest.top(920).names.len(), 1, "the first minute is over five minutes old");
        assert_eq!(hottest.top(5_000), Top::default(), "nothing was asked lately");
    }

    #[test]
    fn a_flood_of_names_neither_grows_the_counts_nor_hides_the_hottest() {
        let mut counts = KeyCounts::default();
        for number in 0..10_000_u64 {
            counts.add(number, 1);
            if number % 10 == 0 {
                counts.add(u64::MAX, 1);
            }
            assert!(counts.0.len() <= 2 * KEYS);
        }
        let largest = largest([&counts].into_iter(), Ord::cmp);
        assert_eq!((largest[0], largest.len()), ((&u64::MAX, 1_000), SHOWN));
    }
}
