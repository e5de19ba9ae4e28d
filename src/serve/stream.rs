//! DNS over TCP (RFC 7766) and TLS (RFC 7858): framed messages, pipelined, answered as soon as each answer is there.
//!
//! Policy:
//! - One task per connection reads, handles and writes. Responses to one read go out in one write.
//! - At most `pipeline` queries of a connection wait at a time; reading then stops until one is answered.
//! - A connection on which no query was completed for `tcp_idle`, and none waits, is closed: idle ones, and those that
//!   send or read an octet at a time. So is one that sends something other than queries, and one whose handshake takes
//!   as long.
//! - At the limit of connections the oldest idle one makes room ([`super::connections`]).
//! - A client that does not read loses responses beyond its limits; nothing is queued without end.

use std::{io, rc::Rc};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Session, connections::MAX_UNSENT, lifetime::ListenerLife};
use crate::{
    clock::Moment,
    engine::{Action, Incoming, Query, resolve},
    metrics::DropReason,
    tls,
};

/// Octets read at once, and kept by an idle connection.
const READ_SIZE: usize = 16 * 1024;

/// Serves one accepted connection until it ends.
///
/// # Errors
/// The connection broke, or its client violated the protocol.
pub(super) async fn serve(
    stream: TcpStream,
    session: Session,
    tls: Option<tls::TlsServer>,
    lifetime: ListenerLife,
) -> io::Result<()> {
    match tls {
        None => Connection::new(session).run(stream, lifetime).await,
        Some(tls) => {
            let stream = session.before_first_query(tls.accept(stream), &lifetime).await?;
            Connection::new(session).run(stream, lifetime).await
        }
    }
}

struct Connection {
    session: Session,
    received: Vec<u8>,
    unsent: Vec<u8>,
    waiting: usize,
    replies: (mpsc::UnboundedSender<Vec<u8>>, mpsc::UnboundedReceiver<Vec<u8>>),
    progress: Instant,
}

/// Closes a connection without waiting for its client: over TLS with close_notify (RFC 8446 6.1) if that can be sent.
fn close_now<W: AsyncWrite + Unpin>(writer: &mut W) -> io::Result<()> {
    drop(writer.shutdown().now_or_never());
    Ok(())
}

/// What to do after a read.
enum Next {
    GoOn,
    Close,
}

impl Connection {
    fn new(session: Session) -> Self {
        Self {
            session,
            received: Vec::new(),
            unsent: Vec::new(),
            waiting: 0,
            replies: mpsc::unbounded_channel(),
            progress: Instant::now(),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S, mut lifetime: ListenerLife) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (pipeline, idle) = (self.session.limits.pipeline, self.session.limits.idle);
        let mut is_open = true;
        while is_open || self.waiting > 0 || !self.unsent.is_empty() {
            let may_read = is_open && self.waiting < pipeline && self.unsent.len() < MAX_UNSENT;
            if may_read {
                self.received.reserve(READ_SIZE);
            }
            tokio::select! {
                biased;
                written = writer.write(&self.unsent), if !self.unsent.is_empty() => {
                    let written = written?;
                    if written == 0 { return Err(io::ErrorKind::WriteZero.into()); }
                    self.unsent.drain(..written);
                    if self.unsent.is_empty() {
                        // Encrypted data may still be in TLS's buffer.
                        timeout(idle, writer.flush()).await??;
                    }
                    // Queries that were already read may have waited for this room.
                    if let Next::Close = self.take_messages() { is_open = false; }
                }
                Some(reply) = self.replies.1.recv(), if self.waiting > 0 => {
                    self.answered(&reply);
                    while let Ok(reply) = self.replies.1.try_recv() {
                        self.answered(&reply);
                    }
                    if let Next::Close = self.take_messages() { is_open = false; }
                }
                read = reader.read_buf(&mut self.received), if may_read => {
                    if read? == 0 { is_open = false; }
                    if let Next::Close = self.take_messages() { is_open = false; }
                }
                () = self.session.admission.evicted() => return close_now(&mut writer),
                _ = lifetime.stop.wait_for(|stopping| *stopping), if is_open => is_open = false,
                _ = lifetime.cut.wait_for(|cut| *cut) => break,
                () = tokio::time::sleep_until(self.progress + idle) => {
                    if self.waiting == 0 { return close_now(&mut writer); }
                    self.progress = Instant::now();
                }
            }
            self.settle();
        }
        timeout(idle, writer.shutdown()).await?
    }

    /// Publishes what this connection holds and whether it waits, and frees unused memory.
    fn settle(&mut self) {
        for buffer in [&mut self.received, &mut self.unsent] {
            if buffer.len() < READ_SIZE && buffer.capacity() > 2 * READ_SIZE {
                buffer.shrink_to(READ_SIZE);
            }
        }
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        // Shrinking is always granted; growth was requested where it happened.
        let held = self.unsent.len() + self.received.len();
        if !self.session.admission.hold(held) {
            self.progress = Instant::now() - self.session.limits.idle;
        }
    }

    fn answered(&mut self, reply: &[u8]) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.session.admission.mark_idle(Moment::now());
        }
        self.frame(reply);
    }

    fn frame(&mut self, reply: &[u8]) {
        let Ok(length) = u16::try_from(reply.len()) else { return };
        if length == 0 {
            return;
        }
        let held = self.unsent.len() + self.received.len() + 2 + reply.len();
        if !self.session.admission.hold(held) {
            self.session.context.counters.dropped(DropReason::Overload);
            return;
        }
        self.unsent.extend_from_slice(&length.to_be_bytes());
        self.unsent.extend_from_slice(reply);
    }

    /// Handles every whole message that was read, until too many wait.
    fn take_messages(&mut self) -> Next {
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        let mut next = Next::GoOn;
        while self.waiting < self.session.limits.pipeline
            && self.unsent.len() < MAX_UNSENT
            && let Some((head, behind)) = rest.split_first_chunk::<2>()
            && let Some((message, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*head)))
        {
            rest = behind;
            self.progress = Instant::now();
            if let Next::Close = self.take(message) {
                next = Next::Close;
                break;
            }
        }
        let taken = match next {
            Next::GoOn => received.len() - rest.len(),
            Next::Close => received.len(),
        };
        self.received = received;
        self.received.drain(..taken);
        next
    }

    fn take(&mut self, message: &[u8]) -> Next {
        let context = Rc::clone(&self.session.context);
        let engine = &context.engine;
        let now = Moment::now();
        let incoming = Incoming { message, client: self.session.client.ip(), carrier: self.session.carrier, now };
        context.counters.asked(incoming.carrier.transport, self.session.client.is_ipv4());
        context.counters.sample(message, incoming.client);
        let mut scratch = context.scratch.borrow_mut();
        match context.handle(&engine.snapshot(), &incoming, &mut scratch) {
            Action::Drop => return Next::Close,
            Action::Reply(length) => self.frame(&scratch[..length]),
            Action::ReplyAndRefresh(length, query) => {
                self.frame(&scratch[..length]);
                super::udp::refresh(&context, query);
            }
            Action::Resolve(query) => self.wait_for(query),
        }
        if self.waiting == 0 {
            self.session.admission.mark_idle(now);
        }
        context.counters.took_batch(Moment::now().since(now));
        Next::GoOn
    }

    fn wait_for(&mut self, query: Box<Query>) {
        self.waiting += 1;
        self.session.admission.mark_busy();
        let context = Rc::clone(&self.session.context);
        let replies = self.replies.0.clone();
        tokio::task::spawn_local(async move {
            let reply = resolve::resolve(&context, &query).await;
            let mut scratch = context.scratch.borrow_mut();
            let length = reply.write(&context, &query, &mut scratch);
            // The client may be gone; the answer is in the cache all the same.
            drop(replies.send(scratch[..length].to_vec()));
        });
    }
}
