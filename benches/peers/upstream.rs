//! A server to forward to, faster than those who forward: an address in 10.0.0.0/8 with a TTL of an hour for every
//! name, nothing for other types. UDP in batches; TCP, which dnsdist asks over what it was asked over, with a thread for
//! each connection. The name `count` has the number of questions so far for its address.

use std::{
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use tidegate::net::{
    mmsg::Batch,
    socket::{ListenOptions, listeners},
};

use crate::Result;

const HEADER: usize = 12;
/// The name of the counter.
const COUNT: &[u8] = b"\x05count\x00";
const TTL: [u8; 4] = 3600u32.to_be_bytes();
/// An OPT record that takes 1232 octets: an answer to a question with EDNS has EDNS (RFC 6891 section 6.1.1).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// Answers until it is killed.
pub(crate) fn run(listen: SocketAddr) -> Result<()> {
    let sockets = listeners(listen, 1, &ListenOptions::default())?;
    let (socket, listener) = (&sockets.udp[0], sockets.tcp[0].try_clone()?);
    socket.set_nonblocking(false)?;
    listener.set_nonblocking(false)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends as its other end likes, which is no news.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    let mut batch = Batch::new(64, 1232, 1232);
    let mut asked = 0u32;
    loop {
        let count = batch.recv_waiting(socket.as_fd())?;
        for slot in 0..count {
            asked = asked.wrapping_add(1);
            let message = batch.message(slot);
            if let Some(length) = answer(message.datagram, asked, message.reply) {
                batch.reply(slot, length);
            }
        }
        batch.send(socket.as_fd())?;
    }
}

/// Answers the questions of one connection, in their order.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut received = BufReader::new(stream.try_clone()?);
    let mut query = vec![0; 1232];
    let mut reply = vec![0; 2 + 1232];
    loop {
        let mut length = [0; 2];
        received.read_exact(&mut length)?;
        query.resize(usize::from(u16::from_be_bytes(length)), 0);
        received.read_exact(&mut query)?;
        let Some(length) = answer(&query, 0, &mut reply[2..]) else { continue };
        reply[..2].copy_from_slice(&u16::try_from(length).unwrap_or_default().to_be_bytes());
        stream.write_all(&reply[..2 + length])?;
    }
}

/// How many questions the upstream at `address` has had.
pub(crate) fn count(address: SocketAddr) -> Result<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let question = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], COUNT, &[0, 1, 0, 1]].concat();
    socket.send_to(&question, address)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let number = answer[..length].last_chunk().ok_or("an answer without an address")?;
    Ok(u32::from_be_bytes(*number))
}

fn answer(query: &[u8], asked: u32, out: &mut [u8]) -> Option<usize> {
    let header = query.first_chunk::<HEADER>()?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    end += 5;
    let question = query.get(HEADER..end)?;
    out[..end].copy_from_slice(&query[..end]);
    // QR, and RD as it came; RA, and CD as it came.
    out[2] = 0x80 | (header[2] & 0x79);
    out[3] = 0x80 | (header[3] & 0x10);
    out[6..12].fill(0);
    let (name, fixed) = question.split_at(question.len() - 4);
    if fixed == [0, 1, 0, 1] {
        out[7] = 1;
        end = append(out, end, &[0xc0, 12, 0, 1, 0, 1]);
        end = append(out, end, &TTL);
        let [a, b, c, d] = if name == COUNT { asked } else { 0x0a00_0000 | (hash(name) >> 8) }.to_be_bytes();
        end = append(out, end, &[0, 4, a, b, c, d]);
    } else {
        out[9] = 1;
        // An SOA at the root: mname and rname the root, five numbers; whoever caches negative answers may.
        end = append(out, end, &[0, 0, 6, 0, 1]);
        end = append(out, end, &TTL);
        end = append(out, end, &[0, 22, 0, 0]);
        for number in [1u32, 3600, 600, 86400, 3600] {
            end = append(out, end, &number.to_be_bytes());
        }
    }
    if header[11] != 0 {
        out[11] = 1;
        end = append(out, end, &OPT);
    }
    Some(end)
}

fn append(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    out[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

fn hash(name: &[u8]) -> u32 {
    name.iter()
        .fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193))
}
