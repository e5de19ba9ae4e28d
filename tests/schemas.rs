//! The documents of the API, and those that verbs print with `--json`, are as `tidegate schema` says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::Reply,
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

/// What a verb prints with `--json`, each line a document.
#[track_caller]
fn fits(document: &str, arguments: &[&str]) -> Value {
    let output = run(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let schema = schema(document);
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for value in &values {
        assert_eq!(misfits(&schema, &schema, value, ""), Vec::<String>::new(), "{arguments:?}: {text}");
    }
    values.into_iter().next_back().unwrap_or_else(|| panic!("{arguments:?} printed nothing"))
}

#[test]
fn every_document_of_a_verb_is_as_its_schema_says() {
    let upstream = Upstream::answering("10.20.0.1");
    upstream.on("kms.eu-west-1.amazonaws.com.", rtype::A, Reply::a("52.1.2.3"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (socket, record) = (path("control.sock"), path("record"));
    let config = Config::without_admin()
        .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {socket:?}"))
        .upstream("vpc", &[&upstream], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .raw(&format!("[perimeter]\nrecord = {record:?}"));
    let tidegate = Tidegate::start(&config);
    let (server, admin) = (format!("@{}", tidegate.address()), format!("http://{}", tidegate.admin_address()));
    let file = tidegate.folder().join("tidegate.toml").display().to_string();
    for name in ["sts.eu-west-1.amazonaws.com", "kms.eu-west-1.amazonaws.com"] {
        fits("query", &["query", name, "A", "AAAA", &server, "--json"]);
    }
    fits("explain", &["explain", "sts.eu-west-1.amazonaws.com", "--json", "--socket", &socket]);
    fits("status", &["status", "--json", "--socket", &socket]);
    fits("perimeter", &["perimeter", "--json", "--admin", &admin]);
    fits("top-line", &["top", "--once", "--json", "--admin", &admin]);
    fits("doctor", &["doctor", "--json", "--config", &file, "--admin", &admin]);
    fits("validation", &["query", "sts.eu-west-1.amazonaws.com", &server, "--validate", "--json"]);
    fits("version", &["version", "--json"]);
    let presets = fits("presets", &["presets", "--json"]);
    assert_eq!(presets["presets"][0]["families"][0]["domain"], "amazonaws.com");

    let vpc = upstream.address.to_string();
    for (words, fact) in [
        (&["drain", &*vpc][..], "servers"),
        (&["undrain", &*vpc], "servers"),
        (&["drain", "10.9.9.9"], "known"),
        (&["flush", "--all"], "forgotten"),
        (&["log", "info"], "log"),
        (&["reload"], "changes"),
    ] {
        let report = fits("order", &[words, &["--json", "--socket", &socket]].concat());
        assert_eq!(report["done"], fact != "known", "{report}");
        assert!(!report[fact].is_null() && report["lines"].is_array(), "{report}");
    }

    let expectations = path("expected.toml");
    let cases = format!("config = {file:?}\n[[case]]\nname = \"sts.eu-west-1.amazonaws.com\"\nrule = \"aws\"\n");
    std::fs::write(&expectations, cases).unwrap();
    assert_eq!(fits("test", &["test", &expectations, "--json"])["passed"], 1);
    assert!(tidegate.stop().success());
    let report = ["perimeter", "--from", "2020-01-01", "--format", "json", "--record", &record];
    let report = fits("perimeter-report", &report);
    assert_eq!(
        (&report["counts"]["refused"], &report["names"][0]["worst"]),
        (&1.into(), &"refused".into()),
        "{report}"
    );
}

#[test]
fn the_configuration_s_schema_is_printed_unless_another_is_wanted() {
    let output = run(&["schema"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["title"], "tidegate.toml");
    assert_eq!(schema("doctor")["title"], "Diagnosis");
    let unknown = run(&["schema", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}
