//! The loop guard: finds servers whose answers lead back to us, and leaves them out for the rules concerned.
//!
//! An inbound endpoint may forward to an outbound one, that one to the site, and the site to us. AWS warns of this but
//! does not prevent it. Policy:
//! - Each server of each rule gets a tagged query below each zone of the rule (below the [`ZONES`] widest, if there are
//!   more), since a conditional forwarder may loop for one zone and not for another. It is sent when the server is
//!   first seen, on each reload, and about hourly. If the server did not answer or only with an error, the next probe
//!   follows after one minute, then two, then four. After a loop has ended it follows after a minute: the server behind
//!   it may just have been away.
//! - The tag is 128 random bits, used for one probe and valid for 5 s. A query to us with a valid tag is answered
//!   SERVFAIL, never forwarded, and marks the server for that rule. A query with any other tag is an ordinary query.
//! - A marked server gets none of the rule's queries. It is probed again every minute; any answer without the tag
//!   coming back clears the mark. Other rules keep using the server.
//! - If two instances of this server forward to each other, it is enough that one of them finds the loop: that cuts it.
//! - Marks survive a reload while the rule has the server and the zone.
//! - A loop probe says nothing about a server's health or speed: its name exists nowhere, so it may be slow or dropped.
//!
//! The engine calls [`Loops::comes_back`] for each query it would forward, selection leaves out [`Marks`], and the
//! control thread runs [`watch`](self::watch::run).

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

/// The label after the tag.
const MARKER: &[u8] = b"tidegate-loop";
/// Octets of a tag; its label has two hex digits for each.
const TAG: usize = 16;
/// The most zones of a rule that are probed.
pub const ZONES: usize = 16;

/// Random bits that are used for one probe.
type Tag = [u8; TAG];

/// A rule and one of the groups that its queries go to.
#[derive(Debug, Clone)]
pub struct WatchedRule {
    rule: Arc<str>,
    zones: Arc<[Name]>,
    group: Arc<Group>,
}

impl WatchedRule {
    /// Takes the rule by its name, with its zones.
    pub fn new(rule: Arc<str>, zones: &Arc<[Name]>, group: Arc<Group>) -> Self {
        if zones.len() <= ZONES {
            return Self { rule, zones: Arc::clone(zones), group };
        }
        let mut widest: Vec<&Name> = zones.iter().collect();
        widest.sort_by_key(|zone| zone.labels().count());
        Self { rule, zones: widest.into_iter().take(ZONES).cloned().collect(), group }
    }

    fn has(&self, server: u64, zone: &Name) -> bool {
        self.zones.contains(zone) && self.group.servers().any(|other| other.id() == server)
    }
}

/// The loop state that all threads share.
#[derive(Debug, Default)]
pub struct Loops {
    marks: Mutex<HashMap<Arc<str>, Arc<Marks>>>,
    tags: Mutex<HashMap<Tag, Arc<Outstanding>>>,
    /// Whether a loop was ever found. The marks of all rules need not be searched before.
    has_found: AtomicBool,
}

/// A probe that is under way.
#[derive(Debug)]
struct Outstanding {
    until: Moment,
    zone: Name,
    marks: Arc<Marks>,
    server: Arc<Server>,
    has_come_back: AtomicBool,
    /// Notified when the tag first comes back.
    news: Notify,
}

impl Loops {
    /// The marks of a rule, by its name.
    pub fn marks(&self, rule: impl AsRef<str> + Into<Arc<str>>) -> Arc<Marks> {
        let mut marks = self.marks.lock();
        if let Some(marks) = marks.get(rule.as_ref()) {
            return Arc::clone(marks);
        }
        Arc::clone(marks.entry(rule.into()).or_default())
    }

    /// The rules that a server is marked for.
    pub fn rules_of(&self, server: &Server) -> Vec<Arc<str>> {
        if !self.has_found.load(Relaxed) {
            return Vec::new();
        }
        let marks = self.marks.lock();
        let mut rules: Vec<_> =
            marks.iter().filter(|(_, marks)| marks.has(server)).map(|(rule, _)| Arc::clone(rule)).collect();
        rules.sort_unstable();
        rules
    }

    /// Whether a query for `name` (wire form, lower case) is one of our probes that came back; if so, its server is
    /// marked. A probe may come back more than once: a forwarder may retry after SERVFAIL.
    pub fn comes_back(&self, name: &[u8], now: Moment) -> bool {
        let Some(tag) = tag_of(name) else { return false };
        let outstanding = self.tags.lock().get(&tag).filter(|outstanding| now < outstanding.until).map(Arc::clone);
        let Some(outstanding) = outstanding else { return false };
        if !outstanding.has_come_back.swap(true, Relaxed) {
            outstanding.marks.set(outstanding.server.id(), &outstanding.zone);
            self.has_found.store(true, Relaxed);
            outstanding.news.notify_one();
        }
        true
    }

    /// Forgets marks of anything that is not a target.
    fn keep(&self, targets: &[WatchedRule]) {
        let mut of_rule: HashMap<&str, Vec<&WatchedRule>> = HashMap::with_capacity(targets.len());
        targets.iter().for_each(|target| of_rule.entry(&*target.rule).or_default().push(target));
        let mut all = self.marks.lock();
        for (rule, marks) in all.iter().filter(|(_, marks)| marks.any()) {
            let targets = of_rule.get(&**rule).map_or(&[][..], Vec::as_slice);
            marks.keep(|server, zone| targets.iter().any(|target| target.has(server, zone)));
        }
        // Keep a rule whose marks are still in use: they must not exist twice.
        all.retain(|rule, marks| Arc::strong_count(marks) > 1 || of_rule.contains_key(&**rule));
    }
}

/// Whether a query for this name, in wire form, is a loop probe.
pub fn is_probe(name: &[u8]) -> bool {
    tag_of(name).is_some()
}

/// The tag in a probe's name.
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

/// The name that a probe with this tag asks for; an error if the zone leaves no room for it.
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
