//! What is known of a server in a group, apart from the server itself: health, RTT, counters, whether it is drained.
//!
//! A record belongs to the server's identity (see [`ServerKey`](crate::upstream::spec::ServerKey)) and outlives the
//! [`Server`] that writes it. If its group is renamed, its CAs or thresholds change, or it is absent for a while, a new
//! `Server` gets the same record. [`ServerRegistry`](super::ServerRegistry) finds it again.
//!
//! [`Server`]: super::Server

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::clock::Moment;

use super::{
    connect_error::ConnectError,
    health::{Event, Health, HealthState, ProbeError},
    liveness::Liveness,
    quirks::Quirks,
    rtt::{Rtt, Smoothed},
    tally::Tally,
};

/// What is known of a server. The fields that an exchange touches are atomic.
#[derive(Debug, Default)]
pub struct ServerRecord {
    /// Written by an operator.
    pub(super) is_drained: AtomicBool,
    pub(super) verdict: Verdict,
    /// Written by every answer and every unanswered try.
    pub(crate) liveness: Liveness,
    pub(super) rtt: Rtt,
    /// Written by unusual answers.
    pub(crate) quirks: Quirks,
    /// When a change of the path to the server was last logged.
    pub(super) path_changed_at: AtomicU64,
    /// When a query first found no path out of this host, in microseconds; 0 while there is one.
    pub(super) path_lost_at: AtomicU64,
    /// How long the path was gone, in microseconds, until a line in the log says so; 0 for none.
    pub(super) brief_loss: AtomicU64,
    /// Whether this host has no path to the server, or a local firewall forbids it.
    pub(super) has_no_path: AtomicBool,
    /// When a path became available again, and how often that happened.
    pub(super) path_back_at: AtomicU64,
    pub(super) ways_back: AtomicU64,
    /// When a local send error was last logged.
    pub(super) local_error_at: AtomicU64,
    /// Written when a connection opens or fails to open.
    pub(super) connect_error: Mutex<Option<ConnectError>>,
    /// Its counters.
    pub tally: Tally,
}

/// Health of a server. Written by probes and by traffic that changes it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) health: Mutex<Health>,
    /// Copy of the machine's state, readable without the lock.
    pub(super) state: AtomicU8,
    pub(super) is_judged: AtomicBool,
    pub(super) transitions: [AtomicU64; HealthState::ALL.len()],
    /// How often it came up after silence or an outage.
    pub(super) recoveries: AtomicU64,
    pub(super) last_probe_error: Mutex<Option<ProbeError>>,
    /// The event that last changed the state.
    pub(super) changed_by: Mutex<Option<Event>>,
}

/// A path out of this host that was gone, and is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LostPath {
    /// When a query first found none.
    pub(super) since: Moment,
    /// Whether other servers were preferred meanwhile.
    pub(super) was_known: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            health: Mutex::default(),
            state: AtomicU8::new(HealthState::Suspect as u8),
            is_judged: AtomicBool::new(false),
            transitions: Default::default(),
            recoveries: AtomicU64::new(0),
            last_probe_error: Mutex::default(),
            changed_by: Mutex::default(),
        }
    }
}

impl Verdict {
    /// Publishes the machine's state.
    pub(super) fn publish(&self, health: &Health) {
        self.state.store(health.state() as u8, Relaxed);
    }
}

impl ServerRecord {
    /// The record for a server that another group also uses: the same knowledge, with counters of its own. Health is
    /// copied only if neither group configures a probe, since only then it means the same to both.
    pub(super) fn for_another_group(&self, is_health_shared: bool) -> Self {
        let record = Self::default();
        record.rtt.copy(&self.rtt);
        *record.connect_error.lock() = self.connect_error();
        if is_health_shared {
            let health = self.verdict.health.lock().clone();
            record.verdict.publish(&health);
            record.verdict.is_judged.store(self.is_judged(), Relaxed);
            *record.verdict.health.lock() = health;
            *record.verdict.last_probe_error.lock() = self.last_probe_error();
            *record.verdict.changed_by.lock() = *self.verdict.changed_by.lock();
        }
        record
    }

    /// The current health.
    pub fn state(&self) -> HealthState {
        HealthState::ALL[usize::from(self.verdict.state.load(Relaxed)).min(HealthState::ALL.len() - 1)]
    }

    /// Whether there is a first verdict: the server answered, or a probe of it failed.
    pub fn is_judged(&self) -> bool {
        self.verdict.is_judged.load(Relaxed)
    }

    /// Whether an operator took it out of service.
    pub fn is_drained(&self) -> bool {
        self.is_drained.load(Relaxed)
    }

    /// The smoothed round-trip time; none before the first answer.
    pub fn rtt(&self) -> Option<Smoothed> {
        self.rtt.load()
    }

    /// How often the server entered a state.
    pub fn transitions(&self, to: HealthState) -> u64 {
        self.verdict.transitions[to as usize].load(Relaxed)
    }

    /// When it last answered anything; none if it never did.
    pub fn last_answer(&self) -> Option<Moment> {
        self.liveness.last_heard()
    }

    /// Why the server is in its state, in the words of the log; none before the first change.
    pub fn reason(&self) -> Option<&'static str> {
        self.verdict.changed_by.lock().map(Event::words)
    }

    /// Why the last probe failed; none after one passed.
    pub fn last_probe_error(&self) -> Option<ProbeError> {
        *self.verdict.last_probe_error.lock()
    }

    /// Why the last connection could not be opened; none after one opened, or after a probe passed.
    pub fn connect_error(&self) -> Option<ConnectError> {
        self.connect_error.lock().clone()
    }

    pub(crate) fn set_connect_error(&self, error: Option<ConnectError>) {
        *self.connect_error.lock() = error;
    }

    /// The later of when the server was last down and when this host last had no path to it.
    pub fn steady_since(&self) -> Moment {
        let path_back_at = Moment::from_micros(self.path_back_at.load(Relaxed));
        self.verdict.health.lock().steady_since().max(path_back_at)
    }

    /// Whether this host has no path to the server: its source address is gone, or a local firewall or route forbids
    /// it. The server's health is unchanged, but another path or tier is preferred.
    pub fn has_no_path(&self) -> bool {
        self.has_no_path.load(Relaxed)
    }

    /// Whether queries may go to it.
    pub fn is_usable(&self) -> bool {
        self.state() != HealthState::Down && !self.is_drained() && !self.has_no_path()
    }

    /// A number that grows each time the server becomes usable again. A doubt that an error response raised and a probe
    /// cleared is no such time.
    pub fn recoveries(&self) -> u64 {
        self.verdict.recoveries.load(Relaxed).wrapping_add(self.ways_back.load(Relaxed))
    }

    /// Notes that a query found no path out of this host.
    pub(super) fn lose_path(&self, now: Moment) {
        // Only the first moment counts.
        let _ = self.path_lost_at.compare_exchange(0, now.micros(), Relaxed, Relaxed);
    }

    /// Notes that a query sent at `sent_at` was answered, and returns since when there had been no path, if so.
    pub(super) fn find_path(&self, sent_at: Moment, now: Moment) -> Option<LostPath> {
        let lost_at = self.path_lost_at.load(Relaxed);
        let is_mine = lost_at != 0
            && sent_at.micros() >= lost_at
            && self.path_lost_at.compare_exchange(lost_at, 0, Relaxed, Relaxed).is_ok();
        if !is_mine {
            return None;
        }
        let was_known = self.has_no_path.swap(false, Relaxed);
        if was_known {
            self.path_back_at.store(now.micros(), Relaxed);
            self.ways_back.fetch_add(1, Relaxed);
        }
        Some(LostPath { since: Moment::from_micros(lost_at), was_known })
    }
}
