//! Other servers: groups in tiers, which server to ask, the exchange of messages, and who is healthy.
//!
//! ```text
//! engine ─► Courier::exchange(group, query, deadline) ─► select: candidates in order
//!         exchange, hedge: a race of tries ─► link (one worker's way to one server)
//!                   ▲                          ├─ udp, pool: datagrams through few random ports
//!                   └──── race ◄── answers ────┴─ stream: kept connections ─► open ─┬─ framed: TCP, TLS
//!                                                                               └─ requests: https, quic
//! prober ─► probes ─► health ◄── what traffic sees      loops: tagged probes ─► servers left out for a rule
//! ```
//!
//! A [`Group`] and its [`Server`]s are shared by all workers; a [`Courier`] belongs to one. This room does not cache,
//! does not know rules, and says with a [`Failure`] what happened; what the client is told is decided in `engine`.

mod budget;
pub mod courier;
pub mod exchange;
pub mod failure;
mod framed;
pub mod group;
pub mod health;
mod https;
mod link;
pub mod loops;
pub mod obstacle;
mod open;
mod pledges;
mod pool;
pub mod prober;
mod quic;
mod race;
mod requests;
pub mod rtt;
mod select;
pub mod server;
mod single;
pub mod spec;
mod stream;
pub mod system;
pub mod tally;
mod udp;

pub use courier::{Courier, Worker};
pub use exchange::Exchanged;
pub use failure::{Failure, Reasons, Standing};
pub use group::Group;
pub use health::State;
pub use loops::{Loops, Marks};
pub use obstacle::Obstacle;
pub use select::MOST_SERVERS;
pub use server::{Alarm, Server};
pub use single::ask_once;
pub use spec::{Entry, GroupSpec, HealthSpec, Identity, LetterCase, Limits, Policy, ServerSpec, Transport, Via};
pub use system::Ours;
