//! An answer leaves from the address that was asked, whatever the listener is bound to.

use std::net::{IpAddr, SocketAddr};

use rstest::rstest;

use crate::support::{client::Client, config::Config, query::Query, tidegate::Tidegate, upstream::Upstream};

#[rstest]
#[case::one_worker(1)]
#[case::two_workers(2)]
fn a_wildcard_listener_answers_from_the_address_that_was_asked(#[case] workers: u8) {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream])
        .listen(&["0.0.0.0:0", "[::]:0"])
        .section("server", &format!("workers = {workers}"));
    let tidegate = Tidegate::start(&config);
    let port = |v6: bool| {
        let found = tidegate.addresses().iter().find(|address| address.is_ipv6() == v6);
        found.unwrap_or_else(|| panic!("both families are listened on: {:?}", tidegate.addresses())).port()
    };

    for address in ["127.0.0.1", "127.0.0.2", "127.8.9.10", "::1"] {
        let address: IpAddr = address.parse().expect("an address");
        let client = Client::new(SocketAddr::new(address, port(address.is_ipv6())));
        // The client's socket is connected: the kernel gives it only what comes from the address it asked.
        for turn in 0..4 {
            let answer = client.ask(&Query::a("www.example."));
            assert_eq!(answer.address_texts(), ["10.0.0.1"], "{address}, turn {turn}");
        }
        assert_eq!(client.ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"], "{address}");
    }
    assert_eq!(upstream.count("www.example."), 1, "both families share the cache");
    tidegate.await_metric("tidegate_queries_total", &[("transport", "udp"), ("family", "6")], 4.0);
}

#[test]
fn every_listen_address_is_served_over_udp_and_tcp() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).listen(&["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"]);
    let tidegate = Tidegate::start(&config);

    assert_eq!(tidegate.addresses().len(), 3);
    for &address in tidegate.addresses() {
        let client = Client::new(address);
        assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"], "{address}");
        assert_eq!(client.ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"], "{address}");
    }
}

#[test]
fn every_worker_answers() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("server", "workers = 4");
    let tidegate = Tidegate::start(&config);

    // The kernel assigns ports to the workers' sockets: with 200 of them each worker gets some.
    let sockets: Vec<_> = (0..200).map(|_| tidegate.client().socket()).collect();
    for (number, socket) in sockets.iter().enumerate() {
        socket.send(&Query::a(&format!("n{number}.example.")));
    }
    for socket in &sockets {
        assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
    }
    tidegate.await_metric("tidegate_queries_total", &[("transport", "udp")], 200.0);
    tidegate.await_metric("tidegate_cache_misses_total", &[], 200.0);
}
