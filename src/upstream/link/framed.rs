//! Messages over an ordered stream of octets, two octets of length before each (RFC 1035 4.2.2, RFC 7766, RFC 7858).
//!
//! The same for TCP and TLS. Queries are written as they come, answers are matched by their ids in any order.

use std::{io, rc::Weak};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{clock::Moment, wire::MAX_MESSAGE};

use super::{
    Link,
    stream::{GOODBYE, Stream},
};

/// Writes what waits and reads what comes, until either end is done.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(stream: &Stream, link: &Weak<Link>, io: S) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut incoming = Vec::with_capacity(2048);
    let mut sending: Vec<u8> = Vec::new();
    let mut sent = 0;
    // What TLS was given is on the wire once it is flushed.
    let mut is_flushed = true;
    loop {
        if sent == sending.len() {
            sending.clear();
            sent = 0;
            stream.take_outgoing(&mut sending);
        }
        tokio::select! {
            read = reader.read_buf(&mut incoming) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let Some(link) = link.upgrade() else { return };
                take_frames(stream, &link, &mut incoming, Moment::now());
            }
            written = push(&mut writer, &sending[sent..]), if sent < sending.len() || !is_flushed => match written {
                Ok(0) if sent < sending.len() => return,
                Ok(length) => {
                    sent += length;
                    is_flushed = length == 0;
                }
                Err(_) => return,
            },
            () = stream.has_work(), if sent == sending.len() => if stream.is_leaving() {
                // TLS takes an end without it for one that was forged (RFC 8446 6.1).
                drop(tokio::time::timeout(GOODBYE, writer.shutdown()).await);
                return;
            },
        }
    }
}

/// Writes some of it; where nothing is left, flushes.
async fn push<W: AsyncWrite + Unpin>(writer: &mut W, octets: &[u8]) -> io::Result<usize> {
    if octets.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    writer.write(octets).await
}

fn take_frames(stream: &Stream, link: &Link, incoming: &mut Vec<u8>, now: Moment) {
    let mut start = 0;
    while let Some(head) = incoming[start..].first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*head));
        let Some(message) = incoming.get(start + 2..start + 2 + length) else { break };
        link.receive_framed(stream, message, now);
        start += 2 + length;
    }
    incoming.drain(..start);
    if incoming.is_empty() && incoming.capacity() > MAX_MESSAGE {
        *incoming = Vec::with_capacity(2048);
    }
}
