//! What `tidegate doctor` finds: each fault yields its own diagnosis and no other, a healthy site none.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod daemon;
mod name_servers;
mod variations;

use std::{fs, path::Path};

use rstest::rstest;
use support::{
    authority::{Authority, Validity},
    config::Config,
    encrypted::{Encrypted, Manner, Speaks},
    namespace,
    query::{Query, rtype},
    records::{Fault, Record, Reply},
    rules::Match,
    script::Script,
    tidegate::{Tidegate, run},
    upstream::{Transport, Upstream},
};
use tidegate::{
    admin::status::{GroupStatus, ServerStatus, Status},
    cli::doctor::{Diagnosis, Evidence, HostFiles, Kind, diagnose},
    config::Plan,
};

/// The type of the root's keys, the largest answer that the doctor asks for.
const DNSKEY: u16 = 48;
/// The AWS name that rules of these tests probe for.
const STS: &str = "sts.eu-west-1.amazonaws.com.";

/// A server that answers all that it is asked, as a resolver behind a good link.
fn healthy() -> Upstream {
    healthy_at("127.0.0.1:0")
}

fn healthy_at(address: &str) -> Upstream {
    let upstream = Upstream::start_at(address.parse().unwrap());
    upstream.on_type(rtype::A, Reply::rcode(3).authority(Record::soa(".", 300, 300)));
    upstream.on(STS, rtype::A, Reply::a("10.20.1.5"));
    upstream.on(".", DNSKEY, Reply::of([key(200), signature(280)]));
    upstream
}

fn key(octets: usize) -> Record {
    Record::raw(".", DNSKEY, 300, [&[1, 0, 3, 8][..], &vec![7; octets]].concat())
}

fn signature(octets: usize) -> Record {
    signature_from(0x5f00_0000, octets)
}

/// A signature that is valid from then on, in seconds since 1970.
fn signature_from(inception: u32, octets: usize) -> Record {
    signature_within(inception, 0x7f00_0000, octets)
}

fn signature_within(inception: u32, expiration: u32, octets: usize) -> Record {
    let (begin, end) = (inception.to_be_bytes(), expiration.to_be_bytes());
    let fixed = [&[0, 48, 8, 0, 0, 0, 1, 44][..], &end, &begin, &[0x4f, 0x66, 0]].concat();
    Record::raw(".", 46, 300, [&fixed[..], &vec![7; octets]].concat())
}

/// A site that sends AWS names to these servers, and wants private addresses for them.
fn site(upstreams: &[&Upstream]) -> Config {
    site_of(&upstreams.iter().map(|upstream| upstream.address.to_string()).collect::<Vec<_>>(), "")
}

fn site_of(servers: &[String], lines: &str) -> Config {
    let probe = format!("{lines}\n[upstream.vpc.health]\nprobe = \"{STS} A\"\n");
    let limits = "tcp_connections = 50";
    Config::new().section("limits", limits).servers("vpc", servers, &probe).forward(
        "aws",
        &["amazonaws.com"],
        "vpc",
        "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"\n",
    )
}

/// A host without any of the files.
fn on_empty_host() -> Evidence {
    on_host(Path::new("/nonexistent"))
}

/// A host whose files are in this folder.
fn on_host(folder: &Path) -> Evidence {
    let [resolv_conf, resolved, nsswitch, proc] =
        ["resolv.conf", "resolved.conf", "nsswitch.conf", "proc"].map(|file| folder.join(file));
    Evidence { host: HostFiles { resolv_conf, resolved, nsswitch, proc }, ..Evidence::default() }
}

#[track_caller]
fn examine(config: &Config, evidence: &Evidence) -> Diagnosis {
    let plan = match Plan::from_text("doctor.toml", &config.text()) {
        Ok(plan) => plan,
        Err(problems) => panic!("{}\n{problems}", config.text()),
    };
    diagnose(&plan, evidence).unwrap()
}

/// Holds the diagnosis of a site to these kinds of findings, and no others.
#[track_caller]
fn finds(config: &Config, expected: &[Kind]) -> Diagnosis {
    finds_with(config, &on_empty_host(), expected)
}

#[track_caller]
fn finds_with(config: &Config, evidence: &Evidence, expected: &[Kind]) -> Diagnosis {
    let diagnosis = examine(config, evidence);
    let kinds: Vec<Kind> = diagnosis.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, expected, "{diagnosis:#?}");
    diagnosis
}

#[test]
fn a_healthy_site_yields_nothing() {
    let (one, two) = (healthy(), healthy());
    let diagnosis = finds(&site(&[&one, &two]), &[]);
    assert!(diagnosis.healthy);
    assert_eq!((diagnosis.servers, diagnosis.names), (2, 1));
}

/// One of two servers has a fault: what is said is about that one.
#[rstest]
#[case::silent(Kind::ServerSilent, |server: &mut Upstream| server.go_silent())]
#[case::stopped(Kind::NothingListens, |server: &mut Upstream| server.stop())]
#[case::tcp_refused(Kind::TcpBlocked, |server: &mut Upstream| server.stop_tcp())]
#[case::tcp_dropped(Kind::TcpBlocked, |server: &mut Upstream| {
    server.add_rule(Match::default().over(Transport::Tcp), Script::silence());
})]
#[case::udp_dropped(Kind::UdpBlocked, |server: &mut Upstream| {
    server.add_rule(Match::default().over(Transport::Udp), Script::silence());
})]
#[case::edns_dropped(Kind::EdnsLost, |server: &mut Upstream| {
    server.add_rule(Match::default().over(Transport::Udp).edns(true), Script::silence());
})]
#[case::refuses(Kind::ServerRefuses, |server: &mut Upstream| { server.otherwise(Reply::refused()); })]
#[case::fails(Kind::ServerFails, |server: &mut Upstream| { server.otherwise(Reply::servfail()); })]
#[case::delegation_endpoint(Kind::NoRecursion, |server: &mut Upstream| {
    server.on(STS, rtype::A, Reply::a("10.20.1.5").but(Fault::NoRecursion));
})]
#[case::large_lost(Kind::LargeResponsesLost, |server: &mut Upstream| {
    server.on(".", DNSKEY, Reply::of([key(900)]));
    server.on_transport(".", DNSKEY, Transport::Udp, Script::silence());
})]
#[case::fragments_lost(Kind::FragmentsLost, |server: &mut Upstream| {
    server.on(".", DNSKEY, Reply::of([key(1600)]));
    server.on_transport(".", DNSKEY, Transport::Udp, Script::silence());
})]
#[case::no_soa(Kind::NoSoa, |server: &mut Upstream| { server.on_below("amazonaws.com.", rtype::A, Reply::rcode(3));
    server.on(STS, rtype::A, Reply::a("10.20.1.5")); })]
#[case::signed_in_the_future(Kind::ClockOff, |server: &mut Upstream| {
    let next_week = u32::try_from(tidegate::clock::wall().as_secs()).unwrap() + 604_800;
    server.on(".", DNSKEY, Reply::of([key(200), signature_from(next_week, 280)]));
})]
#[case::signed_in_the_past(Kind::ClockOff, |server: &mut Upstream| {
    let last_week = u32::try_from(tidegate::clock::wall().as_secs()).unwrap() - 604_800;
    server.on(".", DNSKEY, Reply::of([key(200), signature_within(0x5f00_0000, last_week, 280)]));
})]
#[case::public_at_one(Kind::ServersDiffer, |server: &mut Upstream| { server.on(STS, rtype::A, Reply::a("52.1.2.3")); })]
#[case::public_ipv6_at_one(Kind::ServersDiffer, |server: &mut Upstream| {
    server.on(STS, rtype::AAAA, Reply::of([Record::aaaa(STS, 300, "2600:1f18::1")]));
})]
#[case::differs(Kind::ServersDiffer, |server: &mut Upstream| { server.on(STS, rtype::A, Reply::nxdomain(300)); })]
fn a_fault_of_one_server_has_its_diagnosis(
    #[case] kind: Kind,
    #[case] break_it: fn(&mut Upstream),
    #[values("127.0.0.1:0", "[::1]:0")] address: &str,
) {
    let (one, mut two) = (healthy_at(address), healthy_at(address));
    break_it(&mut two);
    let diagnosis = finds(&site(&[&one, &two]), &[kind]);
    let finding = &diagnosis.findings[0];
    assert_eq!(finding.server, Some(two.address.to_string()), "{finding:?}");
    assert_eq!(finding.group.as_deref(), Some("vpc"), "{finding:?}");
    // The same in a second group, of another rule.
    let of_both = [&one, &two].map(|server| server.address.to_string());
    let second = format!("[upstream.second.health]\nprobe = \"{STS} A\"\n");
    let guard = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"\n";
    let first = healthy();
    let config = site(&[&first]).servers("second", &of_both, &second);
    let diagnosis = finds(&config.forward("second", &["sts.eu-west-1.amazonaws.com"], "second", guard), &[kind]);
    assert_eq!(diagnosis.findings[0].group.as_deref(), Some("second"), "{diagnosis:?}");
}

/// The upstream is a tidegate that sends everything to where this one would listen.
#[test]
fn a_loop_is_found_without_a_daemon() {
    let address = format!("127.0.0.1:{}", support::peers::free_port());
    let config = Config::new().servers("back", std::slice::from_ref(&address), "timeout = \"200ms\"");
    let upstream =
        Tidegate::start(&config.section("server", "deadline = \"500ms\"").forward("all", &["."], "back", ""));
    let site = site_of(&[upstream.address().to_string()], "").listen(&[&address]);
    let diagnosis = finds(&site, &[Kind::Loop]);
    assert_eq!(diagnosis.findings[0].server, Some(upstream.address().to_string()));
}

#[test]
fn a_clock_that_nothing_keeps_right_is_a_note() {
    let upstream = healthy();
    for (synchronized, expected) in [(false, &[Kind::ClockUnsynchronized][..]), (true, &[])] {
        let evidence = Evidence { synchronized: Some(synchronized), ..on_empty_host() };
        assert!(finds_with(&site(&[&upstream]), &evidence, expected).healthy);
    }
}

/// What the daemon alone knows of a server.
#[rstest]
#[case::quota(&[("ok", 20_000), ("timeout", 1_000)], Kind::Quota)]
#[case::budget(&[("ok", 20_000), ("budget", 7)], Kind::QueryBudget)]
fn counts_of_the_running_daemon_have_their_diagnosis(#[case] queries: &[(&str, u64)], #[case] kind: Kind) {
    let upstream = healthy();
    let queries = queries.iter().map(|(result, count)| ((*result).to_owned(), *count)).collect();
    let server = ServerStatus { state: "up".to_owned(), queries, ..ServerStatus::default() };
    let group = GroupStatus { tiers: vec![vec![server]], ..GroupStatus::default() };
    let status = Some(Status { workers: 1, groups: vec![group], ..Status::default() });
    finds_with(&site(&[&upstream]), &Evidence { status, ..on_empty_host() }, &[kind]);
}

#[test]
fn a_group_that_is_silent_as_a_whole_has_one_cause() {
    let (one, two) = (healthy(), healthy());
    one.go_silent();
    two.go_silent();
    let diagnosis = finds(&site(&[&one, &two]), &[Kind::LinkDown]);
    assert!(!diagnosis.healthy);
}

#[test]
fn a_link_that_is_down_is_told_from_a_silent_server() {
    namespace::inside("a_link_that_is_down_is_told_from_a_silent_server", || {
        finds(&site_of(&["10.20.1.10".to_owned()], ""), &[Kind::NoRoute]);
    });
}

#[rstest]
#[case::good("vpc.example", Validity::Now, true, &[])]
#[case::other_name("other.example", Validity::Now, true, &[Kind::CertificateName])]
#[case::expired("vpc.example", Validity::Past, true, &[Kind::CertificateExpired])]
#[case::not_yet_valid("vpc.example", Validity::Future, true, &[Kind::ClockOff])]
#[case::untrusted("vpc.example", Validity::Now, false, &[Kind::CertificateUntrusted])]
fn certificates_are_told_apart(
    #[case] name: &str,
    #[case] validity: Validity,
    #[case] is_trusted: bool,
    #[case] expected: &[Kind],
) {
    let (authority, other) = (Authority::new("Test CA"), Authority::new("Other CA"));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, if is_trusted { authority.pem() } else { other.pem() }).unwrap();
    let certificate = authority.issue(name, validity);
    for (speaks, scheme) in [(Speaks::Tls, "tls"), (Speaks::Https, "https"), (Speaks::Quic, "quic")] {
        let server = Encrypted::start(speaks, &certificate, Manner::Answers);
        let text = format!("{scheme}://{}#vpc.example", server.address);
        finds(&site_of(&[text], &format!("ca = {:?}", ca.display().to_string())), expected);
    }
}

#[test]
fn a_port_that_speaks_no_tls_is_told() {
    let upstream = healthy();
    finds(&site_of(&[format!("tls://{}#vpc.example", upstream.address)], ""), &[Kind::EncryptionFailed]);
}

#[rstest]
#[case::no_endpoint("kms.eu-west-1.amazonaws.com.", Kind::PrivateDnsOff, "com.amazonaws.eu-west-1.kms")]
#[case::legacy_bucket("logs.s3.amazonaws.com.", Kind::LegacyName, "s3")]
#[case::resource("db.c1.eu-west-1.rds.amazonaws.com.", Kind::PublicAnswer, "52.1.2.3")]
fn a_public_answer_has_its_remedy(#[case] name: &str, #[case] kind: Kind, #[case] word: &str) {
    let upstream = healthy();
    upstream.on(name, rtype::A, Reply::a("52.1.2.3"));
    let evidence = Evidence { names: vec![name.parse().unwrap(), STS.parse().unwrap()], ..on_empty_host() };
    let diagnosis = finds_with(&site(&[&upstream]), &evidence, &[kind]);
    let finding = &diagnosis.findings[0];
    assert_eq!(finding.name.as_deref(), Some(name.trim_end_matches('.')));
    assert!(finding.what.contains(word), "{finding:?}");
    assert_eq!(diagnosis.names, 2);
}

#[test]
fn a_probe_may_ask_for_a_public_name_where_there_is_no_guard() {
    let upstream = healthy();
    upstream.on(STS, rtype::A, Reply::a("52.1.2.3"));
    let probe = format!("[upstream.site.health]\nprobe = \"{STS} A\"\n");
    let everything = Config::new().section("limits", "tcp_connections = 50").upstream("site", &[&upstream], &probe);
    finds(&everything.forward("rest", &["."], "site", ""), &[]);
}

/// A default probe asks for the SOA of a zone, whose own address is public in AWS.
#[test]
fn the_name_of_a_default_probe_need_not_be_private() {
    let upstream = healthy();
    upstream.on("amazonaws.com.", rtype::A, Reply::a("52.1.2.3"));
    let guard = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";
    let config = Config::new().section("limits", "tcp_connections = 50").upstream("vpc", &[&upstream], "");
    let diagnosis = finds(&config.forward("aws", &["amazonaws.com"], "vpc", guard), &[]);
    assert_eq!(diagnosis.names, 0);
}

#[test]
fn signatures_count_where_the_whole_internet_is_forwarded() {
    let upstream = healthy();
    upstream.on(".", DNSKEY, Reply::of([key(200)]));
    let everything = Config::new().upstream("site", &[&upstream], "").forward("rest", &["."], "site", "");
    let diagnosis = finds(&everything, &[Kind::SignaturesStripped]);
    assert!(diagnosis.healthy, "a note leaves a site healthy");
}

const OURS: &str = "nameserver 127.0.0.1\n";
const STUB: &str = "nameserver 127.0.0.53\noptions edns0\n";

#[rstest]
#[case::ours(&[("resolv.conf", OURS)], &[])]
#[case::hole(&[("resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.53\n")], &[Kind::ResolvConfHole])]
#[case::hole_in_front(&[("resolv.conf", "nameserver 192.0.2.53\nnameserver 127.0.0.1\n")], &[Kind::ResolvConfHole])]
#[case::stub_as_a_hole(&[("resolv.conf", "nameserver 127.0.0.1\nnameserver 127.0.0.53\n")], &[Kind::ResolvConfHole])]
#[case::elsewhere(&[("resolv.conf", "nameserver 10.1.1.53\n")], &[Kind::ResolvConfElsewhere])]
#[case::resolved(&[("resolv.conf", STUB), ("resolved.conf", "nameserver 10.1.1.53\n")], &[Kind::SystemdResolved])]
#[case::resolved_that_asks_us(&[("resolv.conf", STUB), ("resolved.conf", OURS)], &[])]
#[case::nsswitch(&[("nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n")], &[Kind::Nsswitch])]
#[case::nsswitch_without_dns(&[("nsswitch.conf", "passwd: files\nhosts: files # dns\n")], &[Kind::Nsswitch])]
#[case::nsswitch_as_usual(&[("nsswitch.conf", "hosts: files mdns4_minimal [NOTFOUND=return] dns\n")], &[])]
#[case::conntrack(
    &[("proc/sys/net/netfilter/nf_conntrack_count", "65000\n"), ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n")],
    &[Kind::ConntrackFull]
)]
#[case::source_ports(
    &[("proc/net/sockstat", "UDP: inuse 28000 mem 5\n"), ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")],
    &[Kind::SourcePorts]
)]
#[case::source_ports_of_ipv6(
    &[("proc/net/sockstat6", "UDP6: inuse 28000\n"), ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")],
    &[Kind::SourcePorts]
)]
#[case::receive_buffer_of_ipv6(
    &[("proc/net/snmp6", "Udp6InDatagrams                 \t50000\nUdp6RcvbufErrors                \t900\n")],
    &[Kind::ReceiveBufferDrops]
)]
#[case::elsewhere_by_ipv6(&[("resolv.conf", "nameserver 2001:db8::53\n")], &[Kind::ResolvConfElsewhere])]
#[case::receive_buffer(
    &[("proc/net/snmp", "Udp: InDatagrams NoPorts RcvbufErrors\nUdp: 50000 1 900\n")],
    &[Kind::ReceiveBufferDrops]
)]
fn a_fault_of_the_host_has_its_diagnosis(#[case] files: &[(&str, &str)], #[case] expected: &[Kind]) {
    let upstream = healthy();
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    finds_with(&site(&[&upstream]), &on_host(folder.path()), expected);
}

#[test]
fn the_limits_of_the_running_daemon_count() {
    let upstream = healthy();
    let folder = tempfile::tempdir().unwrap();
    let process = folder.path().join("proc/4711");
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("comm"), "tidegate\n").unwrap();
    fs::write(process.join("cmdline"), "/usr/bin/tidegate\0serve\0--config\0t.toml\0").unwrap();
    for (limit, expected) in [(100, &[Kind::OpenFiles][..]), (65_536, &[])] {
        let text =
            format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            64   {limit}    files     \n");
        fs::write(process.join("limits"), text).unwrap();
        let status = Some(Status { workers: 2, ..Status::default() });
        finds_with(&site(&[&upstream]), &Evidence { status, ..on_host(folder.path()) }, expected);
    }
}

#[test]
fn names_that_the_daemon_has_seen_public_are_asked_for() {
    let upstream = healthy();
    upstream.on("kms.eu-west-1.amazonaws.com.", rtype::A, Reply::a("52.1.2.3"));
    let tidegate = Tidegate::start(&site(&[&upstream]));
    tidegate.client().ask(&Query::a("kms.eu-west-1.amazonaws.com."));
    let file = tidegate.folder().join("tidegate.toml").display().to_string();
    let admin = format!("http://{}", tidegate.admin_address());
    let output = run(&["doctor", "--json", "--config", &file, "--admin", &admin]);
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap();
    let found = |kind| diagnosis.findings.iter().any(|finding| finding.kind == kind);
    assert!(diagnosis.daemon && found(Kind::PrivateDnsOff) && !found(Kind::PortTaken), "{diagnosis:#?}");
    assert_eq!(output.status.code(), Some(1));
}

/// Who serves others may ask whom it likes, as long as that is not a tidegate and somebody else.
#[test]
fn a_gateway_for_others_need_not_ask_itself() {
    let upstream = healthy();
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    let config = site(&[&upstream]).listen(&["0.0.0.0:0"]);
    fs::write(&resolv_conf, "nameserver 192.0.2.53\n").unwrap();
    finds_with(&config, &on_host(folder.path()), &[]);
    fs::write(&resolv_conf, "nameserver 127.0.0.1\nnameserver 192.0.2.53\n").unwrap();
    finds_with(&config, &on_host(folder.path()), &[Kind::ResolvConfHole]);
}

#[test]
fn a_port_that_another_program_holds_is_told_unless_the_daemon_runs() {
    let upstream = healthy();
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let config = site(&[&upstream]).listen(&[&address]);
    let diagnosis = finds(&config, &[Kind::PortTaken]);
    assert!(diagnosis.findings[0].what.contains(&address), "{diagnosis:?}");
    let status = Some(Status { listen: vec![address], ..Status::default() });
    assert!(finds_with(&config, &Evidence { status, ..on_empty_host() }, &[]).daemon);
}

#[test]
fn a_source_that_this_host_lacks_is_told() {
    let upstream = healthy();
    let servers = [upstream.address.to_string()];
    finds(&site_of(&servers, "source = \"192.0.2.77\""), &[Kind::ThisHostCannot, Kind::NotOnThisHost]);
}

#[test]
fn the_verb_prints_what_to_do_and_tells_by_its_exit_code() {
    let upstream = healthy();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    let doctor = |more: &[&str]| run(&[&["doctor", "--config", &file.display().to_string()], more].concat());
    fs::write(&file, site(&[&upstream]).text()).unwrap();
    upstream.otherwise(Reply::refused());
    let output = doctor(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("Do first:") && text.contains("server-refuses") && text.contains("    do "), "{text}");
    let output = doctor(&["--json"]);
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!diagnosis.healthy && diagnosis.findings.iter().any(|finding| finding.kind == Kind::ServerRefuses));
    fs::write(&file, "[server]\nlisten = 5\n").unwrap();
    assert_eq!(doctor(&[]).status.code(), Some(2));
}

#[test]
fn the_page_of_the_docs_has_every_kind_and_no_other() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md")).unwrap();
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.label()).collect();
    kinds.sort_unstable();
    let mut sorted = sections.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, kinds, "sections of docs/doctor.md, and kinds");
    for kind in Kind::ALL {
        assert!(page.contains(kind.advice()), "the advice of {kind} in docs/doctor.md");
    }
}
