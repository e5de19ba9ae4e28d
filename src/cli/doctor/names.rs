//! Checks that each AWS name that a rule wants private has a private address, as with an interface endpoint and private
//! DNS, and whether another name server answers such a name as this tidegate does.

use std::net::IpAddr;

use super::{
    answers,
    document::DoctorFinding,
    exchange::{self, Style},
    kind::Kind,
    site::Site,
};
use crate::{
    config::{self, OnPublic, Remedy, RulePlan},
    networks::{Networks, holds_public},
    upstream::ServerSpec,
    wire::{Name, RecordType, addresses::find_address},
};

/// How a stub resolver asks.
const STUB: Style = Style { payload: None, recursion: true };

/// The addresses in a response, as far as they matter to a rule's guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// There are none.
    Nothing,
    /// All are where the rule wants them; the first one.
    Private(IpAddr),
    /// This one is elsewhere.
    Public(IpAddr),
}

/// The addresses of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sights {
    v4: Sight,
    v6: Sight,
}

impl Sights {
    /// What the guard would act on: one public address is enough.
    fn together(self) -> Sight {
        match (self.v4, self.v6) {
            (public @ Sight::Public(_), _) | (_, public @ Sight::Public(_)) => public,
            (private @ Sight::Private(_), _) | (_, private @ Sight::Private(_)) => private,
            (Sight::Nothing, Sight::Nothing) => Sight::Nothing,
        }
    }
}

/// Which servers of a group are asked for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breadth {
    /// All that answer.
    EveryServer,
    /// The first one that answers.
    OneServer,
}

/// Asks for a name through the rule that covers it: do the servers agree, and is it private?
pub(super) async fn check(site: &Site<'_>, name: &Name, breadth: Breadth) -> Vec<DoctorFinding> {
    let Some(rule) = site.rule_for(name) else { return Vec::new() };
    let tiers = match breadth {
        Breadth::EveryServer => site.healthy_tiers(rule.to),
        Breadth::OneServer => {
            site.healthy_server(rule.to).map(|(server, style)| (vec![server], style)).into_iter().collect()
        }
    };
    let group = &site.plan.live.group(rule.to).name;
    let checked = tiers.iter().enumerate().map(|(tier, (servers, style))| async move {
        let looks =
            servers.iter().map(|server| async move { Some((*server, look(rule, name, server, *style).await?)) });
        let seen: Vec<(&ServerSpec, Sights)> = super::all(looks).await.into_iter().flatten().collect();
        check_tier(group, tier, name, &seen)
    });
    // What a second tier does as the first one is the same finding.
    let mut findings: Vec<DoctorFinding> = Vec::new();
    for finding in super::all(checked).await.into_iter().flatten() {
        if finding.kind == Kind::ServersDiffer || findings.iter().all(|told| told.kind != finding.kind) {
            findings.push(finding.of_group(group));
        }
    }
    findings
}

/// The finding about one tier's servers, given what each has for the name.
fn check_tier(group: &str, tier: usize, name: &Name, seen: &[(&ServerSpec, Sights)]) -> Option<DoctorFinding> {
    let (first, sights) = seen.first()?;
    let is_like = |other: &Sights| word(other.v4) == word(sights.v4) && word(other.v6) == word(sights.v6);
    let text = plain(name);
    if let Some((other, others)) = seen.iter().find(|(_, other)| !is_like(other)) {
        let (family, ours, theirs) = match word(others.v4) == word(sights.v4) {
            true => ("IPv6", sights.v6, others.v6),
            false => ("IPv4", sights.v4, others.v4),
        };
        let what = format!(
            "in tier {tier} of {group}, {first} gives {text} {}, and {other} gives {} ({family})",
            word(ours),
            word(theirs)
        );
        return Some(DoctorFinding {
            name: Some(text),
            ..DoctorFinding::new(Kind::ServersDiffer, what).of_server(&other.to_string())
        });
    }
    let Sight::Public(address) = sights.together() else { return None };
    Some(judge(name, address, *sights).of_server(&first.to_string()))
}

fn word(sight: Sight) -> &'static str {
    match sight {
        Sight::Nothing => "no address",
        Sight::Private(_) => "a private address",
        Sight::Public(_) => "a public address",
    }
}

/// A name without its last dot.
fn plain(name: &Name) -> String {
    let text = name.to_string();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// How another name server answers a guarded name differently from this tidegate, in words. Where no upstream can say
/// what this tidegate would answer, only silence and a public address count.
pub(super) async fn difference(site: &Site<'_>, name: &Name, other: &ServerSpec) -> Option<String> {
    let rule = site.rule_for(name)?;
    let ours = async {
        let (server, style) = site.healthy_server(rule.to)?;
        Some(guarded(rule, look(rule, name, server, style).await?.together()))
    };
    let (ours, theirs) = tokio::join!(ours, look(rule, name, other, STUB));
    let text = plain(name);
    let Some(theirs) = theirs else { return Some("does not answer".to_owned()) };
    match (theirs.together(), ours) {
        (Sight::Public(_), Some(Sight::Public(_))) => None,
        (Sight::Public(address), _) => Some(format!("gives {text} the public address {address}")),
        (Sight::Nothing, Some(Sight::Private(address) | Sight::Public(address))) => {
            Some(format!("gives {text} no address, and this tidegate gives {address}"))
        }
        (Sight::Private(address), Some(Sight::Nothing | Sight::Public(_))) => {
            Some(format!("gives {text} the address {address}, and this tidegate does not"))
        }
        (Sight::Private(_), Some(Sight::Private(_)) | None) | (Sight::Nothing, Some(Sight::Nothing) | None) => None,
    }
}

/// What clients get to see of a response after the guard.
fn guarded(rule: &RulePlan, sight: Sight) -> Sight {
    let lets_pass = rule.guard.as_ref().is_none_or(|guard| guard.on_public == OnPublic::Log);
    match sight {
        Sight::Public(_) if !lets_pass => Sight::Nothing,
        other => other,
    }
}

/// Asks a server for the addresses of a name; none if it gives no response to the query for A. One that leaves out AAAA
/// has no IPv6 addresses to give.
async fn look(rule: &RulePlan, name: &Name, server: &ServerSpec, style: Style) -> Option<Sights> {
    let (v4, v6) = tokio::join!(
        look_for(rule, name, RecordType::A, server, style),
        look_for(rule, name, RecordType::AAAA, server, style)
    );
    Some(Sights { v4: v4?, v6: v6.unwrap_or(Sight::Nothing) })
}

async fn look_for(rule: &RulePlan, name: &Name, qtype: RecordType, server: &ServerSpec, style: Style) -> Option<Sight> {
    let query = answers::query(name.clone(), qtype, false);
    let outcome = exchange::ask(server, server.transport, &query, style).await;
    let message = outcome.reply()?.response.message();
    let public = find_address(message, |address| is_outside(rule, address).then_some(Sight::Public(address)));
    let any = find_address(message, |address| Some(Sight::Private(address)));
    Some(public.ok()?.or(any.ok()?).unwrap_or(Sight::Nothing))
}

/// Whether an address is not one that the rule's clients can reach by a private path.
fn is_outside(rule: &RulePlan, address: IpAddr) -> bool {
    match &rule.guard {
        Some(guard) => !Networks::new(guard.networks.iter().map(|network| (*network, ()))).contains(address),
        None => holds_public(address.into()),
    }
}

fn judge(name: &Name, address: IpAddr, sights: Sights) -> DoctorFinding {
    let text = plain(name);
    if let (Sight::Private(v4), Sight::Public(v6)) = (sights.v4, sights.v6) {
        let what = format!("{text} has the private address {v4}, and also {v6}");
        return DoctorFinding { name: Some(text), ..DoctorFinding::new(Kind::Ipv6NotPrivate, what) };
    }
    let (kind, more) = match config::remedy(name) {
        Remedy::Endpoint(service) => (Kind::PrivateDnsOff, format!("; the interface endpoint is {service}")),
        Remedy::RegionalName(service) => (Kind::LegacyName, format!("; it belongs to {service}")),
        Remedy::PublicOnly | Remedy::Unknown => (Kind::PublicAnswer, String::new()),
    };
    let what = format!("{text} has the address {address}{more}");
    DoctorFinding { name: Some(text), ..DoctorFinding::new(kind, what) }
}
