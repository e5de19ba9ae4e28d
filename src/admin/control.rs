//! The control socket, through which operators change the running daemon.
//!
//! HTTP/1.1 over a Unix socket, one order a request: POST with a JSON object. GET `/v1/status`, `/healthz` and
//! `/readyz` tell how it goes; `/v1/cache` is the cache as a whole, see [`super::CacheTransfer`]. Whoever may open the
//! socket may give any order; its file mode decides who that is. An order that was carried out is 200, one that was
//! refused 409, one that does not parse 400; the body is an object with `lines` for people, and beside them what
//! scripts want to know. A body has the same time limit as a head; the other limits of a connection are in
//! [`super::server`]. Orders are carried out one after the other, by the receiver of the channel: this room does not
//! know what they change.

use std::{future::ready, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{self, DefaultBodyLimit, FromRequest, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Error as _, IgnoredAny},
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tracing::debug;

use super::{
    Pages, router,
    server::{ACCEPT_PAUSE, HEAD_TIMEOUT, MAX_CONNECTIONS, serve_connection},
    transfer,
};
use crate::wire::Name;

/// The longest body of an order, in octets.
const MAX_BODY: usize = 4096;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Put the configuration file into force.
    Reload,
    /// Send no more queries to a server.
    Drain(String),
    /// Send queries to it again.
    Undrain(String),
    /// Remove answers from the cache.
    Flush(Flush),
    /// Set the log level.
    Log(String),
    /// Send the listening sockets to the process that listens at this path, and end once it is ready.
    HandOver(PathBuf),
}

/// Which answers to flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flush {
    /// Those for this name, of any type.
    Name(Name),
    /// Those for this name and all below it.
    Zone(Name),
    /// All of them.
    All,
}

/// The body of a drain and of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOrder {
    /// The server as an operator names it.
    pub server: String,
}

/// The body of a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushOrder {
    /// A name, in presentation format.
    Name(String),
    /// A zone, in presentation format.
    Zone(String),
    /// Everything; must be true.
    All(bool),
}

/// The body of an order to change the log level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOrder {
    /// A level, or levels by module.
    pub level: String,
}

/// The body of an order to hand over the listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverOrder {
    /// The Unix socket to send them to.
    pub socket: PathBuf,
}

/// The result of an order: carried out, or refused with nothing changed.
pub type OrderResult = Result<OrderReport, OrderReport>;

/// What was done, or why nothing was. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OrderReport {
    /// Lines for people.
    pub lines: Vec<String>,
    /// What scripts want to know.
    #[serde(flatten)]
    pub facts: Box<OrderFacts>,
}

/// The result of an order in figures and lists, each for one kind of order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OrderFacts {
    /// A reload: the files that were read, by their full names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// A reload: what is different now, one line each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<String>>,
    /// A reload: keys that changed and need a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Vec<String>>,
    /// A reload: warnings about the new configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// A reload that was refused: the errors in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<String>>,
    /// A drain or its end: the servers that the order names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<DrainedServer>>,
    /// A drain or its end that names no server: those that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<Vec<String>>,
    /// A flush: how many answers it removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<usize>,
    /// A log level: what is logged now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// An import into the cache: how many entries were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u32>,
    /// An import: how many entries were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u32>,
    /// An import: the age of the snapshot in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
}

/// A server that an order was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainedServer {
    /// Its group.
    pub group: String,
    /// The server as in the configuration.
    pub server: String,
    /// Whether it gets no queries now.
    pub drained: bool,
}

impl OrderReport {
    /// A report with these lines.
    pub fn new(lines: Vec<String>) -> Self {
        Self { lines, ..Self::default() }
    }

    /// The same with these facts.
    pub fn with(self, facts: OrderFacts) -> Self {
        Self { facts: Box::new(facts), ..self }
    }
}

/// Reads the body of an order.
type ReadOrder = fn(&str) -> Result<Order, serde_json::Error>;

/// An order, and where its result goes.
#[derive(Debug)]
pub struct OrderRequest {
    /// The order.
    pub order: Order,
    /// If dropped, the client is told that the daemon is stopping.
    pub reply: oneshot::Sender<OrderResult>,
}

/// Serves until dropped.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<OrderRequest>, pages: Pages) {
    let service = TowerToHyperService::new(
        router(orders).merge(transfer::router(pages.cache.clone())).merge(router::socket_router(pages)),
    );
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "control connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            serve_connection(stream, service).await;
            drop(permit);
        });
    }
}

fn router(orders: mpsc::Sender<OrderRequest>) -> Router {
    let route = |read: ReadOrder| {
        post(move |State(orders): State<mpsc::Sender<OrderRequest>>, request: extract::Request| {
            submit(orders, read, request)
        })
    };
    Router::new()
        .route("/v1/reload", route(|body| body_of(body).map(|IgnoredAny| Order::Reload)))
        .route("/v1/drain", route(|body| body_of(body).map(|ServerOrder { server }| Order::Drain(server))))
        .route("/v1/undrain", route(|body| body_of(body).map(|ServerOrder { server }| Order::Undrain(server))))
        .route("/v1/flush", route(|body| body_of(body).and_then(flush)))
        .route("/v1/log", route(|body| body_of(body).map(|LogOrder { level }| Order::Log(level))))
        .route("/v1/takeover", route(|body| body_of(body).map(|TakeoverOrder { socket }| Order::HandOver(socket))))
        .fallback(|| ready(reply(StatusCode::NOT_FOUND, line("there is no such order"))))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(orders)
}

/// Reads a body; an empty one is an empty object.
fn body_of<T: DeserializeOwned>(body: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(if body.is_empty() { "{}" } else { body })
}

fn flush(order: FlushOrder) -> Result<Order, serde_json::Error> {
    let which = match order {
        FlushOrder::Name(name) => Flush::Name(name.parse().map_err(serde_json::Error::custom)?),
        FlushOrder::Zone(zone) => Flush::Zone(zone.parse().map_err(serde_json::Error::custom)?),
        FlushOrder::All(true) => Flush::All,
        FlushOrder::All(false) => return Err(serde_json::Error::custom("`all` must be true")),
    };
    Ok(Order::Flush(which))
}

async fn submit(orders: mpsc::Sender<OrderRequest>, read: ReadOrder, request: extract::Request) -> Response {
    let body = match timeout(HEAD_TIMEOUT, String::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return reply(rejection.status(), line(&rejection.body_text())),
        Err(_) => return reply(StatusCode::REQUEST_TIMEOUT, line("the order did not come in time")),
    };
    let order = match read(&body) {
        Ok(order) => order,
        Err(error) => {
            let text = format!("this is no order that the daemon understands: {error}");
            return reply(StatusCode::BAD_REQUEST, line(&text));
        }
    };
    let (sender, verdict) = oneshot::channel();
    let is_taken = orders.send(OrderRequest { order, reply: sender }).await.is_ok();
    match verdict.await {
        Ok(Ok(report)) if is_taken => reply(StatusCode::OK, report),
        Ok(Err(report)) if is_taken => reply(StatusCode::CONFLICT, report),
        _ => reply(StatusCode::SERVICE_UNAVAILABLE, line("the daemon is stopping")),
    }
}

pub(super) fn line(text: &str) -> OrderReport {
    OrderReport::new(vec![text.to_owned()])
}

pub(super) fn reply(status: StatusCode, report: OrderReport) -> Response {
    (status, Json(report)).into_response()
}
