//! Certificate authorities: a bundle in a file, or the system's.
//!
//! The system's are read from where OpenSSL looks on this host (`SSL_CERT_FILE`, `SSL_CERT_DIR`, the distribution's
//! bundle) by rustls-native-certs. rustls-platform-verifier would read the same files on Linux, but brings a verifier
//! of its own and bindings for other platforms.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

/// Trusted certificate authorities. Two are equal when they hold the same certificates in the same order.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// Why a text is not a bundle of CA certificates.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A section does not parse as PEM.
    #[error("it is not PEM: {0}")]
    Malformed(#[source] pem::Error),
    /// It holds no certificate.
    #[error("it holds no certificate")]
    Empty,
    /// A certificate does not parse.
    #[error("its certificate {number} does not parse")]
    Certificate {
        /// The certificate's position, counted from one.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

impl Roots {
    /// Reads PEM; sections that are not certificates are skipped.
    ///
    /// # Errors
    /// The text is not such a bundle.
    pub fn from_pem(text: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for (at, certificate) in CertificateDer::pem_slice_iter(text).enumerate() {
            let certificate = certificate.map_err(RootsError::Malformed)?;
            store.add(certificate).map_err(|source| RootsError::Certificate { number: at + 1, source })?;
        }
        if store.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self(Arc::new(store)))
    }

    /// The CAs that the system trusts, without those that do not parse; may be empty.
    pub fn of_system() -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self(Arc::new(store))
    }

    /// No CA at all.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// Whether it is empty: then every certificate is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.roots == other.0.roots
    }
}

impl Eq for Roots {}

impl Hash for Roots {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.roots.hash(state);
    }
}

/// Shows only the number of CAs.
impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}
