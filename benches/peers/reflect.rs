//! The floor for a hit: one `recvmmsg`, one `sendmmsg`, and as many octets as an answer has, without DNS.

use std::{net::SocketAddr, os::fd::AsFd};

use tidegate::net::{
    mmsg::Batch,
    socket::{ListenOptions, udp_listeners},
};

use crate::Result;

/// Messages a system call, as issue 3 and most servers have it.
pub(crate) const SLOTS: usize = 32;
/// The octets of an address record whose name is a pointer.
const RECORD: usize = 16;

/// Reflects until it is killed.
pub(crate) fn run(listen: SocketAddr) -> Result<()> {
    let socket = udp_listeners(listen, 1, &ListenOptions::default())?.remove(0);
    socket.set_nonblocking(false)?;
    let mut batch = Batch::new(SLOTS, 1232, 1232);
    loop {
        let count = batch.recv_waiting(socket.as_fd())?;
        for slot in 0..count {
            let message = batch.message(slot);
            let length = message.datagram.len();
            if !(12..=1232 - RECORD).contains(&length) {
                continue;
            }
            message.reply[..length].copy_from_slice(message.datagram);
            message.reply[length..length + RECORD].fill(0);
            // What the load generator looks at: QR, and one record.
            message.reply[2] |= 0x80;
            message.reply[7] = 1;
            batch.reply(slot, length + RECORD);
        }
        batch.send(socket.as_fd())?;
    }
}
