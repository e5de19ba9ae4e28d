//! How a query would be handled, step by step: the decisions of [`handle`], `resolve`, `part` and `store`, walked
//! without asking, counting, storing or logging anything.
//!
//! Policy:
//! - Every decision is made by the function that also answers queries. Only their order is repeated here, and
//!   `tests/explain.rs` compares it with the engine.
//! - No upstream is asked. Where the outcome depends on its answer, it stays open, unless the caller gives an answer to
//!   assume ([`Premise`]).
//! - Momentary state is left out: the client's rate, the number of waiting queries, budgets, and loop probes.

mod describe;
pub mod document;
pub mod text;
mod walk;

use std::net::IpAddr;

use self::{
    describe::records,
    document::{AccessStep, ExplainedOutcome, Explanation, ExtendedError},
    walk::{Ending, Known, Walk},
};
use super::{
    ClientChannel, Engine, Query,
    handle::{self, AtOnce},
    resolution::{self, CacheState},
};
use crate::{
    clock::Moment,
    metrics::ReplySource,
    upstream::Group,
    wire::{
        Class, Ede, Flags, Header, MessageId, Name, Question, Rcode, RecordType, Response, Transport, Ttl,
        UpstreamQuery, ede, record::Section, writer::Writer,
    },
};

/// A query to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name.
    pub name: Name,
    /// The record type.
    pub qtype: RecordType,
    /// Who asks.
    pub client: IpAddr,
    /// How it comes.
    pub transport: Transport,
    /// Whether signatures are asked for.
    pub do_bit: bool,
}

/// Assumed answer of a group.
#[derive(Debug)]
pub enum Supposed {
    /// Unknown: only the upstream could tell.
    Unknown,
    /// No server of the group answers.
    NoAnswer,
    /// This response.
    Answer(Box<Response>),
}

/// Gives the answer to assume from a group for a query.
pub type Suppose<'a> = dyn Fn(&Group, &UpstreamQuery) -> Supposed + 'a;

/// What an explanation assumes about upstreams.
pub enum Premise<'a> {
    /// Nothing: the real state, with upstreams' answers unknown.
    None,
    /// The real state, and the upstreams' answers that the function gives.
    Script(&'a Suppose<'a>),
    /// Upstreams answer every query with these addresses, whatever is cached, remembered or down.
    Addresses(&'a [IpAddr]),
}

impl<'a> Premise<'a> {
    /// Assumes these addresses; [`Premise::None`] if there are none.
    pub const fn of(addresses: &'a [IpAddr]) -> Self {
        if addresses.is_empty() { Self::None } else { Self::Addresses(addresses) }
    }

    /// Whether cache, remembered failures and the servers' health are taken into account.
    const fn counts_state(&self) -> bool {
        !matches!(self, Self::Addresses(_))
    }

    fn answer(&self, group: &Group, query: &UpstreamQuery) -> Supposed {
        match self {
            Self::None => Supposed::Unknown,
            Self::Script(suppose) => suppose(group, query),
            Self::Addresses(all) => addresses(all, query),
        }
    }
}

/// Explains a query under the configuration in force.
pub fn explain(engine: &Engine, asked: &Asked, premise: &Premise<'_>, now: Moment) -> Explanation {
    let snapshot = engine.snapshot_owned();
    let Asked { name, qtype, client, transport, do_bit } = asked.clone();
    let upstream = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit, cd: false };
    let mut explanation = Explanation {
        name: upstream.name.to_string(),
        qtype: qtype.to_string(),
        client: client.to_string(),
        transport: transport.label().to_owned(),
        dnssec: do_bit,
        access: AccessStep {
            allowed: snapshot.access.allows(client),
            network: snapshot.access.deciding(client).map(|network| network.to_string()),
        },
        ..Explanation::default()
    };
    let mut message = [0; UpstreamQuery::MAX];
    let length = upstream.write(MessageId(0), Some(snapshot.udp_payload), None, &mut message).unwrap_or(0);
    let Ok(question) = Question::read(&message[..length]) else { return explanation };
    explanation.outcome = match handle::at_once(&snapshot, &question, client, transport) {
        Some(AtOnce::Refusal(refusal)) => of_code(refusal.rcode, refusal.ede),
        Some(AtOnce::Record(record)) => ExplainedOutcome {
            source: ReplySource::Local.label().to_owned(),
            rcode: Some(Rcode::NOERROR.to_string()),
            answer: one_record(&upstream, record.rtype, record.ttl, record.rdata),
            words: "answered with a record of this server's own, whatever the rules".to_owned(),
            ..ExplainedOutcome::default()
        },
        None => {
            let view = handle::view(&snapshot, upstream.name.as_wire(), qtype, client);
            let hash = resolution::hash(&upstream, view);
            let channel = ClientChannel { transport, keepalive: None };
            let key = (upstream, hash, view);
            let query = Query::new(&question, key, client, now, channel, CacheState::MayHaveEntry);
            let mut walk = Walk { engine, premise, now, steps: Vec::new() };
            let ending = walk.answer(&query.resolution(&snapshot));
            explanation.steps = walk.steps;
            explanation.steps.iter_mut().for_each(|step| step.words = describe::words(step));
            of_ending(ending, &explanation)
        }
    };
    explanation
}

/// Response with those of the addresses that have the query's type.
fn addresses(all: &[IpAddr], query: &UpstreamQuery) -> Supposed {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let mut add = |octets: &[u8]| {
        let (owner, ttl) = (query.name.as_wire(), Ttl::from_wire(60));
        writer.plain(Section::Answer, owner, query.qtype, query.qclass, ttl, octets).ok();
    };
    for address in all {
        match (address, query.qtype) {
            (IpAddr::V4(address), RecordType::A) => add(&address.octets()),
            (IpAddr::V6(address), RecordType::AAAA) => add(&address.octets()),
            _ => {}
        }
    }
    match Response::read(&writer.finish(super::OUR_HEADER), query, MessageId(0), None) {
        Ok(response) => Supposed::Answer(Box::new(response)),
        Err(_) => Supposed::Unknown,
    }
}

fn of_ending(ending: Ending, explanation: &Explanation) -> ExplainedOutcome {
    match ending {
        Ending::Answer(Known { response, source, reason }) => ExplainedOutcome {
            source: source.label().to_owned(),
            rcode: Some(response.rcode().to_string()),
            ede: reason.as_ref().map(|reason| extended(&reason.ede())),
            answer: records(response.message()),
            words: describe::answered(source, &response, reason.as_ref()),
        },
        Ending::Error(error) => of_code(error.rcode, Some(error.reason.ede())),
        Ending::Open => ExplainedOutcome {
            source: ReplySource::Upstream.label().to_owned(),
            words: describe::open(explanation),
            ..ExplainedOutcome::default()
        },
    }
}

/// A reply without records.
fn of_code(rcode: Rcode, ede: Option<Ede<'_>>) -> ExplainedOutcome {
    let source = if rcode == Rcode::REFUSED { ReplySource::Refused } else { ReplySource::Error };
    let ede = ede.as_ref().map(extended);
    let why = match &ede {
        Some(ede) if ede.text.is_empty() => format!(": {}", ede.meaning),
        Some(ede) => format!(": {}, {}", ede.meaning, ede.text),
        None => String::new(),
    };
    let words = format!("{rcode}{why}");
    ExplainedOutcome {
        source: source.label().to_owned(),
        rcode: Some(rcode.to_string()),
        ede,
        words,
        ..ExplainedOutcome::default()
    }
}

fn extended(error: &Ede<'_>) -> ExtendedError {
    let code = error.code.number();
    ExtendedError { code, meaning: ede::meaning(code).to_owned(), text: error.text.to_owned() }
}

fn one_record(query: &UpstreamQuery, rtype: RecordType, ttl: Ttl, rdata: &[u8]) -> Vec<String> {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    writer.plain(Section::Answer, query.name.as_wire(), rtype, query.qclass, ttl, rdata).ok();
    records(&writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] }))
}
