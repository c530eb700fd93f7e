//! Holds every answer that a test gets from the public listener to the OpenAPI document: its status is one that the
//! document has for the operation, and its body is of the schema. So the document is true of all that the tests see.
//! Knows no operation.

use std::{cell::RefCell, collections::HashMap};

use gatehouse_validate::Schema;
use serde_json::{Map, Value, json};

use crate::{conventions::document, http::Answer};

thread_local! {
    static COMPILED: RefCell<HashMap<String, Schema>> = RefCell::default();
}

/// Fails the test where the document does not have this.
pub fn check(method: &str, url: &str, answer: &Answer) {
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let path = format!("/{}", path.split('?').next().unwrap_or_default());
    let kind = answer.header("content-type").unwrap_or_default();
    if kind == "application/problem+json" {
        fits("Problem", &json!({"$ref": "#/components/schemas/Problem"}), answer);
    }
    let Some(operation) = operation(method, &path) else { return };
    let responses = operation["responses"].as_object().unwrap();
    let name = operation["operationId"].as_str().unwrap();
    let Some(response) = responses.get(&answer.status.to_string()) else {
        // Another listener, which has no such path: a collection is always there.
        if answer.status == 404 {
            return;
        }
        panic!("{name} answered {}, which openapi.json has not: {}", answer.status, answer.text);
    };
    let known = &response["content"];
    if answer.status < 300 && !answer.text.is_empty() {
        let media = &known[kind];
        assert!(!media.is_null(), "{name} answered {kind}, which openapi.json has not");
        if media["schema"].is_object() {
            fits(&format!("{name} {}", answer.status), &media["schema"], answer);
        }
    }
    if answer.status < 300 {
        assert_eq!(known.is_null(), answer.text.is_empty(), "{name}: {}", answer.text);
    }
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = document()["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (mut parts, mut given) = (template.split('/'), path.split('/'));
        let same = parts
            .by_ref()
            .zip(given.by_ref())
            .all(|(known, part)| known.starts_with('{') || known == part);
        same && parts.next().is_none() && template.split('/').count() == path.split('/').count()
    };
    let item = paths.iter().find(|(template, _)| fits(template))?.1;
    item.get(method.to_lowercase())
}

fn fits(key: &str, schema: &Value, answer: &Answer) {
    COMPILED.with_borrow_mut(|compiled| {
        let schema = compiled.entry(key.to_owned()).or_insert_with(|| {
            Schema::compile(&bundled(schema)).unwrap_or_else(|faults| panic!("{key}: {faults:?}"))
        });
        let judged = schema.judge(answer.text.as_bytes());
        assert!(judged.is_ok(), "{key}: {judged:?}: {}", answer.text);
    });
}

/// With all of the document's schemas, and references to them.
fn bundled(schema: &Value) -> Value {
    fn local(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| {
                    let to = value.as_str().and_then(|to| to.strip_prefix("#/components/schemas/"));
                    let value =
                        to.map_or_else(|| local(value), |to| format!("#/$defs/{to}").into());
                    (name.clone(), value)
                })
                .collect::<Map<_, _>>()
                .into(),
            Value::Array(items) => items.iter().map(local).collect(),
            other => other.clone(),
        }
    }
    let mut whole = local(schema);
    let defs = local(&document()["components"]["schemas"]);
    whole.as_object_mut().unwrap().insert("$defs".to_owned(), defs);
    whole
}
