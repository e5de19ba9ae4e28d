//! Probes, which go out without a client's query: of servers' health, and for loops.

pub mod loops;
pub mod prober;
