//! The verb beside a running daemon, on a host whose programs ask this daemon alone: the findings are those of the fault.

use std::fs;

use rstest::rstest;
use tidegate::cli::doctor::{Diagnosis, Kind};

use crate::{
    STS, healthy, site, site_of,
    support::{
        authority::{Authority, Validity},
        config::Config,
        encrypted::{Encrypted, Manner, Speaks},
        namespace::{self, Network},
        query::Query,
        tidegate::{Tidegate, run},
    },
};

/// Starts the daemon on port 53, and what the doctor says of it. The host's clock is not the test's.
fn beside_daemon(config: Config, act: impl FnOnce(&Tidegate)) -> Diagnosis {
    let folder = tempfile::tempdir().unwrap();
    namespace::replace_file(folder.path(), "/etc/resolv.conf", "nameserver 127.0.0.1\n");
    namespace::replace_file(folder.path(), "/etc/nsswitch.conf", "hosts: files dns\n");
    let tidegate = Tidegate::start(&config.listen(&["127.0.0.1:53"]));
    act(&tidegate);
    let file = tidegate.folder().join("tidegate.toml").display().to_string();
    let admin = format!("http://{}", tidegate.admin_address());
    let output = run(&["doctor", "--json", "--config", &file, "--admin", &admin]);
    let mut diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(diagnosis.daemon, "{diagnosis:#?}");
    assert_eq!(output.status.code(), Some(i32::from(!diagnosis.healthy)), "{diagnosis:#?}");
    diagnosis.findings.retain(|finding| finding.kind != Kind::ClockUnsynchronized);
    diagnosis
}

#[track_caller]
fn has(diagnosis: &Diagnosis, expected: &[Kind]) {
    let kinds: Vec<Kind> = diagnosis.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, expected, "{diagnosis:#?}");
}

#[test]
fn a_healthy_site_has_no_findings() {
    namespace::inside_own(|| {
        let upstream = healthy();
        let ask = |tidegate: &Tidegate| _ = tidegate.client().ask(&Query::a(STS));
        has(&beside_daemon(site(&[&upstream]), ask), &[]);
    });
}

#[rstest]
#[case::vpc_plus_two("10.20.0.2", Kind::VpcResolverAddress)]
#[case::another("10.20.0.12", Kind::ServerSilent)]
fn the_address_of_a_vpcs_own_resolver_is_told_from_a_silent_server(#[case] address: &str, #[case] expected: Kind) {
    namespace::inside_own(|| {
        let network = Network::behind("vpc", &["10.20.0.1/24"], &[&format!("{address}/24")]);
        let (upstream, silent) = (healthy(), network.upstream(&format!("{address}:53")));
        silent.go_silent();
        let servers = [upstream.address.to_string(), address.to_owned()];
        let diagnosis = beside_daemon(site_of(&servers, "timeout = \"200ms\""), |_| {});
        has(&diagnosis, &[expected]);
        assert_eq!(diagnosis.findings[0].server.as_deref(), Some(address));
    });
}

#[rstest]
#[case::tls(Speaks::Tls, "tls")]
#[case::https(Speaks::Https, "https")]
#[case::quic(Speaks::Quic, "quic")]
fn a_servers_certificate_that_expires_soon_is_told(#[case] speaks: Speaks, #[case] scheme: &str) {
    namespace::inside_own(|| {
        let authority = Authority::new("Test CA");
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let start = |validity| Encrypted::start(speaks, &authority.issue("vpc.example", validity), Manner::Answers);
        let [old, new] = [Validity::ExpiresSoon, Validity::Now].map(start);
        let servers = [&old, &new].map(|server| format!("{scheme}://{}#vpc.example", server.address));
        let diagnosis = beside_daemon(site_of(&servers, &format!("ca = {:?}", ca.display().to_string())), |_| {});
        has(&diagnosis, &[Kind::CertificateExpires]);
        let finding = &diagnosis.findings[0];
        assert!(finding.what.ends_with("expires in 3 days"), "{finding:?}");
        let server = finding.server.as_deref().unwrap_or_default();
        assert!(server.contains(&old.address.to_string()), "{finding:?}");
        assert!(!diagnosis.healthy, "clients are answered today, and not next week");
    });
}

#[rstest]
#[case::soon(Validity::ExpiresSoon, &[Kind::CertificateExpires])]
#[case::valid(Validity::Now, &[])]
fn our_own_certificate_that_expires_soon_is_told(
    #[case] validity: Validity,
    #[case] expected: &[Kind],
    #[values("tls = [\"127.0.0.1:853\"]", "https = [\"127.0.0.1:443\"]", "quic = [\"127.0.0.1:853\"]")] listener: &str,
) {
    namespace::inside_own(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (chain, key) = Authority::new("Test CA").issue("dns.example", validity).pem();
        fs::write(path("chain.pem"), chain).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        let upstream = healthy();
        let (chain, key) = (path("chain.pem"), path("key.pem"));
        let tls = format!("[server.tls]\n{listener}\ncertificate = {chain:?}\nkey = {key:?}");
        let diagnosis = beside_daemon(site(&[&upstream]).raw(&tls), |_| {});
        has(&diagnosis, expected);
        for finding in &diagnosis.findings {
            assert!(finding.what.contains("chain.pem, of our listeners, expires in 3 days"), "{finding:?}");
        }
    });
}

#[test]
fn a_reload_that_was_refused_is_told() {
    namespace::inside_own(|| {
        let upstream = healthy();
        let diagnosis = beside_daemon(site(&[&upstream]), |tidegate| {
            let file = tidegate.folder().join("tidegate.toml");
            let right = fs::read_to_string(&file).unwrap();
            assert!(!tidegate.reload_text(&right.replace("amazonaws.com", "amazonaws..com")));
            fs::write(&file, right).unwrap();
        });
        has(&diagnosis, &[Kind::ReloadRefused]);
    });
}
