//! The state of servers and groups in words: for the status document, the log and systemd.

use crate::{
    admin::status::{GroupStatus, ServerStatus},
    plural::Plural,
    upstream::{Group, HealthState, Server, health::ProbeError, names::NameList},
};

/// The number of usable servers in the group.
pub(super) fn usable(group: &Group) -> usize {
    group.servers().filter(|server| server.is_usable()).count()
}

/// A server's state, with the cause where it is not up.
pub(super) fn of_server(server: &Server) -> String {
    let state = match server.state() {
        HealthState::Up | HealthState::Suspect if server.has_no_path() => "this host cannot send to it".to_owned(),
        _ if !server.is_judged() => "no verdict yet".to_owned(),
        HealthState::Up => "up".to_owned(),
        HealthState::Suspect => format!("in doubt: {}", cause(server)),
        HealthState::Down => format!("down: {}", cause(server)),
    };
    if server.is_drained() { format!("drained ({state})") } else { state }
}

/// Why a server is not up, in the words of the log line about it.
fn cause(server: &Server) -> String {
    let reason = server.reason().or_else(|| server.last_probe_error().map(ProbeError::label));
    let reason = reason.unwrap_or("no answer to any query");
    match server.connect_error() {
        Some(error) => format!("{reason} ({error})"),
        None => reason.to_owned(),
    }
}

/// A name's state: its addresses, and why there are no newer ones where that is so.
pub(super) fn of_name(list: &NameList) -> String {
    let known = match list.addresses.len() {
        0 => "no address yet".to_owned(),
        count => Plural(count, "address").to_string(),
    };
    match (list.error, list.addresses.is_empty()) {
        (None, _) => known,
        (Some(error), true) => format!("{known}: {error}"),
        (Some(error), false) => format!("{known} that stay in use: {error}"),
    }
}

/// How many servers of a group are usable, and what is wrong with the others.
pub(super) fn of_group(group: &GroupStatus) -> String {
    let all = group.servers().count();
    let (drained, down) =
        (count(group, |server| server.drained), count(group, |server| !server.drained && is_down(server)));
    let cut_off = all.saturating_sub(group.usable + down + drained);
    let others: Vec<String> = [(down, "down"), (drained, "drained"), (cut_off, "out of reach from here")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let mut words = match (group.usable, all) {
        (_, 0) => return "it has no server".to_owned(),
        (0, _) => format!("no server is usable: {}", others.join(", ")),
        (1, 1) => "its server is usable".to_owned(),
        (usable, all) if usable == all => format!("all {all} servers are usable"),
        (usable, _) => format!("{usable} of {all} servers {} usable: {}", is_or_are(usable), others.join(", ")),
    };
    if group.tier > 0 {
        words += &format!("; tier {} is in use", group.tier);
    }
    words
}

pub(super) fn is_down(server: &ServerStatus) -> bool {
    server.state == HealthState::Down.label()
}

fn count(group: &GroupStatus, is: impl Fn(&ServerStatus) -> bool) -> usize {
    group.servers().filter(|server| is(server)).count()
}

const fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
