//! The end of the chain: whether the answer's records are signed, or their absence is proven.

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType},
};

use super::{
    chain::{Step, Trust, Walk, broken},
    denial::{Denial, Proven},
    document::{Cause, Verdict},
    signature::{RecordSet, Signed, TrustedZone},
};
use crate::cli::duration::utc;

/// Aliases followed for one name.
const MOST_ALIASES: usize = 8;

impl Walk<'_> {
    /// The verdict on a name and type, with each alias on the way.
    pub(super) fn verdict(&mut self, name: &Name, qtype: RecordType) -> Step<Verdict> {
        let (mut name, mut verdict) = (name.clone(), Verdict::Secure);
        for _ in 0..=MOST_ALIASES {
            let message = self.ask(&name, &name, qtype)?;
            let of_name = self.verdict_on(&message, &name, qtype)?;
            verdict = verdict.max(of_name);
            match alias(&message, &name, qtype) {
                Some(target) => name = target,
                None => return Ok(verdict),
            }
        }
        let text = format!("there are more than {MOST_ALIASES} aliases");
        Err(broken(&name, &format!("CNAME {name}"), Cause::TooManyAliases, text))
    }

    fn verdict_on(&mut self, message: &Message, name: &Name, qtype: RecordType) -> Step<Verdict> {
        let set =
            [qtype, RecordType::CNAME].into_iter().find_map(|rtype| RecordSet::find(&message.answers, name, rtype));
        // A DNAME's CNAME is made by the server and not signed (RFC 6672 5.3.1).
        let set = match set {
            Some(set) if set.signatures.is_empty() => dname(message, name).or(Some(set)),
            set => set,
        };
        let signer = set.as_ref().and_then(|set| set.signatures.first()).map(|rrsig| rrsig.input().signer_name.clone());
        // DS is the parent's (RFC 4035 3.1.4.1).
        let base = if qtype == RecordType::DS { name.base_name() } else { name.clone() };
        let zone = match self.zone_of(&base, signer.as_ref())? {
            Trust::Signed(zone) => zone,
            Trust::Unsigned => return Ok(Verdict::Insecure),
        };
        let Some(set) = set else { return self.absent(message, name, qtype, &zone) };
        let label = set.label();
        let signed = match set.verify(&zone, self.now) {
            Ok(signed) => signed,
            Err(why) => {
                return Err(self
                    .denied(message, name, &zone)
                    .unwrap_or_else(|| self.unsigned(&zone.name, &label, why)));
            }
        };
        self.is_beyond_validator |= set.rtype == RecordType::DNAME || signed.labels < set.owner.num_labels();
        self.check_wildcard(message, name, &zone, &set, signed)?;
        self.link(&zone.name, format!("key {} signs {label}, until {}", signed.tag, utc(signed.expires.into())));
        Ok(Verdict::Secure)
    }

    /// A wildcard may only answer for names that do not exist (RFC 4035 5.3.4).
    fn check_wildcard(
        &self,
        message: &Message,
        name: &Name,
        zone: &TrustedZone,
        set: &RecordSet<'_>,
        signed: Signed,
    ) -> Step<()> {
        if signed.labels >= set.owner.num_labels() {
            return Ok(());
        }
        let label = set.label();
        let denial = Denial::read(message, zone, self.now).map_err(|why| self.unsigned(&zone.name, &label, why))?;
        // The next closer name alone is denied here: NSEC3 of the closest encloser is implied by the signature's labels.
        let next_closer = name.trim_to(usize::from(signed.labels) + 1);
        if denial.covers(&next_closer) || matches!(denial.of(name), Some(Proven::Absent | Proven::OptedOut)) {
            return Ok(());
        }
        let text = format!("{label} comes from a wildcard, and no NSEC or NSEC3 proves that there is no {name} itself");
        Err(broken(&zone.name, &label, Cause::NoDenial, text))
    }

    /// The parent's proof that there is no such name, where the answer is not signed: a private zone below a signed one.
    fn denied(&self, message: &Message, name: &Name, zone: &TrustedZone) -> Option<super::document::BrokenLink> {
        let child = message.answers.first().map(|_| name.trim_to(zone.name.iter().count() + 1))?;
        let delegation = self.source.ask(&child, RecordType::DS).ok()?;
        let denial = Denial::read(&delegation, zone, self.now).ok()?;
        if denial.of(&child) != Some(Proven::Absent) {
            return None;
        }
        let text = format!(
            "{} proves ({}) that there is no {child}, and the server answers all the same: a private zone below a signed one, \
             which no validator can accept without a trust anchor for it",
            zone.name,
            denial.words()
        );
        Some(broken(&zone.name, &child.to_string(), Cause::Denied, text))
    }

    fn absent(&mut self, message: &Message, name: &Name, qtype: RecordType, zone: &TrustedZone) -> Step<Verdict> {
        let (label, rcode) = (format!("{qtype} {name}"), message.metadata.response_code);
        let denial = Denial::read(message, zone, self.now).map_err(|why| self.unsigned(&zone.name, &label, why))?;
        let proven = denial.of(name);
        let (what, is_proven) = match (rcode, &proven) {
            (ResponseCode::NXDomain, proven) => {
                let is_absent = matches!(proven, Some(Proven::Absent | Proven::OptedOut));
                (format!("that there is no {name}"), is_absent && denial.denies_wildcard(name, qtype))
            }
            (_, Some(Proven::Types(types))) => {
                let is_there = types.contains(&qtype) || types.contains(&RecordType::CNAME);
                (format!("that {name} has no {qtype}"), !is_there)
            }
            (_, Some(Proven::Empty)) => (format!("that {name} has no {qtype}"), true),
            (_, Some(Proven::Absent | Proven::OptedOut)) => {
                (format!("that a wildcard gives {name} no {qtype}"), denial.denies_wildcard(name, qtype))
            }
            (_, None) => (format!("that {name} has no {qtype}"), false),
        };
        if !is_proven {
            let words = denial.words();
            let given =
                if words.is_empty() { "there is none in the response".to_owned() } else { format!("there is {words}") };
            let text = format!("no NSEC or NSEC3 of {} proves {what}: {given}", zone.name);
            return Err(self.unsigned(&zone.name, &label, (Cause::NoDenial, text)));
        }
        self.link(&zone.name, format!("{} prove {what}", denial.words()));
        // Opt-out leaves open whether an unsigned zone is there (RFC 5155 12.2).
        Ok(if proven == Some(Proven::OptedOut) { Verdict::Insecure } else { Verdict::Secure })
    }
}

/// The DNAME above a name.
fn dname<'a>(message: &'a Message, name: &Name) -> Option<RecordSet<'a>> {
    let above = message
        .answers
        .iter()
        .find(|r| r.record_type() == RecordType::DNAME && r.name.zone_of(name) && r.name != *name)?;
    RecordSet::find(&message.answers, &above.name, RecordType::DNAME)
}

/// Where the answer's CNAME leads, unless it was asked for.
fn alias(message: &Message, name: &Name, qtype: RecordType) -> Option<Name> {
    if matches!(qtype, RecordType::CNAME | RecordType::ANY) {
        return None;
    }
    message.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
        _ => None,
    })
}
