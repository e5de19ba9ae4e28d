//! The kernel: batched datagrams and sockets with the options that a DNS server and forwarder needs.
//!
//! `mmsg` moves many datagrams with one system call and is the only unsafe code; `socket` makes the sockets that
//! `serve` listens on and `upstream` asks from. Nothing here knows DNS, and nothing here waits: every call returns at
//! once, waiting belongs to the runtime of the caller; but [`changes`] waits for news of the network.

pub mod changes;
pub mod mmsg;
pub mod socket;
