//! The thread that sends traces to the collector.
//!
//! Policy (OTLP/HTTP, "OTLP/HTTP Response"):
//! - Traces are sent once a second at most, or when [`BATCH`] of them wait, each time on a connection of its own.
//! - 429, 502, 503, 504, and a collector that is not there or does not answer within [`TIMEOUT`]: the same traces are
//!   sent again after 0.25 s, then after twice that, up to 30 s. What comes meanwhile waits as long as there is room.
//! - Any other response code: the traces are dropped, since they would be refused again.
//! - One log line a minute at most while traces are lost, and one when they get through again.
//! - At the end what waits is sent, for as long as [`LAST`].

use std::{
    fmt, fs, io,
    sync::{
        Arc,
        mpsc::{self, Receiver as EndReceiver},
    },
    thread,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc::Receiver},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    FinishedTrace, Load, OtlpTarget, Tracer,
    message::{self, OtlpIdentity},
};
use crate::clock::{self, Moment};

/// A collector that does not answer within this time is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end waits for it.
const LAST: Duration = Duration::from_secs(1);
/// The pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How long traces are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// Traces that are sent at once.
const BATCH: usize = 128;
/// The least time between two lines that say the same.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Octets of a response that are read.
const RESPONSE: usize = 64 << 10;

/// The thread that sends. Dropped without [`OtlpExporter::stop`], it ends with the process.
#[derive(Debug)]
pub struct OtlpExporter {
    tracer: Tracer,
    stop: Arc<Notify>,
    ended: EndReceiver<()>,
}

impl OtlpExporter {
    /// Starts the thread; whether there is a collector shows later. `version` is what collectors are told of us.
    pub fn start(target: OtlpTarget, version: &str) -> io::Result<Self> {
        let (tracer, queue) = Tracer::new();
        let stop = Arc::new(Notify::new());
        let (end, ended) = mpsc::channel();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|host| host.trim().to_owned());
        let sender = CollectorSender {
            target,
            load: Arc::clone(&tracer.load),
            identity: OtlpIdentity { host, version: version.to_owned() },
            said: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = Arc::clone(&stop);
        let run = move || {
            runtime.block_on(sender.run(queue, &stopped));
            // Nobody waits for it where the end took too long.
            end.send(()).ok();
        };
        thread::Builder::new().name("otlp".to_owned()).spawn(run)?;
        Ok(Self { tracer, stop, ended })
    }

    /// Begins traces that go to this collector.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Sends what waits, and ends.
    pub fn stop(self) {
        self.stop.notify_one();
        self.ended.recv_timeout(LAST).ok();
    }
}

/// Why traces did not get through.
#[derive(Debug)]
enum ExportError {
    Io(io::Error),
    Http(hyper::Error),
    Slow,
    Status(StatusCode),
}

impl ExportError {
    /// Whether the same traces may get through later.
    const fn is_temporary(&self) -> bool {
        match self {
            Self::Io(_) | Self::Http(_) | Self::Slow => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Slow => write!(f, "no answer within {} s", TIMEOUT.as_secs()),
            Self::Status(status) => write!(f, "it answers {status}"),
        }
    }
}

struct CollectorSender {
    target: OtlpTarget,
    load: Arc<Load>,
    identity: OtlpIdentity,
    /// When the log last said that traces are lost; none while they get through.
    said: Option<Moment>,
}

impl CollectorSender {
    async fn run(mut self, mut queue: Receiver<FinishedTrace>, stop: &Notify) {
        let mut is_first = true;
        loop {
            let (traces, is_last) = gather(&mut queue, stop).await;
            if !traces.is_empty() {
                let spans = traces.iter().map(|trace| trace.spans.len()).sum();
                let body = Bytes::from(message::encode(traces, &self.identity, (clock::wall(), Moment::now())));
                if is_last {
                    return self.send_last(body, spans).await;
                }
                let is_stopped = self.deliver(&body, spans, stop, &mut is_first).await;
                if is_stopped {
                    return self.send_last(body, spans).await;
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// Sends until the traces got through or are refused; true if the end came first.
    async fn deliver(&mut self, body: &Bytes, spans: usize, stop: &Notify, is_first: &mut bool) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let sent = tokio::select! {
                sent = self.send(body) => sent,
                () = stop.notified() => return true,
            };
            match sent {
                Ok(rejected) => {
                    self.load.count_dropped(rejected.min(spans));
                    if self.said.take().is_some() || std::mem::take(is_first) {
                        let target = &self.target;
                        info!(%target, "traces go to {target}");
                    }
                    return false;
                }
                Err(error) => {
                    self.warn(&error);
                    if !error.is_temporary() {
                        self.load.count_dropped(spans);
                        return false;
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.notified() => return true,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn send_last(&self, body: Bytes, spans: usize) {
        if !matches!(timeout(LAST, self.send(&body)).await, Ok(Ok(_))) {
            self.load.count_dropped(spans);
        }
    }

    /// Posts a request and gives how many spans the collector rejected.
    async fn send(&self, body: &Bytes) -> Result<usize, ExportError> {
        timeout(TIMEOUT, self.post(body)).await.unwrap_or(Err(ExportError::Slow))
    }

    async fn post(&self, body: &Bytes) -> Result<usize, ExportError> {
        let stream = TcpStream::connect(self.target.address).await.map_err(ExportError::Io)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ExportError::Http)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.target.path)
            .header(HOST, self.target.address.to_string())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, &self.identity.version)
            .body(Full::new(body.clone()))
            .map_err(|error| ExportError::Io(io::Error::other(error)))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(ExportError::Http)?;
            let status = response.status();
            if !status.is_success() {
                return Err(ExportError::Status(status));
            }
            // It took them, whatever becomes of the rest of its response.
            let response = Limited::new(response.into_body(), RESPONSE).collect().await;
            Ok(response.map_or(0, |response| message::rejected(&response.to_bytes())))
        };
        let driver = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = exchange => result,
            () = driver => Err(ExportError::Slow),
        }
    }

    fn warn(&mut self, error: &ExportError) {
        let now = Moment::now();
        if self.said.is_some_and(|said| now.since(said) < WARN_EVERY) {
            return;
        }
        self.said = Some(now);
        let (target, dropped) = (&self.target, self.load.dropped.load(std::sync::atomic::Ordering::Relaxed));
        let next = if error.is_temporary() { "they are sent again" } else { "they are dropped" };
        warn!(%target, %error, dropped, "no traces reach {target} (log.otlp): {error}; {next}");
    }
}

/// The next traces to send, and whether they are the last ones.
async fn gather(queue: &mut Receiver<FinishedTrace>, stop: &Notify) -> (Vec<FinishedTrace>, bool) {
    let mut traces = Vec::new();
    tokio::select! {
        first = queue.recv() => match first {
            Some(trace) => traces.push(trace),
            None => return (traces, true),
        },
        () = stop.notified() => {
            traces.extend(std::iter::from_fn(|| queue.try_recv().ok()));
            return (traces, true);
        }
    }
    let mut end = std::pin::pin!(sleep(GATHER));
    while traces.len() < BATCH {
        tokio::select! {
            next = queue.recv() => match next {
                Some(trace) => traces.push(trace),
                None => return (traces, true),
            },
            () = &mut end => break,
            () = stop.notified() => {
                traces.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                return (traces, true);
            }
        }
    }
    (traces, false)
}
