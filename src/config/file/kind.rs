//! The kinds of values that keys take. Each kind reads and checks a value, knows its default, shows it as TOML, and
//! describes it to editors.
//!
//! Reading never stops: a wrong value becomes a problem, the key counts as absent, and the default applies.

mod words;

use std::{fmt::Debug, time::Duration};

use serde_json::{Value as Json, json};
use toml::{Spanned, de::DeValue};

pub(in crate::config) use self::words::{Keyword, Line, Lines, Word, no_such_word};
pub(super) use self::words::{given_text, given_texts, given_word, text, texts, word};
use super::{
    super::{
        error::Problem,
        plan::Workers,
        schema,
        source::Place,
        units::{self, show_duration, show_size},
    },
    keys::ServerTable,
    read::{Located, NumberOrWord, Reader, ServerEntry, Table, Text, Value},
    suggest::nearest,
};

const DURATION_HELP: &str = "write a whole number and a unit: \"250ms\", \"5s\", \"10m\", \"1h\", \"1d\"";
const SIZE_HELP: &str = "write a whole number and a unit: \"512KiB\", \"64MiB\", \"1GiB\", or \"0\"";

/// A kind of value.
pub(in crate::config) trait Kind {
    /// The type it is read as.
    type Value;

    /// Reads the value of the key `path`; none, and a problem, if it is wrong.
    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Self::Value>>;

    /// The value if the key is absent.
    fn default(&self) -> Self::Value;

    /// A value as TOML; none if the key has no default to show.
    fn show(&self, value: &Self::Value) -> Option<String>;

    /// A JSON Schema of allowed values. It accepts everything that `read` accepts.
    fn schema(&self) -> Json;
}

/// Gives the kind of a key by the type it is read as.
pub(in crate::config) trait Keyed {
    /// The kind.
    type Kind: Kind<Value = Self> + 'static;
}

/// A key of a table.
pub(in crate::config) struct Key {
    /// Its name.
    pub(in crate::config) name: &'static str,
    /// Its kind.
    pub(in crate::config) kind: &'static dyn Described,
}

impl Key {
    /// Its default as JSON; none if it has no default.
    pub(in crate::config) fn json_default(&self) -> Option<Json> {
        let mut table: toml::Table = format!("x = {}", self.kind.shown_default()?).parse().ok()?;
        serde_json::to_value(table.remove("x")?).ok()
    }
}

/// A kind without the type of its values.
pub(in crate::config) trait Described {
    /// The default as TOML; none if there is no default.
    fn shown_default(&self) -> Option<String>;

    /// See [`Kind::schema`], with the default.
    fn schema(&self) -> Json;
}

impl<K: Kind> Described for K {
    fn shown_default(&self) -> Option<String> {
        self.show(&self.default())
    }

    fn schema(&self) -> Json {
        Kind::schema(self)
    }
}

/// A number's default and bounds, both included.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Limit<T> {
    default: T,
    min: T,
    max: T,
}

/// A number with its default and its bounds.
pub(super) const fn limit<T: Copy>(default: T, min: T, max: T) -> Limit<T> {
    Limit { default, min, max }
}

impl<T: Copy + PartialOrd> Limit<T> {
    fn holds(&self, value: T) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

/// The last part of a key path.
fn key(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn out_of_bounds(text: &str, path: &str, min: &str, max: &str) -> String {
    format!("{} is {text}, and must lie between {min} and {max}", key(path))
}

/// The digits of a whole number without quotes.
fn whole_number(value: &Spanned<DeValue<'_>>) -> Option<String> {
    value.get_ref().as_integer().map(|number| number.as_str().to_owned())
}

fn wrong_unit(place: Place, path: &str, kind: &str) -> Problem {
    Problem::at(&place, format!("{path} must be a {kind} in quotes, with its unit, not a whole number"))
}

impl Kind for Limit<Duration> {
    type Value = Duration;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Duration>> {
        if let Some(number) = whole_number(value) {
            let problem = wrong_unit(reader.place(value.span()), path, "duration");
            reader.problems.push(problem.help(format!("write \"{number}s\", or another unit behind the number")));
            return None;
        }
        let text = Text::read(value, path, reader)?;
        let message = match units::parse_duration(&text.value) {
            Ok(duration) if self.holds(duration) => return Some(text.with(duration)),
            Ok(_) => {
                let [min, max] = [self.min, self.max].map(show_duration);
                reader.problem(&text.place, out_of_bounds(&text.value, path, &min, &max));
                return None;
            }
            Err(error) => format!("{} \"{}\" is no duration: {error}", key(path), text.value),
        };
        reader.problems.push(Problem::at(&text.place, message).help(DURATION_HELP));
        None
    }

    fn default(&self) -> Duration {
        self.default
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(quoted(&show_duration(*value)))
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

/// A size in octets; "0" is always allowed and means off.
impl Kind for Limit<u64> {
    type Value = u64;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<u64>> {
        if let Some(number) = whole_number(value) {
            let problem = wrong_unit(reader.place(value.span()), path, "size");
            reader.problems.push(problem.help(format!("write \"{number}MiB\", or another unit behind the number")));
            return None;
        }
        let text = Text::read(value, path, reader)?;
        let message = match units::parse_size(&text.value) {
            Ok(size) if size == 0 || self.holds(size) => return Some(text.with(size)),
            Ok(_) => {
                let [min, max] = [self.min, self.max].map(show_size);
                reader.problem(&text.place, out_of_bounds(&text.value, path, &min, &max));
                return None;
            }
            Err(error) => format!("{} \"{}\" is no size: {error}", key(path), text.value),
        };
        reader.problems.push(Problem::at(&text.place, message).help(SIZE_HELP));
        None
    }

    fn default(&self) -> u64 {
        self.default
    }

    fn show(&self, value: &u64) -> Option<String> {
        Some(quoted(&show_size(*value)))
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^(0|[0-9]+(KiB|MiB|GiB|TiB))$" })
    }
}

impl Kind for Limit<u32> {
    type Value = u32;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<u32>> {
        let integer = Located::<i64>::read(value, path, reader)?;
        let number = u32::try_from(integer.value).ok().filter(|number| self.holds(*number));
        if number.is_none() {
            let [number, min, max] = [integer.value, self.min.into(), self.max.into()].map(|number| number.to_string());
            reader.problem(&integer.place, out_of_bounds(&number, path, &min, &max));
        }
        number.map(|number| integer.with(number))
    }

    fn default(&self) -> u32 {
        self.default
    }

    fn show(&self, value: &u32) -> Option<String> {
        Some(value.to_string())
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.min, "maximum": self.max })
    }
}

impl Kind for Limit<f64> {
    type Value = f64;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<f64>> {
        let float = Located::<f64>::read(value, path, reader)?;
        if self.holds(float.value) {
            return Some(float);
        }
        let [number, min, max] = [float.value, self.min, self.max].map(|number| number.to_string());
        reader.problem(&float.place, out_of_bounds(&number, path, &min, &max));
        None
    }

    fn default(&self) -> f64 {
        self.default
    }

    fn show(&self, value: &f64) -> Option<String> {
        Some(format!("{value:?}"))
    }

    fn schema(&self) -> Json {
        json!({ "type": "number", "minimum": self.min, "maximum": self.max })
    }
}

/// True or false.
impl Kind for bool {
    type Value = Self;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Self>> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> Self {
        *self
    }

    fn show(&self, value: &Self) -> Option<String> {
        Some(value.to_string())
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }
}

/// A number of threads, at most this many, or "auto".
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Threads(pub(super) u32);

impl Kind for Threads {
    type Value = Workers;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Workers>> {
        let written = Located::<NumberOrWord>::read(value, path, reader)?;
        let message = match &written.value {
            NumberOrWord::Word(word) if word == "auto" => return Some(written.with(Workers::Auto)),
            NumberOrWord::Word(word) => format!("{} cannot be \"{word}\"; it is a number, or \"auto\"", key(path)),
            NumberOrWord::Number(number) => {
                let count = u32::try_from(*number).ok().filter(|count| *count <= self.0);
                if let Some(count) = count.and_then(std::num::NonZeroU32::new) {
                    return Some(written.with(Workers::Count(count)));
                }
                out_of_bounds(&number.to_string(), path, "1", &self.0.to_string())
            }
        };
        reader.problem(&written.place, message);
        None
    }

    fn default(&self) -> Workers {
        Workers::Auto
    }

    fn show(&self, value: &Workers) -> Option<String> {
        Some(match value {
            Workers::Auto => quoted("auto"),
            Workers::Count(count) => count.to_string(),
        })
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": self.0 }, { "enum": ["auto"] }] })
    }
}

/// A list of servers.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Servers;

impl Kind for Servers {
    type Value = Vec<ServerEntry>;

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        reader: &mut Reader<'_>,
    ) -> Option<Located<Vec<ServerEntry>>> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> Vec<ServerEntry> {
        Vec::new()
    }

    fn show(&self, _value: &Vec<ServerEntry>) -> Option<String> {
        None
    }

    fn schema(&self) -> Json {
        let server = schema::table(&ServerTable::keys(), ServerTable::TABLE);
        json!({ "type": "array", "minItems": 1, "items": { "anyOf": [{ "type": "string" }, server] } })
    }
}

/// A list of lists of servers.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Tiers;

impl Kind for Tiers {
    type Value = Vec<Located<Vec<ServerEntry>>>;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<Self::Value>> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> Self::Value {
        Vec::new()
    }

    fn show(&self, _value: &Self::Value) -> Option<String> {
        Some("[]".to_owned())
    }

    fn schema(&self) -> Json {
        json!({ "type": "array", "items": Kind::schema(&Servers) })
    }
}

/// A table of keys.
#[derive(Debug)]
pub(in crate::config) struct Inner<T>(std::marker::PhantomData<T>);

/// A table of keys.
pub(super) const fn inner<T>() -> Inner<T> {
    Inner(std::marker::PhantomData)
}

impl<T: Table + Default> Kind for Inner<T> {
    type Value = T;

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Located<T>> {
        Value::read(value, path, reader)
    }

    fn default(&self) -> T {
        T::default()
    }

    fn show(&self, _value: &T) -> Option<String> {
        None
    }

    fn schema(&self) -> Json {
        schema::table(&T::keys(), T::TABLE)
    }
}

macro_rules! keyed {
    ($($value:ty => $kind:ty),* $(,)?) => {
        $(impl Keyed for $value {
            type Kind = $kind;
        })*
    };
}

keyed! {
    Duration => Limit<Duration>,
    u64 => Limit<u64>,
    u32 => Limit<u32>,
    f64 => Limit<f64>,
    bool => bool,
    String => Line,
    Vec<Text> => Lines,
    Workers => Threads,
    Vec<ServerEntry> => Servers,
    Vec<Located<Vec<ServerEntry>>> => Tiers,
}

/// A basic string of TOML; the escapes of Rust's are among those of TOML for what stands in defaults.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
