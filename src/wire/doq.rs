//! What a stream of DNS over QUIC holds (RFC 9250 4.2): one message after its length in two octets, and nothing else.

use super::Question;

/// Why a client's stream ends its connection (RFC 9250 4.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It ended before the length.
    #[error("no length")]
    NoLength,
    /// It ended before or went on after the message.
    #[error("not one whole message")]
    NotOne,
    /// The message is too short for an id.
    #[error("no message")]
    NoMessage,
    /// Streams tell queries apart, ids must not (4.2.1).
    #[error("the message id is not 0")]
    Id,
    /// QUIC has an idle time-out of its own (5.5.2).
    #[error("the keepalive option of TCP")]
    Keepalive,
}

/// The query on a whole stream.
///
/// # Errors
/// The stream holds something else. Whether the message is a query is left to [`Question::read`].
pub fn read_query(stream: &[u8]) -> Result<&[u8], StreamError> {
    let (length, message) = stream.split_first_chunk::<2>().ok_or(StreamError::NoLength)?;
    if message.len() != usize::from(u16::from_be_bytes(*length)) {
        return Err(StreamError::NotOne);
    }
    match message {
        [0, 0, ..] => {}
        [_, _, ..] => return Err(StreamError::Id),
        _ => return Err(StreamError::NoMessage),
    }
    let has_keepalive = Question::read(message).is_ok_and(|query| query.edns.is_some_and(|edns| edns.has_keepalive));
    if has_keepalive { Err(StreamError::Keepalive) } else { Ok(message) }
}

/// The response on a whole stream; none if the stream holds something else.
pub fn read_response(stream: &[u8]) -> Option<&[u8]> {
    let (length, message) = stream.split_first_chunk::<2>()?;
    (message.len() == usize::from(u16::from_be_bytes(*length))).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_holds_one_query_with_the_id_0() {
        assert_eq!(read_query(&[0, 3, 0, 0, 7]), Ok(&[0, 0, 7][..]));
        for (stream, error) in [
            (&[][..], StreamError::NoLength),
            (&[0][..], StreamError::NoLength),
            (&[0, 0][..], StreamError::NoMessage),
            (&[0, 1, 0][..], StreamError::NoMessage),
            (&[0, 3, 0, 0], StreamError::NotOne),
            (&[0, 3, 0, 0, 7, 0, 3, 0, 0, 7], StreamError::NotOne),
            (&[0, 3, 0, 1, 7], StreamError::Id),
        ] {
            assert_eq!(read_query(stream), Err(error), "{stream:?}");
        }
    }

    #[test]
    fn the_keepalive_option_is_an_error() {
        let with_option = |code: u8| {
            let head = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
            let message = [&head[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, code, 0, 0]].concat();
            [&[0, u8::try_from(message.len()).unwrap()][..], &message].concat()
        };
        assert_eq!(read_query(&with_option(11)), Err(StreamError::Keepalive));
        assert!(read_query(&with_option(12)).is_ok(), "padding may come");
    }

    #[test]
    fn a_response_is_one_whole_message() {
        assert_eq!(read_response(&[0, 3, 0, 0, 7]), Some(&[0, 0, 7][..]));
        for stream in [&[][..], &[0], &[0, 3, 0, 0], &[0, 1, 0, 0]] {
            assert_eq!(read_response(stream), None, "{stream:?}");
        }
    }
}
