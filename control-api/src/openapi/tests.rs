//! The document against the router, the matrix, the schemas and what is committed.

use std::collections::BTreeSet;

use gatehouse_contract::rbac::Access;
use gatehouse_validate::{Schema, Validator};

use super::*;
use crate::routes::{endpoint::Manner, table::endpoints};

#[test]
fn what_is_committed_is_what_the_table_says() {
    for (file, made) in
        [("openapi.json", document(&endpoints()).unwrap()), ("bodies.json", bodies(&endpoints()))]
    {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == written(&made), "{file} is old: run `cargo xtask codegen`");
    }
}

#[test]
fn the_table_and_the_role_matrix_have_the_same_endpoints() {
    let of_matrix: BTreeSet<(String, String, bool)> = Matrix::builtin()
        .unwrap()
        .routes()
        .iter()
        .map(|route| (route.template.clone(), route.method.clone(), route.access == Access::Public))
        .collect();
    let of_table: BTreeSet<(String, String, bool)> = endpoints()
        .into_iter()
        .map(|one| {
            let public = matches!(one.manner, Manner::Public | Manner::Document);
            (one.path, one.method.to_owned(), public)
        })
        .collect();
    assert_eq!(of_table, of_matrix);
}

#[test]
fn every_schema_compiles_is_used_and_takes_its_examples() {
    let schemas = schemas();
    assert!(!schemas.is_empty());
    let whole = document(&endpoints()).unwrap();
    let text = whole.to_string();
    for name in schemas.keys() {
        let compiled = Schema::compile(&bundled(&schemas, name)).unwrap();
        for example in schemas[name]["examples"].as_array().into_iter().flatten() {
            assert_eq!(compiled.judge(example.to_string().as_bytes()), Ok(()), "{name}");
        }
        assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "{name} is unused");
    }
    for endpoint in endpoints() {
        if let Some(name) = endpoint.body {
            assert!(schemas[name]["examples"][0].is_object(), "{name} shows no example");
        }
    }
    assert!(Validator::compile(&bodies(&endpoints()).to_string()).is_ok());
}

#[test]
fn references_lead_somewhere_and_operations_have_names_of_their_own() {
    fn walk<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document(&endpoints()).unwrap();
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(references.len() > 100);
    for to in references {
        assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
    }
    let mut names = BTreeSet::new();
    for endpoint in endpoints() {
        assert!(names.insert(endpoint.name.clone()), "{} stands twice", endpoint.name);
        assert!(!endpoint.summary.ends_with('.') && !endpoint.summary.is_empty());
    }
}

/// By construction: whoever adds an endpoint of some method gets what belongs to it.
#[test]
fn the_manner_of_an_endpoint_is_its_methods() {
    use crate::routes::endpoint::Manner::{
        Act, Change, Document, List, Public, Read, Remove, State, Stream, Tells,
    };
    for endpoint in endpoints() {
        let fits = match (endpoint.method, endpoint.manner) {
            (_, Public)
            | ("GET", Document | Read | List | Stream | Tells)
            | ("POST", Act)
            | ("PATCH", Change)
            | ("DELETE", Remove) => true,
            // A fact has no body: there is nothing in it that could be lost.
            ("PUT", Change) => endpoint.body.is_some(),
            ("PUT", State) => endpoint.body.is_none(),
            _ => false,
        };
        assert!(fits, "{} {} is {:?}", endpoint.method, endpoint.path, endpoint.manner);
    }
}

#[test]
fn the_page_for_people_needs_nothing_from_elsewhere() {
    let document = document(&endpoints()).unwrap();
    let page = crate::routes::reference::page_of(&document);
    for endpoint in endpoints() {
        assert!(page.contains(&format!("id=\"{}\"", endpoint.name)), "{}", endpoint.name);
    }
    for loaded in ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import"] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    // Its links stay within: to itself, or to the document beside it.
    for href in page.split("href=\"").skip(1) {
        let to = href.split('"').next().unwrap();
        assert!(to == "openapi.json" || to.starts_with('#'), "{to}");
        if let Some(id) = to.strip_prefix('#') {
            assert!(page.contains(&format!("id=\"{id}\"")), "#{id} is not there");
        }
    }
}
