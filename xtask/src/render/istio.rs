//! The documents for Istio: a WasmPlugin (with the sidecar as a service entry), or an EnvoyFilter where the module
//! comes from a volume, or where WasmPlugin cannot say what is needed (back-off of reloads, `vm_id`,
//! `allow_on_headers_stop_iteration`), or a chain of single modules. Apply one of them.

use std::{cmp::Reverse, net::SocketAddr};

use serde_json::{Value, json};

use super::{Document, Images, NAME, SIDECAR_PORT, envoy};

const NAMESPACE: &str = "greenlang";
/// The sidecar's name inside the mesh; it resolves to the pod's own loopback.
const SIDECAR_HOST: &str = "sidecar.gatehouse.internal";
/// Where the EnvoyFilter variant finds the module: a volume of the gateway's pods.
pub const MODULE: &str = "/var/lib/gatehouse/suite.wasm";

pub(super) fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": "gatehouse", "app.kubernetes.io/component": "gateway"},
    })
}

pub(super) fn selector() -> Value {
    json!({"istio": "ingressgateway"})
}

/// A module as a WasmPlugin of the ingress gateway.
pub(super) struct Plugin<'d> {
    pub(super) module: &'d str,
    /// Descending within the phase.
    pub(super) priority: i32,
    pub(super) config: Value,
    /// Keys that the document names come from the proxy's own environment, which a Secret fills.
    pub(super) variables: Vec<&'d str>,
}

/// Before Istio's own authentication: the headers that others trust are stripped first.
pub(super) fn plugin(plugin: Plugin<'_>, images: &Images) -> Value {
    let image = images.of(plugin.module);
    let mut rendered = json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": metadata(&format!("gatehouse-{}", plugin.module)),
        "spec": {
            "selector": {"matchLabels": selector()},
            "url": image.url,
            "sha256": image.sha256,
            "imagePullPolicy": "IfNotPresent",
            "type": "HTTP",
            "phase": PHASES[0],
            "priority": plugin.priority,
            "failStrategy": "FAIL_RELOAD",
            // A gateway's listeners face clients only as CLIENT.
            "match": [{"mode": "CLIENT"}],
            "pluginName": plugin.module,
            "pluginConfig": plugin.config,
        },
    });
    let from_host = |name: &str| json!({"name": name, "valueFrom": "HOST"});
    let variables: Vec<Value> = plugin.variables.into_iter().map(from_host).collect();
    if let (Some(spec), false) =
        (rendered.pointer_mut("/spec").and_then(Value::as_object_mut), variables.is_empty())
    {
        spec.insert("vmConfig".to_owned(), json!({ "env": variables }));
    }
    rendered
}

/// The same policy with the sidecar as the mesh names it; the name; and what no WasmPlugin can say: that Envoy's own
/// refusals are problems, too.
fn meshed(document: &Document) -> (Document, [Value; 2]) {
    let cluster = format!("outbound|{SIDECAR_PORT}||{SIDECAR_HOST}");
    let entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": metadata("gatehouse-sidecar"),
        "spec": {
            "hosts": [SIDECAR_HOST],
            "exportTo": ["."],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": SIDECAR_PORT, "name": "http2", "protocol": "HTTP2"}],
            "endpoints": [{"address": "127.0.0.1"}],
        },
    });
    let refusals = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata("gatehouse-replies"),
        "spec": {
            "workloadSelector": {"labels": selector()},
            "priority": 10,
            "configPatches": [replies()],
        },
    });
    (document.clone().with_sidecar(&cluster, SIDECAR_HOST), [entry, refusals])
}

/// The plugin of the fused module, and what goes with it.
pub fn wasm_plugin(document: &Document, images: &Images) -> [Value; 3] {
    let (document, [sidecar, refusals]) = meshed(document);
    let (config, variables) = (document.value().clone(), document.variables());
    [plugin(Plugin { module: NAME, priority: 1000, config, variables }, images), sidecar, refusals]
}

/// The single modules in their order (ADR 0030), with room between them for others' plugins.
const CHAIN: [(&str, i32); 4] =
    [("version", 1040), ("auth", 1030), ("ratelimit", 1020), ("transform", 1010)];

/// A plugin for each single module instead of the fused one, and what goes with them. All have the one document.
pub fn chain(document: &Document, images: &Images) -> Vec<Value> {
    let (document, more) = meshed(document);
    let plugins = CHAIN.iter().map(|(module, priority)| {
        // Who calls is told upstreams by the one module that knows it.
        let variables = if *module == "auth" { document.variables() } else { Vec::new() };
        let config = document.value().clone();
        plugin(Plugin { module, priority: *priority, config, variables }, images)
    });
    plugins.chain(more).collect()
}

/// Where Istio has the phases of plugins. What names none stands behind them.
const PHASES: [&str; 3] = ["AUTHN", "AUTHZ", "STATS"];

/// The plugins among `documents` in the order in which Istio puts them into a gateway's chain: by phase, then by
/// descending priority (one without any comes last), then by name.
pub fn in_order(documents: &[Value]) -> Vec<&Value> {
    let text = |plugin: &Value, pointer: &str| {
        plugin.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut plugins: Vec<&Value> =
        documents.iter().filter(|document| text(document, "/kind") == "WasmPlugin").collect();
    plugins.sort_by_cached_key(|plugin| {
        let phase = text(plugin, "/spec/phase");
        let phase = PHASES.iter().position(|name| *name == phase).unwrap_or(PHASES.len());
        let priority = plugin.pointer("/spec/priority").and_then(Value::as_i64);
        let name =
            format!("{}.{}", text(plugin, "/metadata/name"), text(plugin, "/metadata/namespace"));
        (phase, Reverse(priority), name)
    });
    plugins
}

/// A plugin as the filter that Istio makes of it; `module` is the file that its image holds.
pub fn as_filter(plugin: &Value, module: &str) -> Value {
    let spec = |name: &str| plugin.pointer(&format!("/spec/{name}")).cloned().unwrap_or_default();
    let variables = spec("vmConfig").get("env").and_then(Value::as_array).map(|env| {
        let names: Vec<&Value> = env.iter().filter_map(|entry| entry.get("name")).collect();
        json!({ "host_env_keys": names })
    });
    let mut config = json!({
        "name": plugin.pointer("/metadata/name").cloned().unwrap_or_default(),
        "root_id": spec("pluginName"),
        "failure_policy": spec("failStrategy"),
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": module}},
        },
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": spec("pluginConfig").to_string(),
        },
    });
    if let (Some(vm), Some(variables)) =
        (config.pointer_mut("/vm_config").and_then(Value::as_object_mut), variables)
    {
        vm.insert("environment_variables".to_owned(), variables);
    }
    json!({
        "name": plugin.pointer("/metadata/name").cloned().unwrap_or_default(),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": config,
        },
    })
}

/// Envoy's own refusals as problems.
fn replies() -> Value {
    const MANAGER: &str = "envoy.filters.network.http_connection_manager";
    json!({
        "applyTo": "NETWORK_FILTER",
        "match": {
            "context": "GATEWAY",
            "proxy": {"proxyVersion": PROXY_VERSION},
            "listener": {"filterChain": {"filter": {"name": MANAGER}}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "local_reply_config": envoy::local_replies(),
            }},
        },
    })
}

/// The place of a filter in the gateway's chain.
pub(super) fn before_router() -> Value {
    json!({
        "context": "GATEWAY",
        "proxy": {"proxyVersion": PROXY_VERSION},
        "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"},
        }}},
    })
}

/// The same filter by patch.
pub fn envoy_filter(document: &Document) -> Value {
    let sidecar = SocketAddr::from(([127, 0, 0, 1], SIDECAR_PORT));
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata("gatehouse-suite"),
        "spec": {
            "workloadSelector": {"labels": selector()},
            "priority": 10,
            "configPatches": [
                {
                    "applyTo": "CLUSTER",
                    "match": {"context": "GATEWAY", "proxy": {"proxyVersion": PROXY_VERSION}},
                    "patch": {
                        "operation": "ADD",
                        "value": envoy::sidecar_cluster(document.sidecar_target(), sidecar),
                    },
                },
                {
                    "applyTo": "HTTP_FILTER",
                    "match": before_router(),
                    "patch": {
                        "operation": "INSERT_BEFORE",
                        "value": envoy::filter(document, MODULE),
                    },
                },
                replies(),
            ],
        },
    })
}

/// The log format's name in the mesh's configuration.
const LOGS: &str = "gatehouse-json";

/// The gateway's access log in our format: the choice of a provider, which [`mesh_values`] defines.
pub fn telemetry() -> Value {
    json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": metadata("gatehouse-logs"),
        "spec": {
            "selector": {"matchLabels": selector()},
            "accessLogging": [{"providers": [{"name": LOGS}]}],
        },
    })
}

/// Helm values of `istiod` that define the format. No format of Istio's own may be on beside it: they log the query.
pub fn mesh_values() -> Value {
    json!({"meshConfig": {"extensionProviders": [{
        "name": LOGS,
        "envoyFileAccessLog": {
            "path": "/dev/stdout",
            "omitEmptyValues": true,
            "logFormat": {"labels": envoy::log_members()},
        },
    }]}})
}

/// `FAIL_RELOAD` and the two fields above need Envoy 1.33 (Istio 1.25); older proxies must not get the patch.
const PROXY_VERSION: &str = r"^1\.(2[5-9]|[3-9][0-9]).*";
