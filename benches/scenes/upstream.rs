//! An upstream that can fall silent, lose datagrams, hold to a rate, or go away.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rand::RngExt;
use tidegate::clock::Moment;

use crate::Result;

/// A burst that a server with a rate takes on top of it.
const BURST: f64 = 20.0;

/// How it behaves; changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Reads, and never answers.
    pub(crate) is_silent: AtomicBool,
    /// Loses so many of a hundred questions.
    pub(crate) loses: AtomicU32,
    /// Drops what is over so many a second; 0 = nothing.
    pub(crate) rate: AtomicU32,
    /// Questions that came in for addresses: probes are not counted.
    pub(crate) asked: AtomicU64,
    stops: AtomicBool,
}

/// A running upstream; dropped, its port is closed.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Behaviour>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Answers every question for an address with 10.0.0.1 and this TTL.
    pub(crate) fn start(ttl: u32) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let behaviour = Arc::<Behaviour>::default();
        let inside = Arc::clone(&behaviour);
        let thread = thread::spawn(move || inside.serve(&socket, ttl));
        Ok(Self { address, behaviour, thread: Some(thread) })
    }

    /// Closes its port.
    pub(crate) fn stop(&mut self) {
        self.behaviour.stops.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Behaviour {
    fn serve(&self, socket: &UdpSocket, ttl: u32) {
        let mut buffer = [0; 1500];
        let (mut tokens, mut last) = (BURST, Moment::now());
        while !self.stops.load(Relaxed) {
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            let Some((length, is_counted)) = answer(&mut buffer, length, ttl) else { continue };
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
                socket.send_to(&buffer[..length], client).ok();
            }
        }
    }
}

/// Turns a question into its answer; gives the length, and whether it was for an address below "example".
fn answer(buffer: &mut [u8], length: usize, ttl: u32) -> Option<(usize, bool)> {
    let root = buffer.get(12..length)?.iter().position(|&octet| octet == 0)?;
    let end = 12 + root + 5;
    let is_address = buffer.get(end - 4..end)? == [0, 1, 0, 1];
    let is_counted = is_address && buffer[12..end - 4].to_ascii_lowercase().ends_with(b"\x07example\0");
    buffer[2] |= 0x80;
    buffer[3] = 0x80;
    buffer[6..12].copy_from_slice(&[0, u8::from(is_address), 0, 0, 0, 0]);
    if !is_address {
        return Some((end, false));
    }
    let record = [&[0xc0, 12, 0, 1, 0, 1][..], &ttl.to_be_bytes(), &[0, 4, 10, 0, 0, 1]].concat();
    buffer.get_mut(end..end + record.len())?.copy_from_slice(&record);
    Some((end + record.len(), is_counted))
}
