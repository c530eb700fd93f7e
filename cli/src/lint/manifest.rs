//! Finds edge documents within manifests of Envoy, Istio and Kong, and what the manifest itself would make of a
//! policy: a module that is skipped when it fails, a header that reaches the upstream. Knows no edge document.

use gatehouse_edge::Host;
use serde_json::Value;

use super::{Embedded, Module, chain::Slot, kong, vm};
use crate::finding::Finding;

/// What one document of a manifest holds.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    pub(super) embedded: Vec<Embedded>,
    pub(super) findings: Vec<Finding>,
    /// Whether anything was found that is judged here, good or bad.
    pub(super) known: bool,
}

/// What `type.googleapis.com` calls Envoy's filter.
const ENVOY_WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

pub(super) fn read(document: usize, root: &Value) -> Manifest {
    let mut manifest = Manifest::default();
    walk(root, "$", &mut |value, path| {
        let member = |name: &str| value.get(name).and_then(Value::as_str);
        if ["@type", "type_url"].iter().any(|name| is_type(member(name), ENVOY_WASM)) {
            let inner = if value.get("@type").is_some() { "config" } else { "value.config" };
            let config = inner.split('.').try_fold(value, |value, name| value.get(name));
            if let Some(config) = config {
                let slot = Slot::of_envoy(document, root, path);
                envoy(document, config, &format!("{path}.{inner}"), slot, &mut manifest);
            }
        } else if member("kind") == Some("WasmPlugin") {
            plugin(document, value, path, "spec", &mut manifest);
        } else if member("kind") == Some("TrafficExtension") {
            plugin(document, value, path, "spec.wasm", &mut manifest);
        } else if let Some(filters) = value.get("filters").and_then(Value::as_array) {
            for (at, filter) in filters.iter().enumerate() {
                chain(document, filter, &format!("{path}.filters[{at}]"), &mut manifest);
            }
        }
    });
    kong::check(root, &mut manifest);
    manifest
}

/// Visits every value and its JSON path.
pub(crate) fn walk(value: &Value, path: &str, visit: &mut dyn FnMut(&Value, &str)) {
    visit(value, path);
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                walk(inner, &format!("{path}.{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                walk(inner, &format!("{path}[{index}]"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(crate) fn is_type(written: Option<&str>, name: &str) -> bool {
    written.is_some_and(|written| written.rsplit('/').next() == Some(name))
}

/// `PluginConfig` of Envoy's Wasm filter.
fn envoy(document: usize, config: &Value, path: &str, slot: Option<Slot>, manifest: &mut Manifest) {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let names = [text("/name"), text("/root_id"), text("/vm_config/vm_id")];
    let code =
        text("/vm_config/code/local/filename").or(text("/vm_config/code/remote/http_uri/uri"));
    let written = config.get("configuration");
    let (inner, at) = match written.and_then(|written| written.get("value")) {
        Some(inner) => (Some(inner), format!("{path}.configuration.value")),
        None => (written, format!("{path}.configuration")),
    };
    let Some(module) = module(names.into_iter().flatten(), code, inner) else { return };
    manifest.known = true;
    let policy = text("/failure_policy");
    if policy == Some("FAIL_OPEN") || config.get("fail_open") == Some(&Value::Bool(true)) {
        let name = if policy.is_some() { "failure_policy" } else { "fail_open" };
        manifest.findings.push(skipped(format!("{path}.{name}"), "FAIL_RELOAD"));
    } else if policy != Some("FAIL_RELOAD") {
        manifest.findings.push(stuck(format!("{path}.failure_policy")));
    }
    let lets = config.get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true));
    let parsed = parsed(inner);
    if let (Some((name, cause)), false) = (waits(module, &parsed), lets) {
        let mend = match name {
            HOLD => "write true, or \"hold_headers\": false into the document",
            _ => "write true, or \"on_broken\": \"pass\" into the document",
        };
        let at = format!("{path}.allow_on_headers_stop_iteration");
        manifest.findings.push(Finding::mistake(at, cause, mend));
    }
    vm::envoy(config, path, module, &parsed, &mut manifest.findings);
    embed(document, inner, at, module, (Host::Envoy, slot), manifest);
}

/// Istio's WasmPlugin, or its TrafficExtension, which says the same of a module one level deeper.
fn plugin(document: usize, value: &Value, path: &str, within: &str, manifest: &mut Manifest) {
    let below = format!("/{}", within.replace('.', "/"));
    let Some(spec) = value.pointer(&below) else { return };
    let text = |name: &str| spec.get(name).and_then(Value::as_str);
    let config = spec.get("pluginConfig");
    let (root, path) = (path, format!("{path}.{within}"));
    let Some(module) = module(text("pluginName").into_iter(), text("url"), config) else {
        return;
    };
    manifest.known = true;
    match text("failStrategy") {
        Some("FAIL_OPEN") => {
            manifest.findings.push(skipped(format!("{path}.failStrategy"), "FAIL_RELOAD"));
        }
        Some("FAIL_RELOAD") => {}
        _ => manifest.findings.push(stuck(format!("{path}.failStrategy"))),
    }
    if text("type") == Some("NETWORK") {
        let at = format!("{path}.type");
        manifest.findings.push(Finding::mistake(at, "the module reads HTTP", "write HTTP"));
    }
    let parsed = parsed(config);
    if let Some((name, cause)) = waits(module, &parsed) {
        // Neither of the two can say `allow_on_headers_stop_iteration`.
        let word = if name == HOLD { "false" } else { "\"pass\"" };
        let mend =
            format!("write {word}, or use an EnvoyFilter with allow_on_headers_stop_iteration");
        let at = format!("{path}.pluginConfig.{name}");
        manifest.findings.push(Finding::mistake(at, cause, &mend));
    }
    vm::istio(spec, &path, module, &parsed, &mut manifest.findings);
    let slot = Slot::of_istio(value);
    if let Some(found) = slot.as_ref().and_then(|slot| slot.before_istio(module, value, root)) {
        manifest.findings.push(found);
    }
    let at = format!("{path}.pluginConfig");
    embed(document, config, at, module, (Host::Envoy, slot), manifest);
}

/// One filter of a chain of Kong's.
fn chain(document: usize, filter: &Value, path: &str, manifest: &mut Manifest) {
    let Some(name) = filter.get("name").and_then(Value::as_str) else { return };
    let config = filter.get("config");
    let Some(module) = module([name].into_iter(), None, config) else { return };
    manifest.known = true;
    embed(document, config, format!("{path}.config"), module, (Host::Kong, None), manifest);
}

fn embed(
    document: usize,
    config: Option<&Value>,
    at: String,
    module: Module,
    (host, slot): (Host, Option<Slot>),
    manifest: &mut Manifest,
) {
    let (text, quoted) = match config {
        Some(Value::String(text)) => (text.clone(), true),
        Some(config) => (config.to_string(), false),
        None => ("{}".to_owned(), false),
    };
    let host = Some(host);
    manifest.embedded.push(Embedded { document, at, text, quoted, module, host, slot });
}

/// Which module of ours it is, by its name, its file, or what it is given.
fn module<'n>(
    mut names: impl Iterator<Item = &'n str>,
    code: Option<&str>,
    config: Option<&Value>,
) -> Option<Module> {
    let file = code.and_then(|code| code.rsplit('/').next()).map(|name| {
        let end = name.find(['.', ':', '@']).unwrap_or(name.len());
        name.get(..end).unwrap_or(name)
    });
    let by_code = file.and_then(Module::named);
    let ours = code.is_some_and(|code| code.contains("gatehouse"));
    let by_name = names.find_map(Module::named);
    let known = ["issuers", "signatures", "principal_ttl_ms"];
    let by_config = match config {
        Some(Value::String(text)) => known.iter().any(|name| text.contains(name)),
        Some(config) => known.iter().any(|name| config.get(name).is_some()),
        None => false,
    };
    by_name.or(by_code).or((ours || by_config).then_some(Module::Suite))
}

/// The document as a value, however it is embedded; what is none is nothing here, and the compiler says so.
fn parsed(config: Option<&Value>) -> Value {
    match config {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(config) => config.clone(),
        None => Value::Null,
    }
}

const HOLD: &str = "hold_headers";

/// Where a document has headers wait for their bodies, and what comes of it where the host does not let them come.
fn waits(module: Module, document: &Value) -> Option<(&'static str, &'static str)> {
    let refuses = document.pointer("/envelope/on_broken").and_then(Value::as_str) == Some("refuse");
    match module {
        Module::Validate => (document.get(HOLD) == Some(&Value::Bool(true))).then_some((
            HOLD,
            "a body does not come here while its headers wait, and the request waits for ever",
        )),
        Module::Suite | Module::Transform => refuses.then_some((
            "envelope.on_broken",
            "an answer's body does not come here while its headers wait, and the client waits for ever",
        )),
        Module::Auth | Module::Version | Module::Ratelimit => None,
    }
}

fn skipped(path: String, mend: &str) -> Finding {
    let cause = "when the module fails, requests pass without any policy";
    Finding::mistake(path, cause, &format!("write {mend}"))
}

fn stuck(path: String) -> Finding {
    let cause = "a module that failed once refuses every request until the proxy is restarted";
    Finding::warning(path, cause, "write FAIL_RELOAD")
}
