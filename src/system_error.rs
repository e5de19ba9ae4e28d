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

/// What is left of an error of a system call where it is copied and compared: its code or, of an error that is not the
/// system's, its kind. A kind alone would not do: ENODEV, EHOSTDOWN and many others have none of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCause {
    /// The code of the system call.
    Code(i32),
    /// An error of ours or of a library.
    Kind(io::ErrorKind),
}

impl ErrorCause {
    /// The kind of the error.
    pub fn kind(self) -> io::ErrorKind {
        io::Error::from(self).kind()
    }
}

impl From<&io::Error> for ErrorCause {
    fn from(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Kind(error.kind()), Self::Code)
    }
}

impl From<ErrorCause> for io::Error {
    fn from(cause: ErrorCause) -> Self {
        match cause {
            ErrorCause::Code(code) => Self::from_raw_os_error(code),
            ErrorCause::Kind(kind) => kind.into(),
        }
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SystemError(&(*self).into()).fmt(f)
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

    #[test]
    fn a_cause_says_what_its_error_said() {
        let said = |error: io::Error| ErrorCause::from(&error).to_string();
        // ENODEV and EHOSTDOWN have no kind in the standard library.
        assert_eq!(said(io::Error::from_raw_os_error(19)), "no such device");
        assert_eq!(said(io::Error::from_raw_os_error(112)), "host is down");
        assert_eq!(said(io::ErrorKind::ConnectionReset.into()), "connection reset");
        assert_eq!(ErrorCause::Code(111).kind(), io::ErrorKind::ConnectionRefused);
    }
}
