//! The guard of a rule: `private`, `on_public`, `except`, and warnings if it guards less than was likely meant.
//!
//! No configuration turns the guard off unnoticed. A guard that guards nothing is refused; AWS names without a guard,
//! or a guard that lets public networks pass, are warned of.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        file::{ForwardSection, Located},
        group::{GroupPlan, ServerAddress, ServerPlan},
        plan::{GuardPlan, Live, Rebind, RulePlan, WhenDown},
        presets::{PUBLIC_ONLY, is_aws_name},
    },
    Builder,
    forward::WrittenRule,
    values::without_dot,
};
use crate::{networks, plural::listed, wire::Name};

const ON_PUBLIC_HELP: &str = "add on_public = \"refuse\" (SERVFAIL), \"strip\" (NODATA where nothing is left) or \
                              \"log\" (answers pass)";
const PRIVATE_HELP: &str = "add private = [\"10.20.0.0/16\"], the networks that clients reach over the private link";
/// The shortest prefix that AWS gives a VPC for IPv6; such addresses are public by nature.
const VPC_V6: u8 = 44;
/// Global unicast addresses (RFC 4291 2.4), and those in them that stand for IPv4 addresses (6to4, RFC 3056 2).
const GLOBAL_UNICAST: &str = "2000::/3";
const SIX_TO_FOUR: &str = "2002::/16";

impl Builder<'_> {
    pub(super) fn guard(&mut self, forward: &Located<ForwardSection>, name: &str) -> Option<GuardPlan> {
        let table = &forward.value;
        let on_public = table.on_public();
        let Some(private) = table.private.as_ref().filter(|private| !private.value.is_empty()) else {
            if let Some(text) = &table.on_public {
                let place = table.private.as_ref().map_or(&text.place, |private| &private.place);
                let message =
                    format!("rule \"{name}\" has `on_public` and no networks in `private`: it guards nothing");
                self.problem_with_help(place, message, format!("{PRIVATE_HELP}, or take `on_public` out"));
            }
            return None;
        };
        if table.on_public.is_none() {
            let message = format!("rule \"{name}\" has `private`, and does not say what happens to public addresses");
            self.problem_with_help(&private.place, message, ON_PUBLIC_HELP);
        }
        let networks = self.networks(Some(private));
        (!networks.is_empty()).then_some(GuardPlan { networks, on_public })
    }

    /// The names that the guard does not check; an error if they cover the whole rule.
    pub(super) fn except(
        &mut self,
        forward: &Located<ForwardSection>,
        rule: &str,
        zones: &[Name],
        has_guard: bool,
    ) -> Vec<Name> {
        let Some(texts) = &forward.value.except else { return Vec::new() };
        let except: Vec<Name> = texts.value.iter().filter_map(|text| self.domain(text)).collect();
        if has_guard && !zones.is_empty() && zones.iter().all(|zone| is_excepted(zone, &except)) {
            let message = format!("rule \"{rule}\" excepts all of its zones: it guards nothing");
            let help = format!("name in `except` only what lies below its zones, such as {}", below(&zones[0]));
            self.problem_with_help(&texts.place, message, help);
        }
        except
    }

    pub(super) fn warn_of_guard(&mut self, rule: &RulePlan, written: &WrittenRule, live: &Live) {
        self.warn_of_except(rule, written);
        let Some(private) = written.private().filter(|_| rule.guard.is_some()) else {
            self.warn_of_no_guard(rule, written);
            return;
        };
        self.warn_of_public_networks(rule, written);
        for zone in rule.zones.iter() {
            // A longer zone in any rule takes over the names below it.
            let reaches = |domain: &Name| {
                let mut zones = live.rules.iter().flat_map(|rule| &*rule.zones);
                domain.is_within(zone)
                    && !zones.any(|other| domain.is_within(other) && other != zone && other.is_within(zone))
            };
            let public = PUBLIC_ONLY.iter().find(|family| {
                family.domain.parse().is_ok_and(|domain: Name| {
                    zone.is_within(&domain) && !is_excepted(zone, &rule.except)
                        || reaches(&domain) && !is_excepted(&domain, &rule.except)
                })
            });
            if let Some(family) = public {
                let message = format!(
                    "rule \"{}\" guards \"{}\", and names there exist in public only ({}: {})",
                    rule.name,
                    without_dot(zone),
                    family.domain,
                    family.about
                );
                self.warning(&private.place, message, "the guard will treat every answer for them as a violation");
            }
        }
    }

    fn warn_of_except(&mut self, rule: &RulePlan, written: &WrittenRule) {
        for text in written.except().into_iter().flat_map(|except| &except.value) {
            let Ok(name) = text.value.parse::<Name>() else { continue };
            let spared: Vec<String> = rule.zones.iter().filter(|zone| zone.is_within(&name)).map(without_dot).collect();
            let is_ours = rule.zones.iter().any(|zone| name.is_within(zone));
            if is_ours && rule.guard.is_none() && rule.rebind != Rebind::Refuse {
                let message = format!(
                    "rule \"{}\" excepts \"{}\", and guards nothing that could be spared",
                    rule.name, text.value
                );
                self.warning(&text.place, message, PRIVATE_HELP);
            } else if is_ours && !spared.is_empty() {
                let message = format!(
                    "rule \"{}\" excepts \"{}\", which is all of its zone {}: nothing there is guarded",
                    rule.name,
                    text.value,
                    listed(&spared)
                );
                let help = format!("name only what needs it there, such as {}", below(&name));
                self.warning(&text.place, message, &help);
            } else if !is_ours {
                let where_it_is = match spared.is_empty() {
                    true => "which is below none of its zones".to_owned(),
                    false => format!("which is above its zone {} and spares nothing", listed(&spared)),
                };
                let message = format!("rule \"{}\" excepts \"{}\", {where_it_is}", rule.name, text.value);
                self.warning(&text.place, message, "it has no effect there");
            }
        }
    }

    fn warn_of_no_guard(&mut self, rule: &RulePlan, written: &WrittenRule) {
        let Some(zone) = rule.zones.iter().find(|zone| is_aws_name(zone)) else { return };
        let place = written.private().map_or(written.place, |private| private.place);
        let message = format!(
            "rule \"{}\" sends AWS names (\"{}\") and has no `private`: an answer with a public address passes, and \
             traffic to it leaves the private link",
            rule.name,
            without_dot(zone)
        );
        let help = format!("{PRIVATE_HELP}, and on_public = \"refuse\"; on_public = \"log\" only counts and reports");
        self.warning(&place, message, &help);
    }

    fn warn_of_public_networks(&mut self, rule: &RulePlan, written: &WrittenRule) {
        for text in written.private().into_iter().flat_map(|private| &private.value) {
            let Ok(network) = networks::parse(&text.value) else { continue };
            if networks::holds_public(network) && !may_be_vpc(network) {
                let message = format!(
                    "rule \"{}\" takes {network} for private, and it holds public addresses: the guard lets them pass",
                    rule.name
                );
                let help = "name only networks that clients reach over the private link; a public one that is yours is \
                            right here";
                self.warning(&text.place, message, help);
            }
        }
    }

    /// Warns if a later tier may answer for another Region. An endpoint's own addresses lie in its VPC, and so do the
    /// addresses it returns for service names. If the first tier is within the guard's networks and a later one is not,
    /// the later one answers with other addresses. Without a guard, nothing shows which Region an address belongs to.
    pub(super) fn warn_of_other_region(&mut self, rule: &RulePlan, written: &WrittenRule, live: &Live) {
        let (Some(guard), Some(private)) = (&rule.guard, written.private()) else { return };
        if !rule.zones.iter().any(is_aws_name) {
            return;
        }
        let group = live.group(rule.to);
        let (first, mut later) = addresses(group);
        if let WhenDown::Upstream(index) = rule.when_down {
            let (fallback, more) = addresses(live.group(index));
            later.extend(fallback.into_iter().chain(more));
        }
        let is_inside = |address: &IpAddr| guard.networks.iter().any(|network| network.contains(address));
        let stranger = later.iter().find(|address| !is_inside(address));
        if let Some(address) = stranger.filter(|_| first.iter().any(is_inside)) {
            let message = format!(
                "rule \"{}\" falls back from upstream \"{}\" to {address}, which is outside `private`: an endpoint of \
                 another VPC or Region answers service names with its own addresses, and they are violations here",
                rule.name, group.name
            );
            self.warning(&private.place, message, "add that VPC's network to `private`, if clients can reach it");
        }
    }
}

/// Whether a network of public addresses may be a VPC's own. NAT64's prefix, for one, holds all of IPv4.
fn may_be_vpc(network: IpNet) -> bool {
    let is_within = |wide: &str| networks::parse(wide).is_ok_and(|wide| wide.contains(&network));
    is_within(GLOBAL_UNICAST) && !is_within(SIX_TO_FOUR) && network.prefix_len() >= VPC_V6
}

/// Whether `except` covers a name and everything below it.
fn is_excepted(name: &Name, except: &[Name]) -> bool {
    except.iter().any(|except| name.is_within(except))
}

/// An example of a name below a domain, in quotes.
fn below(domain: &Name) -> String {
    let below = domain.child(b"public-only").unwrap_or_else(|_| domain.clone());
    format!("\"{}\"", without_dot(&below))
}

/// The addresses of a group's servers: those of the first tier, and those of the later ones.
fn addresses(group: &GroupPlan) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let fixed = |server: &ServerPlan| match &server.address {
        ServerAddress::Fixed(fixed) => Some(fixed.endpoint.address.ip),
        ServerAddress::Named(_) | ServerAddress::System { .. } => None,
    };
    let (first, later) = group.tiers.split_at(group.tiers.len().min(1));
    (first.iter().flatten().filter_map(fixed).collect(), later.iter().flatten().filter_map(fixed).collect())
}
