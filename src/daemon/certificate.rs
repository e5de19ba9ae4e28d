//! The certificate of the encrypted listeners: read again on a reload and when its files change, watched for its end.
//!
//! Policy: what cannot be used leaves the certificate in use, with one warning; files are looked at every few seconds,
//! since `LoadCredential=`, certbot and mounted secrets replace them in ways that inotify sees differently. From 14 days
//! before the end on there is a warning a day.

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

/// From here on the end of a certificate is warned of.
pub(super) const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
/// How often that is said.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// What tells one state of a file from another.
type PemStamp = Option<(SystemTime, u64)>;

/// Result of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// The certificate is that of before.
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
    /// Uses what the configuration read.
    pub(super) fn new(certificate: &config::Certificate) -> Self {
        let config::Certificate { chain, key, pair } = certificate.clone();
        let stamps = [stamp(&chain), stamp(&key)];
        Self { chain, key, shared: ServerCertificate::new(pair), stamps, warned_at: None }
    }

    /// What the listeners show.
    pub(super) fn shared(&self) -> Arc<ServerCertificate> {
        Arc::clone(&self.shared)
    }

    /// The file of the chain, for logs and metrics.
    pub(super) fn file(&self) -> String {
        self.chain.display().to_string()
    }

    /// Uses what a reload read.
    pub(super) fn reload(&mut self, certificate: &config::Certificate) {
        let shared = self.shared();
        shared.replace(certificate.pair.clone());
        let warned_at = self.warned_at.filter(|_| *shared.pair() == certificate.pair);
        *self = Self { shared, warned_at, ..Self::new(certificate) };
    }

    /// Reads the files again if they have changed, and warns of the end. Both files change one after the other: a pair
    /// that does not match is tried again with the next change.
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
