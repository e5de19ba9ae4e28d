//! The control socket: an order in JSON, or any other request; each gets a status, orders get a report in JSON, and what a
//! flush or a drain did is what the order says.
#![no_main]

use std::{os::unix::net::UnixStream, path::PathBuf, sync::LazyLock};

use fuzz::{converse_with, read_rest, serve_orders, write_pieces};
use libfuzzer_sys::fuzz_target;
use tidegate::admin::control::{FlushOrder, OrderReport};

static SOCKET: LazyLock<PathBuf> = LazyLock::new(serve_orders);

const ORDERS: [&str; 6] = ["flush", "drain", "undrain", "log", "reload", "takeover"];

fuzz_target!(|input: (u8, [u8; 4], &[u8])| {
    let (how, cuts, octets) = input;
    let order = ORDERS.get(usize::from(how % 8));
    let request = match order {
        Some(order) => request("POST", &format!("/v1/{order}"), octets),
        // An import of the cache.
        None if how % 8 == 6 => request("POST", "/v1/cache", octets),
        None => octets.to_vec(),
    };
    let mut client = UnixStream::connect(&*SOCKET).expect("it accepts");
    if how % 8 == 7 {
        return drop(converse_with(client, &cuts, &request));
    }
    // A client that says no more gets no response.
    write_pieces(&mut client, &cuts, &request);
    let text = String::from_utf8(read_rest(client)).expect("a response is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a response has a head");
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("it has a status");
    assert!(["200", "400", "409", "413"].contains(&status), "{head}");
    let report: OrderReport = serde_json::from_str(body).expect("a body is a report");
    assert!(!report.lines.is_empty(), "it says something");
    if order == Some(&"flush") {
        let is_order = std::str::from_utf8(octets).is_ok_and(|text| serde_json::from_str::<FlushOrder>(text).is_ok());
        assert!(is_order || status == "400", "{head}");
        assert_eq!(report.facts.forgotten.is_some(), status == "200");
    }
    if order.is_some_and(|order| order.ends_with("drain")) {
        assert_eq!(report.facts.servers.is_some(), status == "200");
    }
});

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
