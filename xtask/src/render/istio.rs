//! The documents for Istio: a WasmPlugin (with the sidecar as a service entry), or an EnvoyFilter where the module
//! comes from a volume, or where WasmPlugin cannot say what is needed (back-off of reloads, `vm_id`,
//! `allow_on_headers_stop_iteration`). Apply one of the two.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Document, Image, NAME, SIDECAR_PORT, envoy};

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

/// The plugin for the ingress gateway, before Istio's own authentication; and the sidecar it asks.
pub fn wasm_plugin(document: &Document, image: &Image) -> [Value; 2] {
    let cluster = format!("outbound|{SIDECAR_PORT}||{SIDECAR_HOST}");
    let document = document.clone().with_sidecar(&cluster, SIDECAR_HOST);
    let mut plugin = json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": metadata("gatehouse-suite"),
        "spec": {
            "selector": {"matchLabels": selector()},
            "url": image.url,
            "sha256": image.sha256,
            "imagePullPolicy": "IfNotPresent",
            "type": "HTTP",
            "phase": "AUTHN",
            // Descending within the phase: the headers that others trust are stripped first.
            "priority": 1000,
            "failStrategy": "FAIL_RELOAD",
            // A gateway's listeners face clients only as CLIENT.
            "match": [{"mode": "CLIENT"}],
            "pluginName": NAME,
            "pluginConfig": document.value(),
        },
    });
    // Keys that the document names come from the proxy's own environment, which a Secret fills.
    let from_host = |name: &str| json!({"name": name, "valueFrom": "HOST"});
    let variables: Vec<Value> = document.variables().into_iter().map(from_host).collect();
    if let (Some(spec), false) =
        (plugin.pointer_mut("/spec").and_then(Value::as_object_mut), variables.is_empty())
    {
        spec.insert("vmConfig".to_owned(), json!({ "env": variables }));
    }
    [
        plugin,
        json!({
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
        }),
    ]
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
