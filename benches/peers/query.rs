//! Questions as bytes, and whether an answer answers them.

/// The longest question that is asked: header, name, type and class.
pub(crate) const QUESTION_MAX: usize = 96;
/// The octets of a DNS header.
pub(crate) const HEADER: usize = 12;

/// A name to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// One of those that everybody asks for.
    Popular(u32),
    /// One of AWS that nobody has asked for.
    New(u64),
    /// One of many, of 56 characters.
    Long(u32),
}

/// A name's wire form with digits to fill in.
struct Form {
    wire: &'static [u8],
    digits: std::ops::Range<usize>,
    radix: u64,
}

const POPULAR: Form = Form { wire: b"\x03www\x09site00000\x04corp\x07example\x00", digits: 9..14, radix: 10 };
/// As long as the names of AWS services are.
const NEW: Form =
    Form { wire: b"\x11n0000000000000000\x03sqs\x09eu-west-1\x09amazonaws\x03com\x00", digits: 2..18, radix: 16 };
const LONG: Form = Form {
    wire: b"\x0dhosts-0000000\x0ceu-central-1\x07compute\x08internal\x04corp\x07example\x00",
    digits: 7..14,
    radix: 10,
};

/// Writes a question for the name's addresses, with recursion desired and without EDNS, as the stub resolver of glibc
/// asks. Returns its length.
pub(crate) fn write(id: u16, name: Name, out: &mut [u8; QUESTION_MAX]) -> usize {
    let (form, mut number) = match name {
        Name::Popular(number) => (&POPULAR, u64::from(number)),
        Name::New(number) => (&NEW, number),
        Name::Long(number) => (&LONG, u64::from(number)),
    };
    out[..HEADER].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out[..2].copy_from_slice(&id.to_be_bytes());
    let end = HEADER + form.wire.len();
    out[HEADER..end].copy_from_slice(form.wire);
    for digit in out[HEADER..end][form.digits.clone()].iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number % form.radix).unwrap_or_default()];
        number /= form.radix;
    }
    out[end..end + 4].copy_from_slice(&[0, 1, 0, 1]);
    end + 4
}

/// What a datagram is to the question that its id belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer.
    Answer,
    /// An answer without an address, or with an error.
    Failure,
    /// No answer to this question.
    Wrong,
}

/// Judges an answer by QR, question (with its letters' case) and outcome; the caller has matched the id.
pub(crate) fn judge(answer: &[u8], question: &[u8]) -> Verdict {
    let Some((header, rest)) = answer.split_at_checked(HEADER) else { return Verdict::Wrong };
    if header[2] & 0x80 == 0 || header[4..6] != [0, 1] || !rest.starts_with(&question[HEADER..]) {
        return Verdict::Wrong;
    }
    let truncated = header[2] & 2 != 0;
    let rcode = header[3] & 15;
    if truncated || rcode != 0 || header[6..8] == [0, 0] { Verdict::Failure } else { Verdict::Answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_number_and_are_as_long_as_said() {
        let mut out = [0; QUESTION_MAX];
        let length = write(7, Name::Long(1_234_567), &mut out);
        // Labels and lengths, without the first length and the root.
        assert_eq!(length - HEADER - 4 - 2, 56);
        assert_eq!(&out[HEADER..][..14], b"\x0dhosts-1234567");
        write(7, Name::New(u64::MAX), &mut out);
        assert_eq!(&out[HEADER..][..18], b"\x11nffffffffffffffff");
        write(7, Name::Popular(42), &mut out);
        assert_eq!(&out[HEADER + 4..][..10], b"\x09site00042");
    }
}
