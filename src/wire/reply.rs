//! Replies to clients: id, question and flags given back, our own OPT behind, cut to what the client takes.
//!
//! Policy: a reply repeats id, opcode, RD and CD, and the question in the client's own letter case; RA is always set.
//! AD goes out only to a client that set AD or DO (RFC 6840 5.8). An OPT record goes only to a client that sent one
//! (RFC 6891 6.1.1). What does not fit is not cut between records: the client gets TC and the question, and comes back
//! over a stream (RFC 2181 9). A client that sent a cookie gets ours in every reply with an OPT record (RFC 7873 5.2.3).

use super::{
    Ede, Flags, Rcode,
    cookie::Standing,
    edns::{Edns, Opt},
    header::HEADER,
    question::{Echo, Question},
};

/// How a reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The largest reply in octets that this carrier and client take.
    pub limit: usize,
    /// The payload size we advertise in our OPT.
    pub payload: u16,
}

impl Space {
    /// Over UDP: what the client says it takes, 512 without EDNS, and never more than `payload`, our own bound.
    pub fn datagram(edns: Option<&Edns<'_>>, payload: u16) -> Self {
        let limit = edns.map_or(super::edns::MIN_PAYLOAD, |edns| edns.payload.min(payload));
        Self { limit: usize::from(limit), payload }
    }

    /// Over a stream: whatever two octets of length can say.
    pub const fn stream(payload: u16) -> Self {
        Self { limit: super::MAX_MESSAGE, payload }
    }
}

/// Writes a reply without records and gives its length: errors, and the shell of a truncated reply.
///
/// `out` takes at least 512 octets; a reason that does not fit the space is left out.
pub fn bare(
    out: &mut [u8],
    echo: &Echo<'_>,
    edns: Option<&Edns<'_>>,
    rcode: Rcode,
    ede: Option<Ede<'_>>,
    space: Space,
) -> usize {
    let opt = edns.map(|edns| our_opt(edns, rcode, ede, space.payload));
    write_shell(out, echo, rcode, Flags(0), opt, space)
}

fn our_opt<'a>(edns: &Edns<'_>, rcode: Rcode, ede: Option<Ede<'a>>, payload: u16) -> Opt<'a> {
    let [_, low] = (rcode.0 >> 4).to_be_bytes();
    let cookie = edns.cookie.filter(|cookie| cookie.standing() != Standing::Unchecked);
    Opt { payload, extended_rcode: low, do_bit: edns.do_bit, cookie, ede }
}

fn write_shell(
    out: &mut [u8],
    echo: &Echo<'_>,
    rcode: Rcode,
    extra: Flags,
    opt: Option<Opt<'_>>,
    space: Space,
) -> usize {
    let section = echo.section;
    let end = HEADER + section.len();
    let flags = Flags::QR | Flags::RA | repeated(echo.flags) | extra.0 | rcode.0 & 0x0f;
    let header = super::Header {
        id: echo.id,
        flags: Flags(flags),
        counts: [u16::from(!section.is_empty()), 0, 0, u16::from(opt.is_some())],
    };
    out[..HEADER].copy_from_slice(&header.to_bytes());
    out[HEADER..end].copy_from_slice(section);
    let Some(opt) = opt else { return end };
    let limit = space.limit.min(out.len());
    let opt = opt.within(limit.saturating_sub(end));
    end + opt.write(&mut out[end..]).unwrap_or(0)
}

/// Opcode, RD and CD of a query, as its reply repeats them.
const fn repeated(flags: Flags) -> u16 {
    flags.0 & (0x7800 | Flags::RD | Flags::CD)
}

/// Makes the stored message in `out[..length]` the reply to `question`: id, flags, letter case, OPT. Gives the reply's
/// length; a message that does not fit becomes a truncated one.
pub fn finish(out: &mut [u8], length: usize, question: &Question<'_>, ede: Option<Ede<'_>>, space: Space) -> usize {
    let echo = &question.echo;
    let stored = Flags(u16::from_be_bytes([out[2], out[3]]));
    let opt = question.edns.as_ref().map(|edns| our_opt(edns, stored.rcode(), ede, space.payload));
    let limit = space.limit.min(out.len());
    let opt = opt.map(|opt| opt.within(limit.saturating_sub(length)));
    if length + opt.map_or(0, |opt| opt.length()) > limit {
        return truncated(out, question, stored.rcode(), space);
    }
    let mut flags = stored.0 | repeated(echo.flags);
    if !question.do_bit() && !echo.flags.has(Flags::AD) {
        flags &= !Flags::AD;
    }
    let [id_high, id_low] = echo.id.0.to_be_bytes();
    let [flags_high, flags_low] = flags.to_be_bytes();
    out[..4].copy_from_slice(&[id_high, id_low, flags_high, flags_low]);
    out[HEADER..HEADER + echo.section.len()].copy_from_slice(echo.section);
    let Some(opt) = opt else { return length };
    let additional = u16::from_be_bytes([out[10], out[11]]).wrapping_add(1);
    out[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    length + opt.write(&mut out[length..]).unwrap_or(0)
}

/// A reply that says: ask again over a stream.
pub fn truncated(out: &mut [u8], question: &Question<'_>, rcode: Rcode, space: Space) -> usize {
    let opt = question.edns.as_ref().map(|edns| our_opt(edns, rcode, None, space.payload));
    write_shell(out, &question.echo, rcode, Flags(Flags::TC), opt, space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EdeCode, cookie::Secret};

    const PLAIN: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03WwW\x07example\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x02\0\0\0\0\0\0\x0c\0\x0a\0\x08client c";
    const WORDS: Ede<'static> = Ede { code: EdeCode::Blocked, text: "rule x" };

    fn options(reply: &[u8], opt_at: usize) -> Vec<(u16, usize)> {
        let mut rest = &reply[opt_at + 11..];
        let mut found = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            found.push((u16::from_be_bytes([head[0], head[1]]), length));
            rest = &tail[length..];
        }
        found
    }

    fn with_our_cookie(message: &[u8]) -> Question<'_> {
        let mut question = Question::read(message).unwrap();
        let edns = question.edns.as_mut().unwrap();
        let cookie = edns.cookie.unwrap();
        edns.cookie = cookie.answered(&[Secret::new([7; 16])], [10, 0, 0, 1].into(), 1);
        question
    }

    #[test]
    fn where_room_is_short_the_words_go_first_and_the_cookie_stays() {
        let message = [PLAIN, OPT].concat();
        let question = with_our_cookie(&message);
        for (room, expected) in [
            (11 + 28 + 12, Some(&[(10, 24), (15, 8)][..])),
            (11 + 28 + 11, Some(&[(10, 24), (15, 2)])),
            (11 + 28 + 6, Some(&[(10, 24), (15, 2)])),
            (11 + 28 + 5, Some(&[(10, 24)])),
            (11 + 28, Some(&[(10, 24)])),
            (11 + 27, None),
        ] {
            let mut out = [0; 600];
            let length = 400;
            out[..PLAIN.len()].copy_from_slice(PLAIN);
            let space = Space { limit: length + room, payload: 1232 };
            let end = finish(&mut out, length, &question, Some(WORDS), space);
            let is_cut = out[2] & 2 != 0;
            assert_eq!(is_cut, expected.is_none(), "room {room}");
            match expected {
                Some(expected) => assert_eq!(options(&out[..end], length), expected, "room {room}"),
                None => assert_eq!(options(&out[..end], PLAIN.len()), [(10, 24)], "room {room}"),
            }
            assert!(end <= space.limit, "room {room}");
        }
    }

    #[test]
    fn a_cookie_that_was_not_looked_at_is_not_sent_back() {
        let message = [PLAIN, OPT].concat();
        let question = Question::read(&message).unwrap();
        let mut out = [0; 512];
        let space = Space::datagram(question.edns.as_ref(), 1232);
        let end = bare(&mut out, &question.echo, question.edns.as_ref(), Rcode::SERVFAIL, Some(WORDS), space);
        assert_eq!(options(&out[..end], PLAIN.len()), [(15, 8)]);
    }

    #[test]
    fn the_longest_name_leaves_room_for_cookie_and_reason_in_512_octets() {
        let name = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        let message = [&PLAIN[..HEADER], &name, &[0, 1, 0, 1], OPT].concat();
        let question = with_our_cookie(&message);
        let words = "w".repeat(200);
        let ede = Ede { text: &words, ..WORDS };
        let mut out = [0; 512];
        let space = Space::datagram(question.edns.as_ref(), 1232);
        let end = bare(&mut out, &question.echo, question.edns.as_ref(), Rcode::SERVFAIL, Some(ede), space);
        assert_eq!(options(&out[..end], HEADER + name.len() + 4), [(10, 24), (15, 2 + Ede::MAX_TEXT)]);
    }
}
