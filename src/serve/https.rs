//! DNS over HTTPS (RFC 8484): GET and POST on `/dns-query`, over HTTP/2 and HTTP/1.1, by hyper.
//!
//! Policy:
//! - 200 with the response, whatever its RCODE (4.2.1), and `cache-control` from its TTLs (5.1); `no-store` for
//!   responses that must not be kept. 400 for a message that is not a query, 404 for other paths, 405 for other
//!   methods, 413 for longer messages, 415 for other media types, 503 if the client's share of memory is used up.
//! - The number of streams is limited to queries in flight (`pipeline`); header lists, frames that reset streams,
//!   unfinished queries and unsent data are limited too. A connection without a whole query for `tcp_idle` is closed, and
//!   so is an evicted one.
//! - Every connection ends with close_notify, also one that hyper gives up.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::{self, IoSlice},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::{Session, connections::Admission, lifetime::ListenerLife};
use crate::{
    clock::Moment,
    engine::{ClientChannel, Context},
    tls,
    wire::{MAX_MESSAGE, reply::lifetime},
};

/// The path of RFC 8484's examples, which every client knows.
const PATH: &str = "/dns-query";
const DNS_MESSAGE: &str = "application/dns-message";
/// The longest header list, in octets; a GET carries its query there.
const HEADERS: u32 = 16 * 1024;
/// Unsent octets that HTTP/2 may keep for one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// What hyper, the stream and our task keep for an open request, in octets: with 64 of them open, of 1 KB each, a connection
/// was measured to take 250 KB.
const OPEN_REQUEST: usize = 3 * 1024;
/// Time for requests under way once the connection is told to end.
const GRACE: Duration = Duration::from_secs(5);
/// The same if no query waits: HTTP/2 then only waits for the client's acknowledgement, and an evicted connection must not
/// keep its descriptor.
const FAREWELL: Duration = Duration::from_millis(100);
/// The alphabet of URLs, with or without padding at its end (RFC 8484 6 wants none).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Serves one accepted connection until it ends.
///
/// # Errors
/// The handshake failed, or the connection broke.
pub(super) async fn serve(
    stream: TcpStream,
    session: Session,
    tls: Option<tls::TlsServer>,
    lifetime: ListenerLife,
) -> io::Result<()> {
    match tls {
        None => run(stream, session, lifetime).await,
        Some(tls) => {
            let stream = session.before_first_query(tls.accept(stream), &lifetime).await?;
            run(stream, session, lifetime).await
        }
    }
}

/// State shared by the requests of a connection.
struct Exchange {
    context: Rc<Context>,
    client: IpAddr,
    carrier: ClientChannel,
    admission: RefCell<Admission>,
    /// Queries that wait, plus responses not sent yet.
    waiting: Cell<usize>,
    /// Octets of open requests, unfinished queries and responses not sent yet.
    held: Cell<usize>,
    progress: Cell<Instant>,
}

async fn run<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    session: Session,
    mut lifetime: ListenerLife,
) -> io::Result<()> {
    let limits = session.limits;
    let evicted = session.admission.eviction();
    let exchange = Rc::new(Exchange {
        context: session.context,
        client: session.client.ip(),
        carrier: session.carrier,
        admission: RefCell::new(session.admission),
        waiting: Cell::new(0),
        held: Cell::new(0),
        progress: Cell::new(Instant::now()),
    });
    let mut builder = auto::Builder::new(LocalExecutor);
    let streams = u32::try_from(limits.pipeline).unwrap_or(u32::MAX);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(HEADERS as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(streams).max_header_list_size(HEADERS);
    builder.http2().max_send_buf_size(SEND_BUFFER);
    let of_requests = Rc::clone(&exchange);
    let service = service_fn(move |request| {
        let exchange = Rc::clone(&of_requests);
        async move { Ok::<_, Infallible>(respond(&exchange, request).await) }
    });
    let mut stream = SharedStream(Rc::new(RefCell::new(stream)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream.clone()), service));
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break Some(ended.map_err(io::Error::other)),
            () = sleep_until(exchange.progress.get() + limits.idle) => {
                // Response bodies that nobody reads do not keep a connection open.
                if exchange.waiting.get() == 0 && exchange.progress.get().elapsed() >= limits.idle { break None; }
                if exchange.waiting.get() > 0 { exchange.progress.set(Instant::now()); }
            }
            () = evicted.told() => break None,
            _ = lifetime.stop.wait_for(|stopping| *stopping) => break None,
        }
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        let time = if exchange.waiting.get() == 0 { FAREWELL } else { GRACE.min(limits.idle) };
        tokio::select! {
            _ = tokio::time::timeout(time, connection) => {}
            _ = lifetime.cut.wait_for(|cut| *cut) => {}
        }
    }
    // hyper just drops a connection that has not said which HTTP it speaks. Without close_notify, TLS takes the end for a
    // truncation attack (RFC 8446 6.1). A client that does not read does not get it.
    drop(stream.shutdown().now_or_never());
    ended.unwrap_or(Ok(()))
}

/// A stream that is there after hyper has ended.
struct SharedStream<S>(Rc<RefCell<S>>);

impl<S> Clone for SharedStream<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SharedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SharedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut TaskContext<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(context, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

async fn respond(exchange: &Rc<Exchange>, request: Request<Incoming>) -> Response<Reply> {
    let mut held = Held::by(exchange);
    if !held.grow(OPEN_REQUEST) {
        return refusal(StatusCode::SERVICE_UNAVAILABLE);
    }
    let query = match query(request, &mut held).await {
        Ok(query) => query,
        Err(status) => return refusal(status),
    };
    exchange.begin();
    let response = super::answer(&exchange.context, &query, exchange.client, exchange.carrier).await;
    exchange.end();
    drop(held);
    let Some(message) = response else { return refusal(StatusCode::BAD_REQUEST) };
    let cache_control = match lifetime(&message) {
        Some(seconds) => format!("max-age={seconds}"),
        None => "no-store".to_owned(),
    };
    let Some(body) = Reply::new(exchange, message) else { return refusal(StatusCode::SERVICE_UNAVAILABLE) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(DNS_MESSAGE));
    if let Ok(value) = HeaderValue::from_str(&cache_control) {
        headers.insert(CACHE_CONTROL, value);
    }
    response
}

fn refusal(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    response
}

/// The query in a request, or the status that refuses it. The body is read in any case, up to a limit: a client that is
/// still writing when its stream is reset does not read the status.
async fn query(request: Request<Incoming>, held: &mut Held) -> Result<Vec<u8>, StatusCode> {
    let (head, body) = request.into_parts();
    let body = read(body, held).await;
    if head.uri.path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match head.method {
        Method::GET | Method::HEAD => of_parameter(head.uri.query().unwrap_or_default()),
        Method::POST => {
            let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
            if essence.eq_ignore_ascii_case(DNS_MESSAGE) { body } else { Err(StatusCode::UNSUPPORTED_MEDIA_TYPE) }
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// Reads a body of at most a message's length, if it fits into the client's share of memory. Some of another one is read
/// and discarded.
async fn read(mut body: Incoming, held: &mut Held) -> Result<Vec<u8>, StatusCode> {
    let (mut message, mut length) = (Ok(Vec::new()), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        message = message.and_then(|mut message: Vec<u8>| {
            if length > MAX_MESSAGE {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            held.grow(data.len()).then(|| message.extend_from_slice(data)).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
            Ok(message)
        });
        if message.is_err() {
            held.shrink(OPEN_REQUEST);
        }
        if length > 16 * MAX_MESSAGE {
            break;
        }
    }
    message
}

fn of_parameter(parameters: &str) -> Result<Vec<u8>, StatusCode> {
    let mut values = parameters.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    let (Some(value), None) = (values.next(), values.next()) else { return Err(StatusCode::BAD_REQUEST) };
    BASE64URL.decode(value).map_err(|_| StatusCode::BAD_REQUEST)
}

impl Exchange {
    fn begin(&self) {
        self.progress.set(Instant::now());
        self.waiting.set(self.waiting.get() + 1);
        self.admission.borrow().mark_busy();
    }

    fn end(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0 {
            self.admission.borrow().mark_idle(Moment::now());
        }
    }
}

/// Octets that count against the client's share of memory until this is dropped.
struct Held {
    exchange: Rc<Exchange>,
    octets: usize,
}

impl Held {
    fn by(exchange: &Rc<Exchange>) -> Self {
        Self { exchange: Rc::clone(exchange), octets: 0 }
    }

    /// Counts more. Returns false and changes nothing if the share is used up.
    fn grow(&mut self, more: usize) -> bool {
        let held = self.exchange.held.get() + more;
        let fits = self.exchange.admission.borrow_mut().hold(held);
        if fits {
            self.exchange.held.set(held);
            self.octets += more;
        }
        fits
    }

    /// Counts no more than this from now on.
    fn shrink(&mut self, octets: usize) {
        let held = self.exchange.held.get() - self.octets.saturating_sub(octets);
        self.octets = self.octets.min(octets);
        self.exchange.held.set(held);
        self.exchange.admission.borrow_mut().hold(held);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A response's body, counted until it is sent.
#[derive(Default)]
struct Reply {
    message: Option<Bytes>,
    _held: Option<Held>,
}

impl Reply {
    /// None if the client's share of memory is used up.
    fn new(exchange: &Rc<Exchange>, message: Vec<u8>) -> Option<Self> {
        let mut held = Held::by(exchange);
        held.grow(message.len()).then(|| Self { message: Some(message.into()), _held: Some(held) })
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.message.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.as_ref().map_or(0, |message| message.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_dns_holds_the_query() {
        assert_eq!(of_parameter("dns=AAABAAAB"), Ok(vec![0, 0, 1, 0, 0, 1]));
        assert_eq!(of_parameter("x=1&dns=AAA"), Ok(vec![0, 0]));
        assert_eq!(of_parameter("dns=AAA=&y"), Ok(vec![0, 0]), "with padding");
        for bad in ["", "dns", "dn=AAAA", "dns=AA+A", "dns=%00", "dns=AAAA&dns=AAAA", "dns=A"] {
            assert_eq!(of_parameter(bad), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
    }
}
