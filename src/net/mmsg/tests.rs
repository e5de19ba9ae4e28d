//! Every field the kernel writes or reads, over loopback. Loopback delivers within the call that sends, so that what
//! was sent is there to be received without waiting.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixDatagram,
    },
};

use crate::system_error::ErrorCause;

use super::{
    options::{Family, INTEGER_SIZE, ignore_path_mtu, report_destination},
    *,
};

fn server(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    let family = if socket.local_addr().unwrap().is_ipv4() { Family::V4 } else { Family::V6 };
    report_destination(socket.as_fd(), family).unwrap();
    ignore_path_mtu(socket.as_fd(), family).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 2048];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Answers every message with its own bytes reversed.
fn answer_all(batch: &mut Batch, socket: &UdpSocket) -> Sent {
    let count = batch.recv(socket.as_fd()).unwrap();
    for slot in 0..count {
        let message = batch.message(slot);
        let length = message.datagram.len();
        message.reply[..length].copy_from_slice(message.datagram);
        message.reply[..length].reverse();
        batch.reply(slot, length);
    }
    batch.send(socket.as_fd()).unwrap()
}

#[test]
fn each_of_many_messages_gets_its_own_reply() {
    let (socket, address) = server("127.0.0.1:0");
    let clients: Vec<UdpSocket> = (0..5).map(|_| client("127.0.0.1:0")).collect();
    let mut batch = Batch::new(8, 64, 64);
    // Twice, and with other lengths, so that what the kernel changed in a slot must have been set back.
    for round in 0..2usize {
        for (number, client) in clients.iter().enumerate() {
            let text = format!("{number}{}", "x".repeat(number * 3 + round * 7));
            client.send_to(text.as_bytes(), address).unwrap();
        }
        assert_eq!(answer_all(&mut batch, &socket), Sent { sent: 5, ..Sent::default() });
        for (number, client) in clients.iter().enumerate() {
            let text = format!("{}{number}", "x".repeat(number * 3 + round * 7));
            assert_eq!(received(client), Some((text.into_bytes(), address)));
        }
    }
}

#[test]
fn batch_takes_no_more_than_its_slots_and_the_rest_with_the_next() {
    let (socket, address) = server("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    for number in 0..5u8 {
        client.send_to(&[number], address).unwrap();
    }
    let mut batch = Batch::new(3, 16, 16);
    assert_eq!(batch.slots(), 3);
    assert_eq!(batch.recv(socket.as_fd()).unwrap(), 3);
    assert_eq!(batch.recv(socket.as_fd()).unwrap(), 2);
    assert_eq!((batch.datagram(0), batch.datagram(1)), (&[3][..], &[4][..]));
    assert_eq!(batch.recv(socket.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn slot_of_an_earlier_batch_is_gone() {
    let (socket, address) = server("127.0.0.1:0");
    client("127.0.0.1:0").send_to(b"question", address).unwrap();
    let mut batch = Batch::new(2, 16, 16);
    assert_eq!(batch.recv(socket.as_fd()).unwrap(), 1);
    let _ = batch.recv(socket.as_fd());
    batch.message(0);
}

#[test]
fn message_says_who_sent_it_and_which_address_was_asked() {
    let interface = interface_index("lo").unwrap();
    for (bound, asked, from) in [("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"), ("[::]:0", "::1", "[::1]:0")] {
        let (socket, address) = server(bound);
        let asked: IpAddr = asked.parse().unwrap();
        let client = client(from);
        client.send_to(b"question", (asked, address.port())).unwrap();
        let mut batch = Batch::new(1, 64, 64);
        assert_eq!(batch.recv(socket.as_fd()).unwrap(), 1);
        let message = batch.message(0);
        let local = Some(Local { address: asked, interface });
        assert_eq!(message.origin.path(), Path { peer: client.local_addr().unwrap(), local });
        assert_eq!(message.origin.ip(), client.local_addr().unwrap().ip());
        assert_eq!((message.datagram, message.truncated), (&b"question"[..], false));
    }
}

#[test]
fn reply_leaves_from_the_address_that_was_asked() {
    for (bound, from, asked) in [
        ("0.0.0.0:0", "127.0.0.1:0", &["127.0.0.1", "127.0.0.2", "127.1.2.3"][..]),
        ("[::]:0", "[::1]:0", &["::1"][..]),
    ] {
        let (socket, address) = server(bound);
        let mut batch = Batch::new(8, 64, 64);
        let mut outbox = Outbox::new(8, 64);
        for asked in asked {
            let asked = SocketAddr::new(asked.parse().unwrap(), address.port());
            let client = client(from);
            client.send_to(b"ab", asked).unwrap();
            assert_eq!(answer_all(&mut batch, &socket).sent, 1);
            assert_eq!(received(&client), Some((b"ba".to_vec(), asked)), "at once");

            client.send_to(b"ab", asked).unwrap();
            batch.recv(socket.as_fd()).unwrap();
            let path = batch.message(0).origin.path();
            let pushed = outbox.push(&path, |bytes| {
                bytes[..5].copy_from_slice(b"later");
                Some(5)
            });
            assert_eq!(pushed, Pushed::Queued);
            assert_eq!(outbox.flush(socket.as_fd()).unwrap().sent, 1);
            assert_eq!(received(&client), Some((b"later".to_vec(), asked)), "later");
        }
    }
}

#[test]
fn dual_stack_socket_answers_ipv4_from_the_address_asked() {
    let (socket, address) = server("[::]:0");
    let asked = SocketAddr::new("127.0.0.2".parse().unwrap(), address.port());
    let client = client("127.0.0.1:0");
    client.send_to(b"ab", asked).unwrap();
    assert_eq!(answer_all(&mut Batch::new(1, 64, 64), &socket).sent, 1);
    assert_eq!(received(&client), Some((b"ba".to_vec(), asked)));
}

#[test]
fn socket_that_does_not_report_destinations_still_answers() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client("127.0.0.1:0");
    client.send_to(b"ab", socket.local_addr().unwrap()).unwrap();
    let mut batch = Batch::new(1, 64, 64);
    assert_eq!(answer_all(&mut batch, &socket).sent, 1);
    assert_eq!(batch.message(0).origin.local(), None);
    assert_eq!(received(&client), Some((b"ba".to_vec(), socket.local_addr().unwrap())));
}

#[test]
fn datagram_longer_than_a_slot_is_marked_and_cut() {
    let (socket, address) = server("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    for length in [9, 8, 0] {
        client.send_to(&[7; 9][..length], address).unwrap();
    }
    let mut batch = Batch::new(4, 8, 8);
    assert_eq!(batch.recv(socket.as_fd()).unwrap(), 3);
    let seen: Vec<(usize, bool)> = (0..3)
        .map(|slot| {
            let message = batch.message(slot);
            (message.datagram.len(), message.truncated)
        })
        .collect();
    assert_eq!(seen, [(8, true), (8, false), (0, false)]);
}

#[test]
fn replies_go_only_to_slots_that_have_one() {
    let (socket, address) = server("127.0.0.1:0");
    let clients = [client("127.0.0.1:0"), client("127.0.0.1:0"), client("127.0.0.1:0")];
    for client in &clients {
        client.send_to(b"question", address).unwrap();
    }
    let mut batch = Batch::new(4, 16, 16);
    batch.recv(socket.as_fd()).unwrap();
    // Out of order, and one left out.
    for slot in [2, 0] {
        batch.message(slot).reply[0] = b'0' + u8::try_from(slot).unwrap();
        batch.reply(slot, 1);
    }
    assert_eq!(batch.send(socket.as_fd()).unwrap().sent, 2);
    assert_eq!(
        clients.each_ref().map(|client| received(client).map(|(bytes, _)| bytes[0])),
        [Some(b'0'), None, Some(b'2')]
    );
    assert_eq!(batch.send(socket.as_fd()).unwrap(), Sent::default(), "nothing is sent twice");
}

#[test]
fn message_that_cannot_be_sent_does_not_hold_up_the_others() {
    let (socket, address) = server("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let good = Path { peer: client.local_addr().unwrap(), local: None };
    let no_port = Path { peer: "127.0.0.1:0".parse().unwrap(), local: None };
    let not_ours = Local { address: "192.0.2.1".parse().unwrap(), interface: 0 };
    let wrong_source = Path { peer: client.local_addr().unwrap(), local: Some(not_ours) };
    let mut outbox = Outbox::new(8, 70_000);
    for (path, length) in [(no_port, 1), (good, 1), (wrong_source, 1), (good, 66_000), (good, 2), (no_port, 1)] {
        assert_eq!(outbox.push(&path, |_| Some(length)), Pushed::Queued);
    }
    let sent = outbox.flush(socket.as_fd()).unwrap();
    assert_eq!((sent.sent, sent.failed, sent.left), (2, 4, 0));
    assert_eq!(sent.error, Some(ErrorCause::Code(libc::EINVAL)));
    let lengths: Vec<usize> = std::iter::from_fn(|| received(&client)).map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(lengths, [1, 2]);

    assert_eq!(outbox.push(&good, |_| Some(66_000)), Pushed::Queued);
    let sent = outbox.flush(socket.as_fd()).unwrap();
    assert_eq!(sent.error, Some(ErrorCause::Code(libc::EMSGSIZE)), "which has no kind in the standard library");
    assert_eq!(received(&client), None, "from {address}");
}

#[test]
fn full_socket_leaves_the_rest_for_the_next_flush() {
    // Loopback never holds a sender up. A pair of local sockets does, when a few hundred datagrams wait to be read.
    let (socket, peer) = UnixDatagram::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let mut outbox = Outbox::new(SLOTS_MAX, 8);
    for number in 0..u16::try_from(SLOTS_MAX).unwrap() {
        let pushed = outbox.push_connected(|bytes| {
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            Some(2)
        });
        assert_eq!(pushed, Pushed::Queued);
    }
    let mut inbox = Inbox::new(SLOTS_MAX, 8);
    let mut seen: Vec<u16> = Vec::new();
    let first = outbox.flush(socket.as_fd()).unwrap();
    assert!(first.left > 0 && first.left == outbox.waiting(), "{first:?}");
    assert_eq!(outbox.push_connected(|_| panic!("no slot is free")), Pushed::Full);
    while outbox.waiting() > 0 {
        inbox.recv(peer.as_fd()).unwrap();
        seen.extend(inbox.datagrams().map(|datagram| u16::from_be_bytes([datagram.bytes[0], datagram.bytes[1]])));
        outbox.flush(socket.as_fd()).unwrap();
    }
    inbox.recv(peer.as_fd()).unwrap();
    seen.extend(inbox.datagrams().map(|datagram| u16::from_be_bytes([datagram.bytes[0], datagram.bytes[1]])));
    assert!(seen.into_iter().eq(0..1024));
}

#[test]
fn outbox_is_full_until_it_is_flushed() {
    let (socket, _) = server("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let path = Path { peer: client.local_addr().unwrap(), local: None };
    let mut outbox = Outbox::new(2, 4);
    assert_eq!(outbox.push(&path, |_| None), Pushed::Unwritten);
    for _ in 0..2 {
        assert_eq!(outbox.push(&path, |_| Some(4)), Pushed::Queued);
    }
    assert_eq!(outbox.push(&path, |_| panic!("there is no room to write to")), Pushed::Full);
    assert_eq!(outbox.waiting(), 2);
    assert_eq!(outbox.flush(socket.as_fd()).unwrap().sent, 2);
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(outbox.push(&path, |_| Some(4)), Pushed::Queued);
    outbox.clear();
    assert_eq!(outbox.flush(socket.as_fd()).unwrap(), Sent::default());
}

#[test]
fn connected_sockets_need_no_addresses() {
    let peer = client("127.0.0.1:0");
    let socket = client("127.0.0.1:0");
    socket.connect(peer.local_addr().unwrap()).unwrap();
    peer.connect(socket.local_addr().unwrap()).unwrap();
    let mut outbox = Outbox::new(4, 16);
    for length in [1, 9, 16] {
        assert_eq!(outbox.push_connected(|_| Some(length)), Pushed::Queued);
    }
    assert_eq!(outbox.flush(socket.as_fd()).unwrap().sent, 3);
    let mut inbox = Inbox::new(2, 8);
    assert_eq!(inbox.recv(peer.as_fd()).unwrap(), inbox.slots());
    let seen: Vec<(usize, bool)> =
        inbox.datagrams().map(|datagram| (datagram.bytes.len(), datagram.truncated)).collect();
    assert_eq!(seen, [(1, false), (8, true)]);
    assert_eq!(inbox.recv(peer.as_fd()).unwrap(), 1);
    assert_eq!(inbox.datagrams().next().map(|datagram| datagram.truncated), Some(true));
    assert_eq!(inbox.recv(peer.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(inbox.datagrams().len(), 0);
}

#[test]
fn refusal_by_a_connected_peer_is_told_and_holds_nothing_up() {
    let gone = client("127.0.0.1:0").local_addr().unwrap();
    let socket = client("127.0.0.1:0");
    socket.connect(gone).unwrap();
    let mut outbox = Outbox::new(4, 16);
    assert_eq!(outbox.push_connected(|_| Some(1)), Pushed::Queued);
    assert_eq!(outbox.flush(socket.as_fd()).unwrap(), Sent { sent: 1, ..Sent::default() });
    // The refusal of the first is met by the second, which is sent all the same.
    assert_eq!(outbox.push_connected(|_| Some(1)), Pushed::Queued);
    let sent = outbox.flush(socket.as_fd()).unwrap();
    assert_eq!(sent, Sent { sent: 1, error: Some(ErrorCause::Code(libc::ECONNREFUSED)), ..Sent::default() });
    let error = Inbox::new(1, 16).recv(socket.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn socket_that_is_no_use_is_an_error_and_empties_the_queue() {
    let unconnected = client("127.0.0.1:0");
    let mut outbox = Outbox::new(4, 16);
    assert_eq!(outbox.push_connected(|_| Some(1)), Pushed::Queued);
    assert!(outbox.flush(unconnected.as_fd()).is_err());
    assert_eq!(outbox.waiting(), 0);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(Batch::new(1, 1, 1).recv(file.as_fd()).is_err());
    assert!(Inbox::new(1, 1).recv(file.as_fd()).is_err());
}

#[test]
fn batches_work_after_they_have_moved_to_another_thread() {
    let (socket, address) = server("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    client.send_to(b"ab", address).unwrap();
    let mut batches = vec![Batch::new(2, 16, 16), Batch::new(2, 16, 16)];
    let mut batch = batches.swap_remove(0);
    std::thread::spawn(move || assert_eq!(answer_all(&mut batch, &socket).sent, 1)).join().unwrap();
    assert_eq!(received(&client).map(|(bytes, _)| bytes), Some(b"ba".to_vec()));
}

#[test]
fn path_mtu_news_are_not_believed() {
    for (bound, level, option, expected) in [
        ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT),
    ] {
        let (socket, _) = server(bound);
        let mut value: libc::c_int = -1;
        let mut length = INTEGER_SIZE;
        // SAFETY: both pointers are to values that outlive the call, of the length said.
        let result =
            unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
        assert_eq!((result, value), (0, expected), "{bound}");
    }
}

#[test]
fn blocking_socket_waits_for_the_first_datagram_alone() {
    let (socket, address) = server("127.0.0.1:0");
    let sender = std::thread::spawn(move || client("127.0.0.1:0").send_to(b"late", address).unwrap());
    let mut batch = Batch::new(8, 16, 16);
    assert_eq!(batch.recv_waiting(socket.as_fd()).unwrap(), 1);
    assert_eq!(batch.datagram(0), b"late");
    sender.join().unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
    assert_eq!(Inbox::new(8, 16).recv_waiting(socket.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
