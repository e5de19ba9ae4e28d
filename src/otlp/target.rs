//! Where the collector listens.

use std::{fmt, net::SocketAddr, str::FromStr};

use hyper::Uri;

/// The path for traces, below that of the endpoint (OTLP/HTTP, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";

/// A collector's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OtlpTarget {
    /// Its address.
    pub address: SocketAddr,
    /// The path that traces are posted to.
    pub path: String,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It does not parse, or has a part that an endpoint has not.
    #[error("it is no URL of a collector")]
    Syntax,
    /// Another scheme.
    #[error("traces go to a collector over http://")]
    Scheme,
    /// A host name.
    #[error("its host is given by address, since its name may need this server")]
    Name,
    /// No port, or none that there is.
    #[error("it names no port from 1 to 65535")]
    NoPort,
}

impl FromStr for OtlpTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::Syntax)?;
        if uri.scheme_str() != Some("http") {
            return Err(if uri.scheme().is_some() { TargetError::Scheme } else { TargetError::Syntax });
        }
        let authority = uri.authority().ok_or(TargetError::Syntax)?;
        if uri.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
            return Err(TargetError::Syntax);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let ip = host.parse().map_err(|_| TargetError::Name)?;
        let port = authority.port_u16().filter(|&port| port > 0).ok_or(TargetError::NoPort)?;
        let base = uri.path().trim_end_matches('/');
        let path = if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") };
        Ok(Self { address: SocketAddr::new(ip, port), path })
    }
}

impl fmt::Display for OtlpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url_with_an_address_and_a_port() {
        for (text, target) in [
            ("http://127.0.0.1:4318", Ok("http://127.0.0.1:4318/v1/traces")),
            ("http://127.0.0.1:4318/", Ok("http://127.0.0.1:4318/v1/traces")),
            ("http://[::1]:4318/otlp/", Ok("http://[::1]:4318/otlp/v1/traces")),
            ("http://127.0.0.1:4318/v1/traces", Ok("http://127.0.0.1:4318/v1/traces")),
            ("https://127.0.0.1:4318", Err(TargetError::Scheme)),
            ("grpc://127.0.0.1:4317", Err(TargetError::Scheme)),
            ("127.0.0.1:4318", Err(TargetError::Syntax)),
            ("collector", Err(TargetError::Syntax)),
            ("http://", Err(TargetError::Syntax)),
            ("http://collector:4318", Err(TargetError::Name)),
            ("http://127.0.0.1", Err(TargetError::NoPort)),
            ("http://127.0.0.1:0", Err(TargetError::NoPort)),
            ("http://user:word@127.0.0.1:4318", Err(TargetError::Syntax)),
            ("http://127.0.0.1:4318?x=1", Err(TargetError::Syntax)),
            ("http://127.0.0.1:4318/#x", Err(TargetError::Syntax)),
            ("http://127.0.0.1:99999", Err(TargetError::NoPort)),
        ] {
            let read = text.parse::<OtlpTarget>().map(|target| target.to_string());
            assert_eq!(read, target.map(str::to_owned), "{text}");
        }
    }
}
