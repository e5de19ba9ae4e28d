//! Datagrams: queries of one turn leave together, answers are read in batches.

use std::{
    io,
    os::fd::AsFd,
    rc::{Rc, Weak},
};

use tokio::io::Interest;

use crate::{
    clock::Moment,
    net::mmsg::{Inbox, Outbox},
    wire::UpstreamQuery,
};

use super::{Link, pool::Port};

/// Queries that leave with one system call.
const OUTGOING: usize = 64;
/// Answers that are read with one.
const INCOMING: usize = 64;
/// A datagram longer than this is not the answer to a query that advertised 1232 octets.
const LONGEST: usize = 4096;
/// Batches read before other tasks have their turn.
const FAIR: usize = 4;

/// Where datagrams are read into, one for a worker.
pub(super) fn inbox() -> Inbox {
    Inbox::new(INCOMING, LONGEST)
}

/// Queries raised in this turn of the worker's loop, which leave together through one port.
pub(super) struct SendBatch {
    /// Drawn for the turn by its first query.
    pub(super) port: Option<Rc<Port>>,
    outbox: Outbox,
    ids: Vec<u16>,
}

impl SendBatch {
    pub(super) fn new() -> Self {
        Self { port: None, outbox: Outbox::new(OUTGOING, UpstreamQuery::MAX), ids: Vec::with_capacity(OUTGOING) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.ids.len() == OUTGOING
    }

    /// Queues a query; there must be room.
    pub(super) fn push(&mut self, id: u16, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let _ = self.outbox.push_connected(write);
        self.ids.push(id);
    }
}

/// Sends what was raised in this turn, which goes on with the same port.
pub(super) fn send(link: &Rc<Link>, now: Moment) {
    let mut batch = link.batch.borrow_mut();
    let SendBatch { port: Some(port), outbox, ids } = &mut *batch else { return };
    let port = Rc::clone(port);
    let (failed, kind) = match outbox.flush(port.socket.as_fd()) {
        Ok(sent) => {
            // The queue of the device is full: lost, as they could be anywhere on the way.
            outbox.clear();
            if sent.error == Some(io::ErrorKind::ConnectionRefused) {
                link.refused(&port, now);
            }
            let is_failed = |slot: usize| sent.failed_slots >> slot & 1 == 1;
            (ids.iter().enumerate().filter(|(slot, _)| is_failed(*slot)).map(|(_, id)| *id).collect(), sent.error)
        }
        Err(error) => (ids.clone(), Some(error.kind())),
    };
    let failed: Vec<u16> = failed;
    if failed.len() < ids.len() {
        port.has_sent.set(true);
    }
    ids.clear();
    drop(batch);
    if let (false, Some(kind)) = (failed.is_empty(), kind) {
        link.not_sent(&port, &failed, kind, now);
    }
}

/// Sends what was raised in this turn, and ends it.
pub(super) fn flush(link: &Rc<Link>, now: Moment) {
    send(link, now);
    let mut batch = link.batch.borrow_mut();
    // What could not leave may wait in the turn again, with another port.
    if batch.ids.is_empty() {
        batch.port = None;
    }
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
    for _ in 0..FAIR {
        match inbox.recv(port.socket.as_fd()) {
            Ok(received) => {
                for datagram in inbox.datagrams() {
                    link.receive(port, datagram.bytes, now);
                }
                // A batch that is not full has emptied the socket; what comes later wakes us again.
                if received < inbox.slots() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => link.refused(port, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // An error of what was sent, told and cleared by this call; answers may stand behind it.
            Err(_) => {}
        }
    }
    Ok(())
}
