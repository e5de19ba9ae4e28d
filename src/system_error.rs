//! Errors of system calls as people read them.

use std::{fmt, io};

/// An error in words: "connection refused", without the number that the standard library puts behind it.
#[derive(Debug, Clone, Copy)]
pub struct SystemError<'a>(pub &'a io::Error);

impl fmt::Display for SystemError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let Some(code) = self.0.raw_os_error() else { return f.write_str(&text) };
        let words = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
        let mut rest = words.chars();
        let first = rest.next().map(|first| first.to_ascii_lowercase());
        first.into_iter().chain(rest).try_for_each(|letter| fmt::Write::write_char(f, letter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_has_no_number_and_no_capital() {
        let said = |error: io::Error| SystemError(&error).to_string();
        assert_eq!(said(io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(said(io::Error::from_raw_os_error(24)), "too many open files");
        assert_eq!(said(io::Error::other("Told by us")), "Told by us");
    }
}
