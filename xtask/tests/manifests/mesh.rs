//! The Istio documents against the definitions of the custom resources, strictly.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{crd, documents};

/// Beside the repository, where the definitions are kept (`../shared/crds`).
const CRDS: &str = "../shared/crds/istio-1.30.3.yaml";

/// The definitions. They are not part of this repository: without them the check is left out, except in CI.
fn definitions() -> Result<Option<Vec<Value>>> {
    let missing = !documents::root()?.join(CRDS).exists();
    if missing {
        ensure!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{CRDS} is missing; CI needs the definitions beside the repository"
        );
        eprintln!("left out: {CRDS} is not there, the Istio documents were not checked");
        return Ok(None);
    }
    documents::yaml(CRDS).map(Some)
}

/// Validates each document of `path`; each misspelling of `(document, object, member, typed)` must be refused.
fn check(path: &str, misspellings: &[(usize, &str, &str, &str)]) -> Result<()> {
    let Some(crds) = definitions()? else { return Ok(()) };
    let documents = documents::yaml(path)?;
    for document in &documents {
        let schema = jsonschema::validator_for(&crd::schema(&crds, document)?)?;
        let mistakes: Vec<String> =
            schema.iter_errors(document).map(|e| format!("{} {e}", e.instance_path())).collect();
        ensure!(mistakes.is_empty(), "{path}: {mistakes:?}");
    }
    for (at, pointer, name, typed) in misspellings {
        let good = documents.get(*at).with_context(|| format!("{path} has no document {at}"))?;
        let bad = documents::misspelt(good, pointer, name, typed)?;
        let schema = jsonschema::validator_for(&crd::schema(&crds, good)?)?;
        ensure!(!schema.is_valid(&bad), "{path}: {typed} for {name} at {pointer:?} passes");
    }
    Ok(())
}

#[test]
fn the_wasm_plugin_fits_its_definition_and_a_misspelt_one_does_not() -> Result<()> {
    check(
        "istio/base/wasmplugin.yaml",
        &[
            (0, "", "spec", "specs"),
            (0, "/spec", "failStrategy", "failureStrategy"),
            (0, "/spec", "sha256", "sha265"),
            (0, "/spec/selector", "matchLabels", "matchlabels"),
            (0, "/spec/match/0", "mode", "modes"),
            (1, "/spec/ports/0", "protocol", "protocoll"),
            (2, "/spec/configPatches/0/patch", "operation", "operate"),
        ],
    )
}

#[test]
fn the_chain_of_single_modules_fits_its_definitions_and_a_misspelt_one_does_not() -> Result<()> {
    let spec = |at| (at, "/spec", "priority", "prio");
    check(
        "istio/chain/wasmplugins.yaml",
        &[spec(0), spec(1), spec(2), spec(3), (4, "/spec", "endpoints", "endpoint")],
    )
}

#[test]
fn the_choice_of_the_log_format_fits_its_definition_and_a_misspelt_one_does_not() -> Result<()> {
    check(
        "istio/base/telemetry.yaml",
        &[
            (0, "/spec", "accessLogging", "accessLogs"),
            (0, "/spec/accessLogging/0", "providers", "provider"),
            (0, "/spec/selector", "matchLabels", "matchlabels"),
        ],
    )?;
    // It chooses what the values of istiod define.
    let chosen = documents::yaml("istio/base/telemetry.yaml")?;
    let defined = documents::yaml("istio/istiod-values.yaml")?;
    let name = |of: &[Value], at: &str| of.first().and_then(|one| one.pointer(at)).cloned();
    let chosen = name(&chosen, "/spec/accessLogging/0/providers/0/name");
    ensure!(chosen.is_some() && chosen == name(&defined, "/meshConfig/extensionProviders/0/name"));
    Ok(())
}

#[test]
fn the_envoy_filter_fits_its_definition_and_a_misspelt_one_does_not() -> Result<()> {
    check(
        "istio/base/envoyfilter.yaml",
        &[
            (0, "/spec", "configPatches", "configPatch"),
            (0, "/spec/configPatches/0", "applyTo", "appliesTo"),
            (
                0,
                "/spec/configPatches/1/match/listener/filterChain/filter",
                "subFilter",
                "subfilter",
            ),
            (0, "/spec/configPatches/1/patch", "operation", "operate"),
        ],
    )
}

#[test]
fn the_documents_of_the_module_that_judges_bodies_fit_their_definitions() -> Result<()> {
    check("istio/validate/wasmplugin.yaml", &[(0, "/spec", "pluginConfig", "pluginConfigs")])?;
    let patch = "/spec/configPatches/0/patch";
    check("istio/validate/envoyfilter.yaml", &[(0, patch, "operation", "operate")])?;
    // Whether headers wait is said in both places or in none: a host that does not let bodies come waits for ever.
    let plugin = documents::yaml("istio/validate/wasmplugin.yaml")?;
    let told = plugin.first().and_then(|it| it.pointer("/spec/pluginConfig/hold_headers"));
    ensure!(told == Some(&Value::Bool(false)), "the plugin holds headers");
    let patches = documents::yaml("istio/validate/envoyfilter.yaml")?;
    let config =
        patches.first().and_then(|it| it.pointer(&format!("{patch}/value/typed_config/config")));
    let config = config.context("no configuration")?;
    ensure!(config.get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true)), "not let");
    let text = config.pointer("/configuration/value").and_then(Value::as_str).unwrap_or_default();
    let document: Value = serde_json::from_str(text)?;
    ensure!(document.get("hold_headers") == Some(&Value::Bool(true)), "not held");
    Ok(())
}

#[test]
fn a_value_outside_an_enumeration_is_refused() -> Result<()> {
    let Some(crds) = definitions()? else { return Ok(()) };
    let mut plugin = documents::yaml("istio/base/wasmplugin.yaml")?.remove(0);
    let schema = jsonschema::validator_for(&crd::schema(&crds, &plugin)?)?;
    for (pointer, good, bad) in [
        ("/spec/failStrategy", "FAIL_RELOAD", "FAIL_RELAOD"),
        ("/spec/phase", "AUTHN", "AUTHENTICATION"),
        ("/spec/match/0/mode", "CLIENT", "GATEWAY"),
    ] {
        ensure!(plugin.pointer(pointer) == Some(&Value::from(good)), "{pointer} is not {good}");
        if let Some(value) = plugin.pointer_mut(pointer) {
            *value = Value::from(bad);
        }
        ensure!(!schema.is_valid(&plugin), "{bad} passes at {pointer}");
        if let Some(value) = plugin.pointer_mut(pointer) {
            *value = Value::from(good);
        }
    }
    ensure!(schema.is_valid(&plugin), "the plugin as it was is refused");
    Ok(())
}
