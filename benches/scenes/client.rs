//! A client that asks at a steady rate, whatever the answers do, and notes how each question fared.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use tidegate::clock::Moment;

use crate::{
    Result,
    scripted::upstream::{frame, read_frame},
};

/// How long an answer is waited for: stub resolvers give up then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at the socket.
const NAP: Duration = Duration::from_micros(100);

/// What came of one question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    /// From question to answer; none if there was none.
    pub(crate) took: Option<Duration>,
    /// The address, if it was NOERROR with one.
    pub(crate) address: Option<Ipv4Addr>,
    /// Its TTL.
    pub(crate) ttl: u32,
    /// Whether it carried the extended error 3, Stale Answer.
    pub(crate) is_marked_stale: bool,
}

impl Fate {
    const NONE: Self = Self { took: None, address: None, ttl: 0, is_marked_stale: false };

    /// Whether it was NOERROR with an address.
    pub(crate) const fn is_good(&self) -> bool {
        self.address.is_some()
    }
}

/// Asks for `count` names, `rate` a second. `name` gives the `n`th name's first label; `at` is called before each.
/// What is truncated is asked again over TCP.
pub(crate) fn ask(
    server: SocketAddr,
    count: usize,
    rate: u32,
    name: impl Fn(usize) -> String,
    mut at: impl FnMut(usize),
) -> Result<Vec<Fate>> {
    let mut client = Client::new(server, count)?;
    let start = Moment::now();
    loop {
        let now = Moment::now();
        while client.asked.len() < count
            && now >= start + Duration::from_secs(1) * u32::try_from(client.asked.len())? / rate
        {
            at(client.asked.len());
            client.send(&name(client.asked.len()));
        }
        if client.receive()? {
            continue;
        }
        let is_over = client.asked.last().is_some_and(|last| now.since(last.at) > PATIENCE);
        if client.asked.len() == count && (client.answered == count || is_over) {
            return Ok(client.fates);
        }
        thread::sleep(NAP);
    }
}

struct Client {
    server: SocketAddr,
    socket: UdpSocket,
    asked: Vec<Asked>,
    fates: Vec<Fate>,
    answered: usize,
    over_tcp: (Sender<Late>, Receiver<Late>),
}

struct Asked {
    at: Moment,
    question: Vec<u8>,
    is_over_udp: bool,
}

/// The answer over TCP to one of the questions.
struct Late {
    place: usize,
    message: Vec<u8>,
}

impl Client {
    fn new(server: SocketAddr, count: usize) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let (asked, fates) = (Vec::with_capacity(count), vec![Fate::NONE; count]);
        Ok(Self { server, socket, asked, fates, answered: 0, over_tcp: mpsc::channel() })
    }

    fn send(&mut self, label: &str) {
        let question = question(self.asked.len(), label);
        // What the kernel has no room for is lost, as it would be on any way.
        drop(self.socket.send(&question));
        self.asked.push(Asked { at: Moment::now(), question, is_over_udp: true });
    }

    /// Takes in one answer, if there is one.
    fn receive(&mut self) -> Result<bool> {
        if let Ok(Late { place, message }) = self.over_tcp.1.try_recv() {
            self.note(place, &message);
            return Ok(true);
        }
        let mut buffer = [0; 1500];
        let length = match self.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        // Ids go round after 65,536 questions, of which the older are long answered.
        let newest = self.asked.len().saturating_sub(1);
        let place = newest - (newest.wrapping_sub(id) % 65_536).min(newest);
        let Some(asked) = self.asked.get_mut(place).filter(|asked| asked.is_over_udp) else { return Ok(true) };
        asked.is_over_udp = false;
        match buffer[2] & 0x02 {
            0 => self.note(place, &buffer[..length]),
            _ => self.ask_over_tcp(place),
        }
        Ok(true)
    }

    fn note(&mut self, place: usize, message: &[u8]) {
        let took = Moment::now().since(self.asked[place].at);
        self.answered += 1;
        if took <= PATIENCE {
            self.fates[place] = read(message, took);
        }
    }

    fn ask_over_tcp(&self, place: usize) {
        let (server, sender) = (self.server, self.over_tcp.0.clone());
        let question = self.asked[place].question.clone();
        thread::spawn(move || {
            // No answer here is no answer at all. Nobody listens any more when the run is over.
            let Ok(message) = exchange(server, &question) else { return };
            sender.send(Late { place, message }).ok();
        });
    }
}

fn exchange(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&frame(question))?;
    read_frame(&mut stream)
}

fn question(id: usize, label: &str) -> Vec<u8> {
    let [.., high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.push(u8::try_from(label.len()).unwrap_or(0));
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\0\0\x01\0\x01");
    message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    message
}

fn read(message: &[u8], took: Duration) -> Fate {
    let is_good = message.len() > 12 && message[3] & 0x0f == 0 && message[7] > 0;
    let record = message.windows(16).find(|octets| octets[..6] == [0xc0, 12, 0, 1, 0, 1]);
    let ttl = record.map_or(0, |record| u32::from_be_bytes([record[6], record[7], record[8], record[9]]));
    let address = record.filter(|_| is_good).map(|r| Ipv4Addr::new(r[12], r[13], r[14], r[15]));
    // Option 15 with at least two octets, of which the first two are the code.
    let is_marked_stale = message.windows(6).any(|octets| octets[..2] == [0, 15] && octets[4..] == [0, 3]);
    Fate { took: Some(took), address, ttl, is_marked_stale }
}
