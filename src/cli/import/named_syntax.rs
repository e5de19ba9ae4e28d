//! The syntax of named.conf: statements of words and blocks that end with `;`.
//!
//! Comments are as in C, C++ and the shell; a quoted string is a word, whatever it holds.

use super::{site::Place, source::Source};

/// Blocks within blocks.
pub(super) const DEEPEST: usize = 16;

/// A word or a block of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Word(String),
    Block(Vec<Statement>),
}

/// A statement: everything up to `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) items: Vec<Item>,
    pub(super) place: Place,
}

impl Statement {
    pub(super) fn keyword(&self) -> &str {
        self.word(0).unwrap_or_default()
    }

    pub(super) fn word(&self, at: usize) -> Option<&str> {
        self.items
            .iter()
            .filter_map(|item| if let Item::Word(word) = item { Some(word.as_str()) } else { None })
            .nth(at)
    }

    /// The word after this one.
    pub(super) fn after(&self, word: &str) -> Option<&str> {
        let words: Vec<&str> = (0..).map_while(|at| self.word(at)).collect();
        words.windows(2).find(|pair| pair[0] == word).map(|pair| pair[1])
    }

    pub(super) fn block(&self) -> &[Self] {
        let block = self.items.iter().find_map(|item| if let Item::Block(block) = item { Some(block) } else { None });
        block.map_or(&[], Vec::as_slice)
    }

    /// Its text, without its block.
    pub(super) fn text(&self) -> String {
        let word = |item: &Item| if let Item::Word(word) = item { word.clone() } else { "{ … }".to_owned() };
        self.items.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

pub(super) fn find<'a>(block: &'a [Statement], keyword: &str) -> Option<&'a Statement> {
    block.iter().rfind(|statement| statement.keyword() == keyword)
}

/// All statements of a file.
pub(super) fn statements(source: &Source) -> Vec<Statement> {
    block(&mut tokens(&source.text).into_iter(), source, 0)
}

/// A token and its line; quoted ones are words whatever they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Statements up to the closing brace, or the end of the file.
fn block(tokens: &mut impl Iterator<Item = (Token, usize)>, source: &Source, depth: usize) -> Vec<Statement> {
    let (mut statements, mut items, mut start) = (Vec::new(), Vec::new(), 1);
    let mut end = |items: &mut Vec<Item>, start| {
        if !items.is_empty() {
            statements.push(Statement { items: std::mem::take(items), place: source.place(start) });
        }
    };
    while let Some((token, line)) = tokens.next() {
        if items.is_empty() {
            start = line;
        }
        match token {
            Token::Word(word) => items.push(Item::Word(word)),
            Token::Open if depth < DEEPEST => items.push(Item::Block(block(tokens, source, depth + 1))),
            // Deeper than any real configuration: read the rest at this level.
            Token::Open => {}
            Token::End => end(&mut items, start),
            Token::Close => break,
        }
    }
    end(&mut items, start);
    statements
}

fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\n' => {
                line += 1;
                1
            }
            c if c.is_whitespace() => c.len_utf8(),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                let taken = rest.find("*/").map_or(rest.len(), |at| at + 2);
                line += rest[..taken].matches('\n').count();
                taken
            }
            '{' | '}' | ';' => {
                let token = match c {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                };
                tokens.push((token, line));
                1
            }
            '"' => {
                let (word, taken) = quoted(&rest[1..]);
                tokens.push((Token::Word(word), line));
                line += rest[..=taken].matches('\n').count();
                taken + 1
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
                // A comment may follow a word without a space; a slash alone belongs to a network.
                let end = rest[..end].find("//").or_else(|| rest[..end].find("/*")).unwrap_or(end);
                tokens.push((Token::Word(rest[..end].to_owned()), line));
                end
            }
        };
        rest = &rest[taken..];
    }
    tokens
}

/// A string up to its closing quote, and the octets that it and the quote take.
fn quoted(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (word, at + 1),
            '\\' => word.extend(characters.next().map(|(_, c)| c)),
            c => word.push(c),
        }
    }
    (word, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_quotes_and_braces_are_those_of_bind() {
        let text = "// one\nzone \"a;b\" { # two\n type /* three\n */ forward; forwarders { 10/8; !::1; }; };";
        let expected = [
            (Token::Word("zone".to_owned()), 2),
            (Token::Word("a;b".to_owned()), 2),
            (Token::Open, 2),
            (Token::Word("type".to_owned()), 3),
            (Token::Word("forward".to_owned()), 4),
            (Token::End, 4),
            (Token::Word("forwarders".to_owned()), 4),
            (Token::Open, 4),
            (Token::Word("10/8".to_owned()), 4),
            (Token::End, 4),
            (Token::Word("!::1".to_owned()), 4),
            (Token::End, 4),
            (Token::Close, 4),
            (Token::End, 4),
            (Token::Close, 4),
            (Token::End, 4),
        ];
        assert_eq!(tokens(text), expected);
        assert_eq!(quoted("a\\\"b\" c"), ("a\"b".to_owned(), 5));
    }
}
