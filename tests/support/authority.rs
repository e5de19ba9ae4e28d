//! A certificate authority for one test.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ServerSessionMemoryCache, StoresServerSessions},
};
use time::OffsetDateTime;

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Whether a certificate is valid, expired or not yet valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    /// Valid, for three days and a bit.
    ExpiresSoon,
    Past,
    Future,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs itself"))
    }

    /// Its own certificate, for those who should trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The TLS configuration of a client that trusts it.
    pub fn client(&self, alpn: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("it is a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("it has suites for them");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// A certificate for this name or address.
    pub fn issue(&self, name: &str, validity: Validity) -> Certificate {
        self.issue_for(&[name], validity)
    }

    /// A certificate for several names and addresses.
    pub fn issue_for(&self, names: &[&str], validity: Validity) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names and addresses");
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
            Validity::ExpiresSoon => (date_time_ymd(2020, 1, 1), soon()),
            Validity::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Validity::Future => (date_time_ymd(2099, 1, 1), date_time_ymd(2100, 1, 1)),
        };
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it signs");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Certificate { chain: vec![certificate.der().clone()], key }
    }
}

fn soon() -> OffsetDateTime {
    let now = i64::try_from(tidegate::clock::wall().as_secs()).expect("the clock is right");
    OffsetDateTime::from_unix_timestamp(now + 3 * 86_400 + 3_600).expect("a date")
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Certificate {
    /// The chain and the key in PEM.
    pub fn pem(&self) -> (String, String) {
        let section = |label: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
        };
        (section("CERTIFICATE", &self.chain[0]), section("PRIVATE KEY", self.key.secret_der()))
    }

    /// The TLS configuration of a server; the counter shows how many sessions were resumed.
    pub fn server(&self, alpn: &[u8], resumed: Arc<AtomicUsize>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("it has suites for them");
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("key and certificate fit");
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(Sessions { kept: ServerSessionMemoryCache::new(256), resumed });
        Arc::new(config)
    }
}

/// Counts the sessions that clients resume.
#[derive(Debug)]
struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    resumed: Arc<AtomicUsize>,
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.get(key)
    }

    /// TLS 1.3 takes a session out of the store to resume it.
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.kept.take(key)?;
        self.resumed.fetch_add(1, SeqCst);
        Some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
