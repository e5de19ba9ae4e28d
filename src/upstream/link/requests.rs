//! Queries that each have a stream of their own on one connection: DNS over HTTPS (RFC 8484) and over QUIC (RFC 9250).
//!
//! The id on the wire is 0, as both ask for; which answer belongs to which query is what the streams say, and is checked
//! all the same: id, QR and question must be those of the query. An answer that is another's ends its query, since no
//! other can come on that stream.

use std::{future::Future, pin::pin, time::Duration};

use tokio::task::JoinSet;

use crate::{upstream::server::connect_error::ConnectError, wire::MessageId};

use super::{
    framed::{CLOSE_TIMEOUT, SendQueue},
    in_flight::FlightKey,
};

/// However late an answer may be, nobody waits for it any more.
const LONGEST: Duration = Duration::from_secs(30);

/// What came back on a query's stream.
pub(super) struct Reply {
    pub(super) message: Vec<u8>,
    /// Seconds that it lay in a cache of HTTP (RFC 8484 5.1).
    pub(super) age: u32,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The stream or its connection was closed.
    Closed,
    /// The server answered, and not with a DNS message.
    Refused(ConnectError),
    /// Nothing within the time-out.
    Late,
}

/// How one query ended.
pub(super) type RequestResult = Result<Reply, RequestError>;

/// Asks what waits, each query by `ask`, until `closed`; then waits for those that are under way. `find` tells which query
/// has an id now, if its time is not over; `settle` is told how each ended.
pub(super) async fn carry<F: Future<Output = RequestResult> + 'static>(
    queue: &SendQueue,
    closed: impl Future<Output = ()>,
    ask: impl Fn(Vec<u8>) -> F,
    find: impl Fn(u16) -> Option<FlightKey>,
    settle: impl Fn(FlightKey, RequestResult),
) {
    let mut closed = pin!(closed);
    let mut asking = JoinSet::new();
    let mut framed = Vec::new();
    loop {
        framed.clear();
        queue.take(&mut framed);
        for (key, query) in queries(&framed, &find) {
            let ended = ask(query);
            // The link ends queries by their time-out; this ends those whose connection it let go.
            asking.spawn_local(async move {
                (key, tokio::time::timeout(LONGEST, ended).await.unwrap_or(Err(RequestError::Late)))
            });
        }
        tokio::select! {
            // First: what ended with the connection is to be asked on another.
            biased;
            () = &mut closed => break,
            Some(Ok((key, ended))) = asking.join_next() => settle(key, ended),
            () = queue.has_work() => if queue.is_closing() {
                drop(ask);
                drop(tokio::time::timeout(CLOSE_TIMEOUT, closed).await);
                return;
            },
        }
    }
    framed.clear();
    queue.take(&mut framed);
    for (key, _) in queries(&framed, &find) {
        settle(key, Err(RequestError::Closed));
    }
    while let Some(Ok((key, ended))) = asking.join_next().await {
        settle(key, ended);
    }
}

/// The queries among framed messages whose time is not over, with the id 0.
fn queries(mut framed: &[u8], find: impl Fn(u16) -> Option<FlightKey>) -> impl Iterator<Item = (FlightKey, Vec<u8>)> {
    let all = std::iter::from_fn(move || {
        let (head, rest) = framed.split_first_chunk::<2>()?;
        let (query, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*head)))?;
        framed = rest;
        let (id, _) = query.split_first_chunk::<2>()?;
        let mut anonymous = query.to_vec();
        anonymous[..2].copy_from_slice(&MessageId(0).0.to_be_bytes());
        Some((u16::from_be_bytes(*id), anonymous))
    });
    all.filter_map(move |(id, query)| Some((find(id)?, query)))
}
