//! The busier of two servers misbehaves, in every way there is, to probes too.

use std::net::Ipv4Addr;

use crate::{
    Result, client,
    fault::Fault,
    figures::{quantile, share},
    server::{Kind, Running},
    upstream::{Nature, Upstream, addresses, busiest},
};

/// New names a second.
const RATE: u32 = 250;
/// Questions while both servers are well.
const BEFORE: usize = 250;
/// Questions while one is not.
const AFTER: usize = 500;

pub(crate) fn head(servers: &[Kind]) -> String {
    let names: Vec<&str> = servers.iter().map(|kind| kind.name()).collect();
    format!("| the busier of two servers: | {} |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 1))
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
    let nature = Nature { fault: Some(fault), ..Nature::default() };
    let mut upstreams = [Upstream::start_with_tcp(nature), Upstream::start_with_tcp(nature)];
    let Running { address, .. } = &kind.start(&[addresses(&upstreams)], "")?;
    let fates = client::ask(
        *address,
        BEFORE + AFTER,
        RATE,
        |n| format!("n{n}"),
        |n| {
            if n == BEFORE {
                busiest(&mut upstreams).into_iter().for_each(Upstream::misbehave);
            }
        },
    )?;
    let fates = &fates[BEFORE..];
    let is_right = |address: Ipv4Addr| address == nature.address;
    let wrong = fates.iter().filter(|fate| fate.address.is_some_and(|address| !is_right(address))).count();
    let note = if wrong == 0 { String::new() } else { format!(", {wrong} wrong") };
    let right = share(fates, |fate| fate.address.is_some_and(is_right));
    Ok(format!("{right} / {}{note}", quantile(fates, 0.99)))
}
