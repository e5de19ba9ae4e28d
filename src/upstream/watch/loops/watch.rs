//! Probes each server of each rule for loops: tasks on one runtime, the control thread's.
//!
//! The number of probes under way is bounded, so that a site with many rules neither sends them all at once nor keeps
//! many tags. A task holds its place while its tag is valid.

use std::{
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::RngExt;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};

use super::{Loops, Outstanding, Tag, WatchedRule, name_with};
use crate::{
    clock::Moment,
    upstream::{
        group::{ClearedMark, Group, Marks},
        link::UpstreamClient,
        server::{Role, Server, health::ProbeError},
    },
    wire::{Class, Name, RecordType, UpstreamQuery},
};

/// How many tags may be valid at a time.
const UNDER_WAY: usize = 256;

/// Timing of the probes for loops.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between probes of a server that does not loop; jittered by a tenth, as all waits are.
    pub every: Duration,
    /// Time until the next probe after a loop, an ended loop or a failed probe; doubled after each further failure.
    pub again: Duration,
    /// How long a tag is valid.
    pub tag: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { every: Duration::from_hours(1), again: Duration::from_mins(1), tag: Duration::from_secs(5) }
    }
}

/// Probes the servers of `targets`, following changes, until the sender is gone. Must run where local tasks can be
/// spawned.
pub async fn run(
    client: Rc<UpstreamClient>,
    loops: Arc<Loops>,
    mut targets: watch::Receiver<Vec<WatchedRule>>,
    timing: Timing,
) {
    let places = Rc::new(Semaphore::new(UNDER_WAY));
    loop {
        let all = targets.borrow_and_update().clone();
        loops.keep(&all);
        let mut probes = JoinSet::new();
        for target in all {
            for (place, server) in target.group.places() {
                for zone in &*target.zones {
                    let watcher = Watcher {
                        client: Rc::clone(&client),
                        loops: Arc::clone(&loops),
                        places: Rc::clone(&places),
                        marks: loops.marks(&target.rule),
                        rule: Arc::clone(&target.rule),
                        zone: zone.clone(),
                        group: Arc::clone(&target.group),
                        place,
                        server: Arc::clone(server),
                        timing,
                    };
                    probes.spawn_local(watcher.watch());
                }
            }
        }
        // The targets changed: start again with the new ones.
        if targets.changed().await.is_err() {
            return;
        }
    }
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A good answer, and the tag did not come back.
    Clean,
    /// An error response, and the tag did not come back.
    Failed,
    /// The tag came back.
    Loops,
    /// No answer.
    Unknown,
}

/// Watches one server for one zone of one rule.
struct Watcher {
    client: Rc<UpstreamClient>,
    loops: Arc<Loops>,
    places: Rc<Semaphore>,
    marks: Arc<Marks>,
    rule: Arc<str>,
    zone: Name,
    group: Arc<Group>,
    place: (u8, u8),
    server: Arc<Server>,
    timing: Timing,
}

impl Watcher {
    async fn watch(self) {
        let mut doublings = None::<u32>;
        loop {
            let Ok(place) = self.places.acquire().await else { return };
            // On the heap, and only while it is under way: a site may have a hundred thousand watchers.
            let Some(outcome) = Box::pin(self.probe()).await else { return };
            drop(place);
            let cleared = match outcome {
                Outcome::Clean | Outcome::Failed => self.marks.clear(self.server.id(), &self.zone),
                Outcome::Loops | Outcome::Unknown => ClearedMark::Nothing,
            };
            if cleared == ClearedMark::Server {
                let (rule, group, server) = (&*self.rule, self.server.group(), self.server.label());
                tracing::info!(
                    rule,
                    group,
                    server,
                    "upstream {server} of group {group} gets queries of rule {rule} again: the loop is gone"
                );
            }
            let says_little = matches!(outcome, Outcome::Failed | Outcome::Unknown);
            let is_unsure = says_little && cleared == ClearedMark::Nothing && !self.marks.has(&self.server);
            doublings = is_unsure.then(|| doublings.map_or(0, |before| (before + 1).min(16)));
            let wait = match (outcome, doublings) {
                (_, Some(doublings)) => (self.timing.again * (1 << doublings)).min(self.timing.every),
                (Outcome::Clean, None) if cleared == ClearedMark::Nothing => self.timing.every,
                _ => self.timing.again,
            };
            tokio::time::sleep(wait.mul_f64(rand::rng().random_range(0.9..=1.1))).await;
        }
    }

    /// The outcome of a probe; none if the zone's name is too long for a tag below it.
    async fn probe(&self) -> Option<Outcome> {
        let sent = Moment::now();
        let until = sent + self.timing.tag;
        let tag: Tag = rand::random();
        let name = name_with(tag, &self.zone).ok()?;
        let tagged = self.send_out(tag, until);
        let outstanding = &*tagged.outstanding;
        let query = Arc::new(UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false });
        let deadline = until.min(sent + self.group.limits().timeout);
        let asking = async {
            let answer = self.client.probe(&self.group, self.place, &query, Role::Tagged, deadline).await;
            // The path round the loop may be longer than the path of the response: wait while the tag is valid.
            tokio::time::sleep(until.since(Moment::now())).await;
            answer
        };
        let mut asking = pin!(asking);
        let answer = tokio::select! {
            answer = &mut asking => answer,
            () = outstanding.news.notified() => {
                self.tell();
                asking.await
            }
        };
        Some(match answer {
            _ if outstanding.has_come_back.load(Relaxed) => Outcome::Loops,
            Ok(_) => Outcome::Clean,
            Err(ProbeError::Rcode) => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        })
    }

    fn send_out(&self, tag: Tag, until: Moment) -> Tagged<'_> {
        let outstanding = Arc::new(Outstanding {
            until,
            zone: self.zone.clone(),
            marks: Arc::clone(&self.marks),
            server: Arc::clone(&self.server),
            has_come_back: AtomicBool::new(false),
            news: Notify::new(),
        });
        self.loops.tags.lock().insert(tag, Arc::clone(&outstanding));
        Tagged { loops: &self.loops, tag, outstanding }
    }

    fn tell(&self) {
        if self.marks.take_unreported(self.server.id()) {
            let (rule, group, server) = (&*self.rule, self.server.group(), self.server.label());
            tracing::warn!(
                rule,
                group,
                server,
                zone = %self.zone,
                "a loop: what upstream {server} of group {group} is asked below {} comes back here; it gets no more \
                 queries of rule {rule}",
                self.zone
            );
        }
    }
}

/// A tag under way. Dropping it makes the tag invalid, also when a reload ends the probe.
struct Tagged<'a> {
    loops: &'a Loops,
    tag: Tag,
    outstanding: Arc<Outstanding>,
}

impl Drop for Tagged<'_> {
    fn drop(&mut self) {
        self.loops.tags.lock().remove(&self.tag);
    }
}
