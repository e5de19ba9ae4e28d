//! Servers that are given by name: what their names last stood for.
//!
//! The lists live beside the groups: `watch::names` fills them, groups are built of them. A good list stays in force
//! until there is a newer good one, whatever the bootstrap servers answer meanwhile.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{clock::Moment, plural::Plural, upstream::spec::Egress};

/// A name to resolve for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedName {
    /// The group.
    pub group: String,
    /// The full name, in small letters, without its last dot.
    pub name: String,
    /// Who is asked.
    pub bootstrap: Vec<SocketAddr>,
    /// How they are reached: as the group's servers are.
    pub via: Egress,
    /// How long readiness waits for the first list.
    pub patience: Duration,
}

/// What a name stands for, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameList {
    /// Its addresses in the order of their numbers, IPv4 first; empty until it was first resolved.
    pub addresses: Vec<IpAddr>,
    /// When a bootstrap server last said so.
    pub resolved: Option<Moment>,
    /// When it is asked again.
    pub next: Option<Moment>,
    /// Why the last try brought no list.
    pub error: Option<ResolveError>,
    /// Until when readiness waits for the first list.
    awaited_until: Moment,
}

/// Why a name could not be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// NXDOMAIN.
    #[error("the name does not exist (NXDOMAIN)")]
    NoName,
    /// NODATA for A and AAAA.
    #[error("the name has no address")]
    NoAddress,
    /// Silence, or nothing to send to.
    #[error("no bootstrap server answers")]
    NoAnswer,
    /// Another RCODE.
    #[error("the bootstrap servers answer with an error")]
    Rcode,
    /// Every bootstrap server is our own listener.
    #[error("every bootstrap server is this tidegate itself")]
    OurOwn,
}

/// An answer of the bootstrap servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// All addresses.
    pub addresses: Vec<IpAddr>,
    /// How long they are good for.
    pub ttl: Duration,
}

/// Whether the addresses of a name changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListChange {
    /// They did not.
    Same,
    /// Groups must be built again.
    Changed,
}

/// The lists of all names, by group and name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct NameLists(Arc<Mutex<BTreeMap<(String, String), NameList>>>);

impl NameLists {
    /// Begins a list for each name that has none, and forgets those of names that are not in use any more.
    pub fn keep(&self, names: &[WatchedName], now: Moment) {
        let mut lists = self.0.lock();
        lists.retain(|(group, name), _| names.iter().any(|kept| kept.group == *group && kept.name == *name));
        for name in names {
            lists.entry((name.group.clone(), name.name.clone())).or_insert_with(|| NameList {
                addresses: Vec::new(),
                resolved: None,
                next: None,
                error: None,
                awaited_until: now + name.patience,
            });
        }
    }

    /// The addresses of a group's name.
    pub fn addresses(&self, group: &str, name: &str) -> Vec<IpAddr> {
        let lists = self.0.lock();
        lists.get(&(group.to_owned(), name.to_owned())).map(|list| list.addresses.clone()).unwrap_or_default()
    }

    /// Every list with its group and name.
    pub fn all(&self) -> Vec<((String, String), NameList)> {
        self.0.lock().iter().map(|(key, list)| (key.clone(), list.clone())).collect()
    }

    /// Groups and names whose first list is still waited for, or was not used yet: `is_used` says whether the group has
    /// a server at one of its addresses.
    pub fn awaited(&self, now: Moment, is_used: impl Fn(&str, &[IpAddr]) -> bool) -> Vec<(String, String)> {
        let lists = self.0.lock();
        let is_awaited = |group: &str, list: &NameList| {
            now < list.awaited_until && list.error.is_none() && !is_used(group, &list.addresses)
        };
        lists.iter().filter(|(key, list)| is_awaited(&key.0, list)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes in how a try ended, and logs what changed: an error when it begins and ends, not with each try.
    pub fn note(
        &self,
        name: &WatchedName,
        result: Result<Vec<IpAddr>, ResolveError>,
        next: Moment,
        now: Moment,
    ) -> ListChange {
        let mut lists = self.0.lock();
        let Some(list) = lists.get_mut(&(name.group.clone(), name.name.clone())) else { return ListChange::Same };
        let WatchedName { group, name, .. } = name;
        list.next = Some(next);
        let mut addresses = match result {
            Ok(addresses) => addresses,
            Err(error) => {
                if list.error.replace(error) != Some(error) {
                    let effect = match list.addresses.len() {
                        0 => "it has no address yet".to_owned(),
                        1 => "its last address stays in use".to_owned(),
                        count => format!("its last {} stay in use", Plural(count, "address")),
                    };
                    tracing::warn!(group, name, "{name} of upstream {group} cannot be resolved: {error}; {effect}");
                }
                return ListChange::Same;
            }
        };
        addresses.sort_unstable();
        addresses.dedup();
        list.resolved = Some(now);
        if list.error.take().is_some() {
            tracing::info!(group, name, "{name} of upstream {group} is resolved again");
        }
        if addresses == list.addresses {
            return ListChange::Same;
        }
        let (from, to) = (texts(&list.addresses), texts(&addresses));
        match list.addresses.is_empty() {
            true => tracing::info!(group, name, to, "{name} of upstream {group} is {to}"),
            false => tracing::info!(group, name, from, to, "{name} of upstream {group} was {from} and now is {to}"),
        }
        list.addresses = addresses;
        ListChange::Changed
    }
}

fn texts(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
