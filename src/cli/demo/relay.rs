//! The address that a person queries in the demo: it passes each query on to tidegate and prints one line with the
//! client, the query, its path, the answer, and the time it took.
//!
//! tidegate itself logs no single queries: that would cost more than answering them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Notify, Semaphore},
    time::timeout,
};

use super::servers::{QueryLog, Servers, bind};
use crate::{
    cli::{ask::Answer, output::OUT},
    clock::Moment,
    wire::{EdeCode, Flags, Name, NameBuf, Question, Rcode, RecordType, Transport},
};

/// Time limit for tidegate's answer; its own deadline is shorter.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Datagrams and connections at a time.
const MAX_IN_FLIGHT: usize = 256;
/// The largest message.
const MAX_MESSAGE: usize = u16::MAX as usize;

/// Where queries go, and what is needed to describe them.
#[derive(Clone)]
struct Relay {
    tidegate: SocketAddr,
    log: Arc<QueryLog>,
    /// Notified when nobody reads the lines.
    end: Arc<Notify>,
    permits: Arc<Semaphore>,
}

/// Starts relaying to `tidegate` on a free port of 127.0.0.1.
pub(super) fn start(servers: &Servers, tidegate: SocketAddr, end: &Arc<Notify>) -> io::Result<SocketAddr> {
    let (udp, tcp) = bind(Ipv4Addr::LOCALHOST)?;
    let address = udp.local_addr()?;
    let _context = servers.handle().enter();
    let (log, permits) = (Arc::clone(servers.log()), Arc::new(Semaphore::new(MAX_IN_FLIGHT)));
    let relay = Relay { tidegate, log, end: Arc::clone(end), permits };
    servers.handle().spawn(datagrams(UdpSocket::from_std(udp)?, relay.clone()));
    servers.handle().spawn(connections(TcpListener::from_std(tcp)?, relay));
    Ok(address)
}

async fn datagrams(socket: UdpSocket, relay: Relay) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(permit) = Arc::clone(&relay.permits).try_acquire_owned() else { continue };
        let (query, socket, relay) = (buffer[..length].to_vec(), Arc::clone(&socket), relay.clone());
        tokio::spawn(async move {
            let asked = Moment::now();
            let response = timeout(TIMEOUT, relay.over_udp(&query)).await;
            if let Ok(Ok(response)) = response {
                relay.print_query(client.ip(), &query, &response, asked, Transport::Udp);
                // The client may be gone.
                drop(socket.send_to(&response, client).await);
            }
            drop(permit);
        });
    }
}

async fn connections(listener: TcpListener, relay: Relay) {
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&relay.permits).try_acquire_owned() else { continue };
        let relay = relay.clone();
        tokio::spawn(async move {
            // Either side may close at any time.
            drop(relay.over_tcp(stream, client.ip()).await);
            drop(permit);
        });
    }
}

impl Relay {
    async fn over_udp(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(self.tidegate).await?;
        socket.send(query).await?;
        let mut response = vec![0; MAX_MESSAGE];
        let length = socket.recv(&mut response).await?;
        response.truncate(length);
        Ok(response)
    }

    /// Serves one connection, one query after the other.
    async fn over_tcp(&self, mut client: TcpStream, ip: IpAddr) -> io::Result<()> {
        let mut tidegate = TcpStream::connect(self.tidegate).await?;
        loop {
            let query = timeout(TIMEOUT, read(&mut client)).await??;
            let asked = Moment::now();
            write(&mut tidegate, &query).await?;
            let response = timeout(TIMEOUT, read(&mut tidegate)).await??;
            self.print_query(ip, &query, &response, asked, Transport::Tcp);
            write(&mut client, &response).await?;
        }
    }

    fn print_query(&self, client: IpAddr, query: &[u8], response: &[u8], asked: Moment, transport: Transport) {
        let took = Moment::now().since(asked);
        let Ok(question) = Question::read(query) else { return };
        let answer = Answer::new(response.to_vec(), took, transport);
        let name = NameBuf::lowercase_of(question.name()).to_name();
        let mut names = vec![name.clone()];
        names.extend(answer.data(RecordType::CNAME).iter().filter_map(|target| target.parse::<Name>().ok()));
        let way = describe_path(&answer, &self.log.servers_asked(&names, asked));
        let (qtype, what) = (question.qtype, describe_answer(&answer, question.qtype));
        let took = took.as_secs_f64() * 1000.0;
        let over = if transport == Transport::Tcp { " over TCP" } else { "" };
        writeln!(OUT, "{client} asks{over} {name} {qtype}: {what}; {way}; {took:.1} ms");
        if OUT.is_closed() {
            self.end.notify_one();
        }
    }
}

/// The answer in short: data or response code, and the reason if one was given.
fn describe_answer(answer: &Answer, qtype: RecordType) -> String {
    let data = answer.data(qtype);
    let mut text = match answer.rcode() {
        Rcode::NOERROR if data.is_empty() => "no data".to_owned(),
        Rcode::NOERROR => data.join(" "),
        rcode => rcode.to_string(),
    };
    for (_, meaning, words) in answer.extended_errors() {
        let colon = if words.is_empty() { "" } else { ": " };
        text.push_str(&format!(" ({meaning}{colon}{words})"));
    }
    text
}

/// The path that the query took.
fn describe_path(answer: &Answer, servers: &[&str]) -> String {
    if answer.has_ede(EdeCode::StaleAnswer) {
        return "from the cache, past its TTL".to_owned();
    }
    if !servers.is_empty() {
        return format!("asked {}", servers.join(", then "));
    }
    let is_forwarded = !answer.has_flag(Flags::AA);
    if is_forwarded && answer.rcode() != Rcode::REFUSED { "from the cache" } else { "tidegate itself" }.to_owned()
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
