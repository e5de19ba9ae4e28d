//! `/api/v1`, and the stream of the status page, as programs use them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
};

use serde_json::Value;
use support::{PATIENCE, config::Config, eventually, query::Query, tidegate::Tidegate, upstream::Upstream};
use tidegate::admin::top::Top;

fn get(tidegate: &Tidegate, path: &str) -> Value {
    let (code, text) = tidegate.get(path);
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

#[test]
fn the_hottest_names_clients_and_failures_are_told() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    for name in ["hot.example.", "warm.example.", "hot.example.", "HOT.example."] {
        tidegate.client().ask(&Query::a(name));
    }
    tidegate.client().ask_over_tcp(&Query::a("stream.example."));
    upstream.go_silent();
    tidegate.client().ask(&Query::a("bad.example."));
    let top = || serde_json::from_value::<Top>(get(&tidegate, "/api/v1/top")).unwrap();
    eventually("every query is seen", || top().queries == 6 && !top().failures.is_empty());
    let top = top();
    let names: Vec<(&str, u64)> = top.names.iter().map(|name| (name.name.as_str(), name.queries)).collect();
    assert_eq!(names, [("hot.example.", 3), ("bad.example.", 1), ("stream.example.", 1), ("warm.example.", 1)]);
    assert_eq!((top.names[0].share, top.sampled), (0.5, 6));
    assert_eq!((top.clients.len(), top.clients[0].client.as_str(), top.clients[0].queries), (1, "127.0.0.1", 6));
    let failure = &top.failures[0];
    assert_eq!((failure.name.as_str(), failure.rcode.as_str()), ("bad.example.", "SERVFAIL"));
    assert_eq!(failure.reason.as_deref(), Some("No Reachable Authority"));
}

#[test]
fn the_cache_is_looked_into_by_name_and_type() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    tidegate.client().ask(&Query::a("www.example."));
    let found = get(&tidegate, "/api/v1/cache/WWW.example?type=A");
    assert_eq!((&found["name"], &found["type"]), (&"www.example.".into(), &"A".into()));
    assert_eq!(found["entries"][0]["state"], "fresh");
    assert!(found["entries"][0]["answer"][0].as_str().unwrap().ends_with("10.0.0.1"), "{found}");
    assert_eq!(get(&tidegate, "/api/v1/cache/www.example?type=AAAA")["entries"], Value::Array(Vec::new()));
    for wrong in ["/api/v1/cache/a..b", "/api/v1/cache/a?type=B", "/api/v1/cache/a?typo=A"] {
        assert_eq!(tidegate.get(wrong).0, 400, "{wrong}");
    }
}

/// A browser that follows the page.
fn follow(tidegate: &Tidegate) -> BufReader<TcpStream> {
    let admin = tidegate.admin_address();
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<TcpStream>, with: &str) -> String {
    let mut lines = stream.lines().map(Result::unwrap);
    lines.find(|line| line.contains(with)).unwrap_or_else(|| panic!("the stream ended before a line with {with:?}"))
}

#[test]
fn the_page_comes_as_events_to_a_bounded_number_of_browsers_until_the_stop() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let mut all: Vec<_> = (0..16).map(|_| follow(&tidegate)).collect();
    for stream in &mut all {
        assert!(line(stream, "HTTP/1.1").contains("200"));
        line(stream, "event: page");
        assert!(line(stream, "data: ").contains("<!DOCTYPE html>"));
    }
    assert!(line(&mut follow(&tidegate), "HTTP/1.1").contains("503"), "one too many");
    drop(all.pop());
    eventually("the place is free again", || line(&mut follow(&tidegate), "HTTP/1.1").contains("200"));
    line(&mut all[0], "event: page");
    let reading = thread::spawn(move || {
        let mut rest = Vec::new();
        // A connection that is reset would be an error here.
        all[0].read_to_end(&mut rest).unwrap();
        rest
    });
    tidegate.stop();
    assert!(reading.join().unwrap().ends_with(b"\r\n0\r\n\r\n"), "the end of the stream is told");
}
