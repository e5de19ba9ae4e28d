//! A query that the cache could not answer: what `handle` hands to `resolve`, owned.

use std::{net::IpAddr, sync::Arc};

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
        Edns, Flags, MessageId, UpstreamQuery,
        question::{Echo, Question},
        reply::Space,
    },
};

/// What carried the query, and will carry the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram: replies are bounded by what the client takes.
    Datagram,
    /// A stream: replies may be of any length.
    Stream,
}

impl Carrier {
    /// The space for a reply to a client with this OPT, where `payload` is our own bound on datagrams.
    pub fn space(self, edns: Option<&Edns<'_>>, payload: u16) -> Space {
        match self {
            Self::Datagram => Space::datagram(edns, payload),
            Self::Stream => Space::stream(payload),
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
    pub carrier: Carrier,
    /// What the cache has for it.
    pub cached: CacheState,
    id: MessageId,
    flags: Flags,
    section: Box<[u8]>,
    edns: Option<Edns<'static>>,
    /// Held until the reply is made.
    permit: Option<Permit>,
}

impl Query {
    /// Copies what must outlive the client's message.
    pub fn new(
        question: &Question<'_>,
        key: (UpstreamQuery, Hash, View),
        client: IpAddr,
        received: Moment,
        carrier: Carrier,
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
            section: question.echo.section.into(),
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
        let found = snapshot.table.find(self.upstream.name.as_wire(), self.client);
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
