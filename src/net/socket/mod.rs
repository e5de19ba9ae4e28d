//! Sockets for listening and for queries to upstreams.
//!
//! Policy of listening sockets:
//! - One `SO_REUSEPORT` socket for each worker. The first is bound without it, so that a socket of anyone else, also of
//!   another process of the same user, is an error and does not silently take half of the queries. Only then is it
//!   opened for the others to join. A single socket stays closed to others.
//! - IPv6 sockets take IPv6 only (RFC 3493 section 5.3): `[::]` and `0.0.0.0` are two addresses, each with its sockets.
//! - UDP sockets report which address was asked, ignore path MTU notices, and can hold a burst of queries.
//! - Everything is non-blocking and closed on exec.
//! - Sockets that were handed over ([`Inherited`]) take the place of our own, address by address and never mixed: each of
//!   them may hold queries, so each is read, whatever the number of workers.
//!
//! Callers: `daemon` makes listeners, `upstream` the others.

mod connect;
mod inherited;
mod listen;
mod owner;
mod pass;

pub use connect::{Egress, upstream_tcp, upstream_udp};
pub use inherited::{Inherited, Stranger, spread};
pub use listen::{BindError, ListenOptions, Listeners, listeners, prefer_core, tcp_listeners, udp_listeners};
pub use owner::{Owner, PortProtocol};
pub use pass::{receive_descriptors, send_descriptors, send_with_descriptors};
