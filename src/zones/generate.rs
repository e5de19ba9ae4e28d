//! `$GENERATE`, BIND's loop: `$GENERATE START-STOP[/STEP] OWNER [TTL] [CLASS] TYPE DATA`.
//!
//! In OWNER and DATA each `$` stands for the number of the iteration, `${OFFSET[,WIDTH[,BASE]]}` for that number plus
//! OFFSET, padded with zeros to WIDTH and written in BASE: d, o, x, X, or n and N for nibbles separated by dots, the
//! lowest first, as in ip6.arpa (the dots count in WIDTH). `\$` and `$$` are a dollar sign. DATA of several
//! words stands in quotes. BIND's `lib/dns/master.c` is the specification (9.18); ours has a bound.

/// The most records that the directives of one zone make: all of a /10's addresses.
pub(super) const MOST_GENERATED: usize = 1 << 22;
/// The widest number, in characters.
const MOST_WIDTH: usize = 255;

/// The numbers of a loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
}

impl Range {
    /// Reads `START-STOP` or `START-STOP/STEP`: numbers up to 2^31-1, not descending.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (start, rest) = text.split_once('-')?;
        let (stop, step) = rest.split_once('/').unwrap_or((rest, "1"));
        let number = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            text.parse().ok().filter(|&number: &i32| is_plain && number >= 0).map(i64::from)
        };
        let range = Self { start: number(start)?, stop: number(stop)?, step: number(step)? };
        (range.step > 0 && range.start <= range.stop).then_some(range)
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> usize {
        usize::try_from((self.stop - self.start) / self.step + 1).unwrap_or(usize::MAX)
    }

    /// The numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i64> {
        let Self { start, stop, step } = *self;
        (0..).map(move |turn| start + turn * step).take_while(move |number| *number <= stop)
    }
}

/// The text of one iteration; none if a modifier is malformed.
pub(super) fn expand(template: &[u8], number: i64) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(template.len() + 8);
    let mut rest = template;
    let mut offset = 0;
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'$' if rest.first() == Some(&b'$') => {
                // Escaped, so that it is no directive where an owner begins with it.
                text.extend(b"\\$");
                rest = &rest[1..];
            }
            b'$' => {
                let (modifier, behind) = Modifier::read(rest, offset)?;
                modifier.write(number, &mut text);
                offset = modifier.offset;
                rest = behind;
            }
            b'\\' => {
                text.push(octet);
                if let Some((&escaped, behind)) = rest.split_first() {
                    text.push(escaped);
                    rest = behind;
                }
            }
            _ => text.push(octet),
        }
    }
    Some(text)
}

/// How a number is written.
struct Modifier {
    offset: i64,
    width: usize,
    base: u8,
}

impl Modifier {
    /// The modifier in braces at the start of `text`, if there is one, and what follows. Without one the offset before
    /// it in the same word still holds: in BIND's `${5} $` both numbers are moved.
    fn read(text: &[u8], offset: i64) -> Option<(Self, &[u8])> {
        let Some(inner) = text.strip_prefix(b"{") else {
            return Some((Self { offset, width: 0, base: b'd' }, text));
        };
        let end = inner.iter().position(|&octet| octet == b'}')?;
        let (inner, behind) = (std::str::from_utf8(&inner[..end]).ok()?, &inner[end + 1..]);
        let mut parts = inner.split(',');
        let offset = parts.next()?.parse::<i32>().ok()?;
        let width = parts.next().map_or(Some(0), |width| width.parse().ok())?;
        let base = match parts.next() {
            None => b'd',
            Some(base) => *base.as_bytes().first().filter(|_| base.len() == 1)?,
        };
        let is_proper = parts.next().is_none() && width <= MOST_WIDTH && b"doxXnN".contains(&base);
        is_proper.then_some((Self { offset: offset.into(), width, base }, behind))
    }

    fn write(&self, number: i64, text: &mut Vec<u8>) {
        let (number, width) = (number + self.offset, self.width);
        // C's printf shows octal and hexadecimal numbers without a sign.
        let bits = u32::from_ne_bytes(i32::try_from(number).unwrap_or(i32::MAX).to_ne_bytes());
        let written = match self.base {
            b'o' => format!("{bits:0width$o}"),
            b'x' => format!("{bits:0width$x}"),
            b'X' => format!("{bits:0width$X}"),
            b'n' => return nibbles(bits, width, *b"0123456789abcdef", text),
            b'N' => return nibbles(bits, width, *b"0123456789ABCDEF", text),
            _ => format!("{number:0width$}"),
        };
        text.extend_from_slice(written.as_bytes());
    }
}

fn nibbles(mut bits: u32, mut width: usize, digits: [u8; 16], text: &mut Vec<u8>) {
    loop {
        text.push(digits[usize::from(bits.to_le_bytes()[0] & 0xf)]);
        bits >>= 4;
        width = width.saturating_sub(1);
        if width == 0 && bits == 0 {
            return;
        }
        text.push(b'.');
        width = width.saturating_sub(1);
        if width == 0 && bits == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_modifier_says() {
        for (template, number, expected) in [
            ("host-$", 7, "host-7"),
            ("${0}", 7, "7"),
            ("${-5,3}", 7, "002"),
            ("${20,3,d}", 7, "027"),
            ("${0,4,x}", 254, "00fe"),
            ("${0,4,X}", 254, "00FE"),
            ("${0,0,o}", 8, "10"),
            ("${-10}", 7, "-3"),
            ("${-10,4}", 7, "-003"),
            ("${0,0,n}", 0x1f, "f.1"),
            ("${0,7,n}", 0x1f, "f.1.0.0"),
            ("${0,8,N}", 0x1f, "F.1.0.0."),
            ("a$$b\\$c$", 7, "a\\$b\\$c7"),
            ("\\", 7, "\\"),
            ("$-$", 7, "7-7"),
            ("$ ${5,3} $ ${0} $", 7, "7 012 12 7 7"),
        ] {
            let text = expand(template.as_bytes(), number).map(|text| String::from_utf8(text).unwrap());
            assert_eq!(text.as_deref(), Some(expected), "{template}");
        }
        for template in ["${", "${}", "${x}", "${0,x}", "${0,3,q}", "${0,3,dd}", "${0,3,d,1}", "${0,256}", "${0,-1}"] {
            assert_eq!(expand(template.as_bytes(), 1), None, "{template}");
        }
    }

    #[test]
    fn a_range_ascends_by_its_step() {
        let numbers = |text: &str| Range::read(text.as_bytes()).map(|range| range.numbers().collect::<Vec<_>>());
        assert_eq!(numbers("1-3"), Some(vec![1, 2, 3]));
        assert_eq!(numbers("0-9/4"), Some(vec![0, 4, 8]));
        assert_eq!(numbers("5-5"), Some(vec![5]));
        assert_eq!(Range::read(b"0-2147483647").unwrap().count(), 1 << 31);
        assert_eq!(Range::read(b"0-9/4").unwrap().count(), 3);
        for text in ["", "1", "3-1", "1-", "-1-2", "1-2/0", "1-2/", "1-2/3/4", "1-2147483648", "+1-2", "a-b"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }
}
