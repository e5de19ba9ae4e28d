//! Upstream servers that do as they are told, on loopback, with UDP and TCP on one port.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Address(Ipv4Addr),
    Rcode(u8),
    NxDomain,
    Referral,
    /// Id and question are right, the rest is none.
    Malformed,
    Garbage,
    WrongId,
    WrongQuestion,
    NotAResponse,
    Truncated,
    /// FORMERR, header alone, for queries with EDNS; an address otherwise.
    NoEdns(Ipv4Addr),
    /// An address, and the question in small letters.
    Lowered(Ipv4Addr),
    Nothing,
}

/// What it does on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tcp {
    Says(Says),
    /// Takes the connection, and then nothing.
    Dead,
    /// One octet of the answer at a time.
    Drip(Duration),
    /// Closes behind each answer.
    OneEach(Ipv4Addr),
}

/// What happens to some names over UDP. What is lost there is left unanswered over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Loses,
    Delays(Duration),
}

/// A server and what it saw.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    udp: Mutex<Says>,
    tcp: Mutex<Tcp>,
    delay_ms: AtomicU32,
    lost_percent: AtomicU32,
    /// Queries whose first label begins so get SERVFAIL, whatever else is said.
    broken: Mutex<Option<&'static str>>,
    /// The same for what happens on the way.
    ways: Mutex<Vec<(&'static str, Way)>>,
    lost: AtomicUsize,
    /// UDP answers go to where the query before came from.
    to_the_last: AtomicBool,
    stop: AtomicBool,
    queries: AtomicUsize,
    connections: AtomicUsize,
    seen: Mutex<Vec<(SocketAddr, u16)>>,
}

pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

impl Script {
    pub(crate) fn new(udp: Says) -> Self {
        Self::with_tcp(udp, Tcp::Says(udp))
    }

    pub(crate) fn with_tcp(udp: Says, tcp: Tcp) -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let state = Arc::new(State {
            udp: Mutex::new(udp),
            tcp: Mutex::new(tcp),
            delay_ms: AtomicU32::new(0),
            lost_percent: AtomicU32::new(0),
            broken: Mutex::new(None),
            ways: Mutex::default(),
            lost: AtomicUsize::new(0),
            to_the_last: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            queries: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (for_udp, for_tcp) = (Arc::clone(&state), Arc::clone(&state));
        thread::spawn(move || serve_udp(&socket, &for_udp));
        thread::spawn(move || serve_tcp(&listener, &for_tcp));
        Self { address, state }
    }

    pub(crate) fn say(&self, udp: Says) {
        *self.state.udp.lock().unwrap() = udp;
    }

    pub(crate) fn say_tcp(&self, tcp: Tcp) {
        *self.state.tcp.lock().unwrap() = tcp;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u32::try_from(delay.as_millis()).unwrap(), SeqCst);
    }

    /// So many of a hundred UDP queries are lost on the way, at random.
    pub(crate) fn lose(&self, percent: u32) {
        self.state.lost_percent.store(percent, SeqCst);
    }

    /// Names that begin so are SERVFAIL at their origin.
    pub(crate) fn break_names(&self, prefix: &'static str) {
        *self.state.broken.lock().unwrap() = Some(prefix);
    }

    /// What happens to queries for names that begin so.
    pub(crate) fn on_the_way(&self, prefix: &'static str, way: Way) {
        self.state.ways.lock().unwrap().push((prefix, way));
    }

    /// Nothing happens on the way any more.
    pub(crate) fn clear_the_way(&self) {
        self.state.ways.lock().unwrap().clear();
    }

    /// Queries that [`Way::Loses`] lost.
    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(SeqCst)
    }

    pub(crate) fn answer_to_the_last(&self, is_on: bool) {
        self.state.to_the_last.store(is_on, SeqCst);
    }

    /// Queries received, over UDP and TCP.
    pub(crate) fn queries(&self) -> usize {
        self.state.queries.load(SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// Source and id of each UDP query.
    pub(crate) fn seen(&self) -> Vec<(SocketAddr, u16)> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn ports(&self) -> HashSet<u16> {
        self.seen().iter().map(|(from, _)| from.port()).collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
    }
}

fn serve_udp(socket: &UdpSocket, state: &Arc<State>) {
    let mut buffer = [0; 2048];
    while !state.stop.load(SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if rand::random_range(0..100) < state.lost_percent.load(SeqCst) {
            continue;
        }
        let query = &buffer[..length];
        let way = state.way_of(query);
        if way == Some(Way::Loses) {
            state.lost.fetch_add(1, SeqCst);
            continue;
        }
        let last = state.seen.lock().unwrap().last().map(|(from, _)| *from);
        state.queries.fetch_add(1, SeqCst);
        state.seen.lock().unwrap().push((from, u16::from_be_bytes([query[0], query[1]])));
        let Some(reply) = state.reply(query, *state.udp.lock().unwrap()) else { continue };
        let from = if state.to_the_last.load(SeqCst) { last.unwrap_or(from) } else { from };
        let delay = match way {
            Some(Way::Delays(delay)) => delay,
            _ => Duration::from_millis(state.delay_ms.load(SeqCst).into()),
        };
        if delay.is_zero() {
            socket.send_to(&reply, from).unwrap();
            continue;
        }
        let socket = socket.try_clone().unwrap();
        thread::spawn(move || {
            thread::sleep(delay);
            let _ = socket.send_to(&reply, from);
        });
    }
}

fn serve_tcp(listener: &TcpListener, state: &Arc<State>) {
    while !state.stop.load(SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                state.connections.fetch_add(1, SeqCst);
                let state = Arc::clone(state);
                thread::spawn(move || serve_stream(stream, &state));
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn serve_stream(mut stream: TcpStream, state: &State) {
    stream.set_nonblocking(false).unwrap();
    let mut head = [0; 2];
    while !state.stop.load(SeqCst) && stream.read_exact(&mut head).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(head))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        state.queries.fetch_add(1, SeqCst);
        let how = *state.tcp.lock().unwrap();
        let says = match how {
            Tcp::Says(says) => says,
            Tcp::Dead => Says::Nothing,
            Tcp::Drip(_) => Says::Address(ONE),
            Tcp::OneEach(address) => Says::Address(address),
        };
        if state.way_of(&query) == Some(Way::Loses) {
            continue;
        }
        let Some(reply) = state.reply(&query, says) else { continue };
        let mut framed = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(reply);
        if let Tcp::Drip(pause) = how {
            for octet in framed {
                if state.stop.load(SeqCst) || stream.write_all(&[octet]).is_err() {
                    return;
                }
                thread::sleep(pause);
            }
        } else if stream.write_all(&framed).is_err() {
            return;
        }
        if let Tcp::OneEach(_) = how {
            // What came behind it is thrown away: with octets unread a close is a reset, which may overtake the answer.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            return;
        }
    }
}

fn first_label(query: &[u8]) -> &[u8] {
    &query[13..13 + usize::from(query[12])]
}

impl State {
    fn way_of(&self, query: &[u8]) -> Option<Way> {
        let ways = self.ways.lock().unwrap();
        ways.iter().find(|(prefix, _)| first_label(query).starts_with(prefix.as_bytes())).map(|(_, way)| *way)
    }

    fn reply(&self, query: &[u8], says: Says) -> Option<Vec<u8>> {
        let name_end = 12 + query[12..].iter().position(|&octet| octet == 0)?;
        let mut reply = query[..name_end + 5].to_vec();
        let has_opt = query[11] != 0;
        reply[2] = 0x81;
        reply[3] = 0x80;
        reply[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        if self.broken.lock().unwrap().is_some_and(|prefix| first_label(query).starts_with(prefix.as_bytes())) {
            reply[3] |= 2;
            return Some(reply);
        }
        match says {
            Says::Nothing => return None,
            Says::Address(address) => add_address(&mut reply, address),
            Says::NoEdns(address) if !has_opt => add_address(&mut reply, address),
            Says::NoEdns(_) => {
                reply.truncate(12);
                reply[3] |= 1;
                reply[5] = 0;
            }
            Says::Lowered(address) => {
                add_address(&mut reply, address);
                reply[12..name_end].make_ascii_lowercase();
            }
            Says::Rcode(rcode) => reply[3] |= rcode,
            Says::NxDomain => reply[3] |= 3,
            Says::Referral => {
                reply[9] = 1;
                reply.extend([0xc0, 12, 0, 2, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]);
            }
            Says::Malformed => {
                reply[7] = 7;
                reply.extend([0xc0, 0xff, 1, 2, 3]);
            }
            Says::Garbage => reply = vec![0x5a; 40],
            Says::WrongId => {
                add_address(&mut reply, TWO);
                reply[0] ^= 0x55;
            }
            Says::WrongQuestion => {
                add_address(&mut reply, TWO);
                reply[13] = if reply[13] == b'x' { b'y' } else { b'x' };
            }
            Says::NotAResponse => reply[2] = 1,
            Says::Truncated => reply[2] |= 2,
        }
        Some(reply)
    }
}

fn add_address(reply: &mut Vec<u8>, address: Ipv4Addr) {
    reply[7] = 1;
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    reply.extend(address.octets());
}
