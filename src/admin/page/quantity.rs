//! Numbers, sizes and times as people read them.

use time::OffsetDateTime;

use crate::plural::Plural;

/// With commas between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with commas and the noun that it counts.
pub(super) fn counted(number: u64, noun: &'static str) -> String {
    format!("{} {}", count(number), Plural(number, noun).noun())
}

/// A share of one as a percentage; 0 % and 100 % are shown only if exact.
pub(super) fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round();
    let tenths = if share < 1.0 { tenths.min(999.0) } else { tenths };
    let tenths = if share > 0.0 { tenths.max(1.0) } else { tenths };
    format!("{:.1} %", tenths / 10.0)
}

/// A short time, given in seconds.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        return format!("{:.0} µs", seconds * 1e6);
    }
    if seconds < 0.1 {
        return format!("{:.1} ms", seconds * 1000.0);
    }
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

/// A long time, given in seconds: its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = units.iter().position(|(number, _)| *number > 0).unwrap_or(units.len() - 1);
    let parts = units[first..].iter().take(2).filter(|(number, _)| *number > 0 || seconds == 0);
    parts.map(|(number, unit)| format!("{number} {unit}")).collect::<Vec<_>>().join(" ")
}

/// How long ago something was.
pub(super) fn ago(seconds: f64) -> String {
    if seconds < 1.0 {
        return "just now".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = seconds as u64;
    format!("{} ago", span(whole))
}

/// A size in octets.
pub(super) fn bytes(octets: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut size = octets as f64;
    for unit in ["B", "KiB", "MiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{octets} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} GiB")
}

/// A time in seconds since 1970, as RFC 3339 writes it.
pub(super) fn utc(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = at.to_hms();
    format!("{}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", at.year(), u8::from(at.month()), at.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let counts = [0, 7, 999, 1000, 123_456, 1_234_567].map(count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!([0.0, 0.000_01, 0.5, 0.999_99, 1.0].map(percent), ["0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %"]);
        assert_eq!([0, 1023, 1024, 134_217_728].map(bytes), ["0 B", "1023 B", "1.0 KiB", "128.0 MiB"]);
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn times_have_a_fitting_unit() {
        assert_eq!(
            [0.000_25, 0.000_9, 0.012, 0.25, 2.5].map(seconds),
            ["250 µs", "900 µs", "12.0 ms", "250 ms", "2.5 s"]
        );
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 90_061].map(span),
            ["0 s", "59 s", "1 min", "59 min 59 s", "1 h", "1 d 1 h"]
        );
        assert_eq!([0.3, 61.0].map(ago), ["just now", "1 min 1 s ago"]);
        assert_eq!([0, 1_795_903_357].map(utc), ["1970-01-01T00:00:00Z", "2026-11-28T22:02:37Z"]);
    }
}
