//! Probes each server of each rule for loops: one task on the control thread's runtime, and one for each probe under way.
//!
//! The number of probes under way is bounded, so that a site with many rules neither sends them all at once nor keeps
//! many tags. A probe is under way while its tag is valid.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    convert::Infallible,
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
    sync::{Notify, watch},
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
    mut targets: watch::Receiver<Arc<[WatchedRule]>>,
    timing: Timing,
) {
    loop {
        let rules = Arc::clone(&targets.borrow_and_update());
        loops.keep(&rules);
        let watcher = Watcher { client: Rc::clone(&client), loops: Arc::clone(&loops), rules, timing };
        tokio::select! {
            // Watching starts again with the new targets. Dropping it ends the probes under way.
            changed = targets.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            never = watcher.watch() => match never {},
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

/// A server that is probed for one zone of one rule. A site may have some hundred thousand: what else a probe needs, it
/// gets while it is under way.
#[derive(Debug)]
struct Watched {
    /// The position of its rule among the targets.
    rule: u32,
    /// The position of the zone in the rule.
    zone: u8,
    place: (u8, u8),
    /// How often the wait was doubled, where probes say little.
    doublings: Option<u8>,
}

/// Watches all servers of all targets.
#[derive(Clone)]
struct Watcher {
    client: Rc<UpstreamClient>,
    loops: Arc<Loops>,
    rules: Arc<[WatchedRule]>,
    timing: Timing,
}

impl Watcher {
    async fn watch(self) -> Infallible {
        let mut all = self.watched();
        // When each is due, by its position.
        let start = Moment::now();
        let mut due: BinaryHeap<Reverse<(Moment, u32)>> = (0..).zip(&all).map(|(at, _)| Reverse((start, at))).collect();
        let mut under_way = JoinSet::new();
        loop {
            let next = due.peek().filter(|_| under_way.len() < UNDER_WAY).map(|Reverse((at, _))| *at);
            if next.is_some_and(|at| at <= Moment::now()) {
                let Some(Reverse((_, position))) = due.pop() else { continue };
                if let Some(probe) = all.get(position as usize).and_then(|watched| self.probe_of(watched)) {
                    under_way.spawn_local(async move { (position, probe.look().await) });
                }
                continue;
            }
            let waiting = async {
                match next {
                    Some(at) => tokio::time::sleep(at.since(Moment::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = under_way.join_next() => {
                    // A probe whose zone leaves no room for a tag is not sent again.
                    let Ok((position, Some((doublings, wait)))) = ended else { continue };
                    if let Some(watched) = all.get_mut(position as usize) {
                        watched.doublings = doublings;
                        let wait = wait.mul_f64(rand::rng().random_range(0.9..=1.1));
                        due.push(Reverse((Moment::now() + wait, position)));
                    }
                }
                () = waiting => {}
            }
        }
    }

    fn watched(&self) -> Vec<Watched> {
        let of_rule = |(rule, target): (u32, &WatchedRule)| {
            let places: Vec<(u8, u8)> = target.group.places().map(|(place, _)| place).collect();
            let zones = (0..).take(target.zones.len());
            let watched = move |zone| places.clone().into_iter().map(move |place| (zone, place));
            zones.flat_map(watched).map(move |(zone, place)| Watched { rule, zone, place, doublings: None })
        };
        let mut all: Vec<Watched> = (0..).zip(&*self.rules).flat_map(of_rule).collect();
        all.shrink_to_fit();
        all
    }

    fn probe_of(&self, watched: &Watched) -> Option<Probe> {
        let WatchedRule { rule, zones, group } = self.rules.get(watched.rule as usize)?;
        let (_, server) = group.places().find(|(place, _)| *place == watched.place)?;
        Some(Probe {
            client: Rc::clone(&self.client),
            loops: Arc::clone(&self.loops),
            marks: self.loops.marks(Arc::clone(rule)),
            rule: Arc::clone(rule),
            zone: zones.get(usize::from(watched.zone))?.clone(),
            group: Arc::clone(group),
            place: watched.place,
            server: Arc::clone(server),
            doublings: watched.doublings,
            timing: self.timing,
        })
    }
}

/// A probe of one server for one zone of one rule.
struct Probe {
    client: Rc<UpstreamClient>,
    loops: Arc<Loops>,
    marks: Arc<Marks>,
    rule: Arc<str>,
    zone: Name,
    group: Arc<Group>,
    place: (u8, u8),
    server: Arc<Server>,
    doublings: Option<u8>,
    timing: Timing,
}

impl Probe {
    /// Probes once. Returns how often the wait is doubled now, and the time until the next probe; none if there is none.
    async fn look(self) -> Option<(Option<u8>, Duration)> {
        let outcome = self.probe().await?;
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
        let doublings = is_unsure.then(|| self.doublings.map_or(0, |before| (before + 1).min(16)));
        let wait = match (outcome, doublings) {
            (_, Some(doublings)) => (self.timing.again * (1 << doublings)).min(self.timing.every),
            (Outcome::Clean, None) if cleared == ClearedMark::Nothing => self.timing.every,
            _ => self.timing.again,
        };
        Some((doublings, wait))
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
