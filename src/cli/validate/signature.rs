//! Whether a signature vouches for a set of records (RFC 4035 5.3).

use hickory_proto::{
    dnssec::{
        Verifier,
        rdata::{DNSKEY, DNSSECRData, RRSIG},
    },
    rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber},
};

use super::document::Cause;
use crate::cli::duration::{rough, utc};

/// Records with one owner and type, and their signatures.
pub(super) struct RecordSet<'a> {
    pub(super) owner: &'a Name,
    pub(super) rtype: RecordType,
    pub(super) records: Vec<&'a Record>,
    pub(super) signatures: Vec<&'a RRSIG>,
}

/// A zone whose keys are trusted.
#[derive(Debug, Clone)]
pub(super) struct TrustedZone {
    pub(super) name: Name,
    pub(super) keys: Vec<DNSKEY>,
}

/// A signature that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed {
    /// The tag of its key.
    pub(super) tag: u16,
    /// When it expires, in seconds since 1970.
    pub(super) expires: u32,
    /// The labels of the name that was signed: fewer than the owner's where a wildcard was expanded (RFC 4034 3.1.3).
    pub(super) labels: u8,
}

/// Why no signature holds: the cause, and a sentence.
pub(super) type Unsigned = (Cause, String);

impl<'a> RecordSet<'a> {
    /// The set with this owner and type in a section; none if it is empty.
    pub(super) fn find(section: &'a [Record], owner: &Name, rtype: RecordType) -> Option<Self> {
        let is_ours = |record: &&Record| record.name == *owner && record.dns_class == DNSClass::IN;
        let ours = || section.iter().filter(is_ours);
        let records: Vec<&Record> = ours().filter(|record| record.record_type() == rtype).collect();
        let signatures = ours().filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
            _ => None,
        });
        let signatures = signatures.filter(|signature| signature.input().type_covered == rtype).collect();
        let owner = &records.first()?.name;
        Some(Self { owner, rtype, records, signatures })
    }

    /// "A www.example.".
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.rtype, self.owner)
    }

    /// The first signature that holds, else what is wrong with the one that comes closest to it.
    pub(super) fn verify(&self, zone: &TrustedZone, now: u32) -> Result<Signed, Unsigned> {
        let none = || (Cause::NoSignature, format!("no RRSIG covers {}", self.label()));
        let mut closest: Option<Unsigned> = None;
        for signature in &self.signatures {
            match self.verify_one(signature, zone, now) {
                Ok(signed) => return Ok(signed),
                // Causes stand in the order of the checks.
                Err(problem) if closest.as_ref().is_none_or(|closest| closest.0 < problem.0) => closest = Some(problem),
                Err(_) => {}
            }
        }
        Err(closest.unwrap_or_else(none))
    }

    fn verify_one(&self, signature: &RRSIG, zone: &TrustedZone, now: u32) -> Result<Signed, Unsigned> {
        let input = signature.input();
        let (what, tag) = (format!("the RRSIG of {} by key {}", self.label(), input.key_tag), input.key_tag);
        if input.signer_name != zone.name || self.owner.num_labels() < input.num_labels {
            return Err((
                Cause::WrongSigner,
                format!("{what} is made by {}, and not by {}", input.signer_name, zone.name),
            ));
        }
        let keys: Vec<(u16, &DNSKEY)> =
            zone.keys.iter().filter_map(|key| Some((key.calculate_key_tag().ok()?, key))).collect();
        let fitting = keys.iter().filter(|(of_key, key)| *of_key == tag && key.algorithm() == input.algorithm);
        let fitting: Vec<&DNSKEY> =
            fitting.map(|(_, key)| *key).filter(|key| key.zone_key() && !key.revoke()).collect();
        if fitting.is_empty() {
            let tags: Vec<String> = keys.iter().map(|(tag, _)| tag.to_string()).collect();
            let text = format!("{what}: {} has no such DNSKEY, but {}", zone.name, tags.join(", "));
            return Err((Cause::NoSuchKey, text));
        }
        if !input.algorithm.is_supported() {
            return Err((Cause::UnsupportedAlgorithm, format!("{what} has the algorithm {}", input.algorithm)));
        }
        // Both times wrap in 2106 (RFC 4034 3.1.5).
        let (from, until) = (input.sig_inception, input.sig_expiration);
        if SerialNumber::new(now) > until {
            let ago = rough(now.wrapping_sub(until.get()).into());
            return Err((Cause::Expired, format!("{what} expired {}, {ago} ago", utc(until.get().into()))));
        }
        if SerialNumber::new(now) < from {
            let left = rough(from.get().wrapping_sub(now).into());
            let text =
                format!("{what} is valid from {} on, in {left}; is this host's clock right?", utc(from.get().into()));
            return Err((Cause::NotYetValid, text));
        }
        let holds =
            |key: &&DNSKEY| key.verify_rrsig(self.owner, DNSClass::IN, signature, self.records.iter().copied()).is_ok();
        if !fitting.iter().any(holds) {
            return Err((Cause::BadSignature, format!("{what} does not fit the records: they, or it, were changed")));
        }
        Ok(Signed { tag, expires: until.get(), labels: input.num_labels })
    }
}
