//! One query to one server over one transport, and how it ended. It leaves as the daemon's queries do: by the group's
//! source address, device and mark.

use std::{io, net::UdpSocket, time::Duration};

use crate::{
    clock::Moment,
    net::socket::upstream_udp,
    tls::HandshakeError,
    upstream::{ConnectError, ServerSpec, ask_once},
    wire::{Flags, Header, MessageId, Rcode, Response, ResponseKind, Transport, UpstreamQuery},
};

/// Time for an answer; over UDP a query is sent again after each third of it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// Datagrams sent for one query.
const TRIES: u32 = 3;

/// How a query is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// The UDP payload size in EDNS; none = no EDNS.
    pub(super) payload: Option<u16>,
    /// Whether recursion is desired.
    pub(super) recursion: bool,
}

/// How one query ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A response came.
    Answered(Box<Reply>),
    /// Nothing came in time.
    Silent,
    /// The host said that nothing listens.
    NothingListens,
    /// There is no way to the host.
    NoRoute(String),
    /// This host could not send.
    Local(String),
    /// The handshake of TLS or QUIC failed.
    Handshake(HandshakeError),
    /// The connection broke, or what came was not a response.
    Broken(String),
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    /// As it was read.
    pub(super) response: Response,
    /// Its flags as they came.
    pub(super) flags: Flags,
    /// Its length in octets as it came.
    pub(super) length: usize,
}

impl Outcome {
    /// The response, if there is one.
    pub(super) fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Answered(reply) => Some(reply),
            _ => None,
        }
    }
}

impl Reply {
    /// Whether it is an answer: neither an error nor a referral.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.response.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN)
            && !matches!(self.response.kind(), ResponseKind::Referral)
    }

    /// Whether the server offers recursion.
    pub(super) fn offers_recursion(&self) -> bool {
        self.flags.has(Flags::RA) && self.response.kind() != ResponseKind::Referral
    }
}

/// Asks over the transport, within [`TIMEOUT`]; again without EDNS if the server cannot read it, as the daemon does.
pub(super) async fn ask(spec: &ServerSpec, transport: Transport, query: &UpstreamQuery, style: Style) -> Outcome {
    let outcome = ask_as(spec, transport, query, style).await;
    let is_unread = |reply: &Reply| matches!(reply.response.rcode(), Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS);
    if style.payload.is_none() || !outcome.reply().is_some_and(is_unread) {
        return outcome;
    }
    let without = ask_as(spec, transport, query, Style { payload: None, ..style }).await;
    if without.reply().is_some_and(|reply| !is_unread(reply)) { without } else { outcome }
}

async fn ask_as(spec: &ServerSpec, transport: Transport, query: &UpstreamQuery, style: Style) -> Outcome {
    if transport == Transport::Udp {
        return over_udp(spec, query, style).await.unwrap_or_else(|error| of_connection(error.into()));
    }
    let mut out = [0; UpstreamQuery::MAX_PADDED];
    let length = write(query, MessageId(0), style, &mut out);
    let length = if transport.is_encrypted() { UpstreamQuery::pad(&mut out, length) } else { length };
    let spec = ServerSpec { transport, ..spec.clone() };
    match tokio::time::timeout(TIMEOUT, Box::pin(ask_once(&spec, &out[..length]))).await {
        Err(_) => Outcome::Silent,
        Ok(Err(error)) => of_connection(error),
        Ok(Ok(message)) => read(&message, query, MessageId(0))
            .unwrap_or_else(|| Outcome::Broken("what it sent answers another query".to_owned())),
    }
}

fn write(query: &UpstreamQuery, id: MessageId, style: Style, out: &mut [u8]) -> usize {
    let length = query.write(id, style.payload, None, out).unwrap_or(0);
    if !style.recursion {
        UpstreamQuery::clear_rd(out);
    }
    length
}

fn read(message: &[u8], query: &UpstreamQuery, id: MessageId) -> Option<Outcome> {
    let flags = Header::read(message).ok()?.flags;
    let response = Response::read(message, query, id, None).ok()?;
    Some(Outcome::Answered(Box::new(Reply { response, flags, length: message.len() })))
}

async fn over_udp(spec: &ServerSpec, query: &UpstreamQuery, style: Style) -> io::Result<Outcome> {
    let socket: UdpSocket = upstream_udp(spec.address, &spec.via)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let id = MessageId(rand::random());
    let mut out = [0; UpstreamQuery::MAX];
    let length = write(query, id, style, &mut out);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for _ in 0..TRIES {
        socket.send(&out[..length]).await?;
        let until = Moment::now() + TIMEOUT / TRIES;
        while let Some(left) = Some(until.since(Moment::now())).filter(|left| !left.is_zero()) {
            let Ok(received) = tokio::time::timeout(left, socket.recv(&mut buffer)).await else { break };
            if let Some(outcome) = read(&buffer[..received?], query, id) {
                return Ok(outcome);
            }
        }
    }
    Ok(Outcome::Silent)
}

fn of_connection(error: ConnectError) -> Outcome {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    match error {
        ConnectError::Network(cause) => match cause.kind() {
            ConnectionRefused => Outcome::NothingListens,
            HostUnreachable | NetworkDown | NetworkUnreachable => Outcome::NoRoute(cause.to_string()),
            TimedOut => Outcome::Silent,
            _ => Outcome::Broken(error.to_string()),
        },
        ConnectError::Slow => Outcome::Silent,
        ConnectError::Local { .. } => Outcome::Local(error.to_string()),
        ConnectError::Handshake(error) => Outcome::Handshake(error),
        other => Outcome::Broken(other.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::{Class, Name, RecordType};

    /// A response without data, for tests that need some response.
    pub(crate) fn answered() -> Outcome {
        let query =
            UpstreamQuery { name: Name::root(), qtype: RecordType::NS, qclass: Class::IN, do_bit: false, cd: false };
        let mut message = vec![0; UpstreamQuery::MAX];
        let length = query.write(MessageId(0), None, None, &mut message).unwrap();
        message.truncate(length);
        message[2] |= 0x80;
        read(&message, &query, MessageId(0)).unwrap()
    }
}
