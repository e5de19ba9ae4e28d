//! The server's side of a handshake: our certificate, and the protocols that are spoken inside.
//!
//! Policy: TLS 1.2 and 1.3. Sessions are resumed by tickets, whose keys belong to this process and rotate
//! automatically; early data is not accepted, since it can be replayed. One [`ServerCertificate`] serves all listeners
//! and workers; [`ServerCertificate::replace`] changes it for new handshakes without touching open connections.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, ParsedExtension},
};

use super::{Alpn, ResetKey, provider};

/// A certificate chain with its key, ready to be presented to clients.
///
/// Invariant: the key belongs to the first certificate.
#[derive(Clone)]
pub struct KeyPair {
    chain: Arc<CertifiedKey>,
    facts: Arc<CertificateFacts>,
    reset_key: ResetKey,
}

/// Names, addresses and expiry of a chain's first certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The DNS names it is for, in the certificate's order, wildcards included.
    pub names: Vec<String>,
    /// The addresses it is for.
    pub addresses: Vec<IpAddr>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// Whether it is a CA's: then no client accepts it as a server's.
    pub is_ca: bool,
}

/// Why a chain and a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairError {
    /// The file of the chain holds no certificate.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// A certificate is damaged.
    #[error("its certificate {number} does not parse")]
    Certificate {
        /// The certificate's position, counted from one.
        number: usize,
    },
    /// The file of the key holds no private key.
    #[error("it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1; not encrypted)")]
    NoKey,
    /// The key is of a kind that is not supported, or damaged.
    #[error("its private key cannot be used: {0}")]
    Key(String),
    /// The key and the certificate do not belong together.
    #[error("its private key is not the certificate's")]
    Mismatch,
}

impl KeyPairError {
    /// Whether the key's file is at fault, rather than the chain's.
    pub const fn is_about_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Key(_) | Self::Mismatch)
    }
}

impl KeyPair {
    /// Reads a chain, starting with the server's certificate, and the key.
    ///
    /// # Errors
    /// See [`KeyPairError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, KeyPairError> {
        let mut certificates = Vec::new();
        for (at, certificate) in CertificateDer::pem_slice_iter(chain).enumerate() {
            certificates.push(certificate.map_err(|_| KeyPairError::Certificate { number: at + 1 })?);
        }
        let first = certificates.first().ok_or(KeyPairError::NoCertificate)?;
        let facts = CertificateFacts::read(first).ok_or(KeyPairError::Certificate { number: 1 })?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| KeyPairError::NoKey)?;
        let reset_key = ResetKey::derive(&key);
        let key = any_supported_type(&key).map_err(|error| KeyPairError::Key(error.to_string()))?;
        let pair = CertifiedKey::new(certificates, key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(KeyPairError::Mismatch),
            Err(_) => return Err(KeyPairError::Certificate { number: 1 }),
        }
        Ok(Self { chain: Arc::new(pair), facts: Arc::new(facts), reset_key })
    }

    /// The key from which those of QUIC's stateless resets are derived.
    pub const fn reset_key(&self) -> &ResetKey {
        &self.reset_key
    }

    /// Names, addresses and expiry of the certificate.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}

/// Two pairs are equal if their chains are: a chain has one key.
impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.chain.cert == other.chain.cert
    }
}

impl Eq for KeyPair {}

/// Leaves the key out.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl CertificateFacts {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            names: Vec::new(),
            addresses: Vec::new(),
            not_after: certificate.validity().not_after.timestamp(),
            is_ca: certificate.is_ca(),
        };
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => facts.names.push((*name).to_owned()),
                    GeneralName::IPAddress(octets) => facts.addresses.extend(address(octets)),
                    _ => {}
                }
            }
        }
        Some(facts)
    }

    /// The first name that stands for one host, to which clients are pointed (RFC 9462).
    pub fn host(&self) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| !name.starts_with('*'))
    }

    /// Seconds until it expires, at `now` in seconds since 1970; negative once it has expired.
    pub fn seconds_left(&self, now: Duration) -> i64 {
        self.not_after.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The certificate in use, shared by all listeners.
#[derive(Debug)]
pub struct ServerCertificate(ArcSwap<KeyPair>);

impl ServerCertificate {
    /// Presents this pair until it is replaced.
    pub fn new(pair: KeyPair) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(pair)))
    }

    /// Presents another pair from the next handshake on.
    pub fn replace(&self, pair: KeyPair) {
        self.0.store(Arc::new(pair));
    }

    /// The pair in use.
    pub fn pair(&self) -> Arc<KeyPair> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().chain))
    }
}

/// TLS server of one kind of listener. Clones share their sessions.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

/// A client's stream after its handshake.
pub type Accepted<S> = TlsStream<S>;

impl TlsServer {
    /// A server that presents `certificate` and speaks one of `protocols`, the preferred first.
    ///
    /// # Errors
    /// The keys for session tickets could not be made.
    pub fn new(certificate: &Arc<ServerCertificate>, protocols: &[Alpn]) -> io::Result<Self> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = if protocols == [Alpn::Doq] {
            builder.with_protocol_versions(&[&rustls::version::TLS13])
        } else {
            builder.with_safe_default_protocol_versions()
        };
        let builder = builder.expect("the provider has suites for both versions");
        let certificate: Arc<dyn ResolvesServerCert> = Arc::<ServerCertificate>::clone(certificate);
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.id().to_vec()).collect();
        config.ticketer = Ticketer::new().map_err(io::Error::other)?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Performs the handshake over an accepted connection.
    ///
    /// # Errors
    /// The handshake or the connection failed.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> io::Result<Accepted<S>> {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(io).await
    }

    /// The configuration for QUIC. The server must have been made for [`Alpn::Doq`] only.
    ///
    /// # Errors
    /// It was made for another protocol, or the provider lacks the suite that QUIC begins with.
    pub fn quic(&self) -> io::Result<Arc<dyn quinn::crypto::ServerConfig>> {
        let config = QuicServerConfig::try_from(Arc::clone(&self.config));
        config.map(|config| Arc::new(config) as Arc<_>).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("protocols", &self.config.alpn_protocols).finish_non_exhaustive()
    }
}

/// The protocol that client and server agreed on; none if the client named none.
pub fn agreed<S>(stream: &Accepted<S>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair as Key};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let key = Key::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_tells_names_addresses_and_expiry() {
        let (chain, key) = made(&["*.corp.example", "dns.corp.example", "10.1.1.53", "fd00::53"]);
        let pair = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let facts = pair.facts();
        assert_eq!(facts.names, ["*.corp.example", "dns.corp.example"]);
        assert_eq!(facts.host(), Some("dns.corp.example"));
        assert_eq!(facts.addresses, ["10.1.1.53".parse::<IpAddr>().unwrap(), "fd00::53".parse().unwrap()]);
        let expiry = Duration::from_secs(facts.not_after.try_into().unwrap());
        assert_eq!(facts.seconds_left(expiry - Duration::from_secs(60)), 60);
        assert_eq!(facts.seconds_left(expiry + Duration::from_secs(60)), -60);
    }

    #[test]
    fn files_that_are_no_pair_say_which_one_is_at_fault() {
        let (chain, key) = made(&["a.example"]);
        let (_, other) = made(&["a.example"]);
        let cut = chain.replace("-----BEGIN CERTIFICATE-----\nM", "-----BEGIN CERTIFICATE-----\nAAAA");
        for (name, chain, key, about_key, error) in [
            ("no certificate", "", &*key, false, KeyPairError::NoCertificate),
            ("a key for a chain", &*key, &key, false, KeyPairError::NoCertificate),
            ("damaged", &cut, &key, false, KeyPairError::Certificate { number: 1 }),
            ("no key", &chain, "", true, KeyPairError::NoKey),
            ("a chain for a key", &chain, &chain, true, KeyPairError::NoKey),
            ("another's key", &chain, &other, true, KeyPairError::Mismatch),
        ] {
            let found = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert_eq!((&found, found.is_about_key()), (&error, about_key), "{name}");
        }
    }

    #[test]
    fn a_replaced_certificate_is_another() {
        let [first, second] = [made(&["a.example"]), made(&["a.example"])]
            .map(|(chain, key)| KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
        let shared = ServerCertificate::new(first.clone());
        assert_eq!(*shared.pair(), first);
        shared.replace(second.clone());
        assert_eq!(*shared.pair(), second);
        assert_ne!(first, second);
    }
}
