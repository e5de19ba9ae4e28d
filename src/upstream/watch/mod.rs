//! Queries that go out without a client's query: probes of servers' health and for loops, and the addresses of names.

pub mod loops;
pub mod names;
pub mod prober;
