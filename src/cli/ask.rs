//! One query to one server, for `query` and `demo`: over UDP, then over TCP if the response was truncated; encrypted
//! transports use the daemon's code.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::{
    clock::Moment,
    system_error::SystemError,
    upstream::{ConnectError, ServerSpec, ask_once},
    wire::{
        EdeCode, Edns, Flags, Header, Malformed, MessageId, Rcode, RecordType, Transport, UpstreamQuery, ede,
        record::{Record, Records, Section},
        text,
    },
};

/// Datagrams sent before giving up.
const TRIES: usize = 3;
/// Largest datagram accepted, as EDNS advertises it.
const PAYLOAD: u16 = 1232;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The server did not answer in time, or could not be reached.
    #[error("no answer from {server}: {}", SystemError(source))]
    Io {
        /// The server that was asked.
        server: SocketAddr,
        /// The error of the socket.
        source: io::Error,
    },
    /// The encrypted transport failed.
    #[error("no answer from {server}: {source}")]
    Upstream {
        /// The server that was asked.
        server: String,
        /// Why it failed.
        source: ConnectError,
    },
    /// The response does not parse.
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// A response as it arrived.
#[derive(Debug)]
pub(super) struct Answer {
    message: Vec<u8>,
    /// Time from the first datagram sent to the response.
    pub(super) took: Duration,
    /// The transport that delivered it: TCP after truncation.
    pub(super) transport: Transport,
}

/// Asks a server and waits at most `timeout` in all.
pub(super) fn ask(spec: &ServerSpec, query: &UpstreamQuery, timeout: Duration) -> Result<Answer, AskError> {
    let started = Moment::now();
    let error = |source| AskError::Io { server: spec.address, source };
    let server = spec.via.locate(spec.address).map_err(error)?;
    if !matches!(spec.transport, Transport::Udp | Transport::Tcp) {
        let message = encrypted(spec, query, timeout)?;
        return Ok(Answer { message, took: Moment::now().since(started), transport: spec.transport });
    }
    if spec.transport == Transport::Udp {
        let message = over_udp(server, query, timeout).map_err(error)?;
        if !Header::read(&message)?.flags.has(Flags::TC) {
            return Ok(Answer { message, took: Moment::now().since(started), transport: Transport::Udp });
        }
    }
    let message = over_tcp(server, query, timeout).map_err(error)?;
    Header::read(&message)?;
    Ok(Answer { message, took: Moment::now().since(started), transport: Transport::Tcp })
}

fn encrypted(spec: &ServerSpec, query: &UpstreamQuery, timeout: Duration) -> Result<Vec<u8>, AskError> {
    let error = |source| AskError::Upstream { server: spec.to_string(), source };
    let mut out = [0; UpstreamQuery::MAX_PADDED];
    let length = query.write(MessageId(0), Some(PAYLOAD), None, &mut out).unwrap_or(0);
    let length = UpstreamQuery::pad(&mut out, length);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default());
    let asking = async { tokio::time::timeout(timeout, ask_once(spec, &out[..length])).await };
    let answered = runtime.map_err(|cause| error(cause.into()))?.block_on(asking);
    let message = answered.unwrap_or(Err(ConnectError::Slow)).map_err(error)?;
    if is_reply(&message, MessageId(0)) {
        return Ok(message);
    }
    let source = io::Error::new(io::ErrorKind::InvalidData, "the response answers another query");
    Err(AskError::Io { server: spec.address, source })
}

fn over_udp(server: SocketAddr, query: &UpstreamQuery, timeout: Duration) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    let id = MessageId(rand::random());
    let mut out = [0; UpstreamQuery::MAX];
    let length = query.write(id, Some(PAYLOAD), None, &mut out).unwrap_or(0);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let wait = timeout / u32::try_from(TRIES).unwrap_or(1);
    for _ in 0..TRIES {
        socket.send(&out[..length])?;
        let until = Moment::now() + wait;
        while let Some(left) = Some(until.since(Moment::now())).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(read) if is_reply(&buffer[..read], id) => return Ok(buffer[..read].to_vec()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
}

fn is_reply(message: &[u8], id: MessageId) -> bool {
    Header::read(message).is_ok_and(|header| header.id == id && header.flags.has(Flags::QR))
}

fn over_tcp(server: SocketAddr, query: &UpstreamQuery, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut out = [0; 2 + UpstreamQuery::MAX];
    let id = MessageId(rand::random());
    let length = query.write(id, Some(PAYLOAD), None, &mut out[2..]).unwrap_or(0);
    out[..2].copy_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    stream.write_all(&out[..2 + length])?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut message)?;
    if is_reply(&message, id) {
        return Ok(message);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the response answers another query"))
}

impl Answer {
    /// Makes an answer of a message that the caller received itself.
    pub(super) const fn new(message: Vec<u8>, took: Duration, transport: Transport) -> Self {
        Self { message, took, transport }
    }

    /// The message as octets.
    pub(super) fn into_message(self) -> Vec<u8> {
        self.message
    }

    /// Whether the header has this flag.
    pub(super) fn has_flag(&self, flag: u16) -> bool {
        Header::read(&self.message).is_ok_and(|header| header.flags.has(flag))
    }

    /// The response code, with EDNS's upper bits.
    pub(super) fn rcode(&self) -> Rcode {
        let low = Header::read(&self.message).map_or(Rcode::SERVFAIL, |header| header.flags.rcode());
        Rcode(low.0 | self.edns().map_or(0, |edns| u16::from(edns.extended_rcode) << 4))
    }

    /// The header's flags by name, as dig prints them.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let Ok(header) = Header::read(&self.message) else { return Vec::new() };
        let names = [
            (Flags::QR, "qr"),
            (Flags::AA, "aa"),
            (Flags::TC, "tc"),
            (Flags::RD, "rd"),
            (Flags::RA, "ra"),
            (Flags::AD, "ad"),
            (Flags::CD, "cd"),
        ];
        names.into_iter().filter(|(flag, _)| header.flags.has(*flag)).map(|(_, name)| name).collect()
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        Records::of(&self.message).into_iter().flatten().map_while(Result::ok)
    }

    fn edns(&self) -> Option<Edns<'_>> {
        let opt = self.records().find(|record| record.rtype == RecordType::OPT)?;
        Edns::read(&self.message, &opt).ok()
    }

    /// The extended errors: code, meaning, and the server's text.
    pub(super) fn extended_errors(&self) -> Vec<(u16, &'static str, String)> {
        let Some(edns) = self.edns() else { return Vec::new() };
        let errors = edns.options().filter(|(code, value)| *code == ede::Ede::OPTION && value.len() >= 2);
        errors
            .map(|(_, value)| {
                let code = u16::from_be_bytes([value[0], value[1]]);
                (code, ede::meaning(code), String::from_utf8_lossy(&value[2..]).into_owned())
            })
            .collect()
    }

    /// Whether the response carries this extended error.
    pub(super) fn has_ede(&self, code: EdeCode) -> bool {
        self.extended_errors().iter().any(|(given, ..)| *given == code.number())
    }

    /// The records of a section as text: owner, TTL, class, type and RDATA.
    pub(super) fn lines(&self, section: Section) -> Vec<String> {
        let records = self.records().filter(|record| record.section == section && record.rtype != RecordType::OPT);
        records.map(|record| text::line(&self.message, &record)).collect()
    }

    /// The RDATA of the answer's records of a type, as text.
    pub(super) fn data(&self, rtype: RecordType) -> Vec<String> {
        let records = self.records().filter(|r| r.section == Section::Answer && r.rtype == rtype);
        records.map(|record| text::rdata(&self.message, &record)).collect()
    }

    /// The least TTL of the answer's records, in seconds.
    pub(super) fn least_ttl(&self) -> Option<u32> {
        self.records().filter(|r| r.section == Section::Answer).map(|r| r.raw_ttl).min()
    }
}
