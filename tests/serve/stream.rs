//! DNS over TCP: many queries on one connection, answered as soon as each answer is there, within limits (RFC 7766).

use std::time::Duration;

use rstest::rstest;

use crate::support::{
    client::{Next, Stream},
    config::Config,
    eventually, namespace,
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::{Upstream, frame},
};

fn start(limits: &str) -> (Upstream, Tidegate) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(
        &Config::forwarding_to(&[&upstream]).section("limits", limits).section("server", "deadline = \"30s\""),
    );
    (upstream, tidegate)
}

#[track_caller]
fn assert_answers(stream: &mut Stream) {
    let query = Query::a("www.example.");
    stream.send(&query);
    let answer = stream.receive();
    assert_eq!((answer.id(), answer.address_texts()), (query.id, vec!["10.0.0.1".to_owned()]));
}

#[track_caller]
fn assert_closed(stream: &mut Stream) {
    let next = stream.next();
    assert!(matches!(next, Next::Closed), "the connection is closed: {next:?}");
}

#[test]
fn answers_come_as_they_get_ready() {
    let (upstream, tidegate) = start("");
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
    let mut stream = tidegate.client().stream();
    let (slow, fast) = (Query::a("slow.example."), Query::a("fast.example."));

    stream.send_bytes(&[frame(&slow.bytes()), frame(&fast.bytes())].concat()).expect("it takes both");
    let first = stream.receive();
    assert_eq!((first.id(), first.address_texts()), (fast.id, vec!["10.0.0.1".to_owned()]));
    gate.open();
    let second = stream.receive();
    assert_eq!((second.id(), second.address_texts()), (slow.id, vec!["10.0.0.9".to_owned()]));
}

#[test]
fn a_thousand_queries_on_one_connection_are_all_answered() {
    let (_upstream, tidegate) = start("");
    let mut stream = tidegate.client().stream();
    for batch in 0..10 {
        let queries: Vec<Query> = (0..100).map(|n| Query::a(&format!("n{}.example.", batch * 50 + n))).collect();
        let bytes: Vec<u8> = queries.iter().flat_map(|query| frame(&query.bytes())).collect();
        stream.send_bytes(&bytes).expect("it takes them");
        let mut asked: Vec<u16> = queries.iter().map(|query| query.id).collect();
        let mut answered: Vec<u16> = queries.iter().map(|_| stream.receive().id()).collect();
        asked.sort_unstable();
        answered.sort_unstable();
        assert_eq!(asked, answered, "batch {batch}");
    }
}

#[test]
fn the_pipeline_limit_slows_down_and_loses_nothing() {
    let (upstream, tidegate) = start("pipeline = 4");
    let gate = Gate::default();
    let names: Vec<String> = (0..20).map(|n| format!("held{n}.example.")).collect();
    for name in &names {
        upstream.on(name, rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
    }
    let mut stream = tidegate.client().stream();
    for name in &names {
        stream.send(&Query::a(name));
    }
    upstream.wait_for(&names[3], 1);
    let held = upstream.all_seen().iter().filter(|seen| seen.name.starts_with("held")).count();
    assert_eq!(held, 4, "no more than `pipeline` in flight");
    gate.open();
    for _ in &names {
        assert_eq!(stream.receive().address_texts(), ["10.0.0.9"]);
    }
}

#[test]
fn a_query_in_pieces_is_answered() {
    let (_upstream, tidegate) = start("");
    let mut stream = tidegate.client().stream();
    let query = Query::a("www.example.");
    for octet in frame(&query.bytes()) {
        stream.send_bytes(&[octet]).expect("it takes an octet");
    }
    assert_eq!(stream.receive().id(), query.id);
    assert_answers(&mut stream);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let (_upstream, tidegate) = start("tcp_idle = \"1s\"");
    let (mut idle, mut silent, mut busy) =
        (tidegate.client().stream(), tidegate.client().stream(), tidegate.client().stream());
    assert_answers(&mut idle);
    idle.set_patience(Duration::from_millis(50));
    eventually("the idle connection is closed", || {
        assert_answers(&mut busy);
        matches!(idle.next(), Next::Closed)
    });
    assert_closed(&mut silent);
    assert_answers(&mut busy);
}

#[test]
fn a_writer_that_never_finishes_is_closed() {
    let (_upstream, tidegate) = start("tcp_idle = \"1s\"");
    let mut stream = tidegate.client().stream();
    stream.set_patience(Duration::from_millis(200));
    // An octet now and then of a message that is announced as 60,000 long must not hold the connection for good.
    stream.send_bytes(&60_000u16.to_be_bytes()).expect("it takes a length");
    eventually("the connection is closed", || {
        let taken = stream.send_bytes(&[0]);
        taken.is_err() || matches!(stream.next(), Next::Closed)
    });
    assert_answers(&mut tidegate.client().stream());
}

#[test]
fn a_reader_that_never_reads_does_not_hold_others_up() {
    let (upstream, tidegate) = start("tcp_idle = \"1s\"");
    upstream.on("large.example.", rtype::A, Reply::addresses(2000));
    let mut deaf = tidegate.client().stream();
    let large = frame(&Query::a("large.example.").bytes());
    // 32 KiB an answer: the socket buffers are full long before the last.
    for _ in 0..400 {
        if deaf.send_bytes(&large).is_err() {
            break;
        }
    }
    for _ in 0..20 {
        assert_answers(&mut tidegate.client().stream());
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    }
    eventually("the connection is given up", || tidegate.metric("tidegate_connections", &[("transport", "tcp")]) < 0.5);
}

/// More answers than are kept for a client at once: the queries behind them wait, and are answered later.
#[rstest]
#[case::open(false)]
#[case::half_closed(true)]
fn answers_that_have_to_wait_for_their_reader_all_come(#[case] closes_half: bool) {
    let (upstream, tidegate) = start("tcp_idle = \"2s\"");
    upstream.on("large.example.", rtype::A, Reply::addresses(2000));
    let query = Query::a("large.example.");
    tidegate.client().ask_over_tcp(&query);
    let mut stream = tidegate.client().stream();
    let questions: Vec<u8> = (0..60).flat_map(|_| frame(&query.bytes())).collect();
    stream.send_bytes(&questions).expect("it takes them");
    if closes_half {
        stream.close_half();
    }
    for number in 0..60 {
        let next = stream.next();
        assert!(matches!(next, Next::Message(_)), "answer {number}: {next:?}");
    }
}

#[test]
fn a_frame_without_octets_harms_no_one() {
    let (_upstream, tidegate) = start("tcp_idle = \"1s\"");
    let mut empty = tidegate.client().stream();
    empty.send_bytes(&[0, 0]).expect("it takes a length");
    let query = Query::a("www.example.");
    // The connection may be closed for it, or go on; it may not hang.
    let sent = empty.send_bytes(&frame(&query.bytes()));
    match empty.next() {
        Next::Message(answer) => assert_eq!(answer.id(), query.id),
        Next::Closed => {}
        Next::Nothing => panic!("neither closed nor answered (sent: {sent:?})"),
    }
    assert_answers(&mut tidegate.client().stream());
}

#[test]
fn a_frame_that_is_no_message_harms_no_one() {
    let (_upstream, tidegate) = start("");
    for bytes in [&[1][..], &[0; 11], &[0xFF; 12], &[0xFF; 300]] {
        let mut stream = tidegate.client().stream();
        stream.set_patience(Duration::from_secs(1));
        stream.send_bytes(&frame(bytes)).expect("it takes the octets");
        let query = Query::a("www.example.");
        drop(stream.send_bytes(&frame(&query.bytes())));
        if let Next::Message(answer) = stream.next() {
            assert_eq!(answer.id(), query.id, "{bytes:02x?} deserves no answer");
        }
        assert_answers(&mut tidegate.client().stream());
    }
}

/// Gives a connection a query that waits until `gate` opens.
#[track_caller]
fn occupy(stream: &mut Stream, upstream: &Upstream, gate: &Gate, name: &str) {
    upstream.on(name, rtype::A, Script::held(gate, Reply::a("10.0.0.9")));
    stream.send(&Query::a(name));
    upstream.wait_for(name, 1);
}

#[track_caller]
fn assert_refused(stream: &mut Stream) {
    // Closed at once, or reset in the middle of sending.
    drop(stream.send_bytes(&frame(&Query::a("www.example.").bytes())));
    assert_closed(stream);
}

#[test]
fn a_client_has_no_more_than_its_share_of_connections() {
    let (upstream, tidegate) = start("tcp_per_client = 2");
    let gate = Gate::default();
    let [mut first, mut second] = [tidegate.client().stream(), tidegate.client().stream()];
    assert_answers(&mut first);
    assert_answers(&mut second);

    let mut third = tidegate.client().stream();
    assert_answers(&mut third);
    assert_closed(&mut first);
    assert_answers(&mut second);

    occupy(&mut second, &upstream, &gate, "one.example.");
    occupy(&mut third, &upstream, &gate, "other.example.");
    assert_refused(&mut tidegate.client().stream());
    gate.open();
    for stream in [&mut second, &mut third] {
        assert_eq!(stream.receive().address_texts(), ["10.0.0.9"], "who waits for an answer is not closed");
        assert_answers(stream);
    }
    drop(second);
    eventually("room for another", || {
        let mut next = tidegate.client().stream();
        drop(next.send_bytes(&frame(&Query::a("www.example.").bytes())));
        matches!(next.next(), Next::Message(_))
    });
}

#[test]
fn there_is_a_limit_to_all_connections() {
    let (upstream, tidegate) = start("tcp_connections = 3");
    let gate = Gate::default();
    let mut streams = [tidegate.client().stream(), tidegate.client().stream(), tidegate.client().stream()];
    streams.iter_mut().for_each(assert_answers);
    assert_eq!(tidegate.metric("tidegate_connections", &[("transport", "tcp")]), 3.0);

    let mut fourth = tidegate.client().stream();
    assert_answers(&mut fourth);
    let [mut oldest, mut second, mut third] = streams;
    assert_closed(&mut oldest);
    let busy = [(&mut second, "one.example."), (&mut third, "two.example."), (&mut fourth, "three.example.")];
    for (stream, name) in busy {
        assert_answers(stream);
        occupy(stream, &upstream, &gate, name);
    }
    assert_refused(&mut tidegate.client().stream());
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"], "UDP goes on");
    gate.open();
    for stream in [&mut second, &mut third, &mut fourth] {
        assert_eq!(stream.receive().address_texts(), ["10.0.0.9"]);
    }
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answers() {
    let (upstream, tidegate) = start("");
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
    let mut stream = tidegate.client().stream();
    stream.send(&Query::a("slow.example."));
    stream.close_half();
    upstream.wait_for("slow.example.", 1);
    gate.open();
    assert_eq!(stream.receive().address_texts(), ["10.0.0.9"]);
    assert_closed(&mut stream);
}

#[test]
fn connections_that_cannot_be_accepted_are_counted_and_said_once() {
    let (_upstream, tidegate) = start("");
    let pid = tidegate.pid().to_string();
    let set_files = |most: &str| namespace::command(&["prlimit", "--pid", &pid, &format!("--nofile={most}")]);
    assert_eq!(tidegate.metric("tidegate_accept_pauses_total", &[("transport", "tcp")]), 0.0);
    set_files("3:4096");
    let mut waiting = tidegate.client().stream();
    tidegate.await_logged("WARN", "connections over tcp are not accepted");
    assert_eq!(tidegate.client().ask(&Query::a("localhost.")).address_texts(), ["127.0.0.1"], "UDP goes on");
    set_files("4096:4096");
    assert_answers(&mut waiting);
    assert!(tidegate.metric("tidegate_accept_pauses_total", &[("transport", "tcp")]) >= 1.0);
    tidegate.logged_once("WARN", "are not accepted");
}
