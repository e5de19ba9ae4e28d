//! Name servers beside this tidegate in resolv.conf: one that answers guarded names as it does is alike, any other a hole.

use std::fs;

use rstest::rstest;
use tidegate::cli::doctor::{Diagnosis, Evidence, Kind};

use crate::{
    STS, finds_with, healthy, on_host, site,
    support::{config::Config, namespace, query::rtype, records::Reply, tidegate::Tidegate, upstream::Upstream},
};

/// A name whose address is public at the upstream: the guard refuses it.
const KMS: &str = "kms.eu-west-1.amazonaws.com.";

/// Looks at a site on a host whose resolv.conf names its tidegate and this server.
fn beside(second: &str, config: &Config, evidence: &Evidence, expected: &[Kind]) -> Diagnosis {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("resolv.conf"), format!("nameserver 127.0.0.1\nnameserver {second}\n")).unwrap();
    finds_with(config, &Evidence { host: on_host(folder.path()).host, ..evidence.clone() }, expected)
}

fn asks_for(name: &str) -> Evidence {
    Evidence { names: vec![name.parse().unwrap()], ..Evidence::default() }
}

/// The guard of a second tidegate, or its absence, decides whether a public address gets past it.
#[rstest]
#[case::refuse("private = [\"10.0.0.0/8\"]\non_public = \"refuse\"", Kind::ResolvConfAlike)]
#[case::strip("private = [\"10.0.0.0/8\"]\non_public = \"strip\"", Kind::ResolvConfAlike)]
#[case::log("private = [\"10.0.0.0/8\"]\non_public = \"log\"", Kind::ResolvConfHole)]
#[case::unguarded("", Kind::ResolvConfHole)]
fn a_second_tidegate_is_alike_if_its_guard_is(#[case] guard: &str, #[case] expected: Kind) {
    namespace::inside_own(|| {
        let upstream = healthy();
        upstream.on(KMS, rtype::A, Reply::a("52.1.2.3"));
        let second = Config::new().listen(&["127.0.0.2:53"]).upstream("vpc", &[&upstream], "");
        let _second = Tidegate::start(&second.forward("aws", &["amazonaws.com"], "vpc", guard));
        // By the private name alone they are alike.
        let diagnosis = beside("127.0.0.2", &site(&[&upstream]), &Evidence::default(), &[Kind::ResolvConfAlike]);
        assert!(diagnosis.healthy, "{diagnosis:?}");
        let mut kinds = [Kind::PrivateDnsOff, expected];
        kinds.sort_unstable_by_key(|kind| (kind.urgency(), *kind));
        let diagnosis = beside("127.0.0.2", &site(&[&upstream]), &asks_for(KMS), &kinds);
        let finding = diagnosis.findings.iter().find(|finding| finding.kind == expected).unwrap();
        assert_eq!(finding.server.as_deref(), Some("127.0.0.2"));
        assert_eq!(finding.what.contains("52.1.2.3"), expected == Kind::ResolvConfHole, "{finding:?}");
    });
}

#[rstest]
#[case::as_we_do(|server: &mut Upstream| { server.on(STS, rtype::A, Reply::a("10.20.1.6")); }, Kind::ResolvConfAlike, "1 guarded name")]
#[case::public(|server: &mut Upstream| { server.on(STS, rtype::A, Reply::a("52.1.2.3")); }, Kind::ResolvConfHole, "52.1.2.3")]
#[case::no_address(|server: &mut Upstream| { server.on(STS, rtype::A, Reply::nxdomain(300)); }, Kind::ResolvConfHole, "no address")]
#[case::refuses(|server: &mut Upstream| { server.otherwise(Reply::refused()); }, Kind::ResolvConfHole, "no address")]
#[case::silent(|server: &mut Upstream| server.go_silent(), Kind::ResolvConfHole, "does not answer")]
#[case::stopped(|server: &mut Upstream| server.stop(), Kind::ResolvConfHole, "does not answer")]
fn a_plain_resolver_goes_by_its_answers(#[case] set: fn(&mut Upstream), #[case] expected: Kind, #[case] words: &str) {
    namespace::inside_own(|| {
        let (upstream, mut resolver) = (healthy(), Upstream::start_at("127.0.0.3:53".parse().unwrap()));
        set(&mut resolver);
        let diagnosis = beside("127.0.0.3", &site(&[&upstream]), &Evidence::default(), &[expected]);
        assert!(diagnosis.findings[0].what.contains(words), "{diagnosis:?}");
        assert_eq!(diagnosis.healthy, expected == Kind::ResolvConfAlike);
    });
}

/// Where our own upstreams are down, a public address counts all the same, and so does silence.
#[test]
fn without_an_answer_of_ours_only_a_public_address_is_a_hole() {
    namespace::inside_own(|| {
        let (upstream, resolver) = (healthy(), Upstream::start_at("127.0.0.3:53".parse().unwrap()));
        upstream.otherwise(Reply::servfail());
        for (address, kinds) in [
            ("10.20.1.6", [Kind::ServerFails, Kind::ResolvConfAlike]),
            ("52.1.2.3", [Kind::ServerFails, Kind::ResolvConfHole]),
        ] {
            resolver.on(STS, rtype::A, Reply::a(address));
            beside("127.0.0.3", &site(&[&upstream]), &Evidence::default(), &kinds);
        }
    });
}

#[test]
fn names_that_the_daemon_has_seen_private_are_compared_where_there_is_no_probe() {
    namespace::inside_own(|| {
        let (upstream, resolver) = (healthy(), Upstream::start_at("127.0.0.3:53".parse().unwrap()));
        resolver.on(STS, rtype::A, Reply::a("10.20.1.5"));
        let config = Config::new().section("limits", "tcp_connections = 50").upstream("vpc", &[&upstream], "").forward(
            "aws",
            &["amazonaws.com"],
            "vpc",
            "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"",
        );
        let diagnosis = beside("127.0.0.3", &config, &Evidence::default(), &[Kind::ResolvConfHole]);
        assert!(diagnosis.findings[0].what.contains("no guarded name is known"), "{diagnosis:?}");
        let seen = Evidence { private: vec![STS.parse().unwrap()], ..Evidence::default() };
        beside("127.0.0.3", &config, &seen, &[Kind::ResolvConfAlike]);
    });
}
