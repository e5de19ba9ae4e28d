//! The query we send to an upstream. It has an id and OPT record of ours; only question, DO and CD are the client's.

use super::{
    Class, Flags, Header, MessageId, Name, RecordType,
    edns::{OPT_LENGTH, Opt},
    header::HEADER,
};

/// Padded queries have a multiple of this (RFC 8467 4.1).
const BLOCK: usize = 128;
/// The option's code (RFC 7830 3).
const PADDING: usize = 12;

/// A query to an upstream. Clients with equal queries share one response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamQuery {
    /// QNAME, in lower case.
    pub name: Name,
    /// QTYPE.
    pub qtype: RecordType,
    /// QCLASS.
    pub qclass: Class,
    /// DNSSEC OK (RFC 3225).
    pub do_bit: bool,
    /// Checking disabled (RFC 4035 3.2.2).
    pub cd: bool,
}

impl UpstreamQuery {
    /// The longest query in octets.
    pub const MAX: usize = HEADER + 255 + 4 + OPT_LENGTH;

    /// The longest padded one.
    pub const MAX_PADDED: usize = (Self::MAX + 4).next_multiple_of(BLOCK);

    /// Writes the query and returns its length; none if `out` is too short. With `payload` it has an OPT record. With
    /// `case_seed` each letter's case is a bit of the seed, which the response must repeat (0x20).
    pub fn write(&self, id: MessageId, payload: Option<u16>, case_seed: Option<u64>, out: &mut [u8]) -> Option<usize> {
        let name = self.name.as_wire();
        // AD asks the upstream to report the result of validation, even without DO (RFC 6840 5.7).
        let mut flags = Flags::RD | Flags::AD;
        if self.cd {
            flags |= Flags::CD;
        }
        let header = Header { id, flags: Flags(flags), counts: [1, 0, 0, u16::from(payload.is_some())] };
        let end = HEADER + name.len() + 4;
        out.get_mut(..HEADER)?.copy_from_slice(&header.to_bytes());
        let section = out.get_mut(HEADER..end)?;
        section[..name.len()].copy_from_slice(name);
        if let Some(seed) = case_seed {
            mix_case(&mut section[..name.len()], seed);
        }
        section[name.len()..name.len() + 2].copy_from_slice(&self.qtype.0.to_be_bytes());
        section[name.len() + 2..].copy_from_slice(&self.qclass.0.to_be_bytes());
        let Some(payload) = payload else { return Some(end) };
        let opt = Opt { payload, do_bit: self.do_bit, ..Opt::default() };
        opt.write(&mut out[end..]).map(|length| end + length)
    }
}

impl UpstreamQuery {
    /// Clears RD in a written query, so that the server answers only from what it has.
    pub fn clear_rd(out: &mut [u8]) {
        if let Some(flags) = out.get_mut(2) {
            *flags &= !Flags::RD.to_be_bytes()[0];
        }
    }

    /// Pads a query of `length` octets to a multiple of 128, so that its encrypted length says little (RFC 7830, RFC
    /// 8467 4.1), and returns the new length. The query must end with an OPT record without options.
    pub fn pad(out: &mut [u8; Self::MAX_PADDED], length: usize) -> usize {
        let padded = (length + 4).next_multiple_of(BLOCK).min(Self::MAX_PADDED);
        let rest = &mut out[length - 2..padded];
        let [rdlength, code, octets] = [padded - length, PADDING, padded - length - 4];
        for (place, number) in rest.chunks_exact_mut(2).zip([rdlength, code, octets]) {
            place.copy_from_slice(&u16::try_from(number).unwrap_or(0).to_be_bytes());
        }
        rest[6..].fill(0);
        padded
    }
}

/// Length octets are at most 63, below the letters.
fn mix_case(name: &mut [u8], seed: u64) {
    for (at, octet) in name.iter_mut().enumerate() {
        if octet.is_ascii_lowercase() && seed.rotate_left(u32::try_from(at % 64).unwrap_or(0)) & 1 == 1 {
            octet.make_ascii_uppercase();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> UpstreamQuery {
        let name = text.parse().unwrap();
        UpstreamQuery { name, qtype: RecordType::AAAA, qclass: Class::IN, do_bit: true, cd: true }
    }

    #[test]
    fn a_query_asks_for_recursion_and_authenticity() {
        let mut out = [0; UpstreamQuery::MAX];
        let length = query("a.example").write(MessageId(7), Some(1232), None, &mut out).unwrap();
        let expected =
            b"\0\x07\x01\x30\0\x01\0\0\0\0\0\x01\x01a\x07example\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";
        assert_eq!(&out[..length], expected);
        let plain = UpstreamQuery { do_bit: false, cd: false, ..query("a.example") };
        let length = plain.write(MessageId(7), None, None, &mut out).unwrap();
        assert_eq!(&out[..length], b"\0\x07\x01\x20\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x1c\0\x01");
    }

    #[test]
    fn a_padded_query_is_a_multiple_of_128_octets() {
        let longest = format!("{}.{}", "a".repeat(63), "b.".repeat(95));
        for text in ["a", "a.example", &"a.".repeat(43), &"a.".repeat(44), &"a.".repeat(45), &longest] {
            let mut out = [0xff; UpstreamQuery::MAX_PADDED];
            let length = query(text).write(MessageId(7), Some(1232), None, &mut out).unwrap();
            let before = out[..length - 2].to_vec();
            let padded = UpstreamQuery::pad(&mut out, length);
            assert_eq!((padded % 128, padded - length <= 131), (0, true), "{text}");
            let octets = u8::try_from(padded - length).unwrap();
            assert_eq!(&out[..length - 2], before);
            assert_eq!(&out[length - 2..length + 4], &[0, octets, 0, 12, 0, octets - 4]);
            assert!(out[length + 4..padded].iter().all(|&octet| octet == 0));
        }
    }

    #[test]
    fn a_query_that_does_not_fit_is_not_written() {
        let mut out = [0; UpstreamQuery::MAX];
        let length = query("a.example").write(MessageId(7), Some(1232), None, &mut out).unwrap();
        for short in 0..length {
            assert_eq!(query("a.example").write(MessageId(7), Some(1232), None, &mut out[..short]), None, "{short}");
        }
    }

    #[test]
    fn each_letter_takes_a_bit_of_the_seed_and_no_other_octet_changes() {
        let mut name = *b"\x05ab-1z\x3fyx";
        mix_case(&mut name, u64::MAX);
        assert_eq!(&name, b"\x05AB-1Z\x3fYX");
        let mut one = *b"aaaaaaaa";
        mix_case(&mut one, 1 << 63);
        assert_eq!(&one, b"aAaaaaaa");
    }
}
