//! A certificate authority of a test's own.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
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

    /// Its own certificate, for those who are to believe it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name or address.
    pub fn issue(&self, name: &str, validity: Validity) -> Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name or an address");
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
            Validity::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Validity::Future => (date_time_ymd(2099, 1, 1), date_time_ymd(2100, 1, 1)),
        };
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it signs");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Certificate { chain: vec![certificate.der().clone()], key }
    }
}

impl Certificate {
    /// A server's side of the handshake.
    pub fn server(&self, alpn: &[u8]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("it has suites for them");
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("key and certificate fit");
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }
}
