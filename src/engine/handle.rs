//! The hot path: a message from a client to a reply, a wait, or nothing. Synchronous, no allocation on a hit, no system
//! call, no log, no clock; at most one shard's lock.
//!
//! Policy, in this order (the table of replies is in the README):
//! - What is no query gets no answer; what cannot be taken is refused by its header (RFC 8906, RFC 9619).
//! - Clients that are not served: REFUSED, EDE 18.
//! - Classes other than IN: REFUSED. Zone transfers: REFUSED, EDE 20. ANY over UDP: HINFO (RFC 8482).
//! - RD is not asked for: to a client we are its resolver either way.
//! - Then the cache; what it does not have goes to [`resolve`](super::resolve), as long as not too many wait.

use std::net::IpAddr;

use super::{
    Engine,
    errand::Past,
    query::{Carrier, Query},
    snapshot::Snapshot,
};
use crate::{
    cache::{Hash, Key, Lookup, Prefetch, Stamp},
    clock::Moment,
    metrics::{self, Source},
    wire::{
        Class, Ede, EdeCode, NameBuf, Question, Rcode, RecordType, Reject, UpstreamQuery,
        edns::Edns,
        question::Echo,
        reply::{self, Space},
    },
};

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The message's octets.
    pub message: &'a [u8],
    /// Who sent it.
    pub client: IpAddr,
    /// What carried it.
    pub carrier: Carrier,
    /// When it was read.
    pub now: Moment,
}

/// What is to be done with a message.
#[derive(Debug)]
pub enum Action {
    /// The reply stands in the buffer, so many octets long.
    Reply(usize),
    /// The same; and the entry it came from is popular and about to expire: resolve this, for nobody.
    ReplyAndRefresh(usize, Box<Query>),
    /// Nothing.
    Drop,
    /// The answer must be fetched or made.
    Resolve(Box<Query>),
}

/// A reply without records.
struct Refusal<'a> {
    rcode: Rcode,
    ede: Option<Ede<'a>>,
}

impl Refusal<'_> {
    const fn of(rcode: Rcode, code: EdeCode) -> Self {
        Refusal { rcode, ede: Some(Ede::bare(code)) }
    }
}

/// Everything one message needs, in one place.
struct Turn<'a, 'r> {
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    counters: &'a metrics::Worker,
    asked: &'a Asked<'a>,
    reply: &'r mut [u8],
}

impl Engine {
    /// Decides about one message. `reply` takes a reply of `udp_payload` octets, or 65,535 for a stream.
    pub fn handle(
        &self,
        snapshot: &Snapshot,
        counters: &metrics::Worker,
        asked: &Asked<'_>,
        reply: &mut [u8],
    ) -> Action {
        let turn = Turn { engine: self, snapshot, counters, asked, reply };
        match Question::read(asked.message) {
            Ok(question) => turn.take(&question),
            Err(reject) => turn.reject(reject),
        }
    }
}

impl Turn<'_, '_> {
    fn reject(self, reject: Reject<'_>) -> Action {
        let (echo, rcode, edns) = match reject {
            Reject::Malformed => {
                self.counters.dropped(metrics::DropReason::Malformed);
                return Action::Drop;
            }
            Reject::Response => {
                self.counters.dropped(metrics::DropReason::Response);
                return Action::Drop;
            }
            Reject::Reply { echo, rcode, edns } => (echo, rcode, edns),
        };
        self.refuse(&echo, edns.as_ref(), &Refusal { rcode, ede: None })
    }

    fn refuse(self, echo: &Echo<'_>, edns: Option<&Edns<'_>>, refusal: &Refusal<'_>) -> Action {
        let source = if refusal.rcode == Rcode::REFUSED { Source::Refused } else { Source::Error };
        let ede = refusal.ede.filter(|_| edns.is_some());
        self.counters.answered(source, refusal.rcode.0, ede.map(|ede| ede.code.index()));
        let space = self.space(edns);
        Action::Reply(reply::bare(self.reply, echo, edns, refusal.rcode, refusal.ede, space))
    }

    fn space(&self, edns: Option<&Edns<'_>>) -> Space {
        self.asked.carrier.space(edns, self.snapshot.udp_payload)
    }

    fn take(self, question: &Question<'_>) -> Action {
        if let Some(refusal) = self.refusal(question) {
            return self.refuse(&question.echo, question.edns.as_ref(), &refusal);
        }
        if question.qtype == RecordType::ANY && self.asked.carrier == Carrier::Datagram {
            return self.any(question);
        }
        let name = NameBuf::lowercase_of(question.name());
        let view = match self.snapshot.table.has_views() {
            true => self.snapshot.table.find(name.as_wire(), self.asked.client).map_or(0, |found| found.view),
            false => 0,
        };
        let key = Key {
            name: name.as_wire(),
            qtype: question.qtype,
            qclass: question.qclass,
            do_bit: question.do_bit(),
            cd: question.cd(),
            view,
        };
        self.look_up(question, &key)
    }

    fn refusal(&self, question: &Question<'_>) -> Option<Refusal<'static>> {
        if !self.snapshot.access.allows(self.asked.client) {
            return Some(Refusal::of(Rcode::REFUSED, EdeCode::Prohibited));
        }
        if question.qclass != Class::IN {
            return Some(Refusal { rcode: Rcode::REFUSED, ede: None });
        }
        match question.qtype {
            RecordType::AXFR | RecordType::IXFR => Some(Refusal::of(Rcode::REFUSED, EdeCode::NotAuthoritative)),
            // OPT, TKEY and TSIG are no data that could be asked for (RFC 6895 3.1).
            RecordType::OPT | RecordType::TKEY | RecordType::TSIG => Some(Refusal { rcode: Rcode::FORMERR, ede: None }),
            _ => None,
        }
    }

    fn look_up(self, question: &Question<'_>, key: &Key<'_>) -> Action {
        let hash = key.hash();
        let seconds = self.asked.now.seconds();
        let snapshot = self.snapshot;
        let revalidate = |message: &[u8], stamp: Stamp| snapshot.revalidate(message, stamp, self.asked.client);
        let lookup = self.engine.cache.get(key, hash, seconds, snapshot.generation, self.reply, revalidate);
        let found = match lookup {
            Lookup::Hit(found) | Lookup::TooLarge(found) => found,
            Lookup::Miss => return self.resolve(question, key, hash, Past::Unknown),
            Lookup::Expired(_) => return self.resolve(question, key, hash, Past::Known),
        };
        let space = self.space(question.edns.as_ref());
        let rcode = Rcode(u16::from(self.reply[3] & 0x0f));
        let length = match lookup {
            Lookup::TooLarge(_) => reply::truncated(self.reply, question, rcode, space),
            _ => reply::finish(self.reply, found.length, question, None, space),
        };
        self.counters.answered(Source::Cache, rcode.0, None);
        self.counters.hit();
        snapshot.count_rule(found.rule, self.counters);
        if found.prefetch == Prefetch::NotDue || !snapshot.prefetch {
            return Action::Reply(length);
        }
        self.counters.prefetched();
        Action::ReplyAndRefresh(length, Box::new(self.query(question, key, hash, Past::Known)))
    }

    fn query(&self, question: &Question<'_>, key: &Key<'_>, hash: Hash, past: Past) -> Query {
        let asked = UpstreamQuery {
            name: NameBuf::lowercase_of(key.name).to_name(),
            qtype: key.qtype,
            qclass: key.qclass,
            do_bit: key.do_bit,
            cd: key.cd,
        };
        Query::new(question, (asked, hash, key.view), self.asked.client, self.asked.now, self.asked.carrier, past)
    }

    fn resolve(self, question: &Question<'_>, key: &Key<'_>, hash: Hash, past: Past) -> Action {
        self.counters.missed();
        let Some(permit) = self.engine.waiting.admit(self.snapshot.in_flight) else {
            let overload = Ede { code: EdeCode::Other, text: "overload" };
            let refusal = Refusal { rcode: Rcode::SERVFAIL, ede: Some(overload) };
            return self.refuse(&question.echo, question.edns.as_ref(), &refusal);
        };
        let mut query = self.query(question, key, hash, past);
        query.hold(permit);
        Action::Resolve(Box::new(query))
    }

    /// HINFO "RFC8482" "" (RFC 8482 4.2).
    fn any(self, question: &Question<'_>) -> Action {
        const ANSWER: &[u8] = b"\xc0\x0c\0\x0d\0\x01\0\0\x0e\x10\0\x09\x07RFC8482\0";
        let space = self.space(question.edns.as_ref());
        let end = crate::wire::header::HEADER + question.echo.section.len();
        let shell = reply::bare(self.reply, &question.echo, None, Rcode::NOERROR, None, space);
        debug_assert_eq!(shell, end, "a shell without OPT is header and question");
        self.reply[end..end + ANSWER.len()].copy_from_slice(ANSWER);
        self.reply[7] = 1;
        self.counters.answered(Source::Local, 0, None);
        Action::Reply(reply::finish(self.reply, end + ANSWER.len(), question, None, space))
    }
}
