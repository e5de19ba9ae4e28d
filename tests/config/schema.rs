//! The JSON Schema and the reader agree: given the same files, both accept or both refuse them.

mod generated;

use std::{cell::RefCell, collections::HashMap, fs};

use regex::Regex;
use serde_json::{Value, json};
use tidegate::config::{Plan, schema};

use self::generated::{Maker, Random, complete_guards, in_all_units, parts, trials};

/// At least this many generated files.
const FILES: usize = 1_000;

/// Whether `value` fits: the part of draft-07 that our schema uses.
fn fits(schema: &Value, value: &Value) -> bool {
    let known = [
        "type",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minItems",
        "items",
        "properties",
        "additionalProperties",
        "required",
        "anyOf",
        "default",
        "description",
        "title",
        "$schema",
    ];
    let keywords = schema.as_object().expect("a schema is an object");
    let unknown = keywords.keys().find(|keyword| !known.contains(&keyword.as_str()));
    assert_eq!(unknown, None, "a keyword that this test does not judge");
    keywords.iter().all(|(keyword, argument)| match (keyword.as_str(), value) {
        ("type", _) => match argument.as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            other => panic!("{other:?}"),
        },
        ("enum", _) => argument.as_array().is_some_and(|words| words.contains(value)),
        ("pattern", Value::String(text)) => matches(argument.as_str().unwrap_or_default(), text),
        ("minimum", Value::Number(number)) => number.as_f64() >= argument.as_f64(),
        ("maximum", Value::Number(number)) => number.as_f64() <= argument.as_f64(),
        ("minItems", Value::Array(items)) => items.len() as u64 >= argument.as_u64().unwrap_or(0),
        ("items", Value::Array(items)) => items.iter().all(|item| fits(argument, item)),
        ("properties", Value::Object(table)) => {
            table.iter().all(|(key, value)| argument.get(key).is_none_or(|schema| fits(schema, value)))
        }
        ("additionalProperties", Value::Object(table)) => {
            let own = |key: &String| schema["properties"].get(key).is_some();
            let others = || table.iter().filter(|(key, _)| !own(key));
            match argument {
                Value::Bool(false) => others().next().is_none(),
                schema => others().all(|(_, value)| fits(schema, value)),
            }
        }
        ("required", Value::Object(table)) => {
            argument.as_array().into_iter().flatten().all(|key| table.contains_key(key.as_str().unwrap_or_default()))
        }
        ("anyOf", _) => argument.as_array().into_iter().flatten().any(|schema| fits(schema, value)),
        _ => true,
    })
}

/// Whether a text matches a pattern; each pattern is compiled once.
fn matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let new = || Regex::new(pattern).expect("a pattern of ours");
        compiled.entry(pattern.to_owned()).or_insert_with(new).is_match(text)
    })
}

/// A file, what was tried in it, and whether the reader takes it.
struct Judged {
    file: Value,
    path: Vec<String>,
    is_taken: bool,
}

/// At least [`FILES`] files: every second one has a trial in it.
fn files(schema: &Value) -> Vec<Judged> {
    let mut all = Vec::new();
    trials(schema, &[], &mut all);
    let count = FILES.max(2 * all.len());
    let judge = |number: usize| {
        let mut maker = Maker { random: Random(number as u64), count: 0 };
        let mut file = maker.file(schema);
        complete_guards(&mut file);
        let trial = (number % 2 == 1).then(|| &all[number / 2 % all.len()]);
        if let Some(trial) = trial {
            maker.change(&mut file, schema, trial);
            complete_guards(&mut file);
        }
        let text = toml::to_string(&file).expect("it is TOML");
        let read = Plan::from_text("t.toml", &text);
        let problems = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let path = trial.map(|trial| trial.path.clone()).unwrap_or_default();
        let change = trial.map(|trial| &trial.change);
        assert!(trial.is_some() || read.is_ok(), "file {number} as it was made: {problems}\n{text}");
        assert_eq!(fits(schema, &file), read.is_ok(), "file {number}, {path:?}: {change:?}\n{problems}\n{text}");
        Judged { file, path, is_taken: read.is_ok() }
    };
    (0..count).map(judge).collect()
}

#[test]
fn the_schema_and_the_reader_take_and_refuse_the_same_files() {
    let files = files(&schema());
    let taken = files.iter().filter(|file| file.is_taken).count();
    let refused = files.len() - taken;
    assert!(taken >= 500 && refused >= 500, "{taken} taken, {refused} refused");
}

/// A schema with one fault each: with a keyword less, a bound or a type that is wrong, a key or a word more or less.
fn faults(schema: &Value) -> Vec<Value> {
    let without = |keyword: &str| {
        let mut schema = schema.as_object().expect("a schema is an object").clone();
        schema.remove(keyword).map(|_| Value::from(schema))
    };
    let with = |keyword: &str, value: Value| {
        let mut schema = schema.clone();
        schema[keyword] = value;
        schema
    };
    let keywords =
        ["pattern", "minItems", "minimum", "maximum", "items", "enum", "anyOf", "required", "additionalProperties"];
    let mut all: Vec<Value> = keywords.into_iter().filter_map(without).collect();
    // A file is always a table.
    all.extend(without("type").filter(|_| schema.get("$schema").is_none()));
    for bound in ["minimum", "maximum"] {
        let step = if schema["type"] == "integer" { 1.0 } else { 0.25 };
        let moved = |by: f64| with(bound, json!(schema[bound].as_f64().unwrap_or_default() + by));
        all.extend(schema[bound].is_number().then(|| [moved(-step), moved(step)]).into_iter().flatten());
    }
    for list in ["enum", "anyOf", "required"] {
        let items = schema[list].as_array().cloned().unwrap_or_default();
        let fewer = (0..items.len()).map(|at| {
            let mut items = items.clone();
            items.remove(at);
            with(list, items.into())
        });
        all.extend(fewer);
    }
    if let Some(words) = schema["enum"].as_array() {
        all.push(with("enum", words.iter().cloned().chain(["nonsense".into()]).collect()));
    }
    for key in schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
        let mut fewer = schema.clone();
        fewer["properties"].as_object_mut().expect("properties").remove(key);
        all.push(fewer);
    }
    if schema["properties"].is_object() {
        let mut more = schema.clone();
        more["properties"]["nonsense"] = json!({ "type": "boolean" });
        all.push(more);
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        all.extend(["^", "$"].map(|end| with("pattern", pattern.replace(end, "").into())));
        for value in in_all_units(schema["default"].as_str().expect("a default")) {
            let unit = value.as_str().expect("a text").trim_start_matches(|c: char| c.is_ascii_digit());
            let fewer = match unit {
                "" => pattern.replace("0|[", "["),
                unit => pattern
                    .replace(&format!("({unit}|"), "(")
                    .replace(&format!("|{unit}|"), "|")
                    .replace(&format!("|{unit})"), ")"),
            };
            all.push(with("pattern", fewer.into()));
        }
    }
    all
}

/// Every part of a schema with its JSON pointer, and the path of a place in a file that it is about.
fn all_parts(schema: &Value, pointer: &str, path: &[String], into: &mut Vec<(String, Vec<String>, Value)>) {
    into.push((pointer.to_owned(), path.to_vec(), schema.clone()));
    for (more, step, part) in parts(schema) {
        let path: Vec<String> = path.iter().cloned().chain(step).collect();
        all_parts(part, &format!("{pointer}{more}"), &path, into);
    }
}

/// The comparison would find a schema that differs from the reader in a single keyword, key, word or bound.
#[test]
fn the_files_show_every_fault_that_a_schema_could_have() {
    let right = schema();
    let mut files = files(&right);
    files.extend(shipped().into_iter().map(|(_, _, file)| Judged { file, path: Vec::new(), is_taken: true }));
    let mut all = Vec::new();
    all_parts(&right, "", &[], &mut all);
    let (mut tried, mut unseen) = (0, Vec::new());
    for (pointer, path, part) in all {
        for faulty in faults(&part) {
            let mut schema = right.clone();
            *schema.pointer_mut(&pointer).expect("it is a part") = faulty.clone();
            // The files with a trial at that place are the likeliest to show it.
            let (near, far): (Vec<_>, Vec<_>) = files.iter().partition(|judged| judged.path.starts_with(&path));
            let shows = |judged: &&Judged| fits(&schema, &judged.file) != judged.is_taken;
            if !near.into_iter().chain(far).any(|judged| shows(&judged)) {
                unseen.push(format!("{pointer}: {faulty}"));
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(unseen.is_empty(), "of {tried} faults {} do not show:\n{}", unseen.len(), unseen.join("\n"));
}

/// The files in `config/`: name, text and content.
fn shipped() -> Vec<(String, String, Value)> {
    let paths = fs::read_dir("config").expect("a folder").map(|entry| entry.expect("a file").path());
    let read = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).expect("it is text");
        let file = serde_json::to_value(text.parse::<toml::Table>().expect("TOML")).expect("as JSON");
        (path.display().to_string(), text, file)
    };
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).map(read).collect()
}

#[test]
fn every_shipped_file_fits_the_schema_and_names_it() {
    let schema = schema();
    for (name, text, file) in shipped() {
        assert!(fits(&schema, &file), "{name}");
        assert!(text.starts_with("#:schema ./tidegate.schema.json\n"), "{name}");
    }
}

#[test]
fn the_shipped_schema_is_what_the_program_prints() {
    let shipped = fs::read_to_string("config/tidegate.schema.json").unwrap();
    let printed = format!("{:#}\n", schema());
    assert!(shipped == printed, "write it again: tidegate schema > config/tidegate.schema.json");
}
