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

/// Asks for a name through the rule that covers it.
pub(super) async fn check(site: &Site<'_>, name: &Name) -> Option<DoctorFinding> {
    let rule = site.rule_for(name)?;
    let (server, style) = site.healthy_server(rule.to)?;
    let Sight::Public(address) = look(rule, name, server, style).await? else { return None };
    let finding = judge(name, address);
    Some(finding.of_server(&server.to_string()).of_group(&site.plan.live.group(rule.to).name))
}

/// How another name server answers a guarded name differently from this tidegate, in words. Where no upstream can say
/// what this tidegate would answer, only silence and a public address count.
pub(super) async fn difference(site: &Site<'_>, name: &Name, other: &ServerSpec) -> Option<String> {
    let rule = site.rule_for(name)?;
    let ours = async {
        let (server, style) = site.healthy_server(rule.to)?;
        Some(guarded(rule, look(rule, name, server, style).await?))
    };
    let (ours, theirs) = tokio::join!(ours, look(rule, name, other, STUB));
    let text = name.to_string();
    let text = text.trim_end_matches('.');
    let Some(theirs) = theirs else { return Some("does not answer".to_owned()) };
    match (theirs, ours) {
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

/// Asks a server for a name; none if it gives no response.
async fn look(rule: &RulePlan, name: &Name, server: &ServerSpec, style: Style) -> Option<Sight> {
    let query = answers::query(name.clone(), RecordType::A, false);
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

fn judge(name: &Name, address: IpAddr) -> DoctorFinding {
    let text = name.to_string();
    let text = text.trim_end_matches('.');
    let (kind, more) = match config::remedy(name) {
        Remedy::Endpoint(service) => (Kind::PrivateDnsOff, format!("; the interface endpoint is {service}")),
        Remedy::RegionalName(service) => (Kind::LegacyName, format!("; it belongs to {service}")),
        Remedy::PublicOnly | Remedy::Unknown => (Kind::PublicAnswer, String::new()),
    };
    DoctorFinding {
        name: Some(text.to_owned()),
        ..DoctorFinding::new(kind, format!("{text} has the address {address}{more}"))
    }
}
