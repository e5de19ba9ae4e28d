//! Text in the format of man(7): macros, escapes, and lines of at most 80 octets.

use std::fmt::Write as _;

/// The longest line of running text.
const WIDTH: usize = 76;

/// A page under construction.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    /// Whether a paragraph begins with the next text; the first one of a section needs no macro.
    is_paragraph_due: bool,
}

impl Page {
    /// The page `name` in a section of the manual, with a short description.
    pub(super) fn new(name: &str, section: u8, date: &str, about: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Self::default();
        page.line(&format!(".TH {} {section} {date} \"tidegate {version}\" tidegate", escape(&name.to_uppercase())));
        page.section("NAME");
        page.text(&format!("{name} - {about}"));
        page
    }

    /// Begins a section.
    pub(super) fn section(&mut self, title: &str) {
        self.line(&format!(".SH {}", escape(title)));
        self.is_paragraph_due = false;
    }

    /// Begins a subsection.
    pub(super) fn part(&mut self, title: &str) {
        self.line(&format!(".SS \"{}\"", escape(title)));
        self.is_paragraph_due = false;
    }

    /// Begins a paragraph.
    pub(super) fn paragraph(&mut self) {
        let last = self.text.lines().last().unwrap_or_default();
        self.is_paragraph_due = !last.starts_with(".SH") && !last.starts_with(".SS");
    }

    /// An item with its description, both with words in backquotes in bold.
    pub(super) fn item(&mut self, head: &str, body: &str) {
        self.is_paragraph_due = false;
        self.line(".TP");
        self.line(&marked(head));
        self.text(body);
    }

    /// Running text; words in backquotes become bold.
    pub(super) fn text(&mut self, text: &str) {
        self.begin();
        let mut line = String::new();
        for word in marked(text).split_whitespace() {
            if !line.is_empty() && line.len() + word.len() >= WIDTH {
                self.line(&line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            } else if word.starts_with(['.', '\'']) {
                // Otherwise it would be a macro.
                line.push_str("\\&");
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.line(&line);
        }
    }

    /// Lines that are kept as they are.
    pub(super) fn literal<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        self.begin();
        self.line(".nf");
        for line in lines {
            let escaped = escape(line);
            self.line(&if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped });
        }
        self.line(".fi");
    }

    /// References to other pages.
    pub(super) fn references(&mut self, pages: &[(String, u8)]) {
        self.section("SEE ALSO");
        for (at, (name, section)) in pages.iter().enumerate() {
            let comma = if at + 1 < pages.len() { " ," } else { "" };
            self.line(&format!(".BR {} ({section}){comma}", escape(name)));
        }
    }

    /// An item that refers to another page.
    pub(super) fn reference(&mut self, name: &str, section: u8, about: &str) {
        self.line(".TP");
        self.line(&format!(".BR {} ({section})", escape(name)));
        self.text(about);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self) {
        if std::mem::take(&mut self.is_paragraph_due) {
            self.line(".PP");
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Escaped text, with words in backquotes in bold.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for (at, piece) in text.split('`').enumerate() {
        match at % 2 {
            0 => marked.push_str(&escape(piece)),
            _ => marked += &format!("\\fB{}\\fR", escape(piece)),
        }
    }
    marked
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '"' => escaped.push_str("\\(dq"),
            '`' => escaped.push_str("\\(ga"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            ' '..='~' | '\n' => escaped.push(character),
            // Writing to a string does not fail.
            _ => write!(escaped, "\\[u{:04X}]", u32::from(character)).unwrap_or_default(),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_a_macro_or_an_escape() {
        let mut page = Page::default();
        page.text(".NS is `a-b` and C:\\new 'so'");
        assert_eq!(page.finish(), "\\&.NS is \\fBa\\-b\\fR and C:\\enew \\(aqso\\(aq\n");
        let mut page = Page::default();
        page.text(&"word ".repeat(40));
        assert!(page.finish().lines().all(|line| line.len() <= WIDTH));
        assert_eq!(escape("…"), "\\[u2026]");
    }
}
