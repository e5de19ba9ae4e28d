//! The datagrams of a listening socket: receives many, lets each be answered in place, sends all replies together.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{
    SLOTS_MAX, Sent,
    address::RawAddress,
    control::{Control, Local, Path},
    fixed::Fixed,
    queue::{Queue, count, empty_header},
};

/// Slots for datagrams that come in and their replies.
///
/// Use it in three steps: [`recv`](Self::recv), for each slot [`message`](Self::message) and [`reply`](Self::reply),
/// then [`send`](Self::send). A reply is sent to where its message came from, from the address that was asked.
///
/// - `incoming[i]` points to `names[i]`, `controls[i]` and `incoming_parts[i]`, and that to slot i of `received`.
/// - `outgoing` points to the same names and controls and to `outgoing_parts[i]`, and that to slot i of `replies`.
/// - Slots `0..filled` hold messages of the last `recv`.
pub struct Batch {
    incoming: Fixed<libc::mmsghdr>,
    outgoing: Queue,
    filled: usize,
    received: Fixed<u8>,
    receive_size: usize,
    replies: Fixed<u8>,
    reply_size: usize,
    names: Fixed<RawAddress>,
    controls: Fixed<Control>,
    #[expect(dead_code, reason = "the headers point to it")]
    incoming_parts: Fixed<libc::iovec>,
    outgoing_parts: Fixed<libc::iovec>,
}

// SAFETY: all pointers in it lead into memory it owns.
unsafe impl Send for Batch {}

/// A datagram and the room for its reply.
pub struct Message<'a> {
    /// The datagram, or as much of it as a slot holds.
    pub datagram: &'a [u8],
    /// Whether the datagram was longer than a slot.
    pub truncated: bool,
    /// Where it came from.
    pub origin: Origin<'a>,
    /// Where to write the reply; [`Batch::reply`] then says how much of it counts.
    pub reply: &'a mut [u8],
}

/// Where a datagram came from, in the kernel's form until it is read.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    name: &'a RawAddress,
    name_length: libc::socklen_t,
    control: &'a Control,
    control_length: usize,
}

impl Origin<'_> {
    /// The sender's address without its port.
    pub fn ip(&self) -> IpAddr {
        self.name.ip(self.name_length)
    }

    /// Which of our addresses was asked.
    pub fn local(&self) -> Option<Local> {
        self.control.local(self.control_length)
    }

    /// Everything a later reply needs.
    pub fn path(&self) -> Path {
        Path { peer: self.name.read(self.name_length), local: self.local() }
    }
}

impl Batch {
    /// A batch of `slots` messages (1 to [`SLOTS_MAX`]) of up to `receive_size` bytes, with replies of up to
    /// `reply_size` bytes.
    ///
    /// # Panics
    /// If one of the three is 0, or `slots` too large.
    pub fn new(slots: usize, receive_size: usize, reply_size: usize) -> Self {
        assert!((1..=SLOTS_MAX).contains(&slots), "one system call moves 1 to {SLOTS_MAX} datagrams, not {slots}");
        let received = Fixed::new(slots * receive_size, |_| 0);
        let replies = Fixed::new(slots * reply_size, |_| 0);
        let names = Fixed::new(slots, |_| RawAddress::empty());
        let controls = Fixed::new(slots, |_| Control::empty());
        let incoming_parts = Fixed::new(slots, |i| libc::iovec {
            iov_base: received.pointer(i * receive_size).cast(),
            iov_len: receive_size,
        });
        let outgoing_parts =
            Fixed::new(slots, |i| libc::iovec { iov_base: replies.pointer(i * reply_size).cast(), iov_len: 0 });
        let incoming = Fixed::new(slots, |i| {
            let mut header = empty_header();
            header.msg_hdr.msg_name = names.pointer(i).cast();
            header.msg_hdr.msg_namelen = RawAddress::SIZE;
            header.msg_hdr.msg_iov = incoming_parts.pointer(i);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls.pointer(i).cast();
            header.msg_hdr.msg_controllen = Control::SIZE as _;
            header
        });
        let outgoing = Queue::new(slots, |_| empty_header());
        Self {
            incoming,
            outgoing,
            filled: 0,
            received,
            receive_size,
            replies,
            reply_size,
            names,
            controls,
            incoming_parts,
            outgoing_parts,
        }
    }

    /// How many messages fit.
    pub fn slots(&self) -> usize {
        self.incoming.len()
    }

    /// Receives the waiting datagrams without blocking and returns how many slots are filled, counted from 0. Messages
    /// and replies of the last call are discarded.
    ///
    /// # Errors
    /// `WouldBlock` when no datagram is waiting, else the socket's error.
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
        // What the kernel writes into a header: lengths and flags. It has touched no other headers than these.
        for header in &mut self.incoming[..self.filled] {
            header.msg_hdr.msg_namelen = RawAddress::SIZE;
            header.msg_hdr.msg_controllen = Control::SIZE as _;
            header.msg_hdr.msg_flags = 0;
        }
        self.filled = 0;
        self.outgoing.clear();
        let slots = self.incoming.len();
        let first = self.incoming.pointer(0);
        // SAFETY: `first` and the headers after it, `slots` in all, are initialised, and what they point to is owned by
        // `self` with the lengths they say, never moves, and is borrowed mutably here.
        let filled = unsafe { libc::recvmmsg(socket.as_raw_fd(), first, count(slots), flags as _, ptr::null_mut()) };
        self.filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// The message in `slot` and the room for its reply.
    ///
    /// # Panics
    /// If the last `recv` filled fewer slots.
    pub fn message(&mut self, slot: usize) -> Message<'_> {
        let header = &self.incoming[..self.filled][slot];
        let length = (header.msg_len as usize).min(self.receive_size);
        let start = slot * self.receive_size;
        let reply = slot * self.reply_size;
        Message {
            datagram: &self.received[start..start + length],
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            origin: Origin {
                name: &self.names[slot],
                name_length: header.msg_hdr.msg_namelen,
                control: &self.controls[slot],
                control_length: control_length(header),
            },
            reply: &mut self.replies[reply..reply + self.reply_size],
        }
    }

    /// The datagram in `slot` alone, for a look ahead.
    ///
    /// # Panics
    /// If the last `recv` filled fewer slots.
    pub fn datagram(&self, slot: usize) -> &[u8] {
        let header = &self.incoming[..self.filled][slot];
        let start = slot * self.receive_size;
        &self.received[start..start + (header.msg_len as usize).min(self.receive_size)]
    }

    /// Queues the first `length` bytes of the reply of `slot`. Once for each slot.
    ///
    /// # Panics
    /// If the last `recv` filled fewer slots, `length` is more than a reply holds, or a slot is replied to twice.
    pub fn reply(&mut self, slot: usize, length: usize) {
        assert!(length <= self.reply_size, "a reply of {length} bytes in {}", self.reply_size);
        let received = &mut self.incoming[..self.filled][slot];
        let name_length = received.msg_hdr.msg_namelen;
        let control_length = self.controls[slot].turn_around(control_length(received));
        self.outgoing_parts[slot].iov_len = length;
        let header = self.outgoing.take().expect("a reply for each slot");
        header.msg_hdr.msg_name = self.names.pointer(slot).cast();
        header.msg_hdr.msg_namelen = name_length;
        header.msg_hdr.msg_iov = self.outgoing_parts.pointer(slot);
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = self.controls.pointer(slot).cast();
        header.msg_hdr.msg_controllen = control_length as _;
    }

    /// Sends the queued replies. A reply that cannot be sent is skipped and counted. What is `left`, because the
    /// socket's buffer is full, goes with another `send`, or is dropped by the next `recv`.
    ///
    /// # Errors
    /// The socket cannot be used; the replies are lost.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<Sent> {
        self.outgoing.send(socket)
    }
}

/// The length of the control data, none if they were cut: half an address is no address.
fn control_length(header: &libc::mmsghdr) -> usize {
    if header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0 {
        return 0;
    }
    let length = header.msg_hdr.msg_controllen;
    length as _
}
