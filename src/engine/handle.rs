//! The hot path: a message from a client to a reply, a wait, or nothing. Synchronous, no allocation on a hit, no system
//! call, no log, no clock; at most one shard's lock.
//!
//! Policy, in this order (the table of replies is in the README):
//! - What is no query gets no answer; what cannot be taken is refused by its header (RFC 8906, RFC 9619).
//! - Clients that are not served: REFUSED, EDE 18.
//! - CH TXT about this server (RFC 4892): the configured text. Other questions in classes other than IN: REFUSED.
//! - Zone transfers: REFUSED, EDE 20. ANY over UDP: HINFO (RFC 8482).
//! - RD is not asked for: to a client we are its resolver either way.
//! - A client's cookie is answered with ours in all of these (RFC 7873); only clients that send one pay for it.
//! - Then the cache; what it does not have goes to [`resolve`](super::resolve), as long as not too many wait; but a
//!   probe of our own that came back is SERVFAIL ([`crate::upstream::loops`]).

use std::net::IpAddr;

use super::{
    Engine,
    errand::Past,
    failure::STRIPPED,
    query::{Carrier, Query},
    snapshot::Snapshot,
};
use crate::{
    cache::{Hash, Integrity, Key, Lookup, Prefetch, Stamp},
    clock::Moment,
    metrics::{self, Source},
    wire::{
        Class, Cookie, Ede, EdeCode, NameBuf, Question, Rcode, RecordType, Reject, UpstreamQuery,
        cookie::Secret,
        edns::Edns,
        header::HEADER,
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

    /// What nobody is answered: classes and types that are no data, and zone transfers.
    fn for_kind(question: &Question<'_>) -> Option<Self> {
        if question.qclass != Class::IN {
            return Some(Refusal { rcode: Rcode::REFUSED, ede: None });
        }
        match question.qtype {
            RecordType::AXFR | RecordType::IXFR => Some(Self::of(Rcode::REFUSED, EdeCode::NotAuthoritative)),
            // OPT, TKEY and TSIG are no data that could be asked for (RFC 6895 3.1).
            RecordType::OPT | RecordType::TKEY | RecordType::TSIG => Some(Refusal { rcode: Rcode::FORMERR, ede: None }),
            _ => None,
        }
    }
}

/// The record of an answer that needs no zone and no upstream.
struct OwnRecord<'a> {
    rtype: RecordType,
    ttl: u32,
    rdata: &'a [u8],
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
            Ok(mut question) => {
                if let Some(cookie) = question.edns.as_mut().and_then(|edns| edns.cookie.as_mut()) {
                    turn.answer_cookie(cookie);
                }
                turn.take(&question)
            }
            Err(reject) => turn.reject(reject),
        }
    }

    /// What cookies are made with under this configuration.
    fn cookie_secrets<'a>(&'a self, snapshot: &'a Snapshot) -> &'a [Secret] {
        if snapshot.cookie_secrets.is_empty() { &self.own_secret } else { &snapshot.cookie_secrets }
    }
}

/// The names that a server's own version and identity are asked for by (RFC 4892, and BIND's custom), in wire form.
const ABOUT_THIS_SERVER: &[&[u8]] =
    &[b"\x07version\x04bind\0", b"\x07version\x06server\0", b"\x02id\x06server\0", b"\x08hostname\x04bind\0"];

impl<'a> Turn<'a, '_> {
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
            Reject::CookieOnly { echo, edns } => return self.cookie_only(&echo, edns),
            Reject::Reply { echo, rcode, edns } => (echo, rcode, edns),
        };
        self.refuse(&echo, edns.as_ref(), &Refusal { rcode, ede: None })
    }

    fn refuse(self, echo: &Echo<'_>, edns: Option<&Edns<'_>>, refusal: &Refusal<'_>) -> Action {
        let source = if refusal.rcode == Rcode::REFUSED { Source::Refused } else { Source::Error };
        let ede = refusal.ede.filter(|_| edns.is_some());
        self.counters.answered_at_once(source, refusal.rcode.0, ede.map(|ede| ede.code.index()));
        let space = self.space(edns);
        Action::Reply(reply::bare(self.reply, echo, edns, refusal.rcode, refusal.ede, space))
    }

    /// Puts a cookie of ours in the place of the client's. Out of line: most clients send none.
    #[inline(never)]
    fn answer_cookie(&self, cookie: &mut Cookie) {
        let secrets = self.engine.cookie_secrets(self.snapshot);
        let now = self.snapshot.wall_seconds(self.asked.now);
        if let Some(ours) = cookie.answered(secrets, self.asked.client, now) {
            *cookie = ours;
        }
    }

    /// NOERROR with a cookie, for who asks for nothing else (RFC 7873 5.4).
    fn cookie_only(self, echo: &Echo<'_>, mut edns: Edns<'_>) -> Action {
        if let Some(cookie) = &mut edns.cookie {
            self.answer_cookie(cookie);
        }
        if !self.snapshot.access.allows(self.asked.client) {
            return self.refuse(echo, Some(&edns), &Refusal::of(Rcode::REFUSED, EdeCode::Prohibited));
        }
        self.counters.answered_at_once(Source::Local, Rcode::NOERROR.0, None);
        let space = self.space(Some(&edns));
        Action::Reply(reply::bare(self.reply, echo, Some(&edns), Rcode::NOERROR, None, space))
    }

    fn space(&self, edns: Option<&Edns<'_>>) -> Space {
        self.asked.carrier.space(edns, self.snapshot.udp_payload)
    }

    fn take(self, question: &Question<'_>) -> Action {
        if !self.snapshot.access.allows(self.asked.client) {
            let refusal = Refusal::of(Rcode::REFUSED, EdeCode::Prohibited);
            return self.refuse(&question.echo, question.edns.as_ref(), &refusal);
        }
        if let Some(record) = self.own_record(question) {
            return self.give(question, &record);
        }
        if let Some(refusal) = Refusal::for_kind(question) {
            return self.refuse(&question.echo, question.edns.as_ref(), &refusal);
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

    fn look_up(self, question: &Question<'_>, key: &Key<'_>) -> Action {
        let hash = key.hash();
        let seconds = self.asked.now.seconds();
        let snapshot = self.snapshot;
        let revalidate =
            |message: &[u8], stamp: Stamp| snapshot.revalidate(message, stamp, self.asked.client, key.view);
        let lookup = self.engine.cache.get(key, hash, seconds, snapshot.generation, self.reply, revalidate);
        let found = match lookup {
            Lookup::Hit(found) | Lookup::TooLarge(found) => found,
            Lookup::Miss => return self.resolve(question, key, hash, Past::Unknown),
            Lookup::Expired(_) => return self.resolve(question, key, hash, Past::Known),
        };
        let space = self.space(question.edns.as_ref());
        let rcode = Rcode(u16::from(self.reply[3] & 0x0f));
        let ede = match found.integrity {
            Integrity::Whole => None,
            Integrity::Stripped => Some(Ede { code: EdeCode::Blocked, text: STRIPPED }),
        };
        let length = match lookup {
            Lookup::TooLarge(_) => reply::truncated(self.reply, question, rcode, space),
            _ => reply::finish(self.reply, found.length, question, ede, space),
        };
        let told = ede.filter(|_| question.edns.is_some()).map(|ede| ede.code.index());
        self.counters.answered_at_once(Source::Cache, rcode.0, told);
        self.counters.hit();
        snapshot.count_rule(found.rule, self.counters);
        if found.prefetch == Prefetch::NotDue || !snapshot.prefetch {
            return Action::Reply(length);
        }
        self.counters.prefetched();
        Action::ReplyAndRefresh(length, Box::new(self.query(question, key, hash, Past::Due)))
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

    /// SERVFAIL for a reason in words.
    fn fail(self, question: &Question<'_>, text: &str) -> Action {
        let refusal = Refusal { rcode: Rcode::SERVFAIL, ede: Some(Ede { code: EdeCode::Other, text }) };
        self.refuse(&question.echo, question.edns.as_ref(), &refusal)
    }

    fn resolve(self, question: &Question<'_>, key: &Key<'_>, hash: Hash, past: Past) -> Action {
        self.counters.missed();
        // Before the bound on what waits: a loop is what may fill it.
        if self.engine.loops.comes_back(key.name, self.asked.now) {
            return self.fail(question, "a loop: this question was asked by this server");
        }
        let Some(permit) = self.engine.waiting.admit(self.snapshot.in_flight) else {
            return self.fail(question, "overload");
        };
        let mut query = self.query(question, key, hash, past);
        query.hold(permit);
        Action::Resolve(Box::new(query))
    }

    /// The one record that answers a question about this server (RFC 4892), or for ANY over UDP: HINFO "RFC8482" ""
    /// (RFC 8482 4.2).
    fn own_record(&self, question: &Question<'_>) -> Option<OwnRecord<'a>> {
        match (question.qclass, question.qtype) {
            (Class::IN, RecordType::ANY) if self.asked.carrier == Carrier::Datagram => {
                Some(OwnRecord { rtype: RecordType::HINFO, ttl: 3600, rdata: b"\x07RFC8482\0" })
            }
            (Class::CH, RecordType::TXT) => {
                let rdata = self.snapshot.chaos.as_deref()?;
                let is_about = ABOUT_THIS_SERVER.iter().any(|name| name.eq_ignore_ascii_case(question.name()));
                is_about.then_some(OwnRecord { rtype: RecordType::TXT, ttl: 0, rdata })
            }
            _ => None,
        }
    }

    fn give(self, question: &Question<'_>, record: &OwnRecord<'_>) -> Action {
        let Ok(rdata_length) = u16::try_from(record.rdata.len()) else { return Action::Drop };
        let space = self.space(question.edns.as_ref());
        let start = HEADER + question.echo.section.len();
        let shell = reply::bare(self.reply, &question.echo, None, Rcode::NOERROR, None, space);
        debug_assert_eq!(shell, start, "a shell without OPT is header and question");
        // The owner is a pointer to QNAME.
        let mut fixed = [0xc0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fixed[2..4].copy_from_slice(&record.rtype.0.to_be_bytes());
        fixed[4..6].copy_from_slice(&question.qclass.0.to_be_bytes());
        fixed[6..10].copy_from_slice(&record.ttl.to_be_bytes());
        fixed[10..].copy_from_slice(&rdata_length.to_be_bytes());
        let rdata_at = start + fixed.len();
        let end = rdata_at + record.rdata.len();
        self.reply[start..rdata_at].copy_from_slice(&fixed);
        self.reply[rdata_at..end].copy_from_slice(record.rdata);
        self.reply[7] = 1;
        self.counters.answered_at_once(Source::Local, Rcode::NOERROR.0, None);
        Action::Reply(reply::finish(self.reply, end, question, None, space))
    }
}
