//! Why a handshake failed, in words for the operator who has to fix it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// No CA among the roots signed the certificate.
    #[error("its certificate is signed by no CA that is trusted here")]
    UnknownIssuer,
    /// A CA of the issuer's name is among the roots, but its key did not sign the certificate.
    #[error("its certificate names a CA that is trusted here, and is not signed by that CA's key (an older one?)")]
    OtherKey,
    /// The certificate has expired.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate is not valid yet, or this host's clock is wrong.
    #[error("its certificate is not valid yet (is this host's clock right?)")]
    NotYetValid,
    /// The certificate is for other names.
    #[error("its certificate is not for {wanted}{}", what_for(presented))]
    OtherName {
        /// The name it must be for.
        wanted: String,
        /// The names of the certificate.
        presented: Vec<String>,
    },
    /// Another error of the certificate.
    #[error("its certificate is no good: {0}")]
    Certificate(CertificateError),
    /// The server refused the handshake with an alert.
    #[error("it refused the handshake: {0:?}")]
    Alert(AlertDescription),
    /// The server does not speak TLS, or no version or suite that we accept.
    #[error("no TLS with it: {0}")]
    Protocol(Error),
    /// The handshake inside QUIC failed; only the alert and a text of its cause are known.
    #[error("no QUIC with it: {reason}")]
    Quic {
        /// The alert that was sent.
        alert: AlertDescription,
        /// Why, in the library's words.
        reason: String,
    },
    /// The connection failed during the handshake.
    #[error("the connection broke in the TLS handshake: {0}")]
    Io(io::ErrorKind),
}

impl HandshakeError {
    /// Whether the server answered but could not prove its identity.
    pub const fn is_about_identity(&self) -> bool {
        use AlertDescription as Told;
        match self {
            Self::UnknownIssuer | Self::OtherKey | Self::Expired | Self::NotYetValid => true,
            Self::OtherName { .. } | Self::Certificate(_) => true,
            Self::Quic { alert, .. } => matches!(
                alert,
                Told::UnknownCA
                    | Told::BadCertificate
                    | Told::UnsupportedCertificate
                    | Told::CertificateRevoked
                    | Told::CertificateExpired
                    | Told::CertificateUnknown
                    | Told::DecryptError
            ),
            Self::Alert(_) | Self::Protocol(_) | Self::Io(_) => false,
        }
    }

    /// A handshake in QUIC that failed here; the error code of the connection holds the alert (RFC 9001 4.8).
    pub fn of_quic(code: u64, reason: String) -> Self {
        alert(code).map_or(Self::Io(io::ErrorKind::InvalidData), |alert| Self::Quic { alert, reason })
    }

    /// A handshake in QUIC that the far end refused.
    pub fn refused_in_quic(code: u64) -> Self {
        alert(code).map_or(Self::Io(io::ErrorKind::ConnectionRefused), Self::Alert)
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::from(error.clone()),
            None => Self::Io(error.kind()),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        use CertificateError as Bad;
        match error {
            Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer => Self::UnknownIssuer,
                Bad::BadSignature => Self::OtherKey,
                Bad::Expired | Bad::ExpiredContext { .. } => Self::Expired,
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => Self::NotYetValid,
                Bad::NotValidForNameContext { expected, presented } => {
                    Self::OtherName { wanted: expected.to_str().into_owned(), presented: plain(presented) }
                }
                other => Self::Certificate(other),
            },
            Error::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Protocol(other),
        }
    }
}

fn alert(code: u64) -> Option<AlertDescription> {
    u8::try_from(code.checked_sub(0x100)?).ok().map(AlertDescription::from)
}

/// The names without the `DnsName("…")` that rustls puts around them.
fn plain(presented: Vec<String>) -> Vec<String> {
    let bare = |text: &str| Some(text.strip_prefix("DnsName(\"")?.strip_suffix("\")")?.to_owned());
    presented.into_iter().map(|text| bare(&text).unwrap_or(text)).collect()
}

fn what_for(presented: &[String]) -> String {
    match presented {
        [] => String::new(),
        names => format!(", but for {}", names.join(", ")),
    }
}
