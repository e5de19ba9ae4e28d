//! Queries that no client asked for: health probes, loop probes, and look-ups of servers' names.

pub mod loops;
pub mod names;
pub mod prober;
