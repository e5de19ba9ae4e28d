//! Delegations in local zones: which servers answer queries at and below a zone cut.
//!
//! - If a rule covers the cut, or a domain between the zone and the cut, the rule applies and the zone is not used
//!   there.
//! - Otherwise the cut's own servers are asked, if the zone has their addresses. This is a rule and a group like any
//!   other, with default limits and health, generated here; its queries do not ask for recursion. The settings for
//!   answers (guard, TTLs, AAAA) come from the rule that would cover the name without the zone.
//! - Without an address the answer is SERVFAIL with an extended error, never the referral itself: a stub resolver would
//!   read it as NODATA.

use std::{fmt, fmt::Write as _, net::IpAddr, sync::Arc};

use crate::{
    config::{GroupIndex, Live, MAX_SERVERS, Plan, Recursion, RulePlan},
    wire::Name,
    zones::{Delegation, Zones},
};

/// The most cuts that get a group of their own; each group is probed.
const MOST_GROUPS: usize = 256;

/// A delegation, and how queries below it are handled.
#[derive(Debug)]
pub struct DelegationPlan {
    delegation: Delegation,
    handling: Handling,
}

#[derive(Debug)]
enum Handling {
    /// A configured rule covers it.
    Rule(String),
    /// The servers of the cut are asked.
    Servers(Vec<IpAddr>),
    /// There are no addresses.
    NoAddress,
    /// Too many cuts have groups already.
    TooMany,
}

impl fmt::Display for DelegationPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delegation { zone, cut, .. } = &self.delegation;
        write!(f, "local zone {zone} delegates {cut}")?;
        let names: Vec<String> = self.delegation.names.iter().map(ToString::to_string).collect();
        match &self.handling {
            Handling::Rule(rule) => write!(f, ": rule \"{rule}\" decides"),
            Handling::Servers(servers) => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                write!(f, " to {}: its servers are asked ({})", names.join(", "), servers.join(", "))
            }
            Handling::NoAddress => write!(
                f,
                " to {}: the zone has no address of them, so queries below it fail with SERVFAIL; write a rule with \
                 zones = [\"{}\"]",
                names.join(", "),
                cut.to_string().trim_end_matches('.')
            ),
            Handling::TooMany => write!(
                f,
                ": {MOST_GROUPS} delegations are followed at most, so queries below it fail with SERVFAIL; write a rule"
            ),
        }
    }
}

/// Every delegation of every local zone, in the order of their names.
pub fn delegation_plans(live: &Live, zones: &Zones) -> Vec<DelegationPlan> {
    let mut delegations = zones.delegations();
    delegations.sort_unstable_by(|one, other| one.cut.cmp(&other.cut));
    let mut groups = 0;
    let handling = |delegation: &Delegation| {
        let decides = |rule: &&RulePlan| {
            let is_between = |domain: &&Name| {
                **domain != delegation.zone && domain.is_within(&delegation.zone) && delegation.cut.is_within(domain)
            };
            rule.clients.is_empty() && rule.zones.iter().any(|domain| is_between(&domain))
        };
        if let Some(rule) = live.rules.iter().find(decides) {
            return Handling::Rule(rule.name.to_string());
        }
        if delegation.servers.is_empty() {
            return Handling::NoAddress;
        }
        groups += 1;
        if groups > MOST_GROUPS {
            return Handling::TooMany;
        }
        Handling::Servers(delegation.servers.iter().copied().take(MAX_SERVERS).collect())
    };
    let handlings: Vec<Handling> = delegations.iter().map(handling).collect();
    delegations
        .into_iter()
        .zip(handlings)
        .map(|(delegation, handling)| DelegationPlan { delegation, handling })
        .collect()
}

/// The configuration with a rule and a group for each delegation whose servers are asked.
pub(super) fn followed(configured: &Arc<Live>, zones: &Zones) -> Arc<Live> {
    let plans = delegation_plans(configured, zones);
    if !plans.iter().any(|plan| matches!(plan.handling, Handling::Servers(_))) {
        return Arc::clone(configured);
    }
    let mut live = Live::clone(configured);
    for DelegationPlan { delegation, handling } in plans {
        let Handling::Servers(servers) = handling else { continue };
        let Some((mut group, mut rule)) = defaults(&delegation.cut, &servers) else { continue };
        let name = format!("delegation:{}", delegation.cut.to_string().trim_end_matches('.'));
        group.name.clone_from(&name);
        group.recursion = Recursion::NotDesired;
        rule.name = name.into();
        let settings = Arc::make_mut(&mut rule.settings);
        settings.to = GroupIndex(live.groups.len());
        if let Some(covering) = covering(configured, &delegation.cut) {
            settings.guard.clone_from(&covering.guard);
            settings.except.clone_from(&covering.except);
            settings.rebind = covering.rebind;
            settings.aaaa = covering.aaaa;
            settings.negative_ttl = covering.negative_ttl;
        }
        // For clients whose rule replaces the zone, that rule also applies below the cut.
        for view in live.rules.iter_mut().filter(|rule| !rule.clients.is_empty()) {
            let replaces = |domain: &Name| domain.is_within(&delegation.zone) && delegation.cut.is_within(domain);
            if view.zones.iter().any(replaces) && !view.zones.contains(&delegation.cut) {
                view.zones = view.zones.iter().chain([&delegation.cut]).cloned().collect();
            }
        }
        live.groups.push(group);
        live.rules.push(rule);
    }
    Arc::new(live)
}

/// A group of these servers and a rule for `cut`, with every default that a file would give them.
fn defaults(cut: &Name, servers: &[IpAddr]) -> Option<(crate::config::GroupPlan, RulePlan)> {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let mut zone = String::new();
    for character in cut.to_string().chars() {
        // Escaped as in a basic string of TOML.
        match character {
            '"' | '\\' => write!(zone, "\\{character}").ok()?,
            _ => zone.push(character),
        }
    }
    let text = format!("[upstream.cut]\nservers = {servers:?}\n[[forward]]\nzones = [\"{zone}\"]\nto = \"cut\"\n");
    let mut live = Plan::from_text("delegation", &text).ok()?.live;
    live.groups.pop().zip(live.rules.pop())
}

/// The rule that would cover a name if there were no local zone: preferably the one for all clients.
fn covering<'l>(live: &'l Live, name: &Name) -> Option<&'l RulePlan> {
    let depth = |rule: &RulePlan| {
        let domains = rule.zones.iter().filter(|domain| name.is_within(domain));
        domains.map(|domain| domain.as_wire().len()).max()
    };
    let rules = live.rules.iter().filter_map(|rule| Some((depth(rule)?, rule.clients.is_empty(), rule)));
    rules.max_by_key(|(depth, is_for_all, _)| (*depth, *is_for_all)).map(|(.., rule)| rule)
}
