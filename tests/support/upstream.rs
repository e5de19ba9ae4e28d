//! A scripted DNS server, over UDP and TCP on one port.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hickory_proto::op::Message;

use super::{
    query::{flag, rtype, short},
    records::Reply,
    rules::{Match, Rule, Rules},
    script::{Script, Step},
    wait::{eventually, now},
};

/// Queries that a server [with a limit](Upstream::limit) accepts at once.
const BURST: f64 = 20.0;

/// Transport of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A query as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The name as spelled, with its final dot.
    pub name: String,
    pub qtype: u16,
    pub id: u16,
    pub flags: u16,
    pub from: SocketAddr,
    pub transport: Transport,
    pub bytes: Vec<u8>,
}

impl Seen {
    /// The parsed message.
    pub fn message(&self) -> Message {
        Message::from_vec(&self.bytes).expect("tidegate sends well-formed queries")
    }

    /// Whether DO was set.
    pub fn dnssec_ok(&self) -> bool {
        self.message().edns.is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// Whether CD was set.
    pub fn checking_disabled(&self) -> bool {
        self.flags & flag::CD != 0
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The server. Dropping it stops it.
pub struct Upstream {
    /// The address it listens on, also while it is stopped.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Rules>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    /// Percentage of UDP queries that are lost at random.
    lost_percent: AtomicU32,
    lost: AtomicUsize,
    /// UDP queries a second above which queries are ignored; 0 = no limit.
    limit: AtomicU32,
}

struct Running {
    udp: Thread,
    tcp: Option<Thread>,
}

struct Thread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Upstream {
    /// A server on 127.0.0.1 that knows no name: NXDOMAIN for every query, and for health probes an empty answer.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Like [`Self::start`], at an address of the caller's choice; port 0 is a free one.
    pub fn start_at(address: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let mut server = Self { address, shared, running: None };
        server.know_nothing();
        for attempt in 0.. {
            if address.port() == 0 {
                // Below the kernel's ephemeral range, so that no client gets the port while the server is stopped.
                server.address.set_port(rand::random_range(10_000..32_768));
            }
            match server.listen() {
                Ok(()) => break,
                Err(error) => assert!(attempt < 20, "no free port for an upstream: {error}"),
            }
        }
        server
    }

    /// Over UDP only, on the caller's socket.
    pub fn on_udp(socket: UdpSocket) -> io::Result<Self> {
        // It may be in another network, where no message of ours could wake its thread.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (address, shared) = (socket.local_addr()?, Arc::<Shared>::default());
        let inside = Arc::clone(&shared);
        let udp = Thread::start(move |stop| serve_udp(&socket, &inside, stop));
        let server = Self { address, shared, running: Some(Running { udp, tcp: None }) };
        server.know_nothing();
        Ok(server)
    }

    fn know_nothing(&self) {
        let probes = [rtype::SOA, rtype::NS].map(|qtype| Match::default().qtype(qtype));
        let rules = Rules::everything(Reply::nxdomain(300));
        self.play(probes.into_iter().fold(rules, |rules, probe| rules.and(probe, Reply::nodata(300))));
    }

    /// A server that answers every name with this address.
    pub fn answering(address: &str) -> Self {
        let server = Self::start();
        server.on_type(rtype::A, Reply::a(address));
        server.on_type(rtype::AAAA, Reply::nodata(300));
        server
    }

    /// Sets the script for this name and type; the newest matching rule applies.
    pub fn on(&self, name: &str, qtype: u16, script: impl Into<Script>) -> &Self {
        self.add_rule(Match::default().name(name).qtype(qtype), script)
    }

    /// Sets the script for this name and type over one transport.
    pub fn on_transport(&self, name: &str, qtype: u16, transport: Transport, script: impl Into<Script>) -> &Self {
        self.add_rule(Match::default().name(name).qtype(qtype).over(transport), script)
    }

    /// Sets the script for every name below this one with this type.
    pub fn on_below(&self, domain: &str, qtype: u16, script: impl Into<Script>) -> &Self {
        self.add_rule(Match::default().below(domain).qtype(qtype), script)
    }

    /// Sets the script for every name with this type.
    pub fn on_type(&self, qtype: u16, script: impl Into<Script>) -> &Self {
        self.add_rule(Match::default().qtype(qtype), script)
    }

    /// Sets the script for everything, replacing all rules.
    pub fn otherwise(&self, script: impl Into<Script>) -> &Self {
        self.play(Rules::everything(script));
        self
    }

    /// Replaces all rules.
    pub fn play(&self, rules: Rules) {
        *self.shared.rules.lock().expect("no holder panics") = rules;
    }

    /// Loses this percentage of UDP queries at random.
    pub fn lose(&self, percent: u32) {
        self.shared.lost_percent.store(percent, Ordering::SeqCst);
    }

    /// Drops UDP queries above this rate per second.
    pub fn limit(&self, a_second: u32) {
        self.shared.limit.store(a_second, Ordering::SeqCst);
    }

    /// Reads queries and answers none, health probes included.
    pub fn go_silent(&self) {
        self.otherwise(Script::silence());
    }

    /// The queries for this name so far.
    pub fn seen(&self, name: &str) -> Vec<Seen> {
        self.all_seen().into_iter().filter(|seen| seen.is(name)).collect()
    }

    /// All queries so far, health probes included.
    pub fn all_seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no holder panics").clone()
    }

    /// How many queries there were with this type.
    pub fn count_type(&self, qtype: u16) -> usize {
        self.shared.seen.lock().expect("no holder panics").iter().filter(|seen| seen.qtype == qtype).count()
    }

    /// How many queries there were for this name.
    pub fn count(&self, name: &str) -> usize {
        self.shared.seen.lock().expect("no holder panics").iter().filter(|seen| seen.is(name)).count()
    }

    /// How many queries there were with this type for names below this one.
    pub fn count_below(&self, domain: &str, qtype: u16) -> usize {
        let queries = Match::default().below(domain).qtype(qtype);
        self.shared.seen.lock().expect("no holder panics").iter().filter(|seen| queries.fits(seen)).count()
    }

    /// How many queries a script lost.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// How many TCP connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until this many queries for this name have arrived.
    #[track_caller]
    pub fn wait_for(&self, name: &str, count: usize) {
        eventually(&format!("{count} upstream queries for {name}"), || self.count(name) >= count);
    }

    /// Closes the sockets: from now on the kernel refuses queries.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.udp.stop.store(true, Ordering::SeqCst);
        // A message, so that the thread checks the flag.
        if let Ok(socket) = UdpSocket::bind((self.address.ip(), 0)) {
            drop(socket.send_to(&[], self.address));
        }
        running.udp.handle.join().expect("the UDP thread ends");
        self.end_tcp(running.tcp);
    }

    /// Closes only the TCP socket: from now on the kernel refuses connections.
    pub fn stop_tcp(&mut self) {
        let tcp = self.running.as_mut().and_then(|running| running.tcp.take());
        self.end_tcp(tcp);
    }

    fn end_tcp(&self, thread: Option<Thread>) {
        let Some(thread) = thread else { return };
        thread.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        thread.handle.join().expect("the TCP thread ends");
    }

    /// Listens again on the same port.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it is running");
        // No other test binds it, but the kernel may still have an old connection.
        eventually("the port is free", || self.listen().is_ok());
    }

    /// What happens for these queries; the newest rule that fits decides.
    pub fn add_rule(&self, queries: Match, script: impl Into<Script>) -> &Self {
        self.shared.rules.lock().expect("no holder panics").0.push(Rule { queries, script: script.into() });
        self
    }

    fn listen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address)?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address)?;
        self.address = address;
        let shared = Arc::clone(&self.shared);
        let udp = Thread::start(move |stop| serve_udp(&socket, &shared, stop));
        let shared = Arc::clone(&self.shared);
        let tcp = Thread::start(move |stop| serve_tcp(&listener, &shared, stop));
        self.running = Some(Running { udp, tcp: Some(tcp) });
        Ok(())
    }
}

impl Thread {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&stop);
        Self { stop, handle: thread::spawn(move || work(&seen)) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Records the query and finds the script for it.
    fn take(&self, query: &[u8], from: SocketAddr, transport: Transport) -> Option<(Script, Question)> {
        let question = Question::parse(query)?;
        let seen = Seen {
            name: question.name.clone(),
            qtype: question.qtype,
            id: u16::from_be_bytes([query[0], query[1]]),
            flags: u16::from_be_bytes([query[2], query[3]]),
            from,
            transport,
            bytes: query.to_vec(),
        };
        let rules = self.rules.lock().expect("no holder panics");
        let script = rules.0.iter().rev().find(|rule| rule.queries.fits(&seen))?.script.clone();
        drop(rules);
        if script.is_lost() && transport == Transport::Udp {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        self.seen.lock().expect("no holder panics").push(seen);
        Some((script, question))
    }
}

/// The remaining queries of a server with a limit.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn takes(&mut self, a_second: u32) -> bool {
        let since = std::mem::replace(&mut self.filled, now());
        let fresh = f64::from(a_second) * self.filled.duration_since(since).as_secs_f64();
        self.tokens = (self.tokens + fresh).min(BURST);
        let is_taken = a_second == 0 || self.tokens >= 1.0;
        if is_taken && a_second > 0 {
            self.tokens -= 1.0;
        }
        is_taken
    }
}

/// The query's question, and where the question section ends.
struct Question {
    name: String,
    qtype: u16,
    end: usize,
    /// The longest datagram that this client accepts.
    payload: usize,
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        let mut name = String::new();
        let mut at = 12;
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?));
            name.push('.');
            at += length;
        }
        if name.is_empty() {
            name.push('.');
        }
        let qtype = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
        let edns = Message::from_vec(query).ok().and_then(|message| message.edns);
        let payload = edns.map_or(512, |edns| usize::from(edns.max_payload().max(512)));
        Some(Self { name, qtype, end: at + 4, payload })
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Arc<Shared>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    let mut bucket = Bucket { tokens: BURST, filled: now() };
    let mut last = None;
    while !stop.load(Ordering::SeqCst) {
        // A port unreachable from a client that left is reported here as an error.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if rand::random_range(0..100) < shared.lost_percent.load(Ordering::SeqCst)
            || !bucket.takes(shared.limit.load(Ordering::SeqCst))
        {
            continue;
        }
        let query = buffer[..length].to_vec();
        let Some((script, question)) = shared.take(&query, from, Transport::Udp) else { continue };
        let previous = last.replace(from);
        let Ok(socket) = socket.try_clone() else { continue };
        play(script, move |step| match step {
            Step::Send(reply) => drop(socket.send_to(&reply.bytes(&query, question.end, question.payload), from)),
            Step::SendFrom(address, reply) => {
                let elsewhere = UdpSocket::bind((*address, 0)).expect("an address of the host");
                drop(elsewhere.send_to(&reply.bytes(&query, question.end, question.payload), from));
            }
            Step::SendToPrevious(reply) => {
                let reply = reply.bytes(&query, question.end, question.payload);
                drop(socket.send_to(&reply, previous.unwrap_or(from)));
            }
            Step::Wait(_) | Step::Hold(_) | Step::Drip(..) | Step::Close | Step::Finish | Step::Mute | Step::Lose => {}
        });
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>, stop: &AtomicBool) {
    let mut streams = Vec::new();
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        streams.extend(stream.try_clone());
        let shared = Arc::clone(shared);
        thread::spawn(move || serve_stream(stream, &shared));
    }
    for stream in streams {
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn serve_stream(mut stream: TcpStream, shared: &Shared) {
    let Ok(from) = stream.peer_addr() else { return };
    while let Ok(query) = read_frame(&mut stream) {
        let Some((script, question)) = shared.take(&query, from, Transport::Tcp) else { continue };
        let finishes = script.finishes();
        let Ok(mut other) = stream.try_clone() else { return };
        play(script, move |step| match step {
            Step::Send(reply) => {
                let message = reply.bytes(&query, question.end, usize::from(u16::MAX));
                drop(other.write_all(&frame(&message)));
            }
            Step::Drip(pause, reply) => {
                for octet in frame(&reply.bytes(&query, question.end, usize::from(u16::MAX))) {
                    if other.write_all(&[octet]).is_err() {
                        return;
                    }
                    thread::sleep(*pause);
                }
            }
            Step::Close => drop(other.shutdown(Shutdown::Both)),
            Step::Finish => drop(other.shutdown(Shutdown::Write)),
            Step::Wait(_) | Step::Hold(_) | Step::SendFrom(..) | Step::SendToPrevious(_) | Step::Mute | Step::Lose => {}
        });
        if finishes {
            drop(io::copy(&mut stream, &mut io::sink()));
            return;
        }
    }
}

/// Runs the steps, on a thread of their own if they take time.
fn play(script: Script, mut act: impl FnMut(&Step) + Send + 'static) {
    let lingers = script.lingers();
    let mut perform = move || {
        for step in &script.steps {
            match step {
                Step::Wait(delay) => thread::sleep(*delay),
                Step::Hold(gate) => gate.wait(),
                step => act(step),
            }
        }
    };
    if lingers {
        thread::spawn(perform);
    } else {
        perform();
    }
}

/// A message after its length in two octets (RFC 1035 4.2.2).
pub fn frame(message: &[u8]) -> Vec<u8> {
    [&short(message.len()).to_be_bytes()[..], message].concat()
}

/// The next message of a stream.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}
