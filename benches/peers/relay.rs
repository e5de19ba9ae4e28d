//! The floor for a miss: two more system calls a batch, and an id rewritten so that answers find their way, without DNS.

use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};

use tidegate::net::{
    mmsg::{Batch, Inbox, Outbox, Path, wait_readable},
    socket::{Egress, ListenOptions, udp_listeners, upstream_udp},
};

use crate::{Result, reflect::SLOTS};

/// Questions in flight; the oldest is forgotten for the next.
const IN_FLIGHT: usize = 4096;

/// Relays until it is killed.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let clients = udp_listeners(listen, 1, &ListenOptions::default())?.remove(0);
    let upstream = upstream_udp(upstream, &Egress::default())?;
    let mut batch = Batch::new(SLOTS, 1232, 1);
    let mut questions = Outbox::new(SLOTS, 1232);
    let mut inbox = Inbox::new(SLOTS, 1232);
    let mut answers = Outbox::new(SLOTS, 1232);
    let mut waiting: Vec<Option<([u8; 2], Path)>> = vec![None; IN_FLIGHT];
    let mut next = 0;
    loop {
        let ready = wait_readable(&[clients.as_fd(), upstream.as_fd()], Some(Duration::from_secs(1)))?;
        if ready.contains(&0) {
            for slot in 0..received(batch.recv(clients.as_fd()))? {
                let message = batch.message(slot);
                let Some((id, rest)) = message.datagram.split_first_chunk::<2>() else { continue };
                next = (next + 1) % IN_FLIGHT;
                waiting[next] = Some((*id, message.origin.path()));
                let id = u16::try_from(next).unwrap_or_default();
                let _ = questions.push_connected(|out| write(id.to_be_bytes(), rest, out));
            }
            questions.flush(upstream.as_fd())?;
        }
        if ready.contains(&1) {
            received(inbox.recv(upstream.as_fd()))?;
            for datagram in inbox.datagrams() {
                let Some((id, rest)) = datagram.bytes.split_first_chunk::<2>() else { continue };
                let slot = waiting.get_mut(usize::from(u16::from_be_bytes(*id)));
                let Some((id, path)) = slot.and_then(Option::take) else { continue };
                let _ = answers.push(&path, |out| write(id, rest, out));
            }
            answers.flush(clients.as_fd())?;
        }
    }
}

fn write(id: [u8; 2], rest: &[u8], out: &mut [u8]) -> Option<usize> {
    out[..2].copy_from_slice(&id);
    out[2..2 + rest.len()].copy_from_slice(rest);
    Some(2 + rest.len())
}

fn received(count: io::Result<usize>) -> io::Result<usize> {
    match count {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => Ok(0),
        count => count,
    }
}
