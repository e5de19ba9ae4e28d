//! Parses a client's query in place (RFC 1035 4.1, RFC 6891, RFC 9619).
//!
//! Every query with a complete header gets a response (RFC 8906); only messages that are not queries are dropped. When
//! a query cannot be handled, [`Reject`] says how to respond. A message that asks only for a cookie is a query too (RFC
//! 7873 5.4). Octets behind the last record are ignored, as other servers do.

use super::{
    Class, Edns, Flags, Header, Malformed, MessageId, Opcode, Rcode, RecordType,
    cookie::Standing,
    header::HEADER,
    name,
    record::{Records, Section},
};

/// The parts of a query that its reply repeats.
#[derive(Debug, Clone, Copy)]
pub struct Echo<'a> {
    /// The query's id.
    pub id: MessageId,
    /// The query's flags, of which a reply repeats opcode, RD and CD.
    pub flags: Flags,
    /// The question section as it came; empty if there is none to repeat.
    pub section: &'a [u8],
}

/// A well-formed query.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Id, flags and question section.
    pub echo: Echo<'a>,
    /// QTYPE.
    pub qtype: RecordType,
    /// QCLASS.
    pub qclass: Class,
    /// The client's OPT record, version 0.
    pub edns: Option<Edns<'a>>,
}

/// Why a message is not a query we can handle, and how to respond.
#[derive(Debug, Clone, Copy)]
pub enum Reject<'a> {
    /// Too short to have a header.
    Malformed,
    /// A response, which must never be answered.
    Response,
    /// A COOKIE option without a question: to be answered with NOERROR and a cookie of ours.
    CookieOnly {
        /// What the reply repeats.
        echo: Echo<'a>,
        /// The OPT record with the cookie.
        edns: Edns<'a>,
    },
    /// To be answered with this code.
    Reply {
        /// What the reply repeats.
        echo: Echo<'a>,
        /// FORMERR, NOTIMP or BADVERS.
        rcode: Rcode,
        /// The OPT record of the query, if it could be read. If so, the reply has one too.
        edns: Option<Edns<'a>>,
    },
}

impl<'a> Question<'a> {
    /// Reads a query.
    pub fn read(message: &'a [u8]) -> Result<Self, Reject<'a>> {
        let header = Header::read(message).map_err(|_| Reject::Malformed)?;
        if header.flags.has(Flags::QR) {
            return Err(Reject::Response);
        }
        let mut echo = Echo { id: header.id, flags: header.flags, section: &[] };
        let refuse = |echo, rcode| Err(Reject::Reply { echo, rcode, edns: None });
        if header.flags.opcode() != Opcode::QUERY {
            return refuse(echo, Rcode::NOTIMP);
        }
        if header.counts[0] != 1 {
            return match empty(message, &header) {
                Some(edns) if edns.cookie.is_some() => Err(Reject::CookieOnly { echo, edns }),
                edns => Err(Reject::Reply { echo, rcode: Rcode::FORMERR, edns }),
            };
        }
        let Ok((qtype, qclass, end)) = read_section(message) else { return refuse(echo, Rcode::FORMERR) };
        echo.section = &message[HEADER..end];
        let Ok(edns) = read_rest(message, &header, end) else { return refuse(echo, Rcode::FORMERR) };
        if edns.as_ref().is_some_and(|edns| edns.version > 0) {
            return Err(Reject::Reply { echo, rcode: Rcode::BADVERS, edns });
        }
        Ok(Self { echo, qtype, qclass, edns })
    }

    /// QNAME in wire form, in the letter case it came in.
    pub fn name(&self) -> &'a [u8] {
        &self.echo.section[..self.echo.section.len() - 4]
    }

    /// Whether the client wants signatures (RFC 3225).
    pub fn do_bit(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.do_bit)
    }

    /// Whether the client sent a valid server cookie, which proves its address. False until the cookie is verified.
    pub fn is_proven(&self) -> bool {
        let cookie = self.edns.as_ref().and_then(|edns| edns.cookie.as_ref());
        cookie.is_some_and(|cookie| cookie.standing() == Standing::Proven)
    }

    /// Whether the client checks signatures itself.
    pub const fn cd(&self) -> bool {
        self.echo.flags.has(Flags::CD)
    }
}

/// The OPT record of a message without a question: a reply has one where the query has (RFC 6891 6.1.1).
fn empty<'a>(message: &'a [u8], header: &Header) -> Option<Edns<'a>> {
    if header.counts[0] != 0 {
        return None;
    }
    read_rest(message, header, HEADER).ok()?.filter(|edns| edns.version == 0)
}

fn read_section(message: &[u8]) -> Result<(RecordType, Class, usize), Malformed> {
    let end = name::skip_uncompressed(message, HEADER)?;
    let [a, b, c, d] = *message[end..].first_chunk().ok_or(Malformed::Short)?;
    Ok((RecordType(u16::from_be_bytes([a, b])), Class(u16::from_be_bytes([c, d])), end + 4))
}

fn read_rest<'a>(message: &'a [u8], header: &Header, at: usize) -> Result<Option<Edns<'a>>, Malformed> {
    let mut opt = None;
    for record in Records::new(message, header, at) {
        let record = record?;
        if record.rtype != RecordType::OPT {
            continue;
        }
        if record.section != Section::Additional || opt.is_some() {
            return Err(Malformed::Opt);
        }
        opt.insert(Edns::read(message, &record)?).read_options()?;
    }
    Ok(opt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03WwW\x07example\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    fn with(counts: [u16; 4], tail: &[u8]) -> Vec<u8> {
        let mut message = PLAIN.to_vec();
        for (at, count) in counts.iter().enumerate() {
            message[4 + at * 2..6 + at * 2].copy_from_slice(&count.to_be_bytes());
        }
        message.extend_from_slice(tail);
        message
    }

    /// An OPT record with a COOKIE option of so many octets.
    fn cookie(length: u8) -> Vec<u8> {
        let head = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length + 4, 0, 10, 0, length];
        [&head[..], &vec![b'c'; length.into()]].concat()
    }

    fn rcode(message: &[u8]) -> Option<Rcode> {
        match Question::read(message) {
            Ok(_) => Some(Rcode::NOERROR),
            Err(Reject::Reply { rcode, .. }) => Some(rcode),
            Err(_) => None,
        }
    }

    #[test]
    fn a_query_is_read_as_it_came() {
        let message = with([1, 0, 0, 1], OPT);
        let question = Question::read(&message).unwrap();
        assert_eq!(question.name(), b"\x03WwW\x07example\0");
        assert_eq!((question.qtype, question.qclass), (RecordType::A, Class::IN));
        assert!(question.do_bit() && !question.cd());
        assert_eq!(question.edns.unwrap().payload, 1232);
    }

    #[test]
    fn no_question_but_a_cookie_is_told_apart() {
        let without = |counts: [u16; 4], tail: &[u8]| [&with(counts, b"")[..HEADER], tail].concat();
        let twice = [&cookie(8)[..], b"\0\x0a\0\x01x"].concat();
        let [mut second, mut first] = [twice.clone(), twice];
        // Both options in one OPT: the well-formed one first, then last.
        second[10] = 17;
        first[10] = 17;
        first[11..].rotate_right(5);
        for (name, message, is_cookie) in [
            ("client cookie", without([0, 0, 0, 1], &cookie(8)), true),
            ("with a server cookie", without([0, 0, 0, 1], &cookie(24)), true),
            ("the second does not count", without([0, 0, 0, 1], &second), true),
            ("the first does", without([0, 0, 0, 1], &first), false),
            ("no such length", without([0, 0, 0, 1], &cookie(15)), false),
            ("no cookie", without([0, 0, 0, 1], OPT), false),
            ("no OPT", without([0; 4], b""), false),
            ("two questions", without([2, 0, 0, 1], &cookie(8)), false),
            ("trailing octets", without([0, 0, 0, 1], &[cookie(8), vec![0]].concat()), true),
        ] {
            match Question::read(&message) {
                Err(Reject::CookieOnly { echo, edns }) => {
                    assert!(is_cookie && echo.section.is_empty() && !edns.do_bit, "{name}")
                }
                Err(Reject::Reply { rcode, edns, .. }) => {
                    assert_eq!((rcode, is_cookie), (Rcode::FORMERR, false), "{name}");
                    assert_eq!(edns.is_some(), name == "no cookie", "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn queries_that_cannot_be_handled_are_told_apart() {
        let two_opts = [OPT, OPT].concat();
        let opt_with_owner = [b"\x01a", OPT].concat();
        let version_1 = b"\0\0\x29\x04\xd0\0\x01\0\0\0\0";
        let broken_option = b"\0\0\x29\x04\xd0\0\0\0\0\0\x05\0\x0a\0\x08\x01";
        let broken_later = b"\0\0\x29\x04\xd0\0\x01\0\0\0\x05\0\x0a\0\x08\x01";
        for (name, message, expected) in [
            ("plain", with([1, 0, 0, 0], b""), Some(Rcode::NOERROR)),
            ("no header", PLAIN[..11].to_vec(), None),
            ("header alone", PLAIN[..12].to_vec(), Some(Rcode::FORMERR)),
            ("no question", with([0, 0, 0, 0], b""), Some(Rcode::FORMERR)),
            ("two questions", with([2, 0, 0, 0], b"\0\0\x01\0\x01"), Some(Rcode::FORMERR)),
            ("cut question", PLAIN[..20].to_vec(), Some(Rcode::FORMERR)),
            ("trailing octets", with([1, 0, 0, 0], b"\0"), Some(Rcode::NOERROR)),
            ("count without record", with([1, 0, 0, 1], b""), Some(Rcode::FORMERR)),
            ("two OPT", with([1, 0, 0, 2], &two_opts), Some(Rcode::FORMERR)),
            ("OPT with an owner", with([1, 0, 0, 1], &opt_with_owner), Some(Rcode::FORMERR)),
            ("OPT among the answers", with([1, 1, 0, 0], OPT), Some(Rcode::FORMERR)),
            ("broken option", with([1, 0, 0, 1], broken_option), Some(Rcode::FORMERR)),
            ("EDNS version 1 of another shape", with([1, 0, 0, 1], broken_later), Some(Rcode::BADVERS)),
            ("EDNS version 1", with([1, 0, 0, 1], version_1), Some(Rcode::BADVERS)),
            ("cookie", with([1, 0, 0, 1], &cookie(8)), Some(Rcode::NOERROR)),
            ("cookie of no such length", with([1, 0, 0, 1], &cookie(9)), Some(Rcode::FORMERR)),
            ("empty cookie", with([1, 0, 0, 1], &cookie(0)), Some(Rcode::FORMERR)),
        ] {
            assert_eq!(rcode(&message), expected, "{name}");
        }
        let mut response = PLAIN.to_vec();
        response[2] |= 0x80;
        assert!(matches!(Question::read(&response), Err(Reject::Response)));
        for opcode in 1..16_u8 {
            let mut message = PLAIN[..12].to_vec();
            message[2] = opcode << 3;
            assert_eq!(rcode(&message), Some(Rcode::NOTIMP), "opcode {opcode}");
        }
        let mut pointer = PLAIN.to_vec();
        pointer[12] = 0xc0;
        assert_eq!(rcode(&pointer), Some(Rcode::FORMERR));
    }
}
