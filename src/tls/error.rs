//! Why a handshake failed, in words for the operator who has to fix it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::system_error::ErrorCause;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// No CA among the roots signed the certificate.
    #[error("its certificate is signed by no CA that is trusted here")]
    UnknownIssuer,
    /// A CA with the issuer's name is among the roots, but its key did not sign the certificate.
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
        /// The name or address it must be for.
        wanted: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// Another error of the certificate.
    #[error("its certificate cannot be used: {}", certificate_words(.0))]
    Certificate(CertificateError),
    /// The server refused the handshake with an alert.
    #[error("it refused the handshake: {}", alert_words(*.0))]
    Alert(AlertDescription),
    /// The server does not speak TLS, or no version or suite that we accept.
    #[error("no TLS with it: {}", protocol_words(.0))]
    Protocol(Error),
    /// The handshake inside QUIC failed; only the alert and a text about its cause are known.
    #[error("no QUIC with it: {}", quic_words(reason))]
    Quic {
        /// The alert that was sent.
        alert: AlertDescription,
        /// The cause, in the library's words.
        reason: String,
    },
    /// The connection failed during the handshake.
    #[error("the connection broke in the TLS handshake: {0}")]
    Io(ErrorCause),
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

    /// A QUIC handshake that failed here; the connection's error code holds the alert (RFC 9001 4.8).
    pub fn of_quic(code: u64, reason: String) -> Self {
        alert(code).map_or(Self::Io(ErrorCause::Kind(io::ErrorKind::InvalidData)), |alert| Self::Quic { alert, reason })
    }

    /// A QUIC handshake that the far end refused.
    pub fn refused_in_quic(code: u64) -> Self {
        alert(code).map_or(Self::Io(ErrorCause::Kind(io::ErrorKind::ConnectionRefused)), Self::Alert)
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::from(error.clone()),
            None => Self::Io(ErrorCause::from(error)),
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

/// The names without the `DnsName("…")` that rustls wraps around them.
fn plain(presented: Vec<String>) -> Vec<String> {
    let bare = |text: &str| Some(text.strip_prefix("DnsName(\"")?.strip_suffix("\")")?.to_owned());
    presented.into_iter().map(|text| bare(&text).unwrap_or(text)).collect()
}

/// What is wrong with a certificate, for errors without a variant of their own.
fn certificate_words(error: &CertificateError) -> String {
    match error {
        CertificateError::BadEncoding => "it does not parse".to_owned(),
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers (extended key usage)".to_owned()
        }
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::ApplicationVerificationFailure => "it was refused here".to_owned(),
        // An error of webpki, which carries nothing but its name.
        CertificateError::Other(other) => named(&other.0.to_string()),
        other => named(&other.to_string()),
    }
}

/// Words for the names of the libraries' errors; rare ones are only split into words.
fn named(error: &str) -> String {
    match error {
        "CaUsedAsEndEntity" => "it is a CA's own and not one for servers (CA:TRUE)".to_owned(),
        "EndEntityUsedAsCa" => "it is signed by a certificate that is no CA's".to_owned(),
        "NameConstraintViolation" => "its CA may not sign for this name".to_owned(),
        "PathLenConstraintViolated" => "there are more CAs between it and the root than allowed".to_owned(),
        "UnsupportedCertVersion" => "it is older than X.509 version 3".to_owned(),
        other => separated(other),
    }
}

/// "HandshakeFailure" as "handshake failure"; what follows in brackets is for programmers and is left out. A sentence stays
/// whole, without the `DnsName("…")` around its names.
fn separated(name: &str) -> String {
    let (sentence, name) = (name, name.split(['(', '{']).next().unwrap_or(name).trim());
    if name.contains(' ') {
        return sentence.replace("DnsName(\"", "").replace("\")", "");
    }
    let mut words = String::new();
    let mut was_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && was_lower {
            words.push(' ');
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
        words.extend(letter.to_lowercase());
    }
    words
}

fn alert_words(alert: AlertDescription) -> String {
    use AlertDescription as Told;
    match alert {
        Told::UnrecognisedName => "it does not know the name it was called by".to_owned(),
        Told::NoApplicationProtocol => "it does not speak DNS over this transport".to_owned(),
        Told::CertificateRequired => "it wants a certificate of its clients".to_owned(),
        Told::ProtocolVersion => "it speaks no version of TLS that is spoken here (1.2 or 1.3)".to_owned(),
        other => match other.as_str() {
            Some(name) => separated(name),
            None => format!("alert {}", u8::from(other)),
        },
    }
}

fn protocol_words(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => "what it sends is not TLS".to_owned(),
        Error::PeerIncompatible(why) => {
            format!("it has nothing in common with us ({})", separated(&format!("{why:?}")))
        }
        Error::PeerMisbehaved(why) => format!("it breaks the protocol ({})", separated(&format!("{why:?}"))),
        Error::NoApplicationProtocol => "it does not speak DNS over this transport".to_owned(),
        other => other.to_string(),
    }
}

/// quinn describes a handshake error as a text that ends with an error of rustls.
fn quic_words(reason: &str) -> String {
    match reason.rsplit_once("invalid peer certificate: ") {
        Some((_, error)) => {
            let inner = error.strip_prefix("Other(OtherError(").and_then(|inner| inner.strip_suffix("))"));
            format!("its certificate cannot be used: {}", named(inner.unwrap_or(error)))
        }
        None => reason.to_owned(),
    }
}

fn what_for(presented: &[String]) -> String {
    match presented {
        [] => String::new(),
        names => format!(", but for {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{OtherError, PeerIncompatible};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Named(&'static str);

    #[test]
    fn errors_of_libraries_are_told_in_words() {
        let other = |name| CertificateError::Other(OtherError(Arc::new(Named(name))));
        for (error, expected) in [
            (
                Error::InvalidCertificate(other("CaUsedAsEndEntity")),
                "its certificate cannot be used: it is a CA's own and not one for servers (CA:TRUE)",
            ),
            (
                Error::InvalidCertificate(other("UnsupportedCriticalExtension")),
                "its certificate cannot be used: unsupported critical extension",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadEncoding),
                "its certificate cannot be used: it does not parse",
            ),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "it refused the handshake: handshake failure"),
            (Error::AlertReceived(AlertDescription::Unknown(99)), "it refused the handshake: alert 99"),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "no TLS with it: it has nothing in common with us (no cipher suites in common)",
            ),
        ] {
            assert_eq!(HandshakeError::from(error).to_string(), expected);
        }
        for (reason, expected) in [
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "no QUIC with it: its certificate cannot be used: it is a CA's own and not one for servers (CA:TRUE)",
            ),
            (
                "invalid peer certificate: UnknownIssuer",
                "no QUIC with it: its certificate cannot be used: unknown issuer",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"dns.corp.example\"; certificate is only valid \
                 for DnsName(\"a.example\") or DnsName(\"b.example\")",
                "no QUIC with it: its certificate cannot be used: certificate not valid for name \"dns.corp.example\"; \
                 certificate is only valid for a.example or b.example",
            ),
        ] {
            assert_eq!(HandshakeError::of_quic(0x12e, reason.to_owned()).to_string(), expected);
        }
    }
}
