//! A hostile upstream: its answers go through reading, following, guard and cache; what the client gets is well-formed,
//! and no address leaves that the rule of its name keeps in, neither at once nor from the cache.
#![no_main]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use fuzz::{CLIENT, SITE, Site, addresses};
use libfuzzer_sys::fuzz_target;
use tidegate::{
    engine::ClientChannel,
    wire::{Transport, Class, MessageId, Name, RecordType, UpstreamQuery},
};

/// What the upstream says next, from the flags on; the last is said for ever.
static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

const TCP: ClientChannel = ClientChannel { transport: Transport::Tcp, keepalive: None };
const NAMES: [&str; 6] = ["www.guarded", "x.stripped", "a.open", "s3.eu-west-1.amazonaws.com", "corp", "away.lan"];
const TYPES: [RecordType; 6] =
    [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::CNAME, RecordType::ANY, RecordType::MX];

thread_local!(static SITE_WITH_UPSTREAM: Site = Site::with(SITE, &[upstream()]));

fn upstream() -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut query = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let mut answers = ANSWERS.lock().expect("no holder panics");
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            let _ = socket.send_to(&reply(&query[..length], &answer), from);
        }
    });
    address
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
    *ANSWERS.lock().expect("no holder panics") = answers;
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
