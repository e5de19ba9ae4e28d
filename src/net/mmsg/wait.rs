//! Waiting without a runtime, for tools that measure one. The server itself waits in tokio.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

/// Waits until one of `sockets` has something to read or has failed, or `timeout` is over; `None` waits for ever.
/// Returns the positions of those that have, none when the time is over.
///
/// # Errors
/// The kernel refuses, or a signal came.
pub fn wait_readable(sockets: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let mut polled: Vec<libc::pollfd> = sockets
        .iter()
        .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = libc::nfds_t::try_from(polled.len()).map_err(io::Error::other)?;
    // SAFETY: `polled` holds `count` entries that the call may write to, and `limit` is null or alive during it.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), count, limit, ptr::null()) };
    if ready < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(polled.iter().enumerate().filter(|(_, entry)| entry.revents != 0).map(|(position, _)| position).collect())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn socket_with_a_datagram_is_the_one_that_is_ready() {
        let sockets = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let all = sockets.each_ref().map(|socket| socket.as_fd());
        assert_eq!(wait_readable(&all, Some(Duration::from_millis(1))).unwrap(), [0usize; 0]);
        sockets[0].send_to(b"x", sockets[1].local_addr().unwrap()).unwrap();
        assert_eq!(wait_readable(&all, None).unwrap(), [1]);
    }
}
