//! DNS over HTTPS (RFC 8484): GET and POST on `/dns-query`, over HTTP/2 and HTTP/1.1, by hyper.
//!
//! Policy:
//! - 200 with the response, whatever its RCODE (4.2.1), and `cache-control` from its TTLs (5.1); `no-store` for
//!   responses that must not be kept. 400 for a message that is not a query, 404 for other paths, 405 for other
//!   methods, 413 for longer messages, 415 for other media types, 503 if the client's share of memory is used up.
//! - The number of streams is limited to queries in flight (`pipeline`); header lists, frames that reset streams and
//!   unsent data are limited too. A connection without a whole query for `tcp_idle` is closed, and so is an evicted
//!   one.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
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
    io::{AsyncRead, AsyncWrite},
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
/// Time for requests under way once the connection is told to end.
const GRACE: Duration = Duration::from_secs(5);
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
            let stream = session.within_idle_timeout(tls.accept(stream)).await?;
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
    unsent: Cell<usize>,
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
        unsent: Cell::new(0),
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
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = sleep_until(exchange.progress.get() + limits.idle) => {
                // Response bodies that nobody reads do not keep a connection open.
                if exchange.waiting.get() == 0 && exchange.progress.get().elapsed() >= limits.idle { break; }
                if exchange.waiting.get() > 0 { exchange.progress.set(Instant::now()); }
            }
            () = evicted.told() => break,
            _ = lifetime.stop.wait_for(|stopping| *stopping) => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(GRACE.min(limits.idle), connection).await);
    Ok(())
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
    let query = match query(request).await {
        Ok(query) => query,
        Err(status) => return refusal(status),
    };
    exchange.begin();
    let response = super::answer(&exchange.context, &query, exchange.client, exchange.carrier).await;
    exchange.end();
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
async fn query(request: Request<Incoming>) -> Result<Vec<u8>, StatusCode> {
    let (head, body) = request.into_parts();
    let body = read(body).await;
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

/// Reads a body of at most a message's length. Some of a longer one is read and discarded.
async fn read(mut body: Incoming) -> Result<Vec<u8>, StatusCode> {
    let (mut message, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX_MESSAGE {
            message.extend_from_slice(data);
        } else if length > 16 * MAX_MESSAGE {
            break;
        }
    }
    if length > MAX_MESSAGE { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(message) }
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

/// A response's body, counted until it is sent.
#[derive(Default)]
struct Reply {
    message: Option<Bytes>,
    exchange: Option<(Rc<Exchange>, usize)>,
}

impl Reply {
    /// None if the client's share of memory is used up.
    fn new(exchange: &Rc<Exchange>, message: Vec<u8>) -> Option<Self> {
        let length = message.len();
        let unsent = exchange.unsent.get() + length;
        if !exchange.admission.borrow_mut().hold(unsent) {
            return None;
        }
        exchange.unsent.set(unsent);
        Some(Self { message: Some(message.into()), exchange: Some((Rc::clone(exchange), length)) })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((exchange, length)) = self.exchange.take() {
            let unsent = exchange.unsent.get() - length;
            exchange.unsent.set(unsent);
            exchange.admission.borrow_mut().hold(unsent);
        }
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
