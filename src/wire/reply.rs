//! Replies to clients: id, question and flags repeated, our own OPT record added, truncated to what the client accepts.
//!
//! Policy: a reply repeats id, opcode, RD and CD, and the question in the client's own letter case; RA is always set.
//! AD goes out only to a client that set AD or DO (RFC 6840 5.8). An OPT record goes only to a client that sent one
//! (RFC 6891 6.1.1). A reply that does not fit is not cut between records: the client gets TC and the question, and
//! asks again over a stream (RFC 2181 9). A client that sent a cookie gets ours in every reply with an OPT record (RFC
//! 7873 5.2.3).

use super::{
    Ede, Flags, Header, Rcode, RecordType, Ttl,
    cookie::Standing,
    edns::{Edns, Opt},
    header::HEADER,
    question::{Echo, Question},
    record::{Records, Section},
};

/// Limits and options for a reply, as its transport and client set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The largest reply in octets that this transport and client accept.
    pub limit: usize,
    /// The payload size we advertise in our OPT.
    pub payload: u16,
    /// The idle time-out for clients that ask for it, in units of 100 ms (RFC 7828).
    pub keepalive: Option<u16>,
    /// Whether to pad replies for a client that pads its queries (RFC 8467).
    pub pads: bool,
}

impl Space {
    /// Over UDP: the payload size that the client advertises (512 without EDNS), at most `payload`, our own limit.
    pub fn datagram(edns: Option<&Edns<'_>>, payload: u16) -> Self {
        let limit = edns.map_or(super::edns::MIN_PAYLOAD, |edns| edns.payload.min(payload));
        Self { limit: usize::from(limit), payload, keepalive: None, pads: false }
    }

    /// Over a stream: up to 65,535 octets.
    pub const fn stream(payload: u16) -> Self {
        Self { limit: super::MAX_MESSAGE, payload, keepalive: None, pads: false }
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
    write_shell(out, echo, rcode, Flags(0), edns.map(|edns| (edns, our_opt(edns, rcode, ede, space))), space)
}

fn our_opt<'a>(edns: &'a Edns<'_>, rcode: Rcode, ede: Option<Ede<'a>>, space: Space) -> Opt<'a> {
    let [_, low] = (rcode.0 >> 4).to_be_bytes();
    let cookie = edns.cookie.as_ref().filter(|cookie| cookie.standing() != Standing::Unchecked);
    let keepalive = space.keepalive.filter(|_| edns.has_keepalive);
    let payload = space.payload;
    Opt { payload, extended_rcode: low, do_bit: edns.do_bit, cookie, keepalive, ede, padding: None }
}

fn write_shell(
    out: &mut [u8],
    echo: &Echo<'_>,
    rcode: Rcode,
    extra: Flags,
    opt: Option<(&Edns<'_>, Opt<'_>)>,
    space: Space,
) -> usize {
    let section = echo.section;
    let end = HEADER + section.len();
    let flags = Flags::QR | Flags::RA | repeated(echo.flags) | extra.0 | rcode.0 & 0x0f;
    let header = Header {
        id: echo.id,
        flags: Flags(flags),
        counts: [u16::from(!section.is_empty()), 0, 0, u16::from(opt.is_some())],
    };
    out[..HEADER].copy_from_slice(&header.to_bytes());
    out[HEADER..end].copy_from_slice(section);
    let Some((edns, mut opt)) = opt else { return end };
    let limit = space.limit.min(out.len());
    opt.shorten(limit.saturating_sub(end));
    if space.pads && edns.has_padding {
        opt.pad(end, limit);
    }
    end + opt.write(&mut out[end..]).unwrap_or(0)
}

/// The flags of a query that its reply repeats: opcode, RD and CD.
const fn repeated(flags: Flags) -> u16 {
    flags.0 & (0x7800 | Flags::RD | Flags::CD)
}

/// Makes the stored message in `out[..length]` the reply to `question`: id, flags, letter case, OPT. Gives the reply's
/// length; a message that does not fit becomes a truncated one.
pub fn finish(out: &mut [u8], length: usize, question: &Question<'_>, ede: Option<Ede<'_>>, space: Space) -> usize {
    let stored = Flags(u16::from_be_bytes([out[2], out[3]]));
    let limit = space.limit.min(out.len());
    let Some(edns) = &question.edns else {
        if length > limit {
            return truncated(out, question, stored.rcode(), space);
        }
        repeat(out, question, stored);
        return length;
    };
    let mut opt = our_opt(edns, stored.rcode(), ede, space);
    opt.shorten(limit.saturating_sub(length));
    if length + opt.length() > limit {
        return truncated(out, question, stored.rcode(), space);
    }
    repeat(out, question, stored);
    if space.pads && edns.has_padding {
        opt.pad(length, limit);
    }
    let additional = u16::from_be_bytes([out[10], out[11]]).wrapping_add(1);
    out[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    length + opt.write(&mut out[length..]).unwrap_or(0)
}

/// Repeats id, flags and question of a query in the message that answers it, which has these flags.
fn repeat(out: &mut [u8], question: &Question<'_>, stored: Flags) {
    let echo = &question.echo;
    let mut flags = stored.0 | repeated(echo.flags);
    if !question.do_bit() && !echo.flags.has(Flags::AD) {
        flags &= !Flags::AD;
    }
    let [id_high, id_low] = echo.id.0.to_be_bytes();
    let [flags_high, flags_low] = flags.to_be_bytes();
    out[..4].copy_from_slice(&[id_high, id_low, flags_high, flags_low]);
    out[HEADER..HEADER + echo.section.len()].copy_from_slice(echo.section);
}

/// The only record of a reply that this server makes by itself. Its owner is QNAME.
#[derive(Debug, Clone, Copy)]
pub struct SoleRecord<'a> {
    /// Its type.
    pub rtype: RecordType,
    /// Its TTL.
    pub ttl: Ttl,
    /// Its RDATA, which holds no compressed name.
    pub rdata: &'a [u8],
}

/// Writes a reply to `question` with one record and gives its length. `out` takes 512 octets and the RDATA.
pub fn with_record(out: &mut [u8], question: &Question<'_>, record: &SoleRecord<'_>, space: Space) -> usize {
    let start = write_shell(out, &question.echo, Rcode::NOERROR, Flags(0), None, space);
    // A pointer to QNAME, type, class, TTL, the length of the RDATA.
    let mut fixed = [0xc0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fixed[2..4].copy_from_slice(&record.rtype.0.to_be_bytes());
    fixed[4..6].copy_from_slice(&question.qclass.0.to_be_bytes());
    fixed[6..10].copy_from_slice(&record.ttl.seconds().to_be_bytes());
    let rdata = &record.rdata[..record.rdata.len().min(usize::from(u16::MAX))];
    fixed[10..].copy_from_slice(&u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
    let rdata_at = start + fixed.len();
    let end = rdata_at + rdata.len();
    out[start..rdata_at].copy_from_slice(&fixed);
    out[rdata_at..end].copy_from_slice(rdata);
    // ANCOUNT.
    out[7] = 1;
    finish(out, end, question, None, space)
}

/// For how many seconds HTTP may cache a response (RFC 8484 5.1): the least TTL of its answer, or the SOA's for a
/// negative answer (RFC 2308 5); none if it must not be cached.
pub fn lifetime(response: &[u8]) -> Option<u32> {
    let header = Header::read(response).ok()?;
    let is_whole = !header.flags.has(Flags::TC) && matches!(header.flags.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN);
    let records = Records::of(response).ok().filter(|_| is_whole)?;
    let (mut least, mut negative): (Option<u32>, Option<u32>) = (None, None);
    for record in records {
        let record = record.ok()?;
        let ttl = record.ttl().seconds();
        match record.section {
            Section::Answer => least = Some(least.map_or(ttl, |least| least.min(ttl))),
            Section::Authority if record.rtype == RecordType::SOA => {
                let minimum = record.rdata(response).last_chunk::<4>().map(|minimum| u32::from_be_bytes(*minimum))?;
                negative = Some(ttl.min(minimum));
            }
            _ => {}
        }
    }
    match (least, negative) {
        (Some(least), Some(negative)) if header.flags.rcode() == Rcode::NXDOMAIN => Some(least.min(negative)),
        (least, negative) => least.or(negative),
    }
}

/// Writes a truncated reply (TC=1), so that the client asks again over a stream.
pub fn truncated(out: &mut [u8], question: &Question<'_>, rcode: Rcode, space: Space) -> usize {
    let opt = question.edns.as_ref().map(|edns| (edns, our_opt(edns, rcode, None, space)));
    write_shell(out, &question.echo, rcode, Flags(Flags::TC), opt, space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EdeCode, record::Records};

    /// NOERROR, RA and AD set; one A record.
    const STORED: &[u8] =
        b"\0\0\x80\xa0\0\x01\0\x01\0\0\0\0\x03www\x07example\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
    const OURS: u16 = 1232;

    /// A query for `WwW.example.` with these flags, and an OPT record of this payload size and DO.
    fn query(flags: u16, edns: Option<(u16, bool)>) -> Vec<u8> {
        let [high, low] = flags.to_be_bytes();
        let mut octets = vec![0x12, 0x34, high, low, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        octets.extend_from_slice(b"\x03WwW\x07example\0\0\x01\0\x01");
        if let Some((payload, do_bit)) = edns {
            let [high, low] = payload.to_be_bytes();
            octets.extend([0, 0, 41, high, low, 0, 0, if do_bit { 0x80 } else { 0 }, 0, 0, 0]);
        }
        octets
    }

    fn finished(query: &[u8], stored: &[u8], ede: Option<Ede<'_>>, size: usize) -> Vec<u8> {
        let question = Question::read(query).unwrap();
        let mut out = vec![0; size];
        out[..stored.len()].copy_from_slice(stored);
        let space = Space::datagram(question.edns.as_ref(), OURS);
        let length = finish(&mut out, stored.len(), &question, ede, space);
        out.truncate(length);
        out
    }

    fn flags(reply: &[u8]) -> u16 {
        u16::from_be_bytes([reply[2], reply[3]])
    }

    #[test]
    fn a_reply_repeats_id_rd_cd_and_the_question_as_it_came() {
        for asked in [0, Flags::RD, Flags::CD, Flags::RD | Flags::CD] {
            let reply = finished(&query(asked, None), STORED, None, 512);
            assert_eq!(reply[..2], [0x12, 0x34]);
            assert_eq!(flags(&reply), Flags::QR | Flags::RA | asked);
            assert_eq!(reply[12..29], *b"\x03WwW\x07example\0\0\x01\0\x01");
            assert_eq!(reply[29..], STORED[29..]);
        }
    }

    #[test]
    fn ad_goes_to_whoever_asked_for_it() {
        for (name, query, expected) in [
            ("neither", query(0, Some((1232, false))), 0),
            ("AD", query(Flags::AD, None), Flags::AD),
            ("DO", query(0, Some((1232, true))), Flags::AD),
        ] {
            assert_eq!(flags(&finished(&query, STORED, None, 512)) & Flags::AD, expected, "{name}");
        }
        let mut doubtful = STORED.to_vec();
        doubtful[3] &= !0x20;
        assert_eq!(flags(&finished(&query(Flags::AD, None), &doubtful, None, 512)) & Flags::AD, 0);
    }

    #[test]
    fn an_opt_goes_to_whoever_sent_one() {
        let reply = finished(&query(0, Some((4096, true))), STORED, Some(Ede::bare(EdeCode::StaleAnswer)), 512);
        let records: Vec<_> = Records::of(&reply).unwrap().map(Result::unwrap).collect();
        let edns = Edns::read(&reply, &records[1]).unwrap();
        assert_eq!((records.len(), edns.payload, edns.do_bit), (2, OURS, true));
        let options: Vec<_> = edns.options().collect();
        assert_eq!(options, [(Ede::OPTION, &[0, 3][..])]);
        assert_eq!(finished(&query(0, None), STORED, Some(Ede::bare(EdeCode::StaleAnswer)), 512).len(), STORED.len());
    }

    /// STORED with a text record behind it, so that it is `length` octets long.
    fn stored_of(length: usize) -> Vec<u8> {
        let mut stored = STORED.to_vec();
        stored[7] = 2;
        stored.extend_from_slice(b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c");
        let rest = u16::try_from(length - stored.len() - 2).unwrap();
        stored.extend(rest.to_be_bytes());
        stored.resize(length, b'x');
        stored
    }

    #[test]
    fn replies_that_do_not_fit_are_truncated() {
        for (name, edns, length, expected) in [
            ("512 without EDNS", None, 512, Some(512)),
            ("513 without EDNS", None, 513, None),
            ("with room for the OPT", Some((800, false)), 789, Some(800)),
            ("without", Some((800, false)), 790, None),
            ("less than 512 counts as 512", Some((0, false)), 501, Some(512)),
            ("no more than we send", Some((4096, false)), 1222, None),
        ] {
            let query = query(0, edns);
            let reply = finished(&query, &stored_of(length), None, 1500);
            let shell = 29 + if edns.is_some() { 11 } else { 0 };
            assert_eq!(reply.len(), expected.unwrap_or(shell), "{name}");
            assert_eq!(flags(&reply) & Flags::TC != 0, expected.is_none(), "{name}");
            assert_eq!(Records::of(&reply).unwrap().filter(Result::is_err).count(), 0, "{name}");
        }
    }

    #[test]
    fn a_reason_is_left_out_before_the_answer_is() {
        let ede = Ede::new(EdeCode::StaleAnswer, "no server answers");
        // With its words, without them, and without a reason.
        for (length, expected) in [(512 - 11 - 23, 512), (512 - 11 - 22, 512 - 16), (501, 512)] {
            let reply = finished(&query(0, Some((512, false))), &stored_of(length), Some(ede), 512);
            assert_eq!((reply.len(), flags(&reply) & Flags::TC), (expected, 0), "{length}");
        }
    }

    #[test]
    fn the_longest_message_fits_a_stream() {
        let octets = query(0, Some((512, false)));
        let question = Question::read(&octets).unwrap();
        let stored = stored_of(crate::wire::MAX_MESSAGE - 11);
        let mut out = vec![0; crate::wire::MAX_MESSAGE];
        out[..stored.len()].copy_from_slice(&stored);
        let ede = Some(Ede::bare(EdeCode::StaleAnswer));
        let length = finish(&mut out, stored.len(), &question, ede, Space::stream(OURS));
        assert_eq!((length, flags(&out) & Flags::TC), (crate::wire::MAX_MESSAGE, 0));
    }

    #[test]
    fn an_error_carries_the_upper_bits_of_its_code_in_the_opt() {
        let octets = query(Flags::RD, Some((1232, false)));
        let question = Question::read(&octets).unwrap();
        let mut out = [0; 512];
        let space = Space::datagram(question.edns.as_ref(), OURS);
        let length = bare(&mut out, &question.echo, question.edns.as_ref(), Rcode::BADVERS, None, space);
        let record = Records::of(&out[..length]).unwrap().next().unwrap().unwrap();
        assert_eq!((Flags(flags(&out)).rcode(), Edns::read(&out, &record).unwrap().extended_rcode), (Rcode(0), 1));
    }
}

#[cfg(test)]
mod transport_tests {
    use super::*;
    use crate::wire::EdeCode;

    const ASKED: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x01\0\x01";

    fn reply(options: &[u8], space: Space, length: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(options.len()).unwrap().to_be_bytes();
        let message = [ASKED, &[0, 0, 41, 4, 208, 0, 0, 0, 0, high, low], options].concat();
        let question = Question::read(&message).unwrap();
        let mut out = vec![0; crate::wire::MAX_MESSAGE];
        out[..ASKED.len()].copy_from_slice(ASKED);
        let ede = Ede::new(EdeCode::StaleAnswer, "words");
        let end = finish(&mut out, length, &question, Some(ede), space);
        out.truncate(end);
        out
    }

    #[test]
    fn a_client_that_pads_gets_padding_where_the_transport_is_encrypted() {
        let padding = b"\0\x0c\0\x03\0\0\0";
        let encrypted = Space { pads: true, ..Space::stream(1232) };
        for (length, padded) in [(29, 468), (468 - 11 - 11 - 4, 468), (468 - 11 - 11 - 3, 936), (900, 936)] {
            assert_eq!(reply(padding, encrypted, length).len(), padded, "{length}");
        }
        assert_eq!(reply(padding, encrypted, 65_500).len(), 65_535, "never over what fits");
        assert_eq!(reply(padding, Space::stream(1232), 29).len(), 29 + 22);
        assert_eq!(reply(b"", encrypted, 29).len(), 29 + 22);
        let message = [ASKED, b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0c\0\0"].concat();
        let question = Question::read(&message).unwrap();
        let mut out = [0; 2000];
        let end = bare(&mut out, &question.echo, question.edns.as_ref(), Rcode::REFUSED, None, encrypted);
        assert_eq!(end, 468);
    }

    #[test]
    fn the_idle_timeout_is_told_to_who_asks() {
        let tcp = Space { keepalive: Some(100), ..Space::stream(1232) };
        let told = reply(b"\0\x0b\0\0", tcp, 29);
        assert_eq!(told[29 + 11..29 + 17], [0, 11, 0, 2, 0, 100]);
        assert_eq!(reply(b"", tcp, 29).len(), 29 + 22);
        assert_eq!(reply(b"\0\x0b\0\0", Space::datagram(None, 1232), 29).len(), 29 + 22);
    }
}

#[cfg(test)]
mod cookie_tests {
    use super::*;
    use crate::wire::{EdeCode, cookie::Secret};

    const PLAIN: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03WwW\x07example\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x02\0\0\0\0\0\0\x0c\0\x0a\0\x08client c";
    const WORDS: Ede<'static> = Ede::new(EdeCode::Blocked, "rule x");

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
    fn the_error_text_is_dropped_first_and_the_cookie_stays() {
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
            let space = Space { limit: length + room, ..Space::stream(1232) };
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
