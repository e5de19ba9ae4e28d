//! DNS over HTTP from behind a balancer, in HTTP/1.1 and 2: queries as bodies and parameters, and whatever else is sent;
//! the connection ends, and an answer to a whole request has a status.
#![no_main]

use std::sync::LazyLock;

use fuzz::{Live, converse, proxy_header};
use libfuzzer_sys::fuzz_target;

static SITE: LazyLock<Live> = LazyLock::new(Live::behind_a_balancer);

fuzz_target!(|input: (u8, [u8; 4], &[u8])| {
    let (how, cuts, octets) = input;
    let request = match how % 4 {
        0 => post(octets),
        1 => [b"GET /dns-query?dns=", octets, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat(),
        2 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", octets].concat(),
        _ => octets.to_vec(),
    };
    let response = converse(SITE.http.expect("it has one"), &cuts, &[&proxy_header()[..], &request[..]].concat());
    if how % 4 == 0 && !response.is_empty() {
        assert!(response.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&response));
    }
});

fn post(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
