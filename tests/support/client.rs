//! A stub resolver that exposes every detail of a response.

use std::{
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, rdata::opt::EdnsOption},
};

use super::{
    PATIENCE,
    query::{Query, flag},
    upstream::{frame, read_frame},
};

/// The Extended DNS Error option (RFC 8914).
const EDE: u16 = 15;

/// Asks one server.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    server: SocketAddr,
    local: IpAddr,
}

impl Client {
    /// A client for this server.
    pub fn new(server: SocketAddr) -> Self {
        let local = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { server, local }
    }

    /// Sets the client's own address, for UDP.
    pub fn at(self, local: &str) -> Self {
        Self { local: local.parse().expect("an address"), ..self }
    }

    /// Asks over UDP, from a new port.
    #[track_caller]
    pub fn ask(&self, query: &Query) -> Answer {
        let socket = self.socket();
        socket.send(query);
        socket.receive()
    }

    /// Asks over TCP, on a new connection.
    #[track_caller]
    pub fn ask_over_tcp(&self, query: &Query) -> Answer {
        let mut stream = self.stream();
        stream.send(query);
        stream.receive()
    }

    /// A UDP socket connected to the server.
    #[track_caller]
    pub fn socket(&self) -> Socket {
        let socket = UdpSocket::bind((self.local, 0)).expect("a free port");
        socket.connect(self.server).expect("a route to the server");
        socket.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
        Socket(socket)
    }

    /// A TCP connection.
    #[track_caller]
    pub fn stream(&self) -> Stream {
        let stream = TcpStream::connect_timeout(&self.server, PATIENCE).expect("the server accepts TCP");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
        stream.set_nodelay(true).expect("a TCP socket");
        Stream(stream)
    }
}

/// A connected UDP socket.
pub struct Socket(UdpSocket);

impl Socket {
    /// Sends a query.
    pub fn send(&self, query: &Query) {
        self.send_bytes(&query.bytes());
    }

    /// Sends bytes.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.0.send(bytes).expect("the datagram leaves");
    }

    /// Receives the next datagram, parsed.
    #[track_caller]
    pub fn receive(&self) -> Answer {
        self.try_receive().expect("an answer over UDP").expect("an answer over UDP in time")
    }

    /// Receives the next datagram as bytes.
    #[track_caller]
    pub fn receive_bytes(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let length = self.0.recv(&mut buffer).expect("an answer over UDP in time");
        buffer.truncate(length);
        buffer
    }

    /// Receives the next datagram; none if there is none within the patience of a test.
    pub fn try_receive(&self) -> io::Result<Option<Answer>> {
        let mut buffer = vec![0; 65_535];
        match self.0.recv(&mut buffer) {
            Ok(length) => Ok(Some(Answer::parse(buffer[..length].to_vec()))),
            Err(error) if is_time_out(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives only the RCODE of the next datagram; none if there is none within the patience.
    pub fn receive_rcode(&self) -> Option<u8> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        (length > 3).then_some(buffer[3] & 0x0F)
    }

    /// Whether an answer to this query arrives within the patience; an error such as a refused port counts as no.
    pub fn probe(&self, query: &Query) -> bool {
        self.0.send(&query.bytes()).is_ok() && self.try_receive().is_ok_and(|answer| answer.is_some())
    }

    /// How long `receive` waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).expect("a positive time-out");
    }
}

/// A TCP connection with two-octet framing.
pub struct Stream(TcpStream);

impl Stream {
    /// Sends a query in one segment.
    pub fn send(&mut self, query: &Query) {
        self.send_bytes(&frame(&query.bytes())).expect("the server takes the query");
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The next message.
    #[track_caller]
    pub fn receive(&mut self) -> Answer {
        Answer::parse(read_frame(&mut self.0).expect("an answer over TCP"))
    }

    /// Closes the sending side; answers may still arrive.
    pub fn close_half(&self) {
        self.0.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Waits for what the server does next with the connection.
    pub fn next(&mut self) -> Next {
        match read_frame(&mut self.0) {
            Ok(message) => Next::Message(Box::new(Answer::parse(message))),
            Err(error) if is_time_out(&error) => Next::Nothing,
            Err(_) => Next::Closed,
        }
    }

    /// How long `receive` and `next` wait from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).expect("a positive time-out");
    }
}

/// What the server did next with a connection.
#[derive(Debug)]
pub enum Next {
    Message(Box<Answer>),
    Closed,
    Nothing,
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A response, as bytes and parsed.
#[derive(Debug, Clone)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub message: Message,
}

impl Answer {
    #[track_caller]
    fn parse(bytes: Vec<u8>) -> Self {
        let message = Message::from_vec(&bytes).unwrap_or_else(|error| panic!("{error} in the answer {bytes:02x?}"));
        Self { bytes, message }
    }

    /// The message id.
    pub fn id(&self) -> u16 {
        self.message.metadata.id
    }

    /// The RCODE, including the upper bits in the OPT.
    pub fn rcode(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// The RCODE and the code of the extended error, if there is one.
    pub fn verdict(&self) -> (ResponseCode, Option<u16>) {
        (self.rcode(), self.ede().map(|(code, _)| code))
    }

    /// The first extended error: its code and text.
    pub fn ede(&self) -> Option<(u16, String)> {
        self.edes().into_iter().next()
    }

    /// All extended errors, each with its code and text.
    pub fn edes(&self) -> Vec<(u16, String)> {
        let options = self.message.edns.iter().flat_map(|edns| &edns.options().options);
        let errors = options.filter_map(|(_, option)| match option {
            EdnsOption::Unknown(EDE, data) if data.len() >= 2 => {
                Some((u16::from_be_bytes([data[0], data[1]]), String::from_utf8_lossy(&data[2..]).into_owned()))
            }
            _ => None,
        });
        errors.collect()
    }

    /// The text of the extended error; empty if there is none.
    pub fn ede_text(&self) -> String {
        self.ede().map(|(_, text)| text).unwrap_or_default()
    }

    /// The codes of all EDNS options.
    pub fn option_codes(&self) -> Vec<u16> {
        let options = self.message.edns.iter().flat_map(|edns| &edns.options().options);
        options.map(|(code, _)| u16::from(*code)).collect()
    }

    /// Whether this header bit is set.
    pub fn has(&self, bit: u16) -> bool {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]]) & bit != 0
    }

    /// The four bits of the opcode.
    pub fn opcode(&self) -> u8 {
        self.bytes[2] >> 3 & 0x0F
    }

    /// Whether TC is set.
    pub fn truncated(&self) -> bool {
        self.has(flag::TC)
    }

    /// Whether the response repeats the question octet for octet.
    pub fn repeats(&self, query: &Query) -> bool {
        self.bytes[4..6] == [0, 1] && self.bytes[12..].starts_with(&query.question_bytes())
    }

    /// The records of the answer section.
    pub fn answers(&self) -> &[Record] {
        &self.message.answers
    }

    /// The addresses of the answer section, in its order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
    }

    /// The addresses as text.
    pub fn address_texts(&self) -> Vec<String> {
        self.addresses().iter().map(IpAddr::to_string).collect()
    }

    /// The targets of the CNAME records, in order.
    pub fn aliases(&self) -> Vec<String> {
        let targets = self.answers().iter().filter_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.to_string()),
            _ => None,
        });
        targets.collect()
    }

    /// The TTL of the first answer.
    #[track_caller]
    pub fn ttl(&self) -> u32 {
        self.answers().first().expect("an answer with a record").ttl
    }
}
