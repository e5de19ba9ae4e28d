//! Messages over an ordered stream of octets, each after its length in two octets (RFC 1035 4.2.2, RFC 7766, RFC 7858).
//!
//! The same code serves TCP and TLS. Queries are written as they come, and each incoming message is passed on at once.

use std::{
    cell::{Cell, RefCell},
    io, mem,
    ops::ControlFlow,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use crate::wire::MAX_MESSAGE;

/// How long closing a connection may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Framed queries that wait to be written to a connection.
#[derive(Default)]
pub(super) struct SendQueue {
    framed: RefCell<Vec<u8>>,
    work: Notify,
    /// Set when no more queries go on the connection: it then closes in an orderly way.
    is_closing: Cell<bool>,
}

impl SendQueue {
    /// Queues a message.
    pub(super) fn push(&self, message: &[u8]) {
        let mut framed = self.framed.borrow_mut();
        framed.extend_from_slice(&u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
        framed.extend_from_slice(message);
        self.work.notify_one();
    }

    /// Moves the queued octets to the end of `sending`.
    pub(super) fn take(&self, sending: &mut Vec<u8>) {
        let mut framed = self.framed.borrow_mut();
        if sending.is_empty() {
            mem::swap(sending, &mut framed);
        } else {
            sending.append(&mut framed);
        }
    }

    /// Waits until there is something to write, or the connection is to close.
    pub(super) async fn has_work(&self) {
        self.work.notified().await;
    }

    /// Whether the connection is to close.
    pub(super) const fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Closes the connection.
    pub(super) fn leave(&self) {
        self.is_closing.set(true);
        self.work.notify_one();
    }
}

/// Writes queued queries and reads messages until either side is done or `receive` stops it.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(
    queue: &SendQueue,
    io: S,
    mut receive: impl FnMut(&[u8]) -> ControlFlow<()>,
) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut incoming = Vec::with_capacity(2048);
    let mut sending: Vec<u8> = Vec::new();
    let mut sent = 0;
    // TLS data is on the wire only after a flush.
    let mut is_flushed = true;
    loop {
        if sent == sending.len() {
            sending.clear();
            sent = 0;
            queue.take(&mut sending);
        }
        tokio::select! {
            read = reader.read_buf(&mut incoming) => {
                if !matches!(read, Ok(1..)) || take_frames(&mut incoming, &mut receive).is_break() {
                    return;
                }
            }
            written = push(&mut writer, &sending[sent..]), if sent < sending.len() || !is_flushed => match written {
                Ok(0) if sent < sending.len() => return,
                Ok(length) => {
                    sent += length;
                    is_flushed = length == 0;
                }
                Err(_) => return,
            },
            () = queue.has_work(), if sent == sending.len() => if queue.is_closing() {
                // Without close_notify, TLS treats the end as a truncation attack (RFC 8446 6.1).
                drop(tokio::time::timeout(CLOSE_TIMEOUT, writer.shutdown()).await);
                return;
            },
        }
    }
}

/// Writes some of the octets; flushes if there are none.
async fn push<W: AsyncWrite + Unpin>(writer: &mut W, octets: &[u8]) -> io::Result<usize> {
    if octets.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    writer.write(octets).await
}

fn take_frames(incoming: &mut Vec<u8>, mut receive: impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut start = 0;
    while let Some(head) = incoming[start..].first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*head));
        let Some(message) = incoming.get(start + 2..start + 2 + length) else { break };
        receive(message)?;
        start += 2 + length;
    }
    incoming.drain(..start);
    if incoming.is_empty() && incoming.capacity() > MAX_MESSAGE {
        *incoming = Vec::with_capacity(2048);
    }
    ControlFlow::Continue(())
}
