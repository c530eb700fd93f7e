//! Turns the schema of a custom resource definition into a strict JSON schema (an API server prunes what it does
//! not know; here that is an error). CEL rules are not checked this way.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// The strict schema for the kind that `document` says it is, from the definitions in `crds`.
pub fn schema(crds: &[Value], document: &Value) -> Result<Value> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').context("apiVersion without a group")?;
    let definition = crds
        .iter()
        .find(|crd| {
            crd.pointer("/spec/group").and_then(Value::as_str) == Some(group)
                && crd.pointer("/spec/names/kind").and_then(Value::as_str) == Some(kind)
        })
        .with_context(|| format!("no definition of {kind} in {group}"))?;
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let version = versions
        .into_iter()
        .flatten()
        .find(|known| known.get("name").and_then(Value::as_str) == Some(version))
        .with_context(|| format!("{kind} has no version {version}"))?;
    let open = version.pointer("/schema/openAPIV3Schema").context("no schema")?;
    let mut whole = strict(open);
    let properties =
        whole.get_mut("properties").and_then(Value::as_object_mut).context("no properties")?;
    properties.insert("apiVersion".to_owned(), json!({"enum": [api_version]}));
    properties.insert("kind".to_owned(), json!({"enum": [kind]}));
    properties.insert("metadata".to_owned(), json!({"type": "object", "required": ["name"]}));
    if let Some(object) = whole.as_object_mut() {
        object.insert("required".to_owned(), json!(["apiVersion", "kind", "metadata", "spec"]));
    }
    Ok(whole)
}

fn strict(schema: &Value) -> Value {
    let Some(schema) = schema.as_object() else { return schema.clone() };
    let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let mut out = Map::new();
    for (name, value) in schema {
        let value = match name.as_str() {
            "properties" => match value.as_object() {
                Some(all) => {
                    all.iter().map(|(name, inner)| (name.clone(), strict(inner))).collect()
                }
                None => value.clone(),
            },
            "items" | "additionalProperties" => strict(value),
            // Branches add conditions to the object around them: they stay open.
            "oneOf" | "anyOf" | "allOf" | "not" => plain(value),
            "nullable" | "format" | "description" => continue,
            name if name.starts_with("x-kubernetes-") => continue,
            _ => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    if flag("x-kubernetes-int-or-string") {
        out.remove("type");
        out.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if out.contains_key("properties") && !flag("x-kubernetes-preserve-unknown-fields") {
        out.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    let out = Value::Object(out);
    if flag("nullable") { json!({"anyOf": [{"type": "null"}, out]}) } else { out }
}

fn plain(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !name.starts_with("x-kubernetes-") && *name != "nullable")
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        value => value.clone(),
    }
}
