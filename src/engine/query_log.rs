//! The query log (`log.queries`): one line for each query that got a response.
//!
//! Policy:
//! - `errors` are responses whose code is neither NOERROR nor NXDOMAIN. `all` may be a sample.
//! - Messages that get no response (malformed, over the client's rate limit) are counted and not logged.
//! - The line is put together by the worker and queued in the log, which has a bounded queue for these lines alone:
//!   where it is full, the line is lost and counted. Off, it costs the hot path one comparison.

use std::{net::IpAddr, time::Duration};

use tracing::{field, info};

use crate::{
    config::{LoggedQueries, QueryLogPolicy},
    metrics::CountedReply,
    upstream::Server,
    wire::{NameBuf, Rcode, RecordType, Transport, name::DisplayWire},
};

/// The target of the lines, by which the log tells them from others.
pub const TARGET: &str = "tidegate::query";

/// Whether a query with this response code is to be logged.
#[inline]
pub(super) fn takes(log: QueryLogPolicy, rcode: Rcode) -> bool {
    log.queries != LoggedQueries::Off && is_chosen(log, rcode)
}

#[cold]
#[inline(never)]
fn is_chosen(log: QueryLogPolicy, rcode: Rcode) -> bool {
    match log.queries {
        LoggedQueries::Off => false,
        LoggedQueries::Errors => rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN,
        LoggedQueries::All => rand::random_range(0..1_000_000) < log.sample.0,
    }
}

/// A query that got a response.
#[derive(Debug)]
pub(super) struct LoggedQuery<'a> {
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    /// The question section as it came; empty if there is none that can be read.
    pub(super) section: &'a [u8],
    pub(super) reply: CountedReply,
    /// The upstream that answered this query; none where the cache, a local zone or an error did.
    pub(super) server: Option<&'a Server>,
    pub(super) took: Duration,
}

impl LoggedQuery<'_> {
    /// Writes its line.
    pub(super) fn write(&self) {
        let question = self.section.split_last_chunk::<4>();
        let name = question.map(|(name, _)| NameBuf::lowercase_of(name));
        let qtype = question.map(|(_, &[high, low, ..])| RecordType(u16::from_be_bytes([high, low])));
        info!(
            target: TARGET,
            client = %self.client,
            transport = self.transport.label(),
            name = name.as_ref().map(|name| field::display(DisplayWire(name.as_wire()))),
            qtype = qtype.map(field::display),
            rcode = %self.reply.rcode,
            source = self.reply.source.label(),
            group = self.server.map(Server::group),
            server = self.server.map(Server::label),
            ede = self.reply.ede.map(|code| code.number()),
            duration_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "query"
        );
    }
}
