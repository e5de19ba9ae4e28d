//! Durations ("250ms", "5s", "10m", "1h", "1d") and sizes ("512KiB", "64MiB", "1GiB", "0") as text, both ways.

use std::time::Duration;

/// Units of time in milliseconds, the longest first.
const TIME: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Units of size in octets, the largest first.
const SIZE: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Why a text is not a duration or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There are no digits in front.
    #[error("it does not begin with a whole number")]
    Number,
    /// It is a number without a unit.
    #[error("it has no unit")]
    NoUnit,
    /// The unit is unknown.
    #[error("it has a unit that is none of these")]
    Unit,
    /// The number does not fit 64 bits.
    #[error("the number is too large")]
    TooLarge,
}

/// Reads a duration.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, TIME).map(Duration::from_millis)
}

/// Reads a size in octets; "0" needs no unit.
pub(super) fn parse_size(text: &str) -> Result<u64, UnitError> {
    if text == "0" { Ok(0) } else { parse(text, SIZE) }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Unit)?;
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

/// A duration as people write it: a whole number of the longest unit that fits at least twice, or exactly once.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    // A minute reads better as 60s, an hour and a day do not.
    if milliseconds == 60_000 {
        return "60s".to_owned();
    }
    show(milliseconds, TIME, "ms")
}

/// A size as people write it.
pub(super) fn show_size(octets: u64) -> String {
    show(octets, SIZE, "")
}

fn show(number: u64, units: &[(&str, u64)], least: &str) -> String {
    match units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => format!("{number}{least}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, milliseconds, printed) in [
            ("250ms", 250, "250ms"),
            ("3500ms", 3500, "3500ms"),
            ("5s", 5000, "5s"),
            ("60s", 60_000, "60s"),
            ("10m", 600_000, "10m"),
            ("60m", 3_600_000, "1h"),
            ("24h", 86_400_000, "1d"),
            ("0s", 0, "0s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(show_duration(duration), printed, "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, octets) in [("0", 0), ("512KiB", 524_288), ("64MiB", 67_108_864), ("1GiB", 1_073_741_824)] {
            assert_eq!(parse_size(text).unwrap(), octets, "{text}");
            assert_eq!(show_size(octets), text);
        }
    }

    #[test]
    fn texts_that_are_no_durations_or_sizes_say_why() {
        for (text, error) in [
            ("", UnitError::Number),
            ("s", UnitError::Number),
            ("-5s", UnitError::Number),
            ("5", UnitError::NoUnit),
            ("0", UnitError::NoUnit),
            ("5 s", UnitError::Unit),
            ("5S", UnitError::Unit),
            ("1.5s", UnitError::Unit),
            ("1h30m", UnitError::Unit),
            ("99999999999999999999s", UnitError::TooLarge),
            ("999999999999999999d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
        for (text, error) in
            [("128", UnitError::NoUnit), ("64MB", UnitError::Unit), ("99999999999TiB", UnitError::TooLarge)]
        {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }
}
