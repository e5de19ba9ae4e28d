//! Certificates for the demo's encrypted servers, issued by an authority that exists only during the demo.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;

/// Signs the servers' certificates. Its own certificate is in a file, because tidegate's `ca` setting needs one.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("they cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("they cannot be used: {0}")]
    Use(#[from] rustls::Error),
    #[error("the authority's cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Authority {
    /// Makes an authority and its file.
    pub(super) fn new() -> Result<Self, CertificateError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "tidegate demo");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut file = tempfile::Builder::new().prefix("tidegate-demo-").suffix(".pem").tempfile()?;
        file.write_all(issuer.pem().as_bytes())?;
        Ok(Self { issuer, file })
    }

    /// The file with its certificate, removed together with the authority.
    pub(super) fn file(&self) -> &Path {
        self.file.path()
    }

    /// The TLS configuration of a server called `name` that speaks one protocol (RFC 7301).
    pub(super) fn server(&self, name: &str, protocol: &[u8]) -> Result<Arc<ServerConfig>, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }
}
