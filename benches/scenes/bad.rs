//! One of two servers misbehaves, in every way there is.

use std::{net::Ipv4Addr, sync::atomic::Ordering::Relaxed};

use crate::{
    Result, client,
    fault::Fault,
    figures::{quantile, share},
    server::{Kind, Running},
    upstream::{Nature, Upstream, addresses},
};

/// New names a second.
const RATE: u32 = 250;
/// Questions while both servers are well.
const BEFORE: usize = 250;
/// Questions while one is not.
const AFTER: usize = 500;

pub(crate) fn head(servers: &[Kind]) -> String {
    let names: Vec<&str> = servers.iter().map(|kind| kind.name()).collect();
    format!("| one of two servers: | {} |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 1))
}

/// A row for each fault, a column for each server.
pub(crate) fn rows(servers: &[Kind]) -> Result<Vec<String>> {
    let row = |fault: Fault| {
        let cells = servers.iter().map(|kind| cell(*kind, fault)).collect::<Result<Vec<_>>>()?;
        Ok(format!("| {} | {} |", fault.name(), cells.join(" | ")))
    };
    Fault::ALL.into_iter().map(row).collect()
}

fn cell(kind: Kind, fault: Fault) -> Result<String> {
    let sound = Nature::default();
    let upstreams =
        [Upstream::start_with_tcp(Nature { fault: Some(fault), ..sound })?, Upstream::start_with_tcp(sound)?];
    let Running { address, .. } = &kind.start(&[addresses(&upstreams)], "")?;
    let fates = client::ask(
        *address,
        BEFORE + AFTER,
        RATE,
        |n| format!("n{n}"),
        |n| upstreams[0].behaviour.is_bad.store(n >= BEFORE, Relaxed),
    )?;
    let fates = &fates[BEFORE..];
    let is_right = |address: Ipv4Addr| address == sound.address;
    let wrong = fates.iter().filter(|fate| fate.address.is_some_and(|address| !is_right(address))).count();
    let note = if wrong == 0 { String::new() } else { format!(", {wrong} wrong") };
    let right = share(fates, |fate| fate.address.is_some_and(is_right));
    Ok(format!("{right} / {}{note}", quantile(fates, 0.99)))
}
