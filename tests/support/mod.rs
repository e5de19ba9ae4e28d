//! What every test binary builds on: the `tidegate` process, upstreams that follow a script, a small DNS client, real
//! DNS servers and `dig` from Debian, and namespaces of their own.
//!
//! All of it works on loopback and on ports that the kernel picks. Whatever waits, waits for a condition and for a
//! bounded time; nothing sleeps to let something happen.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses the part that it needs")]

pub mod authority;
pub mod client;
pub mod config;
pub mod encrypted;
pub mod namespace;
pub mod peers;
pub mod query;
pub mod records;
pub mod rules;
pub mod script;
pub mod tidegate;
pub mod upstream;
pub mod wait;

pub use wait::{PATIENCE, eventually, now, wait_for};
