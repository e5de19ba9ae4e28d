//! Moves many datagrams per system call, and wraps the few libc calls that have no safe wrapper. The only unsafe code.
//!
//! | type | for | calls |
//! | --- | --- | --- |
//! | [`Batch`] | a listening socket: receive, answer in place, send back the way it came | `recvmmsg`, `sendmmsg` |
//! | [`Outbox`] | replies that come later ([`Path`] says where to), and queries on connected sockets | `sendmmsg` |
//! | [`Inbox`] | responses on connected sockets | `recvmmsg` |
//!
//! Everything is allocated when a value is made; receiving and sending allocate nothing. Addresses and control
//! messages stay as the kernel wrote them, and are turned into [`Path`] only when somebody asks.
//!
//! An answer leaves from the address that was asked (RFC 2181 section 4.1), also when the socket is bound to a
//! wildcard. The interface is left to the routing table, since the way back may differ from the way in; only a
//! link-local address keeps it, being meaningless without one.
//!
//! Soundness rests on three things: the memory that message headers point into never moves (`fixed::Fixed`); no
//! reference to it is alive during a system call, which take `&mut self`; and every byte of it is initialised at all
//! times, so that whatever the kernel wrote or left can be read.

#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and their message headers have no safe wrapper that reuses memory")]

mod address;
mod batch;
mod control;
mod fixed;
mod inbox;
mod inherited;
mod options;
mod outbox;
mod process;
mod queue;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

pub use batch::{Batch, Message, Origin};
pub use control::{Local, Path};
pub use inbox::{Datagram, Inbox};
pub use inherited::inherited_descriptors;
pub(super) use options::{Family, bind_late, ignore_path_mtu, report_destination};
pub use options::{interface_index, interface_name};
pub use outbox::{Outbox, Pushed};
pub use process::{allowed_cpus, clock_is_synchronized, most_open_files, open_files, pin_to_cpu, raise_open_files};
pub use queue::Sent;
pub use wait::wait_readable;
pub use watch::{for_reading, writable};

/// The most datagrams one system call moves (`UIO_MAXIOV`).
pub const SLOTS_MAX: usize = 1024;
