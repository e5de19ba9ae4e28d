//! An explanation as text for people: what `tidegate explain` prints and the status page shows.

use std::fmt::Write as _;

use super::document::{
    CacheEntry, DomainStanding, EntryState, Explanation, GroupStep, GuardStep, GuardWord, NameStep, Sharing,
};

/// The explanation as lines of text.
pub fn text(explanation: &Explanation) -> String {
    let mut lines = Lines::default();
    let Explanation { name, qtype, client, transport, .. } = explanation;
    let dnssec = if explanation.dnssec { " with DO" } else { "" };
    lines.heading(&format!("{name} {qtype}{dnssec} from {client} over {transport}"));
    let access = &explanation.access;
    lines.line(
        "client",
        &match (&access.network, access.allowed) {
            (Some(network), true) => format!("served: {network} is in `allow`"),
            (Some(network), false) => format!("refused: {network} is in `deny`"),
            (None, _) => "refused: in no network of `allow`".to_owned(),
        },
    );
    explanation.steps.iter().for_each(|step| self::step(&mut lines, step));
    lines.heading(&format!("outcome: {}", explanation.outcome.words));
    explanation.outcome.answer.iter().for_each(|record| lines.line("", &record.replace('\t', " ")));
    lines.0
}

/// Lines under construction.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += text;
        self.0.push('\n');
    }

    fn line(&mut self, title: &str, text: &str) {
        writeln!(self.0, "  {title:<9} {text}").unwrap_or_default();
    }
}

fn step(lines: &mut Lines, step: &NameStep) {
    lines.heading(&format!("{}: {}", step.name, step.words));
    for domain in &step.domains {
        let whose = match &domain.rules[..] {
            [] => "answered here".to_owned(),
            rules => format!("rule {}", rules.join(", ")),
        };
        let standing = match domain.standing {
            DomainStanding::Decides => "decides",
            DomainStanding::Shorter => "is shorter",
            DomainStanding::OtherClients => "is for other clients",
            DomainStanding::ParentDecides => "does not count: DS belongs to the domain above",
            DomainStanding::HostDecides => "does not count: the name is in local_hosts",
        };
        lines.line("domain", &format!("{} ({whose}) {standing}", domain.domain));
    }
    if let Some(view) = &step.view {
        lines.line("view", &format!("rule {view} is for some clients, this one among them"));
    }
    step.cache.iter().for_each(|entry| lines.line("cache", &self::entry(entry)));
    if step.cache.is_empty() && !step.groups.is_empty() {
        lines.line("cache", "nothing");
    }
    step.groups.iter().for_each(|group| self::group(lines, group));
    if let Some(guard) = &step.guard {
        lines.line("guard", &self::guard(guard));
    }
    for alias in &step.chain {
        let goes = match &alias.rule {
            Some(rule) if alias.leaves => format!("asked for anew, through rule {rule}"),
            None if alias.leaves => "asked for anew, answered here".to_owned(),
            _ => "taken as answered".to_owned(),
        };
        lines.line("alias", &format!("{} is {goes}", alias.target));
    }
}

fn entry(entry: &CacheEntry) -> String {
    let state = match entry.state {
        EntryState::Fresh => format!("fresh, {} s left", entry.left),
        EntryState::Expired => match entry.stale_left {
            Some(left) if left > 0 => format!("expired, may serve stale for {left} s"),
            _ => "expired".to_owned(),
        },
        EntryState::Outdated => "made under other rules, and not used".to_owned(),
    };
    let shared = match entry.shared {
        Sharing::View => "",
        Sharing::Audience => "for clients like this one: ",
        Sharing::OtherKind => "for an outage, with signatures or without: ",
    };
    let stripped = if entry.stripped { ", without what the guard took" } else { "" };
    let data: Vec<&str> = entry.answer.iter().filter_map(|record| record.rsplit('\t').next()).collect();
    let data = if data.is_empty() { entry.rcode.clone() } else { data.join(", ") };
    format!("{shared}{data}; {} s old, {state}{stripped}", entry.age)
}

fn group(lines: &mut Lines, group: &GroupStep) {
    let title = if group.fallback { "fallback" } else { "upstream" };
    let state = if group.down { "no server is usable".to_owned() } else { format!("tier {} in use", group.tier) };
    lines.line(title, &format!("{} ({}), {state}", group.name, group.policy));
    for server in &group.servers {
        let mut text = format!("tier {}  {}  ", server.tier, server.server);
        text += if server.judged { &server.state } else { "no verdict yet" };
        if let Some(rtt) = server.rtt {
            write!(text, ", {:.1} ms", 1000.0 * rtt).unwrap_or_default();
        }
        if server.drained {
            text += ", drained";
        }
        if server.loops {
            text += ", left out: it leads back here";
        }
        lines.line("", &text);
    }
}

fn guard(guard: &GuardStep) -> String {
    if guard.excepted {
        return "lets everything through: the name is in `except`".to_owned();
    }
    let mut rules = Vec::new();
    match guard.on_public.as_deref() {
        Some("log") => rules.push("counts addresses outside `private`"),
        Some("strip") => rules.push("leaves addresses outside `private` out"),
        Some(_) => rules.push("refuses answers with addresses outside `private`"),
        None => {}
    }
    if guard.rebind {
        rules.push("refuses private addresses");
    }
    let said = match (guard.verdict, &guard.address) {
        (Some(GuardWord::Pass), _) => "; this answer passes".to_owned(),
        (Some(GuardWord::Log), Some(address)) => format!("; lets {address} through"),
        (Some(GuardWord::Strip), Some(address)) => format!("; leaves {address} out"),
        (Some(GuardWord::Refuse), Some(address)) => format!("; refuses {address}"),
        _ => String::new(),
    };
    rules.join(", ") + &said
}
