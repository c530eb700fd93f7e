//! The JSON Schema of the edge document against the compiler: what the schema refuses the compiler refuses, and what
//! a schema can know it refuses, too. By an independent validator; knows no member by name.

use anyhow::{Context, Result, ensure};
use gatehouse_edge::{Parts, Suite};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::documents;

fn schema() -> Result<Value> {
    documents::json_file("docs/schema/edge.json")
}

fn validator() -> Result<Validator> {
    Ok(jsonschema::draft202012::new(&schema()?)?)
}

fn compiles(document: &Value) -> bool {
    Suite::compile(&document.to_string(), Parts::Suite).is_ok()
}

/// Every document of the fused module that the repository holds: examples, documentation, and what is embedded in
/// the manifests of Istio and Kong.
fn committed() -> Result<Vec<Value>> {
    let mut all = vec![documents::json_file("examples/gateway/suite.json")?];
    let page = std::fs::read_to_string(documents::root()?.join("docs/configuration.md"))?;
    for block in page.split("```json suite\n").skip(1) {
        all.push(serde_json::from_str(block.split("```").next().context("a block")?)?);
    }
    for file in ["istio/base/wasmplugin.yaml", "kong/kong.yaml", "istio/base/envoyfilter.yaml"] {
        let before = all.len();
        for document in documents::yaml(file)? {
            embedded(&document, &mut all);
        }
        ensure!(all.len() > before, "{file} embeds no edge document");
    }
    Ok(all)
}

fn embedded(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(members) if members.contains_key("issuers") => found.push(value.clone()),
        Value::Object(members) => members.values().for_each(|inner| embedded(inner, found)),
        Value::Array(items) => items.iter().for_each(|inner| embedded(inner, found)),
        Value::String(text) if text.starts_with('{') => {
            if let Ok(inner @ Value::Object(_)) = serde_json::from_str(text) {
                embedded(&inner, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_committed_document_fits_the_schema() -> Result<()> {
    let validator = validator()?;
    let documents = committed()?;
    ensure!(documents.len() >= 6, "{} documents", documents.len());
    for document in documents {
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(compiles(&document), "does not compile: {document}");
        ensure!(errors.is_empty(), "{errors:?}\n{document}");
    }
    Ok(())
}

/// Whatever could stand there instead.
fn instead(value: &Value) -> Vec<Value> {
    let mut all = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(300),
        json!(99_999_999_999_u64),
        json!(""),
        json!("zzz"),
        json!("open"),
        json!("/x/"),
        json!([]),
        json!([""]),
        json!(["zzz", 7]),
        json!({}),
        json!({"zzz": 1}),
    ];
    match value {
        Value::Object(members) => {
            let mut more = members.clone();
            more.insert("zzz".to_owned(), json!(1));
            all.push(Value::Object(more));
            for name in members.keys() {
                let mut fewer: Map<String, Value> = members.clone();
                fewer.remove(name);
                all.push(Value::Object(fewer));
            }
        }
        Value::Array(items) => {
            let twice: Vec<Value> = items.iter().chain(items).cloned().collect();
            all.push(Value::Array(twice));
        }
        Value::Number(number) => {
            all.extend(number.as_u64().map(|number| json!(number.saturating_add(1))));
        }
        _ => {}
    }
    all
}

/// The JSON pointer of every value in `value`, itself included.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(inner, &format!("{at}/{name}"), all);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointers(inner, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

#[test]
fn the_schema_refuses_nothing_that_the_compiler_takes() -> Result<()> {
    let validator = validator()?;
    let (mut changed, mut taken, mut refused_by_both) = (0, 0, 0);
    for document in committed()? {
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        for place in places {
            let value = document.pointer(&place).context("a place")?;
            for other in instead(value) {
                let mut document = document.clone();
                *document.pointer_mut(&place).context("a place")? = other;
                changed += 1;
                let (fits, compiles) = (validator.is_valid(&document), compiles(&document));
                ensure!(fits || !compiles, "the schema refuses at {place:?}: {document}");
                taken += usize::from(compiles);
                refused_by_both += usize::from(!fits);
            }
        }
    }
    // The series says something: much is taken, and most of what is refused the schema knew.
    ensure!(taken > 200, "{taken} of {changed} compile");
    let refused = changed - taken;
    ensure!(refused_by_both * 10 > refused * 7, "{refused_by_both} of {refused}");
    Ok(())
}

#[test]
fn what_a_schema_can_know_it_refuses() -> Result<()> {
    let validator = validator()?;
    let example = documents::json_file("examples/gateway/suite.json")?;
    for (place, value) in [
        ("/host", json!("nginx")),
        ("/sidecar/timeout_ms", json!(0)),
        ("/sidecar/timeout_ms", json!("50")),
        ("/sidecar/timout_ms", json!(50)),
        ("/issuers", json!([])),
        ("/issuers/0/algorithms", json!(["none"])),
        ("/issuers/0/max_role", json!("owner")),
        ("/limiter", json!("close")),
        ("/zzz", json!(1)),
    ] {
        let mut document = example.clone();
        let (object, name) = place.rsplit_once('/').context("a place")?;
        let object = document.pointer_mut(object).and_then(Value::as_object_mut);
        object.context("an object")?.insert(name.to_owned(), value);
        ensure!(!validator.is_valid(&document), "{place} passes the schema");
        ensure!(!compiles(&document), "{place} compiles");
    }
    let mut document = example;
    document.as_object_mut().context("an object")?.remove("versions");
    ensure!(!validator.is_valid(&document), "versions may be missing");
    Ok(())
}

#[test]
fn the_schema_is_one_by_its_own_dialect() -> Result<()> {
    ensure!(jsonschema::draft202012::meta::is_valid(&schema()?));
    Ok(())
}
