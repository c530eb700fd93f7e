//! The edge document as JSON Schema: what its reader asks for, and what `docs/configuration.md` says of each key.
//! An editor completes and checks by it; the reader has the last word. Knows no documents.

use gatehouse_contract::document;
use serde_json::{Map, Value, json};

use super::{Parts, Suite, Warnings, read_suite};

/// Its lasting name: nothing is to be fetched.
const ID: &str = "urn:uuid:8d6f2f0a-6f0e-5c1b-9a54-3c0f5f1c7e21";
const KEYS: &str = include_str!("../../../../docs/configuration.md");

impl Suite {
    /// The document of the fused module as JSON Schema (draft 2020-12). What it refuses, [`Suite::compile`] refuses.
    pub fn schema() -> Value {
        let mut warnings = Warnings::default();
        let mut schema = document::describe(|doc| read_suite(doc, Parts::Suite, &mut warnings));
        explain(&mut schema, "", &rows());
        if let Some(members) = schema.as_object_mut() {
            for (name, value) in [
                ("$schema", "https://json-schema.org/draft/2020-12/schema"),
                ("$id", ID),
                ("title", "Gatehouse edge document"),
                (
                    "description",
                    "One object configures the filter, in Envoy, Istio and Kong alike.",
                ),
            ] {
                members.insert(name.to_owned(), json!(value));
            }
        }
        schema
    }
}

/// A row of the page's tables.
struct Row {
    /// The member of the document whose chapter it stands in; the top level is empty.
    section: String,
    key: &'static str,
    meaning: &'static str,
}

fn rows() -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in KEYS.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = match heading.strip_prefix('`').and_then(|name| name.split_once('`')) {
                Some((name, _)) => name.trim_end_matches("[]").to_owned(),
                None => String::new(),
            };
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [key, _default, _values, meaning] = cells.as_slice()
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            rows.push(Row { section: section.clone(), key, meaning });
        }
    }
    rows
}

/// Gives each member what the page says of it.
fn explain(schema: &mut Value, section: &str, rows: &[Row]) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (key, member) in properties.iter_mut() {
            // Where chapters hold more than one object, keys differ.
            let row = rows.iter().find(|row| row.section == section && row.key == key);
            if let (Some(row), Some(member)) = (row, member.as_object_mut()) {
                describe(member, row.meaning);
            }
            explain(member, if section.is_empty() { key } else { section }, rows);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        explain(items, section, rows);
    }
    for form in schema.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        explain(form, section, rows);
    }
}

fn describe(member: &mut Map<String, Value>, meaning: &str) {
    let meaning = match meaning.split_once(" ([") {
        Some((before, link)) => {
            format!("{before}{}", link.split_once("))").map_or("", |(_, after)| after))
        }
        None => meaning.to_owned(),
    };
    let text = match member.get("description").and_then(Value::as_str) {
        Some(expected) => format!("{}. Write {expected}", meaning.trim_end_matches('.')),
        None => meaning,
    };
    member.insert("description".to_owned(), text.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every<'s>(schema: &'s Value, path: &str, visit: &mut dyn FnMut(&str, &'s Value)) {
        visit(path, schema);
        let within = |name: &str| schema.get(name).and_then(Value::as_object);
        for (key, member) in within("properties").into_iter().flatten() {
            every(member, &format!("{path}.{key}"), visit);
        }
        for form in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            every(form, path, visit);
        }
        if let Some(items) = schema.get("items") {
            every(items, &format!("{path}[]"), visit);
        }
    }

    #[test]
    fn every_member_is_told_and_every_object_is_closed() {
        every(&Suite::schema(), "$", &mut |path, schema| {
            assert_ne!(schema, &Value::Bool(true), "{path} is read and not told");
            if schema.get("properties").is_some() {
                assert_eq!(schema["additionalProperties"], false, "{path}");
            }
        });
    }

    #[test]
    fn each_word_stands_in_what_people_are_told_to_write() {
        every(&Suite::schema(), "$", &mut |path, schema| {
            let words = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            for word in words.filter_map(Value::as_str) {
                let told = schema["description"].as_str().unwrap_or_default();
                assert!(told.contains(word), "{path}: {word} is not in {told:?}");
            }
        });
    }

    #[test]
    fn a_member_has_its_form_its_default_and_its_meaning() {
        let schema = Suite::schema();
        let at = |pointer: &str| schema.pointer(pointer).unwrap();
        assert_eq!(at("/required"), &json!(["host", "signatures", "issuers", "versions"]));
        let timeout = at("/properties/sidecar/properties/timeout_ms");
        assert_eq!(timeout["type"], json!(["integer", "null"]));
        assert_eq!((&timeout["minimum"], &timeout["default"]), (&json!(1), &json!(50)));
        assert!(timeout["description"].as_str().unwrap().starts_with("for a rate decision"));
        assert_eq!(at("/properties/rbac/enum"), &json!(["enforce", "shadow", null]));
        let jwks = at("/properties/issuers/items/properties/jwks");
        assert_eq!(jwks["default"], "sidecar");
        assert_eq!(jwks["anyOf"].as_array().unwrap().len(), 4);
    }
}
