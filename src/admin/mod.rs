//! HTTP for operators, read only: metrics, health, documents in JSON and a status page.
//!
//! Policy:
//! - `/metrics`, `/healthz` and `/readyz` are for everyone who reaches the port; names and clients are private data, so
//!   all else is for `admin.allow` alone (403).
//! - A Host header that is neither an address nor localhost nor in `admin.hosts` is a browser led astray by DNS
//!   rebinding: 421 (RFC 9110 15.5.20). There is no CORS header.
//! - Nothing here changes anything: GET and HEAD, else 405. What changes something is an order on the control socket
//!   ([`control`]).
//! - A client that is slow, silent or one of too many costs a bounded place for a bounded time, see [`server`].
//!
//! The pages' contents come from above, as the closures of [`Pages`]: this room does not know the daemon.

pub mod control;
pub mod gate;
pub mod health;
pub mod server;
pub mod status;

mod accept;
mod explain;
mod page;
mod router;
mod transfer;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;

use self::status::{Status, Upstreams};
pub use self::{
    gate::Gate,
    server::{MAX_CONNECTIONS, serve},
    transfer::{CacheTransfer, Export, Import},
};
use crate::{
    engine::explain::{Asked, document::Explanation},
    metrics::Format,
};

/// A JSON document, made when it is asked for.
pub type Document = Arc<dyn Fn() -> Value + Send + Sync>;

/// Explains a query whose upstreams are taken to answer with these addresses, if any.
pub type Explain = Arc<dyn Fn(&Asked, &[IpAddr]) -> Explanation + Send + Sync>;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// Who may see what; a reload replaces it.
    pub gate: Arc<ArcSwap<Gate>>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn(Format) -> String + Send + Sync>,
    /// `/api/v1/status`.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// `/api/v1/upstreams`.
    pub upstreams: Arc<dyn Fn() -> Upstreams + Send + Sync>,
    /// `/api/v1/rules`.
    pub rules: Document,
    /// `/api/v1/perimeter`.
    pub perimeter: Document,
    /// `/api/v1/explain`: a query, and addresses that its upstreams are taken to answer with.
    pub explain: Explain,
    /// `/readyz`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// For how long the worker that has been silent longest has not turned.
    pub silence: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The cache as a whole.
    pub cache: CacheTransfer,
    /// Where the process answers DNS over UDP.
    pub listeners: Arc<[SocketAddr]>,
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Why the process should get no queries now; empty = it should.
    pub reasons: Vec<String>,
    /// Every upstream group. What is wrong with one does not make the process unready.
    pub groups: Vec<GroupReadiness>,
}

/// How one group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReadiness {
    /// Its name.
    pub name: String,
    /// Whether it has a usable server.
    pub is_usable: bool,
    /// Whether it has servers, and none is down or drained.
    pub is_whole: bool,
    /// Its state in words.
    pub words: String,
}
