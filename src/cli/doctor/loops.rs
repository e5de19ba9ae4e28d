//! Loops, where no daemon runs: does what a server is asked come back to where tidegate would listen?

use std::net::{SocketAddr, UdpSocket};

use super::{
    answers,
    document::DoctorFinding,
    exchange::{self, Style},
    kind::Kind,
};
use crate::{
    net::socket::{ListenOptions, udp_listeners},
    upstream::ServerSpec,
    wire::{Name, RecordType, header::HEADER},
};

/// A server to examine for a loop.
pub(super) struct LoopCandidate<'s> {
    pub(super) server: &'s ServerSpec,
    pub(super) group: &'s str,
    /// A zone whose queries it gets.
    pub(super) zone: &'s Name,
    pub(super) style: Style,
}

/// Asks each server for a name that nobody knows, all at once, while it listens on those of the addresses that are free;
/// gives the servers whose query came back.
pub(super) async fn find(listen: &[SocketAddr], candidates: Vec<LoopCandidate<'_>>) -> Vec<DoctorFinding> {
    let bind = |address: &SocketAddr| udp_listeners(*address, 1, &ListenOptions::default()).ok();
    let sockets: Vec<UdpSocket> =
        listen.iter().filter(|address| address.port() != 0).filter_map(bind).flatten().collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let asking = candidates.into_iter().filter_map(|candidate| Some((answers::unheard_of(candidate.zone)?, candidate)));
    let asked = super::all(asking.map(|(name, candidate)| async move {
        let query = answers::query(name, RecordType::A, false);
        exchange::ask(candidate.server, candidate.server.transport, &query, candidate.style).await;
        (query.name, candidate)
    }))
    .await;
    let returned: Vec<Vec<u8>> = sockets.iter().flat_map(received).collect();
    let returns = |name: &Name| returned.iter().any(|question| question.starts_with(name.as_wire()));
    let looping = asked.iter().filter(|(name, _)| returns(name));
    let finding = |(_, LoopCandidate { server, group, zone, .. }): &(Name, LoopCandidate<'_>)| {
        let what = format!("{server} sends queries for {zone} to an address that this configuration listens on");
        DoctorFinding::new(Kind::Loop, what).of_group(group).of_server(&server.to_string())
    };
    looping.map(finding).collect()
}

/// The question sections, and what follows them, of all messages that wait in a socket, in lower case.
fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut messages = Vec::new();
    if socket.set_nonblocking(true).is_ok() {
        while let Ok(length) = socket.recv(&mut buffer) {
            messages.extend(buffer[..length].get(HEADER..).map(<[u8]>::to_ascii_lowercase));
        }
    }
    messages
}
