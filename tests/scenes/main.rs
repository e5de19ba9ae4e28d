//! Ways to upstreams that break, and servers that misbehave: what clients see of it, which should be nothing.

#[path = "../support/mod.rs"]
mod support;

mod bad_servers;

