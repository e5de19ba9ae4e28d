//! One server as people write it: `[scheme://]address[:port][/path][#tls-name]`, or a name in the address's place.

use std::str::FromStr;

use super::{
    address::{AddressError, Endpoint, parse_port, port_behind_colon},
    build::is_host_address,
    group::{DNS_QUERY_PATH, FixedServer, NamedServer},
};
use crate::{tls, wire::Transport};

/// Why a text is not a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The scheme is unknown.
    #[error("there is no scheme \"{0}\"")]
    Scheme(String),
    /// The address does not parse.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// The port is in the notation of another program; the field has ours.
    #[error("a port stands behind a colon: write \"{0}\"")]
    Notation(String),
    /// The text is not the name of a host.
    #[error("it has no name of a host")]
    BadName,
    /// A name of one label: no search domain completes it.
    #[error("a name of one label is never completed by a search domain: write the full name, as in dc.corp.example")]
    SingleLabel,
    /// The address does not belong to a single host.
    #[error("no server can have this address")]
    Unusable,
    /// Port 0.
    #[error("port 0 is no port of a server")]
    Port,
    /// There is a path, but the scheme is not HTTPS.
    #[error("only https takes a path")]
    Path,
    /// The path has characters that a URL cannot have.
    #[error("\"{0}\" is no path of a URL")]
    BadPath(String),
    /// There is a name, but no encryption.
    #[error("only tls, https and quic take a name behind \"#\"")]
    TlsName,
    /// No certificate can be for this name.
    #[error("the name behind \"#\" is no name of a host")]
    BadTlsName,
}

/// The parts of a server around its address or name.
struct Frame {
    transport: Transport,
    http_path: Option<String>,
    tls_name: Option<String>,
}

impl Frame {
    /// Reads a server. `place` reads the part with the address or name; its error comes before errors in later parts.
    fn read<T>(
        text: &str,
        place: impl FnOnce(Transport, &str) -> Result<T, ServerError>,
    ) -> Result<(Self, T), ServerError> {
        let Split { transport, place: written, path, tls_name } = Split::of(text)?;
        let host = place(transport, written)?;
        if path.is_some() && transport != Transport::Https {
            return Err(ServerError::Path);
        }
        if let Some(path) = path.filter(|path| !is_url_path(path)) {
            return Err(ServerError::BadPath(path.to_owned()));
        }
        if tls_name.is_some() && matches!(transport, Transport::Udp | Transport::Tcp) {
            return Err(ServerError::TlsName);
        }
        let tls_name = tls_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        if tls_name.as_ref().is_some_and(|name| !tls::is_server_name(name)) {
            return Err(ServerError::BadTlsName);
        }
        let http_path = (transport == Transport::Https).then(|| path.unwrap_or(DNS_QUERY_PATH).to_owned());
        Ok((Self { transport, http_path, tls_name }, host))
    }
}

/// The parts of a server's text. Only the scheme has been checked.
struct Split<'a> {
    transport: Transport,
    /// The address or name, with its port.
    place: &'a str,
    path: Option<&'a str>,
    tls_name: Option<&'a str>,
}

impl<'a> Split<'a> {
    fn of(text: &'a str) -> Result<Self, ServerError> {
        let (transport, rest) = match text.split_once("://") {
            None => (Transport::Udp, text),
            Some((scheme, rest)) => {
                let transport = Transport::ALL.iter().find(|transport| transport.label() == scheme);
                (*transport.ok_or_else(|| ServerError::Scheme(scheme.to_owned()))?, rest)
            }
        };
        if let Some(meant) = in_our_notation(transport, text.len() - rest.len(), text) {
            return Err(ServerError::Notation(meant));
        }
        let (rest, tls_name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (place, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        Ok(Self { transport, place, path, tls_name })
    }
}

impl FromStr for FixedServer {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (frame, endpoint) = Frame::read(text, |transport, place| {
            let endpoint = Endpoint::parse(place, transport.default_port())?;
            if !is_host_address(endpoint.address.ip) {
                return Err(ServerError::Unusable);
            }
            if endpoint.port == 0 {
                return Err(ServerError::Port);
            }
            Ok(endpoint)
        })?;
        let Frame { transport, http_path, tls_name } = frame;
        Ok(Self { transport, endpoint, http_path, tls_name })
    }
}

impl FromStr for NamedServer {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (frame, (name, port)) = Frame::read(text, |transport, place| {
            let (host, port) = match place.split_once(':') {
                Some((host, digits)) => (host, parse_port(digits)?),
                None => (place, transport.default_port()),
            };
            if port == 0 {
                return Err(ServerError::Port);
            }
            let name = host.parse().ok().filter(|_| tls::is_server_name(host.trim_end_matches('.')));
            Ok((name.ok_or(ServerError::BadName)?, port))
        })?;
        let Frame { transport, http_path, tls_name } = frame;
        let mut server = Self { transport, name, port, http_path, tls_name };
        if transport.is_encrypted() && server.tls_name.is_none() {
            server.tls_name = Some(server.host());
        }
        match server.name.labels().count() {
            0 | 1 => Err(ServerError::SingleLabel),
            _ => Ok(server),
        }
    }
}

/// Whether a server's text has a name where others have an address: its last label has a letter.
pub(super) fn is_by_name(text: &str) -> bool {
    let Ok(Split { place, .. }) = Split::of(text) else { return false };
    let host = match place.split_once(':') {
        Some((_, behind)) if behind.contains(':') => return false,
        Some((host, _)) => host,
        None => place,
    };
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or(host);
    !host.contains(['[', '%']) && last.contains(|letter: char| letter.is_ascii_alphabetic())
}

/// Rewrites a server in our notation whose port is behind `#`, `@` or a space, perhaps followed by `#tls-name`, as
/// Unbound writes it (`10.1.1.53@853#dns.example`). `start` is where the address begins.
fn in_our_notation(transport: Transport, start: usize, text: &str) -> Option<String> {
    let (scheme, rest) = text.split_at(start);
    if let Some(meant) = port_behind_colon(rest) {
        return Some(format!("{scheme}{meant}"));
    }
    let (server, name) = rest.rsplit_once('#').filter(|(server, _)| server.contains('@'))?;
    let scheme = if transport.is_encrypted() { scheme } else { "tls://" };
    Some(format!("{scheme}{}#{name}", port_behind_colon(server)?))
}

/// Whether it is a path and query of RFC 3986. URI templates are not accepted: POST needs none.
fn is_url_path(path: &str) -> bool {
    path.bytes().all(|octet| octet.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_read_and_print() {
        for (text, printed) in [
            ("10.1.1.53", "10.1.1.53"),
            ("udp://10.1.1.53:53", "10.1.1.53"),
            ("10.1.1.53:5353", "10.1.1.53:5353"),
            ("2001:db8::53", "2001:db8::53"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353"),
            ("tcp://10.1.1.54", "tcp://10.1.1.54"),
            ("tcp://[2001:db8::1]", "tcp://[2001:db8::1]"),
            ("tls://10.1.1.55#DNS.corp.example.", "tls://10.1.1.55#dns.corp.example"),
            ("https://10.1.1.56#dns.corp.example", "https://10.1.1.56/dns-query#dns.corp.example"),
            ("https://[2001:db8::1]:8443/q?x", "https://[2001:db8::1]:8443/q?x"),
            ("quic://10.1.1.57", "quic://10.1.1.57"),
        ] {
            assert_eq!(text.parse::<FixedServer>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn servers_by_name_read_and_print() {
        for (text, printed, tls_name) in [
            ("dc.corp.example", "dc.corp.example", None),
            ("DC.Corp.Example.:5353", "dc.corp.example:5353", None),
            ("tcp://dc.corp.example", "tcp://dc.corp.example", None),
            ("tls://dc.corp.example", "tls://dc.corp.example", Some("dc.corp.example")),
            ("tls://dc.corp.example#dns.example", "tls://dc.corp.example#dns.example", Some("dns.example")),
            ("https://dns.corp.example:8443", "https://dns.corp.example:8443/dns-query", Some("dns.corp.example")),
            ("https://dns.corp.example/q", "https://dns.corp.example/q", Some("dns.corp.example")),
            ("quic://dns.corp.example", "quic://dns.corp.example", Some("dns.corp.example")),
        ] {
            assert!(is_by_name(text), "{text}");
            let server: NamedServer = text.parse().unwrap();
            assert_eq!((server.to_string().as_str(), server.tls_name.as_deref()), (printed, tls_name), "{text}");
        }
        for text in
            ["10.1.1.1", "10.1.1.256", "fd00::beef", "[fd00::1]:53", "fe80::1%eth0", "ftp://dc.corp.example", ""]
        {
            assert!(!is_by_name(text), "{text}");
        }
        for (text, reason) in [
            ("dc", ServerError::SingleLabel),
            ("dc.corp.example:0", ServerError::Port),
            ("dc.corp.example:x", ServerError::Address(AddressError::Port)),
            ("tcp://dc.corp.example/q", ServerError::Path),
            ("dc..example", ServerError::BadName),
            ("dc corp.example", ServerError::BadName),
            ("dc.corp.example#dc.corp.example", ServerError::TlsName),
        ] {
            assert_eq!(text.parse::<NamedServer>(), Err(reason), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_servers_say_why() {
        for (text, reason) in [
            ("dns.example", "it is not an IPv4 or IPv6 address"),
            ("ftp://10.1.1.1", "there is no scheme \"ftp\""),
            ("10.1.1.1/dns-query", "only https takes a path"),
            ("tls://10.1.1.1/x", "only https takes a path"),
            ("https://10.1.1.1/dns-query{?dns}", "\"/dns-query{?dns}\" is no path of a URL"),
            ("tls://10.1.1.1#a b", "the name behind \"#\" is no name of a host"),
            ("10.1.1.1#dns.example", "only tls, https and quic take a name behind \"#\""),
            ("tls://10.1.1.1#", "the name behind \"#\" is no name of a host"),
            ("10.1.1.1:0", "port 0 is no port of a server"),
            ("10.1.1.1#5353", "a port stands behind a colon: write \"10.1.1.1:5353\""),
            ("10.1.1.1@5353", "a port stands behind a colon: write \"10.1.1.1:5353\""),
            ("fd00::1@53", "a port stands behind a colon: write \"[fd00::1]:53\""),
            ("tls://10.1.1.1@853", "a port stands behind a colon: write \"tls://10.1.1.1:853\""),
            ("10.1.1.1@853#dns.example", "a port stands behind a colon: write \"tls://10.1.1.1:853#dns.example\""),
            ("0.0.0.0", "no server can have this address"),
            ("224.0.0.1", "no server can have this address"),
            ("[::1", "an IPv6 address with a port is written [address]:port"),
            ("", "it is empty"),
        ] {
            assert_eq!(text.parse::<FixedServer>().unwrap_err().to_string(), reason, "{text}");
        }
    }
}
