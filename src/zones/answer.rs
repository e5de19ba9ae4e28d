//! How a zone answers (RFC 1034 4.3.2, RFC 2308, RFC 4592, RFC 6672).
//!
//! - AA says whether the first name of the answer is ours: it is clear in a plain referral and set in all else.
//! - A positive answer has no authority section: no client needs it. A referral has the NS of the cut; a negative one
//!   has the SOA, its TTL the lesser of the SOA's own and MINIMUM (RFC 2308 3).
//! - A CNAME or DNAME is followed inside the zone, unless the type is one that stands beside a CNAME (RFC 4034 2.5).
//!   Where it leaves, [`LocalOutcome::Leaves`] names the target and the message holds the chain so far. The RCODE is
//!   that of the last name (RFC 6604 2.1).
//! - DS at a cut is the parent's and answered here (RFC 4035 3.1.4.1). Zones are served unsigned, so DO changes
//!   nothing.
//! - ANY is given all that the name owns, as far as a message holds it (RFC 8482 4.1), without additional records. Any
//!   other answer that is larger than a message, behind a chain, is SERVFAIL.
//! - Additional: the addresses in this zone of what NS, MX, SRV, KX, AFSDB, RT, SVCB and HTTPS point to; in a referral
//!   those below the cut too (glue).

use std::net::IpAddr;

use super::{
    Delegation, LocalAnswer, LocalOutcome, LocalQuery,
    message::Draft,
    rdata,
    zone::{Found, Node, RrSet, Zone},
};
use crate::wire::{Flags, Name, Rcode, RecordType, name, record::Section};

/// The most aliases followed for one query; `engine` has the same limit for the whole chain.
pub const MAX_ALIASES: u8 = 64;

/// The answer of one zone to a query for a name at or below its apex. `stays` tells whether this zone answers for a
/// target inside it: a rule, zone or host below may cover the target instead.
pub(super) fn answer(zone: &Zone, question: &LocalQuery<'_>, stays: &dyn Fn(&Name) -> bool) -> LocalAnswer {
    let mut walk = Walk { zone, question, draft: Draft::new(question), qname: question.name.clone(), aliases: 0 };
    loop {
        match walk.step(stays) {
            Step::Again => {}
            Step::End(rcode, outcome) => return walk.finish(rcode, outcome),
        }
    }
}

/// NXDOMAIN with the zone's SOA.
pub(super) fn absent(zone: &Zone, question: &LocalQuery<'_>) -> LocalAnswer {
    let mut walk = Walk { zone, question, draft: Draft::new(question), qname: question.name.clone(), aliases: 0 };
    walk.draft.flag(Flags::AA);
    let _ = walk.negative(Rcode::NXDOMAIN);
    walk.finish(Rcode::NXDOMAIN, LocalOutcome::Done)
}

/// SERVFAIL, because the file of `zone` cannot be used.
pub(super) fn broken(question: &LocalQuery<'_>, zone: &Name) -> LocalAnswer {
    let (rcode, outcome) = (Rcode::SERVFAIL, LocalOutcome::Broken { zone: zone.clone() });
    LocalAnswer { message: Draft::new(question).finish(rcode), rcode, outcome, aliases: 0 }
}

/// The servers of the zone cut at `cut`, and their addresses as far as the zone has them, glue included.
pub(super) fn delegation(zone: &Zone, cut: Name) -> Option<Delegation> {
    let targets = zone.node(cut.as_wire())?.set(RecordType::NS)?;
    let names: Vec<Name> = targets.rdata().filter_map(|target| Name::from_wire(target).ok()).collect();
    let mut servers = Vec::new();
    let is_ours = |name: &&Name| name.is_within(zone.apex());
    for node in names.iter().filter(is_ours).filter_map(|name| addresses(zone, name.as_wire(), Glue::Given)) {
        let of = |rtype| node.set(rtype).into_iter().flat_map(|set| set.rdata());
        let v4 = of(RecordType::A).filter_map(|rdata| rdata.first_chunk::<4>()).map(|octets| IpAddr::from(*octets));
        let v6 = of(RecordType::AAAA).filter_map(|rdata| rdata.first_chunk::<16>()).map(|octets| IpAddr::from(*octets));
        servers.extend(v4.chain(v6));
    }
    Some(Delegation { zone: zone.apex().clone(), cut, names, servers })
}

/// The node with the addresses of `target`, a wire name in lower case within the zone.
fn addresses<'z>(zone: &'z Zone, target: &[u8], glue: Glue) -> Option<Node<'z>> {
    match zone.find(target) {
        Found::Exact(node) | Found::Wildcard(node) => Some(node),
        Found::Cut { .. } if glue == Glue::Given => zone.node(target),
        Found::Cut { .. } | Found::Redirected { .. } | Found::Nothing => None,
    }
}

/// Types that may stand beside a CNAME, and are asked for where it stands (RFC 4034 2.5, 4; RFC 2181 10.1).
const fn is_beside_cname(qtype: RecordType) -> bool {
    use RecordType as T;
    matches!(qtype, T::CNAME | T::RRSIG | T::NSEC | T::SIG | T::KEY | T::NXT)
}

/// Whether addresses below a zone cut (glue), which are not this zone's own, are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glue {
    /// Included: without them nobody reaches the servers of the cut.
    Given,
    /// Left out: the zone below answers for them.
    Left,
}

enum Step {
    Again,
    End(Rcode, LocalOutcome),
}

struct Walk<'a> {
    zone: &'a Zone,
    question: &'a LocalQuery<'a>,
    draft: Draft,
    /// The name being looked up.
    qname: Name,
    aliases: u8,
}

impl<'a> Walk<'a> {
    fn step(&mut self, stays: &dyn Fn(&Name) -> bool) -> Step {
        let zone = self.zone;
        let found = zone.find(self.qname.as_wire());
        if let Found::Cut { at, node } = found {
            let is_parents = self.question.qtype == RecordType::DS && at == 0;
            if !is_parents {
                return self.refer(at, node);
            }
        }
        self.draft.flag(Flags::AA);
        match found {
            Found::Exact(node) | Found::Wildcard(node) => self.records(node, stays),
            Found::Cut { node, .. } => self.only(node.set(RecordType::DS)),
            Found::Redirected { at, dname } => self.redirect(at, dname, stays),
            Found::Nothing => self.negative(Rcode::NXDOMAIN),
        }
    }

    /// The name exists, or a wildcard speaks for it.
    fn records(&mut self, node: Node<'a>, stays: &dyn Fn(&Name) -> bool) -> Step {
        let qtype = self.question.qtype;
        if qtype == RecordType::ANY {
            for set in node.sets() {
                self.give(&set);
            }
            return if node.is_empty() {
                self.negative(Rcode::NOERROR)
            } else {
                Step::End(Rcode::NOERROR, LocalOutcome::Done)
            };
        }
        let alias = node.set(RecordType::CNAME).filter(|_| !is_beside_cname(qtype));
        let Some(cname) = alias else { return self.only(node.set(qtype)) };
        self.give(&cname);
        let Ok(target) = Name::from_wire(cname.first()) else { return Step::End(Rcode::SERVFAIL, LocalOutcome::Done) };
        self.follow(target, stays)
    }

    fn only(&mut self, set: Option<RrSet<'a>>) -> Step {
        let Some(set) = set else { return self.negative(Rcode::NOERROR) };
        self.give(&set);
        self.addresses(&set, Glue::Left);
        Step::End(Rcode::NOERROR, LocalOutcome::Done)
    }

    fn give(&mut self, set: &RrSet<'_>) {
        self.draft.set(Section::Answer, self.qname.as_wire(), set, set.ttl);
    }

    /// Continues at the target of an alias, if this zone answers for it and the limit is not reached.
    fn follow(&mut self, target: Name, stays: &dyn Fn(&Name) -> bool) -> Step {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Step::End(Rcode::SERVFAIL, LocalOutcome::Endless);
        }
        if !target.is_within(self.zone.apex()) || !stays(&target) {
            return Step::End(Rcode::NOERROR, LocalOutcome::Leaves { target });
        }
        self.qname = target;
        Step::Again
    }

    /// The DNAME and the CNAME made from it (RFC 6672 3.1); YXDOMAIN where the new name would be too long.
    fn redirect(&mut self, at: usize, dname: RrSet<'_>, stays: &dyn Fn(&Name) -> bool) -> Step {
        let (kept, owner) = self.qname.as_wire().split_at(at);
        self.draft.set(Section::Answer, owner, &dname, dname.ttl);
        let wire = [kept, dname.first()].concat();
        let Ok(target) = Name::from_wire(&wire) else { return Step::End(Rcode::YXDOMAIN, LocalOutcome::Done) };
        let kind = (RecordType::CNAME, dname.ttl);
        self.draft.records(Section::Answer, self.qname.as_wire(), kind, [&wire[..]]);
        if matches!(self.question.qtype, RecordType::CNAME | RecordType::ANY) {
            return Step::End(Rcode::NOERROR, LocalOutcome::Done);
        }
        self.follow(target, stays)
    }

    fn negative(&mut self, rcode: Rcode) -> Step {
        if let Some(soa) = self.zone.top().set(RecordType::SOA) {
            let ttl = soa.ttl.min(rdata::soa_minimum(soa.first()));
            self.draft.set(Section::Authority, self.zone.apex().as_wire(), &soa, ttl);
        }
        Step::End(rcode, LocalOutcome::Done)
    }

    fn refer(&mut self, at: usize, node: Node<'_>) -> Step {
        let owner = &self.qname.as_wire()[at..];
        if let Some(servers) = node.set(RecordType::NS) {
            self.draft.set(Section::Authority, owner, &servers, servers.ttl);
            self.addresses(&servers, Glue::Given);
        }
        let Ok(cut) = Name::from_wire(&self.qname.as_wire()[at..]) else {
            return Step::End(Rcode::SERVFAIL, LocalOutcome::Done);
        };
        Step::End(Rcode::NOERROR, LocalOutcome::Delegated { cut, target: self.qname.clone() })
    }

    /// Adds the addresses of a set's targets, as far as this zone has them.
    fn addresses(&mut self, set: &RrSet<'_>, glue: Glue) {
        for rdata in set.rdata() {
            let Some(target) = rdata::target(set.rtype, rdata) else { continue };
            // A service with target "." is at the owner's own name (RFC 9460 2.5.2).
            let is_here = target == [0] && rdata::is_service(set.rtype, rdata);
            let target = if is_here { self.qname.as_wire().to_vec() } else { target.to_ascii_lowercase() };
            if !name::is_within(&target, self.zone.apex().as_wire()) {
                continue;
            }
            let node = addresses(self.zone, &target, glue);
            for rtype in [RecordType::A, RecordType::AAAA] {
                if let Some(set) = node.and_then(|node| node.set(rtype)) {
                    self.draft.set(Section::Additional, &target, &set, set.ttl);
                }
            }
        }
    }

    fn finish(mut self, rcode: Rcode, outcome: LocalOutcome) -> LocalAnswer {
        let is_cut = self.draft.is_cut() && self.question.qtype != RecordType::ANY;
        let (rcode, outcome) = if is_cut { (Rcode::SERVFAIL, LocalOutcome::Done) } else { (rcode, outcome) };
        if rcode == Rcode::SERVFAIL {
            self.draft.clear(self.question);
        }
        LocalAnswer { message: self.draft.finish(rcode), rcode, outcome, aliases: self.aliases }
    }
}
