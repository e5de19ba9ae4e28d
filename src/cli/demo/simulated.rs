//! DNS servers for the demonstration: a Route 53 inbound address and a corporate server, on loopback, with a link to
//! them that can be cut.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use hashbrown::HashMap;

use crate::{
    upstream::loops::is_probe,
    wire::{
        Class, Flags, Header, MessageId, Name, NameBuf, Question, Rcode, RecordType, Ttl, record::Section,
        writer::Writer,
    },
};

/// What a name has in a simulated server.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// Addresses.
    Addresses(Vec<Ipv4Addr>),
    /// Another name.
    Alias(Name),
}

/// The names of a simulated server, with one TTL for all.
#[derive(Debug, Clone)]
pub(super) struct Names {
    names: HashMap<Name, Data>,
    ttl: Ttl,
}

/// A server with a link that can be cut.
#[derive(Debug, Clone)]
pub(super) struct Simulated {
    /// Where it listens.
    pub(super) address: SocketAddr,
    link: Arc<Link>,
}

#[derive(Debug, Default)]
struct Link {
    is_cut: AtomicBool,
    ended: AtomicBool,
    questions: AtomicU64,
}

/// How long a blocking read takes before it looks whether the demonstration is over.
const POLL: Duration = Duration::from_millis(100);

impl Names {
    /// From lines of "name address..." and "name -> name".
    pub(super) fn parse(lines: &[&str], ttl: u32) -> Self {
        let mut names = HashMap::new();
        for line in lines {
            let mut words = line.split_whitespace();
            let Some(Ok(name)) = words.next().map(str::parse::<Name>) else { continue };
            let rest: Vec<&str> = words.collect();
            let data = match rest.as_slice() {
                ["->", target] => target.parse().ok().map(Data::Alias),
                addresses => Some(Data::Addresses(addresses.iter().filter_map(|text| text.parse().ok()).collect())),
            };
            names.extend(data.map(|data| (name, data)));
        }
        Self { names, ttl: Ttl::from_wire(ttl) }
    }

    /// The reply to a query, as an inbound endpoint gives it: the whole chain, an SOA where there is nothing.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = Question::read(message).ok()?;
        let mut name = NameBuf::lowercase_of(question.name()).to_name();
        let mut writer = Writer::new(question.name(), question.qtype, question.qclass, 512);
        let mut found = false;
        while let Some(data) = self.names.get(&name) {
            found = true;
            match data {
                Data::Alias(target) => {
                    self.add(&mut writer, &name, RecordType::CNAME, target.as_wire())?;
                    name = target.clone();
                }
                Data::Addresses(addresses) => {
                    for address in addresses.iter().filter(|_| question.qtype == RecordType::A) {
                        self.add(&mut writer, &name, RecordType::A, &address.octets())?;
                    }
                    break;
                }
            }
        }
        let rcode = if found { Rcode::NOERROR } else { Rcode::NXDOMAIN };
        if !found || question.qtype != RecordType::A {
            let soa = b"\0\0\0\0\0\x01\0\0\x0e\x10\0\0\x03\x84\0\x09\x3a\x80\0\0\0\x05";
            let zone = name.parent()?;
            writer.plain(Section::Authority, zone.as_wire(), RecordType::SOA, Class::IN, self.ttl, soa).ok()?;
        }
        let flags = Flags(Flags::QR | Flags::RA | Flags::RD | rcode.0);
        let id = Header::read(message).map_or(MessageId(0), |header| header.id);
        Some(writer.finish(Header { id, flags, counts: [0; 4] }))
    }

    fn add(&self, writer: &mut Writer, name: &Name, rtype: RecordType, rdata: &[u8]) -> Option<usize> {
        writer.plain(Section::Answer, name.as_wire(), rtype, Class::IN, self.ttl, rdata).ok()
    }
}

impl Simulated {
    /// Starts a server on a free port of `ip`, over UDP and TCP.
    pub(super) fn start(ip: Ipv4Addr, names: Names) -> io::Result<Self> {
        let tcp = TcpListener::bind((ip, 0))?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        udp.set_read_timeout(Some(POLL))?;
        let link = Arc::new(Link::default());
        let (names, server) = (Arc::new(names), Self { address, link: Arc::clone(&link) });
        let tcp_names = Arc::clone(&names);
        let tcp_link = Arc::clone(&link);
        thread::Builder::new().name("simulated-udp".to_owned()).spawn(move || serve_udp(&udp, &names, &link))?;
        thread::Builder::new()
            .name("simulated-tcp".to_owned())
            .spawn(move || serve_tcp(&tcp, &tcp_names, &tcp_link))?;
        Ok(server)
    }

    /// Cuts the link: queries go in, nothing comes out.
    pub(super) fn cut(&self) {
        self.link.is_cut.store(true, Ordering::Relaxed);
    }

    /// Mends it.
    pub(super) fn mend(&self) {
        self.link.is_cut.store(false, Ordering::Relaxed);
    }

    /// Whether it is cut.
    pub(super) fn is_cut(&self) -> bool {
        self.link.is_cut.load(Ordering::Relaxed)
    }

    /// Questions of clients for addresses that arrived, also while the link was cut. Probes of health ask for other types.
    pub(super) fn questions(&self) -> u64 {
        self.link.questions.load(Ordering::Relaxed)
    }

    /// Ends the server.
    pub(super) fn end(&self) {
        self.link.ended.store(true, Ordering::Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, names: &Names, link: &Link) {
    let mut buffer = [0; 4096];
    while !link.ended.load(Ordering::Relaxed) {
        let Ok((read, peer)) = socket.recv_from(&mut buffer) else { continue };
        let is_a_clients = |question: Question<'_>| question.qtype == RecordType::A && !is_probe(question.name());
        let is_counted = Question::read(&buffer[..read]).is_ok_and(is_a_clients);
        link.questions.fetch_add(u64::from(is_counted), Ordering::Relaxed);
        if link.is_cut.load(Ordering::Relaxed) {
            continue;
        }
        if let Some(reply) = names.answer(&buffer[..read]) {
            // A peer that is gone has no use for it.
            drop(socket.send_to(&reply, peer));
        }
    }
}

fn serve_tcp(listener: &TcpListener, names: &Names, link: &Link) {
    for stream in listener.incoming() {
        if link.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let mut exchange = || -> io::Result<()> {
            stream.set_read_timeout(Some(POLL))?;
            let mut head = [0; 2];
            stream.read_exact(&mut head)?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(head))];
            stream.read_exact(&mut message)?;
            let Some(reply) = names.answer(&message).filter(|_| !link.is_cut.load(Ordering::Relaxed)) else {
                return Ok(());
            };
            stream.write_all(&u16::try_from(reply.len()).unwrap_or(0).to_be_bytes())?;
            stream.write_all(&reply)
        };
        // One question a connection is enough for a simulation.
        drop(exchange());
    }
}
