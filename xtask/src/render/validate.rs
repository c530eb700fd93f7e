//! The module that judges bodies, for Envoy and for Istio: a WasmPlugin, which cannot say that headers wait for the body,
//! or an EnvoyFilter, which can. Apply one of the two, behind the fused module. Knows no schemas.

use anyhow::Context;
use serde_json::{Value, json};

use super::{Images, Rendered, envoy, istio, sorted, yaml};

/// The document: what the control API judges its bodies by is what the gateway judges them by.
pub const DOCUMENT: &str = "control-api/bodies.json";
/// The name under which hosts load the module.
pub const NAME: &str = "validate";
/// Where the EnvoyFilter variant finds the module: a volume of the gateway's pods.
pub const MODULE: &str = "/var/lib/gatehouse/validate.wasm";

/// Both manifests, of the document as text.
pub fn manifests(document: &str, images: &Images) -> anyhow::Result<Vec<Rendered>> {
    let document: Value = serde_json::from_str(document).context("reading the schemas")?;
    let rendered = |path: &'static str, value: &Value| Rendered {
        path: path.into(),
        text: format!(
            "# Rendered from {DOCUMENT} by `cargo xtask codegen`: change that and render again.\n{}",
            yaml::write(value)
        ),
    };
    Ok(vec![
        rendered("istio/validate/wasmplugin.yaml", &wasm_plugin(&document, images)),
        rendered("istio/validate/envoyfilter.yaml", &envoy_filter(&document)),
    ])
}

/// The same rules, whether or not headers wait for bodies.
fn holding(document: &Value, hold_headers: bool) -> Value {
    let mut document = document.clone();
    if let Some(members) = document.as_object_mut() {
        members.insert("hold_headers".to_owned(), json!(hold_headers));
    }
    sorted(document)
}

/// The filter's entry in a chain: headers wait where the document says so, and then the host must let bodies come.
pub fn filter(document: &Value, module: &str) -> Value {
    let hold_headers = document.get("hold_headers").and_then(Value::as_bool).unwrap_or(false);
    envoy::wasm(NAME, module, &format!("{:#}", sorted(document.clone())), hold_headers, &[])
}

fn wasm_plugin(document: &Value, images: &Images) -> Value {
    let plugin = istio::Plugin {
        module: NAME,
        // Behind the others, which bring paths into their one form and refuse strangers first.
        priority: 900,
        config: holding(document, false),
        variables: Vec::new(),
    };
    istio::plugin(plugin, images)
}

fn envoy_filter(document: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": istio::metadata("gatehouse-validate"),
        "spec": {
            "workloadSelector": {"labels": istio::selector()},
            // Applied after the fused module's (10), so that it stands between that and the router.
            "priority": 20,
            "configPatches": [{
                "applyTo": "HTTP_FILTER",
                "match": istio::before_router(),
                "patch": {
                    "operation": "INSERT_BEFORE",
                    "value": filter(&holding(document, true), MODULE),
                },
            }],
        },
    })
}
