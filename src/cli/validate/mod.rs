//! `tidegate query --validate`: what DNSSEC says of an answer, and which link of the chain broke.
//!
//! Two opinions on the same records, asked once ([`source`]): hickory's [`validator`], which gives a verdict and hardly a
//! reason, and our own walk ([`chain`], [`answer`]), which names the link. The worse of the two is the verdict. Only our
//! walk counts for wildcards, DNAME and anchors below the root: there hickory 0.26 says bogus of good chains. If
//! signatures do not come through at all, that is no verdict on them, and is said as such. Nothing here touches what
//! clients are served.

mod anchors;
mod answer;
mod chain;
mod denial;
mod document;
mod signature;
mod source;
mod validator;

use hickory_proto::{
    rr::{Name, RecordType},
    serialize::binary::BinDecodable,
};

pub(super) use self::{
    anchors::Anchors,
    document::{Validation, Verdict},
};
use self::{
    chain::{Walk, broken},
    document::{BrokenLink, Cause},
    source::Source,
};
use super::query::printable;
use crate::{clock, plural::Plural, upstream::ServerSpec, wire};

/// Asks `server` for everything that it takes to judge its answer.
pub(super) fn validate(query: &wire::UpstreamQuery, server: &ServerSpec, anchors: &Anchors) -> Validation {
    let source = Source::new(server.clone());
    // Both have the same form on the wire.
    let name = Name::from_bytes(query.name.as_wire()).unwrap_or_else(|_| Name::root());
    let qtype = RecordType::from(query.qtype.0);
    // Signatures count seconds in 32 bits that wrap (RFC 4034 3.1.5).
    #[expect(clippy::cast_possible_truncation, reason = "it is meant to wrap")]
    let now = clock::wall().as_secs() as u32;
    let mut walk = Walk { source: &source, anchors, now, links: Vec::new(), is_beyond_validator: false };
    let walked = walk.verdict(&name, qtype);
    let validator = validator::verdict(&source, anchors, &name, qtype);
    let weighed = validator.filter(|_| !walk.is_beyond_validator);
    let (verdict, broken) = conclude(walked, weighed, &name, qtype);
    Validation {
        name: query.name.to_string(),
        qtype: query.qtype.to_string(),
        server: server.to_string(),
        verdict,
        validator,
        chain: walk.links,
        broken,
        answer: answer_lines(&source, &name, qtype),
        queries: source.queries(),
    }
}

fn conclude(
    walked: Result<Verdict, BrokenLink>,
    validator: Option<Verdict>,
    name: &Name,
    qtype: RecordType,
) -> (Verdict, Option<BrokenLink>) {
    match walked {
        Err(link) if link.cause.verdict() == Verdict::Indeterminate => (Verdict::Indeterminate, Some(link)),
        Err(link) => (link.cause.verdict(), Some(link)),
        Ok(walked) => match validator.filter(|&verdict| verdict > Verdict::Insecure && verdict > walked) {
            Some(verdict) => {
                let text = format!("every link holds, and hickory's validator says {} all the same", verdict.word());
                (verdict, Some(broken(name, &format!("{qtype} {name}"), Cause::Validator, text)))
            }
            None => (walked.max(validator.unwrap_or(walked)), None),
        },
    }
}

fn answer_lines(source: &Source, name: &Name, qtype: RecordType) -> Vec<String> {
    let answers = source.ask(name, qtype).map(|message| message.answers).unwrap_or_default();
    let records = answers.iter().filter(|record| record.record_type() != RecordType::RRSIG);
    records.map(ToString::to_string).collect()
}

/// The verdict and how it came about, for people.
pub(super) fn text(validation: &Validation) -> String {
    let Validation { name, qtype, verdict, .. } = validation;
    let mut text = format!("{name} {qtype}  {}\n", verdict.word());
    if !validation.answer.is_empty() {
        text += "\nanswer:\n";
    }
    for line in &validation.answer {
        text += &format!("  {}\n", printable(line));
    }
    let zones = validation.chain.iter().map(|link| &link.zone).chain(validation.broken.iter().map(|link| &link.zone));
    let width = zones.map(|zone| zone.chars().count()).max().unwrap_or_default();
    text += "\nchain:\n";
    for link in &validation.chain {
        text += &format!("  {:width$}  {}\n", link.zone, link.text);
    }
    if let Some(link) = &validation.broken {
        text += &format!("  {:width$}  BROKEN: {}\n", link.zone, link.text);
    }
    let meaning = match verdict {
        Verdict::Secure => "every link from the trust anchor to the answer holds",
        Verdict::Insecure => {
            "a zone on the way is proven to be unsigned: nothing vouches for the answer, and nothing has to"
        }
        Verdict::Indeterminate => "this server does not give what it takes to tell",
        Verdict::Bogus => "a resolver that validates refuses this answer",
    };
    let differs = validation.validator.filter(|of| of != verdict && *verdict != Verdict::Indeterminate);
    let other = differs.map(|of| format!("; hickory's validator says {}", of.word())).unwrap_or_default();
    let queries = Plural(validation.queries, "query");
    text + &format!("\n{}: {meaning}{other}; {queries} to {}\n", verdict.word(), validation.server)
}
