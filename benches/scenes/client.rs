//! A client that asks at a steady rate, whatever the answers do, and notes how each question fared.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use tidegate::clock::Moment;

use crate::Result;

/// How long an answer is waited for: stub resolvers give up then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at the socket.
const NAP: Duration = Duration::from_micros(100);

/// What came of one question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    /// From question to answer; none if there was none.
    pub(crate) took: Option<Duration>,
    /// Whether it was NOERROR with an address.
    pub(crate) is_good: bool,
    /// Its TTL.
    pub(crate) ttl: u32,
    /// Whether it carried the extended error 3, Stale Answer.
    pub(crate) is_marked_stale: bool,
}

impl Fate {
    const NONE: Self = Self { took: None, is_good: false, ttl: 0, is_marked_stale: false };
}

/// Asks for `count` names, `rate` a second. `name` gives the `n`th name's first label; `at` is called before each.
pub(crate) fn ask(
    server: SocketAddr,
    count: usize,
    rate: u32,
    name: impl Fn(usize) -> String,
    mut at: impl FnMut(usize),
) -> Result<Vec<Fate>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let mut fates = vec![Fate::NONE; count];
    let mut sent = Vec::with_capacity(count);
    let mut answered = 0;
    let start = Moment::now();
    let mut buffer = [0; 1500];
    loop {
        let now = Moment::now();
        while sent.len() < count && now >= start + Duration::from_secs(1) * u32::try_from(sent.len())? / rate {
            at(sent.len());
            // What the kernel has no room for is lost, as it would be on any way.
            drop(socket.send(&question(sent.len(), &name(sent.len()))));
            sent.push(Moment::now());
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                // Ids go round after 65,536 questions, of which the older are long answered.
                let newest = sent.len().saturating_sub(1);
                let place = newest - (newest.wrapping_sub(id) % 65_536).min(newest);
                if let Some(fate) = fates.get_mut(place).filter(|fate| fate.took.is_none()) {
                    *fate = read(&buffer[..length], Moment::now().since(sent[place]));
                    answered += 1;
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let is_over = sent.last().is_some_and(|last| now.since(*last) > PATIENCE);
        if sent.len() == count && (answered == count || is_over) {
            return Ok(fates);
        }
        thread::sleep(NAP);
    }
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
    let record = message.windows(12).position(|octets| octets[..6] == [0xc0, 12, 0, 1, 0, 1]);
    let ttl =
        record.map_or(0, |at| u32::from_be_bytes([message[at + 6], message[at + 7], message[at + 8], message[at + 9]]));
    // Option 15 with at least two octets, of which the first two are the code.
    let is_marked_stale = message.windows(6).any(|octets| octets[..2] == [0, 15] && octets[4..] == [0, 3]);
    Fate { took: Some(took), is_good, ttl, is_marked_stale }
}
