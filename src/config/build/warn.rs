//! What looks like a mistake and stops nothing: `check` prints it, `serve` logs it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    super::{
        error::{Place, Problem},
        file::{File, ForwardSection, Located},
        group::{Group, GroupIndex, Server, ServerAddress},
        plan::{Live, Rule, SpecialNames, WhenDown},
        presets::{PRESETS, PUBLIC_ONLY, is_aws_name},
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
            self.warn_of_guard(rule, forward, live);
            self.warn_of_other_region(rule, forward, live);
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
        let falls_back = |rule: &Rule| rule.when_down == WhenDown::Upstream(index);
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

    fn warn_of_guard(&mut self, rule: &Rule, forward: &Located<ForwardSection>, live: &Live) {
        for (name, text) in rule.except.iter().zip(forward.value.except.iter().flat_map(|except| &except.value)) {
            if !rule.zones.iter().any(|zone| name.is_within(zone)) {
                let message =
                    format!("rule \"{}\" excepts \"{}\", which is below none of its zones", rule.name, text.value);
                self.warning(&text.place, message, "it has no effect there");
            }
        }
        let Some(private) = forward.value.private.as_ref().filter(|_| rule.guard.is_some()) else { return };
        let excepted = |zone: &Name| rule.except.iter().any(|except| zone.is_within(except));
        for zone in &rule.zones {
            // A longer zone of any rule has its own word on what is below it.
            let reaches = |domain: &Name| {
                let mut zones = live.rules.iter().flat_map(|rule| &rule.zones);
                domain.is_within(zone)
                    && !zones.any(|other| domain.is_within(other) && other != zone && other.is_within(zone))
            };
            let public = PUBLIC_ONLY.iter().find(|family| {
                family.domain.parse().is_ok_and(|domain: Name| {
                    zone.is_within(&domain) && !excepted(zone) || reaches(&domain) && !excepted(&domain)
                })
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
            let (message, help) = if !allow.iter().any(|allowed| narrower(*client, *allowed).is_some()) {
                ("which server.allow does not serve", "add the network to server.allow")
            } else if is_denied(*client, live) {
                ("which server.deny refuses", "take the network out of server.deny, or this rule out")
            } else {
                continue;
            };
            self.warning(&text.place, format!("rule \"{}\" is for clients {client}, {message}", rule.name), help);
        }
        self.warn_of_shadow(rule, forward, allow);
    }

    /// A rule that is never used, because others with longer client networks have its zones for all who are served.
    fn warn_of_shadow(&mut self, rule: &Rule, forward: &Located<ForwardSection>, allow: &[IpNet]) {
        let everybody = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        let own: &[IpNet] = if rule.clients.is_empty() { &everybody } else { &rule.clients };
        let served: Vec<(IpNet, IpNet)> = own
            .iter()
            .flat_map(|own| allow.iter().filter_map(|allowed| Some((*own, narrower(*own, *allowed)?))))
            .collect();
        let whose = format!("rule \"{}\"", rule.name);
        // Of the rules for one zone the longest client network decides.
        let is_taken = |zone: &Name, (own, served): &(IpNet, IpNet)| {
            let claims = self.claims.get(zone).into_iter().flatten().filter(|claim| claim.whose != whose);
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
            self.warning(&forward.place, message, "take it out, or narrow the clients of the others");
        }
    }

    /// An endpoint's addresses lie in its VPC, and so do those that it answers service names with. Where the first tier
    /// lies within the guard's networks and a later one does not, the later one answers with other addresses. Without a
    /// guard nothing tells to which Region an address belongs.
    fn warn_of_other_region(&mut self, rule: &Rule, forward: &Located<ForwardSection>, live: &Live) {
        let (Some(guard), Some(private)) = (&rule.guard, &forward.value.private) else { return };
        if !rule.zones.iter().any(is_aws_name) {
            return;
        }
        let group = live.group(rule.to);
        let (first, mut later) = addresses(group);
        if let WhenDown::Upstream(index) = rule.when_down {
            let (fallback, more) = addresses(live.group(index));
            later.extend(fallback.into_iter().chain(more));
        }
        let is_inside = |address: &IpAddr| guard.networks.iter().any(|network| network.contains(address));
        let stranger = later.iter().find(|address| !is_inside(address));
        if let Some(address) = stranger.filter(|_| first.iter().any(is_inside)) {
            let message = format!(
                "rule \"{}\" falls back from upstream \"{}\" to {address}, which is outside `private`: an endpoint of \
                 another VPC or Region answers service names with its own addresses, and they are violations here",
                rule.name, group.name
            );
            self.warning(&private.place, message, "add that VPC's network to `private`, if clients can reach it");
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
            if let Some(network) = whole_network(&entry.zones) {
                let message = format!(
                    "rule \"{}\" sends the reverse names of all of {network} to upstream \"{}\", which answers AWS \
                     names: the site's own reverse names there will be lost",
                    rule.name,
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

/// A whole private network, which no VPC is, that these reverse zones cover.
fn whole_network(zones: &[Name]) -> Option<IpNet> {
    let covered = |reverse: &Name| zones.iter().any(|zone| reverse.is_within(zone));
    let networks = SITE_NETWORKS.iter().filter_map(|network| network.parse::<IpNet>().ok());
    networks.into_iter().find(|network| reverse_zones(*network).iter().all(covered))
}

/// Whether no client of this network is served because of `deny`; of both lists the longer prefix decides.
fn is_denied(client: IpNet, live: &Live) -> bool {
    let holding = live.access.deny.iter().filter(|denied| denied.contains(&client));
    let Some(denied) = holding.max_by_key(|denied| denied.prefix_len()) else { return false };
    let mut allowed = live.access.allow.iter().filter(|allowed| allowed.prefix_len() > denied.prefix_len());
    !allowed.any(|allowed| narrower(*allowed, client).is_some())
}

/// The addresses that a group's tiers name, the first tier's apart.
fn addresses(group: &Group) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let fixed = |server: &Server| match &server.address {
        ServerAddress::Fixed(fixed) => Some(fixed.endpoint.address.ip),
        ServerAddress::System { .. } => None,
    };
    let (first, later) = group.tiers.split_at(group.tiers.len().min(1));
    (first.iter().flatten().filter_map(fixed).collect(), later.iter().flatten().filter_map(fixed).collect())
}

/// Of two networks the one within the other.
fn narrower(left: IpNet, right: IpNet) -> Option<IpNet> {
    match (left.contains(&right), right.contains(&left)) {
        (true, _) => Some(right),
        (_, true) => Some(left),
        _ => None,
    }
}
