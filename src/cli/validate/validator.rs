//! The verdict of hickory's validator on the same records.

use std::sync::Arc;

use hickory_net::{DnsError, DnsHandle, NetError, dnssec::DnssecDnsHandle, xfer::FirstAnswer};
use hickory_proto::{
    dnssec::Proof,
    op::{DnsRequestOptions, Query},
    rr::{Name, Record, RecordType},
};

use super::{anchors::Anchors, document::Verdict, source::Source};

/// None = there was no answer to judge.
pub(super) fn verdict(source: &Source, anchors: &Anchors, name: &Name, qtype: RecordType) -> Option<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    let handle = DnssecDnsHandle::with_trust_anchor(source.clone(), Arc::clone(&anchors.all));
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    let query = Query::query(name.clone(), qtype);
    match runtime.block_on(handle.lookup(query, options).first_answer()) {
        // Of signatures only the one that was used is marked.
        Ok(response) => worst(&response.answers).or_else(|| worst(&response.authorities)),
        Err(NetError::Dns(DnsError::Nsec { proof, .. })) => Some(of(proof)),
        Err(_) => None,
    }
}

fn worst(section: &[Record]) -> Option<Verdict> {
    let records = section.iter().filter(|record| record.record_type() != RecordType::RRSIG);
    records.map(|record| of(record.proof)).max()
}

const fn of(proof: Proof) -> Verdict {
    match proof {
        Proof::Secure => Verdict::Secure,
        Proof::Insecure => Verdict::Insecure,
        Proof::Indeterminate => Verdict::Indeterminate,
        Proof::Bogus => Verdict::Bogus,
    }
}
