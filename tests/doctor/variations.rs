//! The same faults in other places: servers on streams, by name, IPv6 addresses, every listener.

use std::{fs, net::TcpListener};

use rstest::rstest;
use tidegate::cli::doctor::{Diagnosis, Evidence, Kind};

use crate::{
    STS, finds, finds_with, healthy, healthy_at, on_empty_host, on_host, site, site_of,
    support::{
        authority::{Authority, Validity},
        config::Config,
        encrypted::{Encrypted, Manner, Speaks},
        query::rtype,
        records::{Fault, Record, Reply},
        rules::Match,
        upstream::Upstream,
    },
};

/// A guarded name that no probe asks for.
const KMS: &str = "kms.eu-west-1.amazonaws.com.";

fn v6(name: &str, address: &str) -> Reply {
    Reply::of([Record::aaaa(name, 300, address)])
}

fn asks_for(name: &str) -> Evidence {
    Evidence { names: vec![name.parse().unwrap()], ..on_empty_host() }
}

#[track_caller]
fn only(diagnosis: &Diagnosis) -> &tidegate::cli::doctor::DoctorFinding {
    assert_eq!(diagnosis.findings.len(), 1, "{diagnosis:#?}");
    &diagnosis.findings[0]
}

#[rstest]
#[case::silent(Kind::ServerSilent, |server: &mut Upstream| server.go_silent())]
#[case::stopped(Kind::NothingListens, |server: &mut Upstream| server.stop())]
#[case::refuses(Kind::ServerRefuses, |server: &mut Upstream| { server.otherwise(Reply::refused()); })]
#[case::fails(Kind::ServerFails, |server: &mut Upstream| { server.otherwise(Reply::servfail()); })]
#[case::delegation_endpoint(Kind::NoRecursion, |server: &mut Upstream| {
    server.on(STS, rtype::A, Reply::a("10.20.1.5").but(Fault::NoRecursion));
})]
#[case::differs(Kind::ServersDiffer, |server: &mut Upstream| { server.on(STS, rtype::A, Reply::nxdomain(300)); })]
#[case::public_at_one(Kind::ServersDiffer, |server: &mut Upstream| { server.on(STS, rtype::A, Reply::a("52.1.2.3")); })]
fn a_fault_of_a_server_on_tcp_has_its_diagnosis(#[case] kind: Kind, #[case] break_it: fn(&mut Upstream)) {
    let (one, mut two) = (healthy(), healthy());
    break_it(&mut two);
    let servers = [&one, &two].map(|server| format!("tcp://{}", server.address));
    let diagnosis = finds(&site_of(&servers, ""), &[kind]);
    assert_eq!(only(&diagnosis).server, Some(format!("tcp://{}", two.address)));
}

#[rstest]
#[case::takes_connections_and_no_query(Some(Manner::Silent), Kind::EncryptionFailed)]
#[case::nothing_listens(None, Kind::NothingListens)]
fn a_silent_encrypted_server_is_told_from_none(
    #[case] manner: Option<Manner>,
    #[case] expected: Kind,
    #[values((Speaks::Tls, "tls"), (Speaks::Https, "https"), (Speaks::Quic, "quic"))] speaks: (Speaks, &str),
) {
    let (authority, folder) = (Authority::new("Test CA"), tempfile::tempdir().unwrap());
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let certificate = authority.issue("vpc.example", Validity::Now);
    let server = Encrypted::start(speaks.0, &certificate, manner.unwrap_or(Manner::Answers));
    let text = format!("{}://{}#vpc.example", speaks.1, server.address);
    let server = Some(server).filter(|_| manner.is_some());
    finds(&site_of(&[text], &format!("ca = {:?}", ca.display().to_string())), &[expected]);
    drop(server);
}

/// The daemon repeats such a query without EDNS.
#[test]
fn a_server_that_cannot_read_edns_has_no_fault() {
    let upstream = healthy();
    upstream.add_rule(Match::default().edns(true), Reply::rcode(1));
    finds(&site(&[&upstream]), &[]);
}

#[rstest]
#[case::no_such_name(Some(Reply::nxdomain(300)), "NXDOMAIN")]
#[case::fails(Some(Reply::servfail()), "with an error")]
#[case::silent(None, "no bootstrap server answers")]
fn a_server_by_a_name_without_address_is_told(#[case] reply: Option<Reply>, #[case] words: &str) {
    let (upstream, bootstrap) = (healthy(), healthy());
    match reply {
        Some(reply) => _ = bootstrap.otherwise(reply),
        None => bootstrap.go_silent(),
    }
    let by_name = |bootstrap: &Upstream| {
        let line = format!("bootstrap = [\"{}\"]", bootstrap.address);
        site_of(&["tcp://vpc.example:9".to_owned(), upstream.address.to_string()], &line)
    };
    let diagnosis = finds(&by_name(&bootstrap), &[Kind::ServerName]);
    let finding = only(&diagnosis);
    assert_eq!(finding.server.as_deref(), Some("vpc.example"), "{finding:?}");
    assert!(finding.what.contains(words), "{finding:?}");
}

#[test]
fn a_server_by_name_has_the_faults_of_its_addresses() {
    let (bootstrap, mut stopped) = (healthy(), healthy());
    bootstrap.on("vpc.example.", rtype::A, Reply::a("127.0.0.1"));
    stopped.stop();
    let server = format!("tcp://vpc.example:{}", stopped.address.port());
    let line = format!("bootstrap = [\"{}\"]", bootstrap.address);
    let diagnosis = finds(&site_of(&[server], &line), &[Kind::NothingListens]);
    assert_eq!(only(&diagnosis).server, Some(format!("tcp://{}", stopped.address)));
}

#[rstest]
#[case::public_alone(None, "2600:1f18::1", Kind::PrivateDnsOff, "com.amazonaws.eu-west-1.kms")]
#[case::beside_a_private_one(
    Some("10.20.1.5"),
    "2600:1f18::1",
    Kind::Ipv6NotPrivate,
    "10.20.1.5, and also 2600:1f18::1"
)]
#[case::beside_a_public_one(Some("52.1.2.3"), "2600:1f18::1", Kind::PrivateDnsOff, "52.1.2.3")]
fn a_public_ipv6_address_is_told(
    #[case] v4: Option<&str>,
    #[case] address: &str,
    #[case] kind: Kind,
    #[case] words: &str,
) {
    let upstream = healthy();
    upstream.on(KMS, rtype::AAAA, v6(KMS, address));
    if let Some(v4) = v4 {
        upstream.on(KMS, rtype::A, Reply::a(v4));
    }
    let diagnosis = finds_with(&site(&[&upstream]), &asks_for(KMS), &[kind]);
    assert!(only(&diagnosis).what.contains(words), "{diagnosis:#?}");
    assert_eq!(diagnosis.names, 2);
}

#[test]
fn an_ipv6_address_in_the_networks_of_the_rule_is_private() {
    let upstream = healthy();
    upstream.on(KMS, rtype::AAAA, v6(KMS, "2600:1f18::1"));
    let guard = "private = [\"10.0.0.0/8\", \"2600:1f18::/56\"]\non_public = \"refuse\"";
    let config = Config::new().section("limits", "tcp_connections = 50").upstream("vpc", &[&upstream], "");
    finds_with(&config.forward("aws", &["amazonaws.com"], "vpc", guard), &asks_for(KMS), &[]);
}

#[rstest]
#[case::ours("nameserver ::1\n", &[])]
#[case::hole("nameserver ::1\nnameserver 2001:db8::53\n", &[Kind::ResolvConfHole])]
#[case::hole_in_front("nameserver 2001:db8::53\nnameserver ::1\n", &[Kind::ResolvConfHole])]
fn name_servers_of_resolv_conf_by_ipv6(#[case] text: &str, #[case] expected: &[Kind]) {
    let (upstream, folder) = (healthy(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("resolv.conf"), text).unwrap();
    finds_with(&site(&[&upstream]).listen(&["[::1]:0"]), &on_host(folder.path()), expected);
}

#[test]
fn a_second_tier_without_private_dns_is_told() {
    let (one, two) = (healthy(), healthy());
    two.on(KMS, rtype::A, Reply::a("52.1.2.3"));
    let config = Config::new().section("limits", "tcp_connections = 50");
    let config = config.upstream("vpc", &[&one], &format!("backup = [[\"{}\"]]", two.address));
    let guard = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";
    let config = config.forward("aws", &["amazonaws.com"], "vpc", guard);
    one.on(KMS, rtype::A, Reply::a("10.20.1.5"));
    let diagnosis = finds_with(&config, &asks_for(KMS), &[Kind::PrivateDnsOff]);
    assert_eq!(only(&diagnosis).server, Some(two.address.to_string()));
}

#[test]
fn servers_that_differ_in_a_name_besides_the_probes_are_told_once() {
    let (one, two) = (healthy_at("[::1]:0"), healthy());
    for (name, address) in [(KMS, "10.20.1.5"), ("logs.eu-west-1.amazonaws.com.", "10.20.1.6")] {
        one.on(name, rtype::A, Reply::a(address));
    }
    two.on(KMS, rtype::A, Reply::a("52.1.2.3"));
    let names = vec![KMS.parse().unwrap(), "logs.eu-west-1.amazonaws.com".parse().unwrap()];
    let evidence = Evidence { names, ..on_empty_host() };
    let diagnosis = finds_with(&site(&[&one, &two]), &evidence, &[Kind::ServersDiffer]);
    assert!(only(&diagnosis).what.contains("gives kms.eu-west-1.amazonaws.com a private address"), "{diagnosis:#?}");
}

#[rstest]
#[case::tls("[server.tls]\ntls = [\"ADDRESS\"]\n")]
#[case::https("[server.tls]\nhttps = [\"ADDRESS\"]\n")]
#[case::quic("[server.tls]\nquic = [\"ADDRESS\"]\n")]
#[case::admin("")]
fn a_port_of_any_listener_that_another_program_holds_is_told(#[case] lines: &str) {
    let (upstream, folder) = (healthy(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (chain, key) = Authority::new("Test CA").issue("dns.example", Validity::Now).pem();
    fs::write(path("chain.pem"), chain).unwrap();
    fs::write(path("key.pem"), key).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    // QUIC wants the same port over UDP; another test may have it.
    let udp = std::net::UdpSocket::bind(if lines.contains("quic") { address } else { "127.0.0.1:0".parse().unwrap() });
    let text = address.to_string();
    let config = if lines.is_empty() {
        Config::without_admin().section("admin", &format!("http = {text:?}"))
    } else {
        let pair = format!("certificate = {:?}\nkey = {:?}\n", path("chain.pem"), path("key.pem"));
        Config::new().raw(&format!("{}{pair}", lines.replace("ADDRESS", &text)))
    };
    let config = config.section("limits", "tcp_connections = 50").upstream("vpc", &[&upstream], "");
    let diagnosis = finds(&config.forward("aws", &["amazonaws.com"], "vpc", ""), &[Kind::PortTaken]);
    assert!(only(&diagnosis).what.contains(&text), "{diagnosis:#?}");
    drop((tcp, udp));
}
