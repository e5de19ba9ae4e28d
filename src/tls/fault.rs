//! Why a handshake failed, in the words of whoever has to mend it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Nobody among the roots signed it.
    #[error("its certificate is signed by no CA that is trusted here")]
    UnknownIssuer,
    /// A CA of that name is among the roots, and its key did not sign it.
    #[error("its certificate names a CA that is trusted here, and is not signed by that CA's key (an older one?)")]
    OtherKey,
    /// Its time is over.
    #[error("its certificate has expired")]
    Expired,
    /// Its time has not come; or this host's clock is wrong.
    #[error("its certificate is not valid yet (is this host's clock right?)")]
    NotYetValid,
    /// It is somebody else's.
    #[error("its certificate is not for {wanted}{}", what_for(presented))]
    OtherName {
        /// The name that it should have.
        wanted: String,
        /// Those that it has.
        presented: Vec<String>,
    },
    /// Anything else about its certificate.
    #[error("its certificate is no good: {0}")]
    Certificate(CertificateError),
    /// The far end ended the handshake.
    #[error("it refused the handshake: {0:?}")]
    Alert(AlertDescription),
    /// The far end speaks something else, or a TLS that is not spoken here.
    #[error("no TLS with it: {0}")]
    Protocol(Error),
    /// The handshake inside QUIC failed, which keeps nothing of its cause but the alert and a text.
    #[error("no QUIC with it: {reason}")]
    Quic {
        /// What it was told.
        alert: AlertDescription,
        /// Why, in the library's words.
        reason: String,
    },
    /// The network failed under it.
    #[error("the connection broke in the TLS handshake: {0}")]
    Io(io::ErrorKind),
}

impl Fault {
    /// Whether the far end answered and could not show who it is.
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

impl From<Error> for Fault {
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

/// The names without what rustls puts around them.
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
