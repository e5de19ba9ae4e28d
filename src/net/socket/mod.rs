//! Sockets: to listen on, and to ask upstreams from.
//!
//! Policy of listening sockets:
//! - One `SO_REUSEPORT` socket for each worker. The first is bound without it, so that a socket of anyone else, also of
//!   another process of the same user, is an error and not a silent half of the questions. Only then is it opened for
//!   the others to join. A single socket stays closed to others.
//! - IPv6 sockets take IPv6 only (RFC 3493 section 5.3): `[::]` and `0.0.0.0` are two addresses, each with its sockets.
//! - UDP sockets report which address was asked, never trust path MTU news, and hold a burst of questions.
//! - Everything is non-blocking and closed on exec.
//!
//! Callers: `daemon` makes listeners, `upstream` the others.

mod connect;
mod listen;
mod owner;
mod scope;

pub use connect::{Egress, upstream_tcp, upstream_udp};
pub use listen::{
    BindError, ListenOptions, Listeners, adopt_udp, listeners, prefer_core, tcp_listeners, udp_listeners,
};
pub use owner::{Owner, PortProtocol};
pub use scope::{ScopeError, ScopedAddress};
