//! dnstap: what a collector is sent, and what becomes of queries while it is away.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    thread,
};

use crate::support::{config::Config, eventually, query::Query, tidegate::Tidegate, upstream::Upstream};

const CLIENT_QUERY: u64 = 5;
const CLIENT_RESPONSE: u64 = 6;
const FORWARDER_QUERY: u64 = 7;
const FORWARDER_RESPONSE: u64 = 8;

const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// A collector that keeps the data frames it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    frames: Vec<Vec<u8>>,
    finished: usize,
    /// Closes connections after so many frames.
    most: Option<usize>,
}

impl Collector {
    fn serve(self, mut accept: impl FnMut() -> io::Result<Box<dyn Connection>> + Send + 'static) {
        thread::spawn(move || {
            while let Ok(mut connection) = accept() {
                // Whatever ends it, the next one may come.
                drop(self.collect(&mut *connection));
            }
        });
    }

    fn on_unix(&self, path: &Path) {
        let listener = UnixListener::bind(path).expect("a path of its own");
        self.clone().serve(move || Ok(Box::new(listener.accept()?.0)));
    }

    /// Listens and gives its address.
    fn on_tcp(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        self.clone().serve(move || Ok(Box::new(listener.accept()?.0)));
        address.to_string()
    }

    fn collect(&self, stream: &mut dyn Connection) -> io::Result<()> {
        let ready = read_control(stream)?;
        assert_eq!((ready[3], &ready[12..]), (4, CONTENT_TYPE), "READY with the content type");
        stream.write_all(&control(1))?;
        let start = read_control(stream)?;
        assert_eq!((start[3], &start[12..]), (2, CONTENT_TYPE), "START with the content type");
        loop {
            let length = read_number(stream)?;
            if length == 0 {
                let length = read_number(stream)?;
                assert_eq!(read(stream, length)?[3], 3, "STOP");
                stream.write_all(&[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5])?;
                self.0.lock().expect("no holder panics").finished += 1;
                return Ok(());
            }
            let frame = read(stream, length)?;
            let mut collected = self.0.lock().expect("no holder panics");
            collected.frames.push(frame);
            if collected.most.is_some_and(|most| collected.frames.len() >= most) {
                collected.most = None;
                return Ok(());
            }
        }
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("no holder panics").frames.clone()
    }

    /// The messages whose octets hold this label.
    fn messages_about(&self, label: &str) -> Vec<Tapped> {
        let holds = |tapped: &Tapped| tapped.message.windows(label.len()).any(|part| part == label.as_bytes());
        self.frames().iter().map(|frame| Tapped::read(frame)).filter(holds).collect()
    }
}

fn read_number(stream: &mut dyn Connection) -> io::Result<u32> {
    let mut octets = [0; 4];
    stream.read_exact(&mut octets)?;
    Ok(u32::from_be_bytes(octets))
}

fn read(stream: &mut dyn Connection, length: u32) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; usize::try_from(length).expect("a length")];
    stream.read_exact(&mut octets)?;
    Ok(octets)
}

fn read_control(stream: &mut dyn Connection) -> io::Result<Vec<u8>> {
    assert_eq!(read_number(stream)?, 0, "the escape of a control frame");
    let length = read_number(stream)?;
    read(stream, length)
}

/// A control frame with the content type.
fn control(kind: u8) -> Vec<u8> {
    let body = [&[0, 0, 0, kind, 0, 0, 0, 1, 0, 0, 0, 22], CONTENT_TYPE].concat();
    [&[0, 0, 0, 0, 0, 0, 0, 34][..], &body].concat()
}

/// The fields of a protobuf message: numbers as they are, octets.
fn fields(mut octets: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    fn varint(octets: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&first, rest) = octets.split_first().expect("a whole number");
            *octets = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first < 0x80 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !octets.is_empty() {
        let tag = varint(&mut octets);
        let (number, length) = match tag & 7 {
            0 => (varint(&mut octets), 0),
            2 => (0, usize::try_from(varint(&mut octets)).expect("a length")),
            5 => (0, 4),
            other => panic!("wire type {other}"),
        };
        let (value, rest) = octets.split_at(length);
        octets = rest;
        fields.push((tag >> 3, number, value.to_vec()));
    }
    fields
}

#[derive(Debug)]
struct Tapped {
    kind: u64,
    protocol: u64,
    query_address: Vec<u8>,
    response_address: Vec<u8>,
    query_seconds: u64,
    response_seconds: Option<u64>,
    message: Vec<u8>,
}

impl Tapped {
    fn read(frame: &[u8]) -> Self {
        let outer = fields(frame);
        let octets = |fields: &[(u64, u64, Vec<u8>)], tag| {
            fields.iter().find(|field| field.0 == tag).map(|field| field.2.clone())
        };
        let version = octets(&outer, 2).expect("a version");
        assert!(version.starts_with(b"tidegate "), "{version:?}");
        assert!(outer.iter().any(|field| (field.0, field.1) == (15, 1)), "the type MESSAGE");
        let inner = fields(&octets(&outer, 14).expect("a message"));
        let number = |tag| inner.iter().find(|field| field.0 == tag).map(|field| field.1);
        Self {
            kind: number(1).expect("a type"),
            protocol: number(3).expect("a protocol"),
            query_address: octets(&inner, 4).unwrap_or_default(),
            response_address: octets(&inner, 5).unwrap_or_default(),
            query_seconds: number(8).expect("the query's time"),
            response_seconds: number(12),
            message: octets(&inner, 10).or_else(|| octets(&inner, 14)).expect("the octets"),
        }
    }
}

fn config(upstream: &Upstream, target: &str) -> Config {
    Config::forwarding_to(&[upstream]).section("log", &format!("dnstap = \"{target}\""))
}

/// A miss over UDP and a hit over TCP, as the collector sees them.
fn is_told_of_both_sides(target: &str, collector: &Collector) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, target));
    let client = tidegate.client();
    let query = Query::a("www.example.");
    client.ask(&query);
    client.ask_over_tcp(&Query::a("www.example."));
    eventually("six messages", || collector.messages_about("example").len() >= 6);
    let messages = collector.messages_about("example");
    let seen: Vec<(u64, u64)> = messages.iter().map(|tapped| (tapped.kind, tapped.protocol)).collect();
    let (udp, tcp) = (1, 2);
    assert_eq!(
        seen,
        [
            (CLIENT_QUERY, udp),
            (FORWARDER_QUERY, udp),
            (FORWARDER_RESPONSE, udp),
            (CLIENT_RESPONSE, udp),
            (CLIENT_QUERY, tcp),
            (CLIENT_RESPONSE, tcp)
        ]
    );
    for tapped in &messages {
        let is_response = matches!(tapped.kind, CLIENT_RESPONSE | FORWARDER_RESPONSE);
        let is_client = matches!(tapped.kind, CLIENT_QUERY | CLIENT_RESPONSE);
        assert_eq!(tapped.message[2] & 0x80 != 0, is_response, "QR: {tapped:?}");
        assert_eq!(tapped.response_seconds.is_some(), is_response, "{tapped:?}");
        assert!(tapped.response_seconds.is_none_or(|time| time >= tapped.query_seconds), "{tapped:?}");
        assert!(tapped.query_seconds > 1_700_000_000, "{tapped:?}");
        let (client, server) = (&tapped.query_address[..], &tapped.response_address[..]);
        assert_eq!(
            (client, server),
            if is_client { (&[127, 0, 0, 1][..], &[][..]) } else { (&[][..], &[127, 0, 0, 1][..]) }
        );
    }
    assert_eq!(messages[1].message[..2], messages[2].message[..2], "the id towards the server");
    assert!(messages[3].message.ends_with(&[10, 0, 0, 1]), "{:?}", messages[3]);
    assert_eq!(tidegate.metric("tidegate_log_dropped_total", &[("sink", "dnstap")]), 0.0);
    assert!(tidegate.stop().success());
    eventually("the stream ends in order", || collector.0.lock().expect("no holder panics").finished == 1);
}

#[test]
fn a_collector_on_a_unix_socket_is_told_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let collector = Collector::default();
    collector.on_unix(&path);
    is_told_of_both_sides(&format!("unix:{}", path.display()), &collector);
}

#[test]
fn a_collector_on_tcp_is_told_of_both_sides_and_dnstap_read_reads_it() {
    let collector = Collector::default();
    let address = collector.on_tcp();
    is_told_of_both_sides(&format!("tcp:{address}"), &collector);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tap");
    let mut stored = control(2);
    for frame in collector.frames() {
        stored.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        stored.extend(frame);
    }
    stored.extend([0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
    fs::write(&file, stored).unwrap();
    // Package bind9-dnsutils; where it is missing, the reader above has the word.
    let Ok(read) = Command::new("dnstap-read").arg(&file).output() else { return };
    let said = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(read.status.success(), "{said}{}", String::from_utf8_lossy(&read.stderr));
    for kind in [" CQ ", " CR ", " FQ ", " FR "] {
        assert!(said.lines().any(|line| line.contains(kind) && line.contains("www.example/IN/A")), "{kind}: {said}");
    }
}

#[test]
fn a_collector_that_comes_late_or_goes_gets_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, &format!("unix:{}", path.display())));
    let client = tidegate.client();
    client.ask(&Query::a("early.example."));
    tidegate.await_logged("WARN", "no dnstap messages reach unix:");
    let collector = Collector::default();
    collector.0.lock().expect("no holder panics").most = Some(4);
    collector.on_unix(&path);
    eventually("what waited", || collector.messages_about("early").len() == 4);
    // It closed the connection behind the fourth, and is found again.
    let mut asked = 0;
    eventually("messages on another connection", || {
        asked += 1;
        client.ask(&Query::a(&format!("later{asked}.example.")));
        !collector.messages_about("later").is_empty()
    });
    eventually("the log says so", || tidegate.logged("INFO", "dnstap messages go to unix:").len() >= 2);
}

#[test]
fn a_collector_that_takes_nothing_costs_messages_and_no_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    // It accepts, and never answers the handshake.
    let listener = UnixListener::bind(&path).unwrap();
    let (hold, _held): (Sender<_>, _) = channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            drop(hold.send(stream));
        }
    });
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, &format!("unix:{}", path.display())));
    let client = tidegate.client();
    let dropped = || tidegate.metric("tidegate_log_dropped_total", &[("sink", "dnstap")]);
    let mut asked = 0;
    while dropped() < 1.0 {
        assert!(asked < 20_000, "the queue has a bound");
        for _ in 0..500 {
            assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        }
        asked += 500;
    }
    assert!(tidegate.stop().success(), "nor does it hold up the end");
}
