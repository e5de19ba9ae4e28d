//! What servers are asked unasked: probes of their health, and probes for loops.

pub mod loops;
pub mod prober;
