//! The changes that a reload makes, in lines for people.

use std::{collections::HashMap, fmt, hash::Hash};

use super::{
    group::{GroupIndex, GroupPlan},
    plan::{Live, RulePlan, RuleSettings, WhenDown},
};

impl Live {
    /// Differences between two plans, one line each; empty if they are the same.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let same_rule = |old: &RulePlan, other: &RulePlan| {
            (&old.written, &old.zones) == (&other.written, &other.zones)
                && targets(self, old) == targets(new, other)
                && without_targets(old) == without_targets(other)
        };
        compare("rule", (&self.rules, &new.rules), |rule| &rule.name, same_rule, &mut lines);
        compare("upstream", (&self.groups, &new.groups), |group| &group.name, GroupPlan::eq, &mut lines);
        compare("local zone", (&self.local, &new.local), |local| &local.zone, PartialEq::eq, &mut lines);
        lines.extend(self.keys(new).into_iter().map(|key| format!("{key} changed")));
        lines
    }

    /// The differing keys of everything that has no name of its own.
    fn keys(&self, new: &Self) -> Vec<&'static str> {
        // Destructured, so that a new field must be handled here too.
        let Self {
            access,
            deadline,
            lameduck,
            udp_payload,
            cookie_secrets,
            chaos,
            in_flight,
            client_limit,
            balancers,
            certificate,
            cache,
            admin,
            log_level,
            query_log,
            hosts,
            special,
            groups: _,
            rules: _,
            local: _,
        } = self;
        let keys = [
            ("server.allow", access.allow == new.access.allow),
            ("server.deny", access.deny == new.access.deny),
            ("server.deadline", *deadline == new.deadline),
            ("server.lameduck", *lameduck == new.lameduck),
            ("server.udp_payload", *udp_payload == new.udp_payload),
            ("server.cookie_secrets", *cookie_secrets == new.cookie_secrets),
            ("server.chaos", *chaos == new.chaos),
            ("limits.client_qps, client_burst or exempt", *client_limit == new.client_limit),
            ("server.proxy_protocol", *balancers == new.balancers),
            ("[server.tls] certificate", *certificate == new.certificate),
            ("limits.in_flight", *in_flight == new.in_flight),
            ("[cache]", *cache == new.cache),
            ("admin.allow", admin.allow == new.admin.allow),
            ("admin.hosts", admin.hosts == new.admin.hosts),
            ("log.level", *log_level == new.log_level),
            ("log.queries", query_log.queries == new.query_log.queries),
            ("log.sample", query_log.sample == new.query_log.sample),
            ("local_hosts.file", *hosts == new.hosts),
            ("special.enabled", *special == new.special),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

/// The names of the groups that a rule sends to. Their indices are ignored: another group in front would change them.
fn targets<'a>(live: &'a Live, rule: &RulePlan) -> (&'a str, Option<&'a str>) {
    let fallback = match rule.when_down {
        WhenDown::Upstream(index) => Some(live.group(index).name.as_str()),
        WhenDown::Stale | WhenDown::Fail => None,
    };
    (&live.group(rule.to).name, fallback)
}

/// The settings of a rule without the indices of its groups.
fn without_targets(rule: &RulePlan) -> RuleSettings {
    let when_down = match rule.when_down {
        WhenDown::Upstream(_) => WhenDown::Stale,
        other => other,
    };
    RuleSettings { to: GroupIndex(0), when_down, ..(*rule.settings).clone() }
}

/// Compares items by their names. There may be a hundred thousand.
fn compare<'a, T, N: Eq + Hash + fmt::Display>(
    kind: &str,
    (old, new): (&'a [T], &'a [T]),
    name: impl Fn(&'a T) -> N,
    is_same: impl Fn(&T, &T) -> bool,
    lines: &mut Vec<String>,
) {
    let mut left: HashMap<N, &T> = old.iter().map(|item| (name(item), item)).collect();
    for item in new {
        match left.remove(&name(item)) {
            None => lines.push(format!("{kind} {} is new", name(item))),
            Some(other) if !is_same(other, item) => lines.push(format!("{kind} {} changed", name(item))),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|item| left.contains_key(&name(item)));
    lines.extend(gone.map(|item| format!("{kind} {} is gone", name(item))));
}
