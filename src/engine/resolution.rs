//! The state of one query during resolution, cheap to clone for each step of a CNAME chain.

use std::{cell::Cell, net::IpAddr, rc::Rc, sync::Arc};

use super::snapshot::{Snapshot, Target};
use crate::{
    cache::{CacheKey, Hash},
    clock::Moment,
    otlp::Span,
    route::{RouteMatch, View},
    wire::{Name, UpstreamQuery},
};

/// The state of the cache for a query that it could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheState {
    /// No entry.
    Empty,
    /// There may be an entry, expired or not.
    MayHaveEntry,
    /// There is an entry that is being refreshed: cached answers must not be used.
    Refresh,
}

/// A query to be answered by a deadline, under one snapshot.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The query without its client's message.
    pub query: Arc<UpstreamQuery>,
    /// The hash of its cache key.
    pub hash: Hash,
    /// The view that its cache key has.
    pub view: View,
    /// The client.
    pub client: IpAddr,
    /// What the cache has for it.
    pub cached: CacheState,
    /// Its route; none if no rule covers it.
    pub found: Option<RouteMatch<Target>>,
    /// The time by which the client must have its answer.
    pub deadline: Moment,
    /// The configuration that it is resolved under.
    pub snapshot: Arc<Snapshot>,
    /// The exchanges it leads, where its client may get a stale answer before they end.
    pub leads: Option<Rc<LeadCount>>,
    /// The span of its trace that further ones are below.
    pub span: Option<Span>,
}

/// The number of exchanges that a query leads at this moment, whose answers others may wait for.
#[derive(Debug, Default)]
pub struct LeadCount(Cell<u32>);

impl LeadCount {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.0.get() > 0
    }

    /// Counts an exchange until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> LeadGuard {
        self.0.set(self.0.get() + 1);
        LeadGuard(Rc::clone(self))
    }
}

/// An exchange that is counted; see [`LeadCount::begin`].
#[derive(Debug)]
pub struct LeadGuard(Rc<LeadCount>);

impl Drop for LeadGuard {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

impl Resolution {
    /// The resolution of another name, to which the chain leads.
    pub fn onward(&self, name: Name) -> Self {
        let found = self.snapshot.find(name.as_wire(), self.query.qtype, self.client);
        let view = found.map_or(0, |found| found.view);
        let query = UpstreamQuery { name, ..(*self.query).clone() };
        let hash = hash(&query, view);
        let cached = if self.cached == CacheState::Refresh { CacheState::Refresh } else { CacheState::MayHaveEntry };
        Self { query: Arc::new(query), hash, view, found, cached, ..self.clone() }
    }

    /// The resolution under the cache key of this client's audience, for answers that others of its view must not
    /// share.
    pub fn for_audience(&self) -> Option<Self> {
        let view = self.snapshot.audience_view(self.client)?;
        Some(Self { hash: hash(&self.query, view), view, cached: CacheState::MayHaveEntry, ..self.clone() })
    }

    /// The resolution with the DO bit inverted.
    pub fn other_kind(&self) -> Self {
        let query = UpstreamQuery { do_bit: !self.query.do_bit, ..(*self.query).clone() };
        let hash = hash(&query, self.view);
        Self { query: Arc::new(query), hash, cached: CacheState::MayHaveEntry, ..self.clone() }
    }

    /// Its target.
    pub fn target(&self) -> Option<Target> {
        self.found.map(|found| found.target)
    }

    /// Its key in the cache.
    pub fn key(&self) -> CacheKey<'_> {
        key(&self.query, self.view)
    }
}

/// The hash of a query's cache key in a view.
pub fn hash(query: &UpstreamQuery, view: View) -> Hash {
    key(query, view).hash()
}

fn key(query: &UpstreamQuery, view: View) -> CacheKey<'_> {
    CacheKey {
        name: query.name.as_wire(),
        qtype: query.qtype,
        qclass: query.qclass,
        do_bit: query.do_bit,
        cd: query.cd,
        view,
    }
}
