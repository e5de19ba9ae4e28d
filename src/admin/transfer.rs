//! The cache over the control socket: `GET /v1/cache` exports a snapshot, `POST /v1/cache` imports one.
//!
//! A snapshot is as large as the cache. It is sent while it is written, a few blocks ahead of the reader. An imported
//! one is held whole, at most [`CacheTransfer::limit`] octets, since nothing of it may be used before its last checksum
//! is verified. Both run on threads of their own: neither queries nor other orders wait.

use std::{
    io::{self, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::control::{OrderResult, line, reply};

/// Writes a snapshot of the cache.
pub type Export = Arc<dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync>;
/// Imports a snapshot into the cache, or says why not.
pub type Import = Arc<dyn Fn(&[u8]) -> OrderResult + Send + Sync>;

/// Blocks of a snapshot that wait for a slow reader.
const AHEAD: usize = 4;
/// Octets of a block.
const PIECE: usize = 64 << 10;
/// Time limit for receiving a snapshot.
const PATIENCE: Duration = Duration::from_secs(50);

/// Export and import of the cache.
#[derive(Clone)]
pub struct CacheTransfer {
    /// Writes a snapshot.
    pub export: Export,
    /// Imports a snapshot.
    pub import: Import,
    /// The longest snapshot that is accepted, in octets; 0 = there is no cache.
    pub limit: usize,
}

pub(super) fn router(transfer: CacheTransfer) -> Router {
    Router::new().route("/v1/cache", get(export).post(import)).layer(DefaultBodyLimit::disable()).with_state(transfer)
}

async fn export(State(transfer): State<CacheTransfer>) -> Response {
    let (sender, pieces) = mpsc::channel(AHEAD);
    spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = (transfer.export)(&mut out).and_then(|()| out.flush()) {
            // A client that is still reading sees a response that breaks off.
            sender.blocking_send(Err(error)).ok();
        }
    });
    ([(CONTENT_TYPE, "application/octet-stream")], Body::new(Stream(pieces))).into_response()
}

async fn import(State(transfer): State<CacheTransfer>, body: Body) -> Response {
    let octets = match timeout(PATIENCE, read(body, transfer.limit)).await {
        Ok(_) if transfer.limit == 0 => {
            return reply(StatusCode::CONFLICT, line("this daemon has no cache: `cache.size` is 0"));
        }
        Ok(Ok(Some(octets))) => octets,
        Ok(Ok(None)) => {
            let text = format!("the snapshot is longer than {} octets, which is this cache's size", transfer.limit);
            return reply(StatusCode::PAYLOAD_TOO_LARGE, line(&text));
        }
        Ok(Err(_)) => return reply(StatusCode::BAD_REQUEST, line("the snapshot is cut")),
        Err(_) => return reply(StatusCode::REQUEST_TIMEOUT, line("the snapshot did not come in time")),
    };
    match spawn_blocking(move || (transfer.import)(&octets)).await {
        Ok(Ok(report)) => reply(StatusCode::OK, report),
        Ok(Err(report)) => reply(StatusCode::CONFLICT, report),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, line("the snapshot could not be read")),
    }
}

/// Reads a body to its end, so that a client which is still sending gets the response and not a reset. None if it is
/// longer than `limit`; then nothing of it is kept.
async fn read(mut body: Body, limit: usize) -> Result<Option<Vec<u8>>, axum::Error> {
    let mut octets = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        octets = octets.filter(|octets| octets.len() + piece.len() <= limit);
        if let Some(octets) = &mut octets {
            octets.extend_from_slice(&piece);
        }
    }
    Ok(octets)
}

/// Sends the written data in blocks.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(octets)));
        sent.map(|()| octets.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The blocks as the body of a response.
struct Stream(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
