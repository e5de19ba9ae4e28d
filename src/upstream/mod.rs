//! Upstream servers: groups in tiers, which server to ask, the exchange of messages, and health.
//!
//! ```text
//! engine ─► UpstreamClient::exchange(group, query, deadline) ─► select: candidates in order
//!         exchange, hedge: a race of tries ─► link (one for each worker and server)
//!                   ▲                          ├─ udp, pool: datagrams through few random ports
//!                   └──── race ◄── answers ────┴─ stream: kept connections ─► open ─┬─ framed: TCP, TLS
//!                                                                               └─ requests: https, quic
//! prober ─► probes ─► health ◄── what traffic sees      loops: tagged probes ─► servers left out for a rule
//! ```
//!
//! Each folder imports only from those above it in this table (`tests/layers.rs` checks that):
//!
//! | folder | |
//! | --- | --- |
//! | `spec`, `names`, `system` | what the configuration says; what names stand for; the servers of resolv.conf |
//! | `server` | what is known of one server: its health, RTT, budgets, counters |
//! | `group` | tiers of servers, and which one to ask |
//! | `race` | the tries for one query, and those that outlive it |
//! | `link` | one worker's sockets to one server: ports, connections, queries in flight |
//! | `exchange` | one query to a group |
//! | `watch` | probes: of health, and for loops; the addresses of names |
//!
//! A [`Group`] and its [`Server`]s are shared by all workers; an [`UpstreamClient`] belongs to one. This room does not
//! cache and knows no rules. It reports failures as [`ExchangeError`]; `engine` decides what the client is told.

mod exchange;
mod group;
mod link;
pub mod names;
mod race;
pub mod server;
pub mod spec;
pub mod system;
mod watch;

pub use exchange::Exchanged;
pub use group::{Group, MAX_SERVERS, Marks};
pub use link::{UpstreamClient, WorkerNumber, ask_once, quic_certificate};
pub use server::{
    Alarm, FormerServer, Server, ServerRecord, ServerRegistry,
    connect_error::ConnectError,
    failure::{Availability, ExchangeError, Reasons},
    health::{self, HealthState},
    rtt, tally,
};
pub use spec::{
    Egress, GroupLimits, GroupSpec, HealthSpec, Identity, LetterCase, Policy, ProbeOrigin, ServerKey, ServerSpec,
    TierMember, path_label, path_words,
};
pub use system::OwnAddresses;
pub use watch::{
    loops::{self, Loops},
    names as resolution, prober,
};
