//! The OpenAPI 3.1 document, and the rules that bodies are judged by: both made of the table of endpoints, the schemas in
//! `schemas.json` and the role matrix, so that none of them can say what another does not.
//! Both are committed; `cargo xtask codegen` renews them and CI compares. Knows no handler.

mod operation;

use std::collections::BTreeSet;

use gatehouse_contract::rbac::{Broken, Matrix};
use serde_json::{Map, Value, json};

use crate::routes::endpoint::Endpoint;

const SCHEMAS: &str = include_str!("../schemas.json");

/// The schemas by name; `$ref`s between them are `#/components/schemas/…`.
pub fn schemas() -> Map<String, Value> {
    // The tests read it: this build would have failed.
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

/// The whole document.
pub fn document(endpoints: &[Endpoint]) -> Result<Value, Broken> {
    let matrix = Matrix::builtin()?;
    let mut paths = Map::new();
    for endpoint in endpoints {
        let item = paths.entry(endpoint.path.clone()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            let method = endpoint.method.to_ascii_lowercase();
            item.insert(method, operation::describe(endpoint, &matrix));
        }
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gatehouse control API",
            "version": "1",
            "summary": "Tenants, who acts in them, agents, executions, and the tokens by which they are reached.",
            "description": operation::CONVENTIONS,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The gateway's own address"}],
        "security": [{"token": []}, {"key": []}, {"session": []}],
        "tags": operation::TAGS.map(|(name, says)| json!({"name": name, "description": says})),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": operation::parameters(),
            "headers": operation::headers(),
            "responses": {
                "Problem": {
                    "description": "Refused (RFC 9457): `code` says why.",
                    "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
                    "content": {"application/problem+json":
                        {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
                "NotModified": {"description": "It is what `If-None-Match` names (RFC 9110 §13.1.2)."},
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-gatehouse"},
            },
        },
    }))
}

/// The document of the judge (`crates/validate`), the gateway's and ours: every body of the table.
pub fn bodies(endpoints: &[Endpoint]) -> Value {
    let schemas = schemas();
    let routes: Vec<Value> = endpoints
        .iter()
        .filter_map(|endpoint| {
            Some(json!({
                "method": endpoint.method,
                "path": endpoint.path,
                "max_body_bytes": endpoint.body_bytes,
                "schema": bundled(&schemas, endpoint.body?),
            }))
        })
        .collect();
    json!({"hold_headers": true, "routes": routes})
}

/// One schema with all that it refers to.
fn bundled(schemas: &Map<String, Value>, name: &str) -> Value {
    let mut names = BTreeSet::new();
    let mut schema = local(schemas.get(name).unwrap_or(&Value::Bool(false)), &mut names);
    let mut defs = Map::new();
    while let Some(next) = names.iter().find(|name| !defs.contains_key(*name)).cloned() {
        let of = local(schemas.get(&next).unwrap_or(&Value::Bool(false)), &mut names);
        defs.insert(next, of);
    }
    if let Some(members) = schema.as_object_mut() {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        members.insert("$schema".to_owned(), dialect.into());
        if !defs.is_empty() {
            members.insert("$defs".to_owned(), Value::Object(defs));
        }
    }
    schema
}

/// The schema with its references within itself, and without what is for people: the gateway holds it in its VM.
fn local(schema: &Value, names: &mut BTreeSet<String>) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, value)| {
                // A property may have such a name; a remark is text or a list.
                !matches!(
                    (name.as_str(), value),
                    ("description", Value::String(_)) | ("examples", Value::Array(_))
                )
            });
            let members = members.map(|(name, value)| {
                let to = value.as_str().and_then(|to| to.strip_prefix("#/components/schemas/"));
                let value = match to {
                    Some(to) if name == "$ref" => {
                        names.insert(to.to_owned());
                        format!("#/$defs/{to}").into()
                    }
                    _ => local(value, names),
                };
                (name.clone(), value)
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => items.iter().map(|item| local(item, names)).collect(),
        other => other.clone(),
    }
}

/// As it is committed: sorted, indented, with a line end.
pub fn written(document: &Value) -> String {
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests;
