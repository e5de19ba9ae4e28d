//! The text of a Corefile: words, lines and blocks, with snippets and imported files in place.
//!
//! A word is text between spaces or in double quotes; `#` starts a comment at the beginning of a word. A brace counts
//! only at the end of a line, or alone on it. `(name) { … }` is a snippet that `import name` inserts; `import PATTERN`
//! reads files.

use std::collections::BTreeMap;

use super::super::{
    site::{Place, Site},
    source::{Files, Source},
};

/// The deepest nesting of blocks and imports.
const DEEPEST: usize = 16;

/// A line of a block, and the block that it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Self>,
    pub(super) place: Place,
}

impl Line {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(String::as_str)
    }

    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// The lines of a file, with imported files in place.
pub(super) fn read(source: &Source, files: &mut Files, site: &mut Site, depth: usize) -> Vec<Line> {
    let mut tokens = tokens(source, site).into_iter().peekable();
    let mut all = Vec::new();
    for line in block(&mut tokens, 0) {
        // At the top level an import names files, or snippets that contain whole blocks.
        if line.name() == "import" && line.block.is_empty() && depth < DEEPEST {
            for pattern in line.arguments() {
                for included in files.include(source, pattern, &line.place, site) {
                    all.extend(read(&included, files, site, depth + 1));
                }
            }
        } else {
            all.push(line);
        }
    }
    all
}

/// Replaces `import` by snippets and files.
pub(super) fn expand(
    lines: &[Line],
    snippets: &BTreeMap<String, Vec<Line>>,
    source: &Source,
    files: &mut Files,
    site: &mut Site,
    depth: usize,
) -> Vec<Line> {
    let mut all = Vec::new();
    for line in lines {
        if line.name() != "import" {
            all.push(line.clone());
            continue;
        }
        let name = line.arguments().next().unwrap_or_default();
        if depth >= DEEPEST {
            site.lost(&line.place, line.text(), "imports are nested too deeply");
        } else if let Some(snippet) = snippets.get(name) {
            all.extend(expand(snippet, snippets, source, files, site, depth + 1));
        } else {
            for included in files.include(source, name, &line.place, site) {
                let lines = read(&included, files, site, depth + 1);
                all.extend(expand(&lines, snippets, source, files, site, depth + 1));
            }
        }
    }
    all
}

/// A word, or a brace that opens or closes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
}

/// The tokens of each line.
fn tokens(source: &Source, site: &mut Site) -> Vec<(Vec<Token>, Place)> {
    let mut lines: Vec<(Vec<Token>, Place)> = Vec::new();
    for (number, text) in source.text.lines().enumerate() {
        let place = source.place(number + 1);
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            match first {
                '#' => break,
                '"' => {
                    let (word, after) = quoted(&rest[1..]);
                    tokens.push(Token::Word(word));
                    rest = after.trim_start();
                }
                _ => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    tokens.push(match &rest[..end] {
                        "{" => Token::Open,
                        "}" => Token::Close,
                        word => Token::Word(variable(word, &place, site)),
                    });
                    rest = rest[end..].trim_start();
                }
            }
        }
        if !tokens.is_empty() {
            lines.push((tokens, place));
        }
    }
    lines
}

/// A string up to its closing quote, and the rest. A string that continues on the next line ends with this one.
fn quoted(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (word, &text[at + 1..]),
            '\\' if text[at + 1..].starts_with('"') => {
                characters.next();
                word.push('"');
            }
            c => word.push(c),
        }
    }
    (word, "")
}

/// `{$NAME}` is a variable of the environment.
fn variable(word: &str, place: &Place, site: &mut Site) -> String {
    let Some((before, rest)) = word.split_once("{$") else { return word.to_owned() };
    let Some((name, after)) = rest.split_once('}') else { return word.to_owned() };
    match std::env::var(name) {
        Ok(value) => format!("{before}{value}{after}"),
        Err(_) => {
            site.lost(place, word, format!("the variable {name} is not set here; set it, and import again"));
            word.to_owned()
        }
    }
}

fn block(lines: &mut std::iter::Peekable<std::vec::IntoIter<(Vec<Token>, Place)>>, depth: usize) -> Vec<Line> {
    let mut all: Vec<Line> = Vec::new();
    // Keys of a server block may continue on the next line after a comma.
    let mut pending: Vec<String> = Vec::new();
    while let Some((tokens, place)) = lines.next() {
        if tokens.first() == Some(&Token::Close) {
            return all;
        }
        let is_open = tokens.contains(&Token::Open);
        // `{ a b }` on one line is a block too.
        let mut parts = tokens.split(|token| *token == Token::Open);
        let words = |tokens: &[Token]| -> Vec<String> {
            tokens
                .iter()
                .filter_map(|token| if let Token::Word(word) = token { Some(word.clone()) } else { None })
                .collect()
        };
        let mut head = std::mem::take(&mut pending);
        head.extend(words(parts.next().unwrap_or_default()));
        let inline = parts.next().filter(|rest| !rest.is_empty());
        if !is_open && depth == 0 && head.last().is_some_and(|word| word.ends_with(',')) {
            pending = head;
            continue;
        }
        let opens_next = !is_open && depth == 0 && lines.peek().is_some_and(|(next, _)| next[..] == [Token::Open]);
        if opens_next {
            lines.next();
        }
        let inner = match inline {
            Some(rest) => vec![Line { words: words(rest), block: Vec::new(), place: place.clone() }],
            None if (is_open || opens_next) && depth < DEEPEST => block(lines, depth + 1),
            None => Vec::new(),
        };
        all.push(Line { words: head, block: inner, place });
    }
    // A file with a single server block may omit its braces.
    if depth == 0
        && all.len() > 1
        && all.iter().all(|line| line.name() != "import" && !line.name().starts_with('('))
        && all[0].block.is_empty()
    {
        let mut first = all.remove(0);
        first.block = all;
        return vec![first];
    }
    all
}
