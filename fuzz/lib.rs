//! What the targets share: a site without clients or servers of its own, and what must hold for whatever leaves it.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::Duration,
};

use domain::{
    base::{Message, ParsedRecord, Rtype, iana::Rcode, message::Section},
    rdata::AllRecordData,
};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tidegate::{
    admin::control::{Order, OrderReport, OrderResult},
    cache::Cache,
    clock::Moment,
    config::{LogFormat, LogLevel, Plan, ServerAddress},
    daemon::{Daemon, Drain, Event, build_zones, logging},
    engine::{Action, ClientChannel, Context, Engine, Incoming, resolve, snapshot::Snapshot},
    metrics,
    upstream::{
        Group, GroupLimits, GroupSpec, HealthSpec, Loops, OwnAddresses, Policy, ServerSpec, TierMember, UpstreamClient,
        WorkerNumber,
    },
    wire::{MAX_MESSAGE, Name, RecordType, Transport},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

/// Names that are answered in every way there is: here, by rules with and without a guard, and not at all.
pub const SITE: &str = r#"
[server]
chaos = "fuzzed"
allow = ["127.0.0.0/8", "10.0.0.0/8"]
deny = ["10.9.0.0/16"]
[cache]
size = "1MiB"
[upstream.vpc]
servers = ["127.0.0.2:9"]
attempts = 1
hedge = false
timeout = "100ms"
[upstream.site]
servers = ["127.0.0.3:9"]
attempts = 1
hedge = false
timeout = "100ms"
[[forward]]
name = "aws"
zones = ["amazonaws.com", "guarded"]
to = "vpc"
private = ["10.0.0.0/8", "fd00::/8"]
on_public = "refuse"
[[forward]]
name = "stripped"
zones = ["stripped"]
to = "vpc"
private = ["10.0.0.0/8", "fd00::/8"]
on_public = "strip"
[[forward]]
name = "site"
zones = ["open", "corp"]
to = "site"
[[local]]
zone = "lan"
records = [
    "www A 10.1.2.3", "www AAAA fd00::3", "* TXT \"below\"", "alias CNAME www", "away CNAME x.guarded.",
    "loop CNAME pool", "pool CNAME loop", "old DNAME new", "new MX 10 mail", "cut NS ns.cut", "ns.cut A 10.1.2.4",
    "svc HTTPS 1 . alpn=h2 ipv4hint=10.1.2.3",
]
"#;

/// An engine with its worker.
pub struct Site {
    pub context: Context,
    pub snapshot: Arc<Snapshot>,
    runtime: Runtime,
    // One for all tasks: what the client for upstreams starts with its first query serves the later ones.
    tasks: LocalSet,
    reply: RefCell<Vec<u8>>,
}

impl Site {
    /// One whose groups have no server at all.
    pub fn alone() -> Self {
        Self::with(SITE, &[])
    }

    /// One whose groups have these servers, whatever the configuration says.
    pub fn with(configuration: &str, servers: &[SocketAddr]) -> Self {
        let plan = Plan::from_text("fuzz.toml", configuration).unwrap_or_else(|problems| panic!("{problems:?}"));
        let entries = || servers.iter().map(|&address| TierMember::Server(ServerSpec::plain(Transport::Udp, address)));
        let group = |group: &tidegate::config::GroupPlan| {
            let is_fixed = |server: &tidegate::config::ServerPlan| matches!(server.address, ServerAddress::Fixed(_));
            assert!(group.tiers.iter().flatten().all(is_fixed));
            let spec = GroupSpec {
                name: group.name.clone(),
                tiers: vec![entries().collect()],
                policy: Policy::Ordered,
                limits: GroupLimits {
                    timeout: group.timeout,
                    attempts: 1,
                    hedge_budget: None,
                    ..GroupLimits::default()
                },
                health: HealthSpec::probing(Name::root(), RecordType::NS),
            };
            Arc::new(Group::build(&spec, &OwnAddresses::default(), &Arc::default()))
        };
        let groups: Vec<Arc<Group>> = plan.live.groups.iter().map(group).collect();
        let zones = Arc::new(build_zones(&plan.live, None).unwrap_or_else(|problems| panic!("{problems:?}")));
        let rules = metrics::RuleRegistry::new(1);
        let loops = Arc::<Loops>::default();
        let snapshot = Snapshot::build(&plan.live, 1, groups, zones, &rules, &loops);
        let engine = Arc::new(Engine::new(snapshot, Cache::new(1 << 20), loops));
        let snapshot = engine.snapshot_owned();
        let client = Rc::new(UpstreamClient::new(WorkerNumber::ALONE));
        let context = Context::new(engine, client, Arc::new(metrics::WorkerCounters::new(0)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { context, snapshot, runtime, tasks: LocalSet::new(), reply: RefCell::new(vec![0; MAX_MESSAGE]) }
    }

    /// Runs a task as a worker does.
    pub fn run<F: Future>(&self, task: F) -> F::Output {
        self.tasks.block_on(&self.runtime, task)
    }

    /// Starts a task that goes on while others [run](Self::run).
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(self.tasks.spawn_local(task));
    }

    /// What a client gets for a message, at once or after all servers were asked; empty where nothing is due. It is held
    /// to what every reply must be.
    pub fn answer(&self, message: &[u8], client: IpAddr, carrier: ClientChannel) -> Vec<u8> {
        let mut out = self.reply.borrow_mut();
        let incoming = Incoming { message, client, carrier, now: Moment::now() };
        let is_datagram = carrier == ClientChannel::DATAGRAM;
        let room = if is_datagram { usize::from(self.snapshot.udp_payload) } else { MAX_MESSAGE };
        let length =
            match self.context.engine.handle(&self.snapshot, &self.context.counters, &incoming, &mut out[..room]) {
                Action::Drop => 0,
                Action::Reply(length) | Action::ReplyAndRefresh(length, _) => length,
                Action::Resolve(query) => {
                    let reply = self.run(resolve::resolve(&self.context, &query));
                    reply.write(&self.context, &query, &mut out)
                }
            };
        let reply = out[..length].to_vec();
        if !reply.is_empty() {
            assert!(reply.len() <= room, "a datagram of {} octets", reply.len());
            hold(message, &reply);
        }
        reply
    }

    /// Forgets all that was answered before: an input must not depend on those before it.
    pub fn forget(&self) {
        self.context.engine.cache.clear();
        self.context.engine.failures.clear();
    }
}

/// The same site as a daemon of this process, for what comes over connections.
pub struct Live {
    /// Where it answers over TCP.
    pub tcp: SocketAddr,
    /// Where it speaks plain HTTP, behind a PROXY header.
    pub http: Option<SocketAddr>,
    /// Where it speaks DNS over QUIC, with [`CERTIFICATE`].
    pub quic: Option<SocketAddr>,
    // Only kept alive; it cannot be shared by itself.
    _daemon: Mutex<Daemon>,
}

impl Live {
    /// One that talks to clients.
    pub fn direct() -> Self {
        Self::of(start("", ""))
    }

    /// One that talks to a balancer.
    pub fn behind_a_balancer() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let server = format!("proxy_protocol = [\"127.0.0.0/8\"]\ntls.https = [\"http://{free}\"]");
        Self { http: Some(free), ..Self::of(start(&server, "")) }
    }

    /// One that speaks DNS over QUIC too.
    pub fn with_quic() -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let folder = tempfile::tempdir().expect("the folder is writable");
        let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
        std::fs::write(&chain, CERTIFICATE.cert.pem()).expect("the folder is writable");
        std::fs::write(&key, CERTIFICATE.signing_key.serialize_pem()).expect("the folder is writable");
        let tls = format!("[server.tls]\nquic = [\"{free}\"]\ncertificate = {chain:?}\nkey = {key:?}\n");
        Self { quic: Some(free), ..Self::of(start("", &tls)) }
    }

    fn of(daemon: Daemon) -> Self {
        Self { tcp: daemon.addresses()[0], http: None, quic: None, _daemon: Mutex::new(daemon) }
    }
}

/// Of the server that speaks DNS over QUIC.
pub static CERTIFICATE: LazyLock<CertifiedKey<KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed(["dns.example".to_owned()]).expect("a certificate"));

/// Starts a daemon with these keys of `[server]`, and these tables.
fn start(server: &str, tables: &str) -> Daemon {
    let more = format!(
        "{}[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n{server}\n",
        if tables.contains("[admin]") { "" } else { "[admin]\nhttp = \"\"\nsocket = \"\"\n" }
    );
    let text = SITE.replacen("[server]\n", &more, 1) + tables;
    let plan = Plan::from_text("fuzz.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    Daemon::start(&plan.boot, plan.live, None).unwrap_or_else(|error| panic!("{error}"))
}

/// Starts a daemon that carries out orders, and returns its control socket. Those that would end it or read a file are
/// refused.
pub fn serve_orders() -> PathBuf {
    let folder = tempfile::tempdir().expect("the folder is writable").keep();
    let socket = folder.join("control.sock");
    let mut daemon = start("", &format!("[admin]\nhttp = \"\"\nsocket = {socket:?}\n"));
    let log = logging::start(LogLevel::Error, LogFormat::Json);
    let carry_out = move |daemon: &Daemon, order: Order| -> OrderResult {
        let refused = |text: &str| Err(OrderReport::new(vec![text.to_owned()]));
        match order {
            Order::Drain(server) => daemon.set_drained(&server, Drain::Begin),
            Order::Undrain(server) => daemon.set_drained(&server, Drain::End),
            Order::Flush(what) => Ok(daemon.flush(&what)),
            Order::Log(directives) => {
                let changed = logging::change(&log.level, LogLevel::Error, &directives);
                logging::set(&log.level, LogLevel::Error);
                changed.map_or_else(|error| refused(&error.to_string()), |()| Ok(OrderReport::new(vec![directives])))
            }
            Order::Reload => refused("there is no file"),
            Order::HandOver(_) => refused("it goes on"),
        }
    };
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Rust's start ignores SIGPIPE, libFuzzer's does not: a client that is gone must not end the process.
        drop(runtime.block_on(async { signal(SignalKind::pipe()) }).expect("a signal that can be handled"));
        while let Event::Order(request) = runtime.block_on(daemon.next()) {
            // The sender may be gone.
            drop(request.reply.send(carry_out(&daemon, request.order)));
        }
    };
    thread::Builder::new().name("orders".to_owned()).spawn(work).expect("a thread");
    socket
}

/// What comes back for octets that are written piece by piece; the server must end the connection.
pub fn converse(address: SocketAddr, cuts: &[u8], octets: &[u8]) -> Vec<u8> {
    let client = TcpStream::connect(address).expect("it accepts");
    client.set_nodelay(true).expect("an option that is always there");
    converse_with(client, cuts, octets)
}

/// The same on a connection of any kind.
pub fn converse_with(mut client: impl Client, cuts: &[u8], octets: &[u8]) -> Vec<u8> {
    write_pieces(&mut client, cuts, octets);
    client.end();
    read_rest(client)
}

/// Writes octets in up to five pieces.
pub fn write_pieces(client: &mut impl Client, cuts: &[u8], octets: &[u8]) {
    let mut rest = octets;
    for cut in cuts.iter().take(4) {
        let (now, later) = rest.split_at(rest.len().min(usize::from(*cut)));
        // It may have been closed for what came before.
        drop(client.write_all(now));
        rest = later;
    }
    drop(client.write_all(rest));
}

/// What comes until the server ends the connection.
pub fn read_rest(mut client: impl Client) -> Vec<u8> {
    client.limit_reads(Duration::from_secs(8));
    let mut replies = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return replies,
            Ok(length) => replies.extend_from_slice(&buffer[..length]),
            // libFuzzer's alarm.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection does not end"),
            // A reset throws away what was not read yet, and perhaps half a reply.
            Err(_) => return Vec::new(),
        }
    }
}

/// A client's end of a connection.
pub trait Client: Read + Write {
    /// Sets the time that a read may take.
    fn limit_reads(&self, time: Duration);
    /// Says that nothing more comes.
    fn end(&self);
}

impl Client for TcpStream {
    fn limit_reads(&self, time: Duration) {
        self.set_read_timeout(Some(time)).expect("a positive time-out");
    }

    fn end(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

impl Client for UnixStream {
    fn limit_reads(&self, time: Duration) {
        self.set_read_timeout(Some(time)).expect("a positive time-out");
    }

    fn end(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

/// The first framed message (RFC 1035 4.2.2), and what stands behind it.
pub fn first_frame(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A PROXY header, version 2, of an IPv4 client that is served.
pub fn proxy_header() -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[10, 1, 1, 1, 127, 0, 0, 1, 0x30, 0x39, 0, 53]].concat()
}

/// A client that is served.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1));

/// Holds a reply to its query, by what NLnet Labs' `domain` reads.
pub fn hold(query: &[u8], reply: &[u8]) {
    assert_eq!(reply[..2], query[..2], "the id");
    let reply = Message::from_octets(reply).expect("it has a header");
    let header = reply.header();
    assert!(header.qr(), "it is a response");
    let opcode = query[2] >> 3 & 15;
    assert_eq!(header.opcode().to_int(), opcode, "the opcode");
    if opcode != 0 {
        // What stands behind the header of another kind of message, a query need not look like.
        assert_eq!((header.rcode(), reply.as_slice().len()), (Rcode::NOTIMP, 12), "the header alone");
        return;
    }
    let mut options = 0;
    for record in reply.iter() {
        let (record, _) = record.expect("every record can be read");
        options += usize::from(record.rtype() == Rtype::OPT);
    }
    assert!(options <= 1, "{options} OPT records");
    if header.tc() {
        assert_eq!(reply.header_counts().ancount(), 0, "truncated answers are empty");
    }
    if let Ok(asked) = Message::from_octets(query).expect("it has a header").sole_question()
        && header.rcode() != Rcode::FORMERR
    {
        let told = reply.sole_question().expect("the question comes back");
        assert_eq!((told.qtype(), told.qclass()), (asked.qtype(), asked.qclass()));
        assert_eq!(told.qname().to_string(), asked.qname().to_string(), "in its letter case");
    }
}

/// Every address in a message, hints of services included.
pub fn addresses(message: &[u8]) -> Vec<IpAddr> {
    use domain::rdata::svcb::value::AllValues;

    let message = Message::from_octets(message).expect("it has a header");
    let mut found = Vec::new();
    for record in message.iter() {
        let (record, section): (ParsedRecord<'_, _>, Section) = record.expect("every record can be read");
        let Ok(record) = record.to_any_record::<AllRecordData<_, _>>() else { continue };
        let mut hints = |values: &mut dyn Iterator<Item = AllValues<&[u8]>>| {
            for value in values {
                match value {
                    AllValues::Ipv4Hint(hint) => found.extend(hint.iter().map(IpAddr::V4)),
                    AllValues::Ipv6Hint(hint) => found.extend(hint.iter().map(IpAddr::V6)),
                    _ => {}
                }
            }
        };
        match record.data() {
            AllRecordData::Svcb(data) => hints(&mut data.params().iter_all().flatten()),
            AllRecordData::Https(data) => hints(&mut data.params().iter_all().flatten()),
            AllRecordData::A(data) => found.push(IpAddr::V4(data.addr())),
            AllRecordData::Aaaa(data) => found.push(IpAddr::V6(data.addr())),
            _ => {}
        }
        let _ = section;
    }
    found
}
