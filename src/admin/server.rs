//! Connections of the operators' HTTP: few, short, and none that can hold a place for long.
//!
//! A connection has five seconds for each request's head, silence between requests included, and a minute in all, after
//! which the response under way is finished and the connection closed. When every place is taken the kernel's queue
//! waits. What goes wrong on one is its client's affair and counts at debug.

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{HttpService, Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{Pages, router};

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// For the head of a request, from the end of the one before.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection in all.
const MAX_LIFETIME: Duration = Duration::from_mins(1);
/// For the last response, when the connection's time is over.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest head of a request, in octets; hyper's own least is 8,192.
const MAX_HEAD: usize = 16 * 1024;
/// After `accept` failed, most likely for want of descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address that a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) IpAddr);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let service = TowerToHyperService::new(router::router(pages));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "admin connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = service.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Client(client.ip()));
            service.call(request)
        });
        tokio::spawn(async move {
            serve_connection(stream, service).await;
            drop(permit);
        });
    }
}

/// One connection, to its end.
pub(super) async fn serve_connection<S>(stream: impl AsyncRead + AsyncWrite + Unpin, service: S)
where
    S: HttpService<Incoming, ResBody = axum::body::Body, Error = Infallible>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if let Ok(ended) = timeout(MAX_LIFETIME, connection.as_mut()).await {
        if let Err(error) = ended {
            debug!(%error, "admin connection ended");
        }
        return;
    }
    connection.as_mut().graceful_shutdown();
    // Who has not read the last response by now does not want it.
    drop(timeout(SHUTDOWN_TIMEOUT, connection).await);
}
