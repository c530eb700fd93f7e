//! The Kong documents: the declarative format by our strict schema, each filter's configuration by the filter's own
//! draft-04 schema, and the headers that Lua must take away before any filter runs.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use gatehouse_contract::header;
use gatehouse_edge::{Parts, Suite};
use serde_json::{Value, json};

use super::documents;

/// Everything wrong with a declarative document.
fn mistakes(document: &Value) -> Result<Vec<String>> {
    let mut all = against(&documents::json_file("kong/schema/declarative.json")?, document)?;
    for route in objects_with(document, "filter_chains") {
        let removed: BTreeSet<&str> = route
            .get("plugins")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|plugin| plugin.get("name") == Some(&json!("request-transformer")))
            .filter_map(|plugin| plugin.pointer("/config/remove/headers")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let chain_has_routes = route.get("services").is_some();
        for name in header::IDENTITY.iter().filter(|name| !removed.contains(**name)) {
            if !chain_has_routes {
                all.push(format!("{name} is not removed before the filters run"));
            }
        }
    }
    for filter in objects_with(document, "filters")
        .iter()
        .filter_map(|chain| chain.get("filters")?.as_array())
        .flatten()
    {
        let name = filter.get("name").and_then(Value::as_str).unwrap_or_default();
        let Ok(meta) = documents::json_file(&format!("kong/{name}.meta.json")) else {
            all.push(format!("there is no filter {name}"));
            continue;
        };
        let schema = meta.get("config_schema").context("no config_schema")?;
        all.extend(against(schema, filter.get("config").unwrap_or(&Value::Null))?);
    }
    Ok(all)
}

fn against(schema: &Value, document: &Value) -> Result<Vec<String>> {
    let schema = jsonschema::draft4::new(schema)?;
    Ok(schema.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect())
}

/// Every object in `value` that has the member `name`.
fn objects_with<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(members) => {
            if members.contains_key(name) {
                found.push(value);
            }
            members.values().for_each(|inner| found.extend(objects_with(inner, name)));
        }
        Value::Array(items) => {
            items.iter().for_each(|inner| found.extend(objects_with(inner, name)))
        }
        _ => {}
    }
    found
}

const ROUTE: &str = "/services/0/routes/0";
const CHAIN: &str = "/services/0/routes/0/filter_chains/0";
const FILTER: &str = "/services/0/routes/0/filter_chains/0/filters/0";

fn committed() -> Result<Value> {
    Ok(documents::yaml("kong/kong.yaml")?.remove(0))
}

/// The committed document after `change` must be refused with a mistake that has `expected` in it.
fn check_refused(change: impl FnOnce(&mut Value) -> Option<()>, expected: &str) -> Result<()> {
    let mut document = committed()?;
    change(&mut document).context("the change did not apply")?;
    let mistakes = mistakes(&document)?;
    ensure!(
        mistakes.iter().any(|mistake| mistake.contains(expected)),
        "expected {expected:?}, got {mistakes:?}"
    );
    Ok(())
}

#[test]
fn the_committed_document_is_accepted() -> Result<()> {
    let found = mistakes(&committed()?)?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn a_misspelt_member_is_refused() -> Result<()> {
    for (pointer, name, typed) in [
        ("", "services", "service"),
        (ROUTE, "strip_path", "stripPath"),
        (ROUTE, "filter_chains", "filter_chain"),
        (CHAIN, "filters", "filter"),
        (FILTER, "config", "configuration"),
        ("/services/0/routes/0/filter_chains/0/filters/0/config", "issuers", "issuer"),
        ("/services/0/routes/0/filter_chains/0/filters/0/config/sidecar", "timeout_ms", "timeout"),
    ] {
        let document = documents::misspelt(&committed()?, pointer, name, typed)?;
        ensure!(!mistakes(&document)?.is_empty(), "{typed} for {name} at {pointer:?} passes");
    }
    Ok(())
}

#[test]
fn a_chain_belongs_to_exactly_one_service_or_route() -> Result<()> {
    let filters = committed()?.pointer(&format!("{CHAIN}/filters")).cloned().context("filters")?;
    let free = |owners: &[&str]| -> Result<Vec<String>> {
        let mut chain = json!({"filters": filters});
        for owner in owners {
            chain[*owner] = json!("api");
        }
        // Through the schema alone: who removes the headers is the owner's business.
        against(
            &documents::json_file("kong/schema/declarative.json")?,
            &json!({"_format_version": "3.0", "filter_chains": [chain]}),
        )
    };
    ensure!(free(&["route"])?.is_empty());
    ensure!(free(&["service"])?.is_empty());
    ensure!(!free(&[])?.is_empty(), "a chain of nothing passes");
    ensure!(!free(&["service", "route"])?.is_empty(), "a chain of both passes");
    check_refused(
        |document| {
            document.pointer_mut(CHAIN)?.as_object_mut()?.insert("route".into(), json!("api"));
            Some(())
        },
        "route",
    )
}

#[test]
fn an_unknown_filter_is_refused() -> Result<()> {
    check_refused(
        |document| {
            *document.pointer_mut(&format!("{FILTER}/name"))? = json!("siute");
            Some(())
        },
        "there is no filter siute",
    )
}

#[test]
fn a_protected_header_that_is_not_removed_is_refused() -> Result<()> {
    check_refused(
        |document| {
            let headers = document
                .pointer_mut(&format!("{ROUTE}/plugins/0/config/remove/headers"))?
                .as_array_mut()?;
            headers.retain(|name| name != header::TENANT_ID);
            Some(())
        },
        "x-tenant-id is not removed",
    )?;
    check_refused(
        |document| document.pointer_mut(ROUTE)?.as_object_mut()?.remove("plugins").map(drop),
        "x-gatehouse-context is not removed",
    )
}

#[test]
fn an_envoy_document_is_refused_on_kong() -> Result<()> {
    check_refused(
        |document| {
            *document.pointer_mut(&format!("{FILTER}/config/host"))? = json!("envoy");
            Some(())
        },
        "/host",
    )
}

/// The members that the reader knows, taken from what it says of an unknown one.
fn known(config: &Value, pointer: &str) -> Result<BTreeSet<String>> {
    let mut config = config.clone();
    let object = config.pointer_mut(pointer).and_then(Value::as_object_mut).context("no object")?;
    object.insert("zzzzzz".to_owned(), json!(1));
    let mistakes = Suite::compile(&config.to_string(), Parts::Suite)
        .err()
        .context("an unknown member passes")?;
    let mend = mistakes
        .iter()
        .find_map(|mistake| mistake.mend.split_once("known here: "))
        .context("no list of members")?;
    Ok(mend.1.split(", ").map(str::to_owned).collect())
}

#[test]
fn the_schema_knows_the_members_that_the_filter_reads() -> Result<()> {
    let config = committed()?.pointer(&format!("{FILTER}/config")).cloned().context("config")?;
    let schema = documents::json_file("kong/suite.meta.json")?;
    for (at, properties) in [
        ("", "/config_schema/properties"),
        ("/sidecar", "/config_schema/properties/sidecar/properties"),
        ("/issuers/0", "/config_schema/properties/issuers/items/properties"),
        ("/versions", "/config_schema/properties/versions/properties"),
    ] {
        let listed: BTreeSet<String> = schema
            .pointer(properties)
            .and_then(Value::as_object)
            .context("no properties")?
            .keys()
            .cloned()
            .collect();
        assert_eq!(listed, known(&config, at)?, "{at:?}");
    }
    Ok(())
}
