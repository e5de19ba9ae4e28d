//! Queries that each have their own stream on a connection: DNS over HTTPS (RFC 8484) and over QUIC (RFC 9250).
//!
//! The id on the wire is 0, as both require. The stream shows which answer belongs to which query, and it is checked
//! all the same: id, QR and question must match. A wrong answer ends its query, since no other can arrive on that
//! stream.

use std::{future::Future, pin::pin, time::Duration};

use tokio::task::JoinSet;

use crate::{upstream::server::connect_error::ConnectError, wire::MessageId};

use super::{
    framed::{CLOSE_TIMEOUT, SendQueue},
    in_flight::FlightKey,
};

/// The longest time a request may take; by then nobody waits for it any more.
const LONGEST: Duration = Duration::from_secs(30);

/// The response on a query's stream.
pub(super) struct Reply {
    pub(super) message: Vec<u8>,
    /// Seconds that it spent in an HTTP cache (RFC 8484 5.1).
    pub(super) age: u32,
}

/// Why there was no response.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The stream or its connection was closed.
    Closed,
    /// The server answered, but not with a DNS message.
    Refused(ConnectError),
    /// No response within the time-out.
    Late,
}

/// The result of one query.
pub(super) type RequestResult = Result<Reply, RequestError>;

/// Sends the queued queries, each by `ask`, until `closed`; then waits for those under way. `find` returns the key of
/// the query that has an id, unless it has expired; `settle` is called with each result.
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
            // The link expires queries; this ends those whose connection the link has let go.
            asking.spawn_local(async move {
                (key, tokio::time::timeout(LONGEST, ended).await.unwrap_or(Err(RequestError::Late)))
            });
        }
        tokio::select! {
            // Closing comes first: queries that ended with the connection must be asked again on another one.
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

/// The queries among framed messages that have not expired, with their id set to 0.
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
