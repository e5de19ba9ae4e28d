//! Liveness of the process: each worker turns, and a query to our own socket is answered.
//!
//! The query is of class CH, which is answered from the message alone: neither rules nor upstreams nor access lists can
//! make it fail, since REFUSED is an answer too. It goes to the first listener whose address this host has: with
//! `freebind` an address may still be on another machine, whose answer would say nothing about us.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

use crate::wire::{Class, MessageId, Name, RecordType, UpstreamQuery, header::HEADER};

/// A worker that was asked whether it turns and has not answered for longer is hanging. It is asked once a second, so it
/// is found two seconds after it stopped, give or take a half.
pub const MAX_SILENCE: Duration = Duration::from_millis(1500);
/// Time-out of one try; a datagram may be lost when a socket's queue is full.
const TRY_TIMEOUT: Duration = Duration::from_millis(330);
/// Tries, within a second in all.
const TRIES: u32 = 3;

/// Whether one of the listeners answers; true if this host currently has none of their addresses.
pub async fn answers_dns(listeners: &[SocketAddr]) -> bool {
    for listener in listeners {
        let address = reachable_address(*listener);
        match UdpSocket::bind(SocketAddr::new(address.ip(), 0)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(_) => return false,
            Ok(socket) => return ask(&socket, address).await.is_ok_and(|answered| answered),
        }
    }
    true
}

/// The address at which this host reaches a listener.
fn reachable_address(listener: SocketAddr) -> SocketAddr {
    let mut address = listener;
    match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn ask(socket: &UdpSocket, address: SocketAddr) -> io::Result<bool> {
    socket.connect(address).await?;
    let id = MessageId(rand::random());
    let query =
        UpstreamQuery { name: Name::root(), qtype: RecordType::TXT, qclass: Class::CH, do_bit: false, cd: false };
    let mut message = [0; UpstreamQuery::MAX];
    let Some(length) = query.write(id, None, None, &mut message) else { return Ok(false) };
    for _ in 0..TRIES {
        socket.send(&message[..length]).await?;
        if timeout(TRY_TIMEOUT, answer(socket, id)).await.is_ok_and(|received| received.is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits for a response with this id.
async fn answer(socket: &UdpSocket, id: MessageId) -> io::Result<()> {
    let mut response = [0; 512];
    loop {
        let length = socket.recv(&mut response).await?;
        let is_response = length >= HEADER && response[2] & 0x80 != 0;
        if is_response && response[..2] == id.0.to_be_bytes() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_listener_that_answers_is_alive_and_a_silent_one_is_not() {
        run(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            assert!(!answers_dns(&[address]).await, "nobody answers");
            let serve = async {
                let mut message = [0; 512];
                loop {
                    let (length, client) = server.recv_from(&mut message).await.unwrap();
                    message[2] |= 0x80;
                    server.send_to(&message[..length], client).await.unwrap();
                }
            };
            let listeners = [address];
            tokio::select! {
                () = serve => {}
                answered = answers_dns(&listeners) => assert!(answered),
            }
        });
    }

    #[test]
    fn an_address_that_is_not_here_is_passed_over() {
        // RFC 5737 and RFC 3849: these addresses exist nowhere.
        let elsewhere: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert!(run(answers_dns(&elsewhere)));
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let both = [elsewhere[0], silent.local_addr().unwrap()];
        assert!(!run(answers_dns(&both)));
    }

    #[test]
    fn a_wildcard_is_asked_on_the_loopback_address() {
        assert_eq!(reachable_address("0.0.0.0:53".parse().unwrap()), "127.0.0.1:53".parse().unwrap());
        assert_eq!(reachable_address("[::]:53".parse().unwrap()), "[::1]:53".parse().unwrap());
    }
}
