//! What somebody who is not on the path can find out and put in.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::op::ResponseCode;

use crate::support::{
    PATIENCE,
    config::Config,
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

/// What a stranger's datagram to this port brings back: nothing, or the kernel's refusal.
fn probe(port: SocketAddr) -> io::ErrorKind {
    let stranger = UdpSocket::bind("127.0.0.9:0").expect("a free port");
    stranger.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    stranger.connect(port).expect("a route");
    stranger.send(&[0; 12]).expect("it leaves");
    stranger.recv(&mut [0; 64]).expect_err("nobody answers").kind()
}

/// SAD DNS, CVE-2020-25705 and CVE-2021-20322 (Linux): a resolver's open port told itself from closed ones by the ICMP
/// error that did not come. Our ports are connected to their server, so the kernel refuses all others as if they were
/// closed, and there is no difference to count.
#[test]
fn source_ports_look_closed_to_everybody_but_their_server() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("www.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("server", "deadline = \"60s\""));
    let socket = tidegate.client().socket();
    socket.send(&Query::a("www.example."));
    upstream.wait_for("www.example.", 1);

    let open = upstream.seen("www.example.")[0].from;
    let closed = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    assert_eq!(probe(open), io::ErrorKind::ConnectionRefused);
    assert_eq!(probe(open), probe(closed));
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
}

/// DNSpooq, CVE-2020-25684 to -25686 (dnsmasq): many outstanding queries for one name, any of which an answer could hit.
/// Here one client query has at most `attempts`, each with an id of its own, and more clients add none. Other names are
/// answered meanwhile: ports at which nothing arrives at all are taken for dead, and what waits there leaves by others.
#[test]
fn no_more_than_attempts_are_outstanding_each_with_its_own_id() {
    let silent = Upstream::answering("10.0.0.1");
    silent.on("www.example.", rtype::A, Script::silence());
    let config = Config::new()
        .section("server", "deadline = \"3s\"\nworkers = 1")
        .upstream("site", &[&silent], "attempts = 3\nhedge = false\ntimeout = \"400ms\"")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let query = Query::a("www.example.");
    let sockets: Vec<_> = (0..50).map(|_| tidegate.client().socket()).collect();
    sockets.iter().for_each(|socket| socket.send(&query));
    sockets[0].set_patience(Duration::from_millis(1));
    let first = (0..).find_map(|number| {
        tidegate.client().ask(&Query::a(&format!("n{number}.example.")));
        sockets[0].try_receive().expect("the port is open")
    });
    assert_eq!(first.expect("it is answered in the end").rcode(), ResponseCode::ServFail);
    for socket in &sockets[1..] {
        assert_eq!(socket.receive().rcode(), ResponseCode::ServFail);
    }
    let seen = silent.seen("www.example.");
    assert!((1..=3).contains(&seen.len()), "{} datagrams", seen.len());
    let ids: HashSet<u16> = seen.iter().map(|seen| seen.id).collect();
    assert_eq!(ids.len(), seen.len(), "an id is used once");
}

/// Poisoning by fragments (Herzberg and Shulman; CVE-2021-20322 helped to force them): the second fragment has neither id
/// nor port in it. No answer that we ask for is long enough to be cut on a path of 1280 octets.
#[test]
fn upstreams_are_told_a_payload_that_is_not_fragmented() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    // Whatever a client says that it can take.
    tidegate.client().ask(&Query::a("www.example.").payload(65_535));
    let seen = upstream.seen("www.example.").remove(0).message();
    assert_eq!(seen.edns.expect("it has an OPT").max_payload(), 1232);
}
