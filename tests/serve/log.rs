//! The log, when its reader blocks.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
};

use crate::support::{
    PATIENCE,
    config::Config,
    query::Query,
    tidegate::Tidegate,
    upstream::{Upstream, frame},
};

/// A connection that is answered and reset: a line of its worker at level debug.
fn answered_and_reset(server: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    stream.write_all(&frame(&Query::a("www.example.").bytes())).expect("it takes a query");
    let first = stream.peek(&mut [0; 2]).expect("workers go on, though nobody reads what they log");
    assert!(first > 0, "it answers");
}

#[test]
fn a_log_that_nobody_reads_loses_lines_and_no_answers() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("log", "level = \"debug\"");
    let tidegate = Tidegate::start(&config);
    let lost = || tidegate.metric("tidegate_log_dropped_total", &[("sink", "log")]);
    assert_eq!(lost(), 0.0);
    tidegate.stop_reading_log();
    let mut connections = 0;
    while lost() < 1.0 {
        assert!(connections < 20_000, "a log without a reader has a bound");
        (0..200).for_each(|_| answered_and_reset(tidegate.address()));
        connections += 200;
    }
    let client = tidegate.client();
    for n in 0..1000 {
        assert_eq!(client.ask(&Query::a(&format!("n{n}.example."))).address_texts(), ["10.0.0.1"]);
    }
    assert!(tidegate.stop().success(), "nor does it hold up the end");
}
