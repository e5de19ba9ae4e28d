//! The hot path: a message from a client to a reply, a wait, or nothing. Synchronous, no allocation on a hit, no system
//! call, no log, no clock; at most one shard's lock.
//!
//! Policy, in this order (the table of replies is in the README):
//! - A message that is not a query is dropped; a query that cannot be handled is refused by its header (RFC 8906, RFC
//!   9619).
//! - Clients that are not served: REFUSED, EDE 18.
//! - CH TXT about this server (RFC 4892): the configured text. Other queries in classes other than IN: REFUSED.
//! - Zone transfers: REFUSED, EDE 20. ANY over UDP: HINFO (RFC 8482).
//! - RD is ignored: clients use us as their resolver whether they set it or not.
//! - A client's cookie is answered with ours in all of these (RFC 7873); only clients that send one pay for it.
//! - Then the cache; what it does not have goes to [`resolve`](super::resolve), as long as not too many wait; but a
//!   probe of our own that came back is SERVFAIL ([`crate::upstream::loops`]).

use std::net::IpAddr;

use super::{
    Engine,
    client_limit::Passage,
    error::STRIPPED,
    query::{ClientChannel, Query},
    query_log::{self, LoggedQuery},
    resolution::CacheState,
    rotation,
    snapshot::Snapshot,
};
use crate::{
    cache::{CacheKey, Hash, Integrity, Lookup, Prefetch, Stamp},
    clock::Moment,
    metrics::{self, CacheUse, CountedReply, DropReason, QueryOutcome, ReplySource},
    route::View,
    wire::{
        Class, Cookie, Ede, EdeCode, NameBuf, Question, Rcode, RecordType, Reject, Transport, Ttl, UpstreamQuery,
        edns::Edns,
        question::Echo,
        reply::{self, SoleRecord, Space},
        rotate::rotate,
    },
};

/// A message from a client.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its octets.
    pub message: &'a [u8],
    /// The sender.
    pub client: IpAddr,
    /// The kind of transport it came over.
    pub carrier: ClientChannel,
    /// When it was read.
    pub now: Moment,
}

/// What the caller must do with a message.
#[derive(Debug)]
pub enum Action {
    /// Send the reply in the buffer, which has this length in octets.
    Reply(usize),
    /// Send the reply, and resolve this query to refresh a popular entry that is about to expire.
    ReplyAndRefresh(usize, Box<Query>),
    /// Send nothing.
    Drop,
    /// Resolve the query, then reply.
    Resolve(Box<Query>),
}

/// A reply without records.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    pub(super) rcode: Rcode,
    pub(super) ede: Option<Ede<'a>>,
}

/// A reply that does not need the cache.
#[derive(Debug)]
pub(super) enum AtOnce<'s> {
    /// A response code without records.
    Refusal(Refusal<'s>),
    /// One record of our own.
    Record(SoleRecord<'s>),
}

/// Decides what depends only on client, transport and kind of query.
#[inline]
pub(super) fn at_once<'s>(
    snapshot: &'s Snapshot,
    question: &Question<'_>,
    client: IpAddr,
    transport: Transport,
) -> Option<AtOnce<'s>> {
    if !snapshot.access.allows(client) {
        return Some(AtOnce::Refusal(Refusal::of(Rcode::REFUSED, EdeCode::Prohibited)));
    }
    if let Some(record) = own_record(snapshot, question, transport) {
        return Some(AtOnce::Record(record));
    }
    Refusal::for_kind(question).map(AtOnce::Refusal)
}

/// The one record that answers a query about this server (RFC 4892), or for ANY over UDP: HINFO "RFC8482" "" (RFC 8482
/// 4.2).
fn own_record<'s>(snapshot: &'s Snapshot, question: &Question<'_>, transport: Transport) -> Option<SoleRecord<'s>> {
    match (question.qclass, question.qtype) {
        (Class::IN, RecordType::ANY) if transport == Transport::Udp => {
            Some(SoleRecord { rtype: RecordType::HINFO, ttl: ANY_TTL, rdata: b"\x07RFC8482\0" })
        }
        (Class::CH, RecordType::TXT) => {
            let rdata = snapshot.chaos.as_deref()?;
            let is_about = ABOUT_THIS_SERVER.iter().any(|name| name.eq_ignore_ascii_case(question.name()));
            is_about.then_some(SoleRecord { rtype: RecordType::TXT, ttl: Ttl::ZERO, rdata })
        }
        _ => None,
    }
}

/// The view of a query's cache key.
#[inline]
pub(super) fn view(snapshot: &Snapshot, name: &[u8], qtype: RecordType, client: IpAddr) -> View {
    match snapshot.table.has_views() {
        true => snapshot.find(name, qtype, client).map_or(0, |found| found.view),
        false => 0,
    }
}

impl Refusal<'_> {
    const fn of(rcode: Rcode, code: EdeCode) -> Self {
        Refusal { rcode, ede: Some(Ede::bare(code)) }
    }

    /// Refuses classes and types that are not data, and zone transfers.
    fn for_kind(question: &Question<'_>) -> Option<Self> {
        if question.qclass != Class::IN {
            return Some(Refusal { rcode: Rcode::REFUSED, ede: None });
        }
        match question.qtype {
            RecordType::AXFR | RecordType::IXFR => Some(Self::of(Rcode::REFUSED, EdeCode::NotAuthoritative)),
            RecordType::NXNAME => Some(Self::of(Rcode::FORMERR, EdeCode::InvalidQueryType)),
            qtype if qtype.is_meta() => Some(Refusal { rcode: Rcode::FORMERR, ede: None }),
            _ => None,
        }
    }
}

/// The state for handling one message.
struct Handler<'a, 'r> {
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    counters: &'a metrics::WorkerCounters,
    incoming: &'a Incoming<'a>,
    reply: &'r mut [u8],
}

/// See [`Engine::handle`].
pub(super) fn handle(
    engine: &Engine,
    snapshot: &Snapshot,
    counters: &metrics::WorkerCounters,
    incoming: &Incoming<'_>,
    reply: &mut [u8],
) -> Action {
    let handler = Handler { engine, snapshot, counters, incoming, reply };
    match Question::read(incoming.message) {
        Ok(mut question) => {
            if let Some(cookie) = question.edns.as_mut().and_then(|edns| edns.cookie.as_mut()) {
                handler.answer_cookie(cookie);
            }
            match handler.passage(question.is_proven()) {
                Passage::Free => handler.take(&question),
                Passage::Slip => handler.slip(&question),
                Passage::Dropped => handler.drop(DropReason::RateLimited),
            }
        }
        Err(reject) if handler.passage(false) == Passage::Free => handler.reject(reject),
        Err(_) => handler.drop(DropReason::RateLimited),
    }
}

/// The names that a server's own version and identity are asked for by (RFC 4892, and BIND's custom), in wire form.
const ABOUT_THIS_SERVER: &[&[u8]] =
    &[b"\x07version\x04bind\0", b"\x07version\x06server\0", b"\x02id\x06server\0", b"\x08hostname\x04bind\0"];

/// The TTL of the HINFO record that answers ANY.
const ANY_TTL: Ttl = Ttl::from_wire(3600);

impl Handler<'_, '_> {
    /// Applies the client's rate limit. A stream or a valid cookie proves the address, and is not limited.
    fn passage(&self, is_proven: bool) -> Passage {
        match &self.snapshot.client_limit {
            Some(limit) if self.incoming.carrier.transport == Transport::Udp && !is_proven => {
                self.engine.clients.admit(limit, self.incoming.client, self.incoming.now)
            }
            _ => Passage::Free,
        }
    }

    /// Sends a client over its rate limit to a stream, which proves its address.
    fn slip(self, question: &Question<'_>) -> Action {
        self.count(ReplySource::Refused, Rcode::NOERROR, None, CacheUse::Unused);
        let space = self.space(question.edns.as_ref());
        Action::Reply(reply::truncated(self.reply, question, Rcode::NOERROR, space))
    }

    fn reject(self, reject: Reject<'_>) -> Action {
        let (echo, rcode, edns) = match reject {
            Reject::Malformed => return self.drop(DropReason::Malformed),
            Reject::Response => return self.drop(DropReason::Response),
            Reject::CookieOnly { echo, edns } => return self.cookie_only(&echo, edns),
            Reject::Reply { echo, rcode, edns } => (echo, rcode, edns),
        };
        self.refuse(&echo, edns.as_ref(), &Refusal { rcode, ede: None })
    }

    fn drop(self, reason: DropReason) -> Action {
        self.counters.record(QueryOutcome::Dropped(reason));
        Action::Drop
    }

    fn refuse(self, echo: &Echo<'_>, edns: Option<&Edns<'_>>, refusal: &Refusal<'_>) -> Action {
        self.give_up(echo, edns, refusal, CacheUse::Unused)
    }

    fn give_up(self, echo: &Echo<'_>, edns: Option<&Edns<'_>>, refusal: &Refusal<'_>, cache: CacheUse<'_>) -> Action {
        let source = if refusal.rcode == Rcode::REFUSED { ReplySource::Refused } else { ReplySource::Error };
        self.count(source, refusal.rcode, refusal.ede.filter(|_| edns.is_some()), cache);
        let space = self.space(edns);
        Action::Reply(reply::bare(self.reply, echo, edns, refusal.rcode, refusal.ede, space))
    }

    fn count(&self, source: ReplySource, rcode: Rcode, ede: Option<Ede<'_>>, cache: CacheUse<'_>) {
        let reply = CountedReply { source, rcode, ede: ede.map(|ede| ede.code) };
        self.counters.record(QueryOutcome::AtOnce(reply, cache));
        if query_log::takes(self.snapshot.query_log, rcode) {
            self.log(reply);
        }
    }

    /// Logs the query. Reads the question section again, so that only logged queries pay for it.
    #[cold]
    #[inline(never)]
    fn log(&self, reply: CountedReply) {
        let section = match Question::read(self.incoming.message) {
            Ok(Question { echo, .. }) | Err(Reject::Reply { echo, .. } | Reject::CookieOnly { echo, .. }) => {
                echo.section
            }
            Err(Reject::Malformed | Reject::Response) => &[],
        };
        let Incoming { client, carrier, now, .. } = *self.incoming;
        let took = Moment::now().since(now);
        LoggedQuery { client, transport: carrier.transport, section, reply, server: None, took }.write();
    }

    /// Replaces the client's cookie with ours. Out of line, since most clients send none.
    #[inline(never)]
    fn answer_cookie(&self, cookie: &mut Cookie) {
        let configured = &self.snapshot.cookie_secrets[..];
        let secrets = if configured.is_empty() { &self.engine.own_secret } else { configured };
        let now = self.snapshot.wall_seconds(self.incoming.now);
        if let Some(ours) = cookie.answered(secrets, self.incoming.client, now) {
            *cookie = ours;
        }
    }

    /// NOERROR with a cookie, for a query that asks only for a cookie (RFC 7873 5.4).
    fn cookie_only(self, echo: &Echo<'_>, mut edns: Edns<'_>) -> Action {
        if let Some(cookie) = &mut edns.cookie {
            self.answer_cookie(cookie);
        }
        if !self.snapshot.access.allows(self.incoming.client) {
            return self.refuse(echo, Some(&edns), &Refusal::of(Rcode::REFUSED, EdeCode::Prohibited));
        }
        self.count(ReplySource::Local, Rcode::NOERROR, None, CacheUse::Unused);
        let space = self.space(Some(&edns));
        Action::Reply(reply::bare(self.reply, echo, Some(&edns), Rcode::NOERROR, None, space))
    }

    fn space(&self, edns: Option<&Edns<'_>>) -> Space {
        self.incoming.carrier.space(edns, self.snapshot.udp_payload)
    }

    fn take(self, question: &Question<'_>) -> Action {
        match at_once(self.snapshot, question, self.incoming.client, self.incoming.carrier.transport) {
            Some(AtOnce::Refusal(refusal)) => return self.refuse(&question.echo, question.edns.as_ref(), &refusal),
            Some(AtOnce::Record(record)) => {
                self.count(ReplySource::Local, Rcode::NOERROR, None, CacheUse::Unused);
                let space = self.space(question.edns.as_ref());
                return Action::Reply(reply::with_record(self.reply, question, &record, space));
            }
            None => {}
        }
        let name = NameBuf::lowercase_of(question.name());
        let view = view(self.snapshot, name.as_wire(), question.qtype, self.incoming.client);
        let key = CacheKey {
            name: name.as_wire(),
            qtype: question.qtype,
            qclass: question.qclass,
            do_bit: question.do_bit(),
            cd: question.cd(),
            view,
        };
        self.look_up(question, &key)
    }

    fn look_up(self, question: &Question<'_>, key: &CacheKey<'_>) -> Action {
        let hash = key.hash();
        let seconds = self.incoming.now.seconds();
        let snapshot = self.snapshot;
        let revalidate =
            |message: &[u8], stamp: Stamp| snapshot.revalidate(message, stamp, self.incoming.client, key.view);
        let lookup = self.engine.cache.get(key, hash, seconds, snapshot.generation, self.reply, revalidate);
        let found = match lookup {
            Lookup::Hit(found) | Lookup::TooLarge(found) => found,
            Lookup::Miss => return self.resolve(question, key, hash, CacheState::Empty),
            Lookup::Expired(_) => return self.resolve(question, key, hash, CacheState::MayHaveEntry),
        };
        if snapshot.rotate
            && let Some(message) = self.reply.get_mut(..found.length)
        {
            rotate(message, question.echo.section.len(), rotation::choose);
        }
        let space = self.space(question.edns.as_ref());
        let rcode = Rcode(u16::from(self.reply[3] & 0x0f));
        let ede = match found.integrity {
            Integrity::Whole => None,
            Integrity::Stripped => Some(Ede::new(EdeCode::Blocked, STRIPPED)),
        };
        let length = match lookup {
            Lookup::TooLarge(_) => reply::truncated(self.reply, question, rcode, space),
            _ => reply::finish(self.reply, found.length, question, ede, space),
        };
        let prefetch = found.prefetch == Prefetch::Due && snapshot.prefetch;
        let cache = CacheUse::Hit { rule: snapshot.counters_of(found.rule), prefetch };
        self.count(ReplySource::Cache, rcode, ede.filter(|_| question.edns.is_some()), cache);
        if !prefetch {
            return Action::Reply(length);
        }
        Action::ReplyAndRefresh(length, Box::new(self.query(question, key, hash, CacheState::Refresh)))
    }

    fn query(&self, question: &Question<'_>, key: &CacheKey<'_>, hash: Hash, cached: CacheState) -> Query {
        let upstream = UpstreamQuery {
            name: NameBuf::lowercase_of(key.name).to_name(),
            qtype: key.qtype,
            qclass: key.qclass,
            do_bit: key.do_bit,
            cd: key.cd,
        };
        Query::new(
            question,
            (upstream, hash, key.view),
            self.incoming.client,
            self.incoming.now,
            self.incoming.carrier,
            cached,
        )
    }

    /// SERVFAIL with a reason, for a query that the cache could not answer.
    fn fail(self, question: &Question<'_>, text: &str) -> Action {
        let refusal = Refusal { rcode: Rcode::SERVFAIL, ede: Some(Ede::new(EdeCode::Other, text)) };
        self.give_up(&question.echo, question.edns.as_ref(), &refusal, CacheUse::Miss)
    }

    fn resolve(self, question: &Question<'_>, key: &CacheKey<'_>, hash: Hash, cached: CacheState) -> Action {
        // Before the limit on waiting queries, which a loop could exhaust.
        if self.engine.loops.comes_back(key.name, self.incoming.now) {
            return self.fail(question, "a loop: this question was asked by this server");
        }
        let Some(permit) = self.engine.waiting.admit(self.snapshot.in_flight) else {
            return self.fail(question, "overload");
        };
        self.counters.record(QueryOutcome::Waiting);
        let mut query = self.query(question, key, hash, cached);
        query.hold(permit);
        Action::Resolve(Box::new(query))
    }
}
