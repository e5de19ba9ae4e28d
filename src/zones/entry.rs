//! The entries of a master file (RFC 1035 5.1): what stands on one line, or on several within parentheses.
//!
//! Octets, not characters: a file need not be UTF-8. A string ends with its line, although RFC 1035 allows more lines:
//! otherwise a missing quote would be reported at the end of the file.

use super::{error::ZoneErrorKind, watch};

/// A word or a quoted string, its escapes untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// What was written, without the quotes.
    pub(super) text: &'t [u8],
    /// Whether it stood in quotes.
    pub(super) quoting: Quoting,
}

/// Whether a token stood in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Not in quotes.
    Bare,
    /// In quotes.
    Quoted,
}

/// Whether an entry names its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It begins with blanks: the owner is that of the previous entry.
    Blank,
    /// It begins with a word.
    Word,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'t> {
    /// The line where it begins, from 1.
    pub(super) line: usize,
    /// How it begins.
    pub(super) start: Start,
    /// Its words, at least one.
    pub(super) tokens: Vec<Token<'t>>,
}

impl Entry<'_> {
    /// The entry on one line, for people.
    pub(super) fn shown(&self) -> String {
        /// The most characters of a record shown in a message.
        const SHOWN: usize = 100;
        let words: Vec<_> = self.tokens.iter().map(Token::shown).collect();
        let mut text = words.join(" ");
        if let Some((end, _)) = text.char_indices().nth(SHOWN) {
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Token<'_> {
    /// The token as it was written, for people.
    pub(super) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(self.text);
        match self.quoting {
            Quoting::Bare => text.into_owned(),
            Quoting::Quoted => format!("\"{text}\""),
        }
    }

    /// The text for a second parse: within quotes, `\"` becomes a quote.
    pub(super) fn unquoted(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.text.len());
        let mut rest = self.text;
        while let Some((&octet, behind)) = rest.split_first() {
            rest = behind;
            match rest.split_first() {
                Some((&b'"', behind)) if octet == b'\\' && self.quoting == Quoting::Quoted => {
                    text.push(b'"');
                    rest = behind;
                }
                Some((&escaped, behind)) if octet == b'\\' => {
                    text.extend([octet, escaped]);
                    rest = behind;
                }
                _ => text.push(octet),
            }
        }
        text
    }

    /// Whether this is the bare word `word`, in any letter case.
    pub(super) fn is(&self, word: &str) -> bool {
        self.quoting == Quoting::Bare && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Reads entries one after the other; after an error it goes on with the next line.
#[derive(Debug)]
pub(super) struct Entries<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
}

impl<'t> Entries<'t> {
    /// The entries of `text`, whose first line has the number `line`.
    pub(super) fn new(text: &'t [u8], line: usize) -> Self {
        Self { text: watch::plain(text), at: 0, line }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|&octet| octet == b'\n').unwrap_or(rest.len());
    }

    /// Reads one entry; none if the lines up to here were empty.
    fn entry(&mut self) -> Result<Option<Entry<'t>>, (usize, ZoneErrorKind)> {
        let mut line = self.line;
        let start = if matches!(self.peek(), Some(b' ' | b'\t')) { Start::Blank } else { Start::Word };
        let mut tokens = Vec::new();
        let mut depth = 0;
        let mut opened = line;
        while let Some(octet) = self.peek() {
            match octet {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    if depth == 0 {
                        break;
                    }
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b';' => self.skip_line(),
                b'(' => {
                    self.at += 1;
                    depth += 1;
                    opened = self.line;
                }
                b')' if depth == 0 => return Err((self.line, ZoneErrorKind::Parenthesis)),
                b')' => {
                    self.at += 1;
                    depth -= 1;
                }
                _ => {
                    if tokens.is_empty() {
                        line = self.line;
                    }
                    let token = if octet == b'"' { self.quoted() } else { self.word() };
                    tokens.push(token.map_err(|kind| (self.line, kind))?);
                }
            }
        }
        if depth > 0 {
            return Err((opened, ZoneErrorKind::Open("parentheses")));
        }
        Ok((!tokens.is_empty()).then_some(Entry { line, start, tokens }))
    }

    fn quoted(&mut self) -> Result<Token<'t>, ZoneErrorKind> {
        let from = self.at + 1;
        self.at = from;
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err(ZoneErrorKind::Open("quotes")),
                Some(b'"') => break,
                Some(b'\\') if self.text.get(self.at + 1).is_some_and(|&octet| octet != b'\n') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(Token { text: &self.text[from..self.at - 1], quoting: Quoting::Quoted })
    }

    /// A word ends at a blank, a comment or a parenthesis. Quotes inside it, as in `alpn="h2,h3"`, are part of it and
    /// may hold blanks.
    fn word(&mut self) -> Result<Token<'t>, ZoneErrorKind> {
        let from = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => break,
                b'\\' if self.text.get(self.at + 1).is_some_and(|&octet| octet != b'\n') => self.at += 2,
                b'"' => {
                    self.quoted()?;
                }
                _ => self.at += 1,
            }
        }
        Ok(Token { text: &self.text[from..self.at], quoting: Quoting::Bare })
    }
}

impl<'t> Iterator for Entries<'t> {
    type Item = Result<Entry<'t>, (usize, ZoneErrorKind)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.text.len() {
            match self.entry() {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(kind) => {
                    self.skip_line();
                    return Some(Err(kind));
                }
            }
        }
        None
    }
}

/// The octets of a token, `\DDD` and `\X` replaced (RFC 1035 5.1).
pub(super) fn unescape(text: &[u8]) -> Result<Vec<u8>, ZoneErrorKind> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let (escaped, behind) = escape(rest)?;
        octets.push(escaped);
        rest = behind;
    }
    Ok(octets)
}

/// The octet that an escape stands for, and the text behind it. `text` begins behind the backslash.
pub(super) fn escape(text: &[u8]) -> Result<(u8, &[u8]), ZoneErrorKind> {
    let (&first, rest) = text.split_first().ok_or(ZoneErrorKind::Escape)?;
    if !first.is_ascii_digit() {
        return Ok((first, rest));
    }
    let digits =
        text.first_chunk::<3>().filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(ZoneErrorKind::Escape)?;
    let number = digits.iter().fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'));
    Ok((u8::try_from(number).map_err(|_| ZoneErrorKind::Escape)?, &text[3..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Shown = Result<(usize, Start, String), (usize, String)>;

    fn entries(text: &str) -> Vec<Shown> {
        Entries::new(text.as_bytes(), 1)
            .map(|entry| match entry {
                Ok(entry) => Ok((entry.line, entry.start, entry.shown())),
                Err((line, kind)) => Err((line, kind.to_string())),
            })
            .collect()
    }

    #[test]
    fn an_entry_goes_over_lines_within_parentheses_only() {
        let text = "; a comment\n\n@ SOA a b ( 1 ; serial\n  2 3\n 4 5 ) ; end\n\tNS ns\nwww A 10.0.0.1";
        assert_eq!(
            entries(text),
            [
                Ok((3, Start::Word, "@ SOA a b 1 2 3 4 5".to_owned())),
                Ok((6, Start::Blank, "NS ns".to_owned())),
                Ok((7, Start::Word, "www A 10.0.0.1".to_owned())),
            ]
        );
    }

    #[test]
    fn quotes_and_escapes_keep_blanks_and_semicolons() {
        let tokens = |text: &'static str| -> Vec<&'static [u8]> {
            let entry = Entries::new(text.as_bytes(), 1).next().unwrap().unwrap();
            entry.tokens.iter().map(|token| token.text).collect()
        };
        assert_eq!(tokens("a TXT \"x; (y\\\" z\" u\\;v"), [&b"a"[..], b"TXT", b"x; (y\\\" z", b"u\\;v"]);
        assert_eq!(tokens("a HTTPS 1 . key65=\"a b\""), [&b"a"[..], b"HTTPS", b"1", b".", b"key65=\"a b\""]);
    }

    #[test]
    fn every_error_has_its_line_and_reading_goes_on() {
        let text = "a TXT \"open\nb ) A\nc A 10.0.0.1\n\nd SOA ( 1\n2\n";
        assert_eq!(
            entries(text),
            [
                Err((1, "quotes are opened here and not closed".to_owned())),
                Err((2, "a ) without a (".to_owned())),
                Ok((3, Start::Word, "c A 10.0.0.1".to_owned())),
                Err((5, "parentheses are opened here and not closed".to_owned())),
            ]
        );
    }

    #[test]
    fn escapes_are_decimal() {
        assert_eq!(unescape(b"\\010\\255\\\\a\\.").unwrap(), b"\x0a\xff\\a.");
        for text in [&b"\\256"[..], b"\\25", b"\\2a5", b"\\"] {
            assert!(unescape(text).is_err(), "{text:?}");
        }
    }
}
