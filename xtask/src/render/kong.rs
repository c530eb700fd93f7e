//! The documents for Kong OSS 3.9: a declarative configuration with the filter chain, and the schema by which Kong
//! checks the filter's configuration.

use gatehouse_contract::header;
use serde_json::{Value, json};

use super::{Document, NAME, SIDECAR_PORT, envoy};

mod schema;

pub use schema::meta;

/// The declarative configuration.
///
/// A removal by the filter does not reach the upstream on Kong, and a duplicate survives a replacement, so that
/// `request-transformer` (Lua, before any filter) takes away every header that only we may set.
pub fn declarative(document: &Document) -> Value {
    let sidecar = format!("127.0.0.1:{SIDECAR_PORT}");
    let document = document.clone().for_kong().with_sidecar(&sidecar, &sidecar);
    json!({
        "_format_version": "3.0",
        "services": [{
            "name": "control-api",
            "url": "http://control-api.greenlang.svc:8080",
            "connect_timeout": 5000,
            "read_timeout": 30000,
            "write_timeout": 30000,
            "retries": 0,
            "routes": [{
                "name": "api",
                "paths": envoy::ROUTED,
                "strip_path": false,
                "preserve_host": true,
                "plugins": [
                    {
                        "name": "request-transformer",
                        "config": {"remove": {"headers": header::IDENTITY}},
                    },
                    logs(),
                ],
                "filter_chains": [{
                    "name": "gatehouse",
                    "enabled": true,
                    "filters": [{"name": NAME, "enabled": true, "config": document.value()}],
                }],
            }],
        }],
    })
}

/// One JSON line per request (docs/logs.md). Kong's own members hold the query, cookies and keys: they go, and what is
/// said of a request stands under names of its own, since nobody says in which order the fields are made.
fn logs() -> Value {
    let mut fields = serde_json::Map::new();
    let gone = ["request", "response", "upstream_uri", "client_ip", "route", "service", "consumer"];
    fields.extend(gone.map(|name| (name.to_owned(), json!("return nil"))));
    let said = [
        ("method", "kong.request.get_method()"),
        ("path", "kong.request.get_path()"),
        ("status", "kong.response.get_status()"),
        ("request_id", "kong.response.get_header('x-request-id')"),
        ("gatehouse", "kong.ctx.shared.gatehouse_log"),
    ];
    fields.extend(said.map(|(name, value)| (name.to_owned(), json!(format!("return {value}")))));
    json!({
        "name": "file-log",
        "config": {"path": "/dev/stdout", "custom_fields_by_lua": fields},
    })
}
