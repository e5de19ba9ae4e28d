//! The client's side of a handshake.
//!
//! Policy: TLS 1.2 and 1.3. A configured name is sent as SNI, and the certificate must be for it. Without a name the
//! certificate must be for the address (an IP address in its alternative names), and no SNI is sent, since it cannot
//! carry addresses (RFC 6066 3). Sessions are kept and resumed, so that a new connection to the same server costs no
//! signature; they live in the [`TlsClient`], one for each server, which all workers share. Early data is never sent:
//! it can be replayed.

use std::{any::Any, borrow::Cow, fmt, net::IpAddr, sync::Arc};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HandshakeError, Roots, provider};
use crate::wire::Transport;

/// Tickets and TLS 1.2 sessions kept for one server; rustls keeps up to eight tickets for a name.
const SESSIONS: usize = 8;

/// Protocol spoken inside TLS or QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// DNS over TLS (RFC 7858).
    Dot,
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
    /// DNS over QUIC (RFC 9250).
    Doq,
}

impl Alpn {
    /// The protocol that queries over a transport are sent with; none for plain DNS.
    pub const fn of(transport: Transport) -> Option<Self> {
        match transport {
            Transport::Udp | Transport::Tcp => None,
            Transport::Tls => Some(Self::Dot),
            Transport::Https => Some(Self::H2),
            Transport::Quic => Some(Self::Doq),
        }
    }

    /// Its ALPN protocol id, as registered with IANA.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::Dot => b"dot",
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
            Self::Doq => b"doq",
        }
    }
}

/// TLS client for one server.
#[derive(Clone)]
pub struct TlsClient {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// A stream after its handshake.
pub type Connected<S> = TlsStream<S>;

/// Whether a certificate can be for this name.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// The server's own certificate, in DER, of what quinn calls the identity of a peer.
pub fn certificate_of(identity: Box<dyn Any>) -> Option<Vec<u8>> {
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(chain.first()?.to_vec())
}

impl TlsClient {
    /// A client of the server at `address`. A `name` that no certificate can be for is ignored.
    pub fn new(roots: &Roots, address: IpAddr, name: Option<&str>, alpn: Alpn) -> Self {
        let named = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = match alpn {
            // QUIC requires TLS 1.3 (RFC 9001 4.2).
            Alpn::Doq => builder.with_protocol_versions(&[&rustls::version::TLS13]),
            Alpn::Dot | Alpn::H2 | Alpn::Http11 => builder.with_safe_default_protocol_versions(),
        };
        let builder = builder.expect("the provider has suites for both versions");
        let mut config = builder.with_root_certificates(roots.store()).with_no_client_auth();
        config.alpn_protocols = vec![alpn.id().to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Self { name: named.unwrap_or_else(|| ServerName::IpAddress(address.into())), config: Arc::new(config) }
    }

    /// Performs the handshake over an open connection.
    ///
    /// # Errors
    /// The handshake failed; nothing may be sent then.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> Result<Connected<S>, HandshakeError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.name.clone(), io).await.map_err(|error| HandshakeError::of_io(&error))
    }

    /// The configuration for QUIC. The client must have been made for [`Alpn::Doq`].
    pub fn quic(&self) -> Arc<dyn quinn::crypto::ClientConfig> {
        let config = QuicClientConfig::try_from(Arc::clone(&self.config));
        Arc::new(config.expect("the provider has the suite that QUIC begins with"))
    }

    /// The name or address that the certificate must be for.
    pub fn name(&self) -> Cow<'_, str> {
        self.name.to_str()
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}
