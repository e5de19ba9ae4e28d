//! `[[forward]]`: rules, the zones they stand for, and conflicts between them.
//!
//! A zone may be claimed once without clients, by a rule or by a local zone, and once for each client network.

use std::{fmt, mem, sync::Arc};

use hashbrown::HashMap;
use ipnet::IpNet;

use super::{
    super::{
        file::{File, ForwardSection, Located, Text, Texts, no_such_word},
        group::GroupIndex,
        plan::{CachePolicy, Rebind, RulePlan, RuleSettings, WhenDown, ZoneEntry},
        presets, reverse,
        source::{Place, locate},
    },
    Builder,
    values::without_dot,
};
use crate::{
    networks::{self, NetworkError},
    plural::listed,
    wire::Name,
};

/// A claim to a zone.
pub(super) struct Claim {
    /// The clients of the claim; none = all.
    pub(super) clients: Option<IpNet>,
    pub(super) whose: Claimant,
    /// Where it is written.
    pub(super) place: Place,
}

/// What claims a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimant {
    /// The rule of this name.
    Rule(Arc<str>),
    /// The local zone, as it is written.
    LocalZone(Arc<str>),
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule \"{name}\""),
            Self::LocalZone(zone) => write!(f, "the local zone \"{zone}\""),
        }
    }
}

/// What warnings need of a rule in the file. A plain one, of which there may be a hundred thousand, is its places.
pub(super) struct WrittenRule {
    /// Where the rule begins.
    pub(super) place: Place,
    /// Where each entry of `zones` is.
    pub(super) zones: Box<[Place]>,
    /// The keys of a rule that is not plain.
    keys: Option<Located<ForwardSection>>,
}

impl WrittenRule {
    fn of(forward: Located<ForwardSection>) -> Self {
        let zones = forward.value.zones.iter().flat_map(|zones| &zones.value).map(|text| text.place).collect();
        let ForwardSection { clients, private, except, follow, .. } = &forward.value;
        let is_plain = clients.is_none() && private.is_none() && except.is_none() && follow.is_none();
        Self { place: forward.place, zones, keys: (!is_plain).then_some(forward) }
    }

    /// `clients`, if it is there.
    pub(super) fn clients(&self) -> Option<&Texts> {
        self.keys.as_ref()?.value.clients.as_ref()
    }

    /// `private`, if it is there.
    pub(super) fn private(&self) -> Option<&Texts> {
        self.keys.as_ref()?.value.private.as_ref()
    }

    /// `except`, if it is there.
    pub(super) fn except(&self) -> Option<&Texts> {
        self.keys.as_ref()?.value.except.as_ref()
    }

    /// `follow`, if it is there.
    pub(super) fn follow(&self) -> Option<&Located<bool>> {
        self.keys.as_ref()?.value.follow.as_ref()
    }
}

/// The most rules. Their numbers have 24 bits beside each cached answer, and delegations take some.
const MAX_RULES: usize = 1_000_000;

impl Builder<'_> {
    /// Builds the rules. Those of the file go, one after the other, so that both are never there whole.
    pub(super) fn rules(&mut self, file: &mut File, cache: &CachePolicy) -> Vec<RulePlan> {
        let groups: Vec<&str> = file.upstream.iter().map(|upstream| upstream.name.value.as_str()).collect();
        if let Some(beyond) = file.forward.get(MAX_RULES) {
            let message = format!("there are more than {MAX_RULES} rules");
            self.problem_with_help(&beyond.place, message, "write domains with the same settings into one rule");
        }
        let names = self.rule_names(&file.forward);
        let forwards = mem::take(&mut file.forward);
        let mut rules = Vec::with_capacity(forwards.len());
        let mut written = Vec::with_capacity(forwards.len());
        for (forward, name) in forwards.into_iter().zip(names) {
            rules.extend(self.rule(&forward, name, &groups, cache));
            written.push(WrittenRule::of(forward));
        }
        self.rules = written;
        rules
    }

    fn rule(
        &mut self,
        forward: &Located<ForwardSection>,
        name: Arc<str>,
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
        let settings = RuleSettings {
            to: to.unwrap_or(GroupIndex(0)),
            clients,
            guard,
            except,
            rebind,
            negative_ttl: table.negative_ttl.as_ref().map_or(cache.negative_ttl, |ttl| ttl.value),
            when_down,
            aaaa: table.aaaa(),
            follow: table.follow(),
        };
        let settings = Arc::clone(self.settings.get_or_insert_with(&settings, |settings| Arc::new(settings.clone())));
        // Everything in the rule is checked even if its group is missing.
        to.map(|_| RulePlan { name, zones: zones.into(), written: written.into(), settings })
    }

    /// The names of rules: as written, else the first zone, made unique by clients and then by a number.
    fn rule_names(&mut self, forwards: &[Located<ForwardSection>]) -> Vec<Arc<str>> {
        let mut taken: HashMap<Arc<str>, &Place> = HashMap::new();
        for name in forwards.iter().filter_map(|forward| forward.value.name.as_ref()) {
            self.check_label(name, "a rule");
            if let Some(first) = taken.get(&*name.value) {
                let first = locate(self.sources, first);
                self.problem(&name.place, format!("rule \"{}\" stands at {first} already", name.value));
            }
            taken.entry(name.value.as_str().into()).or_insert(&name.place);
        }
        // By zone: the number that was given last.
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut names = Vec::with_capacity(forwards.len());
        for forward in forwards {
            let name: Arc<str> = match &forward.value.name {
                Some(name) => name.value.as_str().into(),
                None => name_of(&forward.value, &taken, &mut numbers).into(),
            };
            taken.insert(Arc::clone(&name), &forward.place);
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
        rule: &Arc<str>,
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
        let whose = Claimant::Rule(Arc::clone(rule));
        for text in &texts.value {
            let Some(zones) = self.zone_entry(text) else { continue };
            for zone in &zones {
                self.claim(zone, clients, &whose, text);
            }
            let count = u32::try_from(zones.len()).unwrap_or(u32::MAX);
            all.extend(zones);
            let text = if *text.value == **rule { Arc::clone(rule) } else { text.value.as_str().into() };
            written.push(ZoneEntry { text, count });
        }
        (written, all)
    }

    /// Records a claim to `zone`, one for each client network; a second claim is a problem.
    pub(super) fn claim(&mut self, zone: &Name, clients: &[IpNet], whose: &Claimant, text: &Text) {
        let everybody = clients.is_empty().then_some(None);
        let views = everybody.into_iter().chain(clients.iter().copied().map(Some));
        let claims = self.claims.entry(zone.clone()).or_default();
        // A hundred thousand zones have one claim each; the default would reserve room for four.
        claims.reserve_exact(clients.len().max(1));
        let mut twice = None;
        for view in views {
            match claims.iter().find(|claim| claim.clients == view) {
                Some(first) => twice = twice.or_else(|| Some((view, first.whose.clone(), first.place))),
                None => claims.push(Claim { clients: view, whose: whose.clone(), place: text.place }),
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

/// The name of a rule that is given none: its first zone, made unique by its first client and then by a number; `numbers`
/// has the one that was given last for each zone.
fn name_of<'f>(
    forward: &'f ForwardSection,
    taken: &HashMap<Arc<str>, &Place>,
    numbers: &mut HashMap<&'f str, u32>,
) -> String {
    let first = |texts: &'f Option<Texts>| Some(texts.as_ref()?.value.first()?.value.as_str());
    let zone = first(&forward.zones).unwrap_or("forward");
    let zone = zone.strip_suffix('.').filter(|zone| !zone.is_empty()).unwrap_or(zone);
    if !taken.contains_key(zone) {
        return zone.to_owned();
    }
    let view = first(&forward.clients).map(|client| format!("{zone}@{client}"));
    let last = numbers.entry(zone).or_insert(1);
    let numbered = std::iter::repeat_with(|| {
        *last += 1;
        format!("{zone}#{last}")
    });
    view.into_iter().chain(numbered).find(|name| !taken.contains_key(&**name)).unwrap_or_default()
}

fn there_is(groups: &[&str]) -> String {
    if groups.is_empty() {
        return "there is no [upstream.NAME] at all".to_owned();
    }
    let groups: Vec<String> = groups.iter().map(|group| format!("[upstream.{group}]")).collect();
    format!("there is {}", listed(&groups))
}
