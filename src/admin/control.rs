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
    Router,
    extract::{self, DefaultBodyLimit, FromRequest, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value};
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

/// The result of an order: carried out, or refused with nothing changed.
pub type OrderResult = Result<OrderReport, OrderReport>;

/// What was done, or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderReport {
    /// Lines for people.
    pub lines: Vec<String>,
    facts: Map<String, Value>,
}

impl OrderReport {
    /// A report with these lines.
    pub fn new(lines: Vec<String>) -> Self {
        Self { lines, facts: Map::new() }
    }

    /// Adds a fact for scripts; the keys `lines` and `done` are reserved.
    pub fn with(mut self, key: &str, fact: impl Into<Value>) -> Self {
        self.facts.insert(key.to_owned(), fact.into());
        self
    }
}

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
    let route = |read: fn(&Value) -> Option<Order>| {
        post(move |State(orders): State<mpsc::Sender<OrderRequest>>, request: extract::Request| {
            submit(orders, read, request)
        })
    };
    Router::new()
        .route("/v1/reload", route(|_| Some(Order::Reload)))
        .route("/v1/drain", route(|body| text(body, "server").map(Order::Drain)))
        .route("/v1/undrain", route(|body| text(body, "server").map(Order::Undrain)))
        .route("/v1/flush", route(flush))
        .route("/v1/log", route(|body| text(body, "level").map(Order::Log)))
        .route("/v1/takeover", route(|body| text(body, "socket").map(|path| Order::HandOver(path.into()))))
        .fallback(|| ready(reply(StatusCode::NOT_FOUND, line("there is no such order"))))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(orders)
}

fn text(body: &Value, key: &str) -> Option<String> {
    body[key].as_str().map(str::to_owned)
}

fn flush(body: &Value) -> Option<Order> {
    let name = |key: &str| text(body, key).map(|text| text.parse());
    let which = match (name("name"), name("zone")) {
        (Some(name), None) => Flush::Name(name.ok()?),
        (None, Some(zone)) => Flush::Zone(zone.ok()?),
        (None, None) if body["all"] == true => Flush::All,
        _ => return None,
    };
    Some(Order::Flush(which))
}

async fn submit(
    orders: mpsc::Sender<OrderRequest>,
    read: fn(&Value) -> Option<Order>,
    request: extract::Request,
) -> Response {
    let body = match timeout(HEAD_TIMEOUT, String::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return rejection.into_response(),
        Err(_) => return reply(StatusCode::REQUEST_TIMEOUT, line("the order did not come in time")),
    };
    let body = if body.is_empty() { Some(Value::Null) } else { serde_json::from_str(&body).ok() };
    let Some(order) = body.as_ref().and_then(read) else {
        return reply(StatusCode::BAD_REQUEST, line("this is no order that the daemon understands"));
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
    let body = report.facts.into_iter().chain([("lines".to_owned(), report.lines.into())]);
    (status, [(CONTENT_TYPE, "application/json")], Value::Object(body.collect()).to_string()).into_response()
}
