//! A hostile upstream: its answers go through reading, following, guard and cache; what the client gets is well-formed,
//! and no address leaves that the rule of its name keeps in, neither at once nor from the cache.
#![no_main]

use std::{
    cell::RefCell,
    net::{IpAddr, UdpSocket},
};

use fuzz::{CLIENT, SITE, Site, addresses};
use libfuzzer_sys::fuzz_target;
use tidegate::{
    engine::ClientChannel,
    wire::{Class, MessageId, Name, RecordType, Transport, UpstreamQuery},
};

const TCP: ClientChannel = ClientChannel { transport: Transport::Tcp, keepalive: None };
const NAMES: [&str; 6] = ["www.guarded", "x.stripped", "a.open", "s3.eu-west-1.amazonaws.com", "corp", "away.lan"];
const TYPES: [RecordType; 6] =
    [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::CNAME, RecordType::ANY, RecordType::MX];

thread_local! {
    /// What the upstream says next, from the flags on; the last is said for ever.
    static ANSWERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SITE_WITH_UPSTREAM: Site = site();
}

/// The upstream is a task beside those of the engine: no input waits for another thread or for a timer.
fn site() -> Site {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("an option that is always there");
    let site = Site::with(SITE, &[socket.local_addr().expect("it is bound")]);
    site.spawn(async {
        let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket that does not block");
        let mut query = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let answer = ANSWERS.with_borrow_mut(|answers| match answers.len() {
                1 => answers[0].clone(),
                _ => answers.remove(0),
            });
            let _ = socket.try_send_to(&reply(&query[..length], &answer), from);
        }
    });
    site
}

/// Id, QR, opcode and question as they must be, so that what stands behind them is read; TC never, which would be asked
/// again where nobody listens.
fn reply(query: &[u8], answer: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|&octet| octet == 0).expect("a query of ours");
    let (head, rest) = answer.split_at(answer.len().min(8));
    let mut reply = query[..12 + name + 5].to_vec();
    let flag = |at: usize| head.get(at).copied().unwrap_or(0);
    reply[2] = 0x80 | (flag(0) & 0x05);
    reply[3] = flag(1);
    for at in 6..12 {
        // Counts of more than 255 are soon refused.
        reply[at] = if at % 2 == 0 { 0 } else { flag(at - 4) };
    }
    reply.extend_from_slice(rest);
    reply
}

fuzz_target!(|input: (u8, u8, Vec<Vec<u8>>)| {
    let (name, qtype, mut answers) = input;
    answers.truncate(4);
    if answers.is_empty() || answers.iter().any(|answer| answer.len() > 4000) {
        return;
    }
    ANSWERS.set(answers);
    let name = NAMES[usize::from(name) % NAMES.len()];
    let qtype = TYPES[usize::from(qtype) % TYPES.len()];
    let name: Name = name.parse().expect("it is a name");
    let is_guarded = ["guarded", "stripped", "amazonaws.com"].iter().any(|zone| name.to_string().contains(zone));
    let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: false, cd: false };
    let mut message = [0; UpstreamQuery::MAX];
    let length = query.write(MessageId(77), Some(1232), None, &mut message).expect("it fits");
    SITE_WITH_UPSTREAM.with(|site| {
        site.forget();
        // Asked for the answer, and for what is stored of it.
        for carrier in [TCP, TCP, ClientChannel::DATAGRAM] {
            let reply = site.answer(&message[..length], CLIENT, carrier);
            assert!(!reply.is_empty(), "an answer is due");
            if is_guarded {
                let is_private = |address: &IpAddr| match address {
                    IpAddr::V4(address) => address.octets()[0] == 10,
                    IpAddr::V6(address) => match address.to_ipv4_mapped() {
                        Some(address) => address.octets()[0] == 10,
                        None => address.octets()[0] == 0xfd,
                    },
                };
                let leaked: Vec<IpAddr> = addresses(&reply).into_iter().filter(|a| !is_private(a)).collect();
                assert!(leaked.is_empty(), "{leaked:?} left");
            }
        }
    });
});
