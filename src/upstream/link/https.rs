//! DNS over HTTPS (RFC 8484): HTTP/2, POST, over hyper.
//!
//! Why not hickory-resolver's exchange: it decodes each answer, so one record that it cannot read fails all of it; it
//! gives no `Age`; and it hides in a text whether a certificate or the network was at fault.

use std::{
    cell::RefCell,
    future::Future,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, Uri, Version,
    body::{Bytes, Incoming},
    client::conn::http2::{self, SendRequest},
    header::{ACCEPT, AGE, CONTENT_TYPE},
    http::uri::{Authority, PathAndQuery},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    tls::Connected, upstream::server::connect_error::ConnectError, upstream::spec::DEFAULT_PATH, wire::MAX_MESSAGE,
};

use super::{
    allowance::Metered,
    requests::{Reply, RequestError, RequestResult},
};

const DNS_MESSAGE: &str = "application/dns-message";

/// Sends requests on a connection.
#[derive(Clone)]
pub(super) struct Sender {
    requests: SendRequest<Full<Bytes>>,
}

/// An open connection.
pub(super) struct Https {
    sender: Sender,
    connection: http2::Connection<TokioIo<Connected<Metered<TcpStream>>>, Full<Bytes>, Local>,
    /// The tasks that hyper spawned; dropping the set ends them.
    tasks: Rc<RefCell<JoinSet<()>>>,
}

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
struct Local(Weak<RefCell<JoinSet<()>>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.borrow_mut();
            while tasks.try_join_next().is_some() {}
            tasks.spawn_local(task);
        }
    }
}

/// Speaks HTTP/2 over a connection after its TLS handshake.
pub(super) async fn open(tls: Connected<Metered<TcpStream>>) -> Result<Https, ConnectError> {
    let tasks = Rc::<RefCell<JoinSet<()>>>::default();
    let builder = http2::Builder::new(Local(Rc::downgrade(&tasks)));
    let (requests, connection) = builder.handshake(TokioIo::new(tls)).await.map_err(|_| ConnectError::Http)?;
    Ok(Https { sender: Sender { requests }, connection, tasks })
}

impl Https {
    /// The sender of queries, the future that drives the connection, and what must be kept alive meanwhile.
    pub(super) fn into_parts(self) -> (Sender, impl Future<Output = ()>, impl Sized) {
        let connection = self.connection;
        // The queries under way report how it ended.
        (self.sender, async move { drop(connection.await) }, self.tasks)
    }
}

/// The URI of a server, with its name or else its address.
pub(super) fn uri(address: SocketAddr, name: Option<&str>, path: Option<&str>) -> Option<Uri> {
    let host = match (name, address) {
        (Some(name), _) => name.to_owned(),
        (None, SocketAddr::V4(v4)) => v4.ip().to_string(),
        (None, SocketAddr::V6(v6)) => format!("[{}]", v6.ip()),
    };
    let port = if address.port() == 443 { String::new() } else { format!(":{}", address.port()) };
    let authority: Authority = format!("{host}{port}").parse().ok()?;
    let path: PathAndQuery = path.unwrap_or(DEFAULT_PATH).parse().ok()?;
    Uri::builder().scheme("https").authority(authority).path_and_query(path).build().ok()
}

/// Sends one query and waits for the response.
pub(super) async fn ask(mut sender: Sender, uri: Uri, query: Vec<u8>) -> RequestResult {
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, DNS_MESSAGE)
        .header(ACCEPT, DNS_MESSAGE)
        .body(Full::new(Bytes::from(query)))
        .expect("a URI that was parsed, and headers that are constants");
    let response = sender.requests.send_request(request).await.map_err(|_| RequestError::Closed)?;
    if !response.status().is_success() {
        return Err(RequestError::Refused(ConnectError::Status(response.status().as_u16())));
    }
    if !is_dns(&response) {
        return Err(RequestError::Refused(ConnectError::Http));
    }
    let age = response.headers().get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    match Limited::new(response.into_body(), MAX_MESSAGE).collect().await {
        Ok(body) => Ok(Reply { message: body.to_bytes().into(), age }),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestError::Refused(ConnectError::Http)),
        Err(_) => Err(RequestError::Closed),
    }
}

/// Whether the body is a DNS message; without a content type it is taken for one and checked as such.
fn is_dns(response: &Response<Incoming>) -> bool {
    let Some(kind) = response.headers().get(CONTENT_TYPE) else { return true };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(DNS_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_has_the_name_or_else_the_address() {
        for (address, name, path, expected) in [
            ("10.1.1.1:443", Some("dns.corp.example"), None, "https://dns.corp.example/dns-query"),
            ("10.1.1.1:8443", Some("dns.corp.example"), Some("/q?x=1"), "https://dns.corp.example:8443/q?x=1"),
            ("10.1.1.1:443", None, None, "https://10.1.1.1/dns-query"),
            ("[fd00::1]:443", None, None, "https://[fd00::1]/dns-query"),
        ] {
            assert_eq!(uri(address.parse().unwrap(), name, path).unwrap().to_string(), expected);
        }
    }
}
