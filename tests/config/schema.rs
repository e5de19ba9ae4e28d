//! The JSON Schema and the reader agree: given the same files, both accept or both refuse them.

use std::fs;

use regex::Regex;
use serde_json::{Map, Value, json};
use tidegate::config::{Plan, schema};

const FILES: u64 = 1_000;

/// A sequence of numbers that is the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap_or(1)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

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
    assert!(keywords.keys().all(|keyword| known.contains(&keyword.as_str())), "a keyword this test does not judge");
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
        ("pattern", Value::String(text)) => {
            Regex::new(argument.as_str().unwrap_or_default()).expect("a pattern of ours").is_match(text)
        }
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

/// Makes files that are right.
struct Maker {
    random: Random,
    /// Gives each zone and server another name.
    count: usize,
}

impl Maker {
    fn file(&mut self, schema: &Value) -> Value {
        let properties = &schema["properties"];
        let mut file = Map::new();
        for name in ["server", "limits", "cache", "admin", "log", "local_hosts", "perimeter", "special"] {
            if self.random.is_one_in(2) {
                file.insert(name.to_owned(), self.table(&properties[name], name));
            }
        }
        let groups: Map<String, Value> = ["a", "b"]
            .iter()
            .map(|name| ((*name).to_owned(), self.table(&properties["upstream"]["additionalProperties"], "upstream")))
            .collect();
        file.insert("upstream".to_owned(), groups.into());
        for name in ["forward", "local"] {
            let tables: Vec<Value> =
                (0..self.random.below(3)).map(|_| self.table(&properties[name]["items"], name)).collect();
            file.insert(name.to_owned(), tables.into());
        }
        file.into()
    }

    fn table(&mut self, schema: &Value, name: &str) -> Value {
        let mut table = Map::new();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, schema) in schema["properties"].as_object().expect("a table has keys") {
            if required.contains(&key.as_str()) || self.random.is_one_in(3) {
                table.insert(key.clone(), self.value(schema, key));
            }
        }
        match name {
            // Both of a pair, or one of two.
            "forward" if table.contains_key("on_public") || table.contains_key("private") => {
                table.insert("private".to_owned(), json!(["10.20.0.0/16"]));
                table.insert("on_public".to_owned(), "strip".into());
            }
            "local" => {
                table.remove("file");
                table.insert("records".to_owned(), json!(["app 300 A 10.1.2.3"]));
            }
            _ => {}
        }
        table.into()
    }

    fn value(&mut self, schema: &Value, key: &str) -> Value {
        self.count += 1;
        let count = self.count;
        let is_later = schema["description"].as_str().is_some_and(|text| text.starts_with("Not supported yet"));
        match key {
            "servers" if self.random.is_one_in(3) => {
                json!([{ "server": format!("10.1.{}.{}", count / 250, count % 250) }])
            }
            "server" | "servers" => json!([format!("tcp://10.2.{}.{}", count / 250, count % 250)]),
            "zones" => json!([format!("z{count}.example")]),
            "zone" => format!("z{count}.example").into(),
            "name" => format!("rule {count}").into(),
            "to" => self.random.pick(&["a", "b"]).to_owned().into(),
            _ if schema["properties"].is_object() => self.table(schema, key),
            _ if is_later => schema["default"].clone(),
            _ => match (schema["type"].as_str(), &schema["enum"]) {
                (Some("boolean"), _) => self.random.is_one_in(2).into(),
                (Some("integer"), _) => {
                    let [least, most] = ["minimum", "maximum"].map(|bound| schema[bound].as_u64().unwrap_or(0));
                    (least + self.random.next() % (most - least + 1)).into()
                }
                (_, Value::Array(words)) => self.random.pick(words).clone(),
                _ => schema.get("default").cloned().unwrap_or_else(|| "x".into()),
            },
        }
    }
}

/// The places of a file that a schema has a word on.
fn places(schema: &Value, value: &Value, pointer: &str, into: &mut Vec<(String, Value)>) {
    into.push((pointer.to_owned(), schema.clone()));
    for (key, inner) in value.as_object().into_iter().flatten() {
        let schema = schema["properties"].get(key).unwrap_or_else(|| &schema["additionalProperties"]);
        places(schema, inner, &format!("{pointer}/{key}"), into);
    }
    for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"]["properties"].is_object() {
            places(&schema["items"], inner, &format!("{pointer}/{at}"), into);
        }
    }
}

/// Puts one fault into a file, of a kind that a schema can see.
fn spoil(file: &mut Value, schema: &Value, random: &mut Random) -> String {
    let mut all = Vec::new();
    places(schema, file, "", &mut all);
    let (pointer, schema) = random.pick(&all).clone();
    let place = file.pointer_mut(&pointer).expect("the place is in the file");
    let is_table = schema["type"] == "object";
    let wrong = match (schema["type"].as_str(), random.below(2)) {
        (Some("object"), 0) if !pointer.is_empty() => 5.into(),
        (Some("object"), _) => Value::Null,
        (Some("integer"), 0) if schema["maximum"].is_u64() => (schema["maximum"].as_u64().unwrap_or(0) + 1).into(),
        (Some("integer" | "number"), 1) => (-1).into(),
        (Some("integer" | "number" | "boolean"), _) => "1".into(),
        (Some("array"), 0) => "x".into(),
        (Some("array"), _) => json!({}),
        (Some("string"), 0) if schema["pattern"].is_string() => "5 parsecs".into(),
        _ if schema["enum"].is_array() => "nonsense".into(),
        _ => json!([]),
    };
    match (is_table && wrong.is_null(), place) {
        (true, Value::Object(table)) => {
            // The names of groups are free.
            let value = if pointer == "/upstream" { 5.into() } else { Value::Bool(true) };
            table.insert("nonsense".to_owned(), value);
        }
        (_, place) => *place = wrong,
    }
    pointer
}

#[test]
fn the_schema_and_the_reader_take_and_refuse_the_same_files() {
    let schema = schema();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..FILES {
        let mut maker = Maker { random: Random(seed), count: 0 };
        let mut file = maker.file(&schema);
        let is_right = maker.random.is_one_in(2);
        let spoiled = if is_right { String::new() } else { spoil(&mut file, &schema, &mut maker.random) };
        let text = toml::to_string(&file).expect("it is TOML");
        let read = Plan::from_text("t.toml", &text);
        let problems = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(read.is_ok(), is_right, "file {seed}, spoiled at {spoiled:?}: {problems}\n{text}");
        assert_eq!(fits(&schema, &file), is_right, "file {seed}, spoiled at {spoiled:?}\n{text}");
        if is_right { taken += 1 } else { refused += 1 }
    }
    assert!(taken > FILES / 3 && refused > FILES / 3, "{taken} taken, {refused} refused");
}

#[test]
fn every_shipped_file_fits_the_schema_and_names_it() {
    let schema = schema();
    for entry in fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let file = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        assert!(fits(&schema, &file), "{}", path.display());
        assert!(text.starts_with("#:schema ./tidegate.schema.json\n"), "{}", path.display());
    }
}

#[test]
fn the_shipped_schema_is_what_the_program_prints() {
    let shipped = fs::read_to_string("config/tidegate.schema.json").unwrap();
    let printed = format!("{:#}\n", schema());
    assert!(shipped == printed, "write it again: tidegate schema > config/tidegate.schema.json");
}
