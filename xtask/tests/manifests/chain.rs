//! The chain of single modules that is rendered for Istio: put into the order in which Istio runs it, loaded by real
//! Envoy with the modules that this build made, and each document through its own module's reader.

use anyhow::{Context, Result, ensure};
use gatehouse_edge::{Parts, Suite};
use gatehouse_xtask::render::istio;
use serde_json::{Value, json};

use super::{documents, envoy};

const FILE: &str = "istio/chain/wasmplugins.yaml";
const ROUTED: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

fn name(plugin: &Value) -> Result<&str> {
    plugin.pointer("/spec/pluginName").and_then(Value::as_str).context("no name")
}

/// A proxy with the plugins as Istio puts them before the router.
fn proxy(plugins: &[&Value]) -> Result<Value> {
    let mut bootstrap = envoy::bare()?;
    let filters = bootstrap.pointer_mut(ROUTED).and_then(Value::as_array_mut);
    let filters = filters.context("no filters")?;
    for (at, plugin) in plugins.iter().enumerate() {
        let variable = match name(plugin)? {
            "ratelimit" => "RATE_LIMIT".to_owned(),
            name => name.to_ascii_uppercase(),
        };
        let module = envoy::part(&format!("GATEHOUSE_TEST_{variable}"))?;
        filters.insert(at, istio::as_filter(plugin, &module.display().to_string()));
    }
    Ok(bootstrap)
}

#[test]
fn v12_envoy_loads_the_rendered_chain_in_the_order_of_istio() -> Result<()> {
    let mut documents = documents::yaml(FILE)?;
    // The order is the priorities', not the file's.
    documents.reverse();
    let plugins = istio::in_order(&documents);
    let order: Vec<&str> = plugins.iter().map(|plugin| name(plugin)).collect::<Result<_>>()?;
    ensure!(order == ["version", "auth", "ratelimit", "transform"], "{order:?}");
    let complaint = envoy::validate(&proxy(&plugins)?)?;
    ensure!(complaint.is_none(), "{complaint:?}");
    // It is the modules that read it: each refuses what is not its document.
    for at in 0..plugins.len() {
        let mut broken: Vec<Value> = plugins.iter().map(|plugin| (*plugin).clone()).collect();
        let plugin = broken.get_mut(at).context("a plugin")?;
        let module = name(plugin)?.to_owned();
        *plugin.pointer_mut("/spec/pluginConfig/host").context("a host")? = json!("nginx");
        let complaint = envoy::validate(&proxy(&broken.iter().collect::<Vec<_>>())?)?;
        let complaint = complaint.with_context(|| format!("{module} takes anything"))?;
        ensure!(complaint.contains("$.host"), "{module}: {complaint}");
    }
    Ok(())
}

#[test]
fn v12_each_module_of_the_chain_takes_its_document_without_a_warning() -> Result<()> {
    let documents = documents::yaml(FILE)?;
    for (plugin, parts) in istio::in_order(&documents).into_iter().zip([
        Parts::Version,
        Parts::Auth,
        Parts::RateLimit,
        Parts::Transform,
    ]) {
        let text = plugin.pointer("/spec/pluginConfig").context("no document")?.to_string();
        match Suite::compile(&text, parts) {
            Ok((_, warnings)) => ensure!(warnings.is_empty(), "{parts:?}: {warnings:?}"),
            Err(mistakes) => anyhow::bail!("{parts:?}: {mistakes:?}"),
        }
    }
    Ok(())
}
