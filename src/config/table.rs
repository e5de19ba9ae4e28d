//! The routing table as `tidegate check` prints it: which domain goes where, for which clients, over which servers.

use std::fmt::Write;

use super::{
    build::without_dot,
    file::Keyword,
    group::{GroupPlan, NetworkPath, ServerPlan},
    plan::{LocalZone, Plan, RulePlan, SpecialNames, WhenDown, ZoneData, ZoneEntry},
};
use crate::{plural::Plural, wire::Name};

/// An entry with more domains than this becomes one row.
const MANY: usize = 8;
const HEADINGS: [&str; 6] = ["ZONE", "CLIENTS", "RULE", "GOES TO", "SERVERS", "GUARD"];

impl Plan {
    /// The routing table, a row for each domain; presets are expanded, long lists of reverse zones are not.
    pub fn routing_table(&self) -> String {
        let mut rows: Vec<Row> = self.live.rules.iter().flat_map(|rule| self.rule_rows(rule)).collect();
        rows.extend(self.live.local.iter().map(local_row));
        rows.sort_by(|left, right| left.order.cmp(&right.order));
        let mut table = aligned(&rows);
        let rest = match self.live.special {
            SpecialNames::AnsweredHere => {
                "Special-use names that no row but \".\" covers are answered here (RFC 6761, 6303)."
            }
            SpecialNames::Forwarded => "Special-use names are names like others.",
        };
        let _ = writeln!(table, "\nThe longest zone decides, then the longest client network. {rest}");
        table
    }

    fn rule_rows(&self, rule: &RulePlan) -> Vec<Row> {
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
        let row = |zone: String, order| Row {
            order,
            cells: [zone, clients.clone(), rule.name.clone(), goes_to.clone(), servers(group), guard(rule)],
        };
        rule.written.iter().flat_map(zones).map(|(zone, order)| row(zone, order)).collect()
    }
}

/// Domains in canonical order, then entries that stand for many.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum RowOrder {
    Domain(Name),
    Many(String),
}

/// A row and its sort key.
struct Row {
    order: RowOrder,
    cells: [String; 6],
}

fn zones(entry: &ZoneEntry) -> Vec<(String, RowOrder)> {
    if entry.zones.len() > MANY {
        return vec![(format!("{} ({} zones)", entry.text, entry.zones.len()), RowOrder::Many(entry.text.clone()))];
    }
    entry.zones.iter().map(|zone| (without_dot(zone), RowOrder::Domain(zone.clone()))).collect()
}

fn local_row(local: &LocalZone) -> Row {
    let data = match &local.data {
        ZoneData::File(path) => path.display().to_string(),
        ZoneData::Records(records) => Plural(records.len(), "record").to_string(),
    };
    let cells = [without_dot(&local.zone), "all".into(), "-".into(), "answered here".into(), data, "-".into()];
    Row { order: RowOrder::Domain(local.zone.clone()), cells }
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

fn guard(rule: &RulePlan) -> String {
    let Some(guard) = &rule.guard else { return "-".to_owned() };
    let networks: Vec<String> = guard.networks.iter().map(ToString::to_string).collect();
    format!("{} outside {}", guard.on_public.word(), networks.join(", "))
}

fn aligned(rows: &[Row]) -> String {
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings = HEADINGS.map(str::to_owned);
    let mut text = String::new();
    for cells in std::iter::once(&headings).chain(rows.iter().map(|row| &row.cells)) {
        let line: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}
