//! Asks each server of each rule whether its answers lead back to us: tasks on one runtime, the control thread's.
//!
//! What is under way at a time is bounded, so that a site with many rules neither sends them all at once nor keeps many
//! tags. A task holds its place as long as its tag is good.

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

/// Tags that are good at a time.
const UNDER_WAY: usize = 256;

/// When servers are probed for loops.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between probes of a server whose answers do not lead back; jittered by a tenth, as all waits are.
    pub every: Duration,
    /// Between probes of one whose do, and behind one that did or failed; then twice as long, and so on.
    pub again: Duration,
    /// How long a tag is good for.
    pub tag: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { every: Duration::from_hours(1), again: Duration::from_mins(1), tag: Duration::from_secs(5) }
    }
}

/// Probes the servers of `targets`, and of those that come in their place, until the sender is gone. Must run where local
/// tasks can be spawned.
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
        // Others have come: what was asked under the old ones is asked anew under these.
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
    /// An error for an answer, and the tag did not come back.
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
            let Some(outcome) = self.probe().await else { return };
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

    /// None where nothing can be asked: a zone with a name so long has no room for names below it.
    async fn probe(&self) -> Option<Outcome> {
        let _place = self.places.acquire().await.ok()?;
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
            // The way round may be longer than the way back: the tag is waited for as long as it is good.
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

/// A tag under way; dropped, it is any tag, also where a reload ends the probe.
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
