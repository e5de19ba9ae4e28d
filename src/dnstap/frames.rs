//! Frame Streams, the sender's side with a handshake (<https://farsightsec.github.io/fstrm/>).
//!
//! READY with the content type, ACCEPT, START, data frames, STOP, FINISH. A frame is its length and its octets; one of
//! length 0 announces a control frame.

use std::io::{self, Read, Write};

const ACCEPT: u32 = 1;
const START: u32 = 2;
const STOP: u32 = 3;
const READY: u32 = 4;
const FINISH: u32 = 5;
/// The field of a control frame that holds a content type.
const CONTENT_TYPE: u32 = 1;
/// The longest control frame (`FSTRM_CONTROL_FRAME_LENGTH_MAX`).
const LONGEST_CONTROL: u32 = 512;

const DNSTAP: &[u8] = b"protobuf:dnstap.Dnstap";

/// Agrees with the collector on dnstap, and starts the stream.
pub(super) fn begin(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(READY, Some(DNSTAP)))?;
    let accept = read_control(stream)?;
    if accept.kind != ACCEPT {
        return Err(invalid("it does not answer the handshake with ACCEPT"));
    }
    if !accept.content_types.is_empty() && !accept.content_types.iter().any(|kind| kind == DNSTAP) {
        return Err(invalid("it does not take dnstap"));
    }
    stream.write_all(&control(START, Some(DNSTAP)))
}

/// Ends the stream, and waits until the collector has read all of it.
pub(super) fn end(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(STOP, None))?;
    match read_control(stream)?.kind {
        FINISH => Ok(()),
        _ => Err(invalid("it does not end the stream with FINISH")),
    }
}

/// Appends a data frame, whose octets `write` appends.
pub(super) fn append_data(frames: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = frames.len();
    frames.extend_from_slice(&[0; 4]);
    write(frames);
    let length = u32::try_from(frames.len() - start - 4).unwrap_or(u32::MAX);
    frames[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn control(kind: u32, content_type: Option<&[u8]>) -> Vec<u8> {
    let mut body = kind.to_be_bytes().to_vec();
    if let Some(content_type) = content_type {
        body.extend(CONTENT_TYPE.to_be_bytes());
        body.extend(u32::try_from(content_type.len()).unwrap_or(0).to_be_bytes());
        body.extend(content_type);
    }
    let length = u32::try_from(body.len()).unwrap_or(0);
    [&0_u32.to_be_bytes()[..], &length.to_be_bytes(), &body].concat()
}

#[derive(Debug)]
struct Control {
    kind: u32,
    content_types: Vec<Vec<u8>>,
}

fn read_control(stream: &mut impl Read) -> io::Result<Control> {
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let [escape, length] = [&head[..4], &head[4..]].map(number);
    if escape != 0 || length > LONGEST_CONTROL {
        return Err(invalid("it does not speak Frame Streams"));
    }
    let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let (kind, mut rest) = body.split_at_checked(4).ok_or_else(|| invalid("a control frame without a type"))?;
    let mut content_types = Vec::new();
    while let Some((field, behind)) = rest.split_at_checked(8) {
        let length = usize::try_from(number(&field[4..])).unwrap_or(usize::MAX);
        let (value, behind) = behind.split_at_checked(length).ok_or_else(|| invalid("a control frame cut short"))?;
        if number(&field[..4]) == CONTENT_TYPE {
            content_types.push(value.to_vec());
        }
        rest = behind;
    }
    Ok(Control { kind: number(kind), content_types })
}

/// Four octets as a number.
fn number(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |number, &octet| number << 8 | u32::from(octet))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A collector that says this, whatever it is sent.
    struct Says(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Says {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Says {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.1.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_does_not_take_dnstap_is_an_error() {
        let says = |octets: Vec<u8>| Says(Cursor::new(octets), Vec::new());
        for (good, said) in [
            (true, control(ACCEPT, Some(DNSTAP))),
            (true, control(ACCEPT, None)),
            (false, control(ACCEPT, Some(b"protobuf:other"))),
            (false, control(FINISH, None)),
            (false, b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
            (false, [0, 0, 0, 0, 0, 0, 0, 2, 0, 0].to_vec()),
            (false, [0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9].to_vec()),
            (false, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].to_vec()),
            (false, Vec::new()),
        ] {
            assert_eq!(begin(&mut says(said.clone())).is_ok(), good, "{said:?}");
        }
        let mut collector = says(control(FINISH, None));
        end(&mut collector).unwrap();
        assert_eq!(collector.1, [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
    }
}
