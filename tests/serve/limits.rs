//! How many of the daemon's descriptors and places clients and operators can take, and what is left for others.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    eventually, now,
    query::Query,
    tidegate::{Tidegate, run_by},
    upstream::Upstream,
};

/// Starts the following command with at most this many open files.
fn few_files(limit: u32) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("ulimit -n {limit}; exec \"$@\""), "sh".into()]
}

fn start(limit: u32, upstream: &Upstream) -> Tidegate {
    let config = Config::forwarding_to(&[upstream])
        .section("server", "workers = 1")
        .section("limits", "tcp_per_client = 10000\ntcp_connections = 10000");
    let launcher = few_files(limit);
    Tidegate::start_by(&launcher.each_ref().map(String::as_str), &config)
}

fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it can be changed");
    !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[rstest]
#[case::tight(64)]
#[case::small(256)]
fn idle_connections_leave_descriptors_for_upstreams(#[case] limit: u32) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = start(limit, &upstream);
    tidegate.logged_once("WARN", &format!("the limit of {limit} open files allows"));
    let client = tidegate.client();
    let hit = Query::a("hit.example.");
    client.ask(&hit);
    let idle: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(tidegate.address()).expect("the kernel accepts")).collect();
    eventually("the others made room", || idle.iter().filter(|stream| !is_closed(stream)).count() <= 256);
    for number in 0..200 {
        assert_eq!(client.ask(&Query::a(&format!("miss{number}.example."))).address_texts(), ["10.0.0.1"]);
        assert_eq!(client.ask(&hit).address_texts(), ["10.0.0.1"]);
    }
    assert_eq!(client.ask_over_tcp(&hit).address_texts(), ["10.0.0.1"], "a new connection has its turn");
    assert!(tidegate.metric("tidegate_upstream_healthy", &[]) > 0.5);
    assert_eq!(tidegate.get("/healthz").0, 200);
}

/// Takes every descriptor from the daemon that it has not opened yet, or gives them back.
fn set_open_files(tidegate: &Tidegate, limit: u32) {
    let (pid, limit) = (tidegate.pid().to_string(), format!("--nofile={limit}:"));
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(status.expect("prlimit (util-linux) runs").success());
}

#[test]
fn without_descriptors_hits_go_on_nobody_is_blamed_and_it_recovers() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = start(256, &upstream);
    let client = tidegate.client();
    let hit = Query::a("hit.example.");
    client.ask(&hit);
    set_open_files(&tidegate, 8);
    let waiting: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect(tidegate.address()).expect("the kernel accepts")).collect();
    for number in 0..100 {
        assert_eq!(client.ask(&hit).address_texts(), ["10.0.0.1"]);
        let missed = client.ask(&Query::a(&format!("miss{number}.example."))).rcode();
        assert!(matches!(missed, ResponseCode::NoError | ResponseCode::ServFail), "{missed}");
    }
    tidegate.await_logged("WARN", "are not accepted for the moment");
    set_open_files(&tidegate, 256);
    tidegate.logged_once("WARN", "are not accepted for the moment");
    assert!(tidegate.logged("WARN", "is down").is_empty(), "no server is blamed");
    eventually("misses are answered again", || {
        client.ask(&Query::a(&format!("after{}.example.", rand::random::<u32>()))).rcode() == ResponseCode::NoError
    });
    assert!(tidegate.metric("tidegate_upstream_healthy", &[]) > 0.5);
    drop(waiting);
    assert_eq!(client.ask_over_tcp(&hit).address_texts(), ["10.0.0.1"]);
}

#[test]
fn check_says_where_the_limit_on_open_files_is_low() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tidegate.toml");
    let config = Config::forwarding_to(&[&Upstream::answering("10.0.0.1")]);
    std::fs::write(&path, config.section("limits", "tcp_connections = 900").text()).expect("the folder is writable");
    let check = |limit| {
        let launcher = few_files(limit);
        let output = run_by(&launcher.each_ref().map(String::as_str), &["check", path.to_str().expect("plain")]);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(check(256).contains("warning: tcp_connections = 900 in [limits]"));
    assert!(!check(16_384).contains("tcp_connections"));
}

#[test]
fn half_requests_keep_no_probe_waiting() {
    let tidegate = start(4096, &Upstream::answering("10.0.0.1"));
    let start = now();
    let half = |_| {
        let mut stream = TcpStream::connect(tidegate.admin_address()).expect("the kernel accepts");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").expect("it takes some octets");
        stream
    };
    let kept: Vec<TcpStream> = (0..500).map(half).collect();
    assert_eq!(tidegate.get("/healthz").0, 200);
    // One after the other, 64 at a time, they would be given five seconds each.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    // A request that is complete by the time it is read is still answered.
    let mut last = kept.into_iter().next_back().expect("there are some");
    last.write_all(b"host\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut response = String::new();
    last.read_to_string(&mut response).expect("a page of text");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}
