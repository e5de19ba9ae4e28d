//! Routes paths to pages, after checking the Host header and access, and sets the headers of every response.

use std::future::ready;

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
        header::{
            ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, VARY,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{GroupReadiness, Pages, Readiness, accept, explain, health, live, openapi, server::Client};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Headers of every response. The page's own script and style come from our address, and nothing else is loaded.
const HEADERS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; style-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Every page.
pub(super) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(|State(pages): State<Pages>| ready(Html(live::status_page(&pages)))))
        .route("/events", get(live::events))
        .route("/explain", get(explain::form))
        .route("/app.css", get(|| asset("text/css; charset=utf-8", include_str!("assets/app.css"))))
        .route("/app.js", get(|| asset("text/javascript; charset=utf-8", include_str!("assets/app.js"))))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(|State(pages): State<Pages>| ready(document(&(pages.status)()))))
        .route("/api/v1/upstreams", get(|State(pages): State<Pages>| ready(document(&(pages.upstreams)()))))
        .route("/api/v1/rules", get(|State(pages): State<Pages>| ready(document(&(pages.rules)()))))
        .route("/api/v1/explain", get(explain::page))
        .route("/api/v1/cache/{name}", get(explain::cache))
        .route("/api/v1/top", get(|State(pages): State<Pages>| ready(document(&(pages.top)()))))
        .route("/api/v1/perimeter", get(|State(pages): State<Pages>| ready(document(&(pages.perimeter)()))))
        .route("/api/v1/openapi.json", get(|| ready(([(CONTENT_TYPE, JSON)], openapi::TEXT.as_str()))))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is no such page") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD alone") })
        .layer(middleware::from_fn_with_state(pages.clone(), gate))
        .layer(middleware::map_response(with_headers))
        .with_state(pages)
}

/// The pages on the control socket: whoever may open it may see all of them.
pub(super) fn socket_router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(|State(pages): State<Pages>| ready(document(&(pages.status)()))))
        .route("/v1/explain", get(explain::page))
        .route("/v1/top", get(|State(pages): State<Pages>| ready(document(&(pages.top)()))))
        .with_state(pages)
}

async fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = accept::format(accepted);
    let text = (pages.metrics)(format);
    ([(CONTENT_TYPE, format.content_type()), (VARY, "Accept")], text).into_response()
}

/// 200 while every worker turns and DNS is answered.
async fn healthz(State(pages): State<Pages>) -> Response {
    if (pages.silence)() > health::MAX_SILENCE {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "a worker does not turn");
    }
    if !health::answers_dns(&pages.listeners).await {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "no answer to a question on our own socket");
    }
    text(StatusCode::OK, "healthy\n".to_owned())
}

/// The group that must have a usable server, for checks that move an address or a route away from a host whose link is
/// dead.
#[derive(Debug, Deserialize)]
struct ReadyzQuery {
    group: Option<String>,
}

/// 200 while queries are welcome, with a line for each group that has problems; else the reasons, one a line. Upstreams
/// that are down do not make the process unready, unless `?group=` asks about one.
async fn readyz(State(pages): State<Pages>, Query(wanted): Query<ReadyzQuery>) -> Response {
    let Readiness { mut reasons, groups } = (pages.readiness)();
    if (pages.silence)() > health::MAX_SILENCE {
        reasons.push("a worker does not turn".to_owned());
    }
    let line = |group: &GroupReadiness| format!("upstream {}: {}", group.name, group.words);
    if let Some(name) = wanted.group {
        let Some(group) = groups.iter().find(|group| group.name == name) else {
            let known: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
            let why = format!("there is no upstream group \"{name}\"; there are: {}", known.join(", "));
            return refusal(StatusCode::NOT_FOUND, &why);
        };
        if !group.is_usable {
            reasons.push(line(group));
        } else if reasons.is_empty() {
            return text(StatusCode::OK, format!("ready\n{}\n", line(group)));
        }
    }
    if !reasons.is_empty() {
        return text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n");
    }
    let note = |group: &GroupReadiness| match group.is_usable {
        true => line(group) + "\n",
        false => format!("{} (/readyz?group={} is 503)\n", line(group), group.name),
    };
    let notes = groups.iter().filter(|group| !group.is_whole).map(note);
    text(StatusCode::OK, "ready\n".to_owned() + &notes.collect::<String>())
}

pub(super) fn document(document: &impl Serialize) -> Response {
    match serde_json::to_string(document) {
        Ok(text) => ([(CONTENT_TYPE, JSON)], text + "\n").into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) fn refusal(status: StatusCode, why: &str) -> Response {
    text(status, format!("{why}\n"))
}

fn text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], text).into_response()
}

async fn gate(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let gate = pages.gate.load_full();
    match host(&request) {
        Host::Given(host) if gate.accepts_host(host) => {}
        Host::Older => {}
        Host::Unclear => return refusal(StatusCode::BAD_REQUEST, "one Host header is needed"),
        Host::Given(_) => {
            let why = "this name is not ours; if it should be, add it to `hosts` in [admin]";
            return refusal(StatusCode::MISDIRECTED_REQUEST, why);
        }
    }
    let is_open = matches!(request.uri().path(), "/metrics" | "/healthz" | "/readyz");
    let is_admitted = request.extensions().get::<Client>().is_some_and(|client| gate.admits(client.0));
    if !is_open && !is_admitted {
        return refusal(StatusCode::FORBIDDEN, "your address is not in `allow` in [admin]");
    }
    next.run(request).await
}

/// The host that a request names.
enum Host<'a> {
    Given(&'a str),
    /// The header is missing or repeated, where there must be exactly one (RFC 9112 3.2).
    Unclear,
    /// HTTP/1.0 needs no header, and no browser speaks it.
    Older,
}

/// An authority in the request's target takes precedence over the header (RFC 9112 3.2.2).
fn host(request: &Request) -> Host<'_> {
    let mut headers = request.headers().get_all(HOST).iter();
    match (headers.next(), headers.next()) {
        (None, _) if request.version() == Version::HTTP_10 => Host::Older,
        (Some(host), None) => {
            let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
            authority.or_else(|| host.to_str().ok()).map_or(Host::Unclear, Host::Given)
        }
        _ => Host::Unclear,
    }
}

async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
