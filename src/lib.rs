//! tidegate: the DNS gateway between an on-premises network and AWS private endpoints.
//!
//! # A query's path
//!
//! ```text
//! clients ─► serve::udp     a batch of datagrams; the clock and the snapshot are read once a batch
//!            serve::stream  framed messages over TCP
//!               │ octets, client, room for the reply
//!               ▼
//!            engine::handle   query ─► access ─► view ─► cache ─ hit ─► Action::Reply, sent with the batch
//!               │                                         └ malformed, a response ─► Action::Drop
//!               │ Action::Resolve(Query)     bounded: when too many wait, SERVFAIL at once
//!               ▼
//!            engine::resolve  route: the longest matching domain
//!               ├─ none           REFUSED
//!               ├─ Target::Local  zones::answer ───────────────────────┐ a CNAME that leads to another rule or zone
//!               └─ Target::Rule   engine::part                         │ goes round again, at most 8 times
//!                                   pending.join: one asks, others wait│
//!                                   upstream: exchange, a race of tries│
//!                                   guard ─► cache ─► reply ◄──────────┘
//!                                   no answer: stale, else SERVFAIL
//!
//! configuration text ─► config::Plan { boot, live } ─► daemon::State ─► engine::Snapshot, swapped whole
//! ```
//!
//! Each step has one type: octets, then a [`wire::Question`] that borrows them, and on a miss an owned
//! [`engine::Query`]. An upstream's response becomes a [`wire::Response`], checked and rewritten before anything uses
//! it.
//!
//! # Threads
//!
//! A worker is a thread with a runtime of its own, its own sockets on every listen address and its own ports to every
//! upstream. A query is answered by the worker that read it. Shared are the snapshot, the cache, the table of
//! pending queries, the servers' health and budgets; workers own their counters. The control thread does the rest:
//! probes, reloads, files that are watched, HTTP for operators.
//!
//! # Rooms
//!
//! A room imports only from lower layers, never within its row; `tests/layers.rs` holds the code against this table.
//!
//! | layer | rooms |
//! | --- | --- |
//! | 7 | [`cli`]: the verbs |
//! | 6 | [`daemon`]: start, reload, stop |
//! | 5 | [`serve`]: listeners · [`admin`]: HTTP for operators |
//! | 4 | [`engine`]: the decisions |
//! | 3 | [`upstream`]: servers we forward to · [`zones`]: local zones · [`perimeter`]: which names were private or public |
//! | 2 | [`cache`] · [`route`] · [`config`] |
//! | 1 | [`net`]: the kernel, and the only unsafe code · [`tls`]: trust and handshakes · [`metrics`] · [`dnstap`] · [`otlp`] |
//! | 0 | [`wire`]: DNS messages as bytes · [`networks`] · [`clock`] · [`files`] · [`plural`] · [`system_error`] |

pub mod admin;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dnstap;
pub mod engine;
pub mod files;
pub mod metrics;
pub mod net;
pub mod networks;
pub mod otlp;
pub mod perimeter;
pub mod plural;
pub mod route;
pub mod serve;
pub mod system_error;
pub mod tls;
pub mod upstream;
pub mod wire;
pub mod zones;
