//! System calls: batched datagrams, and sockets with the options that a DNS server and forwarder needs.
//!
//! `mmsg` moves many datagrams with one system call and is the only unsafe code; `socket` makes the sockets that
//! `serve` listens on and `upstream` asks from. Nothing here knows DNS. Calls return at once, and the caller's
//! runtime waits; only [`changes`] waits for notices from the kernel.

pub mod changes;
pub mod mmsg;
pub mod socket;
