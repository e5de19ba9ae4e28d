//! The loop guard: finds servers whose answers lead back to us, and leaves them out for the rules concerned.
//!
//! An inbound endpoint may forward to an outbound one, that to the site, the site to us; AWS warns of it and stops
//! nothing. Policy:
//! - Each server of each rule is asked a tagged question below a zone of the rule: when it is first seen, on each reload,
//!   and about hourly. A server that could not be asked is asked again after a minute.
//! - The tag is 128 random bits, used for one probe and good for 5 s. A question to us that holds one is answered
//!   SERVFAIL, never forwarded, and marks its server for that rule. A tag that is not outstanding is any question.
//! - A marked server gets none of the rule's questions. It is probed again every minute; an answer without the tag's
//!   coming back clears the mark. Other rules that use the server go on.
//! - Marks outlive a reload as long as the server does.
//!
//! The engine calls [`Loops::comes_back`] with what would be forwarded; selection leaves [`Marks`] out.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rand::RngExt;
use tokio::sync::watch;

use crate::{
    clock::Moment,
    wire::{Class, Name, RecordType, UpstreamQuery},
};

use super::{courier::Courier, group::Group, health::ProbeFault, server::Server};

/// The label behind the tag.
const MARKER: &[u8] = b"tidegate-loop";
/// Octets of a tag; its label has two letters for each.
const TAG: usize = 16;

/// When servers are probed for loops.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between probes of a server whose answers do not lead back; jittered by a tenth.
    pub every: Duration,
    /// Between probes of one whose do, or that could not be asked.
    pub again: Duration,
    /// How long a tag is good for.
    pub tag: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { every: Duration::from_hours(1), again: Duration::from_mins(1), tag: Duration::from_secs(5) }
    }
}

/// The servers that one rule's questions must not go to.
#[derive(Debug, Default)]
pub struct Marks {
    /// Whether there are any, for who has no time.
    any: AtomicBool,
    servers: Mutex<Vec<u64>>,
}

impl Marks {
    /// Whether any server is marked.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether this server is.
    pub fn has(&self, server: &Server) -> bool {
        self.any() && self.servers.lock().contains(&server.id())
    }

    /// Whether that is news.
    fn set(&self, server: u64) -> bool {
        let mut servers = self.servers.lock();
        let is_new = !servers.contains(&server);
        if is_new {
            servers.push(server);
        }
        self.any.store(true, Relaxed);
        is_new
    }

    /// Whether that is news.
    fn clear(&self, server: u64) -> bool {
        let mut servers = self.servers.lock();
        let before = servers.len();
        servers.retain(|&other| other != server);
        self.any.store(!servers.is_empty(), Relaxed);
        servers.len() < before
    }

    /// Forgets servers that are gone.
    fn keep(&self, is_there: impl Fn(u64) -> bool) {
        let mut servers = self.servers.lock();
        servers.retain(|&server| is_there(server));
        self.any.store(!servers.is_empty(), Relaxed);
    }
}

/// One rule and the group that its questions go to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The rule's name.
    pub rule: Arc<str>,
    /// A zone of it.
    pub zone: Name,
    /// The group.
    pub group: Arc<Group>,
}

/// What all threads know of loops.
#[derive(Debug, Default)]
pub struct Loops {
    marks: Mutex<HashMap<Arc<str>, Arc<Marks>>>,
    tags: Mutex<HashMap<[u8; TAG], Outstanding>>,
}

/// A tag that is under way.
#[derive(Debug)]
struct Outstanding {
    sent: Moment,
    good_for: Duration,
    rule: Arc<str>,
    marks: Arc<Marks>,
    server: Arc<Server>,
    has_come_back: bool,
}

impl Outstanding {
    fn is_good(&self, now: Moment) -> bool {
        now.since(self.sent) < self.good_for
    }
}

impl Loops {
    /// The marks of a rule, by its name.
    pub fn marks(&self, rule: &str) -> Arc<Marks> {
        let mut marks = self.marks.lock();
        if let Some(marks) = marks.get(rule) {
            return Arc::clone(marks);
        }
        Arc::clone(marks.entry(rule.into()).or_default())
    }

    /// The rules that a server is marked for.
    pub fn rules_of(&self, server: &Server) -> Vec<Arc<str>> {
        let marks = self.marks.lock();
        let mut rules: Vec<_> =
            marks.iter().filter(|(_, marks)| marks.has(server)).map(|(rule, _)| Arc::clone(rule)).collect();
        rules.sort_unstable();
        rules
    }

    /// Whether a question for `name` is a probe of ours that came back; then its server is marked.
    pub fn comes_back(&self, name: &Name, now: Moment) -> bool {
        let Some(tag) = tag_of(name) else { return false };
        let mut tags = self.tags.lock();
        let Some(outstanding) = tags.get_mut(&tag).filter(|outstanding| outstanding.is_good(now)) else { return false };
        outstanding.has_come_back = true;
        let Outstanding { rule, server, marks, .. } = outstanding;
        if marks.set(server.id()) {
            tracing::warn!(
                rule = &**rule,
                group = server.group(),
                server = server.label(),
                "a loop: what this server is asked comes back here; it gets no more questions of this rule"
            );
        }
        true
    }

    fn send_out(&self, tag: [u8; TAG], outstanding: Outstanding) {
        let mut tags = self.tags.lock();
        tags.retain(|_, other| other.is_good(outstanding.sent));
        tags.insert(tag, outstanding);
    }

    fn has_come_back(&self, tag: [u8; TAG]) -> bool {
        self.tags.lock().get(&tag).is_some_and(|outstanding| outstanding.has_come_back)
    }

    /// Forgets rules and servers that are not among the targets.
    fn keep(&self, targets: &[Target]) {
        let is_there = |id| targets.iter().any(|target| target.group.servers().any(|server| server.id() == id));
        let mut marks = self.marks.lock();
        marks.values().for_each(|marks| marks.keep(is_there));
        // A rule that somebody still holds is not forgotten: its marks must not become two.
        marks.retain(|rule, marks| Arc::strong_count(marks) > 1 || targets.iter().any(|target| target.rule == *rule));
    }
}

/// The tag in the name of a probe.
fn tag_of(name: &Name) -> Option<[u8; TAG]> {
    let mut labels = name.labels();
    let first = labels.next().filter(|label| label.len() == 2 * TAG)?;
    labels.next().filter(|label| *label == MARKER)?;
    let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut tag = [0; TAG];
    for (octet, pair) in tag.iter_mut().zip(first.as_chunks::<2>().0) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(tag)
}

/// The name that a probe with this tag asks for; none where the zone leaves no room for it.
fn name_with(tag: [u8; TAG], zone: &Name) -> Option<Name> {
    let digit =
        |value: u8| char::from_digit(value.into(), 16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(b'0');
    let letters: Vec<u8> = tag.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 0x0f)]).collect();
    zone.child(MARKER).ok()?.child(&letters).ok()
}

/// Probes the servers of `targets`, and of those that come in their place, until the sender is gone. Must run where local
/// tasks can be spawned.
pub async fn run(courier: Rc<Courier>, loops: Arc<Loops>, mut targets: watch::Receiver<Vec<Target>>, timing: Timing) {
    loop {
        let now_targets = targets.borrow_and_update().clone();
        loops.keep(&now_targets);
        let mut probes = tokio::task::JoinSet::new();
        for target in now_targets {
            for (place, _) in target.group.clone().places() {
                let watcher = Watcher {
                    courier: Rc::clone(&courier),
                    loops: Arc::clone(&loops),
                    marks: loops.marks(&target.rule),
                    target: target.clone(),
                    place,
                    timing,
                };
                probes.spawn_local(watcher.watch());
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
    Clean,
    Loops,
    Unknown,
}

/// Watches one server for one rule.
struct Watcher {
    courier: Rc<Courier>,
    loops: Arc<Loops>,
    marks: Arc<Marks>,
    target: Target,
    place: (u8, u8),
    timing: Timing,
}

impl Watcher {
    async fn watch(self) {
        loop {
            let outcome = self.probe().await;
            let server = self.server();
            if outcome == Outcome::Clean && self.marks.clear(server.id()) {
                tracing::info!(
                    rule = &*self.target.rule,
                    group = server.group(),
                    server = server.label(),
                    "the loop is gone; this server gets the rule's questions again"
                );
            }
            let wait = match outcome {
                Outcome::Clean => self.timing.every.mul_f64(rand::rng().random_range(0.9..=1.1)),
                Outcome::Loops | Outcome::Unknown => self.timing.again,
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn server(&self) -> &Arc<Server> {
        let (tier, place) = self.place;
        &self.target.group.tiers()[usize::from(tier)][usize::from(place)]
    }

    async fn probe(&self) -> Outcome {
        let tag: [u8; TAG] = rand::random();
        // A zone with a name so long has no room for names below it either.
        let Some(name) = name_with(tag, &self.target.zone) else { return Outcome::Clean };
        let sent = Moment::now();
        let outstanding = Outstanding {
            sent,
            good_for: self.timing.tag,
            rule: Arc::clone(&self.target.rule),
            marks: Arc::clone(&self.marks),
            server: Arc::clone(self.server()),
            has_come_back: false,
        };
        self.loops.send_out(tag, outstanding);
        let query = UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
        let deadline = sent + self.target.group.limits().timeout.min(self.timing.tag);
        let answer = self.courier.probe(&self.target.group, self.place, &Arc::new(query), deadline).await;
        // The way round may be longer than the way back: the tag is waited for as long as it is good.
        tokio::time::sleep((sent + self.timing.tag).since(Moment::now())).await;
        match answer {
            _ if self.loops.has_come_back(tag) => Outcome::Loops,
            Ok(_) | Err(ProbeFault::Rcode) => Outcome::Clean,
            Err(_) => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written() {
        let tag = [0x00, 0x01, 0x9f, 0xff, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        for zone in [".", "amazonaws.com", "10.in-addr.arpa"] {
            let name = name_with(tag, &zone.parse().unwrap()).unwrap();
            assert_eq!(tag_of(&name), Some(tag), "{name}");
        }
        assert_eq!(
            name_with(tag, &".".parse().unwrap()).unwrap().to_string(),
            "00019fff0405060708090a0b0c0d0e0f.tidegate-loop."
        );
    }

    #[test]
    fn other_names_hold_no_tag() {
        for name in [
            ".",
            "amazonaws.com",
            "tidegate-loop.amazonaws.com",
            "00019fff0405060708090a0b0c0d0e0f.amazonaws.com",
            "00019fff0405060708090a0b0c0d0e0.tidegate-loop.amazonaws.com",
            "00019fff0405060708090a0b0c0d0e0g.tidegate-loop.amazonaws.com",
        ] {
            assert_eq!(tag_of(&name.parse().unwrap()), None, "{name}");
        }
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(60));
        assert_eq!(name_with([0; TAG], &long.parse().unwrap()), None);
    }

    #[test]
    fn a_tag_that_nobody_sent_or_too_late_is_any_question() {
        let loops = Loops::default();
        let name = name_with([7; TAG], &Name::root()).unwrap();
        assert!(!loops.comes_back(&name, Moment::now()));
    }
}
