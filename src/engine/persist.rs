//! Saves the cache to a snapshot and restores it after a restart.
//!
//! Policy:
//! - Only answers from upstreams are written. Answers from local zones are made again from the zone. Answers for one
//!   audience of this configuration are not written.
//! - Entries also age while no process runs, by the wall clock. If that was set back, no entry is younger than it was
//!   when the file was written.
//! - An entry is taken back if its rule is there with the same name and the same fingerprint of all that shapes its
//!   answers, and if it may still be served, at least stale. Rules and views get the numbers of this configuration.
//! - It comes back as an entry of an earlier generation: when it is first asked for, its rules are looked up and their
//!   guard checks it again ([`Snapshot::revalidate`]).
//! - An entry that the cache has already stays, unless the file's expires later.
//! - Nothing is taken from a damaged file; one that a running daemon imports is read to its end first. A file that is
//!   whole may still come from someone else: each entry is checked and rewritten like an upstream's answer, and kept no
//!   longer than its records and the limits allow. A message that does not answer its question is left out.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr},
};

use hashbrown::HashMap;

use super::{
    Engine,
    snapshot::{FIRST_AUDIENCE_VIEW, FROM_FILE, Rule, RuleId, Snapshot},
    store,
};
use crate::{
    cache::{
        Cache, CacheKey, EntryView, Insertion, New, Stamp,
        snapshot::{SavedEntry, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotRule, SnapshotWriter},
    },
    clock::Moment,
    wire::{MessageId, Name, Response, UpstreamQuery},
};

/// A client in no view, for entries that all clients share.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Seconds by which the same answer may seem to expire later: two times are rounded to seconds on both sides.
const ROUNDING: u32 = 2;

/// The result of restoring a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Entries restored.
    pub entries: u32,
    /// Entries left out: too old, of a rule that no longer exists, no fresher than the cached one, or malformed.
    pub left_out: u32,
    /// Seconds since the file was written.
    pub age: u64,
}

/// See [`Engine::save`].
pub(super) fn save<W: Write>(engine: &Engine, out: W, now: Moment, wall: u64) -> io::Result<(W, u32)> {
    let snapshot = engine.snapshot_owned();
    let rule = |rule: &Rule| SnapshotRule { name: rule.name.to_string(), fingerprint: rule.fingerprint };
    let entries = u64::try_from(engine.cache.stats().entries).unwrap_or(u64::MAX);
    let header = SnapshotHeader { written: wall, entries, rules: snapshot.rules().iter().map(rule).collect() };
    let mut writer = SnapshotWriter::begin(out, rand::random(), &header)?;
    let seconds = now.seconds();
    for page in engine.cache.pages() {
        page.for_each(|entry| {
            let age = seconds.saturating_sub(entry.stored_at);
            if age > entry.lifetime.saturating_add(snapshot.stale) {
                return;
            }
            if let Some(stamp) = current_stamp(&snapshot, entry) {
                writer.push(&EntryView { stamp, ..*entry }, age);
            }
        });
        writer.settle()?;
    }
    writer.finish()
}

/// See [`Engine::restore`].
pub(super) fn restore<R: Read>(engine: &Engine, input: R, now: Moment, wall: u64) -> Result<Restored, SnapshotError> {
    take_all(engine, input, now, wall).inspect_err(|_| engine.cache.clear())
}

/// See [`Engine::import`].
pub(super) fn import(engine: &Engine, octets: &[u8], now: Moment, wall: u64) -> Result<Restored, SnapshotError> {
    // Read to its end before the first entry is taken: damage must not cost what the cache has.
    SnapshotReader::begin(octets)?.read(|_, _| {})?;
    take_all(engine, octets, now, wall)
}

fn take_all<R: Read>(engine: &Engine, input: R, now: Moment, wall: u64) -> Result<Restored, SnapshotError> {
    let reader = SnapshotReader::begin(input)?;
    let snapshot = engine.snapshot_owned();
    let header = reader.header();
    let elapsed = wall.saturating_sub(header.written);
    let plan = Restoring {
        numbers: numbers_of(&header.rules, &snapshot),
        elapsed: u32::try_from(elapsed).unwrap_or(u32::MAX),
        snapshot: &snapshot,
        now: now.seconds(),
    };
    engine.cache.reserve(usize::try_from(header.entries).unwrap_or(usize::MAX));
    let mut restored = Restored { age: elapsed, ..Restored::default() };
    reader.read(|saved, _| {
        let taken = plan.take(saved, &engine.cache);
        if matches!(taken, Some(Insertion::Stored | Insertion::Replaced)) {
            restored.entries += 1;
        } else {
            restored.left_out += 1;
        }
    })?;
    Ok(restored)
}

/// An entry's stamp under this configuration; none if it is not to be written.
fn current_stamp(snapshot: &Snapshot, entry: &EntryView<'_>) -> Option<Stamp> {
    if entry.key.view >= FIRST_AUDIENCE_VIEW {
        return None;
    }
    let stamp = match entry.stamp.generation {
        generation if generation == snapshot.generation => entry.stamp,
        // Nobody asked for it since the start; its numbers are those of the first generation.
        FROM_FILE if snapshot.generation == 1 => entry.stamp,
        // Nobody asked for it since a reload: it is judged for everybody, or stays behind.
        _ if entry.key.view == 0 => snapshot.revalidate(entry.message, entry.stamp, NOBODY, 0)?,
        _ => return None,
    };
    snapshot.counters_of(stamp.rule).map(|_| stamp)
}

/// For each of the file's rules the number of the rule that shapes answers exactly as it did.
fn numbers_of<'s>(rules: &'s [SnapshotRule], snapshot: &'s Snapshot) -> Vec<Option<u32>> {
    let of_rule = |(rule, number): (&'s Rule, u32)| ((&*rule.name, rule.fingerprint), number);
    let ours: HashMap<(&str, u64), u32> = snapshot.rules().iter().zip(0..).map(of_rule).collect();
    rules.iter().map(|rule| ours.get(&(&*rule.name, rule.fingerprint)).copied()).collect()
}

/// The context for restoring entries.
struct Restoring<'s> {
    /// Of the file's rules, in this configuration.
    numbers: Vec<Option<u32>>,
    elapsed: u32,
    snapshot: &'s Snapshot,
    now: u32,
}

impl Restoring<'_> {
    /// Restores an entry; none if it is left out.
    fn take(&self, saved: &SavedEntry<'_>, cache: &Cache) -> Option<Insertion> {
        let number = |position: u32| *self.numbers.get(usize::try_from(position).ok()?)?;
        let rule = number(saved.rule)?;
        // A view's number is its rule's plus one.
        let view = match saved.key.view.checked_sub(1) {
            None => 0,
            Some(rule) => number(rule)?.checked_add(1)?,
        };
        let CacheKey { qtype, qclass, do_bit, cd, .. } = saved.key;
        let query = UpstreamQuery { name: Name::from_wire(saved.key.name).ok()?, qtype, qclass, do_bit, cd };
        let mut response = Response::read(saved.message, &query, MessageId(0), None).ok()?;
        let lifetime = store::bound_saved(&self.snapshot.limits(RuleId(rule)), &mut response, saved.lifetime);
        let age = saved.age.saturating_add(self.elapsed);
        if age > lifetime.saturating_add(self.snapshot.stale) {
            return None;
        }
        let key = CacheKey { name: query.name.as_wire(), view, ..saved.key };
        let (hash, stored_at) = (key.hash(), self.now.saturating_sub(age));
        let expiry = stored_at.saturating_add(lifetime);
        if cache.expiry(&key, hash).is_some_and(|ours| ours.saturating_add(ROUNDING) >= expiry) {
            return None;
        }
        let new = New {
            message: response.message(),
            ttl_offsets: response.ttl_offsets(),
            lifetime,
            now: stored_at,
            stamp: Stamp { generation: FROM_FILE, fingerprint: saved.fingerprint, rule },
            integrity: saved.integrity,
        };
        Some(cache.insert(&key, hash, new, |_| false))
    }
}
