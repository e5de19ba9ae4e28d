//! DNS over TCP (RFC 7766): framed messages, pipelined, answered in whatever order the answers come.
//!
//! Policy:
//! - One task a connection reads, handles and writes. Replies of one read go out in one write.
//! - At most `pipeline` questions of a connection wait at once; then it is not read from until one is answered.
//! - A connection on which no question was completed for `tcp_idle`, and none waits, is closed: idle ones, and those
//!   that send or take an octet at a time. So is one that sends what is no query.
//! - Too many connections: a new one is closed at once. Too few descriptors: accepting pauses for a moment.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::debug;

use super::connections::Connections;
use crate::{
    clock::Moment,
    engine::{Action, Carrier, Context, Incoming, Query, resolve},
    metrics::Transport,
};

/// What a connection may do.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Questions in flight.
    pub pipeline: usize,
    /// Time without a whole question until it is closed.
    pub idle: Duration,
}

/// How long accepting pauses when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Replies that a client has not taken yet are kept up to this many octets; then no more questions are read.
const MAX_UNSENT: usize = 256 * 1024;
/// What is read at once.
const READ_SIZE: usize = 16 * 1024;

/// Accepts connections until the worker ends.
pub async fn accept(
    listener: TcpListener,
    context: Rc<Context>,
    connections: Arc<Connections>,
    limits: StreamLimits,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stopping| *stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admission) = connections.admit(peer.ip()) else { continue };
        let context = Rc::clone(&context);
        let stop = stop.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = Connection::new(context, peer, limits).run(stream, stop).await {
                debug!(%peer, %error, "a connection ended");
            }
            drop(admission);
        });
    }
}

struct Connection {
    context: Rc<Context>,
    peer: SocketAddr,
    limits: StreamLimits,
    received: Vec<u8>,
    unsent: Vec<u8>,
    waiting: usize,
    replies: (mpsc::UnboundedSender<Vec<u8>>, mpsc::UnboundedReceiver<Vec<u8>>),
    progress: Instant,
}

/// What to do after a read.
enum Next {
    GoOn,
    Close,
}

impl Connection {
    fn new(context: Rc<Context>, peer: SocketAddr, limits: StreamLimits) -> Self {
        Self {
            context,
            peer,
            limits,
            received: Vec::with_capacity(READ_SIZE),
            unsent: Vec::new(),
            waiting: 0,
            replies: mpsc::unbounded_channel(),
            progress: Instant::now(),
        }
    }

    async fn run(mut self, mut stream: TcpStream, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut is_open = true;
        while is_open || self.waiting > 0 || !self.unsent.is_empty() {
            let may_read = is_open && self.waiting < self.limits.pipeline && self.unsent.len() < MAX_UNSENT;
            tokio::select! {
                biased;
                written = writer.write(&self.unsent), if !self.unsent.is_empty() => {
                    self.unsent.drain(..written?);
                    // Questions that were read already may have waited for this room.
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
                _ = stop.wait_for(|stopping| *stopping), if is_open => is_open = false,
                () = tokio::time::sleep_until(self.progress + self.limits.idle) => {
                    if self.waiting == 0 { return Ok(()); }
                    self.progress = Instant::now();
                }
            }
        }
        writer.shutdown().await
    }

    fn answered(&mut self, reply: &[u8]) {
        self.waiting -= 1;
        self.frame(reply);
    }

    fn frame(&mut self, reply: &[u8]) {
        let Ok(length) = u16::try_from(reply.len()) else { return };
        if length > 0 {
            self.unsent.extend_from_slice(&length.to_be_bytes());
            self.unsent.extend_from_slice(reply);
        }
    }

    /// Handles every whole message that was read, as long as not too many wait.
    fn take_messages(&mut self) -> Next {
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        let mut next = Next::GoOn;
        while self.waiting < self.limits.pipeline
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
        let context = Rc::clone(&self.context);
        let engine = &context.engine;
        let now = Moment::now();
        let incoming = Incoming { message, client: self.peer.ip(), carrier: Carrier::Stream, now };
        context.counters.asked(Transport::Tcp, self.peer.is_ipv4());
        let mut scratch = context.scratch.borrow_mut();
        match engine.handle(&engine.snapshot(), &context.counters, &incoming, &mut scratch) {
            Action::Drop => return Next::Close,
            Action::Reply(length) => self.frame(&scratch[..length]),
            Action::ReplyAndRefresh(length, query) => {
                self.frame(&scratch[..length]);
                super::udp::refresh(&context, query);
            }
            Action::Resolve(query) => self.wait_for(query),
        }
        context.counters.took_batch(Moment::now().since(now));
        Next::GoOn
    }

    fn wait_for(&mut self, query: Box<Query>) {
        self.waiting += 1;
        let context = Rc::clone(&self.context);
        let replies = self.replies.0.clone();
        tokio::task::spawn_local(async move {
            let reply = resolve::resolve(&context, &query).await;
            let mut scratch = context.scratch.borrow_mut();
            let length = reply.write(&context, &query, &mut scratch);
            // The client may have gone; the answer is in the cache all the same.
            drop(replies.send(scratch[..length].to_vec()));
        });
    }
}
