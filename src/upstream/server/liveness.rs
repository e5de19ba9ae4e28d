//! Signs of life of one server, as traffic sees them: when it last answered, for how long it has been silent, which names
//! it fails, and a query that it answered lately.

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

/// Tries without any answer that it takes, beside the time, until silence is a verdict. At 30 % loss each way this many
/// are lost in a row once in a few hundred times.
pub(super) const SILENT_TRIES: u32 = 8;
/// Answers closer together than this are one sign of life.
const HEARD_GRAIN: Duration = Duration::from_millis(1);
/// A query that was answered is remembered this often.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long a query that was answered, or names that failed, say something about the server.
const LATELY: Duration = Duration::from_mins(10);

/// What traffic saw of a server. All workers write it.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    last_heard: AtomicU64,
    last_good: AtomicU64,
    silent_tries: AtomicU32,
    silent_since: AtomicU64,
    /// Whether a probe is among the silent tries.
    probe_is_silent: AtomicBool,
    /// The first name that failed since the last good answer, hashed; 0 for none.
    failed_name: AtomicU64,
    /// When another name failed too, with no good answer between; 0 for never.
    failed_at: AtomicU64,
    sampled_at: AtomicU64,
    sample: Mutex<Option<Arc<UpstreamQuery>>>,
}

impl Liveness {
    /// When something last came from it; none if nothing ever did.
    pub(super) fn last_heard(&self) -> Option<Moment> {
        let micros = self.last_heard.load(Relaxed);
        (micros > 0).then(|| Moment::from_micros(micros))
    }

    /// When traffic last had a good answer.
    pub(crate) fn last_good(&self) -> Moment {
        Moment::from_micros(self.last_good.load(Relaxed))
    }

    /// Something came from it that belongs to a query of ours.
    pub(crate) fn heard(&self, now: Moment) {
        stamp(&self.last_heard, now, HEARD_GRAIN);
        if self.silent_tries.load(Relaxed) != 0 {
            self.silent_tries.store(0, Relaxed);
            self.probe_is_silent.store(false, Relaxed);
        }
    }

    /// Whether something came from it since.
    pub(crate) fn heard_since(&self, at: Moment) -> bool {
        self.last_heard.load(Relaxed) > at.micros()
    }

    /// Whether it has left every query unanswered for this long.
    pub(crate) fn is_silent_for(&self, time: Duration, now: Moment) -> bool {
        let since = Moment::from_micros(self.silent_since.load(Relaxed));
        self.silent_tries.load(Relaxed) > 0 && now.since(since) >= time
    }

    /// Notes one more try without an answer, when nothing came since. True if the silence is a verdict: it has lasted
    /// for `time`, and a probe got no answer either. Traffic alone may ask for names that are slow at their origin.
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

    /// A good answer in traffic.
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

    /// An answer in traffic that was an error.
    pub(super) fn failed(&self, name: &Name, now: Moment) {
        let name = hash(name);
        let first = self.failed_name.compare_exchange(0, name, Relaxed, Relaxed);
        if first.is_err_and(|first| first != name) {
            self.failed_at.store(now.micros(), Relaxed);
        }
    }

    /// Whether traffic lately had errors for different names, and no good answer since the first of them.
    pub(crate) fn fails_traffic(&self, now: Moment) -> bool {
        let at = self.failed_at.load(Relaxed);
        at != 0 && now.since(Moment::from_micros(at)) < LATELY
    }

    /// A query of traffic that it answered lately.
    pub(crate) fn answered_lately(&self, now: Moment) -> Option<Arc<UpstreamQuery>> {
        let at = Moment::from_micros(self.sampled_at.load(Relaxed));
        self.sample.lock().as_ref().filter(|_| now.since(at) < LATELY).map(Arc::clone)
    }
}

/// Stores a moment unless the one stored is as good, so that workers do not fight over the cache line. True where it did.
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
