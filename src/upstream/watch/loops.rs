//! The loop guard: finds servers whose answers lead back to us, and leaves them out for the rules concerned.
//!
//! An inbound endpoint may forward to an outbound one, that to the site, the site to us; AWS warns of it and stops
//! nothing. Policy:
//! - Each server of each rule is asked a tagged query below each zone of the rule (below the [`ZONES`] widest, where
//!   there are more): conditional forwarders lead back for one zone and not for another. That is when it is first seen,
//!   on each reload, and about hourly; a minute later, then two, then four, where it did not answer or only with an
//!   error, and a minute behind a loop that ended: what lies behind it may just not have been there.
//! - The tag is 128 random bits, used for one probe and good for 5 s. A query to us that holds one is answered
//!   SERVFAIL, never forwarded, and marks its server for that rule. A tag that is not outstanding is any query.
//! - A marked server gets none of the rule's queries. It is probed again every minute; any answer without the tag's
//!   coming back clears the mark. Other rules that use the server go on.
//! - Of two servers like this one that lead to each other, it is enough that one finds it: the way round is then cut.
//! - Marks outlive a reload as long as the rule has the server and the zone.
//! - A probe says nothing about a server's health or speed: its name exists nowhere, and may be slow, or dropped.
//!
//! The engine calls [`Loops::comes_back`] with what would be forwarded; selection leaves [`Marks`] out; the control
//! thread runs [`watch`](self::watch::run).

pub mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Moment,
    upstream::{
        group::{Group, Marks},
        server::Server,
    },
    wire::{Malformed, Name, name::Labels},
};

/// The label behind the tag.
const MARKER: &[u8] = b"tidegate-loop";
/// Octets of a tag; its label has two letters for each.
const TAG: usize = 16;
/// Zones of a rule that are probed at the most.
pub const ZONES: usize = 16;

/// What is used once.
type Tag = [u8; TAG];

/// One rule and a group that its queries go to.
#[derive(Debug, Clone)]
pub struct WatchedRule {
    rule: Arc<str>,
    zones: Arc<[Name]>,
    group: Arc<Group>,
}

impl WatchedRule {
    /// The rule by its name, with its zones.
    pub fn new(rule: Arc<str>, mut zones: Vec<Name>, group: Arc<Group>) -> Self {
        zones.sort_by_key(|zone| zone.labels().count());
        zones.truncate(ZONES);
        Self { rule, zones: zones.into(), group }
    }

    fn has(&self, server: u64, zone: &Name) -> bool {
        self.zones.contains(zone) && self.group.servers().any(|other| other.id() == server)
    }
}

/// What all threads know of loops.
#[derive(Debug, Default)]
pub struct Loops {
    marks: Mutex<HashMap<Arc<str>, Arc<Marks>>>,
    tags: Mutex<HashMap<Tag, Arc<Outstanding>>>,
}

/// A probe that is under way.
#[derive(Debug)]
struct Outstanding {
    until: Moment,
    zone: Name,
    marks: Arc<Marks>,
    server: Arc<Server>,
    has_come_back: AtomicBool,
    /// Told of the first time.
    news: Notify,
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

    /// Whether a query for `name` (wire form, lower case) is a probe of ours that came back; then its server is
    /// marked. It may come more than once: who forwarded it may not be content with SERVFAIL.
    pub fn comes_back(&self, name: &[u8], now: Moment) -> bool {
        let Some(tag) = tag_of(name) else { return false };
        let outstanding = self.tags.lock().get(&tag).filter(|outstanding| now < outstanding.until).map(Arc::clone);
        let Some(outstanding) = outstanding else { return false };
        if !outstanding.has_come_back.swap(true, Relaxed) {
            outstanding.marks.set(outstanding.server.id(), &outstanding.zone);
            outstanding.news.notify_one();
        }
        true
    }

    /// Forgets what is not among the targets.
    fn keep(&self, targets: &[WatchedRule]) {
        let mut all = self.marks.lock();
        for (rule, marks) in &*all {
            marks.keep(|server, zone| targets.iter().any(|target| target.rule == *rule && target.has(server, zone)));
        }
        // A rule that somebody still holds is not forgotten: its marks must not become two.
        all.retain(|rule, marks| Arc::strong_count(marks) > 1 || targets.iter().any(|target| target.rule == *rule));
    }
}

/// Whether a server that is asked for this name, in wire form, is asked by a probe for loops.
pub fn is_probe(name: &[u8]) -> bool {
    tag_of(name).is_some()
}

/// The tag in the name of a probe.
fn tag_of(name: &[u8]) -> Option<Tag> {
    let mut labels = Labels::of(name);
    let first = labels.next().filter(|label| label.len() == 2 * TAG)?;
    labels.next().filter(|label| *label == MARKER)?;
    let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut tag = [0; TAG];
    for (octet, pair) in tag.iter_mut().zip(first.as_chunks::<2>().0) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(tag)
}

/// The name that a probe with this tag asks for; an error where the zone leaves no room for it.
fn name_with(tag: Tag, zone: &Name) -> Result<Name, Malformed> {
    let digit =
        |value: u8| char::from_digit(value.into(), 16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(b'0');
    let letters: Vec<u8> = tag.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 0x0f)]).collect();
    zone.child(MARKER)?.child(&letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written() {
        let tag = [0x00, 0x01, 0x9f, 0xff, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        for zone in [".", "amazonaws.com", "10.in-addr.arpa"] {
            let name = name_with(tag, &zone.parse().unwrap()).unwrap();
            assert_eq!(tag_of(name.as_wire()), Some(tag), "{name}");
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
            let name: Name = name.parse().unwrap();
            assert_eq!(tag_of(name.as_wire()), None, "{name}");
        }
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(60));
        assert!(name_with([0; TAG], &long.parse().unwrap()).is_err());
    }
}
