//! The certificate of the encrypted listeners: read again on a reload and when its files change, with warnings before
//! it expires.
//!
//! Policy: a certificate that cannot be used leaves the current one in use, with one warning. The files are polled
//! every few seconds, since `LoadCredential=`, certbot and mounted secrets replace them in ways that inotify sees
//! differently. During the last 14 days before it expires there is a warning a day.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use crate::{
    clock::{self, Moment},
    config, files,
    plural::Plural,
    tls::{KeyPair, ServerCertificate},
};

/// How long before the certificate expires the warnings start.
pub(super) const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
/// How often the warning is repeated.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// Identifies one version of a file.
type PemStamp = Option<(SystemTime, u64)>;

/// Result of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// The certificate is unchanged.
    AsBefore,
    /// Another certificate is in use.
    Replaced,
}

/// The certificate in use and the files it comes from.
#[derive(Debug)]
pub(super) struct WatchedCertificate {
    chain: PathBuf,
    key: PathBuf,
    shared: Arc<ServerCertificate>,
    stamps: [PemStamp; 2],
    warned_at: Option<Moment>,
}

impl WatchedCertificate {
    /// Starts with the certificate that the configuration read.
    pub(super) fn new(certificate: &config::Certificate) -> Self {
        let config::Certificate { chain, key, pair } = certificate.clone();
        let stamps = [stamp(&chain), stamp(&key)];
        Self { chain, key, shared: ServerCertificate::new(pair), stamps, warned_at: None }
    }

    /// The certificate that the listeners present.
    pub(super) fn shared(&self) -> Arc<ServerCertificate> {
        Arc::clone(&self.shared)
    }

    /// The file of the chain, for logs and metrics.
    pub(super) fn file(&self) -> String {
        self.chain.display().to_string()
    }

    /// Takes over the certificate that a reload read.
    pub(super) fn reload(&mut self, certificate: &config::Certificate) {
        let shared = self.shared();
        shared.replace(certificate.pair.clone());
        let warned_at = self.warned_at.filter(|_| *shared.pair() == certificate.pair);
        *self = Self { shared, warned_at, ..Self::new(certificate) };
    }

    /// Reads the files again if they have changed, and warns before expiry. The two files are replaced one after the
    /// other: a pair that does not match is tried again at the next change.
    pub(super) fn poll(&mut self, now: Moment) -> Polled {
        let mut polled = Polled::AsBefore;
        let stamps = [stamp(&self.chain), stamp(&self.key)];
        if stamps != self.stamps {
            self.stamps = stamps;
            match read(&self.chain, &self.key) {
                Ok(pair) if pair == *self.shared.pair() => {}
                Ok(pair) => {
                    self.shared.replace(pair);
                    self.warned_at = None;
                    polled = Polled::Replaced;
                    info!("the certificate {} was read again and is in use", self.chain.display());
                }
                Err(error) => {
                    warn!(
                        "the certificate {} changed and cannot be used: {error}; the old one stays in use",
                        self.chain.display()
                    );
                }
            }
        }
        self.warn(now);
        polled
    }

    fn warn(&mut self, now: Moment) {
        let left = self.shared.pair().facts().seconds_left(clock::wall());
        let is_near = left < i64::try_from(WARN_BEFORE.as_secs()).unwrap_or(i64::MAX);
        if !is_near || self.warned_at.is_some_and(|at| now.since(at) < WARN_EVERY) {
            return;
        }
        self.warned_at = Some(now);
        let file = self.chain.display();
        match u64::try_from(left) {
            Ok(left) => {
                warn!(days = left / 86_400, "the certificate {file} expires in {}", Plural(left / 86_400, "day"))
            }
            Err(_) => warn!("the certificate {file} has expired: encrypted clients refuse it"),
        }
    }
}

fn read(chain: &Path, key: &Path) -> io::Result<KeyPair> {
    KeyPair::from_pem(&files::read(chain)?, &files::read(key)?).map_err(io::Error::other)
}

fn stamp(path: &Path) -> PemStamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
