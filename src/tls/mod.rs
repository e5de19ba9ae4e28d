//! TLS: trusted CAs, handshakes as client and server, and why a handshake failed.
//!
//! The only room that knows rustls. Every configuration names AWS-LC as its provider explicitly: the process-wide
//! default depends on which features other packages enable. The cargo feature `fips` uses AWS-LC's FIPS module instead.
//! This room opens no socket and knows nothing of DNS except the ALPN protocol ids; `config` reads bundles and
//! certificates with it, `upstream` and `cli` connect with it, `serve` accepts with it.

mod client;
mod error;
mod reset_key;
mod roots;
mod server;

pub use client::{Alpn, Connected, TlsClient, certificate_of, is_server_name};
pub use error::HandshakeError;
pub use reset_key::ResetKey;
pub use roots::{Roots, RootsError};
pub use server::{Accepted, CertificateFacts, KeyPair, KeyPairError, ServerCertificate, TlsServer, agreed};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
