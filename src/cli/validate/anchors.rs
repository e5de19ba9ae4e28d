//! Trust anchors: the root's keys as IANA publishes them, or those of a file.

use std::{path::Path, sync::Arc};

use hickory_proto::{
    dnssec::{PublicKey, TrustAnchors, rdata::DNSKEY},
    rr::{LowerName, Name},
    serialize::txt::trust_anchor::{Entry, Parser},
};

use crate::{files, system_error::SystemError};

/// Keys that are trusted without a signature, by zone.
#[derive(Clone)]
pub(in crate::cli) struct Anchors {
    /// For hickory's validator.
    pub(super) all: Arc<TrustAnchors>,
    zones: Vec<Name>,
}

impl Default for Anchors {
    /// The root's: KSK-2017 (tag 20326) and KSK-2024 (tag 38696).
    fn default() -> Self {
        Self { all: Arc::default(), zones: vec![Name::root()] }
    }
}

impl Anchors {
    /// The DNSKEY records of a file, in the form of a zone file (RFC 1035 5).
    pub(in crate::cli) fn from_file(path: &Path) -> Result<Self, String> {
        let problem = |why: String| format!("{} holds no trust anchors: {why}", path.display());
        let text = files::read(path).map_err(|error| problem(SystemError(&error).to_string()))?;
        let text = String::from_utf8(text).map_err(|error| problem(error.to_string()))?;
        let entries = Parser::new(text).parse();
        let entries =
            entries.map_err(|error| problem(format!("{error}; it takes DNSKEY records, as dig prints them")))?;
        let (mut all, mut zones) = (TrustAnchors::empty(), Vec::new());
        for entry in entries {
            let Entry::DNSKEY(record) = entry else { continue };
            let zone = record.name().clone();
            all.insert_with_name(record.data().public_key(), LowerName::from(&zone));
            if !zones.contains(&zone) {
                zones.push(zone);
            }
        }
        if zones.is_empty() {
            return Err(problem("there is no DNSKEY record in it".to_owned()));
        }
        Ok(Self { all: Arc::new(all), zones })
    }

    /// The zone that the chain to `name` starts at: the closest one above it that has an anchor.
    pub(super) fn start(&self, name: &Name) -> Option<&Name> {
        let above = self.zones.iter().filter(|zone| zone.zone_of(name));
        above.max_by_key(|zone| zone.num_labels())
    }

    /// Whether a key of `zone` is a trust anchor.
    pub(super) fn has(&self, zone: &Name, key: &DNSKEY) -> bool {
        let public: &dyn PublicKey = key.public_key();
        self.all.contains_with_name(public, &LowerName::from(zone))
    }
}
