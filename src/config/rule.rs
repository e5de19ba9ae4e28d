//! The part of the plan about rules.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::group::GroupIndex;
use crate::wire::Name;

/// A rule: where queries for some domains go. There may be a hundred thousand of them, most with the same settings.
#[derive(Clone, PartialEq, Eq)]
pub struct RulePlan {
    /// Its name in logs, metrics and explain; unique.
    pub name: Arc<str>,
    /// The domains, each only once.
    pub zones: Arc<[Name]>,
    /// The entries of `zones` in the file; each stands for the next so many domains.
    pub written: Box<[ZoneEntry]>,
    /// All else.
    pub settings: Arc<RuleSettings>,
}

/// An entry of `zones`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneEntry {
    /// The text in the file.
    pub text: Arc<str>,
    /// How many domains it stands for.
    pub count: u32,
}

/// What rules have in common, but for their names and domains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleSettings {
    /// The group that is asked.
    pub to: GroupIndex,
    /// The clients that the rule is limited to; empty = all.
    pub clients: Vec<IpNet>,
    /// The addresses that answers may hold; none = no guard.
    pub guard: Option<GuardPlan>,
    /// Domains that guard and rebinding protection do not check.
    pub except: Vec<Name>,
    /// Whether private addresses in answers are refused.
    pub rebind: Rebind,
    /// The cap for NXDOMAIN and NODATA.
    pub negative_ttl: Duration,
    /// What happens when no server answers.
    pub when_down: WhenDown,
    /// How AAAA queries are answered.
    pub aaaa: Aaaa,
    /// Whether a CNAME into another rule or a local zone is asked again through it.
    pub follow: bool,
}

impl RulePlan {
    /// The entries of `zones`, with the domains each stands for.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[Name])> {
        let mut rest = &*self.zones;
        self.written.iter().map(move |entry| {
            let count = usize::try_from(entry.count).unwrap_or(usize::MAX).min(rest.len());
            let (zones, behind) = rest.split_at(count);
            rest = behind;
            (&*entry.text, zones)
        })
    }
}

impl Deref for RulePlan {
    type Target = RuleSettings;

    fn deref(&self) -> &RuleSettings {
        &self.settings
    }
}

/// As if all fields were the rule's own: fingerprints of rules and configurations come from this text, and those of cached
/// answers outlive an upgrade.
impl fmt::Debug for RulePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Entry<'a>(&'a str, &'a [Name]);
        impl fmt::Debug for Entry<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("ZoneEntry").field("text", &self.0).field("zones", &self.1).finish()
            }
        }
        let RuleSettings { to, clients, guard, except, rebind, negative_ttl, when_down, aaaa, follow } =
            &*self.settings;
        let written: Vec<Entry<'_>> = self.entries().map(|(text, zones)| Entry(text, zones)).collect();
        f.debug_struct("RulePlan")
            .field("name", &self.name)
            .field("written", &written)
            .field("zones", &self.zones)
            .field("to", to)
            .field("clients", clients)
            .field("guard", guard)
            .field("except", except)
            .field("rebind", rebind)
            .field("negative_ttl", negative_ttl)
            .field("when_down", when_down)
            .field("aaaa", aaaa)
            .field("follow", follow)
            .finish()
    }
}

/// The guard: every address in an answer must lie in `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GuardPlan {
    /// The networks that clients can reach. Never empty.
    pub networks: Vec<IpNet>,
    /// What happens to other addresses.
    pub on_public: OnPublic,
}

/// What the guard does about an address outside its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnPublic {
    /// Count and report the answer, and let it pass.
    Log,
    /// Remove the address; an answer with none left is NODATA.
    Strip,
    /// Answer SERVFAIL.
    Refuse,
}

/// Whether private addresses in answers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rebind {
    /// They pass.
    Allow,
    /// They are refused.
    Refuse,
}

/// What happens when no server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenDown {
    /// With a stale answer, else SERVFAIL.
    Stale,
    /// With SERVFAIL.
    Fail,
    /// By asking another group.
    Upstream(GroupIndex),
}

/// How AAAA queries are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aaaa {
    /// They are forwarded.
    Forward,
    /// They are answered with no data.
    Empty,
}
