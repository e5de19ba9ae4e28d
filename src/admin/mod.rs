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
mod page;
mod router;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde_json::Value;

use self::status::{Status, Upstreams};
pub use self::{gate::Gate, server::serve};
use crate::metrics::Format;

/// A JSON document, made when it is asked for.
pub type Document = Arc<dyn Fn() -> Value + Send + Sync>;

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
    /// Why the process should get no questions now; empty = it should.
    pub unready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// For how long the worker that has been silent longest has not turned.
    pub silence: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Where the process answers DNS over UDP.
    pub listeners: Arc<[SocketAddr]>,
}
