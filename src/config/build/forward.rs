//! `[[forward]]`: rules, the zones they stand for, and conflicts between them.
//!
//! A zone may be claimed once without clients, by a rule or by a local zone, and once for each client network.

use std::{collections::HashMap, rc::Rc};

use ipnet::IpNet;

use super::{
    super::{
        error::{Place, locate},
        file::{File, ForwardSection, Located, Text, no_such_word},
        group::GroupIndex,
        plan::{CachePolicy, Rebind, RulePlan, WhenDown, ZoneEntry},
        presets, reverse,
    },
    Builder,
    values::without_dot,
};
use crate::{
    networks::{self, NetworkError},
    wire::Name,
};

/// A claim to a zone.
pub(super) struct Claim {
    /// The clients of the claim; none = all.
    pub(super) clients: Option<IpNet>,
    /// "rule \"aws\"", "the local zone".
    pub(super) whose: Rc<str>,
    /// Where it is written.
    pub(super) place: Place,
}

impl Builder<'_> {
    pub(super) fn rules(&mut self, file: &File, cache: &CachePolicy) -> Vec<RulePlan> {
        let groups: Vec<&str> = file.upstream.iter().map(|upstream| upstream.name.value.as_str()).collect();
        let names = self.rule_names(&file.forward);
        let rules = file.forward.iter().zip(names);
        rules.filter_map(|(forward, name)| self.rule(forward, name, &groups, cache)).collect()
    }

    fn rule(
        &mut self,
        forward: &Located<ForwardSection>,
        name: String,
        groups: &[&str],
        cache: &CachePolicy,
    ) -> Option<RulePlan> {
        let table = &forward.value;
        let clients = self.networks(table.clients.as_ref());
        let (written, zones) = self.zones(forward, &name, &clients);
        let guard = self.guard(forward, &name);
        let rebind = table.rebind();
        let except = self.except(forward, &name, &zones, guard.is_some() || rebind == Rebind::Refuse);
        let when_down = self.when_down(table, &name, groups);
        let to = self.target(forward, &name, groups);
        let rule = RulePlan {
            written,
            zones,
            to: to.unwrap_or(GroupIndex(0)),
            clients,
            guard,
            except,
            rebind,
            negative_ttl: table.negative_ttl.as_ref().map_or(cache.negative_ttl, |ttl| ttl.value),
            when_down,
            aaaa: table.aaaa(),
            follow: table.follow(),
            name,
        };
        // Everything in the rule is checked even if its group is missing.
        to.map(|_| rule)
    }

    /// The names of rules: as written, else the first zone, made unique by clients and then by a number.
    fn rule_names(&mut self, forwards: &[Located<ForwardSection>]) -> Vec<String> {
        let mut taken: HashMap<String, &Place> = HashMap::new();
        for name in forwards.iter().filter_map(|forward| forward.value.name.as_ref()) {
            self.check_label(name, "a rule");
            if let Some(first) = taken.get(&name.value) {
                let first = locate(self.sources, first);
                self.problem(&name.place, format!("rule \"{}\" stands at {first} already", name.value));
            }
            taken.entry(name.value.clone()).or_insert(&name.place);
        }
        // By zone: the number that was given last.
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut names = Vec::new();
        for forward in forwards {
            if let Some(name) = &forward.value.name {
                names.push(name.value.clone());
                continue;
            }
            let first = |texts: Option<&super::super::file::Texts>| Some(texts?.value.first()?.value.clone());
            let zone = first(forward.value.zones.as_ref()).unwrap_or_else(|| "forward".to_owned());
            let zone = zone.strip_suffix('.').filter(|zone| !zone.is_empty()).unwrap_or(&zone).to_owned();
            let view = first(forward.value.clients.as_ref()).map(|client| format!("{zone}@{client}"));
            let last = numbers.entry(zone.clone()).or_insert(1);
            let numbered = std::iter::repeat_with(|| {
                *last += 1;
                format!("{zone}#{last}")
            });
            let free = |name: &String| !taken.contains_key(name);
            let name = [zone.clone()].into_iter().chain(view).chain(numbered).find(free).unwrap_or_default();
            taken.insert(name.clone(), &forward.place);
            names.push(name);
        }
        names
    }

    fn target(&mut self, forward: &Located<ForwardSection>, name: &str, groups: &[&str]) -> Option<GroupIndex> {
        let Some(to) = &forward.value.to else {
            let help = format!("add to = \"NAME\"; {}", there_is(groups));
            self.problem_with_help(&forward.place, format!("rule \"{name}\" has no `to`"), help);
            return None;
        };
        self.group_index(to, &to.value, &format!("rule \"{name}\" sends to"), groups)
    }

    fn group_index(&mut self, text: &Text, to: &str, who: &str, groups: &[&str]) -> Option<GroupIndex> {
        if let Some(at) = groups.iter().position(|group| *group == to) {
            return Some(GroupIndex(at));
        }
        let message = format!("{who} \"{to}\", and there is no [upstream.{to}]; {}", there_is(groups));
        self.problem(&text.place, message);
        None
    }

    fn when_down(&mut self, table: &ForwardSection, name: &str, groups: &[&str]) -> WhenDown {
        let Some(text) = &table.when_down else { return WhenDown::Stale };
        let other = match text.value.as_str() {
            "stale" => return WhenDown::Stale,
            "fail" => return WhenDown::Fail,
            word => word.strip_prefix("upstream:"),
        };
        let Some(other) = other else {
            self.problems.push(no_such_word(text, "when_down", &["stale", "fail", "upstream:NAME"]));
            return WhenDown::Stale;
        };
        if table.to.as_ref().is_some_and(|to| to.value == other) {
            let message = format!("rule \"{name}\" falls back to \"{other}\", where it sends already");
            self.problem(&text.place, message);
            return WhenDown::Stale;
        }
        let who = format!("rule \"{name}\" falls back to");
        self.group_index(text, other, &who, groups).map_or(WhenDown::Stale, WhenDown::Upstream)
    }

    fn zones(
        &mut self,
        forward: &Located<ForwardSection>,
        rule: &str,
        clients: &[IpNet],
    ) -> (Vec<ZoneEntry>, Vec<Name>) {
        let Some(texts) = forward.value.zones.as_ref().filter(|texts| !texts.value.is_empty()) else {
            let place = forward.value.zones.as_ref().map_or(&forward.place, |zones| &zones.place);
            let help = "write zones = [\"corp.example\"], [\"preset:aws\"], [\"reverse:10.20.0.0/16\"] or [\".\"]";
            self.problem_with_help(place, format!("rule \"{rule}\" has no zones"), help);
            return (Vec::new(), Vec::new());
        };
        let mut written = Vec::with_capacity(texts.value.len());
        let mut all = Vec::with_capacity(texts.value.len());
        let whose: Rc<str> = format!("rule \"{rule}\"").into();
        for text in &texts.value {
            let Some(zones) = self.zone_entry(text) else { continue };
            for zone in &zones {
                self.claim(zone, clients, &whose, text);
            }
            all.extend(zones.iter().cloned());
            written.push(ZoneEntry { text: text.value.clone(), zones });
        }
        (written, all)
    }

    /// Records a claim to `zone`, one for each client network; a second claim is a problem.
    pub(super) fn claim(&mut self, zone: &Name, clients: &[IpNet], whose: &Rc<str>, text: &Text) {
        let views: Vec<Option<IpNet>> =
            if clients.is_empty() { vec![None] } else { clients.iter().copied().map(Some).collect() };
        let claims = self.claims.entry(zone.clone()).or_default();
        // A hundred thousand zones have one claim each; the default would reserve room for four.
        claims.reserve_exact(views.len());
        let mut twice = None;
        for view in views {
            match claims.iter().find(|claim| claim.clients == view) {
                Some(first) => twice = twice.or_else(|| Some((view, Rc::clone(&first.whose), first.place.clone()))),
                None => claims.push(Claim { clients: view, whose: Rc::clone(whose), place: text.place.clone() }),
            }
        }
        let Some((view, first, place)) = twice else { return };
        let of = if text.value.contains(':') { format!(" (of {})", text.value) } else { String::new() };
        let view = view.map_or_else(String::new, |view| format!(" for clients {view}"));
        let place = locate(self.sources, &place);
        let message = format!("zone \"{}\"{of}{view} belongs to {first} at {place} already", without_dot(zone));
        self.problem(&text.place, message);
    }

    fn zone_entry(&mut self, text: &Text) -> Option<Vec<Name>> {
        if let Some(name) = text.value.strip_prefix("preset:") {
            return self.preset(text, name);
        }
        if let Some(network) = text.value.strip_prefix("reverse:") {
            return self.reverse(text, network);
        }
        self.domain(text).map(|name| vec![name])
    }

    fn preset(&mut self, text: &Text, name: &str) -> Option<Vec<Name>> {
        let Some(preset) = presets::preset(name) else {
            let names: Vec<&str> = presets::PRESETS.iter().map(|preset| preset.name).collect();
            let help = "`tidegate presets` prints what each is for";
            let message = format!("there is no preset \"{name}\"; there is {}", names.join(", "));
            self.problem_with_help(&text.place, message, help);
            return None;
        };
        Some(preset.families.iter().filter_map(|family| family.domain.parse().ok()).collect())
    }

    fn reverse(&mut self, text: &Text, network: &str) -> Option<Vec<Name>> {
        if network == "private" {
            return Some(reverse::private_reverse_zones());
        }
        let error = match networks::parse(network) {
            Ok(network) => return Some(reverse::reverse_zones(network)),
            Err(error) => error,
        };
        let message = match error {
            NetworkError::NotANetwork => format!("\"{network}\" is not a network"),
            _ => format!("network \"{network}\" {error}"),
        };
        let help = match error {
            NetworkError::HostBits(network) => format!("write \"reverse:{network}\""),
            _ => "write \"reverse:10.20.0.0/16\" or \"reverse:private\"".to_owned(),
        };
        self.problem_with_help(&text.place, message, help);
        None
    }
}

fn there_is(groups: &[&str]) -> String {
    if groups.is_empty() {
        return "there is no [upstream.NAME] at all".to_owned();
    }
    let groups: Vec<String> = groups.iter().map(|group| format!("[upstream.{group}]")).collect();
    format!("there is {}", groups.join(", "))
}
