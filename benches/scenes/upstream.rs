//! An upstream that can fall silent, lose datagrams, hold to a rate, misbehave, or go away.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rand::RngExt;
use tidegate::clock::Moment;

use crate::{
    Result,
    fault::{Fault, LIE},
    stream,
};

/// A burst that a server with a rate takes on top of it.
const BURST: f64 = 20.0;
/// The UDP port that goes with a free TCP port may be another's.
const ATTEMPTS: usize = 20;
const LOOPBACK: &str = "127.0.0.1:0";

/// What it says while it is well, and how it misbehaves when it is told to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nature {
    /// For every name.
    pub(crate) address: Ipv4Addr,
    /// Of its answers, in seconds.
    pub(crate) ttl: u32,
    /// What [`Upstream::misbehave`] begins.
    pub(crate) fault: Option<Fault>,
}

impl Default for Nature {
    fn default() -> Self {
        Self { address: Ipv4Addr::new(10, 0, 0, 1), ttl: 3600, fault: None }
    }
}

/// How it behaves; changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Reads, and never answers.
    pub(crate) is_silent: AtomicBool,
    /// Loses so many of a hundred questions.
    pub(crate) loses: AtomicU32,
    /// Drops what is over so many a second; 0 = nothing.
    pub(crate) rate: AtomicU32,
    /// Does what is wrong with it to every question.
    is_bad: AtomicBool,
    /// Questions that came in for addresses: probes are not counted.
    pub(crate) asked: AtomicU64,
    stops: AtomicBool,
}

/// A running upstream; dropped, its port is closed.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Behaviour>,
    threads: Vec<JoinHandle<()>>,
    has_tcp: bool,
}

impl Upstream {
    /// Answers every question for an address over UDP.
    pub(crate) fn start(nature: Nature) -> Result<Self> {
        Self::on(UdpSocket::bind(LOOPBACK)?, nature)
    }

    /// The same on a socket of the caller's.
    pub(crate) fn on(socket: UdpSocket, nature: Nature) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let behaviour = Arc::<Behaviour>::default();
        let inside = Arc::clone(&behaviour);
        let threads = vec![thread::spawn(move || inside.serve(&socket, nature))];
        Ok(Self { address, behaviour, threads, has_tcp: false })
    }

    /// The same over UDP and TCP.
    pub(crate) fn start_with_tcp(nature: Nature) -> Result<Self> {
        let (listener, socket) = bind_both()?;
        let mut upstream = Self::on(socket, nature)?;
        let behaviour = Arc::clone(&upstream.behaviour);
        upstream.threads.push(thread::spawn(move || stream::serve(&listener, &behaviour, nature)));
        upstream.has_tcp = true;
        Ok(upstream)
    }

    /// From now on it does what its nature has of a fault.
    pub(crate) fn misbehave(&self) {
        self.behaviour.is_bad.store(true, Relaxed);
        // Perhaps it is to listen no more.
        stream::wake(self.address);
    }

    /// Closes its port.
    pub(crate) fn stop(&mut self) {
        self.behaviour.stops.store(true, Relaxed);
        if self.has_tcp {
            stream::wake(self.address);
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Where they listen.
pub(crate) fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

/// The one that was asked most.
pub(crate) fn busiest(upstreams: &[Upstream]) -> Option<&Upstream> {
    upstreams.iter().max_by_key(|upstream| upstream.behaviour.asked.load(Relaxed))
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A TCP and a UDP socket on one port that is free for both.
pub(crate) fn bind_both() -> Result<(TcpListener, UdpSocket)> {
    for _ in 0..ATTEMPTS {
        let listener = TcpListener::bind(LOOPBACK)?;
        if let Ok(socket) = UdpSocket::bind(listener.local_addr()?) {
            return Ok((listener, socket));
        }
    }
    Err("no port is free for both UDP and TCP".into())
}

impl Behaviour {
    fn serve(&self, socket: &UdpSocket, nature: Nature) {
        let mut buffer = [0; 1500];
        let (mut tokens, mut last) = (BURST, Moment::now());
        while !self.stops() {
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            let Some((message, is_counted)) = self.answer(&buffer[..length], nature) else { continue };
            self.asked.fetch_add(u64::from(is_counted), Relaxed);
            let rate = f64::from(self.rate.load(Relaxed));
            let now = Moment::now();
            tokens = (tokens + rate * now.since(last).as_secs_f64()).min(BURST);
            last = now;
            if rate > 0.0 {
                if tokens < 1.0 {
                    continue;
                }
                tokens -= 1.0;
            }
            let is_lost = rand::rng().random_range(0..100) < self.loses.load(Relaxed);
            if !self.is_silent.load(Relaxed) && !is_lost {
                // Who went away is no news.
                socket.send_to(&message, client).ok();
            }
        }
    }

    /// What is sent over UDP, and whether the question was for an address below "example".
    fn answer(&self, question: &[u8], nature: Nature) -> Option<(Vec<u8>, bool)> {
        let Some(fault) = self.fault(nature) else { return answer(question, nature.address, nature.ttl) };
        let (mut message, is_counted) = answer(question, LIE, nature.ttl)?;
        fault.spoil(&mut message);
        Some((message, is_counted))
    }

    /// What is wrong with it now.
    pub(crate) fn fault(&self, nature: Nature) -> Option<Fault> {
        nature.fault.filter(|_| self.is_bad.load(Relaxed))
    }

    pub(crate) fn stops(&self) -> bool {
        self.stops.load(Relaxed)
    }
}

/// The answer to a question, and whether that was for an address below "example".
pub(crate) fn answer(question: &[u8], address: Ipv4Addr, ttl: u32) -> Option<(Vec<u8>, bool)> {
    let root = question.get(12..)?.iter().position(|&octet| octet == 0)?;
    let end = 12 + root + 5;
    let is_address = question.get(end - 4..end)? == [0, 1, 0, 1];
    let is_counted = is_address && question[12..end - 4].to_ascii_lowercase().ends_with(b"\x07example\0");
    let mut message = question[..end].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80;
    message[6..12].copy_from_slice(&[0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        message.extend([0xc0, 12, 0, 1, 0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    Some((message, is_counted))
}
