//! A hostile client: whatever it sends, over UDP or a stream, it gets a well-formed reply that fits, or nothing.
#![no_main]

use std::{net::IpAddr, time::Duration};

use fuzz::{CLIENT, Site};
use libfuzzer_sys::fuzz_target;
use tidegate::{engine::ClientChannel, wire::Transport};

thread_local!(static SITE: Site = Site::alone());

fuzz_target!(|input: (u8, &[u8])| {
    let (how, message) = input;
    let client = if how & 2 == 0 { CLIENT } else { IpAddr::from([10, 9, 1, how]) };
    let transports = [Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic];
    let stream = ClientChannel::stream(transports[usize::from(how >> 2 & 3)], Duration::from_secs(10));
    let carrier = if how & 1 == 0 { ClientChannel::DATAGRAM } else { stream };
    SITE.with(|site| {
        site.forget();
        let first = site.answer(message, client, carrier);
        // What was stored meanwhile answers as well as what was found first.
        let second = site.answer(message, client, carrier);
        assert_eq!(first.is_empty(), second.is_empty(), "nothing is due, or an answer is");
    });
});
