//! The key of QUIC's stateless resets, derived from the private key of the certificate: a process that starts again with
//! the same files can reset the connections of the one before, also after a crash (RFC 9000 10.3.2).

use std::fmt;

use quinn::crypto::{CryptoError, HmacKey};
use rustls::{
    crypto::{
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        tls13::{Hkdf, OkmBlock},
    },
    pki_types::PrivateKeyDer,
};

/// What HKDF is told of the key's purpose.
const PURPOSE: &[u8] = b"tidegate: stateless resets of QUIC";
/// The length of HMAC-SHA256's output.
const SIGNATURE: usize = 32;

/// A key for HMAC-SHA256, from which quinn makes the token of each connection id.
#[derive(Clone)]
pub struct ResetKey(OkmBlock);

impl ResetKey {
    /// Derives a key from a certificate's (HKDF-SHA256, RFC 5869).
    pub(super) fn derive(private: &PrivateKeyDer<'_>) -> Self {
        Self(hkdf().extract_from_secret(None, private.secret_der()).expand_block(&[PURPOSE]))
    }

    /// Derives the key for one place, such as a host and an address: those of different places cannot reset each
    /// other's connections.
    #[must_use]
    pub fn at(&self, place: &str) -> Self {
        Self(hkdf().expander_for_okm(&self.0).expand_block(&[place.as_bytes()]))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hkdf().hmac_sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        SIGNATURE
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if hkdf().hmac_sign(&self.0, data).as_ref() == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Leaves the key out.
impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResetKey").finish_non_exhaustive()
    }
}

fn hkdf() -> &'static dyn Hkdf {
    TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3").hkdf_provider
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    #[test]
    fn a_key_belongs_to_a_certificate_and_a_place() {
        let made = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der()));
        let (one, other) = (made(), made());
        let token = |private: &PrivateKeyDer<'_>, place: &str| {
            let mut token = [0; SIGNATURE];
            ResetKey::derive(private).at(place).sign(b"an id", &mut token);
            token
        };
        assert_eq!(token(&one, "a 10.1.1.53:853"), token(&one, "a 10.1.1.53:853"));
        assert_ne!(token(&one, "a 10.1.1.53:853"), token(&one, "b 10.1.1.53:853"));
        assert_ne!(token(&one, "a 10.1.1.53:853"), token(&other, "a 10.1.1.53:853"));
        let key = ResetKey::derive(&one).at("a 10.1.1.53:853");
        assert!(key.verify(b"an id", &token(&one, "a 10.1.1.53:853")).is_ok());
        assert!(key.verify(b"another", &token(&one, "a 10.1.1.53:853")).is_err());
    }
}
