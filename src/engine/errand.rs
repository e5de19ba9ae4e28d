//! A question without its client's message: what the steps of a resolution pass on, cheap to clone.

use std::{cell::Cell, net::IpAddr, rc::Rc, sync::Arc};

use super::snapshot::{Snapshot, Target};
use crate::{
    cache::{Hash, Key},
    clock::Moment,
    route::{Found, View},
    wire::{Name, UpstreamQuery},
};

/// What the cache has of a question that it cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing.
    Unknown,
    /// Perhaps an entry, past its lifetime or not.
    Known,
    /// An entry that is to be fetched again, for nobody: no other will do.
    Due,
}

/// A question to be answered by a deadline, under one snapshot.
#[derive(Debug, Clone)]
pub struct Errand {
    /// The question.
    pub asked: Arc<UpstreamQuery>,
    /// The hash of its cache key.
    pub hash: Hash,
    /// The view it is asked in.
    pub view: View,
    /// For whom.
    pub client: IpAddr,
    /// What the cache has of it.
    pub past: Past,
    /// Where it goes; none where no rule covers it.
    pub found: Option<Found<Target>>,
    /// By when.
    pub deadline: Moment,
    /// Under which configuration.
    pub snapshot: Arc<Snapshot>,
    /// Whether others wait for what it asks, where it may be given an answer before it has asked to the end.
    pub leads: Option<Rc<Leads>>,
}

/// How much a question asks at this moment that others may wait for.
#[derive(Debug, Default)]
pub struct Leads(Cell<u32>);

impl Leads {
    /// Whether it asks anything.
    pub fn any(&self) -> bool {
        self.0.get() > 0
    }

    /// It asks, as long as the guard lives.
    pub fn begin(self: &Rc<Self>) -> Leading {
        self.0.set(self.0.get() + 1);
        Leading(Rc::clone(self))
    }
}

/// See [`Leads::begin`].
#[derive(Debug)]
pub struct Leading(Rc<Leads>);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

impl Errand {
    /// The same question for another name, which a chain leads to. What the cache has of it is still to be seen.
    pub fn onward(&self, name: Name) -> Self {
        let found = self.snapshot.table.find(name.as_wire(), self.client);
        let view = found.map_or(0, |found| found.view);
        let asked = UpstreamQuery { name, ..(*self.asked).clone() };
        let hash = hash(&asked, view);
        let past = if self.past == Past::Due { Past::Due } else { Past::Known };
        Self { asked: Arc::new(asked), hash, view, found, past, ..self.clone() }
    }

    /// The same as it is kept where its answer is for clients like this one alone.
    pub fn own(&self) -> Option<Self> {
        let view = self.snapshot.own_view(self.client)?;
        Some(Self { hash: hash(&self.asked, view), view, past: Past::Known, ..self.clone() })
    }

    /// Where it goes.
    pub fn target(&self) -> Option<Target> {
        self.found.map(|found| found.target)
    }

    /// Its key in the cache.
    pub fn key(&self) -> Key<'_> {
        key(&self.asked, self.view)
    }
}

/// The hash of a question's key in a view.
pub fn hash(asked: &UpstreamQuery, view: View) -> Hash {
    key(asked, view).hash()
}

fn key(asked: &UpstreamQuery, view: View) -> Key<'_> {
    Key {
        name: asked.name.as_wire(),
        qtype: asked.qtype,
        qclass: asked.qclass,
        do_bit: asked.do_bit,
        cd: asked.cd,
        view,
    }
}
