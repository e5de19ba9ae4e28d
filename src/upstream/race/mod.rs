//! One query under way: the state that its task shares with the readers of its answers.
//!
//! A race has a slot for each try, and each try sends one query at a time (a *leg*: first over UDP with EDNS, then
//! perhaps without EDNS or over TCP). Whoever reads an answer stores it here and wakes the task. The leg's number shows
//! whether anyone still waits for it. Everything here stays on one thread.

pub(crate) mod deadlines;
pub(crate) mod late;

use std::{
    cell::{Cell, RefCell},
    hash::BuildHasher,
    num::NonZeroU64,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    clock::Moment,
    config::Recursion,
    upstream::{
        group::Group,
        server::{Role, tally::QueryResult},
    },
    wire::{
        Header, Rcode, RelayedEde, Response, ResponseKind, UpstreamQuery,
        record::{Record, Records, Section},
    },
};

/// How one leg ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Data, NODATA or NXDOMAIN.
    Answer(Response),
    /// TC: ask the same server over a stream.
    Truncated,
    /// The server may not know EDNS, as its response code says: ask it without.
    WithoutEdns(Rcode),
    /// No answer; the server's rejection, if it responded.
    Failed(QueryResult, Option<Rejection>),
    /// A referral, though recursion was not requested: the server has nothing more to say.
    Referral,
    /// The query did not leave this host, which is not the server's fault.
    NotSent,
    /// An answer whose question differs in letter case, by its [`likeness`]. It may be forged, so the query still
    /// waits.
    CaseChanged(NonZeroU64),
    /// The server closed a stream that had carried answers before: ask again on a new one.
    Closed,
}

/// A response that holds no answer.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(super) rcode: Rcode,
    /// The reason that the server gave.
    pub(super) ede: Option<RelayedEde>,
}

impl From<Rcode> for Rejection {
    fn from(rcode: Rcode) -> Self {
        Self { rcode, ede: None }
    }
}

impl Outcome {
    /// The outcome for the try that waits for this response, which matches its query.
    pub(crate) fn of(response: Response, edns: EdnsUse, recursion: Recursion) -> Self {
        let rcode = response.rcode();
        // Some servers echo the query's OPT record, so it proves nothing (RFC 6891 7).
        let is_unread = matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS);
        match response.kind() {
            ResponseKind::Positive | ResponseKind::NoData | ResponseKind::NxDomain | ResponseKind::YxDomain => {
                Self::Answer(response)
            }
            ResponseKind::Truncated => Self::Truncated,
            ResponseKind::Referral if recursion == Recursion::NotDesired => Self::Referral,
            ResponseKind::Referral => Self::Failed(QueryResult::Refused, Some(Rcode::REFUSED.into())),
            ResponseKind::Failure if edns == EdnsUse::With && is_unread => Self::WithoutEdns(rcode),
            ResponseKind::Failure => {
                let result = match rcode {
                    Rcode::SERVFAIL => QueryResult::Servfail,
                    Rcode::FORMERR => QueryResult::Malformed,
                    _ => QueryResult::Refused,
                };
                Self::Failed(result, Some(Rejection { rcode, ede: response.ede().cloned() }))
            }
        }
    }

    /// The outcome of a matching message whose records do not parse. A server that cannot read a query may send back
    /// only the header, with the query's counts.
    pub(crate) fn of_malformed(message: &[u8], edns: EdnsUse) -> Self {
        let rcode = Header::read(message).map(|header| header.flags.rcode());
        match rcode {
            Ok(rcode @ (Rcode::FORMERR | Rcode::NOTIMP)) if edns == EdnsUse::With => Self::WithoutEdns(rcode),
            _ => Self::malformed(),
        }
    }

    /// The outcome of a message that does not parse, or cannot be an answer here.
    pub(super) const fn malformed() -> Self {
        Self::Failed(QueryResult::Malformed, None)
    }

    /// The result under which it is counted.
    pub(super) const fn result(&self) -> QueryResult {
        match self {
            Self::Answer(_) | Self::Truncated | Self::Referral => QueryResult::Ok,
            Self::WithoutEdns(_) => QueryResult::Malformed,
            Self::Failed(result, _) => *result,
            Self::Closed | Self::NotSent => QueryResult::Network,
            Self::CaseChanged(_) => QueryResult::Malformed,
        }
    }

    /// Whether the outcome raises a doubt about the server. A code that only rejects this kind of query does not.
    pub(super) const fn is_broken(&self) -> bool {
        match self {
            Self::Failed(QueryResult::Servfail | QueryResult::Malformed, _) => true,
            Self::Failed(QueryResult::Refused, Some(rejection)) => rejection.rcode.0 == Rcode::REFUSED.0,
            _ => false,
        }
    }
}

/// Why a query could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    /// There is no path to the server, or too many queries wait on it.
    Network,
    /// A local error.
    Local,
}

/// A number that is the same for answers with the same records, whatever their order and TTLs.
pub(crate) fn likeness(response: &Response) -> NonZeroU64 {
    let hasher = foldhash::fast::FixedState::default();
    let of = |record: &Record| hasher.hash_one((record.rtype.0, record.rdata(response.message())));
    let records = Records::of(response.message()).into_iter().flatten().filter_map(Result::ok);
    let answers = records.filter(|record| record.section == Section::Answer);
    let sum = answers.fold(u64::from(response.rcode().0), |sum, record| sum.wrapping_add(of(&record)));
    NonZeroU64::MIN.saturating_add(sum)
}

/// Whether a query carries an OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdnsUse {
    /// It does.
    With,
    /// It does not.
    Without,
}

/// An outcome and the leg it belongs to.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(super) leg: Leg,
    pub(super) outcome: Outcome,
    pub(super) rtt: Duration,
    /// When it arrived.
    pub(super) at: Moment,
}

/// Identifies a leg: which query of which try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(super) slot: u8,
    pub(super) number: u32,
}

/// A query under way.
pub(crate) struct Race {
    pub(super) query: Arc<UpstreamQuery>,
    pub(super) group: Arc<Group>,
    pub(super) role: Role,
    /// Answers count until then.
    pub(super) deadline: Moment,
    is_over: Cell<bool>,
    /// Whether the time to act has come since it was last set.
    is_due: Cell<bool>,
    /// Its place among the worker's deadlines.
    place: Cell<Option<usize>>,
    /// A bit for each slot whose server answered, however late.
    answered: Cell<u16>,
    /// Nearly always a single arrival; the vector allocates only for a second one.
    first: RefCell<Option<Arrival>>,
    more: RefCell<Vec<Arrival>>,
    waker: RefCell<Option<std::task::Waker>>,
}

impl Race {
    pub(super) fn new(query: &Arc<UpstreamQuery>, group: &Arc<Group>, role: Role, deadline: Moment) -> Rc<Self> {
        Rc::new(Self {
            query: Arc::clone(query),
            group: Arc::clone(group),
            role,
            deadline,
            is_over: Cell::new(false),
            is_due: Cell::new(false),
            place: Cell::new(None),
            answered: Cell::new(0),
            first: RefCell::default(),
            more: RefCell::default(),
            waker: RefCell::default(),
        })
    }

    /// Whether nobody waits for the answer any more. Late answers are still counted.
    pub(super) fn has_ended(&self) -> bool {
        self.is_over.get()
    }

    pub(super) fn end(&self) {
        self.is_over.set(true);
        self.first.take();
        self.waker.take();
    }

    /// Whether the server of this try answered, late or not. A failure is not an answer.
    pub(super) fn has_answer_of(&self, slot: u8) -> bool {
        self.answered.get() & bit(slot) != 0
    }

    pub(super) fn deliver(&self, arrival: Arrival) {
        if !matches!(arrival.outcome, Outcome::Failed(..) | Outcome::CaseChanged(_)) {
            self.answered.set(self.answered.get() | bit(arrival.leg.slot));
        }
        if self.is_over.get() {
            return;
        }
        let mut first = self.first.borrow_mut();
        if first.is_none() {
            *first = Some(arrival);
        } else {
            self.more.borrow_mut().push(arrival);
        }
        self.wake();
    }

    /// Notes that the time to act has come.
    fn become_due(&self) {
        self.is_due.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn take(&self) -> Option<Arrival> {
        self.first.take().or_else(|| self.more.borrow_mut().pop())
    }

    /// The next arrival; none if the deadline that is set for the race comes first.
    pub(super) fn poll_next(&self, task: &Context<'_>) -> Poll<Option<Arrival>> {
        if let Some(arrival) = self.take() {
            return Poll::Ready(Some(arrival));
        }
        if self.is_due.take() {
            return Poll::Ready(None);
        }
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(task.waker()),
            None => *waker = Some(task.waker().clone()),
        }
        Poll::Pending
    }
}

/// The bit of a slot; a query has at most 16 tries.
const fn bit(slot: u8) -> u16 {
    1 << (slot % 16)
}
