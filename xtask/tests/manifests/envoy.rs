//! The EnvoyFilter's patch, applied to a bootstrap as Istio does it and loaded by real Envoy, which compiles the
//! module and runs its configuration; and the three renderings of the filter's document through its own reader.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gatehouse_edge::{Parts, Suite};
use gatehouse_xtask::{
    command,
    render::{Document, envoy, istio},
};
use serde_json::{Value, json};

use super::documents;

/// Compiling the module takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

pub fn part(name: &str) -> Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run `cargo xtask test`"))
}

fn committed() -> Result<Value> {
    Ok(documents::yaml("istio/base/envoyfilter.yaml")?.remove(0))
}

/// A proxy without anything of ours.
pub fn bare() -> Result<Value> {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let document = Document::read(&documents::root()?)?;
    let gateway = envoy::Gateway {
        listen: anywhere,
        admin: anywhere,
        control_api: anywhere,
        sidecar: anywhere,
        suite: Path::new(""),
        document: &document,
    };
    Ok(envoy::bare(&gateway))
}

/// Applies `filter` to a proxy without it; the module's file is where this machine has it.
fn patched(filter: &Value, suite: &Path) -> Result<Value> {
    let mut bootstrap = bare()?;
    envoy::apply(&mut bootstrap, filter)?;
    let text = bootstrap.to_string().replace(istio::MODULE, &suite.display().to_string());
    Ok(serde_json::from_str(&text)?)
}

/// What Envoy says of `bootstrap`: nothing, or its complaint.
pub fn validate(bootstrap: &Value) -> Result<Option<String>> {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("gatehouse-validate-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&file, bootstrap.to_string())?;
    let mut envoy = Command::new(part("GATEHOUSE_TEST_ENVOY")?);
    envoy.args(["--mode", "validate", "--log-level", "error", "--config-path"]).arg(&file);
    let output = command::output(&mut envoy, "envoy --mode validate", LIMIT);
    std::fs::remove_file(&file)?;
    let output = output?;
    Ok((!output.status.success()).then(|| format!("{}{}", output.stdout, output.stderr)))
}

fn check_refused(change: impl FnOnce(&mut Value) -> Option<()>, expected: &str) -> Result<()> {
    let mut filter = committed()?;
    change(&mut filter).context("the change did not apply")?;
    let complaint = validate(&patched(&filter, &part("GATEHOUSE_TEST_SUITE")?)?)?;
    let complaint = complaint.with_context(|| format!("Envoy accepts {expected}"))?;
    ensure!(complaint.contains(expected), "expected {expected:?}, Envoy says: {complaint}");
    Ok(())
}

fn rename(value: &mut Value, pointer: &str, name: &str, typed: &str) -> Option<()> {
    let object = value.pointer_mut(pointer)?.as_object_mut()?;
    let member = object.remove(name)?;
    object.insert(typed.to_owned(), member);
    Some(())
}

const CONFIG: &str = "/spec/configPatches/1/patch/value/typed_config/config";

#[test]
fn envoy_loads_the_patched_bootstrap() -> Result<()> {
    let complaint = validate(&patched(&committed()?, &part("GATEHOUSE_TEST_SUITE")?)?)?;
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

#[test]
fn envoy_refuses_a_misspelt_field_of_the_filter() -> Result<()> {
    check_refused(|filter| rename(filter, CONFIG, "failure_policy", "fail_policy"), "fail_policy")
}

#[test]
fn envoy_refuses_a_misspelt_field_of_the_cluster() -> Result<()> {
    check_refused(
        |filter| {
            let cluster = "/spec/configPatches/0/patch/value";
            rename(filter, cluster, "connect_timeout", "connection_timeout")
        },
        "connection_timeout",
    )
}

#[test]
fn envoy_refuses_a_misspelt_field_of_the_replies() -> Result<()> {
    check_refused(
        |filter| {
            let replies = "/spec/configPatches/2/patch/value/typed_config/local_reply_config";
            rename(filter, replies, "mappers", "mapper")
        },
        "mapper",
    )
}

#[test]
fn the_filter_refuses_a_misspelt_field_of_its_document_and_says_which() -> Result<()> {
    check_refused(
        |filter| {
            let text = filter.pointer_mut(&format!("{CONFIG}/configuration/value"))?;
            *text = json!(text.as_str()?.replace("\"audiences\"", "\"audience\""));
            Some(())
        },
        "$.issuers[0].audience: unknown field; did you mean \"audiences\"?",
    )
}

#[test]
fn a_patch_that_is_not_applied_here_is_an_error() -> Result<()> {
    let mut filter = committed()?;
    let operation =
        filter.pointer_mut("/spec/configPatches/0/patch/operation").context("operation")?;
    *operation = json!("MERGE");
    ensure!(patched(&filter, Path::new("suite.wasm")).is_err());
    Ok(())
}

#[test]
fn headers_stay_held_while_a_body_arrives() -> Result<()> {
    let config = committed()?.pointer(CONFIG).cloned().context("config")?;
    assert_eq!(config.get("allow_on_headers_stop_iteration"), Some(&json!(false)));
    assert_eq!(config.get("failure_policy"), Some(&json!("FAIL_RELOAD")));
    Ok(())
}

#[test]
fn every_rendered_document_compiles_without_a_warning() -> Result<()> {
    let plugin = documents::yaml("istio/base/wasmplugin.yaml")?.remove(0);
    let kong = documents::yaml("kong/kong.yaml")?.remove(0);
    let filter = committed()?;
    let of_filter = filter.pointer(&format!("{CONFIG}/configuration/value"));
    for (name, text) in [
        ("wasmplugin", plugin.pointer("/spec/pluginConfig").map(Value::to_string)),
        (
            "kong",
            kong.pointer("/services/0/routes/0/filter_chains/0/filters/0/config")
                .map(Value::to_string),
        ),
        ("envoyfilter", of_filter.and_then(Value::as_str).map(str::to_owned)),
    ] {
        let text = text.with_context(|| format!("{name} holds no document"))?;
        match Suite::compile(&text, Parts::Suite) {
            Ok((_, warnings)) => ensure!(warnings.is_empty(), "{name}: {warnings:?}"),
            Err(mistakes) => anyhow::bail!("{name}: {mistakes:?}"),
        }
    }
    Ok(())
}
