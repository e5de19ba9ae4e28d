//! The routing table as `tidegate check` prints it: which domain goes where, for which clients, over which servers.

use std::fmt::Write;

use hashbrown::HashMap;

use super::{
    file::Keyword,
    group::{GroupPlan, NetworkPath, ServerPlan},
    plan::{LocalZone, Plan, RulePlan, RuleSettings, SpecialNames, WhenDown, ZoneData},
};
use crate::{plural::Plural, wire::Name};

/// An entry with more domains than this becomes one row.
const MANY: usize = 8;
const HEADINGS: [&str; 6] = ["ZONE", "CLIENTS", "RULE", "GOES TO", "SERVERS", "GUARD"];
/// The text is handed out in pieces of about this many octets.
const PIECE: usize = 32 << 10;

impl Plan {
    /// The routing table, a row for each domain; presets are expanded, long lists of reverse zones are not.
    pub fn routing_table(&self) -> String {
        let mut table = String::new();
        self.write_routing_table(|piece| table.push_str(piece));
        table
    }

    /// Writes the routing table piece by piece: there may be a hundred thousand rows.
    pub fn write_routing_table(&self, mut write: impl FnMut(&str)) {
        let rules = self.live.rules.iter().flat_map(rule_rows);
        let mut rows: Vec<Row<'_>> = rules.chain(self.live.local.iter().map(local_row)).collect();
        rows.sort_by(|left, right| left.zone.cmp(&right.zone));
        let mut shared: HashMap<*const RuleSettings, [String; 4]> = HashMap::new();
        for rule in &self.live.rules {
            shared.entry(&raw const *rule.settings).or_insert_with(|| self.cells(rule));
        }
        let mut zone = String::new();
        let mut widths = HEADINGS.map(|heading| heading.chars().count());
        for row in &rows {
            let mut number = 0..;
            row.visit(&shared, &mut zone, |cell| {
                let width = number.next().and_then(|number: usize| widths.get_mut(number));
                width.into_iter().for_each(|width| *width = (*width).max(cell.chars().count()));
            });
        }
        let mut piece = String::with_capacity(PIECE + 1024);
        let mut line = Line { widths, number: 0, blanks: 0 };
        HEADINGS.iter().for_each(|heading| line.add(heading, &mut piece));
        line.end(&mut piece);
        for row in &rows {
            row.visit(&shared, &mut zone, |cell| line.add(cell, &mut piece));
            line.end(&mut piece);
            if piece.len() >= PIECE {
                write(&piece);
                piece.clear();
            }
        }
        let rest = match self.live.special {
            SpecialNames::AnsweredHere => {
                "Special-use names that no row but \".\" covers are answered here (RFC 6761, 6303)."
            }
            SpecialNames::Forwarded => "Special-use names are names like others.",
        };
        let _ = writeln!(piece, "\nThe longest zone decides, then the longest client network. {rest}");
        write(&piece);
    }

    /// The cells that rules with the same settings have in common: clients, where it goes, servers, guard.
    fn cells(&self, rule: &RuleSettings) -> [String; 4] {
        let clients: Vec<String> = rule.clients.iter().map(ToString::to_string).collect();
        let clients = if clients.is_empty() { "all".to_owned() } else { clients.join(", ") };
        let group = self.live.group(rule.to);
        let mut goes_to = group.name.clone();
        match rule.when_down {
            WhenDown::Stale => {}
            WhenDown::Fail => goes_to.push_str(", else fail"),
            WhenDown::Upstream(other) => {
                let _ = write!(goes_to, ", else {}", self.live.group(other).name);
            }
        }
        [clients, goes_to, servers(group), guard(rule)]
    }
}

/// The first cell of a row, by which rows are sorted: domains in canonical order, then entries that stand for many.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Zone<'p> {
    Domain(&'p Name),
    Many(&'p str, usize),
}

/// What a row is about.
enum Subject<'p> {
    Rule(&'p RulePlan),
    Local(&'p LocalZone),
}

struct Row<'p> {
    zone: Zone<'p>,
    subject: Subject<'p>,
}

impl Row<'_> {
    /// Shows the six cells to `visit`.
    fn visit(
        &self,
        shared: &HashMap<*const RuleSettings, [String; 4]>,
        zone: &mut String,
        mut visit: impl FnMut(&str),
    ) {
        zone.clear();
        let _ = match self.zone {
            Zone::Domain(name) => write!(zone, "{name}"),
            Zone::Many(text, count) => write!(zone, "{text} ({count} zones)"),
        };
        // As people write it: without the final dot.
        let plain = matches!(self.zone, Zone::Domain(_)).then(|| zone.strip_suffix('.')).flatten();
        visit(plain.filter(|plain| !plain.is_empty()).unwrap_or(zone));
        match self.subject {
            Subject::Rule(rule) => {
                let cells = shared.get(&(&raw const *rule.settings)).map(|cells| cells.each_ref().map(String::as_str));
                let [clients, goes_to, servers, guard] = cells.unwrap_or_default();
                [clients, &rule.name, goes_to, servers, guard].into_iter().for_each(visit);
            }
            Subject::Local(local) => {
                let data = match &local.data {
                    ZoneData::File(path) => path.display().to_string(),
                    ZoneData::Records(records) => Plural(records.len(), "record").to_string(),
                };
                ["all", "-", "answered here", &data, "-"].into_iter().for_each(visit);
            }
        }
    }
}

fn rule_rows(rule: &RulePlan) -> impl Iterator<Item = Row<'_>> {
    rule.entries().flat_map(move |(text, zones)| {
        let (each, many) =
            if zones.len() > MANY { (&[][..], Some(Zone::Many(text, zones.len()))) } else { (zones, None) };
        let zones = many.into_iter().chain(each.iter().map(Zone::Domain));
        zones.map(move |zone| Row { zone, subject: Subject::Rule(rule) })
    })
}

fn local_row(local: &LocalZone) -> Row<'_> {
    Row { zone: Zone::Domain(&local.zone), subject: Subject::Local(local) }
}

/// A line of cells below each other, two blanks between them and none at the end.
struct Line {
    widths: [usize; 6],
    number: usize,
    blanks: usize,
}

impl Line {
    fn add(&mut self, cell: &str, text: &mut String) {
        if !cell.is_empty() {
            text.extend(std::iter::repeat_n(' ', self.blanks));
            self.blanks = 0;
        }
        text.push_str(cell);
        let width = self.widths.get(self.number).copied().unwrap_or_default();
        self.blanks += width.saturating_sub(cell.chars().count()) + 2;
        self.number += 1;
    }

    fn end(&mut self, text: &mut String) {
        (self.number, self.blanks) = (0, 0);
        text.push('\n');
    }
}

fn servers(group: &GroupPlan) -> String {
    let tiers = group.tiers.iter().map(|tier| {
        let servers: Vec<String> = tier.iter().map(server).collect();
        if servers.is_empty() { "(none left)".to_owned() } else { servers.join(", ") }
    });
    tiers.collect::<Vec<_>>().join("; then ")
}

fn server(server: &ServerPlan) -> String {
    let NetworkPath { source, device, mark } = &server.path;
    let mut text = server.address.to_string();
    if let Some(source) = source {
        let _ = write!(text, " from {source}");
    }
    if let Some(device) = device {
        let _ = write!(text, " by {device}");
    }
    if *mark > 0 {
        let _ = write!(text, " marked {mark}");
    }
    text
}

fn guard(rule: &RuleSettings) -> String {
    let Some(guard) = &rule.guard else { return "-".to_owned() };
    let networks: Vec<String> = guard.networks.iter().map(ToString::to_string).collect();
    format!("{} outside {}", guard.on_public.word(), networks.join(", "))
}
