//! The text of unbound.conf: attributes `name: value` in sections, with free layout, and included files in place.
//!
//! A word is what stands between spaces, or in single or double quotes; `#` begins a comment at the beginning of a word
//! alone (`forward-addr: 192.0.2.1@853#dns.example` has none). Several attributes may stand on one line.

use super::super::{
    site::{Place, Site},
    source::{Files, Source},
};

/// A word, and whether it was in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: String,
    is_quoted: bool,
    line: usize,
}

/// `name: values`.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) values: Vec<String>,
    pub(super) place: Place,
    pub(super) source: Source,
}

impl Attribute {
    pub(super) fn value(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }

    pub(super) fn is_yes(&self) -> bool {
        self.value() == "yes"
    }

    /// As it stood.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.name, self.values.join(" "))
    }
}

/// A section, such as `forward-zone:`.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) attributes: Vec<Attribute>,
}

/// Reads the sections of a file and of those that it includes.
pub(super) fn read(source: &Source, files: &mut Files, site: &mut Site, sections: &mut Vec<Clause>) {
    let mut words = words(&source.text).into_iter().peekable();
    while let Some(word) = words.next() {
        let place = source.place(word.line);
        let Some(name) = attribute_name(&word) else {
            site.lost(&place, word.text, "an attribute `name: value` should stand here");
            continue;
        };
        let mut values = Vec::new();
        let inline = word.text[name.len() + 1..].to_owned();
        if !inline.is_empty() {
            values.push(inline);
        }
        while let Some(next) = words.next_if(|next| attribute_name(next).is_none()) {
            values.push(next.text);
        }
        match name.as_str() {
            "include" | "include-toplevel" => {
                for pattern in &values {
                    for included in files.include(source, pattern, &place, site) {
                        read(&included, files, site, sections);
                    }
                }
            }
            _ if values.is_empty() => sections.push(Clause { name, place, attributes: Vec::new() }),
            _ => match sections.last_mut() {
                Some(section) => section.attributes.push(Attribute { name, values, place, source: source.clone() }),
                None => site.lost(&place, name, "it stands before any section"),
            },
        }
    }
}

/// The name of an attribute that a word begins. Addresses have colons too; names of attributes are longer and have no
/// digits in front of them.
fn attribute_name(word: &Word) -> Option<String> {
    if word.is_quoted {
        return None;
    }
    let (name, rest) = word.text.split_once(':')?;
    let is_name = name.len() > 2
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // `feed::1` is an address, `server:` and `name:"x"` are not.
    (is_name && !rest.contains(':') && !word.text.contains('/') || is_name && rest.is_empty()).then(|| name.to_owned())
}

fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let line = number + 1;
            match first {
                '#' => break,
                '"' | '\'' => {
                    let (inside, after) = rest[1..].split_once(first).unwrap_or_else(|| (&rest[1..], ""));
                    words.push(Word { text: inside.to_owned(), is_quoted: true, line });
                    rest = after.trim_start();
                }
                _ => {
                    let end = rest.find([' ', '\t', '"']).unwrap_or(rest.len());
                    words.push(Word { text: rest[..end].to_owned(), is_quoted: false, line });
                    rest = rest[end..].trim_start();
                }
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_unbound_sees() {
        let text = "server: # c\n  interface: ::1@53 port: 5353\nname:\"a # b\" forward-addr: 9.9.9.9@853#dns.q # x\n";
        let words: Vec<String> = words(text).into_iter().map(|word| word.text).collect();
        let expected = [
            "server:",
            "interface:",
            "::1@53",
            "port:",
            "5353",
            "name:",
            "a # b",
            "forward-addr:",
            "9.9.9.9@853#dns.q",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn addresses_are_no_attributes() {
        let name = |text: &str| attribute_name(&Word { text: text.to_owned(), is_quoted: false, line: 1 });
        assert_eq!(name("feed::1"), None);
        assert_eq!(name("fe80::1"), None);
        assert_eq!(name("::"), None);
        assert_eq!(name("2001:db8::1"), None);
        assert_eq!(name("server:").as_deref(), Some("server"));
        assert_eq!(name("port:53").as_deref(), Some("port"));
    }
}
