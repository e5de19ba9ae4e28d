//! `/api/v1/openapi.json`: the API described in OpenAPI 3.1, from the same types that make its documents.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::DOCUMENTS;

/// The description as text.
pub(super) static TEXT: LazyLock<String> = LazyLock::new(|| description().to_string());

/// What a path gives, by the name of its document.
const SUMMARIES: [(&str, &str); 8] = [
    ("status", "Whether all is well, and all that the status page shows"),
    ("upstreams", "Every upstream group with its servers"),
    ("rules", "Every rule with its counters, and the local zones"),
    ("perimeter", "Which AWS names were private, public or absent"),
    ("top", "The hottest names, the busiest clients, and the names that fail most"),
    ("explain", "What would be done with a query, and why"),
    ("cache", "What the cache has for a name"),
    ("openapi.json", "This description"),
];

fn description() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut generator =
        settings.with(|settings| settings.definitions_path = "/components/schemas".into()).into_generator();
    let mut paths = Map::new();
    for document in DOCUMENTS {
        let schema = (document.reference)(&mut generator).to_value();
        let (path, parameters) = match document.name {
            "explain" => ("/api/v1/explain".to_owned(), [vec![name("query")], asked()].concat()),
            "cache" => ("/api/v1/cache/{name}".to_owned(), [vec![name("path")], asked()].concat()),
            name => (format!("/api/v1/{name}"), Vec::new()),
        };
        paths.insert(path, operation(document.name, &parameters, &schema));
    }
    paths.insert("/api/v1/openapi.json".to_owned(), operation("openapi.json", &[], &json!({ "type": "object" })));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tidegate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The state of a tidegate, read only. Times are in seconds, sizes in octets; unknown values are \
                            null. Fields are only ever added. Clients that are not in `allow` of [admin] get 403.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true), "responses": {
            "BadRequest": text("The parameters cannot be read, or there is not exactly one Host header"),
            "Forbidden": text("The client is not in `allow` of [admin]"),
            "Misdirected": text("The Host header names somebody else; see `hosts` of [admin]"),
        } },
    })
}

fn text(description: &str) -> Value {
    json!({ "description": description, "content": { "text/plain": { "schema": { "type": "string" } } } })
}

fn operation(name: &str, parameters: &[Value], schema: &Value) -> Value {
    let summary = SUMMARIES.iter().find(|(of, _)| *of == name).map(|(_, summary)| *summary);
    json!({ "get": {
        "operationId": name.trim_end_matches(".json"),
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The document",
                "content": { "application/json": { "schema": schema } },
            },
            "400": { "$ref": "#/components/responses/BadRequest" },
            "403": { "$ref": "#/components/responses/Forbidden" },
            "421": { "$ref": "#/components/responses/Misdirected" },
        },
    } })
}

/// The name that is asked for.
fn name(place: &str) -> Value {
    json!({
        "name": "name", "in": place, "required": true,
        "description": "The name, in presentation format (RFC 1035 5.1)",
        "schema": { "type": "string", "format": "dns-name", "minLength": 1, "maxLength": 1016 },
    })
}

/// The other parts of a query.
fn asked() -> Vec<Value> {
    let parameter = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    vec![
        parameter(
            "type",
            "The record type: its mnemonic, or TYPE and its number (RFC 3597)",
            json!({ "type": "string", "format": "dns-type", "default": "A" }),
        ),
        parameter("client", "Who asks", json!({ "type": "string", "format": "ip", "default": "127.0.0.1" })),
        parameter(
            "transport",
            "How the query comes",
            json!({ "enum": ["udp", "tcp", "tls", "https", "quic"], "default": "udp" }),
        ),
        parameter("dnssec", "Whether the DO bit is set", json!({ "type": "boolean", "default": false })),
        parameter(
            "address",
            "Addresses that the upstreams are assumed to answer with, separated by commas",
            json!({ "type": "string", "format": "ip-list" }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_described_and_every_reference_leads_somewhere() {
        let description = description();
        let paths = description["paths"].as_object().unwrap();
        assert_eq!(paths.len(), SUMMARIES.len());
        for (path, methods) in paths {
            assert!(methods["get"]["summary"].is_string(), "{path}");
        }
        let text = description.to_string();
        let mut references = 0;
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(description.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 20, "{references}");
    }
}
