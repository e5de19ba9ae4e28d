//! Messages that are no queries, over every transport.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rstest::rstest;

use crate::{
    doq,
    support::{
        query::{Query, rtype},
        site::Site,
        upstream::{frame, read_frame},
    },
};

/// What comes back over this transport: the octets of the response.
fn response(site: &Site, transport: &str, query: &Query) -> Vec<u8> {
    let mut query = query.bytes();
    match transport {
        "udp" => {
            let socket = site.tidegate.client().socket();
            socket.send_bytes(&query);
            socket.receive_bytes()
        }
        "tcp" => {
            let mut stream = TcpStream::connect(site.tidegate.address()).expect("it accepts");
            stream.write_all(&frame(&query)).expect("it takes the message");
            read_frame(&mut stream).expect("an answer")
        }
        "tls" => {
            let mut stream = crate::doh::tls(site, "tls", b"dot");
            stream.write_all(&frame(&query)).expect("it takes the message");
            read_frame(&mut stream).expect("an answer")
        }
        "https" => {
            let mut stream = crate::doh::tls(site, "https", b"http/1.1");
            let head = format!(
                "POST /dns-query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/dns-message\r\n\
                 Content-Length: {}\r\n\r\n",
                query.len()
            );
            stream.write_all(&[head.as_bytes(), &query].concat()).expect("it takes the message");
            let mut response = Vec::new();
            // Some clients are told of the end by TLS, some only by TCP.
            drop(stream.read_to_end(&mut response));
            let end = response.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
            response.split_off(end + 4)
        }
        _ => {
            query[..2].fill(0);
            doq::ask(site, &query)
        }
    }
}

/// What a server refuses over UDP got through where its other transports had a check of their own. Here UPDATE and NOTIFY
/// get NOTIMP and transfers REFUSED over each of them, and nothing goes upstream.
#[rstest]
fn updates_notifies_and_transfers_are_treated_alike(#[values("udp", "tcp", "tls", "https", "quic")] transport: &str) {
    let site = Site::start();
    for (query, rcode) in [
        (Query::new("example.", rtype::SOA).opcode(4), 4),
        (Query::new("example.", rtype::SOA).opcode(5), 4),
        (Query::new("example.", rtype::AXFR), 5),
        (Query::new("example.", rtype::IXFR), 5),
        (Query::a("www.example."), 0),
    ] {
        assert_eq!(response(&site, transport, &query)[3] & 0x0f, rcode, "{query:?}");
    }
    let seen: Vec<String> = site.upstream.all_seen().into_iter().map(|seen| seen.name).collect();
    assert!(!seen.contains(&"example.".to_owned()), "none of them goes upstream: {seen:?}");
}
