//! Likely mistakes that do not prevent a start: `check` prints them, `serve` logs them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    super::{
        error::Problem,
        file::File,
        group::{GroupIndex, GroupPlan, ServerAddress, ServerPlan},
        plan::{Live, RulePlan, SpecialNames, WhenDown},
        presets::PRESETS,
        reverse::reverse_zones,
        source::Place,
    },
    Builder,
    forward::{Claimant, WrittenRule},
    section,
};
use crate::{networks, plural::listed, wire::Name};

/// The networks of RFC 1918 and RFC 4193 from which sites number their clients.
const SITE_NETWORKS: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];

impl Builder<'_> {
    pub(super) fn warn(&mut self, file: &File, live: &Live) {
        // If there are problems, the rules do not match the file's one by one.
        if !self.problems.is_empty() {
            return;
        }
        if live.rules.is_empty() && live.local.is_empty() {
            self.warnings.push(
                Problem::without_place("there is no rule and no local zone: every query will be REFUSED")
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
        let answering_aws = groups_answering_aws(live);
        let rules = mem::take(&mut self.rules);
        for (rule, written) in live.rules.iter().zip(&rules) {
            self.warn_of_guard(rule, written, live);
            self.warn_of_other_region(rule, written, live);
            self.warn_of_clients(rule, written, live);
            if answering_aws.contains(&rule.to) {
                self.warn_of_hijack(rule, written, live);
            }
        }
        self.warn_of_blind_follow(&rules, live);
        self.warn_of_reverse(file, live);
        self.warn_of_budgets(file, live);
    }

    /// Warns of different `max_qps` for one address: it has one budget, over all groups.
    fn warn_of_budgets(&mut self, file: &File, live: &Live) {
        let mut first: HashMap<IpAddr, &GroupPlan> = HashMap::new();
        for (group, upstream) in live.groups.iter().zip(&file.upstream) {
            let place = upstream.table.max_qps.as_ref().map_or(&upstream.name.place, |max_qps| &max_qps.place);
            for address in addresses(group) {
                let other = *first.entry(address).or_insert(group);
                if other.max_qps == group.max_qps {
                    continue;
                }
                let [one, two] = [other, group].map(|group| {
                    let limit = group.max_qps.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
                    format!("{limit} in upstream \"{}\"", group.name)
                });
                let message = format!("{address} has max_qps {one} and {two}: the lower holds for both");
                self.warning(place, message, "give both the same max_qps");
            }
        }
    }

    /// Warns of rules whose CNAMEs are not followed: a guard only checks queries through its own rule.
    fn warn_of_blind_follow(&mut self, rules: &[WrittenRule], live: &Live) {
        let Some(guarded) = live.rules.iter().find(|rule| rule.guard.is_some()) else { return };
        for (rule, written) in live.rules.iter().zip(rules) {
            let Some(follow) = written.follow().filter(|_| !rule.follow && rule.name != guarded.name) else { continue };
            let message = format!(
                "rule \"{}\" does not follow: an alias in its answers leads to names of rule \"{}\" past their guard",
                rule.name, guarded.name
            );
            self.warning(&follow.place, message, "follow = true is the default");
        }
    }

    pub(super) fn warning(&mut self, place: &Place, message: String, help: &str) {
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

    fn warn_of_group(&mut self, index: GroupIndex, group: &GroupPlan, place: &Place, live: &Live) {
        let falls_back = |rule: &RulePlan| rule.when_down == WhenDown::Upstream(index);
        if group.tiers.iter().all(Vec::is_empty) {
            let message =
                format!("upstream \"{}\" has no server left: every name sent there gets SERVFAIL", group.name);
            self.warning(place, message, "name the servers that tidegate is to ask, not tidegate itself");
        }
        if !live.rules.iter().any(|rule| rule.to == index || falls_back(rule)) {
            let message = format!("no rule sends to upstream \"{}\"", group.name);
            self.warning(place, message, "name it in the `to` of a [[forward]]");
        }
        let mut before: Vec<&ServerPlan> = Vec::new();
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

    fn warn_of_clients(&mut self, rule: &RulePlan, written: &WrittenRule, live: &Live) {
        let allow = &live.access.allow;
        let texts = written.clients().into_iter().flat_map(|clients| &clients.value);
        for (client, text) in rule.clients.iter().zip(texts) {
            let (message, help) = if !allow.iter().any(|allowed| intersection(*client, *allowed).is_some()) {
                ("which server.allow does not serve", "add the network to server.allow")
            } else if is_denied(*client, live) {
                ("which server.deny refuses", "take the network out of server.deny, or this rule out")
            } else {
                continue;
            };
            self.warning(&text.place, format!("rule \"{}\" is for clients {client}, {message}", rule.name), help);
        }
        self.warn_of_shadow(rule, written, allow);
    }

    /// Warns of a rule that is never used, because rules with longer client networks have its zones for all served
    /// clients.
    fn warn_of_shadow(&mut self, rule: &RulePlan, written: &WrittenRule, allow: &[IpNet]) {
        let has_views = |zone: &Name| self.claims.get(zone).is_some_and(|claims| claims.len() > 1);
        if !rule.zones.iter().all(has_views) {
            return;
        }
        let everybody = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        let own: &[IpNet] = if rule.clients.is_empty() { &everybody } else { &rule.clients };
        let served: Vec<(IpNet, IpNet)> = own
            .iter()
            .flat_map(|own| allow.iter().filter_map(|allowed| Some((*own, intersection(*own, *allowed)?))))
            .collect();
        // The rule for a zone with the longest client network applies.
        let is_taken = |zone: &Name, (own, served): &(IpNet, IpNet)| {
            let claims = self
                .claims
                .get(zone)
                .into_iter()
                .flatten()
                .filter(|claim| !matches!(&claim.whose, Claimant::Rule(name) if *name == rule.name));
            let longer = |view: &IpNet| own.contains(view) && (rule.clients.is_empty() || view != own);
            IpNet::aggregate(&claims.filter_map(|claim| claim.clients).filter(longer).collect())
                .iter()
                .any(|views| views.contains(served))
        };
        let shadowed = !served.is_empty()
            && !rule.zones.is_empty()
            && rule.zones.iter().all(|zone| served.iter().all(|served| is_taken(zone, served)));
        if shadowed {
            let message = format!("rule \"{}\" is never used: rules with clients take all who are served", rule.name);
            self.warning(&written.place, message, "take it out, or narrow the clients of the others");
        }
    }

    /// Warns of reverse zones sent to a VPC: its resolver only knows those of its own networks.
    fn warn_of_hijack(&mut self, rule: &RulePlan, written: &WrittenRule, live: &Live) {
        for ((_, zones), place) in rule.entries().zip(&written.zones) {
            if let Some(network) = whole_network(zones) {
                let message = format!(
                    "rule \"{}\" sends the reverse names of all of {network} to upstream \"{}\", which answers AWS \
                     names: the site's own reverse names there will be lost",
                    rule.name,
                    live.group(rule.to).name
                );
                self.warning(place, message, "forward the VPC's networks alone: \"reverse:10.20.0.0/16\"");
            }
        }
    }

    /// Warns of private reverse names that no rule covers. Without a rule for ".", this server does not answer for the
    /// site.
    fn warn_of_reverse(&mut self, file: &File, live: &Live) {
        if live.special == SpecialNames::Forwarded || live.rules.is_empty() || live.refuses_the_rest() {
            return;
        }
        let domains = live.rules.iter().flat_map(|rule| &*rule.zones).filter(|zone| !zone.is_root());
        let domains: Vec<&Name> = domains.chain(live.local.iter().map(|local| &local.zone)).collect();
        let covered = |zone: &Name| domains.iter().any(|domain| zone.is_within(domain));
        // If only this host asks, it may ask for reverse names of any private network.
        let is_alone = live.access.allow.iter().all(|allowed| allowed.addr().is_loopback());
        let everybody = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        let asked: &[IpNet] = if is_alone { &everybody } else { &live.access.allow };
        let networks = SITE_NETWORKS.iter().filter_map(|network| networks::parse(network).ok());
        let bare: Vec<IpNet> = networks
            .flat_map(|site| asked.iter().filter_map(move |asked| intersection(site, *asked)))
            .filter(|network| !reverse_zones(*network).iter().all(covered))
            .collect();
        if bare.is_empty() {
            return;
        }
        let whose = if is_alone { "private" } else { "the clients'" };
        let message =
            format!("no rule covers the reverse names of {whose} networks {}: they are NXDOMAIN here", listed(&bare));
        let help = "add \"reverse:private\" to the zones of the rule for the site's own DNS; \".\" does not count";
        let allow = section(file.server.as_ref()).allow.as_ref().map(|allow| allow.place);
        self.warnings.push(Problem { place: allow, message, help: Some(help.to_owned()) });
    }
}

/// The groups that answer names of AWS, and not all names.
fn groups_answering_aws(live: &Live) -> HashSet<GroupIndex> {
    let families = PRESETS.iter().flat_map(|preset| preset.families);
    let families: Vec<Name> = families.filter_map(|family| family.domain.parse().ok()).collect();
    let sent_to = |is_sought: &dyn Fn(&Name) -> bool| -> HashSet<GroupIndex> {
        live.rules.iter().filter(|rule| rule.zones.iter().any(is_sought)).map(|rule| rule.to).collect()
    };
    let aws = sent_to(&|zone| families.iter().any(|family| zone.is_within(family)));
    let all = sent_to(&Name::is_root);
    &aws - &all
}

/// The whole private network that these reverse zones cover; no VPC is that large.
fn whole_network(zones: &[Name]) -> Option<IpNet> {
    let covered = |reverse: &Name| zones.iter().any(|zone| reverse.is_within(zone));
    let networks = SITE_NETWORKS.iter().filter_map(|network| networks::parse(network).ok());
    networks.into_iter().find(|network| reverse_zones(*network).iter().all(covered))
}

/// Whether `deny` excludes every client of this network; the longer prefix of both lists decides.
fn is_denied(client: IpNet, live: &Live) -> bool {
    let holding = live.access.deny.iter().filter(|denied| denied.contains(&client));
    let Some(denied) = holding.max_by_key(|denied| denied.prefix_len()) else { return false };
    let mut allowed = live.access.allow.iter().filter(|allowed| allowed.prefix_len() > denied.prefix_len());
    !allowed.any(|allowed| intersection(*allowed, client).is_some())
}

/// The addresses of a group's servers over all tiers, without duplicates.
fn addresses(group: &GroupPlan) -> BTreeSet<IpAddr> {
    let fixed = |server: &ServerPlan| match &server.address {
        ServerAddress::Fixed(fixed) => Some(fixed.endpoint.address.ip),
        ServerAddress::Named(_) | ServerAddress::System { .. } => None,
    };
    group.tiers.iter().flatten().filter_map(fixed).collect()
}

/// The smaller of two networks if it lies within the other.
fn intersection(left: IpNet, right: IpNet) -> Option<IpNet> {
    match (left.contains(&right), right.contains(&left)) {
        (true, _) => Some(right),
        (_, true) => Some(left),
        _ => None,
    }
}
