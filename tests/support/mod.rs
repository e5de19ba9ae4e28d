//! Shared by every test binary: the `tidegate` process, scripted upstreams, a small DNS client, real DNS servers and
//! `dig` from Debian, and network namespaces.
//!
//! All of it works on loopback and on ports that the kernel picks. Every wait is for a condition and bounded in time;
//! nothing sleeps in the hope that something happens.

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
pub mod site;
pub mod tidegate;
pub mod upstream;
pub mod wait;

pub use wait::{PATIENCE, eventually, now, wait_for};
