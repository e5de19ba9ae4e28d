//! Descriptors sent over Unix sockets (SCM_RIGHTS): to systemd's store, and from one daemon to the next.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most descriptors that one message carries (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;
/// What a message with descriptors says, and the one after the last of them.
const MORE: u8 = 1;
const END: u8 = 0;

/// Sends a message to a connected socket, with at most `MAX_DESCRIPTORS` descriptors.
///
/// # Errors
/// The other end has gone, or does not read.
pub fn send_with_descriptors(socket: &impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    let sent = sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == message.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Sends any number of descriptors, for [`receive_descriptors`] at the other end.
///
/// # Errors
/// The other end has gone, or does not read.
pub fn send_descriptors(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for part in descriptors.chunks(MAX_DESCRIPTORS) {
        send_with_descriptors(stream, &[MORE], part)?;
    }
    send_with_descriptors(stream, &[END], &[])
}

/// Receives what [`send_descriptors`] sends.
///
/// # Errors
/// The stream ends early, or this process may not have so many descriptors.
pub fn receive_descriptors(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut mark = [END];
        let read = recvmsg(stream, &mut [IoSliceMut::new(&mut mark)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        match (read.bytes, mark) {
            (0, _) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            // The kernel leaves out what is over the limit on open files.
            _ if read.flags.contains(rustix::net::ReturnFlags::CTRUNC) => {
                return Err(io::Error::other("this process may not open so many files; raise ulimit -n"));
            }
            (_, [END]) => return Ok(descriptors),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn more_descriptors_than_a_message_carries_arrive_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut descriptors = vec![socket.as_fd(); MAX_DESCRIPTORS + 1];
        descriptors.push(other.as_fd());
        send_descriptors(&left, &descriptors).unwrap();
        let mut received = receive_descriptors(&right).unwrap();
        assert_eq!(received.len(), MAX_DESCRIPTORS + 2);
        let last = UdpSocket::from(received.pop().unwrap());
        assert_eq!(last.local_addr().unwrap(), other.local_addr().unwrap());
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let (left, right) = UnixStream::pair().unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        send_with_descriptors(&left, &[MORE], &[other.as_fd()]).unwrap();
        drop(left);
        assert_eq!(receive_descriptors(&right).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
