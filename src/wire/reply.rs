//! Replies to clients: id, question and flags given back, our own OPT behind, cut to what the client takes.
//!
//! Policy: a reply repeats id, opcode, RD and CD, and the question in the client's own letter case; RA is always set.
//! AD goes out only to a client that set AD or DO (RFC 6840 5.8). An OPT record goes only to a client that sent one
//! (RFC 6891 6.1.1). What does not fit is not cut between records: the client gets TC and the question, and comes back
//! over a stream (RFC 2181 9).

use super::{
    Ede, Flags, Rcode,
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
    Opt { payload, extended_rcode: low, do_bit: edns.do_bit, ede }
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
    let opt = if end + opt.length() > limit { Opt { ede: None, ..opt } } else { opt };
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
    let opt = match opt {
        Some(opt) if length + opt.length() > limit => Some(Opt { ede: None, ..opt }),
        opt => opt,
    };
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
