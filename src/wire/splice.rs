//! New responses out of old ones: a chain cut and continued elsewhere, records left out.

use super::{
    Flags, Header, Malformed, MessageId, Name, NameBuf, RecordType, Response, UpstreamQuery, name,
    record::{Record, Records, Section},
    writer::Writer,
};

/// Where in the RDATA of an RRSIG the count of labels and the signer's name stand (RFC 4034 3.1).
const LABELS_AT: usize = 3;
const SIGNER_AT: usize = 18;

/// The response to `query` whose first CNAMEs, up to the target `cut_at` in `head`'s chain, stand in `head`, and whose
/// rest is `tail`, the response for that target. The response code and the sections behind the answer are `tail`'s.
pub fn join(head: &Response, cut_at: usize, tail: &Response, query: &UpstreamQuery) -> Result<Response, Malformed> {
    let mut writer =
        Writer::new(query.name.as_wire(), query.qtype, query.qclass, head.message().len() + tail.message().len());
    let links = head.chain().get(..cut_at).ok_or(Malformed::Counts)?;
    let kept: Vec<&[u8]> = std::iter::once(&query.name).chain(links).map(Name::as_wire).collect();
    copy(&mut writer, head.message(), |record, owner| {
        let leads_on = matches!(record.rtype, RecordType::CNAME | RecordType::DNAME | RecordType::RRSIG);
        let stays = match record.rtype {
            RecordType::DNAME | RecordType::RRSIG => kept.iter().any(|name| name::is_within(name, owner)),
            _ => kept.contains(&owner),
        };
        record.section == Section::Answer && leads_on && stays
    })?;
    copy(&mut writer, tail.message(), |record, _| record.section == Section::Answer)?;
    // A CNAME that a wildcard made is proven by what the head says beside it (RFC 4035 5.3.4).
    let zones = wildcard_zones(head.message(), &kept)?;
    if !zones.is_empty() {
        copy(&mut writer, head.message(), |record, owner| {
            let is_proof = matches!(record.rtype, RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG);
            let is_theirs = || zones.iter().any(|zone| name::is_within(owner, zone.as_wire()));
            record.section == Section::Authority && is_proof && is_theirs()
        })?;
    }
    copy(&mut writer, tail.message(), |record, _| record.section != Section::Answer)?;
    let tail_flags = Header::read(tail.message())?.flags.0;
    let head_flags = Header::read(head.message())?.flags.0;
    // The answer is authentic only if every part is.
    let flags = Flags(tail_flags & !(Flags::AD | Flags::AA) | (tail_flags & head_flags & (Flags::AD | Flags::AA)));
    reread(writer, flags, query)
}

/// The zones whose wildcards made CNAMEs at the names `kept`: their signatures have fewer labels than the owners (RFC
/// 4034 3.1.3).
fn wildcard_zones(message: &[u8], kept: &[&[u8]]) -> Result<Vec<NameBuf>, Malformed> {
    let mut zones = Vec::new();
    let mut owner = NameBuf::new();
    for record in Records::of(message)? {
        let record = record?;
        if record.section != Section::Answer || record.rtype != RecordType::RRSIG {
            continue;
        }
        let rdata = record.rdata(message);
        let covers_cname = rdata.starts_with(&RecordType::CNAME.0.to_be_bytes());
        owner.expand(message, record.owner_at)?;
        owner.make_lowercase();
        if covers_cname
            && kept.contains(&owner.as_wire())
            && rdata
                .get(LABELS_AT)
                .is_some_and(|&labels| usize::from(labels) < name::Labels::of(owner.as_wire()).count())
        {
            let mut signer = NameBuf::new();
            signer.expand(message, record.rdata_at + SIGNER_AT)?;
            signer.make_lowercase();
            zones.push(signer);
        }
    }
    Ok(zones)
}

/// The response without signatures and proofs, for a client that did not ask for them (RFC 4035 3.2.1).
pub fn without_signatures(response: &Response, query: &UpstreamQuery) -> Result<Response, Malformed> {
    let message = response.message();
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, message.len());
    copy(&mut writer, message, |record, _| {
        let is_dnssec = matches!(record.rtype, RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3);
        !is_dnssec || record.rtype == query.qtype
    })?;
    reread(writer, Header::read(message)?.flags, query)
}

/// The response without AD.
pub fn without_authenticity(response: &Response, query: &UpstreamQuery) -> Result<Response, Malformed> {
    retain(response, query, |_, _| true)
}

/// The response without the records that `keep` rejects, and without AD.
pub fn retain(
    response: &Response,
    query: &UpstreamQuery,
    mut keep: impl FnMut(&[u8], &Record) -> bool,
) -> Result<Response, Malformed> {
    let message = response.message();
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, message.len());
    copy(&mut writer, message, |record, _| keep(message, record))?;
    let flags = Header::read(message)?.flags.0 & !Flags::AD;
    reread(writer, Flags(flags), query)
}

fn reread(writer: Writer, flags: Flags, query: &UpstreamQuery) -> Result<Response, Malformed> {
    let message = writer.finish(Header { id: MessageId(0), flags, counts: [0; 4] });
    Response::ours(&message, query)
}

fn copy(writer: &mut Writer, message: &[u8], mut keep: impl FnMut(&Record, &[u8]) -> bool) -> Result<(), Malformed> {
    let mut owner = NameBuf::new();
    let mut lowercase = NameBuf::new();
    for record in Records::of(message)? {
        let record = record?;
        owner.expand(message, record.owner_at)?;
        lowercase.expand(message, record.owner_at)?;
        lowercase.make_lowercase();
        if keep(&record, lowercase.as_wire()) {
            writer.record(message, &record, &owner)?;
        }
    }
    Ok(())
}
