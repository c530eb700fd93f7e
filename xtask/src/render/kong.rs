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
                "plugins": [{
                    "name": "request-transformer",
                    "config": {"remove": {"headers": header::IDENTITY}},
                }],
                "filter_chains": [{
                    "name": "gatehouse",
                    "enabled": true,
                    "filters": [{"name": NAME, "enabled": true, "config": document.value()}],
                }],
            }],
        }],
    })
}
