//! Files made from the schema: right ones, and such with a trial in them, right or wrong.

use serde_json::{Map, Value, json};

/// A sequence of numbers that is the same in each run (SplitMix64).
pub(super) struct Random(pub(super) u64);

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

/// Makes files that are right.
pub(super) struct Maker {
    pub(super) random: Random,
    /// Gives each zone and server another name.
    pub(super) count: usize,
}

impl Maker {
    pub(super) fn file(&mut self, schema: &Value) -> Value {
        let properties = &schema["properties"];
        let mut file = Map::new();
        for name in ["server", "limits", "cache", "admin", "log", "local_hosts", "perimeter", "special"] {
            if self.random.is_one_in(2) {
                file.insert(name.to_owned(), self.table(&properties[name]));
            }
        }
        let groups: Map<String, Value> = ["a", "b"]
            .iter()
            .map(|name| ((*name).to_owned(), self.table(&properties["upstream"]["additionalProperties"])))
            .collect();
        file.insert("upstream".to_owned(), groups.into());
        for name in ["forward", "local"] {
            let tables: Vec<Value> =
                (0..self.random.below(3)).map(|_| self.table(&properties[name]["items"])).collect();
            file.insert(name.to_owned(), tables.into());
        }
        file.into()
    }

    fn table(&mut self, schema: &Value) -> Value {
        let mut table = Map::new();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, schema) in schema["properties"].as_object().expect("a table has keys") {
            if required.contains(&key.as_str()) || self.random.is_one_in(3) {
                table.insert(key.clone(), self.value(schema, key));
            }
        }
        // One of two.
        if schema["properties"].get("records").is_some() {
            table.remove("file");
            table.insert("records".to_owned(), json!(["app 300 A 10.1.2.3"]));
        }
        table.into()
    }

    fn value(&mut self, schema: &Value, key: &str) -> Value {
        self.count += 1;
        let count = self.count;
        let is_later = schema["description"].as_str().is_some_and(|text| text.starts_with("Not supported yet"));
        match key {
            "server" if schema["type"] == "string" => format!("10.1.{}.{}", count / 250, count % 250).into(),
            _ if schema["minItems"].is_u64() => match self.random.is_one_in(3) {
                true => json!([self.table(alternative(&schema["items"]))]),
                false => json!([format!("tcp://10.2.{}.{}", count / 250, count % 250)]),
            },
            "zones" => json!([format!("z{count}.example")]),
            "zone" => format!("z{count}.example").into(),
            "name" => format!("rule {count}").into(),
            "to" => self.random.pick(&["a", "b"]).to_owned().into(),
            _ if schema["properties"].is_object() => self.table(schema),
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

/// A change to one place of a file.
pub(super) struct Trial {
    /// Keys and indices from the top.
    pub(super) path: Vec<String>,
    pub(super) change: Change,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Sets this value, right or wrong.
    Set(Value),
    /// Sets a right value.
    Make,
    /// Removes the key.
    Remove,
}

/// The parts of a schema one level down, each with its JSON pointer and the step in a file that leads there; none for the
/// alternatives of a value.
pub(super) fn parts(schema: &Value) -> Vec<(String, Option<String>, &Value)> {
    let keys = schema["properties"].as_object().into_iter().flatten();
    let keys = keys.map(|(key, part)| (format!("/properties/{key}"), Some(key.clone()), part));
    let group = schema.get("additionalProperties").filter(|groups| groups.is_object());
    let group = group.map(|part| ("/additionalProperties".to_owned(), Some("a".to_owned()), part));
    let item = schema.get("items").map(|part| ("/items".to_owned(), Some("0".to_owned()), part));
    let alternatives = schema["anyOf"].as_array().into_iter().flatten().enumerate();
    let alternatives = alternatives.map(|(at, part)| (format!("/anyOf/{at}"), None, part));
    keys.chain(group).chain(item).chain(alternatives).collect()
}

/// Values to try where a schema holds: right ones at its bounds, wrong ones just beyond, and other types.
fn candidates(schema: &Value) -> Vec<Value> {
    let bounds = ["minimum", "maximum"].map(|bound| &schema[bound]);
    match schema["type"].as_str() {
        Some("integer") => {
            let [least, most] = bounds.map(|bound| bound.as_i64().expect("an integer has bounds"));
            vec![
                json!(least - 1),
                json!(least),
                json!(most),
                json!(most + 1),
                json!(1.5),
                json!("1"),
                json!(true),
                json!([]),
            ]
        }
        Some("number") => {
            let [least, most] = bounds.map(|bound| bound.as_f64().expect("a number has bounds"));
            vec![
                json!(least - 0.125),
                json!(least),
                json!(most),
                json!(most + 0.125),
                json!("0.5"),
                json!(true),
                json!([]),
            ]
        }
        Some("boolean") => vec![json!(true), json!(false), json!("true"), json!(1), json!([])],
        Some("string") => {
            let mut all = vec![json!(5), json!(true), json!([]), json!({})];
            if schema["pattern"].is_string() {
                all.extend(in_all_units(schema["default"].as_str().expect("a default")));
                all.extend(["5 parsecs", "", "5", "-5s", "5S", " 5s", "5sx", "5MB", "-5MiB", "5MiBx"].map(Value::from));
            }
            all
        }
        Some("array") => {
            let empty = schema["minItems"].is_u64().then(|| json!([]));
            [json!("x"), json!(5), json!({}), json!([5]), json!([[5]])].into_iter().chain(empty).collect()
        }
        Some("object") => vec![json!(5), json!(true), json!([])],
        _ => match schema["enum"].as_array() {
            Some(words) => words.iter().cloned().chain([json!("nonsense"), json!(5), json!([])]).collect(),
            // Alternatives have their own.
            None => Vec::new(),
        },
    }
}

/// A duration in every unit that it is a multiple of, or a size in every unit, and zero.
pub(super) fn in_all_units(text: &str) -> Vec<Value> {
    const SIZES: [&str; 5] = ["0", "1024KiB", "1MiB", "1GiB", "1TiB"];
    const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let digits = text.find(|c: char| !c.is_ascii_digit()).expect("a unit");
    let number: u64 = text[..digits].parse().expect("a number");
    let Some((_, unit)) = DURATIONS.iter().find(|(name, _)| *name == &text[digits..]) else {
        return SIZES.map(Value::from).to_vec();
    };
    let fitting = DURATIONS.iter().filter(|(_, other)| (number * unit).is_multiple_of(*other));
    fitting.map(|(name, other)| format!("{}{name}", number * unit / other).into()).collect()
}

/// Everything to try in a file, at the places below `path`.
pub(super) fn trials(schema: &Value, path: &[String], into: &mut Vec<Trial>) {
    let mut add = |step: Option<&str>, change| {
        into.push(Trial { path: path.iter().cloned().chain(step.map(str::to_owned)).collect(), change });
    };
    // Right items of lists are each key's own matter, and a zone's file must be there.
    let is_made = path.last().is_some_and(|last| last != "0") && path != ["local", "0", "file"];
    if is_made && !schema["properties"].is_object() {
        add(None, Change::Make);
    }
    if !path.is_empty() {
        candidates(schema).into_iter().for_each(|value| add(None, Change::Set(value)));
    }
    if schema["additionalProperties"] == false {
        add(Some("nonsense"), Change::Set(true.into()));
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        add(key.as_str(), Change::Remove);
    }
    for (_, step, part) in parts(schema) {
        trials(part, &path.iter().cloned().chain(step).collect::<Vec<_>>(), into);
    }
}

/// The part of a schema that is about a key or an index. Of alternatives it is the one with parts.
fn part<'s>(schema: &'s Value, step: &str) -> &'s Value {
    let schema = alternative(schema);
    let inner = schema["properties"].get(step).or_else(|| schema.get("items"));
    alternative(inner.unwrap_or_else(|| &schema["additionalProperties"]))
}

fn alternative(schema: &Value) -> &Value {
    let all = schema["anyOf"].as_array().into_iter().flatten();
    all.into_iter().find(|part| part["properties"].is_object()).unwrap_or(schema)
}

impl Maker {
    /// Changes a file, and makes what lies on the way.
    pub(super) fn change(&mut self, file: &mut Value, schema: &Value, trial: &Trial) {
        let (mut here, mut schema) = (file, schema);
        let (last, way) = trial.path.split_last().expect("the top stays");
        for step in way {
            schema = part(schema, step);
            here = self.enter(here, schema, step);
        }
        let value = match &trial.change {
            Change::Set(value) => value.clone(),
            Change::Make => self.value(part(schema, last), last),
            Change::Remove => {
                here.as_object_mut().expect("a table").remove(last);
                return;
            }
        };
        match here {
            Value::Array(items) => *items = vec![value],
            table => _ = table.as_object_mut().expect("a table").insert(last.clone(), value),
        }
    }

    /// The table or array behind a step, made where there is none.
    fn enter<'f>(&mut self, here: &'f mut Value, schema: &Value, step: &str) -> &'f mut Value {
        let is_right = |value: &Value| value.is_object() == schema["properties"].is_object() && !value.is_string();
        match here {
            Value::Array(items) => {
                if !items.first().is_some_and(is_right) {
                    *items = vec![self.value(schema, step)];
                }
                &mut items[0]
            }
            table => {
                let table = table.as_object_mut().expect("a table");
                let made = table.get(step).is_none().then(|| match schema["type"] == "array" {
                    true => json!([]),
                    false => self.value(schema, step),
                });
                table.entry(step).or_insert_with(|| made.unwrap_or_default())
            }
        }
    }
}

/// Gives a guard with one of its two keys the other one, too.
pub(super) fn complete_guards(file: &mut Value) {
    for rule in file["forward"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if rule.contains_key("private") || rule.contains_key("on_public") {
            rule.entry("on_public").or_insert_with(|| "strip".into());
            let private = rule.entry("private").or_insert_with(|| json!([]));
            if *private == json!([]) {
                *private = json!(["10.20.0.0/16"]);
            }
        }
    }
}
