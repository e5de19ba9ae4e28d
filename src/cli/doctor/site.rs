//! A configuration's groups with their servers, and the result of asking each.

use super::{
    answers,
    document::DoctorFinding,
    exchange::Style,
    kind::Kind,
    loops::LoopCandidate,
    server::{self, Reach},
};
use crate::{
    clock::Moment,
    config::{GroupIndex, Plan, Recursion, RulePlan},
    daemon,
    upstream::{GroupSpec, OwnAddresses, ProbeOrigin, ServerSpec, TierMember, names::WatchedName, resolution, system},
    wire::{Name, RecordType},
};

/// A site under examination.
pub(super) struct Site<'p> {
    pub(super) plan: &'p Plan,
    groups: Vec<ExaminedGroup>,
}

struct ExaminedGroup {
    spec: GroupSpec,
    style: Style,
    servers: Vec<ExaminedServer>,
}

struct ExaminedServer {
    tier: usize,
    spec: ServerSpec,
    reach: Reach,
    /// Whether it answers as it should.
    is_healthy: bool,
}

impl<'p> Site<'p> {
    /// Asks every server its group's probe, all at once; returns the findings.
    pub(super) async fn examine(plan: &'p Plan, ours: &OwnAddresses) -> (Self, Vec<DoctorFinding>) {
        let watched = daemon::watched_names(&plan.live);
        ours.names().keep(&watched, Moment::now());
        // All at once: each may take seconds where its servers are silent.
        super::all(watched.iter().map(|name| resolution::resolve_once(name, ours))).await;
        let mut findings = unresolved(&watched, ours);
        let specs = daemon::group_specs(&plan.live);
        let asking = specs.into_iter().map(|spec| examine_group(spec, ours));
        let (groups, of_groups): (Vec<_>, Vec<_>) = super::all(asking).await.into_iter().unzip();
        findings.extend(of_groups.concat());
        (Self { plan, groups }, findings)
    }

    /// How many servers were asked.
    pub(super) fn servers(&self) -> usize {
        self.groups.iter().map(|group| group.servers.len()).sum()
    }

    /// The names whose addresses configured probes ask for. The default probe asks for a zone's SOA: the apex of an AWS
    /// zone need not be private.
    pub(super) fn probe_names(&self) -> impl Iterator<Item = &Name> {
        let probes = self.groups.iter().map(|group| &group.spec.health);
        let configured = probes.filter(|health| health.origin == ProbeOrigin::Configured);
        let of_addresses = configured.filter(|health| matches!(health.probe.qtype, RecordType::A | RecordType::AAAA));
        of_addresses.map(|health| &health.probe.name)
    }

    /// The rule that decides about a name, for clients of no view.
    pub(super) fn rule_for(&self, name: &Name) -> Option<&'p RulePlan> {
        let depth = |rule: &RulePlan| {
            let zones = rule.zones.iter().filter(|zone| name.is_within(zone));
            zones.map(|zone| zone.as_wire().len()).max()
        };
        let rules = self.plan.live.rules.iter().filter(|rule| rule.clients.is_empty());
        let rule = rules.filter_map(|rule| Some((depth(rule)?, rule))).max_by_key(|(depth, _)| *depth)?.1;
        (!rule.except.iter().any(|except| name.is_within(except))).then_some(rule)
    }

    /// The servers of a group that answer as they should, tier by tier, and how they are asked.
    pub(super) fn healthy_tiers(&self, group: GroupIndex) -> Vec<(Vec<&ServerSpec>, Style)> {
        let Some(group) = self.groups.get(group.0) else { return Vec::new() };
        let healthy = |tier| {
            let servers = group.servers.iter().filter(move |server| server.is_healthy && server.tier == tier);
            servers.map(|server| &server.spec).collect()
        };
        (0..group.spec.tiers.len()).map(|tier| (healthy(tier), group.style)).collect()
    }

    /// The first server of a group that answers as it should, and how it is asked.
    pub(super) fn healthy_server(&self, group: GroupIndex) -> Option<(&ServerSpec, Style)> {
        let group = self.groups.get(group.0)?;
        let server = group.servers.iter().find(|server| server.is_healthy)?;
        Some((&server.spec, group.style))
    }

    /// Every server with a zone of a rule that sends to it.
    pub(super) fn candidates(&self) -> impl Iterator<Item = LoopCandidate<'_>> {
        self.groups.iter().enumerate().flat_map(|(index, group)| {
            let zone = self.zones(GroupIndex(index)).next();
            let candidate = |server, zone| LoopCandidate { server, group: &group.spec.name, zone, style: group.style };
            group.servers.iter().filter_map(move |server| Some(candidate(&server.spec, zone?)))
        })
    }

    /// Looks closer at the servers that answer: sizes, negative answers, signatures.
    pub(super) async fn look_closer(&self) -> Vec<DoctorFinding> {
        let looks = self.groups.iter().enumerate().flat_map(|(index, group)| {
            let zones: Vec<&Name> = self.zones(GroupIndex(index)).collect();
            let is_for_all = zones.iter().any(|zone| zone.is_root());
            let healthy = group.servers.iter().filter(|server| server.is_healthy);
            let zone = zones.first().copied();
            healthy.map(move |server| async move {
                let negative = async {
                    match zone {
                        Some(zone) => answers::negative(&server.spec, zone, group.style).await,
                        None => None,
                    }
                };
                let sizes = answers::sizes(&server.spec, &group.spec, group.style, is_for_all);
                let (mut findings, negative) = tokio::join!(sizes, negative);
                findings.extend(negative);
                findings.into_iter().map(|finding| finding.of_group(&group.spec.name)).collect::<Vec<_>>()
            })
        });
        super::all(looks).await.concat()
    }

    fn zones(&self, group: GroupIndex) -> impl Iterator<Item = &'p Name> {
        self.plan.live.rules.iter().filter(move |rule| rule.to == group).flat_map(|rule| &*rule.zones)
    }
}

/// Names of servers that no address could be learned for.
fn unresolved(watched: &[WatchedName], ours: &OwnAddresses) -> Vec<DoctorFinding> {
    let lists = ours.names().all();
    let error = |name: &WatchedName| {
        let (_, list) = lists.iter().find(|((group, of), _)| (group, of) == (&name.group, &name.name))?;
        list.error.filter(|_| list.addresses.is_empty())
    };
    let finding = |name: &WatchedName| {
        let asked: Vec<String> = name.bootstrap.iter().map(ToString::to_string).collect();
        let what = format!("{} cannot be resolved by {}: {}", name.name, asked.join(", "), error(name)?);
        Some(DoctorFinding::new(Kind::ServerName, what).of_group(&name.group).of_server(&name.name))
    };
    watched.iter().filter_map(finding).collect()
}

async fn examine_group(spec: GroupSpec, ours: &OwnAddresses) -> (ExaminedGroup, Vec<DoctorFinding>) {
    let recursion = spec.limits.recursion == Recursion::Desired;
    let style = Style { payload: Some(spec.limits.udp_payload), recursion };
    let probe = &spec.health.probe;
    let asking = servers(&spec, ours).map(|(tier, server)| async move {
        let reach = server::reach(&server, probe, style).await;
        ExaminedServer { tier, spec: server, reach, is_healthy: false }
    });
    let mut servers = super::all(asking).await;
    let mut findings = Vec::new();
    for server in &mut servers {
        let mut finding = server::judge(&server.spec, &server.reach);
        let replied = server.reach.main.reply();
        if let Some(reply) = replied {
            finding = finding.or_else(|| answers::judge(&server.spec, probe, reply, style));
        }
        let is_certificate = finding.as_ref().is_none_or(|finding| finding.kind == Kind::CertificateExpires);
        server.is_healthy = replied.is_some() && is_certificate;
        findings.extend(finding.map(|finding| finding.of_group(&spec.name)));
    }
    if findings.len() > 1 && findings.len() == servers.len() {
        let is_silence = |finding: &DoctorFinding| finding.kind == Kind::ServerSilent;
        if findings.iter().all(is_silence) {
            let what = format!("none of the {} servers of {} answers", servers.len(), spec.name);
            findings = vec![DoctorFinding::new(Kind::LinkDown, what).of_group(&spec.name)];
        }
    }
    findings.extend(disagreements(&spec, &servers));
    (ExaminedGroup { spec, style, servers }, findings)
}

/// Every server of a group with its tier; of `system` those that resolv.conf lists now.
fn servers(spec: &GroupSpec, ours: &OwnAddresses) -> impl Iterator<Item = (usize, ServerSpec)> {
    let members = spec.tiers.iter().enumerate().flat_map(|(tier, members)| members.iter().map(move |m| (tier, m)));
    members.flat_map(|(tier, member)| {
        let servers: Vec<ServerSpec> = match member {
            TierMember::Server(server) => vec![server.clone()],
            TierMember::Named { name, server } => {
                let at = |ip| ServerSpec { address: (ip, server.address.port()).into(), ..server.clone() };
                ours.names().addresses(&spec.name, name).into_iter().map(at).collect()
            }
            TierMember::System { path, via, path_label } => {
                let listed = system::read(path.as_deref(), ours).into_iter();
                listed.map(|address| system::spec_of(address, via, path_label)).collect()
            }
        };
        servers.into_iter().map(move |server| (tier, server))
    })
}

fn disagreements(spec: &GroupSpec, servers: &[ExaminedServer]) -> Vec<DoctorFinding> {
    let of_tier = |tier: usize| {
        let members = servers.iter().filter(move |server| server.tier == tier && server.is_healthy);
        let said =
            members.filter_map(|server| Some((server.spec.to_string(), answers::word(server.reach.main.reply()?)?)));
        answers::compare(&spec.name, tier, &spec.health.probe, &said.collect::<Vec<_>>())
    };
    (0..spec.tiers.len()).filter_map(of_tier).collect()
}
