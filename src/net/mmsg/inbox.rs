//! Datagrams from the peer of a connected socket, many at a time.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{
    SLOTS_MAX,
    fixed::Fixed,
    queue::{count, empty_header},
};

/// Slots for datagrams of connected sockets: no addresses, the kernel has checked where they come from.
///
/// The header of slot i points to `parts[i]`, and that to slot i of `bytes`.
pub struct Inbox {
    headers: Fixed<libc::mmsghdr>,
    filled: usize,
    bytes: Fixed<u8>,
    size: usize,
    #[expect(dead_code, reason = "the headers point to it")]
    parts: Fixed<libc::iovec>,
}

// SAFETY: all pointers in it lead into memory it owns.
unsafe impl Send for Inbox {}

/// One datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The datagram, or as much of it as a slot holds.
    pub bytes: &'a [u8],
    /// Whether the datagram was longer than a slot.
    pub truncated: bool,
}

impl Inbox {
    /// An inbox of `slots` datagrams (1 to [`SLOTS_MAX`]) of up to `size` bytes.
    ///
    /// # Panics
    /// If one of the two is 0, or `slots` too large.
    pub fn new(slots: usize, size: usize) -> Self {
        assert!((1..=SLOTS_MAX).contains(&slots), "one system call moves 1 to {SLOTS_MAX} datagrams, not {slots}");
        let bytes = Fixed::new(slots * size, |_| 0);
        let parts = Fixed::new(slots, |i| libc::iovec { iov_base: bytes.pointer(i * size).cast(), iov_len: size });
        let headers = Fixed::new(slots, |i| {
            let mut header = empty_header();
            header.msg_hdr.msg_iov = parts.pointer(i);
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        Self { headers, filled: 0, bytes, size, parts }
    }

    /// How many datagrams fit: as many as this received, and there may be more.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Receives the waiting datagrams without blocking and returns how many. Those of the last call are discarded.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; `ConnectionRefused` when the peer has said so by ICMP, once for each time.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive(socket, libc::MSG_DONTWAIT)
    }

    /// Receives as [`recv`](Self::recv) does, but waits for the first datagram if the socket is a blocking one, up to
    /// the socket's time-out. For tools without a runtime.
    ///
    /// # Errors
    /// As for `recv`; `WouldBlock` also when the time is over.
    pub fn recv_waiting(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive(socket, libc::MSG_WAITFORONE)
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<usize> {
        self.filled = 0;
        let slots = self.headers.len();
        let first = self.headers.pointer(0);
        // SAFETY: `first` and the headers after it, `slots` in all, are initialised, and what they point to is owned by
        // `self` with the lengths they say, never moves, and is borrowed mutably here.
        let filled = unsafe { libc::recvmmsg(socket.as_raw_fd(), first, count(slots), flags as _, ptr::null_mut()) };
        self.filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// The datagrams of the last `recv`.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        self.headers[..self.filled].iter().enumerate().map(|(slot, header)| {
            let start = slot * self.size;
            let length = (header.msg_len as usize).min(self.size);
            Datagram {
                bytes: &self.bytes[start..start + length],
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        })
    }
}
