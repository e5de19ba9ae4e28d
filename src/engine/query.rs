//! A question that the cache could not answer: what `handle` hands to `resolve`, owned.

use std::{net::IpAddr, sync::Arc};

use super::{
    errand::{self, Errand, Past},
    pending::Permit,
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

/// What carried the question, and will carry the reply.
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

/// A question on its way to an answer.
#[derive(Debug)]
pub struct Query {
    /// The question without its client.
    pub asked: Arc<UpstreamQuery>,
    /// The hash of its cache key.
    pub hash: Hash,
    /// The view it is asked in.
    pub view: View,
    /// Who asks.
    pub client: IpAddr,
    /// When it came.
    pub received: Moment,
    /// Where the reply goes.
    pub carrier: Carrier,
    /// What the cache has of it.
    pub past: Past,
    id: MessageId,
    flags: Flags,
    section: Box<[u8]>,
    edns: Option<Edns<'static>>,
    /// Held until the reply is made.
    permit: Option<Permit>,
}

impl Query {
    /// Takes what a question needs to outlive its datagram.
    pub fn new(
        question: &Question<'_>,
        key: (UpstreamQuery, Hash, View),
        client: IpAddr,
        received: Moment,
        carrier: Carrier,
        past: Past,
    ) -> Self {
        let (asked, hash, view) = key;
        Self {
            asked: Arc::new(asked),
            hash,
            view,
            client,
            received,
            carrier,
            past,
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

    /// The question without its client's message, to be answered under this snapshot, where the client's view may be
    /// another than in the one it was read under.
    pub fn errand(&self, snapshot: &Arc<Snapshot>) -> Errand {
        let found = snapshot.table.find(self.asked.name.as_wire(), self.client);
        let view = found.map_or(0, |found| found.view);
        Errand {
            asked: Arc::clone(&self.asked),
            hash: if view == self.view { self.hash } else { errand::hash(&self.asked, view) },
            view,
            client: self.client,
            found,
            deadline: self.received + snapshot.deadline,
            past: self.past,
            snapshot: Arc::clone(snapshot),
            leads: None,
        }
    }

    /// The question as the client asked it.
    pub fn question(&self) -> Question<'_> {
        Question {
            echo: Echo { id: self.id, flags: self.flags, section: &self.section },
            qtype: self.asked.qtype,
            qclass: self.asked.qclass,
            edns: self.edns,
        }
    }
}
