//! HTTP for operators, read only: metrics, health, documents in JSON and a status page.
//!
//! Policy:
//! - `/metrics`, `/healthz` and `/readyz` are open to everyone who reaches the port; names and clients are private
//!   data, so everything else is for `admin.allow` only (403).
//! - A Host header that is neither an address nor localhost nor in `admin.hosts` comes from a browser misled by DNS
//!   rebinding: 421 (RFC 9110 15.5.20). There is no CORS header.
//! - Nothing here changes anything: GET and HEAD, else 405. Changes are orders on the control socket ([`control`]).
//! - A slow or silent client, or one of too many, holds a bounded place for a bounded time, see [`server`].
//!
//! The caller provides the contents, as the closures of [`Pages`]: this room does not know the daemon.

pub mod control;
pub mod gate;
pub mod health;
pub mod rules;
pub mod server;
pub mod status;
pub mod top;

mod accept;
mod documents;
mod explain;
mod live;
mod openapi;
mod page;
mod router;
mod transfer;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;

pub use self::{
    documents::{DOCUMENTS, Document},
    explain::CacheEntries,
    gate::Gate,
    live::LivePage,
    server::{MAX_CONNECTIONS, serve},
    transfer::{CacheTransfer, Export, Import},
};
use self::{
    rules::Rules,
    status::{Status, Upstreams},
    top::Top,
};
use crate::{
    engine::explain::{Asked, document::Explanation},
    metrics::Format,
    perimeter::document::PerimeterDocument,
};

/// Explains a query, assuming that its upstreams answer with these addresses, if any.
pub type Explain = Arc<dyn Fn(&Asked, &[IpAddr]) -> Explanation + Send + Sync>;

/// The sources of the pages.
#[derive(Clone)]
pub struct Pages {
    /// Access control; a reload replaces it.
    pub gate: Arc<ArcSwap<Gate>>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn(Format) -> String + Send + Sync>,
    /// `/api/v1/status`.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// `/api/v1/upstreams`.
    pub upstreams: Arc<dyn Fn() -> Upstreams + Send + Sync>,
    /// `/api/v1/rules`.
    pub rules: Arc<dyn Fn() -> Rules + Send + Sync>,
    /// `/api/v1/perimeter`.
    pub perimeter: Arc<dyn Fn() -> PerimeterDocument + Send + Sync>,
    /// `/api/v1/top`.
    pub top: Arc<dyn Fn() -> Top + Send + Sync>,
    /// The status page as a stream.
    pub live: Arc<LivePage>,
    /// `/api/v1/explain`: a query, and the addresses that its upstreams are assumed to answer with.
    pub explain: Explain,
    /// `/readyz`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Time since the slowest worker last turned.
    pub silence: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Export and import of the cache.
    pub cache: CacheTransfer,
    /// The addresses on which the process answers DNS over UDP.
    pub listeners: Arc<[SocketAddr]>,
}

/// The content of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Why the process should get no queries now; empty if it should.
    pub reasons: Vec<String>,
    /// Every upstream group. Problems of one do not make the process unready.
    pub groups: Vec<GroupReadiness>,
}

/// Readiness of one group.
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
