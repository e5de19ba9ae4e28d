//! SIGTERM and SIGINT: what was received is answered, then the process ends.

use std::{io::Write as _, net::TcpStream, time::Duration};

use rstest::rstest;

use crate::support::{
    config::Config,
    eventually, now,
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    site::Site,
    tidegate::Tidegate,
    upstream::Upstream,
};

#[rstest]
#[case::term("TERM")]
#[case::interrupt("INT")]
fn a_signal_stops_an_idle_daemon_at_once_and_cleanly(#[case] signal: &str) {
    let upstream = Upstream::answering("10.0.0.1");
    let mut tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    tidegate.client().ask(&Query::a("www.example."));
    let _idle_connection = tidegate.client().stream();

    let start = now();
    tidegate.signal(signal);
    assert_eq!(tidegate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
}

/// Each holds a worker for as long as its client says nothing.
#[rstest]
#[case::tls("tls")]
#[case::https("https")]
fn half_a_handshake_does_not_hold_the_end_up(#[case] transport: &str) {
    let mut site = Site::start();
    let address = site.address(transport);
    let mut client = TcpStream::connect(address).expect("it accepts");
    client.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).expect("it reads");
    eventually("it is counted", || site.tidegate.metric("tidegate_connections", &[("transport", transport)]) > 0.5);

    let start = now();
    site.tidegate.signal("TERM");
    assert_eq!(site.tidegate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "not the 5 s of a drain: {:?}", start.elapsed());
    drop(client);
}

#[test]
fn received_queries_are_answered_before_the_end() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
    let mut tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let socket = tidegate.client().socket();
    let mut stream = tidegate.client().stream();
    socket.send(&Query::a("slow.example.").edns());
    stream.send(&Query::a("slow.example.").edns().dnssec_ok());
    upstream.wait_for("slow.example.", 2);

    tidegate.signal("TERM");
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.9"]);
    assert_eq!(stream.receive().address_texts(), ["10.0.0.9"]);
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn a_burst_that_waits_in_the_socket_is_answered_before_the_end() {
    let upstream = Upstream::answering("10.0.0.1");
    let mut tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    tidegate.client().ask(&Query::a("www.example."));
    let sockets: Vec<_> = (0..50).map(|_| tidegate.client().socket()).collect();
    for socket in &sockets {
        socket.send(&Query::a("www.example."));
    }
    tidegate.signal("TERM");
    for socket in &sockets {
        assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
    }
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn an_upstream_that_is_silent_does_not_hold_the_end_up() {
    let upstream = Upstream::start();
    upstream.on_type(rtype::A, Script::silence());
    let mut tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let socket = tidegate.client().socket();
    socket.send(&Query::a("www.example."));
    upstream.wait_for("www.example.", 1);

    let start = now();
    tidegate.signal("TERM");
    assert_eq!(tidegate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(6), "at most 5 s, it took {:?}", start.elapsed());
}

#[test]
fn while_lame_it_answers_and_is_not_ready() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("server", "lameduck = \"3s\"");
    let mut tidegate = Tidegate::start(&config);
    eventually("ready", || tidegate.get("/readyz").0 == 200);

    tidegate.signal("TERM");
    eventually("draining", || tidegate.get("/readyz").0 == 503);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(tidegate.get("/healthz").0, 200);
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn a_second_sigterm_ends_the_lame_duck_and_the_drain_still_runs() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on_type(rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let config = Config::forwarding_to(&[&upstream]).section("server", "lameduck = \"1h\"");
    let mut tidegate = Tidegate::start(&config);
    let socket = tidegate.client().socket();
    socket.send(&Query::a("www.example."));
    upstream.wait_for("www.example.", 1);

    tidegate.signal("TERM");
    eventually("draining", || tidegate.get("/readyz").0 == 503);
    tidegate.signal("TERM");
    tidegate.await_logged("INFO", "a second signal to stop: not waiting for `lameduck` to pass");
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"], "what was received is answered");
    assert_eq!(tidegate.wait().code(), Some(0));
}

#[test]
fn a_reload_brings_another_lameduck() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]);
    let mut tidegate = Tidegate::start(&config);
    assert!(tidegate.reload(&config.section("server", "lameduck = \"2s\"")), "the file is taken");

    let start = now();
    tidegate.signal("TERM");
    assert_eq!(tidegate.wait().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(2), "it was lame for {:?}", start.elapsed());
}
