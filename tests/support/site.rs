//! A daemon with every listener, plain and encrypted, and a certificate for them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    authority::{Authority, Validity},
    config::Config,
    tidegate::Tidegate,
    upstream::Upstream,
};

/// The name on the certificate.
pub const NAME: &str = "dns.corp.example";

/// The table of all encrypted listeners, on free ports, with the certificate in this folder.
pub fn encrypted_listeners(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "[server.tls]\ntls = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nquic = [\"127.0.0.1:0\"]\n\
         certificate = {:?}\nkey = {:?}",
        path("chain.pem"),
        path("key.pem")
    )
}

/// The daemon, its certificate authority and an upstream.
pub struct Site {
    pub tidegate: Tidegate,
    pub upstream: Upstream,
    pub authority: Authority,
    pub folder: TempDir,
}

impl Site {
    pub fn start() -> Self {
        Self::start_with("", "")
    }

    /// With further keys of `[server]` and `[limits]`.
    pub fn start_with(server: &str, limits: &str) -> Self {
        let authority = Authority::new("the site's CA");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is writable");
        certify(&authority, folder.path(), Validity::Now);
        let upstream = Upstream::answering("10.0.0.1");
        let tls = encrypted_listeners(folder.path());
        let config = Config::forwarding_to(&[&upstream]).section("server", server).section("limits", limits).raw(&tls);
        Self { tidegate: Tidegate::start(&config), upstream, authority, folder }
    }

    /// Puts another certificate in place.
    pub fn certify(&self, validity: Validity) {
        certify(&self.authority, self.folder.path(), validity);
    }

    /// Where it listens for this transport: `tls`, `https` or `quic`.
    pub fn address(&self, transport: &str) -> SocketAddr {
        self.tidegate.encrypted_address(transport)
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Puts a certificate with its key into a folder.
pub fn certify(authority: &Authority, folder: &Path, validity: Validity) {
    let (chain, key) = authority.issue_for(&[NAME, "127.0.0.1"], validity).pem();
    for (name, content) in [("chain.pem", chain), ("key.pem", key)] {
        fs::write(folder.join(name), content).expect("the folder is writable");
    }
}
