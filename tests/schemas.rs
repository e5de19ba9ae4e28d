//! The documents of the API are as `tidegate schema` says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::Query,
    tidegate::{Tidegate, run},
    upstream::Upstream,
};
use tidegate::admin::DOCUMENTS;

fn schema(name: &str) -> Value {
    let output = run(&["schema", name]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Where a value is not as its schema says: the part of draft 2020-12 that schemars writes.
fn misfits(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == &Value::Bool(false) { vec![format!("{path}: unknown")] } else { Vec::new() };
    };
    let fits = |schema: &Value| misfits(root, schema, value, path).is_empty();
    let mut all = Vec::new();
    for (keyword, argument) in keywords {
        match keyword.as_str() {
            "$ref" => {
                let target = root.pointer(argument.as_str().unwrap().trim_start_matches('#')).expect("it is defined");
                all.extend(misfits(root, target, value, path));
            }
            "type" => {
                let types = argument.as_array().cloned().unwrap_or_else(|| vec![argument.clone()]);
                let is = |of: &Value| match of.as_str().unwrap() {
                    "null" => value.is_null(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("{other}"),
                };
                if !types.iter().any(is) {
                    all.push(format!("{path}: {value} is no {argument}"));
                }
            }
            "enum" if !argument.as_array().unwrap().contains(value) => all.push(format!("{path}: {value}")),
            "const" if argument != value => all.push(format!("{path}: {value}")),
            "anyOf" | "oneOf" if !argument.as_array().unwrap().iter().any(fits) => {
                all.push(format!("{path}: {value} fits none"));
            }
            "required" => {
                let missing = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                all.extend(argument.as_array().unwrap().iter().filter(missing).map(|key| format!("{path}: no {key}")));
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match (argument.get(key), keywords.get("additionalProperties")) {
                        (Some(schema), _) | (None, Some(schema)) => {
                            all.extend(misfits(root, schema, value, &format!("{path}/{key}")));
                        }
                        (None, None) => all.push(format!("{path}/{key} is not described")),
                    }
                }
            }
            "additionalProperties" if !keywords.contains_key("properties") => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    all.extend(misfits(root, argument, value, &format!("{path}/{key}")));
                }
            }
            "items" => {
                for (at, value) in value.as_array().into_iter().flatten().enumerate() {
                    all.extend(misfits(root, argument, value, &format!("{path}/{at}")));
                }
            }
            _ => {}
        }
    }
    all
}

#[test]
fn every_document_of_the_api_is_as_its_schema_says() {
    let (vpc, site) = (Upstream::answering("52.1.2.3"), Upstream::answering("10.9.0.1"));
    let config = Config::new()
        .upstream("vpc", &[&vpc], ONE_PATIENT_TRY)
        .upstream("site", &[&site], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    for name in ["sts.eu-west-1.amazonaws.com.", "www.example."] {
        tidegate.client().ask(&Query::a(name));
    }
    eventually("the finding is there", || tidegate.get("/api/v1/status").1.contains("\"events\":[{"));
    for document in DOCUMENTS {
        let path = match document.name {
            "explain" => "/api/v1/explain?name=www.example&type=A".to_owned(),
            "cache" => "/api/v1/cache/www.example?type=A".to_owned(),
            name => format!("/api/v1/{name}"),
        };
        let (code, text) = tidegate.get(&path);
        assert_eq!(code, 200, "{path}: {text}");
        let (schema, value) = (schema(document.name), serde_json::from_str(&text).unwrap());
        assert_eq!(misfits(&schema, &schema, &value, ""), Vec::<String>::new(), "{path}: {text}");
        assert_eq!(value.as_object().unwrap().len(), schema["properties"].as_object().unwrap().len(), "{path}: {text}");
    }
}

#[test]
fn the_configuration_s_schema_is_printed_unless_another_is_wanted() {
    let output = run(&["schema"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["title"], "tidegate.toml");
    assert_eq!(schema("doctor")["title"], "Diagnosis");
    let unknown = run(&["schema", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}
