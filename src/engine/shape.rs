//! Fingerprint of everything that shapes an answer, stored beside the answer.
//!
//! The fingerprint covers the rule or local zone of QNAME and of every CNAME target in the answer, in their order. After
//! a reload an entry stays valid only if the same names lead to rules of the same fingerprint. That is checked once for each
//! entry and generation, so a reload needs no sweep, and no entry of an old rule serves in between.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::snapshot::{FIRST_AUDIENCE_VIEW, FROM_FILE, Snapshot, Target};
use crate::{
    cache::{MAX_RULE, Stamp},
    config::{self, GroupIndex, Live, WhenDown},
    route::{RouteMatch, View},
    wire::{Malformed, NameBuf, RecordType, addresses, header::HEADER, name, record::find_alias},
};

/// Rule number in the stamp of an answer that came through no rule.
const NO_RULE: u32 = MAX_RULE;

/// Fingerprint of the settings of a rule that shape its answers, and only of those. How fast or from which port a server
/// is asked changes no answer, nor does the group's position in the plan.
pub(super) fn rule_fingerprint(rule: &config::RulePlan, live: &Live) -> u64 {
    let servers = |index: GroupIndex| {
        let group = live.group(index);
        format!("{} {:?}", group.name, group.tiers)
    };
    let (when_down, others) = match rule.when_down {
        WhenDown::Upstream(index) => (WhenDown::Upstream(GroupIndex(0)), servers(index)),
        when_down => (when_down, String::new()),
    };
    let settings = config::RuleSettings { to: GroupIndex(0), when_down, ..(*rule.settings).clone() };
    let placeless = config::RulePlan { settings: settings.into(), ..rule.clone() };
    let text = format!("{placeless:?} {} {others}", servers(rule.to));
    xxh3_64(text.as_bytes())
}

/// Everything that shapes an answer.
pub(super) struct Shape {
    /// Covers all rules and zones that the answer's chain goes through.
    pub(super) fingerprint: u64,
    rule: u32,
    /// View of QNAME, the same as in the cache key.
    view: View,
    /// Whether all clients of that view get the same answer.
    is_shared: bool,
}

impl Shape {
    /// Adds the rule or zone of the next name in the chain.
    fn extend(&mut self, fingerprint: u64) {
        let [before, then] = [self.fingerprint, fingerprint].map(u64::to_le_bytes);
        self.fingerprint = xxh3_64([before, then].as_flattened());
    }

    /// Stamp for an entry under `view`; none if the answer must not be stored there.
    pub(super) fn stamp(&self, generation: u32, view: View) -> Option<Stamp> {
        let fits = view >= FIRST_AUDIENCE_VIEW || (self.is_shared && self.view == view);
        fits.then_some(Stamp { generation, fingerprint: self.fingerprint, rule: self.rule })
    }
}

/// Shape of a message for this client; none if no rule covers QNAME.
pub(super) fn of(snapshot: &Snapshot, message: &[u8], client: IpAddr) -> Option<Shape> {
    let mut name = NameBuf::new();
    name.expand(message, HEADER).ok()?;
    name.make_lowercase();
    of_found(snapshot, message, client, snapshot.find(name.as_wire(), question_type(message), client)?).ok()
}

/// The shape of a message whose QNAME was `found` in the table: walks every CNAME target of the answer section.
pub(super) fn of_found(
    snapshot: &Snapshot,
    message: &[u8],
    client: IpAddr,
    found: RouteMatch<Target>,
) -> Result<Shape, Malformed> {
    let rule = match found.target {
        Target::Rule(id) => id.0,
        Target::Local => NO_RULE,
    };
    let has_views = snapshot.table.has_views();
    let qtype = question_type(message);
    let mut name = NameBuf::new();
    if has_views || found.target == Target::Local {
        name.expand(message, HEADER)?;
        name.make_lowercase();
    }
    let fingerprint = snapshot.fingerprint_of(found.target, name.as_wire(), qtype);
    let mut shape = Shape { fingerprint, rule, view: found.view, is_shared: true };
    let choice = if has_views { snapshot.choice(name.as_wire()) } else { None };
    find_alias(message, |target| {
        shape.is_shared &= snapshot.choice(target).is_none_or(|other| Some(other) == choice);
        if let Some(found) = snapshot.find(target, qtype, client) {
            shape.extend(snapshot.fingerprint_of(found.target, target, qtype));
        }
        None::<()>
    })?;
    Ok(shape)
}

/// QTYPE of a message that we wrote, so that its question section is complete.
fn question_type(message: &[u8]) -> RecordType {
    let end = name::skip_uncompressed(message, HEADER).unwrap_or(HEADER);
    RecordType(message.get(end..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u16::from_be_bytes(*octets)))
}

/// See [`Snapshot::revalidate`].
pub(super) fn revalidate(
    snapshot: &Snapshot,
    message: &[u8],
    stamp: Stamp,
    client: IpAddr,
    view: View,
) -> Option<Stamp> {
    let shape = of(snapshot, message, client)?;
    if stamp.generation == FROM_FILE && !passes(snapshot, message, client).unwrap_or(false) {
        return None;
    }
    shape.stamp(snapshot.generation, view).filter(|new| new.fingerprint == stamp.fingerprint)
}

/// Whether the guard of every rule in the chain lets every address pass. This is stricter than when the answer came in;
/// an entry that fails is only fetched again.
fn passes(snapshot: &Snapshot, message: &[u8], client: IpAddr) -> Result<bool, Malformed> {
    let qtype = question_type(message);
    let stops = |name: &[u8]| -> Result<bool, Malformed> {
        let found = snapshot.find(name, qtype, client);
        let Some(Target::Rule(id)) = found.map(|found| found.target) else { return Ok(false) };
        let guard = &snapshot.rule(id).guard;
        let stopped = |address| guard.stops(address).then_some(());
        Ok(!guard.spares(name) && addresses::find_address(message, stopped)?.is_some())
    };
    let mut name = NameBuf::new();
    name.expand(message, HEADER)?;
    name.make_lowercase();
    if stops(name.as_wire())? {
        return Ok(false);
    }
    // What cannot be read does not pass.
    let stopped = find_alias(message, |target| stops(target).unwrap_or(true).then_some(()))?;
    Ok(stopped.is_none())
}

#[cfg(test)]
mod tests {
    use super::rule_fingerprint;
    use crate::config::Plan;

    fn fingerprint(group: &str) -> u64 {
        let text = format!("[upstream.vpc]\n{group}\n[[forward]]\nzones = [\"example\"]\nto = \"vpc\"\n");
        let live = Plan::from_text("t.toml", &text).unwrap().live;
        rule_fingerprint(&live.rules[0], &live)
    }

    #[test]
    fn another_path_to_the_servers_is_another_shape_and_another_pace_is_not() {
        let servers = "servers = [\"10.20.1.10\"]";
        let one = fingerprint(servers);
        for key in ["source = \"127.0.0.1\"", "device = \"lo\"", "mark = 2"] {
            assert_ne!(fingerprint(&format!("{servers}\n{key}")), one, "{key}");
            let of_a_server = format!("servers = [{{ server = \"10.20.1.10\", {key} }}]");
            assert_ne!(fingerprint(&of_a_server), one, "{of_a_server}");
        }
        for key in ["max_qps = 900", "source_ports = 4", "timeout = \"900ms\""] {
            assert_eq!(fingerprint(&format!("{servers}\n{key}")), one, "{key}");
        }
    }
}
