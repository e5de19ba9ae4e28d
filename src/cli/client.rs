//! A client of the running daemon: one HTTP/1.1 request (RFC 9112) per connection.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{self, Endpoint},
    system_error::SystemError,
};

/// The default address of the daemon's pages.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:9153";
/// The environment variable for `--admin` of `serve`, by which other verbs find the daemon.
pub(super) const ADMIN_VARIABLE: &str = "TIDEGATE_ADMIN";
/// The port of an address without one.
const ADMIN_PORT: u16 = 9153;
/// Time limit for a response.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for an order: a reload may have much to read.
const ORDER_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest response.
const MAX_RESPONSE: u64 = 64 << 20;
/// The longest line in a response's head.
const MAX_LINE: u64 = 16 << 10;

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address does not parse.
    #[error("\"{0}\" is no address of a daemon; write it as {DEFAULT_ADMIN}")]
    Address(String),
    /// The configuration turns the pages off.
    #[error("{}: `http` in [admin] is off", .0.display())]
    Off(PathBuf),
    /// The environment turns the pages off.
    #[error("{ADMIN_VARIABLE} is off, and with it the daemon's pages; if it has some, say --admin URL")]
    VariableOff,
    /// The configuration cannot be read.
    #[error("{file} cannot be read: {}; say --admin URL", SystemError(.1), file = .0.display())]
    Config(PathBuf, #[source] io::Error),
    /// Nothing answers at the address.
    #[error(
        "no daemon answers at {address}: {}; is `admin.http` another address? Then say --admin http://ADDRESS:PORT",
        SystemError(.1),
        address = .0
    )]
    Unreachable(String, #[source] io::Error),
    /// Nothing listens on the control socket.
    #[error("no daemon listens at {address}: {}; is `admin.socket` another file? Then say --socket FILE", SystemError(.1), address = .0)]
    NoSocket(String, #[source] io::Error),
    /// No permission to open the control socket.
    #[error("{0} is for its owner and group alone; join the group, or become root")]
    Forbidden(String),
    /// The order was sent, but the daemon's reply did not arrive.
    #[error("the daemon at {address} did not reply to the order: {}; its log may say what happened", SystemError(.1), address = .0)]
    NoReply(String, #[source] io::Error),
    /// The connection broke, or the reply is not HTTP.
    #[error("{0} does not speak HTTP as a daemon does")]
    NotHttp(String),
    /// The daemon returned an error.
    #[error("the daemon at {0} says {1}{hint}", hint = hint(*.1))]
    Status(String, u16),
}

fn hint(status: u16) -> &'static str {
    match status {
        403 => ": this host is not in `admin.allow`",
        404 => ": it is older than this program",
        421 => ": it does not go by that name; use its address, or add the name to `admin.hosts`",
        _ => "",
    }
}

/// The address of the daemon's pages: the given URL, else what the environment or the configuration says.
pub(super) fn admin(url: Option<&str>, config: Option<&Path>) -> Result<String, ClientError> {
    if let Some(url) = url {
        return Ok(reachable(url));
    }
    match super::variable(ADMIN_VARIABLE).and_then(|value| value.into_string().ok()).as_deref() {
        Some("off") => return Err(ClientError::VariableOff),
        Some(address) => return Ok(reachable(address)),
        None => {}
    }
    let file = config.unwrap_or_else(|| Path::new(super::serve::DEFAULT_FILE));
    match config::admin_http(file) {
        Ok(Some(endpoint)) => Ok(reachable(&endpoint.to_string())),
        Ok(None) => Err(ClientError::Off(file.to_owned())),
        // A sidecar has no configuration file.
        Err(_) if config.is_none() => Ok(DEFAULT_ADMIN.to_owned()),
        Err(error) => Err(ClientError::Config(file.to_owned(), error)),
    }
}

/// The URL at which a listener is reached. A wildcard includes the loopback addresses.
fn reachable(listener: &str) -> String {
    let Ok(mut endpoint) = Endpoint::parse(host(listener), ADMIN_PORT) else { return listener.to_owned() };
    match endpoint.address.ip {
        IpAddr::V4(ip) if ip.is_unspecified() => endpoint.address.ip = Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => endpoint.address.ip = Ipv6Addr::LOCALHOST.into(),
        _ => {}
    }
    format!("http://{endpoint}")
}

/// Fetches the body of the page at `path` from the daemon at `admin`.
pub(super) fn fetch(admin: &str, path: &str) -> Result<String, ClientError> {
    match get(admin, path)? {
        (200, body) => Ok(body),
        (status, _) => Err(ClientError::Status(host(admin).to_owned(), status)),
    }
}

/// Fetches status and body of the page at `path` from the daemon at `admin`.
pub(super) fn get(admin: &str, path: &str) -> Result<(u16, String), ClientError> {
    let host = host(admin);
    let address = resolve(host).ok_or_else(|| ClientError::Address(admin.to_owned()))?;
    let response =
        send_over_http(address, host, path).map_err(|error| ClientError::Unreachable(host.to_owned(), error))?;
    let (status, body) = split(&response).ok_or_else(|| ClientError::NotHttp(host.to_owned()))?;
    Ok((status, body.to_owned()))
}

fn host(admin: &str) -> &str {
    admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/')
}

fn resolve(host: &str) -> Option<SocketAddr> {
    host.to_socket_addrs().ok()?.next()
}

fn send_over_http(address: SocketAddr, host: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n")?;
    read(stream)
}

fn read(stream: impl Read) -> io::Result<String> {
    let mut response = String::new();
    stream.take(MAX_RESPONSE).read_to_string(&mut response)?;
    Ok(response)
}

/// Sends an order over a control socket; returns status and body of the reply.
pub(super) fn post_over_socket(socket: &Path, path: &str, body: &str) -> Result<(u16, String), ClientError> {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    send_over_socket(socket, &request, ORDER_TIMEOUT)
}

/// Sends a file over a control socket; returns status and body of the reply.
pub(super) fn upload(socket: &Path, path: &str, file: &mut File) -> Result<(u16, String), ClientError> {
    let name = || socket.display().to_string();
    let mut stream = connect(socket)?;
    let mut send = || {
        let length = file.metadata()?.len();
        stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
        stream.set_write_timeout(Some(ORDER_TIMEOUT))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        // A daemon that refuses before it has read everything has answered, and its answer matters more.
        let sent = io::copy(file, &mut stream);
        read(&stream).or_else(|error| sent.and(Err(error)))
    };
    let response = send().map_err(|error| ClientError::NoReply(name(), error))?;
    let (status, body) = split(&response).ok_or_else(|| ClientError::NotHttp(name()))?;
    Ok((status, body.to_owned()))
}

/// Writes the body of the page at `path` on a control socket to a file, and returns its status. HTTP/1.0 has no chunks:
/// the body ends with the connection, so only its content shows whether it is complete.
pub(super) fn download(socket: &Path, path: &str, file: &mut File) -> Result<u16, ClientError> {
    let name = || socket.display().to_string();
    let stream = connect(socket)?;
    let mut receive = || {
        stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
        (&stream).write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut stream = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.by_ref().take(MAX_LINE).read_line(&mut head)? > 0 {}
        io::copy(&mut stream, file)?;
        Ok(head)
    };
    let head = receive().map_err(|error| ClientError::NoReply(name(), error))?;
    split(&head).map(|(status, _)| status).ok_or_else(|| ClientError::NotHttp(name()))
}

fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let name = || socket.display().to_string();
    UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(name()),
        _ => ClientError::NoSocket(name(), error),
    })
}

/// Fetches status and body of the page at `path` over a control socket.
pub(super) fn get_over_socket(socket: &Path, path: &str) -> Result<(u16, String), ClientError> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    send_over_socket(socket, &request, TIMEOUT)
}

fn send_over_socket(socket: &Path, request: &str, timeout: Duration) -> Result<(u16, String), ClientError> {
    let name = || socket.display().to_string();
    let mut stream = connect(socket)?;
    let mut send = || {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(request.as_bytes())?;
        read(&stream)
    };
    let response = send().map_err(|error| ClientError::NoReply(name(), error))?;
    let (status, body) = split(&response).ok_or_else(|| ClientError::NotHttp(name()))?;
    Ok((status, body.to_owned()))
}

/// Splits a response into status and body; none if it is cut short. Our daemon never sends these in chunks.
fn split(response: &str) -> Option<(u16, &str)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let length = name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok());
        if length.is_some_and(|length| length != Some(body.len())) {
            return None;
        }
    }
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_taken_apart_and_a_cut_one_is_refused() {
        assert_eq!(split("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Some((200, "{}")));
        assert_eq!(split("HTTP/1.1 421 Misdirected Request\r\n\r\n"), Some((421, "")));
        assert_eq!(split("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"), None);
        assert_eq!(split("SSH-2.0-OpenSSH\r\n\r\n"), None);
        assert_eq!(split(""), None);
    }

    #[test]
    fn texts_that_are_no_address_are_refused() {
        for admin in ["http://127.0.0.1", "127.0.0.1:x", ""] {
            assert!(matches!(fetch(admin, "/"), Err(ClientError::Address(_))), "{admin}");
        }
    }
}
