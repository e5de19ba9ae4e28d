//! Datagrams: the queries of one turn leave together, and answers are read in batches.

use std::{
    io,
    os::fd::AsFd,
    rc::{Rc, Weak},
};

use tokio::io::Interest;

use crate::{
    clock::Moment,
    net::mmsg::{Inbox, Outbox},
    system_error::ErrorCause,
    wire::UpstreamQuery,
};

use super::{Link, pool::Port};

/// Queries sent by one system call.
const OUTGOING: usize = 64;
/// Answers read by one system call.
const INCOMING: usize = 64;
/// The longest answer read. We advertise 1232 octets, so a longer datagram is not an answer to our query.
const LONGEST: usize = 4096;
/// Batches read before other tasks get their turn.
const FAIR: usize = 4;
/// Errors in a row, with nothing read and the socket never empty, after which a port is closed. Reading an error clears
/// a send error; one that stays would keep the loop busy for ever.
const MOST_ERRORS: u32 = 64;

/// The buffers that datagrams are read into, one inbox per worker.
pub(super) fn inbox() -> Inbox {
    Inbox::new(INCOMING, LONGEST)
}

/// Queries of this turn of the worker's loop, which leave together through one port.
pub(super) struct SendBatch {
    /// Drawn by the first query of the turn.
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

/// Sends the queued queries; the turn goes on with the same port.
pub(super) fn send(link: &Rc<Link>, now: Moment) {
    let mut batch = link.batch.borrow_mut();
    let SendBatch { port: Some(port), outbox, ids } = &mut *batch else { return };
    let port = Rc::clone(port);
    let (failed, cause) = match outbox.flush(port.socket.as_fd()) {
        Ok(sent) => {
            // The device's queue is full: treat the queries as lost on the way.
            outbox.clear();
            if sent.error.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
                link.refused(&port, now);
            }
            let is_failed = |slot: usize| sent.failed_slots >> slot & 1 == 1;
            (ids.iter().enumerate().filter(|(slot, _)| is_failed(*slot)).map(|(_, id)| *id).collect(), sent.error)
        }
        Err(error) => (ids.clone(), Some(ErrorCause::from(&error))),
    };
    let failed: Vec<u16> = failed;
    if failed.len() < ids.len() {
        port.has_sent.set(true);
    }
    ids.clear();
    drop(batch);
    if let (false, Some(cause)) = (failed.is_empty(), cause) {
        link.not_sent(&port, &failed, cause, now);
    }
}

/// Sends the queued queries and ends the turn.
pub(super) fn flush(link: &Rc<Link>, now: Moment) {
    send(link, now);
    let mut batch = link.batch.borrow_mut();
    // Queries that could not leave may be queued again, with another port.
    if batch.ids.is_empty() {
        batch.port = None;
    }
}

/// Reads a port until it is closed or only returns errors.
pub(super) async fn read(port: Rc<Port>, link: Weak<Link>) {
    let mut errors = 0;
    loop {
        let Ok(mut ready) = port.socket.ready(Interest::READABLE | Interest::ERROR).await else { return };
        let Some(link) = link.upgrade() else { return };
        // "Would block" on an empty socket clears the readiness.
        drop(ready.try_io(|_| drain(&port, &link, &mut errors)));
        if errors > MOST_ERRORS {
            tracing::debug!(
                group = link.server.group(),
                server = link.server.label(),
                "upstream port given up: errors alone"
            );
            link.port_failed(&port, Moment::now());
            return;
        }
        drop(link);
        tokio::task::consume_budget().await;
    }
}

/// Reads everything available. `errors` counts errors in a row.
fn drain(port: &Port, link: &Link, errors: &mut u32) -> io::Result<()> {
    let now = Moment::now();
    let mut inbox = link.shared.inbox.borrow_mut();
    for _ in 0..FAIR {
        let received = inbox.recv(port.socket.as_fd());
        *errors = match &received {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => *errors + 1,
            _ => 0,
        };
        match received {
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
            // A send error that this call reported and cleared; answers may be queued behind it.
            Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd, time::Duration};

    use super::*;
    use crate::{
        net::mmsg::for_reading,
        upstream::{
            Group, GroupLimits, GroupSpec, HealthSpec, OwnAddresses, Policy, ServerSpec, TierMember, UpstreamClient,
            WorkerNumber,
        },
        wire::{Name, RecordType, Transport},
    };

    #[test]
    fn a_port_that_only_gives_errors_is_given_up() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let server = ServerSpec::plain(Transport::Udp, "127.0.0.1:9".parse().unwrap());
            let spec = GroupSpec {
                name: "vpc".into(),
                tiers: vec![vec![TierMember::Server(server)]],
                policy: Policy::Ordered,
                limits: GroupLimits::default(),
                health: HealthSpec::probing(Name::root(), RecordType::NS),
            };
            let group = Group::build(&spec, &OwnAddresses::default(), &std::sync::Arc::default());
            let client = UpstreamClient::new(WorkerNumber::ALONE);
            let link = client.link(group.servers().next().unwrap());
            // A pipe is readable but not a socket: every read is an error that stays.
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(b"x").unwrap();
            let socket = std::net::UdpSocket::from(OwnedFd::from(reader));
            socket.set_nonblocking(true).unwrap();
            let socket = for_reading(socket).unwrap();
            let port = Rc::new(Port::new(1, socket, Moment::now() + Duration::from_secs(60)));
            let reading = read(port, Rc::downgrade(&link));
            tokio::time::timeout(Duration::from_secs(15), reading).await.expect("it ends by itself");
        });
    }
}
