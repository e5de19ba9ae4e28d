//! Kinds of keys that take words of a fixed list, texts, and lists of texts.

use serde_json::{Value as Json, json};
use toml::{Spanned, de::DeValue};

use super::{Kind, Located, Problem, Reader, Text, Value, key, nearest, quoted};

/// One of some words.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Word<T> {
    default: T,
    is_shown: bool,
}

/// One of some words, with a default.
pub(in crate::config::file) const fn word<T: Copy>(default: T) -> Word<T> {
    Word { default, is_shown: true }
}

/// One of some words, required where it is used.
pub(in crate::config::file) const fn given_word<T: Copy>(default: T) -> Word<T> {
    Word { default, is_shown: false }
}

/// A type whose values are written as words.
pub(in crate::config) trait Keyword: Copy + PartialEq + 'static {
    /// Each word with its value.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(&self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| value == self).map_or("", |(word, _)| word)
    }

    /// The value of a text under the key `key`.
    fn parse(text: &Text, key: &str) -> Result<Self, Problem> {
        if let Some((_, value)) = Self::WORDS.iter().find(|(word, _)| *word == text.value) {
            return Ok(*value);
        }
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        Err(no_such_word(text, key, &words))
    }
}

/// The problem that a text is none of `words`.
pub(in crate::config) fn no_such_word(text: &Text, key: &str, words: &[&str]) -> Problem {
    let all = words.join(", ");
    match nearest(&text.value, words) {
        Some(near) => {
            let message = format!("{key} cannot be \"{}\"; did you mean \"{near}\"?", text.value);
            Problem::at(&text.place, message).help(format!("{key} is one of {all}"))
        }
        None => Problem::at(&text.place, format!("{key} cannot be \"{}\"; it is one of {all}", text.value)),
    }
}

impl<T: Keyword> Kind for Word<T> {
    type Value = T;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<T>> {
        let text = Text::read(value, path, reader)?;
        match T::parse(&text, key(path)) {
            Ok(word) => Some(text.with(word)),
            Err(problem) => {
                reader.problems.push(problem);
                // It was given, so it must not be reported as missing too.
                Some(text.with(self.default))
            }
        }
    }

    fn default(&self) -> T {
        self.default
    }

    fn show(&self, value: &T) -> Option<String> {
        self.is_shown.then(|| quoted(value.word()))
    }

    fn schema(&self) -> Json {
        json!({ "enum": T::WORDS.iter().map(|(word, _)| word).collect::<Vec<_>>() })
    }
}

/// A text, with its default where it has one.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Line(Option<&'static str>);

/// A text with a default.
pub(in crate::config::file) const fn text(default: &'static str) -> Line {
    Line(Some(default))
}

/// A text without a default.
pub(in crate::config::file) const fn given_text() -> Line {
    Line(None)
}

impl Kind for Line {
    type Value = String;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Text> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> String {
        self.0.unwrap_or_default().to_owned()
    }

    fn show(&self, value: &String) -> Option<String> {
        self.0.is_some().then(|| quoted(value))
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// A list of texts, with its default where it has one.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Lines(Option<&'static [&'static str]>);

/// A list of texts with a default.
pub(in crate::config::file) const fn texts(default: &'static [&'static str]) -> Lines {
    Lines(Some(default))
}

/// A list of texts without a default.
pub(in crate::config::file) const fn given_texts() -> Lines {
    Lines(None)
}

impl Lines {
    /// The texts of the default.
    pub(in crate::config) fn texts(self) -> &'static [&'static str] {
        self.0.unwrap_or_default()
    }
}

impl Kind for Lines {
    type Value = Vec<Text>;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Vec<Text>>> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> Vec<Text> {
        self.texts().iter().map(|text| Text::without_place((*text).to_owned())).collect()
    }

    fn show(&self, value: &Vec<Text>) -> Option<String> {
        let texts: Vec<&str> = value.iter().map(|text| text.value.as_str()).collect();
        self.0.map(|_| format!("{texts:?}"))
    }

    fn schema(&self) -> Json {
        json!({ "type": "array", "items": { "type": "string" } })
    }
}
