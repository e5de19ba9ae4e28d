//! Accepts connections for every stream transport, within the limits, and finds out who the client is.

use std::{future::Future, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    connections::{Admission, Connections},
    https,
    lifetime::ListenerLife,
    proxy, stream,
};
use crate::{
    clock::Moment,
    engine::{ClientChannel, Context},
    system_error::SystemError,
    tls,
    wire::Transport,
};

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Queries in flight.
    pub pipeline: usize,
    /// Time without a whole query until it is closed.
    pub idle: Duration,
}

/// The protocol of a listener's connections.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// Framed messages over TCP.
    Tcp,
    /// Framed messages over TLS.
    Tls(tls::TlsServer),
    /// HTTP, over TLS or behind a proxy that ends it.
    Https(Option<tls::TlsServer>),
}

impl Protocol {
    const fn transport(&self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp,
            Self::Tls(_) => Transport::Tls,
            Self::Https(_) => Transport::Https,
        }
    }
}

/// How long a client has for the rest of its handshake once reading stops: one that sends nothing more must not hold the
/// end up, and one that is about to ask gets its close in order.
const HANDSHAKE_AT_STOP: Duration = Duration::from_millis(100);
/// How long accepting pauses when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One client's connection: its address, limits and admission.
pub(super) struct Session {
    pub(super) context: Rc<Context>,
    pub(super) client: SocketAddr,
    pub(super) carrier: ClientChannel,
    pub(super) limits: ConnectionLimits,
    pub(super) admission: Admission,
}

impl Session {
    /// Runs a step before the first query, such as a handshake. Fails if it takes longer than `idle`, if the connection is
    /// evicted meanwhile, or soon after the stop.
    pub(super) async fn before_first_query<T>(
        &self,
        step: impl Future<Output = io::Result<T>>,
        lifetime: &ListenerLife,
    ) -> io::Result<T> {
        let mut stop = lifetime.stop.clone();
        let stopped = async {
            // An error means that the worker is gone, and this with it.
            drop(stop.wait_for(|stopping| *stopping).await);
            sleep(HANDSHAKE_AT_STOP).await;
        };
        tokio::select! {
            done = timeout(self.limits.idle, step) => done?,
            () = self.admission.evicted() => Err(io::ErrorKind::ConnectionAborted.into()),
            () = stopped => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Accepts connections until the worker ends.
pub async fn accept(
    listener: TcpListener,
    protocol: Protocol,
    context: Rc<Context>,
    connections: Arc<Connections>,
    limits: ConnectionLimits,
    mut lifetime: ListenerLife,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = lifetime.stop.wait_for(|stopping| *stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let transport = protocol.transport();
                context.counters.accept_paused(transport);
                if connections.may_warn(Moment::now()) {
                    let (transport, error) = (transport.label(), SystemError(&error));
                    warn!(transport, %error, "connections over {transport} are not accepted for the moment: {error}");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_balancer = proxy::is_balancer(&context.engine.snapshot().balancers, peer.ip());
        // Connections from a balancer count for its clients once those are known.
        let counted = if is_balancer { proxy::UNKNOWN_CLIENT } else { peer.ip() };
        let transport = protocol.transport();
        let Some(admission) = connections.admit(counted, transport, Moment::now()) else { continue };
        let (context, connections, protocol) = (Rc::clone(&context), Arc::clone(&connections), protocol.clone());
        let carrier = ClientChannel::stream(transport, limits.idle);
        let session = Session { context, client: peer, carrier, limits, admission };
        let lifetime = lifetime.clone();
        tokio::task::spawn_local(async move {
            let serving = async {
                let mut stream = stream;
                let session = match is_balancer {
                    true => behind_balancer(session, &mut stream, &connections, &lifetime).await?,
                    false => session,
                };
                match protocol {
                    Protocol::Tcp => stream::serve(stream, session, None, lifetime).await,
                    Protocol::Tls(tls) => stream::serve(stream, session, Some(tls), lifetime).await,
                    Protocol::Https(tls) => https::serve(stream, session, tls, lifetime).await,
                }
            };
            if let Err(error) = serving.await {
                debug!(%peer, %error, "a connection ended");
            }
        });
    }
}

/// The session of the client that a load balancer reports.
async fn behind_balancer(
    session: Session,
    stream: &mut TcpStream,
    connections: &Arc<Connections>,
    lifetime: &ListenerLife,
) -> io::Result<Session> {
    let client = session.before_first_query(proxy::read_header(stream, session.client), lifetime).await?;
    let transport = session.carrier.transport;
    let admission = connections.admit(client.ip(), transport, Moment::now());
    let admission = admission.ok_or(io::ErrorKind::ConnectionRefused)?;
    Ok(Session { client, admission, ..session })
}
