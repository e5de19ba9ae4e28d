//! Datagrams to send: replies that were resolved, and queries to servers we are connected to.

use std::{io, os::fd::BorrowedFd};

use super::{
    Sent,
    address::RawAddress,
    control::{Control, Path},
    fixed::Fixed,
    queue::{Queue, empty_header},
};

/// Slots for datagrams that go out.
///
/// The header of slot i points to `names[i]`, `controls[i]` and `parts[i]`, and that to slot i of `bytes`.
pub struct Outbox {
    queue: Queue,
    bytes: Fixed<u8>,
    size: usize,
    names: Fixed<RawAddress>,
    controls: Fixed<Control>,
    parts: Fixed<libc::iovec>,
}

// SAFETY: all pointers in it lead into memory it owns.
unsafe impl Send for Outbox {}

/// The result of queueing a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// Queued until the next flush.
    Queued,
    /// The outbox is full until a flush; nothing was written.
    Full,
    /// The writer returned nothing to send.
    Unwritten,
}

impl Outbox {
    /// An outbox of `slots` datagrams (1 to [`super::SLOTS_MAX`]) of up to `size` bytes.
    ///
    /// # Panics
    /// If one of the two is 0, or `slots` too large.
    pub fn new(slots: usize, size: usize) -> Self {
        let bytes = Fixed::new(slots * size, |_| 0);
        let names = Fixed::new(slots, |_| RawAddress::empty());
        let controls = Fixed::new(slots, |_| Control::empty());
        let parts = Fixed::new(slots, |i| libc::iovec { iov_base: bytes.pointer(i * size).cast(), iov_len: 0 });
        let queue = Queue::new(slots, |i| {
            let mut header = empty_header();
            header.msg_hdr.msg_iov = parts.pointer(i);
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        Self { queue, bytes, size, names, controls, parts }
    }

    /// Queues a datagram back along `path`. `write` fills it and returns its length, or `None` to queue nothing.
    ///
    /// # Panics
    /// If `write` returns more than a slot holds.
    pub fn push(&mut self, path: &Path, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Pushed {
        self.queue_datagram(Some(path), write)
    }

    /// Queues a datagram to the peer of a connected socket.
    ///
    /// # Panics
    /// If `write` returns more than a slot holds.
    pub fn push_connected(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Pushed {
        self.queue_datagram(None, write)
    }

    /// How many datagrams wait for a flush.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Discards the queued datagrams, for a socket that stays full.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// Sends the queued datagrams. One that cannot be sent is skipped and counted; those `left`, because the socket's
    /// buffer is full, stay queued for the next flush.
    ///
    /// # Errors
    /// The socket cannot be used; the queue is empty then.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<Sent> {
        self.queue.send(socket)
    }

    fn queue_datagram(&mut self, path: Option<&Path>, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Pushed {
        let Some(slot) = self.queue.next() else { return Pushed::Full };
        let start = slot * self.size;
        let Some(length) = write(&mut self.bytes[start..start + self.size]) else { return Pushed::Unwritten };
        assert!(length <= self.size, "a datagram of {length} bytes in {}", self.size);
        self.parts[slot].iov_len = length;
        let name_length = path.map_or(0, |path| self.names[slot].set(&path.peer));
        let control_length = path.and_then(|path| path.local).map_or(0, |local| self.controls[slot].set(local));
        let name = self.names.pointer(slot);
        let control = self.controls.pointer(slot);
        let header = self.queue.take().expect("a header for the slot");
        header.msg_hdr.msg_name = name.cast();
        header.msg_hdr.msg_namelen = name_length;
        header.msg_hdr.msg_control = control.cast();
        header.msg_hdr.msg_controllen = control_length as _;
        Pushed::Queued
    }
}
