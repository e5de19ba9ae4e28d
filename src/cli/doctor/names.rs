//! Checks that each AWS name that a rule wants private has a private address, as with an interface endpoint and private
//! DNS.

use std::net::IpAddr;

use super::{answers, document::DoctorFinding, exchange, kind::Kind, site::Site};
use crate::{
    config::{self, Remedy, RulePlan},
    networks::{Networks, holds_public},
    wire::{Name, RecordType, addresses::find_address},
};

/// Asks for a name through the rule that covers it.
pub(super) async fn check(site: &Site<'_>, name: &Name) -> Option<DoctorFinding> {
    let rule = site.rule_for(name)?;
    let (server, style) = site.healthy_server(rule.to)?;
    let query = answers::query(name.clone(), RecordType::A, false);
    let outcome = exchange::ask(server, server.transport, &query, style).await;
    let reply = outcome.reply()?;
    let address = find_address(reply.response.message(), |address| is_outside(rule, address).then_some(address));
    let finding = judge(name, address.ok()??);
    Some(finding.of_server(&server.to_string()).of_group(&site.plan.live.group(rule.to).name))
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
