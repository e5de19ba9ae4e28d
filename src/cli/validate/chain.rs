//! The walk from a trust anchor down to a zone: at each cut the parent's DS, then the child's DNSKEY (RFC 4035 5).

use hickory_proto::{
    dnssec::rdata::{DNSKEY, DNSSECRData, DS},
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use super::{
    anchors::Anchors,
    denial::{Denial, Proven},
    document::{BrokenLink, Cause, Link},
    signature::{RecordSet, TrustedZone, Unsigned},
    source::Source,
};
use crate::plural::Plural;

/// The walk so far.
pub(super) struct Walk<'a> {
    pub(super) source: &'a Source,
    pub(super) anchors: &'a Anchors,
    /// Seconds since 1970, in the arithmetic of signatures.
    pub(super) now: u32,
    pub(super) links: Vec<Link>,
    /// Whether a DNAME, a wildcard or an anchor below the root was met: hickory 0.26 calls these bogus where BIND calls them
    /// secure.
    pub(super) is_beyond_validator: bool,
}

/// Whether a zone is signed.
pub(super) enum Trust {
    Signed(TrustedZone),
    /// Its parent proves that it is not, or that it is in ways not known here.
    Unsigned,
}

/// What lies at a name below a signed zone's apex.
enum Cut {
    Signed(Vec<DS>),
    Unsigned,
    /// The name is in the same zone.
    None,
    /// There is no such name.
    Absent,
}

/// A step, or the link that broke.
pub(super) type Step<T> = Result<T, BrokenLink>;

impl Walk<'_> {
    /// The zone that `name` is in: down to `signer`, which claims to be it, else as far as there are zones.
    pub(super) fn zone_of(&mut self, name: &Name, signer: Option<&Name>) -> Step<Trust> {
        let Some(start) = self.anchors.start(name) else {
            return Err(broken(
                name,
                &name.to_string(),
                Cause::NoTrustAnchor,
                "no trust anchor covers the name".to_owned(),
            ));
        };
        self.is_beyond_validator |= !start.is_root();
        let mut zone = self.keys_by_anchor(start)?;
        let end = signer.filter(|signer| signer.zone_of(name)).unwrap_or(name);
        for labels in start.iter().count() + 1..=end.iter().count() {
            let child = name.trim_to(labels);
            match self.cut(&zone, &child)? {
                Cut::Signed(ds) => zone = self.keys_by_ds(&zone, &child, &ds)?,
                Cut::Unsigned => return Ok(Trust::Unsigned),
                Cut::None => {}
                Cut::Absent => break,
            }
        }
        Ok(Trust::Signed(zone))
    }

    /// The server's response, if it is one to build on.
    pub(super) fn ask(&self, zone: &Name, name: &Name, qtype: RecordType) -> Step<Message> {
        let failed = |text| broken(zone, &format!("{qtype} {name}"), Cause::NoAnswer, text);
        let message = self
            .source
            .ask(name, qtype)
            .map_err(|why| failed(format!("there is no answer to {qtype} {name}: {why}")))?;
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            code => Err(failed(format!("the server answers {code} for {qtype} {name}"))),
        }
    }

    fn keys_by_anchor(&mut self, zone: &Name) -> Step<TrustedZone> {
        let message = self.ask(zone, zone, RecordType::DNSKEY)?;
        let Some(set) = RecordSet::find(&message.answers, zone, RecordType::DNSKEY) else {
            return Err(self.no_keys(zone, "and it is a trust anchor"));
        };
        let all = keys(&set.records);
        let trusted: Vec<DNSKEY> = all.iter().filter(|key| self.anchors.has(zone, key)).cloned().collect();
        if trusted.is_empty() {
            let text = format!(
                "no DNSKEY of {zone} is a trust anchor ({}); a private {zone} needs its own, with --anchor FILE",
                tags(&all)
            );
            return Err(broken(zone, &set.label(), Cause::AnchorMismatch, text));
        }
        let tag = self.verify_keys(&set, zone, trusted)?;
        self.link(zone, format!("key {tag} is a trust anchor and signs the zone's {}", count(&all)));
        Ok(TrustedZone { name: zone.clone(), keys: all })
    }

    fn keys_by_ds(&mut self, parent: &TrustedZone, zone: &Name, ds: &[DS]) -> Step<TrustedZone> {
        let message = self.ask(zone, zone, RecordType::DNSKEY)?;
        let Some(set) = RecordSet::find(&message.answers, zone, RecordType::DNSKEY) else {
            return Err(self.no_keys(zone, &format!("but {} has its DS", parent.name)));
        };
        let all = keys(&set.records);
        let fits = |key: &&DNSKEY| ds.iter().any(|ds| ds.covers(zone, key).unwrap_or(false));
        let trusted: Vec<DNSKEY> = all.iter().filter(fits).cloned().collect();
        if trusted.is_empty() {
            let wanted: Vec<String> = ds.iter().map(|ds| ds.key_tag().to_string()).collect();
            let text = format!(
                "the DS of {zone} in {} (key {}) fits no DNSKEY of {zone} ({})",
                parent.name,
                wanted.join(", "),
                tags(&all)
            );
            return Err(broken(zone, &format!("DS {zone}"), Cause::DsMismatch, text));
        }
        let tag = self.verify_keys(&set, zone, trusted)?;
        self.link(zone, format!("key {tag} has a DS in {} and signs the zone's {}", parent.name, count(&all)));
        Ok(TrustedZone { name: zone.clone(), keys: all })
    }

    /// Checks that one of these keys signs all of the zone's, and returns its tag.
    fn verify_keys(&self, set: &RecordSet<'_>, zone: &Name, trusted: Vec<DNSKEY>) -> Step<u16> {
        let trusted = TrustedZone { name: zone.clone(), keys: trusted };
        match set.verify(&trusted, self.now) {
            Ok(signed) => Ok(signed.tag),
            // The keys are the right ones, and keys always come signed: somebody on the way takes signatures out.
            Err((Cause::NoSignature, _)) => {
                Err(broken(zone, &set.label(), Cause::SignaturesStripped, self.stripped(zone)))
            }
            Err((cause, text)) => Err(broken(zone, &set.label(), cause, text)),
        }
    }

    fn cut(&mut self, zone: &TrustedZone, child: &Name) -> Step<Cut> {
        let message = self.ask(&zone.name, child, RecordType::DS)?;
        let label = format!("DS {child}");
        if let Some(set) = RecordSet::find(&message.answers, child, RecordType::DS) {
            set.verify(zone, self.now).map_err(|why| self.unsigned(&zone.name, &label, why))?;
            let ds: Vec<DS> = set.records.iter().filter_map(|record| delegation(record)).collect();
            let known = ds.iter().filter(|ds| ds.algorithm().is_supported() && ds.digest_type().is_supported());
            let known: Vec<DS> = known.cloned().collect();
            if known.is_empty() {
                // RFC 4035 5.2: as if the zone were not signed.
                let text = format!("the DS of {child} has algorithms or digests that are not known here: insecure");
                self.link(&zone.name, text);
                return Ok(Cut::Unsigned);
            }
            return Ok(Cut::Signed(known));
        }
        if RecordSet::find(&message.answers, child, RecordType::CNAME).is_some() {
            return Ok(Cut::None);
        }
        let denial = Denial::read(&message, zone, self.now).map_err(|why| self.unsigned(&zone.name, &label, why))?;
        match denial.of(child) {
            Some(Proven::Types(types)) if types.contains(&RecordType::NS) && !types.contains(&RecordType::SOA) => {
                if types.contains(&RecordType::DS) {
                    let text = format!("{} says that {child} has a DS, and the server gives none", denial.words());
                    return Err(broken(&zone.name, &label, Cause::NoDenial, text));
                }
                self.link(&zone.name, format!("{child} is an unsigned zone: no DS, by {}", denial.words()));
                Ok(Cut::Unsigned)
            }
            Some(Proven::OptedOut) => {
                let text = format!("{child} may be an unsigned zone: opt-out, by {}", denial.words());
                self.link(&zone.name, text);
                Ok(Cut::Unsigned)
            }
            Some(Proven::Types(_) | Proven::Empty) => Ok(Cut::None),
            Some(Proven::Absent) => Ok(Cut::Absent),
            None => {
                let text = format!("no NSEC or NSEC3 of {} proves that {child} has no DS", zone.name);
                Err(self.unsigned(&zone.name, &label, (Cause::NoDenial, text)))
            }
        }
    }

    /// The broken link for records that are not vouched for; if no response had a signature, they are stripped.
    pub(super) fn unsigned(&self, zone: &Name, record: &str, (cause, text): Unsigned) -> BrokenLink {
        let is_missing = matches!(cause, Cause::NoSignature | Cause::NoDenial | Cause::NoDnskey);
        if is_missing && !self.source.has_signatures() {
            return broken(zone, record, Cause::SignaturesStripped, self.stripped(zone));
        }
        broken(zone, record, cause, text)
    }

    fn no_keys(&self, zone: &Name, why: &str) -> BrokenLink {
        let text = format!("the server gives no DNSKEY of {zone}, {why}");
        self.unsigned(zone, &format!("DNSKEY {zone}"), (Cause::NoDnskey, text))
    }

    fn stripped(&self, zone: &Name) -> String {
        let whose = if self.source.has_signatures() { format!(" of {zone}") } else { String::new() };
        format!(
            "the server, or one that it asks, leaves signatures out{whose}, although the query has DO; Route 53 Resolver does \
             so. Ask another server to validate"
        )
    }

    pub(super) fn link(&mut self, zone: &Name, text: String) {
        let link = Link { zone: zone.to_string(), text };
        // A second name of the same zone takes the same way.
        if !self.links.contains(&link) {
            self.links.push(link);
        }
    }
}

pub(super) fn broken(zone: &Name, record: &str, cause: Cause, text: String) -> BrokenLink {
    BrokenLink { zone: zone.to_string(), record: record.to_owned(), cause, text }
}

fn keys(records: &[&Record]) -> Vec<DNSKEY> {
    let key = |record: &&Record| match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key.clone()),
        _ => None,
    };
    records.iter().filter_map(key).collect()
}

fn delegation(record: &Record) -> Option<DS> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DS(ds)) => Some(ds.clone()),
        _ => None,
    }
}

/// "1 key", "2 keys".
fn count(keys: &[DNSKEY]) -> String {
    Plural(keys.len(), "key").to_string()
}

/// "key 20326, 38696".
fn tags(keys: &[DNSKEY]) -> String {
    let tags: Vec<String> =
        keys.iter().filter_map(|key| key.calculate_key_tag().ok()).map(|tag| tag.to_string()).collect();
    format!("key {}", tags.join(", "))
}
