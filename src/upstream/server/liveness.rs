//! Signs of life of one server, as seen in traffic: when it last answered, how long it has been silent, which names it
//! fails, and a query that it answered recently.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{quirks::hash, role::Role};
use crate::{
    clock::Moment,
    wire::{Name, UpstreamQuery},
};

/// Unanswered tries that it takes, besides the time, until silence is a verdict. At 30 % loss each way this many are
/// lost in a row once in a few hundred times.
pub(super) const SILENT_TRIES: u32 = 8;
/// Answers closer together than this count as one sign of life.
const HEARD_GRAIN: Duration = Duration::from_millis(1);
/// How often an answered query is stored.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long an answered query or failed names say something about the server.
const LATELY: Duration = Duration::from_mins(10);

/// What traffic showed of a server. All workers write it.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    last_heard: AtomicU64,
    last_good: AtomicU64,
    silent_tries: AtomicU32,
    silent_since: AtomicU64,
    /// Whether one of the silent tries was a probe.
    probe_is_silent: AtomicBool,
    /// Hash of the first name that failed since the last good answer; 0 for none.
    failed_name: AtomicU64,
    /// When a second name failed, with no good answer in between; 0 for never.
    failed_at: AtomicU64,
    sampled_at: AtomicU64,
    sample: Mutex<Option<Arc<UpstreamQuery>>>,
}

impl Liveness {
    /// When something last arrived from the server; none if nothing ever did.
    pub(super) fn last_heard(&self) -> Option<Moment> {
        let micros = self.last_heard.load(Relaxed);
        (micros > 0).then(|| Moment::from_micros(micros))
    }

    /// When traffic last got a good answer.
    pub(crate) fn last_good(&self) -> Moment {
        Moment::from_micros(self.last_good.load(Relaxed))
    }

    /// Notes that a message matching one of our queries arrived.
    pub(crate) fn heard(&self, now: Moment) {
        stamp(&self.last_heard, now, HEARD_GRAIN);
        if self.silent_tries.load(Relaxed) != 0 {
            self.silent_tries.store(0, Relaxed);
            self.probe_is_silent.store(false, Relaxed);
        }
    }

    /// Whether something arrived from the server after `at`.
    pub(crate) fn heard_since(&self, at: Moment) -> bool {
        self.last_heard.load(Relaxed) > at.micros()
    }

    /// Whether the server has left every query unanswered for this long.
    pub(crate) fn is_silent_for(&self, time: Duration, now: Moment) -> bool {
        let since = Moment::from_micros(self.silent_since.load(Relaxed));
        self.silent_tries.load(Relaxed) > 0 && now.since(since) >= time
    }

    /// Counts an unanswered try if nothing arrived since it was sent. True if the silence is now a verdict: it has
    /// lasted for `time`, and a probe got no answer either. Traffic alone may consist of names that are slow at their
    /// origin.
    pub(super) fn silent(&self, role: Role, sent_at: Moment, time: Duration, now: Moment) -> bool {
        let before = self.silent_tries.fetch_add(1, Relaxed);
        if before == 0 {
            self.silent_since.store(sent_at.micros(), Relaxed);
        }
        if role == Role::Probe {
            self.probe_is_silent.store(true, Relaxed);
        }
        before + 1 >= SILENT_TRIES && self.probe_is_silent.load(Relaxed) && self.is_silent_for(time, now)
    }

    /// Notes a good answer in traffic.
    pub(super) fn answered(&self, query: &Arc<UpstreamQuery>, now: Moment) {
        stamp(&self.last_good, now, HEARD_GRAIN);
        if self.failed_name.load(Relaxed) != 0 {
            self.failed_name.store(0, Relaxed);
            self.failed_at.store(0, Relaxed);
        }
        if stamp(&self.sampled_at, now, SAMPLE) {
            *self.sample.lock() = Some(Arc::clone(query));
        }
    }

    /// Notes an error response in traffic.
    pub(super) fn failed(&self, name: &Name, now: Moment) {
        let name = hash(name);
        let first = self.failed_name.compare_exchange(0, name, Relaxed, Relaxed);
        if first.is_err_and(|first| first != name) {
            self.failed_at.store(now.micros(), Relaxed);
        }
    }

    /// Whether traffic recently got errors for different names, and no good answer since the first of them.
    pub(crate) fn fails_traffic(&self, now: Moment) -> bool {
        let at = self.failed_at.load(Relaxed);
        at != 0 && now.since(Moment::from_micros(at)) < LATELY
    }

    /// A query from traffic that the server answered recently.
    pub(crate) fn answered_lately(&self, now: Moment) -> Option<Arc<UpstreamQuery>> {
        let at = Moment::from_micros(self.sampled_at.load(Relaxed));
        self.sample.lock().as_ref().filter(|_| now.since(at) < LATELY).map(Arc::clone)
    }
}

/// Stores a moment unless the stored one is recent enough, so that workers do not contend for the cache line. True if
/// stored.
fn stamp(place: &AtomicU64, now: Moment, grain: Duration) -> bool {
    let is_due = now.since(Moment::from_micros(place.load(Relaxed))) >= grain;
    if is_due {
        place.store(now.micros(), Relaxed);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Class, RecordType};

    fn query(name: &str) -> Arc<UpstreamQuery> {
        let (name, qtype) = (name.parse().unwrap(), RecordType::A);
        Arc::new(UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: false, cd: false })
    }

    #[test]
    fn errors_for_two_names_without_an_answer_between_are_the_servers() {
        let (liveness, now) = (Liveness::default(), Moment::now() + Duration::from_secs(10));
        let (one, two) = (query("one.example"), query("two.example"));
        for _ in 0..5 {
            liveness.failed(&one.name, now);
        }
        assert!(!liveness.fails_traffic(now), "one name may be broken at its origin");
        liveness.answered(&two, now);
        liveness.failed(&two.name, now);
        assert!(!liveness.fails_traffic(now));
        liveness.failed(&one.name, now);
        assert!(liveness.fails_traffic(now));
        assert!(!liveness.fails_traffic(now + Duration::from_mins(11)));
        liveness.answered(&two, now);
        assert!(!liveness.fails_traffic(now));
    }

    #[test]
    fn a_query_that_was_answered_is_remembered_for_a_while() {
        let (liveness, now) = (Liveness::default(), Moment::now() + Duration::from_secs(10));
        assert!(liveness.answered_lately(now).is_none());
        liveness.answered(&query("one.example"), now);
        liveness.answered(&query("two.example"), now + Duration::from_millis(10));
        assert_eq!(liveness.answered_lately(now).unwrap().name, query("one.example").name);
        assert!(liveness.answered_lately(now + Duration::from_mins(11)).is_none());
    }
}
