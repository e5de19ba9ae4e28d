//! What looks like a mistake and stops nothing: `check` prints it, `serve` logs it.

use ipnet::IpNet;

use super::{
    super::{
        error::{Place, Problem},
        file::{File, ForwardSection, Located},
        group::{Group, GroupIndex, Server},
        plan::{Live, Rule, SpecialNames},
        presets::{PRESETS, PUBLIC_ONLY},
        reverse::reverse_zones,
    },
    Builder, section,
    values::plain,
};
use crate::wire::Name;

/// The networks of RFC 1918 and RFC 4193 that sites number their clients from.
const SITE_NETWORKS: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];

impl Builder<'_> {
    pub(super) fn warn(&mut self, file: &File, live: &Live) {
        // With problems the rules are not those of the file, one by one.
        if !self.problems.is_empty() {
            return;
        }
        if live.rules.is_empty() && live.local.is_empty() {
            self.warnings.push(
                Problem::nowhere("there is no rule and no local zone: every question will be REFUSED")
                    .help("write a [[forward]] table with zones = [\".\"] and to = the name of an [upstream.NAME]"),
            );
        }
        let server = section(file.server.as_ref());
        if let Some(allow) = server.allow.as_ref().filter(|allow| allow.value.is_empty()) {
            let message = "allow is empty: every client will be REFUSED".to_owned();
            self.warning(&allow.place, message, "allow = [\"loopback\", \"private\"] is the default");
        }
        self.warn_of_late_stale(file, live);
        for (at, (group, upstream)) in live.groups.iter().zip(&file.upstream).enumerate() {
            self.warn_of_group(GroupIndex(at), group, &upstream.name.place, live);
        }
        for (rule, forward) in live.rules.iter().zip(&file.forward) {
            self.warn_of_guard(rule, forward);
            self.warn_of_clients(rule, forward, live);
            self.warn_of_hijack(rule, forward, live);
        }
        self.warn_of_reverse(file, live);
    }

    fn warning(&mut self, place: &Place, message: String, help: &str) {
        self.warnings.push(Problem::at(place, message).help(help));
    }

    fn warn_of_late_stale(&mut self, file: &File, live: &Live) {
        let cache = section(file.cache.as_ref());
        let server = section(file.server.as_ref());
        let Some(text) = cache.stale_after.as_ref().or(server.deadline.as_ref()) else { return };
        if live.cache.stale_after >= live.deadline && !live.cache.stale.is_zero() {
            let message = "stale_after is not before deadline: a stale answer would come too late".to_owned();
            self.warning(&text.place, message, "stale_after = \"400ms\" is the default");
        }
    }

    fn warn_of_group(&mut self, index: GroupIndex, group: &Group, place: &Place, live: &Live) {
        let falls_back = |rule: &Rule| rule.when_down == super::super::plan::WhenDown::Upstream(index);
        if !live.rules.iter().any(|rule| rule.to == index || falls_back(rule)) {
            let message = format!("no rule sends to upstream \"{}\"", group.name);
            self.warning(place, message, "name it in the `to` of a [[forward]]");
        }
        let mut before: Vec<&Server> = Vec::new();
        for tier in &group.tiers {
            if let Some(server) = tier.iter().find(|server| before.contains(server)) {
                let message = format!(
                    "upstream \"{}\" has {} in two tiers over the same path: what cuts one cuts both",
                    group.name, server.address
                );
                self.warning(place, message, "give one of them another source, device or mark, or another address");
            }
            before.extend(tier);
        }
    }

    fn warn_of_guard(&mut self, rule: &Rule, forward: &Located<ForwardSection>) {
        for (name, text) in rule.except.iter().zip(forward.value.except.iter().flat_map(|except| &except.value)) {
            if !rule.zones.iter().any(|zone| name.is_within(zone)) {
                let message =
                    format!("rule \"{}\" excepts \"{}\", which is below none of its zones", rule.name, text.value);
                self.warning(&text.place, message, "it has no effect there");
            }
        }
        let Some(private) = forward.value.private.as_ref().filter(|_| rule.guard.is_some()) else { return };
        let excepted = |zone: &Name| rule.except.iter().any(|except| zone.is_within(except));
        for zone in rule.zones.iter().filter(|zone| !excepted(zone)) {
            let public = PUBLIC_ONLY.iter().find(|family| {
                family.domain.parse().is_ok_and(|domain: Name| zone.is_within(&domain) || zone.is_root())
            });
            if let Some(family) = public {
                let message = format!(
                    "rule \"{}\" guards \"{}\", and names there exist in public only ({}: {})",
                    rule.name,
                    plain(zone),
                    family.domain,
                    family.about
                );
                self.warning(&private.place, message, "the guard will treat every answer for them as a violation");
            }
        }
    }

    fn warn_of_clients(&mut self, rule: &Rule, forward: &Located<ForwardSection>, live: &Live) {
        let allow = &live.access.allow;
        let texts = forward.value.clients.iter().flat_map(|clients| &clients.value);
        for (client, text) in rule.clients.iter().zip(texts) {
            if !allow.iter().any(|allowed| allowed.contains(client) || client.contains(allowed)) {
                let message =
                    format!("rule \"{}\" is for clients {client}, which server.allow does not serve", rule.name);
                self.warning(&text.place, message, "add the network to server.allow");
            }
        }
        if !rule.clients.is_empty() || rule.zones.is_empty() || allow.is_empty() {
            return;
        }
        let shadowed = rule.zones.iter().all(|zone| {
            let views: Vec<IpNet> =
                self.claims.get(zone).into_iter().flatten().filter_map(|claim| claim.clients).collect();
            allow.iter().all(|allowed| views.iter().any(|view| view.contains(allowed)))
        });
        if shadowed {
            let message = format!("rule \"{}\" is never used: rules with clients take all who are served", rule.name);
            self.warning(&forward.place, message, "take it out, or narrow the clients of the others");
        }
    }

    /// A VPC's resolver knows the reverse zones of its own networks only.
    fn warn_of_hijack(&mut self, rule: &Rule, forward: &Located<ForwardSection>, live: &Live) {
        let sent: Vec<&Name> =
            live.rules.iter().filter(|other| other.to == rule.to).flat_map(|other| &other.zones).collect();
        let families = PRESETS.iter().flat_map(|preset| preset.families);
        let aws = families
            .filter_map(|family| family.domain.parse::<Name>().ok())
            .any(|domain| sent.iter().any(|zone| zone.is_within(&domain)));
        if !aws || sent.iter().any(|zone| zone.is_root()) {
            return;
        }
        let texts = forward.value.zones.iter().flat_map(|zones| &zones.value);
        for (entry, text) in rule.written.iter().zip(texts) {
            let whole = entry.zones.iter().find(|zone| WHOLE.contains(&plain(zone).as_str()));
            if let Some(zone) = whole {
                let message = format!(
                    "rule \"{}\" sends all of {} to upstream \"{}\", which answers AWS names: the site's own reverse \
                     names there will be lost",
                    rule.name,
                    plain(zone),
                    live.group(rule.to).name
                );
                self.warning(&text.place, message, "forward the VPC's networks alone: \"reverse:10.20.0.0/16\"");
            }
        }
    }

    fn warn_of_reverse(&mut self, file: &File, live: &Live) {
        if live.special == SpecialNames::Forwarded || live.rules.is_empty() {
            return;
        }
        let domains = live.rules.iter().flat_map(|rule| &rule.zones).filter(|zone| !zone.is_root());
        let domains: Vec<&Name> = domains.chain(live.local.iter().map(|local| &local.zone)).collect();
        let covered = |zone: &Name| domains.iter().any(|domain| zone.is_within(domain));
        let networks = SITE_NETWORKS.iter().filter_map(|network| network.parse::<IpNet>().ok());
        let bare: Vec<String> = networks
            .flat_map(|site| live.access.allow.iter().filter_map(move |allowed| narrower(site, *allowed)))
            .filter(|network| !reverse_zones(*network).iter().all(covered))
            .map(|network| network.to_string())
            .collect();
        if bare.is_empty() {
            return;
        }
        let message = format!(
            "no rule covers the reverse names of the clients' networks {}: they are NXDOMAIN here",
            bare.join(", ")
        );
        let help = "add \"reverse:private\" to the zones of the rule for the site's own DNS; \".\" does not count";
        let allow = section(file.server.as_ref()).allow.as_ref().map(|allow| allow.place.clone());
        self.warnings.push(Problem { place: allow, message, help: Some(help.to_owned()) });
    }
}

/// Reverse zones that hold a whole private network, which no VPC is.
const WHOLE: &[&str] = &["10.in-addr.arpa", "168.192.in-addr.arpa", "in-addr.arpa", "ip6.arpa", "d.f.ip6.arpa"];

/// Of two networks the one within the other.
fn narrower(left: IpNet, right: IpNet) -> Option<IpNet> {
    match (left.contains(&right), right.contains(&left)) {
        (true, _) => Some(right),
        (_, true) => Some(left),
        _ => None,
    }
}
