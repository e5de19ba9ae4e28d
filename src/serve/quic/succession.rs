//! QUIC on sockets that outlive the process: packets belong to the process that has their connection, and the kernel
//! gives them to whichever reads first.
//!
//! Policy:
//! - At any time one process reads. A successor begins when the process before it has stopped reading; that one
//!   answers the queries it has read, closes its connections with DOQ_NO_ERROR (RFC 9250 4.3), and reads nothing more.
//!   It hears of no loss either: an answer that is lost then, or is longer than the congestion window, has to be asked
//!   for again.
//! - A packet of a connection that nobody has any more gets a stateless reset (RFC 9000 10.3), so that its client
//!   connects again at once and does not wait for its idle time-out: clients that missed the close, and all of them
//!   after a crash. The key comes from the certificate's, the host's name and the address (`tls::ResetKey`).
//! - Not while the process before may still have the connection, and never for an id of this process: another worker may
//!   have that connection, and whoever saw the id could end it (RFC 9000 21.11).

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, EndpointConfig, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use quinn_proto::{HashedConnectionIdGenerator, InvalidCid};

use super::QuicServer;
use crate::serve::lifetime::{ListenerLife, Predecessor};

/// The least time between two stateless resets of a worker. They are smaller than what they answer.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// The configuration of an endpoint.
pub(super) fn endpoint_config(server: &QuicServer, lifetime: &ListenerLife) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::clone(&server.reset_key) as Arc<_>);
    let (key, lifetime) = (server.id_key, lifetime.clone());
    config.min_reset_interval(RESET_INTERVAL).cid_generator(move || {
        Box::new(ConnectionIds { own: HashedConnectionIdGenerator::from_key(key), lifetime: lifetime.clone() })
    });
    config
}

/// Makes connection ids of this process, and says which others get a stateless reset.
struct ConnectionIds {
    own: HashedConnectionIdGenerator,
    lifetime: ListenerLife,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.own.generate_cid()
    }

    /// quinn asks this of an id that its endpoint does not know; one that is invalid gets no stateless reset.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let is_own = self.own.validate(id).is_ok();
        if is_own || *self.lifetime.predecessor.borrow() != Predecessor::Gone { Err(InvalidCid) } else { Ok(()) }
    }

    fn cid_len(&self) -> usize {
        self.own.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.own.cid_lifetime()
    }
}

/// A socket that is not read any more once another process has it.
#[derive(Debug)]
pub(super) struct SharedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    lifetime: ListenerLife,
}

impl SharedSocket {
    pub(super) fn new(socket: UdpSocket, lifetime: ListenerLife) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { inner: TokioRuntime.wrap_udp_socket(socket)?, lifetime }))
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.lifetime.is_outlived() { Poll::Pending } else { self.inner.poll_recv(context, buffers, meta) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn only_ids_of_a_process_that_has_ended_get_a_reset() {
        let (_, no) = watch::channel(false);
        let (before, predecessor) = watch::channel(Predecessor::Reads);
        let lifetime = ListenerLife { stop: no.clone(), cut: no, outlived: Arc::default(), predecessor };
        let ids = |key| ConnectionIds { own: HashedConnectionIdGenerator::from_key(key), lifetime: lifetime.clone() };
        let (mut here, mut another_worker, mut of_before) = (ids(1), ids(1), ids(2));
        for (state, may_reset) in [(Predecessor::Reads, false), (Predecessor::Drains, false), (Predecessor::Gone, true)]
        {
            before.send_replace(state);
            assert_eq!(here.validate(&of_before.generate_cid()).is_ok(), may_reset, "{state:?}");
            assert!(here.validate(&another_worker.generate_cid()).is_err(), "{state:?}");
            assert!(another_worker.validate(&here.generate_cid()).is_err(), "{state:?}");
        }
    }
}
