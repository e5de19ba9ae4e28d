//! The whole job between programs that others wrote: Unbound as the inbound endpoint, BIND as the corporate server,
//! `dig`, glibc's `getaddrinfo` and `dnsperf` as clients.

mod support;

use std::{fmt::Write as _, fs, time::Duration};

use hickory_proto::op::ResponseCode;
use rstest::rstest;
use support::{
    client::Client,
    config::Config,
    namespace, now,
    peers::{Peer, dig, getaddrinfo, tool},
    query::Query,
    tidegate::Tidegate,
};

/// What the endpoint's VPC knows, as interface endpoints with private DNS and private hosted zones would have it.
const PRIVATE: &[(&str, &str)] = &[
    ("s3.us-east-1.amazonaws.com", "10.20.1.10"),
    ("sts.us-east-1.amazonaws.com", "10.20.1.11"),
    ("ec2.us-east-1.amazonaws.com", "10.20.1.12"),
    ("kms.us-east-1.amazonaws.com", "10.20.1.13"),
    ("sqs.us-east-1.amazonaws.com", "10.20.1.14"),
    ("sns.us-east-1.amazonaws.com", "10.20.1.15"),
    ("logs.us-east-1.amazonaws.com", "10.20.1.16"),
    ("monitoring.us-east-1.amazonaws.com", "10.20.1.17"),
    ("secretsmanager.us-east-1.amazonaws.com", "10.20.1.18"),
    ("ssm.us-east-1.amazonaws.com", "10.20.1.19"),
    ("api.ecr.us-east-1.amazonaws.com", "10.20.1.20"),
    ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "10.20.1.21"),
    ("lambda.us-east-1.api.aws", "10.20.1.22"),
    ("ip-10-20-3-4.ec2.internal", "10.20.3.4"),
];

/// A name that the endpoint gives as an alias, and where it leads.
const ALIAS: &str = "bucket.my-site.us-east-1.amazonaws.com";
const ALIAS_TARGET: &str = "vpce-0a1b-2c3d.s3.us-east-1.vpce.amazonaws.com";
const ALIAS_ADDRESS: &str = "10.20.1.40";

const CORPORATE_ZONE: &str = "$TTL 60
@ SOA ns hostmaster 1 7200 900 1209600 60
@ NS ns
ns A 10.1.1.53
www A 10.1.2.3
www AAAA fd00:1::3
intranet CNAME www
text TXT \"with spaces\" \"and more\"
*.apps A 10.1.2.9
";

/// The VPC's side: the endpoint, and the zone of endpoint names behind it.
struct Endpoint {
    unbound: Peer,
    _names: Peer,
}

impl Endpoint {
    fn start() -> Self {
        let label = ALIAS_TARGET.trim_end_matches(".vpce.amazonaws.com");
        let zone = format!("$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 10.20.1.2\n{label} A {ALIAS_ADDRESS}\n");
        let names = Peer::named(&[("vpce.amazonaws.com", &zone)]);
        let mut data = String::from(" local-zone: \"amazonaws.com.\" transparent\n");
        for (name, address) in PRIVATE {
            // With private DNS an endpoint answers for everything below its name, buckets for one.
            writeln!(data, " local-zone: \"{name}.\" redirect\n local-data: \"{name}. 60 A {address}\"")
                .expect("writing to a string");
        }
        writeln!(data, " local-zone: \"{ALIAS}.\" redirect\n local-data: \"{ALIAS}. 60 CNAME {ALIAS_TARGET}.\"")
            .expect("writing to a string");
        let (ip, port) = (names.address.ip(), names.address.port());
        let stub = format!("stub-zone:\n name: \"vpce.amazonaws.com.\"\n stub-addr: {ip}@{port}\n");
        let unbound = Peer::unbound(&data, &stub, &Query::a(PRIVATE[0].0));
        Self { unbound, _names: names }
    }
}

fn corporate() -> Peer {
    Peer::named(&[
        ("corp.example", CORPORATE_ZONE),
        (
            "1.10.in-addr.arpa",
            "$TTL 60\n@ SOA ns.corp.example. h 1 2 3 4 5
@ NS ns.corp.example.\n3.2 PTR www.corp.example.\n",
        ),
    ])
}

/// A site's rules, with these servers for AWS names.
fn site(endpoints: &[&Endpoint], corporate: &Peer) -> Config {
    let vpc: Vec<String> = endpoints.iter().map(|endpoint| endpoint.unbound.address.to_string()).collect();
    Config::new()
        .servers("vpc", &vpc, "")
        .servers("site", &[corporate.address.to_string()], "")
        .forward("aws", &["preset:aws"], "vpc", "")
        .forward("everything", &[".", "reverse:private"], "site", "")
}

#[test]
fn names_reach_the_right_group_and_the_second_lookup_is_a_hit() {
    let (endpoint, corporate) = (Endpoint::start(), corporate());
    let tidegate = Tidegate::start(&site(&[&endpoint], &corporate));
    let expect = |name: &str, arguments: &[&str], answers: &[&str]| {
        let dig = dig(tidegate.address(), name, arguments);
        assert_eq!(dig.status, "NOERROR", "{name}: {}", dig.text);
        assert_eq!(dig.answers, answers, "{name}: {}", dig.text);
    };

    for &(name, address) in PRIVATE {
        let forwarded = tidegate.metric("tidegate_upstream_queries_total", &[("group", "vpc")]);
        let hits = tidegate.hits();
        expect(name, &[], &[address]);
        assert_eq!(tidegate.hits(), hits, "{name}: the first look-up is a miss");
        assert!(tidegate.metric("tidegate_upstream_queries_total", &[("group", "vpc")]) > forwarded, "{name}");
        expect(name, &[], &[address]);
        tidegate.await_metric("tidegate_cache_hits_total", &[], hits + 1.0);
        expect(name, &["+tcp"], &[address]);
    }
    let below = "my-bucket.s3.us-east-1.amazonaws.com";
    expect(below, &[], &["10.20.1.10"]);
    expect(ALIAS, &[], &[&format!("{ALIAS_TARGET}."), ALIAS_ADDRESS]);
    expect("www.corp.example", &["A"], &["10.1.2.3"]);
    expect("www.corp.example", &["AAAA"], &["fd00:1::3"]);
    expect("intranet.corp.example", &["A"], &["www.corp.example.", "10.1.2.3"]);
    expect("any.apps.corp.example", &["A"], &["10.1.2.9"]);
    expect("text.corp.example", &["TXT"], &["\"with spaces\" \"and more\""]);
    expect("-x", &["10.1.2.3"], &["www.corp.example."]);
    assert_eq!(dig(tidegate.address(), "none.corp.example", &[]).status, "NXDOMAIN");
    assert_eq!(dig(tidegate.address(), "www.corp.example", &["MX"]).answers, [""; 0]);
}

#[rstest]
#[case::plain(&["+noedns"])]
#[case::dnssec(&["+dnssec"])]
#[case::cookie(&["+cookie=0123456789abcdef"])]
#[case::subnet(&["+subnet=192.0.2.0/24"])]
#[case::tiny_payload(&["+bufsize=512"])]
#[case::many_flags(&["+cdflag", "+adflag", "+zflag", "+norecurse"])]
#[case::padding_and_nsid(&["+nsid", "+padding=128"])]
#[case::one_connection(&["+tcp", "+keepopen", "+keepalive"])]
fn dig_is_content_with_every_way_to_ask(#[case] arguments: &[&str]) {
    let corporate = corporate();
    let config =
        Config::new().servers("site", &[corporate.address.to_string()], "").forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    for turn in ["fresh", "cached"] {
        let dig = dig(tidegate.address(), "www.corp.example", arguments);
        assert_eq!((dig.status.as_str(), &dig.answers[..]), ("NOERROR", &["10.1.2.3".to_owned()][..]), "{turn}");
        for complaint in ["WARNING", "Warning", "malformed", "mismatch", "extra bytes"] {
            // `+norecurse` makes dig remark on recursion that was offered and not asked for; that is no fault.
            assert!(!dig.text.contains(complaint), "{turn}: {}", dig.text);
        }
    }
}

#[test]
fn getaddrinfo_finds_both_sides_through_port_53() {
    namespace::inside("getaddrinfo_finds_both_sides_through_port_53", || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        namespace::replace_file(folder.path(), "/etc/resolv.conf", "nameserver 127.0.0.1\noptions attempts:1\n");
        namespace::replace_file(folder.path(), "/etc/nsswitch.conf", "hosts: files dns\n");
        let (endpoint, corporate) = (Endpoint::start(), corporate());
        let config = site(&[&endpoint], &corporate).listen(&["127.0.0.1:53"]);
        let tidegate = Tidegate::start(&config);
        let addresses = |name: &str| getaddrinfo(name).iter().map(ToString::to_string).collect::<Vec<_>>();

        assert_eq!(addresses("sts.us-east-1.amazonaws.com"), ["10.20.1.11"]);
        assert_eq!(addresses("my-bucket.s3.us-east-1.amazonaws.com"), ["10.20.1.10"]);
        assert_eq!(addresses(ALIAS), [ALIAS_ADDRESS]);
        assert_eq!(addresses("intranet.corp.example"), ["10.1.2.3", "fd00:1::3"]);
        assert_eq!(addresses("none.corp.example"), [""; 0]);
        let hits = tidegate.hits();
        assert_eq!(addresses("sts.us-east-1.amazonaws.com"), ["10.20.1.11"]);
        tidegate.await_metric("tidegate_cache_hits_total", &[], hits + 1.0);
    });
}

#[test]
fn a_killed_server_is_not_noticed_by_clients() {
    let (mut first, mut second, corporate) = (Endpoint::start(), Endpoint::start(), corporate());
    let tidegate = Tidegate::start(&site(&[&first, &second], &corporate));
    let client = tidegate.client();
    let mut slowest = Duration::ZERO;
    let mut ask = |number: usize| {
        // Every name is new, so every query goes upstream.
        let query = Query::a(&format!("bucket{number}.s3.us-east-1.amazonaws.com.")).edns();
        let start = now();
        let answer = client.ask(&query);
        slowest = slowest.max(start.elapsed());
        assert_eq!(answer.rcode(), ResponseCode::NoError, "question {number}: {answer:?}");
        assert_eq!(answer.address_texts(), ["10.20.1.10"], "question {number}");
    };

    (0..50).for_each(&mut ask);
    // Stop whichever of the two got more queries.
    let asked = |endpoint: &Endpoint| {
        let server = endpoint.unbound.address.to_string();
        tidegate.metric("tidegate_upstream_queries_total", &[("group", "vpc"), ("server", &server)])
    };
    let busiest = if asked(&first) >= asked(&second) { &mut first } else { &mut second };
    busiest.unbound.kill();
    (50..200).for_each(&mut ask);
    assert!(slowest < Duration::from_secs(2), "stub resolvers wait 5 s, the slowest answer took {slowest:?}");
    let dead = busiest.unbound.address.to_string();
    support::eventually("the dead server is known to be down", || {
        tidegate.metric("tidegate_upstream_healthy", &[("group", "vpc"), ("server", &dead)]) < 0.5
    });
}

/// Five seconds here; `TIDEGATE_SOAK_SECONDS=30` for the figure that is promised.
#[test]
fn a_worker_at_full_speed_answers_every_query_in_constant_memory() {
    let seconds = std::env::var("TIDEGATE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_u32);
    let (endpoint, corporate) = (Endpoint::start(), corporate());
    let config = site(&[&endpoint], &corporate).section("server", "workers = 1");
    let tidegate = Tidegate::start(&config);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = folder.path().join("names");
    let mut text = String::new();
    for number in 0..10_000 {
        writeln!(text, "bucket{number}.s3.us-east-1.amazonaws.com A").expect("writing to a string");
    }
    fs::write(&names, text).expect("the folder is writable");
    let run = |seconds: u32| {
        let (ip, port, limit) = (tidegate.address().ip().to_string(), tidegate.address().port(), seconds.to_string());
        let names = names.display().to_string();
        let arguments = ["-s", &ip, "-p", &port.to_string(), "-d", &names, "-l", &limit, "-c", "4", "-e", "-S", "1"];
        let output = tool("dnsperf", "dnsperf", &arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    // The first run fills the cache; after it, memory has no reason to grow.
    run(2);
    let before = tidegate.resident_kib();
    let report = run(seconds);
    let after = tidegate.resident_kib();
    let number = |label: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(label));
        let text =
            line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("{label} in {report}"));
        text.parse::<f64>().expect("a number")
    };

    assert!(number("Queries completed:") > 1000.0, "{report}");
    assert_eq!(number("Queries lost:"), 0.0, "{report}");
    assert!(report.contains("NOERROR") && report.contains("(100.00%)"), "every answer is NOERROR: {report}");
    assert!(after <= before + 4096, "memory grew from {before} to {after} KiB in {seconds} s");
    assert_eq!(
        Client::new(tidegate.address()).ask(&Query::a("sts.us-east-1.amazonaws.com.")).rcode(),
        ResponseCode::NoError
    );
}
