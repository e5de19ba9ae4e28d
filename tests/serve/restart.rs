//! Restarts under load: listening sockets live on in systemd's store, in a socket unit or in a successor, and no query is
//! lost. systemd is played by the test: a notification socket that keeps descriptors, and a shell that passes them on.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{ErrorKind, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::symlink, net::UnixDatagram},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{
    PATIENCE,
    config::{Config, ONE_PATIENT_TRY},
    eventually, now,
    query::Query,
    tidegate::Tidegate,
    upstream::Upstream,
};

const RESTARTS: usize = 5;
/// Queries a second.
const RATE: u128 = 2000;
/// Queries that wait at a time: fewer than a receive buffer holds, however slow the machine is.
const MOST_WAITING: usize = 300;

/// A client that asks without a pause for a name that is cached.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Load {
    fn on(server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self { stop, thread: thread::spawn(move || ask_until(&told, server)) }
    }

    /// Stops it, and holds it to an answer for each query.
    #[track_caller]
    fn assert_nothing_lost(self) {
        self.stop.store(true, Relaxed);
        let (sent, lost) = self.thread.join().expect("the load does not panic");
        assert!(sent > 100, "{sent} queries are no load");
        assert_eq!(lost, 0, "of {sent} queries");
    }
}

/// How many queries it sent, and how many of them had no answer.
fn ask_until(stop: &AtomicBool, server: SocketAddr) -> (usize, usize) {
    // Several ports, so that the kernel spreads them over all sockets.
    let sockets: Vec<UdpSocket> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port")).collect();
    for socket in &sockets {
        socket.connect(server).expect("a route");
        socket.set_nonblocking(true).expect("a socket");
    }
    let mut query = Query::a("www.example.").bytes();
    let (mut waiting, mut sent) = (HashSet::new(), 0);
    let mut start = now();
    let mut since = 0;
    let mut end = None;
    loop {
        let due = usize::try_from(start.elapsed().as_micros() * RATE / 1_000_000).expect("not that long");
        while end.is_none() && since < due && waiting.len() < MOST_WAITING {
            let at = sent % sockets.len();
            let id = u16::try_from(sent / sockets.len() % 65_536).expect("16 bits");
            query[..2].copy_from_slice(&id.to_be_bytes());
            // A port that was closed for a moment is an error, and a lost query.
            drop(sockets[at].send(&query));
            waiting.insert((at, id));
            (sent, since) = (sent + 1, since + 1);
        }
        if waiting.len() >= MOST_WAITING {
            (start, since) = (now(), 0);
        }
        for (at, socket) in sockets.iter().enumerate() {
            let mut reply = [0; 512];
            loop {
                match socket.recv(&mut reply) {
                    Ok(length) if length > 12 && reply[3] & 0x0F == 0 => {
                        waiting.remove(&(at, u16::from_be_bytes([reply[0], reply[1]])));
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
        }
        if stop.load(Relaxed) {
            let end = end.get_or_insert_with(now);
            if waiting.is_empty() || end.elapsed() > PATIENCE {
                return (sent, waiting.len());
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What systemd is to the daemon: it keeps sockets and passes them on.
pub(crate) struct Systemd {
    folder: TempDir,
    notify: UnixDatagram,
    pub(crate) held: Vec<(String, OwnedFd)>,
    /// Names that were removed from the store.
    removed: Vec<String>,
}

impl Systemd {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let notify = UnixDatagram::bind(folder.path().join("notify")).expect("the folder is writable");
        notify.set_nonblocking(true).expect("a socket");
        Self { folder, notify, held: Vec::new(), removed: Vec::new() }
    }

    pub(crate) fn with(sockets: impl IntoIterator<Item = (&'static str, OwnedFd)>) -> Self {
        let held = sockets.into_iter().map(|(name, socket)| (name.to_owned(), socket)).collect();
        Self { held, ..Self::new() }
    }

    /// Starts the daemon with all that is held, and keeps what it stores.
    #[track_caller]
    pub(crate) fn start(&mut self, config: &Config) -> Tidegate {
        // Above all that the shell and the daemon use, and inherited.
        let high = |(_, socket): &(String, OwnedFd)| {
            let copy = fcntl_dupfd_cloexec(socket, 200).expect("there are descriptors left");
            fcntl_setfd(&copy, FdFlags::empty()).expect("it is open");
            copy
        };
        let copies: Vec<OwnedFd> = self.held.iter().map(high).collect();
        let passed = copies.iter().enumerate().map(|(at, copy)| format!("{}<&{}", at + 3, copy.as_raw_fd()));
        let closed = copies.iter().map(|copy| format!("{}<&-", copy.as_raw_fd()));
        let redirections: Vec<String> = passed.chain(closed).collect();
        let names: Vec<&str> = self.held.iter().map(|(name, _)| name.as_str()).collect();
        let script = format!(
            "export NOTIFY_SOCKET='{}' LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES='{}'; exec \"$@\" {}",
            self.folder.path().join("notify").display(),
            copies.len(),
            names.join(":"),
            redirections.join(" "),
        );
        let script = if copies.is_empty() { script.replace("LISTEN_FDNAMES=''", "") } else { script };
        let tidegate = Tidegate::start_by(&["bash", "-c", &script, "bash"], config);
        self.listen();
        tidegate
    }

    /// Takes in all notifications that are there.
    fn listen(&mut self) {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffer = [0; 4096];
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let Ok(read) = recvmsg(&self.notify, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) else { return };
            let text = String::from_utf8_lossy(&buffer[..read.bytes]).into_owned();
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
            let name = value("FDNAME=").unwrap_or_default();
            for message in control.drain() {
                let RecvAncillaryMessage::ScmRights(sockets) = message else { continue };
                assert!(value("FDSTORE=").is_some() && !name.contains(':'), "{text}");
                self.held.extend(sockets.map(|socket| (name.clone(), socket)));
            }
            if value("FDSTOREREMOVE=").is_some() {
                self.held.retain(|(held, _)| *held != name);
                self.removed.push(name);
            }
        }
    }
}

fn config(upstream: &Upstream, listen: SocketAddr) -> Config {
    Config::forwarding_to(&[upstream]).section("server", "workers = 2").listen(&[&listen.to_string()])
}

pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

#[test]
fn a_restart_with_the_descriptor_store_loses_no_query() {
    let upstream = Upstream::answering("10.0.0.1");
    let mut systemd = Systemd::new();
    let mut tidegate = systemd.start(&config(&upstream, ANY_PORT.parse().expect("an address")));
    let address = tidegate.address();
    assert_eq!(systemd.held.len(), 4, "a UDP and a TCP socket for each worker");
    tidegate.client().ask(&Query::a("www.example."));

    let load = Load::on(address);
    for _ in 0..RESTARTS {
        tidegate.signal("TERM");
        assert_eq!(tidegate.wait().code(), Some(0));
        // It connects while nobody runs.
        let mut stream = tidegate.client().stream();
        stream.send(&Query::a("www.example."));
        tidegate = systemd.start(&config(&upstream, address));
        assert_eq!(stream.receive().address_texts(), ["10.0.0.1"]);
        assert_eq!(systemd.held.len(), 4, "nothing is stored twice");
    }
    load.assert_nothing_lost();
    assert_eq!(systemd.removed, [] as [String; 0]);
}

#[test]
fn a_restart_under_socket_activation_loses_no_query_and_reads_every_socket() {
    let upstream = Upstream::answering("10.0.0.1");
    // More UDP sockets than workers, and fewer TCP listeners.
    let udp = |address: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("a socket");
        socket.bind(&address.into()).expect("a free port");
        socket
    };
    let first = udp(ANY_PORT.parse().expect("an address"));
    let address = first.local_addr().expect("it is bound").as_socket().expect("an internet address");
    let mut sockets: Vec<(&str, OwnedFd)> = vec![("dns", first.into())];
    sockets.extend((0..4).map(|_| ("dns", OwnedFd::from(udp(address)))));
    sockets.push(("dns", TcpListener::bind(address).expect("a free port").into()));
    let mut systemd = Systemd::with(sockets);
    let config = config(&upstream, address);
    let mut tidegate = systemd.start(&config);

    let load = Load::on(address);
    for _ in 0..RESTARTS {
        assert_eq!(tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        tidegate.signal("TERM");
        assert_eq!(tidegate.wait().code(), Some(0));
        tidegate = systemd.start(&config);
    }
    load.assert_nothing_lost();
    assert_eq!(systemd.held.len(), 6, "the socket unit has them: none goes into the store");
}

#[test]
fn missing_sockets_are_bound_and_strangers_are_named_and_leave_the_store() {
    let upstream = Upstream::answering("10.0.0.1");
    let (udp, stranger) = (UdpSocket::bind(ANY_PORT), UdpSocket::bind(ANY_PORT));
    let (udp, stranger) = (udp.expect("a free port"), stranger.expect("a free port"));
    let (address, strange) = (udp.local_addr().expect("it is bound"), stranger.local_addr().expect("it is bound"));
    let mut systemd = Systemd::with([("dns", udp.into()), ("old", stranger.into())]);
    let tidegate = systemd.start(&config(&upstream, address));

    tidegate.await_logged("WARN", &format!("does not listen on {strange} (UDP)"));
    assert_eq!(systemd.removed, ["old"]);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    let stored: HashSet<&str> = systemd.held.iter().map(|(name, _)| name.as_str()).collect();
    let tcp = format!("TCP-{address}").replace(':', "_");
    assert_eq!(stored, HashSet::from(["dns", tcp.as_str()]), "what it bound itself is stored");
    // The stranger is closed: with ours gone too, its port is free again.
    systemd.held.clear();
    eventually("the port of the stranger is free", || UdpSocket::bind(strange).is_ok());
}

/// A daemon with a control socket at `socket`, by default on free ports.
pub(crate) fn with_socket(upstream: &Upstream, socket: &PathBuf, ports: Option<(SocketAddr, SocketAddr)>) -> Config {
    let any = ANY_PORT.parse().expect("an address");
    let (listen, admin) = ports.unwrap_or((any, any));
    Config::without_admin()
        .upstream("site", &[upstream], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "")
        .section("admin", &format!("http = \"{admin}\"\nsocket = {socket:?}"))
        .section("server", "workers = 2")
        .listen(&[&listen.to_string()])
}

pub(crate) const TAKEOVER: [&str; 4] = ["bash", "-c", "exec \"$@\" --takeover", "bash"];

#[test]
fn a_takeover_loses_no_query_and_ends_the_daemon_before() {
    let upstream = Upstream::answering("10.0.0.1");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    // Where nobody runs it is a start like any other.
    let mut tidegate = Tidegate::start_by(&TAKEOVER, &with_socket(&upstream, &socket, None));
    let ports = (tidegate.address(), tidegate.admin_address());
    let load = Load::on(tidegate.address());
    for _ in 0..RESTARTS {
        let next = Tidegate::start_by(&TAKEOVER, &with_socket(&upstream, &socket, Some(ports)));
        assert_eq!(tidegate.wait().code(), Some(0), "the one before ends");
        tidegate = next;
        assert_eq!(tidegate.client().ask_over_tcp(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        assert_eq!(tidegate.get("/healthz").0, 200, "the operators' HTTP has gone over too");
        assert!(socket.exists(), "the control socket is the successor's");
    }
    load.assert_nothing_lost();
}

#[test]
fn a_silent_upstream_holds_the_end_up_for_300_ms_at_most_once_another_took_over() {
    let upstream = Upstream::answering("10.0.0.1");
    let silent = Upstream::start();
    silent.on_type(crate::support::query::rtype::A, crate::support::script::Script::silence());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    let mut tidegate = Tidegate::start(&with_socket(&silent, &socket, None));
    let ports = (tidegate.address(), tidegate.admin_address());
    let client = tidegate.client().socket();
    client.send(&Query::a("www.example."));
    silent.wait_for("www.example.", 1);
    let _next = Tidegate::start_by(&TAKEOVER, &with_socket(&upstream, &socket, Some(ports)));
    let start = now();
    assert_eq!(tidegate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "not the 3 s of the try: {:?}", start.elapsed());
}

/// The path to send the sockets to goes to the other process as JSON, and without links in it.
#[test]
fn a_takeover_by_a_path_that_is_not_utf_8_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (place, link) = (folder.path().join(OsStr::from_bytes(b"\xff")), folder.path().join("link"));
    std::fs::create_dir(&place).expect("the folder is writable");
    symlink(&place, &link).expect("the folder is writable");
    let socket = link.join("control.sock").display().to_string();
    let words = ["serve", "--takeover", "--listen", "127.0.0.1:0", "--default", "127.0.0.1:9", "--socket", &socket];
    let output = crate::support::tidegate::run(&words);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs a path in UTF-8"), "{output:?}");
}

#[test]
fn a_takeover_that_fails_leaves_the_daemon_as_it_is() {
    let upstream = Upstream::answering("10.0.0.1");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    let tidegate = Tidegate::start(&with_socket(&upstream, &socket, None));
    let taken = UdpSocket::bind(ANY_PORT).expect("a free port");
    let other = taken.local_addr().expect("it is bound");
    let listen = [tidegate.address().to_string(), other.to_string()];
    let config = with_socket(&upstream, &socket, Some((tidegate.address(), tidegate.admin_address())))
        .listen(&[&listen[0], &listen[1]]);
    let file = folder.path().join("next.toml");
    std::fs::write(&file, config.text()).expect("the folder is writable");
    let output = crate::support::tidegate::run(&["serve", "--takeover", "--config", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "its second address is taken");
    tidegate.await_logged("WARN", "ended before it was ready; this one goes on");
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert!(socket.exists());
    drop(taken);
    // Another one may try.
    let _next = Tidegate::start_by(
        &TAKEOVER,
        &with_socket(&upstream, &socket, Some((tidegate.address(), tidegate.admin_address()))),
    );
}
