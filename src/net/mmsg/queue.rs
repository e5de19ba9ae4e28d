//! A queue of messages for `sendmmsg`, and the result of sending them.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{SLOTS_MAX, fixed::Fixed};
use crate::system_error::ErrorCause;

/// The result of sending a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Messages the kernel took.
    pub sent: usize,
    /// Messages it rejected for good: no route, too long, forbidden by a filter.
    pub failed: usize,
    /// The positions of the failed messages when the call began: a bit each, for the first 64.
    pub failed_slots: u64,
    /// Messages still in the queue because the socket's buffer is full; the next call goes on with them.
    pub left: usize,
    /// The last error. ECONNREFUSED on a connected socket is about an earlier datagram; the message that met it
    /// has been sent all the same.
    pub error: Option<ErrorCause>,
}

/// Message headers in the order they are sent. `start..end` are waiting.
///
/// Invariant: every header in `start..end` points into memory that outlives the queue's next `clear`; the owner of the
/// queue owns that memory too.
pub(super) struct Queue {
    headers: Fixed<libc::mmsghdr>,
    start: usize,
    end: usize,
}

// SAFETY: the pointers in the headers lead into memory of the queue's owner, which moves together with it.
unsafe impl Send for Queue {}

/// A header of zeros: no name, no parts, no control.
pub(super) const fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and raw pointers, for which zero and null are values.
    unsafe { mem::zeroed() }
}

/// A number of headers as the system calls take it; never more than [`SLOTS_MAX`].
pub(super) fn count(headers: usize) -> libc::c_uint {
    libc::c_uint::try_from(headers).unwrap_or_default()
}

/// How to continue after `sendmmsg` returned -1 for the message at the front.
enum SendError {
    /// The socket's buffer is full.
    Later,
    /// The error belongs to an earlier message.
    Again,
    /// This message cannot be sent, others may.
    Skip,
    /// The socket cannot be used.
    Fatal,
}

impl Queue {
    /// A queue of `slots` headers as `header` makes them.
    pub(super) fn new(slots: usize, header: impl FnMut(usize) -> libc::mmsghdr) -> Self {
        assert!((1..=SLOTS_MAX).contains(&slots), "one system call moves 1 to {SLOTS_MAX} datagrams, not {slots}");
        Self { headers: Fixed::new(slots, header), start: 0, end: 0 }
    }

    pub(super) const fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    pub(super) const fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// The position the next message takes, if there is one.
    pub(super) fn next(&self) -> Option<usize> {
        (self.end < self.headers.len()).then_some(self.end)
    }

    /// The next message's header; `None` when all are taken.
    pub(super) fn take(&mut self) -> Option<&mut libc::mmsghdr> {
        let header = self.headers.get_mut(self.end)?;
        self.end += 1;
        Some(header)
    }

    /// Sends what is waiting, with as few calls as the kernel allows.
    ///
    /// # Errors
    /// The socket is no socket or not connected; the queue is empty then.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<Sent> {
        let mut outcome = Sent::default();
        let mut retried = false;
        let began_at = self.start;
        while self.start < self.end {
            let waiting = self.waiting();
            let first = self.headers.pointer(self.start);
            // SAFETY: `first` and the `waiting - 1` headers after it are initialised and owned by `self`; the memory
            // they point to is alive by the invariant of `Queue`, and borrowed with it.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count(waiting), libc::MSG_DONTWAIT as _) };
            if let Ok(sent) = usize::try_from(sent) {
                outcome.sent += sent;
                self.start += sent;
                retried = false;
                continue;
            }
            let error = io::Error::last_os_error();
            match judge(&error) {
                SendError::Later => {
                    outcome.left = waiting;
                    return Ok(outcome);
                }
                SendError::Again if !retried => {
                    retried = true;
                    if error.kind() != io::ErrorKind::Interrupted {
                        outcome.error = Some(ErrorCause::from(&error));
                    }
                }
                SendError::Again | SendError::Skip => {
                    outcome.failed += 1;
                    outcome.failed_slots |=
                        u32::try_from(self.start - began_at).map_or(0, |slot| 1_u64.checked_shl(slot).unwrap_or(0));
                    outcome.error = Some(ErrorCause::from(&error));
                    self.start += 1;
                    retried = false;
                }
                SendError::Fatal => {
                    self.clear();
                    return Err(error);
                }
            }
        }
        self.clear();
        Ok(outcome)
    }
}

fn judge(error: &io::Error) -> SendError {
    let Some(code) = error.raw_os_error() else { return SendError::Fatal };
    match code {
        libc::EAGAIN => SendError::Later,
        // ICMP errors of earlier datagrams on a connected socket; reading one clears it.
        libc::EINTR | libc::ECONNREFUSED => SendError::Again,
        libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::ENOTCONN | libc::EDESTADDRREQ | libc::EPIPE => {
            SendError::Fatal
        }
        _ => SendError::Skip,
    }
}
