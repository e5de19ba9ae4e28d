//! A query that the cache could not answer: what `handle` hands to `resolve`, owned.

use std::{net::IpAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::{
    pending::Permit,
    resolution::{self, CacheState, Resolution},
    snapshot::Snapshot,
};
use crate::{
    cache::Hash,
    clock::Moment,
    route::View,
    wire::{
        Edns, Flags, MessageId, Transport, UpstreamQuery,
        question::{Echo, Question},
        reply::Space,
    },
};

/// The channel to the client: it carried the query, and will carry the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientChannel {
    /// The transport. Only over UDP is the length of replies limited.
    pub transport: Transport,
    /// The connection's idle time-out in units of 100 ms, if it can be announced (RFC 7828).
    pub keepalive: Option<u16>,
}

impl ClientChannel {
    /// A datagram over UDP.
    pub const DATAGRAM: Self = Self { transport: Transport::Udp, keepalive: None };

    /// A connection that is closed after this idle time.
    pub fn stream(transport: Transport, idle: Duration) -> Self {
        // HTTP and QUIC have time-outs of their own to tell (RFC 9250 5.5.2).
        let is_told = matches!(transport, Transport::Tcp | Transport::Tls);
        let units = u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX);
        Self { transport, keepalive: is_told.then_some(units) }
    }

    /// The space for a reply to a client with this OPT record. `payload` is our own limit for datagrams.
    pub fn space(self, edns: Option<&Edns<'_>>, payload: u16) -> Space {
        let Self { transport, keepalive } = self;
        match transport {
            Transport::Udp => Space::datagram(edns, payload),
            // Encrypted replies are padded, so that their length says little (RFC 8467).
            _ => Space { keepalive, pads: transport.is_encrypted(), ..Space::stream(payload) },
        }
    }
}

/// A client's query that is being resolved.
#[derive(Debug)]
pub struct Query {
    /// The query without its client's message.
    pub upstream: Arc<UpstreamQuery>,
    /// The hash of its cache key.
    pub hash: Hash,
    /// The view that its cache key has.
    pub view: View,
    /// The client.
    pub client: IpAddr,
    /// When it was read.
    pub received: Moment,
    /// Where the reply goes.
    pub carrier: ClientChannel,
    /// What the cache has for it.
    pub cached: CacheState,
    id: MessageId,
    flags: Flags,
    /// The question section as it came; that of most names is in the memory of the query itself.
    section: SmallVec<[u8; 64]>,
    edns: Option<Edns<'static>>,
    /// Held until the reply is made.
    permit: Option<Permit>,
}

impl Query {
    /// Copies the parts that must outlive the client's message.
    pub fn new(
        question: &Question<'_>,
        key: (UpstreamQuery, Hash, View),
        client: IpAddr,
        received: Moment,
        carrier: ClientChannel,
        cached: CacheState,
    ) -> Self {
        let (upstream, hash, view) = key;
        Self {
            upstream: Arc::new(upstream),
            hash,
            view,
            client,
            received,
            carrier,
            cached,
            id: question.echo.id,
            flags: question.echo.flags,
            section: SmallVec::from_slice(question.echo.section),
            edns: question.edns.map(Edns::without_options),
            permit: None,
        }
    }

    /// Holds the right to wait for an upstream.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Begins its resolution under this snapshot, where the client's view may be another than in the one it was read
    /// under.
    pub fn resolution(&self, snapshot: &Arc<Snapshot>) -> Resolution {
        let found = snapshot.find(self.upstream.name.as_wire(), self.upstream.qtype, self.client);
        let view = found.map_or(0, |found| found.view);
        Resolution {
            query: Arc::clone(&self.upstream),
            hash: if view == self.view { self.hash } else { resolution::hash(&self.upstream, view) },
            view,
            client: self.client,
            found,
            deadline: self.received + snapshot.deadline,
            cached: self.cached,
            snapshot: Arc::clone(snapshot),
            leads: None,
            span: None,
        }
    }

    /// The client's question, for the reply.
    pub fn question(&self) -> Question<'_> {
        Question {
            echo: Echo { id: self.id, flags: self.flags, section: &self.section },
            qtype: self.upstream.qtype,
            qclass: self.upstream.qclass,
            edns: self.edns,
        }
    }
}
