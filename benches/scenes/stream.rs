//! An upstream's TCP side, a thread a connection: good answers, or what is wrong with it there.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    fault::{Fault, LIE},
    upstream::{Behaviour, Nature, answer},
};

/// Between two octets of a slow answer.
const DRIP: Duration = Duration::from_secs(1);

/// Serves until the upstream stops, or closes this port for its fault.
pub(crate) fn serve(listener: &TcpListener, behaviour: &Arc<Behaviour>, nature: Nature) {
    for stream in listener.incoming() {
        if behaviour.stops() || behaviour.fault(nature) == Some(Fault::NoTcp) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let behaviour = Arc::clone(behaviour);
        // A connection ends as its client likes.
        thread::spawn(move || converse(&mut stream, &behaviour, nature).ok());
    }
}

/// One connection, so that a thread that waits for them sees whether it should stop.
pub(crate) fn wake(address: SocketAddr) {
    // It may have stopped long ago.
    drop(TcpStream::connect_timeout(&address, Duration::from_millis(100)));
}

fn converse(stream: &mut TcpStream, behaviour: &Behaviour, nature: Nature) -> io::Result<()> {
    loop {
        let question = read_frame(stream)?;
        let fault = behaviour.fault(nature);
        let address = if fault.is_some() { LIE } else { nature.address };
        let Some((mut message, _)) = answer(&question, address, nature.ttl) else { continue };
        match fault {
            Some(Fault::MuteTcp) => {}
            Some(Fault::SlowTcp) => drip(stream, &frame(&message), behaviour)?,
            Some(fault) => {
                fault.spoil(&mut message);
                stream.write_all(&frame(&message))?;
            }
            None => stream.write_all(&frame(&message))?,
        }
    }
}

fn drip(stream: &mut TcpStream, message: &[u8], behaviour: &Behaviour) -> io::Result<()> {
    for octet in message {
        if behaviour.stops() {
            break;
        }
        stream.write_all(&[*octet])?;
        thread::sleep(DRIP);
    }
    Ok(())
}

/// A message behind its two octets of length (RFC 1035 4.2.2).
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), message].concat()
}

/// The next message of a stream.
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}
