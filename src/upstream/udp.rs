//! Datagrams: queries of one turn leave together, answers are read in batches.

use std::{
    io::{self, Read},
    rc::{Rc, Weak},
};

use socket2::SockRef;
use tokio::io::Interest;

use crate::clock::Moment;

use super::{
    link::{Link, Outbox},
    pool::Port,
};

/// A datagram longer than this is not the answer to a query that advertised 1232 octets.
const LONGEST: usize = 4096;
/// Datagrams read before other tasks have their turn.
const FAIR: usize = 128;

/// Where datagrams are read into, one for a worker.
pub(super) struct Inbox {
    buffer: Vec<u8>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; LONGEST] }
    }
}

/// Sends what was raised in this turn.
pub(super) fn flush(link: &Link, now: Moment) {
    let mut outbox = link.outbox.borrow_mut();
    let Outbox { port, bytes, queries } = &mut *outbox;
    let Some(port) = port.take() else { return };
    let mut start = 0;
    let mut sent = 0;
    while let Some(&(end, _)) = queries.get(sent) {
        match SockRef::from(&port.socket).send(&bytes[start..end]) {
            Ok(_) => {}
            // The answer to an earlier datagram of this socket: those that wait behind it would meet the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                link.refused(&port, now);
                break;
            }
            // The queue of the device is full: lost, as it could be anywhere on the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                link.undeliverable(&queries[sent..], &error, now);
                break;
            }
        }
        start = end;
        sent += 1;
    }
    bytes.clear();
    queries.clear();
}

/// Reads a port until it is closed.
pub(super) async fn read(port: Rc<Port>, link: Weak<Link>) {
    loop {
        let Ok(ready) = port.socket.ready(Interest::READABLE | Interest::ERROR).await else { return };
        let Some(link) = link.upgrade() else { return };
        // `try_io` knows no two interests at once. The closure says WouldBlock when the socket is empty, which clears
        // the readiness.
        let interest = if ready.is_readable() { Interest::READABLE } else { Interest::ERROR };
        let _ = port.socket.try_io(interest, || drain(&port, &link));
        drop(link);
        tokio::task::consume_budget().await;
    }
}

fn drain(port: &Port, link: &Link) -> io::Result<()> {
    let now = Moment::now();
    let mut inbox = link.shared.inbox.borrow_mut();
    let socket = SockRef::from(&port.socket);
    for _ in 0..FAIR {
        match (&*socket).read(&mut inbox.buffer) {
            Ok(length) => link.receive(port, &inbox.buffer[..length], now),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => link.refused(port, now),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
    Ok(())
}
