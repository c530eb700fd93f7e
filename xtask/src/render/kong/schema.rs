//! The schema by which Kong checks the filter's configuration: the reader's own, in JSON Schema draft 4, with what
//! Kong has not left out. The reader has the last word.

use gatehouse_edge::Suite;
use serde_json::{Map, Value, json};

use super::super::sorted;

/// What differs on Kong: the same document with `envoy` would look for headers and paths in the wrong places, its Wasm
/// host has no signature check, gives no environment to take keys from and cannot tell who a peer is.
const ONLY: &[(&str, &str)] = &[("/host", "kong"), ("/signatures", "portable")];
const NOT: &[(&str, &str)] = &[("/context", "sign"), ("/limiter/anyOf/0", "bypass")];

/// `suite.meta.json`: without it Kong takes a filter's configuration as a string only, unchecked.
pub fn meta() -> Value {
    let mut schema = draft4(&Suite::schema());
    if let Some(properties) = schema.get_mut("properties") {
        for (at, word) in ONLY {
            if let Some(member) = properties.pointer_mut(at) {
                *member = json!({ "enum": [word] });
            }
        }
        for (at, name) in NOT {
            let within = properties.pointer_mut(&format!("{at}/properties"));
            if let Some(members) = within.and_then(Value::as_object_mut) {
                members.remove(*name);
            }
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.insert("$schema".to_owned(), json!("http://json-schema.org/draft-04/schema#"));
    }
    sorted(json!({ "config_schema": schema }))
}

/// What decides, in draft 4. Kong's reader would write defaults into the configuration, which depend on more than one
/// member, and it cannot compare with `null`.
fn draft4(schema: &Value) -> Value {
    let Some(members) = schema.as_object() else { return json!({}) };
    let each = |members: &Map<String, Value>| -> Value {
        members.iter().map(|(name, schema)| (name.clone(), draft4(schema))).collect()
    };
    let mut kept = Map::new();
    for (name, value) in members {
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => each(properties),
            ("items" | "additionalProperties", Value::Object(_)) => draft4(value),
            ("anyOf", Value::Array(forms)) => {
                let not_null = |form: &&Value| form.get("type") != Some(&json!("null"));
                forms.iter().filter(not_null).map(draft4).collect()
            }
            ("type", Value::Array(types)) => types.first().cloned().unwrap_or_default(),
            ("enum", Value::Array(words)) => {
                words.iter().filter(|word| !word.is_null()).cloned().collect()
            }
            ("default" | "description" | "title" | "$id" | "$schema", _) => continue,
            (_, value) => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}
