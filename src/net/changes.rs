//! Changes of links, addresses and routes, as the kernel tells them (rtnetlink(7)).
//!
//! Only the kind of a change is read: the owners of sockets check for themselves whether their route changed.
//! [`generation`] tells them cheaply whether to check. Without netlink (a sandbox without AF_NETLINK) it never changes,
//! and failing queries are the only evidence.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use netlink_sys::{AsyncSocket, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

/// Multicast groups (linux/rtnetlink.h): links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// The octets of a message's header (`struct nlmsghdr`); the type is the third word of 16 bits.
const HEADER: usize = 16;

/// The number of changes received so far.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Whether [`NetworkChanges`] is listening.
static HEARD: AtomicBool = AtomicBool::new(false);

/// Whether changes are received at all.
pub fn are_heard() -> bool {
    HEARD.load(Relaxed)
}

/// How often the network changed since the process began, as far as the kernel reported it.
pub fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkChange {
    /// An interface came, went, or changed its state.
    Link,
    /// An address came or went.
    Address,
    /// A route came or went.
    Route,
}

impl NetworkChange {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Link, Self::Address, Self::Route];

    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Link => "links",
            Self::Address => "addresses",
            Self::Route => "routes",
        }
    }

    /// By the type of a message (RTM_NEWLINK = 16 to RTM_DELROUTE = 25).
    const fn of_type(message: u16) -> Option<Self> {
        match message {
            16 | 17 => Some(Self::Link),
            20 | 21 => Some(Self::Address),
            24 | 25 => Some(Self::Route),
            _ => None,
        }
    }
}

/// Listens for changes.
pub struct NetworkChanges {
    socket: TokioSocket,
}

impl NetworkChanges {
    /// Starts listening. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// There is no netlink here.
    pub fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        HEARD.store(true, Relaxed);
        Ok(Self { socket })
    }

    /// Waits for the next changes, and counts them in [`generation`]. Notices lost because too many came at once
    /// count as a change of every kind.
    ///
    /// # Errors
    /// The socket cannot be used any more.
    pub async fn next(&mut self) -> io::Result<Vec<NetworkChange>> {
        loop {
            let changes = match self.socket.recv_from_full().await {
                Ok((messages, _)) => changes(&messages),
                Err(error) if error.raw_os_error() == Some(NO_BUFFER_SPACE) => NetworkChange::ALL.to_vec(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if !changes.is_empty() {
                GENERATION.fetch_add(1, Relaxed);
                return Ok(changes);
            }
        }
    }
}

impl Drop for NetworkChanges {
    fn drop(&mut self) {
        HEARD.store(false, Relaxed);
    }
}

/// ENOBUFS: the receive buffer was full.
const NO_BUFFER_SPACE: i32 = 105;

/// The kinds of the messages in a datagram.
fn changes(mut messages: &[u8]) -> Vec<NetworkChange> {
    let mut changes = Vec::new();
    while let Some((length, rest)) = messages.split_first_chunk::<4>() {
        let Some(kind) = rest.first_chunk::<2>() else { break };
        changes.extend(NetworkChange::of_type(u16::from_ne_bytes(*kind)));
        // Messages begin at multiples of four octets (NLMSG_ALIGN).
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        match messages.get(length.max(HEADER).next_multiple_of(4)..) {
            Some(behind) => messages = behind,
            None => break,
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let length = u32::try_from(HEADER + body).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        message.resize((HEADER + body).next_multiple_of(4), 0);
        message
    }

    #[test]
    fn messages_are_told_by_their_type() {
        let datagram = [message(16, 5), message(20, 0), message(25, 8), message(2, 4)].concat();
        assert_eq!(changes(&datagram), [NetworkChange::Link, NetworkChange::Address, NetworkChange::Route]);
        assert_eq!(changes(&datagram[..6]), [NetworkChange::Link], "cut short");
        assert_eq!(changes(&[]), []);
        assert_eq!(changes(&[0; 40]), [], "lengths of zero end");
    }
}
