//! Connections of the operators' HTTP: few, short, and none can hold a place for long.
//!
//! A connection has five seconds for each request's head, including silence between requests, and a minute in all; then
//! the response under way is finished and the connection closed. When every place is taken, the connection that has
//! waited longest without a whole request makes room, so half requests block no liveness probe. Only if every place has
//! a response in progress do new connections wait in the kernel's queue. Errors of a connection are logged at debug.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

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
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{Pages, router};

/// The most connections at a time, if there are enough descriptors.
pub const MAX_CONNECTIONS: usize = 64;
/// Time for the head of a request, from the end of the one before.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a connection in all.
const MAX_LIFETIME: Duration = Duration::from_mins(1);
/// Time for the last response, when the connection's time is over.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest head of a request, in octets; hyper's own least is 8,192.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after `accept` failed, most likely for lack of descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The client's address of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) IpAddr);

/// Serves until dropped, at most this many connections at a time.
pub async fn serve(listener: TcpListener, pages: Pages, connections: usize) {
    let service = TowerToHyperService::new(router::router(pages));
    let places = Arc::new(Places::new(connections));
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "admin connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let taken = places.take().await;
        let (service, place) = (service.clone(), Arc::clone(&taken.place));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Client(client.ip()));
            let (responding, place) = (service.call(request), Arc::clone(&place));
            place.idle_since.store(BUSY, Relaxed);
            async move {
                let response = responding.await;
                place.idle_since.store(place.turns.fetch_add(1, Relaxed), Relaxed);
                response
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                () = serve_connection(stream, service) => {}
                () = taken.place.close.notified() => debug!(%client, "admin connection made room for another"),
            }
        });
    }
}

/// Value of `idle_since` while a response is in progress.
const BUSY: u64 = u64::MAX;

/// Places for connections.
#[derive(Debug)]
struct Places {
    most: usize,
    open: Mutex<Vec<Arc<Place>>>,
    freed: Notify,
    turns: Arc<AtomicU64>,
}

/// A connection's place.
#[derive(Debug)]
struct Place {
    /// The turn in which it became idle, or [`BUSY`].
    idle_since: AtomicU64,
    turns: Arc<AtomicU64>,
    close: Notify,
}

/// A place that is freed on drop.
#[derive(Debug)]
struct Taken {
    places: Arc<Places>,
    place: Arc<Place>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), open: Mutex::default(), freed: Notify::new(), turns: Arc::default() }
    }

    /// Takes a place; if none is free, that of the connection that has been idle longest.
    async fn take(self: &Arc<Self>) -> Taken {
        loop {
            if let Some(place) = self.try_take() {
                return Taken { places: Arc::clone(self), place };
            }
            self.freed.notified().await;
        }
    }

    fn try_take(&self) -> Option<Arc<Place>> {
        let mut open = self.open.lock();
        if open.len() >= self.most {
            let since = |place: &Place| place.idle_since.load(Relaxed);
            let (at, oldest) = open.iter().enumerate().min_by_key(|(_, place)| since(place))?;
            if since(oldest) == BUSY {
                return None;
            }
            open.swap_remove(at).close.notify_one();
        }
        let idle_since = AtomicU64::new(self.turns.fetch_add(1, Relaxed));
        let place = Arc::new(Place { idle_since, turns: Arc::clone(&self.turns), close: Notify::new() });
        open.push(Arc::clone(&place));
        Some(place)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.open.lock().retain(|place| !Arc::ptr_eq(place, &self.place));
        self.places.freed.notify_one();
    }
}

/// Serves one connection to its end.
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
    // A client that has not read the last response by now does not want it.
    drop(timeout(SHUTDOWN_TIMEOUT, connection).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room_and_a_busy_one_does_not() {
        let places = Arc::new(Places::new(2));
        let (first, second) = (places.take().await, places.take().await);
        first.place.idle_since.store(BUSY, Relaxed);
        let third = places.take().await;
        timeout(HEAD_TIMEOUT, second.place.close.notified()).await.expect("the second, since the first is busy");
        drop(second);
        assert_eq!(places.open.lock().len(), 2, "its end frees no place of another");
        third.place.idle_since.store(BUSY, Relaxed);
        assert!(places.try_take().is_none());
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        drop(first);
        timeout(HEAD_TIMEOUT, waiting).await.expect("a place is free").unwrap();
    }
}
