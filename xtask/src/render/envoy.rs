//! The Envoy bootstrap of `cargo xtask up` and of the tests, and the filter entry that EnvoyFilter shares with it.
//! Knows Envoy's configuration; the filter's is opaque text here.

mod replies;

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

pub use self::replies::local_replies;
use super::{Document, NAME, sorted};

/// What leads to the control API. Nothing else is routed, `/internal` least of all.
pub const ROUTED: &[&str] = &["/api/", "/oauth2/", "/.well-known/"];

/// Where a bootstrap has its connection manager.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// An instance of the gateway.
#[derive(Debug, Clone)]
pub struct Gateway<'a> {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Envoy's own pages.
    pub admin: SocketAddr,
    /// The only upstream.
    pub control_api: SocketAddr,
    /// What the filter asks.
    pub sidecar: SocketAddr,
    /// The module.
    pub suite: &'a Path,
    /// The filter's configuration.
    pub document: &'a Document,
}

/// The bootstrap, as JSON (Envoy reads it from a `.json` file).
pub fn bootstrap(gateway: &Gateway<'_>) -> Value {
    let suite = filter(gateway.document, &gateway.suite.display().to_string());
    let sidecar = sidecar_cluster(gateway.document.sidecar_target(), gateway.sidecar);
    let mut bootstrap = with(gateway, vec![suite], vec![sidecar]);
    if let Some(manager) = bootstrap.pointer_mut(MANAGER).and_then(Value::as_object_mut) {
        manager.insert("local_reply_config".to_owned(), local_replies());
    }
    sorted(bootstrap)
}

/// The same proxy as a mesh has it before our documents: it routes, and nothing of ours is in it.
pub fn bare(gateway: &Gateway<'_>) -> Value {
    with(gateway, Vec::new(), Vec::new())
}

fn with(gateway: &Gateway<'_>, filters: Vec<Value>, clusters: Vec<Value>) -> Value {
    let routes: Vec<Value> = ROUTED
        .iter()
        .map(|prefix| {
            json!({
                "match": {"prefix": prefix},
                "route": {"cluster": "control-api", "timeout": "30s"},
            })
        })
        .collect();
    let mut filters = filters;
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let mut clusters = clusters;
    clusters.push(cluster("control-api", gateway.control_api));
    sorted(json!({
        "admin": {"address": address(gateway.admin)},
        "node": {"id": "gatehouse", "cluster": "gatehouse"},
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": address(gateway.listen),
                "per_connection_buffer_limit_bytes": 1_048_576,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "gateway",
                        "use_remote_address": true,
                        // The filter keeps a client's sound id or makes one (X10); Envoy would replace it at an edge.
                        "generate_request_id": false,
                        "preserve_external_request_id": true,
                        "request_headers_timeout": "10s",
                        "stream_idle_timeout": "60s",
                        "access_log": [access_log()],
                        "route_config": {
                            "name": "gateway",
                            "virtual_hosts": [{"name": "api", "domains": ["*"], "routes": routes}],
                        },
                        "http_filters": filters,
                    },
                }]}],
            }],
            "clusters": clusters,
        },
    }))
}

/// The filter, as an entry of `http_filters`.
///
/// Keys that the document names come from the proxy's own environment, which a Secret fills.
pub fn filter(document: &Document, module: &str) -> Value {
    wasm(NAME, module, &document.text(), document.holds_responses(), &document.variables())
}

/// A module with the text of its document.
///
/// `FAIL_RELOAD`: a trap costs the requests in flight, not the worker.
///
/// `allow_on_headers_stop_iteration` stays off as long as no headers wait for their body (`holds`): the host then holds
/// everything behind held headers by itself, and does not depend on the module's body callback for it.
pub(super) fn wasm(name: &str, module: &str, text: &str, holds: bool, variables: &[&str]) -> Value {
    let mut vm = json!({
        "vm_id": name,
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": module}},
    });
    if let (Some(members), false) = (vm.as_object_mut(), variables.is_empty()) {
        let environment = json!({ "host_env_keys": variables });
        members.insert("environment_variables".to_owned(), environment);
    }
    json!({
        "name": format!("gatehouse.{name}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": "",
                "failure_policy": "FAIL_RELOAD",
                "reload_config": {"backoff": {"base_interval": "1s"}},
                "allow_on_headers_stop_iteration": holds,
                "vm_config": vm,
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": text,
                },
            },
        },
    })
}

/// A cluster with one fixed endpoint.
pub fn cluster(name: &str, endpoint: SocketAddr) -> Value {
    // Services end a connection a minute after its last answer: who sends a request into that end gets 503.
    let options = json!({
        "common_http_protocol_options": {"idle_timeout": "30s"},
        "explicit_http_config": {"http_protocol_options": {}},
    });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "typed_extension_protocol_options": http_options(options),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(endpoint)}}]}],
        },
    })
}

/// The sidecar's cluster: HTTP/2 without TLS. The questions of all requests of a worker share a connection, and those
/// of one turn a write. A time-out does not end a connection as it does with HTTP/1.1: pings find one that is dead.
pub fn sidecar_cluster(name: &str, endpoint: SocketAddr) -> Value {
    let mut cluster = cluster(name, endpoint);
    if let Some(members) = cluster.as_object_mut() {
        let options = json!({"explicit_http_config": {"http2_protocol_options": {
            "connection_keepalive": {"interval": "5s", "timeout": "1s"},
        }}});
        members.insert("typed_extension_protocol_options".to_owned(), http_options(options));
    }
    cluster
}

fn http_options(mut options: Value) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    if let Some(members) = options.as_object_mut() {
        members.insert("@type".to_owned(), format!("type.googleapis.com/{OPTIONS}").into());
    }
    json!({ OPTIONS: options })
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// One JSON line per request. No query and no credential: the path's query may hold a token.
fn access_log() -> Value {
    json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"omit_empty_values": true, "json_format": log_members()},
        },
    })
}

/// What a line of the access log says, for every Envoy. What the filter knows stands in `gatehouse`, where the document
/// says `access_log` (docs/logs.md).
pub fn log_members() -> Value {
    json!({
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "reason": "%FILTER_STATE(wasm.gatehouse_reason:PLAIN)%",
        "gatehouse": "%FILTER_STATE(wasm.gatehouse_log:PLAIN)%",
        // The response has the id that was judged or made; of a refused request the client's own may be anything.
        "request.id": "%RESP(X-REQUEST-ID)%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_SENT%",
    })
}

/// Does to `bootstrap` what Istio does with an EnvoyFilter: `CLUSTER ADD`, `HTTP_FILTER INSERT_BEFORE` and
/// `NETWORK_FILTER MERGE` of what is not there yet.
/// Any other patch is an error: what is not applied here would not be validated.
pub fn apply(bootstrap: &mut Value, envoy_filter: &Value) -> anyhow::Result<()> {
    let patches = envoy_filter
        .pointer("/spec/configPatches")
        .and_then(Value::as_array)
        .context("no spec.configPatches")?;
    for patch in patches {
        let what = (
            patch.get("applyTo").and_then(Value::as_str).unwrap_or_default(),
            patch.pointer("/patch/operation").and_then(Value::as_str).unwrap_or_default(),
        );
        let value = patch.pointer("/patch/value").context("a patch without a value")?.clone();
        match what {
            ("CLUSTER", "ADD") => {
                list(bootstrap, "/static_resources/clusters")?.push(value);
            }
            ("HTTP_FILTER", "INSERT_BEFORE") => {
                let before = patch
                    .pointer("/match/listener/filterChain/filter/subFilter/name")
                    .and_then(Value::as_str)
                    .context("a filter patch that names no filter to stand before")?;
                let filters = list(bootstrap, &format!("{MANAGER}/http_filters"))?;
                let place = filters
                    .iter()
                    .position(|filter| filter.get("name").and_then(Value::as_str) == Some(before));
                filters.insert(place.with_context(|| format!("no filter {before}"))?, value);
            }
            ("NETWORK_FILTER", "MERGE") => {
                let manager = bootstrap.pointer_mut(MANAGER).and_then(Value::as_object_mut);
                let manager = manager.context("the bootstrap has no connection manager")?;
                let more = value.get("typed_config").and_then(Value::as_object);
                for (name, value) in more.context("a merge without a typed_config")? {
                    // Lists and messages would be joined: what is there already is more than is applied here.
                    let before = manager.insert(name.clone(), value.clone());
                    ensure!(before.is_none_or(|it| it == *value), "{name} is there already");
                }
            }
            (to, operation) => bail!("{operation} of {to} cannot be applied here"),
        }
    }
    ensure!(!patches.is_empty(), "no patches");
    Ok(())
}

fn list<'a>(bootstrap: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    bootstrap
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .with_context(|| format!("the bootstrap has no {pointer}"))
}
