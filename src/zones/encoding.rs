//! Reads times, hexadecimal, base 64 and type lists in master files.

use crate::wire::RecordType;

/// Seconds, or numbers with the units w d h m s (a BIND extension), at most 2^31-1.
pub(super) fn seconds(text: &[u8]) -> Option<u32> {
    let (mut total, mut number) = (0_u32, None::<u32>);
    for octet in text {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u32::from(digit - b'0'))?);
                continue;
            }
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = number.take()?.checked_mul(unit)?.checked_add(total)?;
    }
    let total = match number {
        Some(number) => total.checked_add(number)?,
        None if text.is_empty() => return None,
        None => total,
    };
    (total <= i32::MAX.cast_unsigned()).then_some(total)
}

/// Pairs of hexadecimal digits.
pub(super) fn hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let octets: Option<Vec<u8>> = text
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    octets.ok_or_else(|| "the hexadecimal digits are not pairs of 0-9, a-f".to_owned())
}

/// Base 64 (RFC 4648 4), its padding where it belongs.
pub(super) fn base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "it is not base 64".to_owned();
    let bare = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) || bare.len() % 4 == 1 {
        return Err(wrong());
    }
    let mut octets = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for &octet in bare {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(wrong()),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            octets.push((bits >> held).to_be_bytes()[3]);
        }
    }
    Ok(octets)
}

/// A bit map of types (RFC 4034 4.1.2).
pub(super) fn bitmap(mut types: Vec<RecordType>) -> Vec<u8> {
    types.sort_unstable();
    types.dedup();
    let mut wire = Vec::new();
    for window in types.chunk_by(|one, other| one.0 >> 8 == other.0 >> 8) {
        let mut bits = [0_u8; 32];
        for rtype in window {
            bits[usize::from(rtype.0 >> 3 & 0x1f)] |= 0x80 >> (rtype.0 & 7);
        }
        let used = bits.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
        wire.extend([window[0].0.to_be_bytes()[0], used.to_le_bytes()[0]]);
        wire.extend_from_slice(&bits[..used]);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_bound() {
        for (text, expected) in [
            ("0", Some(0)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("1h30M", Some(5400)),
            ("1w2d3h4m5s", Some(788_645)),
            ("1h5", Some(3605)),
            ("h", None),
            ("", None),
            ("9999999999", None),
            ("-1", None),
        ] {
            assert_eq!(seconds(text.as_bytes()), expected, "{text}");
        }
    }
}
