//! Cached questions over real sockets on loopback: one worker, a client that keeps a window in flight.
#![allow(missing_docs, reason = "criterion makes the functions")]

mod support;

use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Manner, query};
use tidegate::{
    config::Plan,
    daemon::Daemon,
    net::mmsg::{Inbox, Outbox, Pushed},
};

/// Questions in flight.
const WINDOW: usize = 64;
/// The names of a local zone answer without any upstream.
const CONFIGURATION: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
[admin]
http = ""
socket = ""
[upstream.none]
servers = ["192.0.2.1"]
[[forward]]
zones = ["example"]
to = "none"
[[local]]
zone = "bench.test"
records = ["www 3600 A 10.0.0.1"]
"#;

fn loopback(criterion: &mut Criterion) {
    let plan = Plan::from_text("bench.toml", CONFIGURATION).expect("the configuration is valid");
    let daemon = Daemon::start(&plan.boot, plan.live, None).expect("loopback has free ports");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.connect(daemon.addresses()[0]).expect("it is on loopback");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("sockets time out");
    let question = query(&"www.bench.test".parse().expect("it is a name"), Manner::Edns);
    let mut outbox = Outbox::new(WINDOW, 512);
    let mut inbox = Inbox::new(WINDOW, 1232);
    let mut group = criterion.benchmark_group("loopback");
    group.throughput(Throughput::Elements(WINDOW as u64));
    group.bench_function("64 hits, there and back", |bencher| {
        bencher.iter(|| {
            for _ in 0..WINDOW {
                let pushed = outbox.push_connected(|out| {
                    out[..question.len()].copy_from_slice(&question);
                    Some(question.len())
                });
                assert_eq!(pushed, Pushed::Queued, "a window fits");
            }
            let sent = outbox.flush(socket.as_fd()).expect("loopback takes datagrams");
            let mut left = sent.sent;
            while left > 0 {
                left -= inbox.recv_waiting(socket.as_fd()).expect("every question is answered");
            }
        });
    });
    group.finish();
    daemon.stop();
}

criterion_group!(benches, loopback);
criterion_main!(benches);
