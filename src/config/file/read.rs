//! Typed reading of a TOML tree. A value of the wrong type or an unknown key is a problem; reading goes on, so that all
//! problems are found.

use std::ops::{Deref, DerefMut, Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    super::{
        error::Problem,
        source::{Place, SourceId},
    },
    kind::{Key, Kind},
    suggest,
};

/// A value and its place, on the heap: a table has many keys, few of them are given, and there may be a hundred thousand
/// tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Located<T>(Box<Written<T>>);

/// What a [`Located`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Written<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) place: Place,
}

impl<T> Deref for Located<T> {
    type Target = Written<T>;

    fn deref(&self) -> &Written<T> {
        &self.0
    }
}

impl<T> DerefMut for Located<T> {
    fn deref_mut(&mut self) -> &mut Written<T> {
        &mut self.0
    }
}

pub(in crate::config) type Text = Located<String>;
pub(in crate::config) type Texts = Located<Vec<Text>>;
type Flag = Located<bool>;
type Integer = Located<i64>;
type Float = Located<f64>;

impl<T> Located<T> {
    /// A value and its place.
    pub(in crate::config) fn new(value: T, place: Place) -> Self {
        Self(Box::new(Written { value, place }))
    }

    /// The value alone.
    pub(in crate::config) fn into_value(self) -> T {
        self.0.value
    }

    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> Located<U> {
        Located::new(value, self.place)
    }
}

impl Text {
    /// A text without a place in any source.
    pub(super) fn without_place(value: String) -> Self {
        Self::new(value, Place::new(SourceId::NONE, 0..0))
    }
}

/// A number or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum NumberOrWord {
    Number(i64),
    Word(String),
}

/// A server: its text, or a table with the text and the path to it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum ServerEntry {
    Text(Text),
    Table(super::keys::ServerTable),
}

/// The reader of one source.
pub(in crate::config) struct Reader<'a> {
    pub(super) source: SourceId,
    /// Where the text that is read begins in the source.
    pub(super) start: usize,
    pub(super) problems: &'a mut Vec<Problem>,
}

/// A type that a value can be read as.
pub(in crate::config) trait Value: Sized {
    /// The plural, for "must be a list of …".
    const PLURAL: &'static str;

    /// The singular, for "must be …".
    fn kind() -> String;

    /// Reads the value of the key `path`; none, and a problem, if it has another type.
    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A table with known keys.
pub(in crate::config) trait Table: Sized {
    /// Its name in documents.
    const TABLE: &'static str;
    /// The names of its keys.
    const NAMES: &'static [&'static str];

    /// Its keys.
    fn keys() -> Vec<Key>;

    /// Reads the table at `path`.
    fn read(table: &DeTable<'_>, path: &str, reader: &mut Reader<'_>) -> Self;
}

/// The name of a key: the field's name, unless another is given.
macro_rules! key_name {
    ($key:ident) => {
        stringify!($key)
    };
    ($key:ident $written:literal) => {
        $written
    };
}
pub(super) use key_name;

/// Declares a table of the file: for each key its type and its kind. Every key is optional and has a method of
/// the same name that returns its value or default. If a key cannot be a field name, its text is given after one:
/// `qtype("type"): …`.
macro_rules! table {
    (
        $(#[$doc:meta])* $name:ident in $table:literal {
            $($key:ident $(($written:literal))?: $type:ty = $kind:expr),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub(in crate::config) struct $name {
            $(pub(in crate::config) $key: Option<$crate::config::file::read::Located<$type>>,)*
        }

        #[allow(dead_code, reason = "not every key is asked for its default")]
        impl $name {
            $(
                pub(in crate::config) fn $key(&self) -> $type {
                    const KIND: <$type as $crate::config::file::kind::Keyed>::Kind = $kind;
                    match &self.$key {
                        Some(located) => located.value.clone(),
                        None => $crate::config::file::kind::Kind::default(&KIND),
                    }
                }
            )*
        }

        impl $crate::config::file::kind::Keyed for $name {
            type Kind = $crate::config::file::kind::Inner<Self>;
        }

        impl $crate::config::file::read::Table for $name {
            const TABLE: &'static str = $table;
            const NAMES: &'static [&'static str] = &[$($crate::config::file::read::key_name!($key $($written)?)),*];

            fn keys() -> Vec<$crate::config::file::kind::Key> {
                vec![$({
                    const KIND: <$type as $crate::config::file::kind::Keyed>::Kind = $kind;
                    $crate::config::file::kind::Key {
                        name: $crate::config::file::read::key_name!($key $($written)?),
                        kind: &KIND,
                    }
                }),*]
            }

            fn read(
                table: &toml::de::DeTable<'_>,
                path: &str,
                reader: &mut $crate::config::file::read::Reader<'_>,
            ) -> Self {
                reader.refuse_unknown_keys(table, path, Self::NAMES);
                Self {
                    $($key: {
                        const KIND: <$type as $crate::config::file::kind::Keyed>::Kind = $kind;
                        let name = $crate::config::file::read::key_name!($key $($written)?);
                        reader.key(table, path, name, &KIND)
                    },)*
                }
            }
        }
    };
}
pub(super) use table;

impl Reader<'_> {
    /// The value of `key` in the table at `path`, if it is present and of the right type.
    pub(super) fn value<V: Value>(&mut self, table: &DeTable<'_>, path: &str, key: &str) -> Option<V> {
        V::read(table.get(key)?, &join(path, key), self)
    }

    /// The value of `key` in the table at `path`, if it is present and valid.
    pub(super) fn key<K: Kind>(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        key: &str,
        kind: &K,
    ) -> Option<Located<K::Value>> {
        kind.read(table.get(key)?, &join(path, key), self)
    }

    pub(super) fn problem(&mut self, place: &Place, message: String) {
        self.problems.push(Problem::at(place, message));
    }

    /// Reports every key of `table` that is not in `known`, with the key that was probably meant.
    pub(super) fn refuse_unknown_keys(&mut self, table: &DeTable<'_>, path: &str, known: &[&str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let place = self.place(key.span());
                self.problems.push(suggest::unknown_key(&place, path, name, known));
            }
        }
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place::new(self.source, self.start + span.start..self.start + span.end)
    }

    fn wrong_type<V: Value>(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        let kind = V::kind();
        let found = describe(value.get_ref());
        let problem = Problem::at(&self.place(value.span()), format!("{path} must be {kind}, not {found}"));
        let one_text = value.get_ref().as_str().filter(|_| kind.starts_with("a list of"));
        self.problems.push(match one_text {
            Some(text) => problem.help(format!("write [\"{text}\"]")),
            None => problem,
        });
    }
}

/// The key path `path.key`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

const fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn number(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn scalar<T>(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    reader: &mut Reader<'_>,
    take: impl FnOnce(&DeValue<'_>) -> Option<T>,
) -> Option<Located<T>>
where
    Located<T>: Value,
{
    let Some(taken) = take(value.get_ref()) else {
        reader.wrong_type::<Located<T>>(value, path);
        return None;
    };
    Some(Located::new(taken, reader.place(value.span())))
}

impl Value for Text {
    const PLURAL: &'static str = "texts in quotes";

    fn kind() -> String {
        "a text in quotes".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(value, path, reader, |value| value.as_str().map(str::to_owned))
    }
}

impl Value for Flag {
    const PLURAL: &'static str = "true or false";

    fn kind() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(value, path, reader, |value| value.as_bool())
    }
}

impl Value for Integer {
    const PLURAL: &'static str = "whole numbers";

    fn kind() -> String {
        "a whole number below 2^63".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(value, path, reader, number)
    }
}

impl Value for Float {
    const PLURAL: &'static str = "numbers";

    fn kind() -> String {
        "a number".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(value, path, reader, |value| {
            let text = value.as_float().map(|float| float.as_str().to_owned());
            let text = text.or_else(|| number(value).map(|number| number.to_string()))?;
            text.parse().ok().filter(|float: &f64| float.is_finite())
        })
    }
}

impl Value for Located<NumberOrWord> {
    const PLURAL: &'static str = "numbers or words";

    fn kind() -> String {
        "a whole number or a word in quotes".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(value, path, reader, |value| {
            let word = value.as_str().map(|word| NumberOrWord::Word(word.to_owned()));
            word.or_else(|| number(value).map(NumberOrWord::Number))
        })
    }
}

impl<V: Value> Value for Located<Vec<V>> {
    const PLURAL: &'static str = "lists";

    fn kind() -> String {
        format!("a list of {}", V::PLURAL)
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type::<Self>(value, path);
            return None;
        };
        let place = reader.place(value.span());
        let mut value = Vec::with_capacity(items.len());
        value.extend(items.iter().filter_map(|item| V::read(item, path, reader)));
        Some(Self::new(value, place))
    }
}

impl Value for ServerEntry {
    const PLURAL: &'static str = "server addresses in quotes";

    fn kind() -> String {
        "a server's address in quotes".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::Table(super::keys::ServerTable::read(table, path, reader))),
            DeValue::String(_) => Text::read(value, path, reader).map(Self::Text),
            _ => {
                reader.wrong_type::<Self>(value, path);
                None
            }
        }
    }
}

impl<T: Table> Value for Located<T> {
    const PLURAL: &'static str = "tables";

    fn kind() -> String {
        "a table".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            reader.wrong_type::<Self>(value, path);
            return None;
        };
        Some(Self::new(T::read(table, path, reader), reader.place(value.span())))
    }
}
