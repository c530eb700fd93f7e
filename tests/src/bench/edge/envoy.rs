//! One Envoy with a listener per chain, each with an upstream of its own inside that says which headers came.
//! Knows filters as opaque documents.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use gatehouse_xtask::render::envoy::{cluster, sidecar_cluster};
use serde_json::{Value, json};

use super::native;
use crate::{
    bench::{cpu, load::END},
    env,
    process::Process,
    wait,
};

/// A listener and what its requests pass through.
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) filters: Vec<Value>,
    /// Whether the connection manager makes request ids, as it does unless told otherwise.
    pub(super) request_ids: bool,
    /// A server behind it; `None`: Envoy answers by itself with what it was asked.
    pub(super) upstream: Option<SocketAddr>,
}

impl Chain {
    /// Before Envoy's own answer.
    pub(super) fn new(name: &'static str, filters: Vec<Value>, request_ids: bool) -> Self {
        Self { name, filters, request_ids, upstream: None }
    }
}

/// The module under a document, with a VM of its own.
pub(super) fn wasm(name: &str, module: &Path, document: &Value, environment: &Value) -> Value {
    json!({
        "name": format!("gatehouse.{name}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": "",
                "failure_policy": "FAIL_RELOAD",
                "allow_on_headers_stop_iteration": false,
                "vm_config": {
                    "vm_id": name,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                    "environment_variables": {"key_values": environment},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": document.to_string(),
                },
            },
        },
    })
}

/// The running Envoy.
pub(super) struct Gateway {
    pub(super) process: Process,
    listeners: Vec<(&'static str, SocketAddr)>,
    admin: SocketAddr,
}

impl Gateway {
    /// Starts it with one worker, on `core`. The upstream echoes the values of `echoed`.
    pub(super) fn start(
        dir: &Path,
        chains: &[Chain],
        echoed: &[&str],
        sidecar: SocketAddr,
        (core, back): (usize, usize),
    ) -> Result<Self> {
        let mut listeners = Vec::new();
        let mut documents = Vec::new();
        let mut clusters = vec![sidecar_cluster("gatehouse-sidecar", sidecar)];
        clusters
            .extend(chains.iter().filter_map(|chain| Some(cluster(chain.name, chain.upstream?))));
        for chain in chains {
            let address = wait::address()?;
            listeners.push((chain.name, address));
            documents.push(listener(chain, address, echoed));
        }
        let admin = wait::address()?;
        let bootstrap = json!({
            "admin": {"address": socket(admin)},
            "node": {"id": "bench", "cluster": "bench"},
            "static_resources": {
                "listeners": documents,
                "clusters": clusters,
            },
        });
        let file: PathBuf = dir.join("envoy.json");
        std::fs::write(&file, bootstrap.to_string())?;
        let mut command = Command::new(env::path(env::ENVOY)?);
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ]);
        let mut process = cpu::on(core, back, || Process::start("envoy", dir, command))?;
        let ready = format!("http://{admin}/ready");
        process.wait_ready(|| wait::is_ok(&ready))?;
        Ok(Self { process, listeners, admin })
    }

    /// Where a chain listens.
    pub(super) fn address(&self, name: &str) -> Result<SocketAddr> {
        let found = self.listeners.iter().find(|(chain, _)| *chain == name);
        found.map(|(_, address)| *address).with_context(|| format!("no listener {name}"))
    }

    /// What the modules have counted under the names that end so, up to their last tick.
    pub(super) fn count(&self, name: &str) -> Result<u64> {
        let url = format!("http://{}/stats?format=json&usedonly&filter={name}$", self.admin);
        let stats: Value = ureq::get(&url).call()?.body_mut().read_json()?;
        let all = stats.get("stats").and_then(Value::as_array).context("no stats")?;
        Ok(all.iter().filter_map(|stat| stat.get("value")?.as_u64()).sum())
    }
}

fn listener(chain: &Chain, address: SocketAddr, echoed: &[&str]) -> Value {
    let lines: Vec<String> =
        echoed.iter().map(|name| format!("{name}: %REQ({name}):200%")).collect();
    let format = format!("{}{END}", lines.join("\n"));
    let mut route = match chain.upstream {
        Some(_) => json!({"match": {"prefix": "/"}, "route": {"cluster": chain.name}}),
        None => json!({
            "match": {"prefix": "/"},
            "direct_response": {
                "status": 200,
                "body_format": {"text_format_source": {"inline_string": format}},
            },
        }),
    };
    if let (true, Some(members)) = (chain.filters.contains(&native::cors()), route.as_object_mut())
    {
        members.insert("typed_per_filter_config".to_owned(), native::cors_policy());
    }
    let mut filters = chain.filters.clone();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    json!({
        "name": chain.name,
        "address": socket(address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": chain.name,
                "use_remote_address": true,
                "generate_request_id": chain.request_ids,
                "route_config": {
                    "name": chain.name,
                    "virtual_hosts": [{"name": "echo", "domains": ["*"], "routes": [route]}],
                },
                "http_filters": filters,
            },
        }]}],
    })
}

fn socket(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}
