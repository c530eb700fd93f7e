//! The documents for Kong OSS 3.9: a declarative configuration with the filter chain, and the schema by which Kong
//! checks the filter's configuration (JSON Schema draft 4).

use gatehouse_contract::header;
use serde_json::{Value, json};

use super::{Document, NAME, SIDECAR_PORT, envoy, sorted};

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

/// `suite.meta.json`: without it Kong takes a filter's configuration as a string only, unchecked.
/// Says what the filter's own reader says, as far as a schema can; the reader has the last word.
pub fn meta() -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    let list = |items: Value| json!({"type": "array", "minItems": 1, "items": items});
    let integer =
        |least: u64, most: u64| json!({"type": "integer", "minimum": least, "maximum": most});
    let uuid = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
    let issuer = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["issuer", "algorithms"],
        "properties": {
            "issuer": text(),
            "audiences": {"type": "array", "items": text()},
            "algorithms": list(json!({"enum": ["RS256", "RS384", "RS512", "ES256"]})),
            "leeway_s": integer(0, 300),
            "tenants": {"anyOf": [
                {"enum": ["any", "from_record"]},
                {"type": "array", "items": {"type": "string", "pattern": uuid}},
            ]},
            "platform": {"type": "boolean"},
            "max_role": {"enum": ["admin", "developer", "operator", "viewer"]},
            "access_tokens_only": {"type": "boolean"},
            "tenant_claim": {"type": "string", "pattern": "^/"},
        },
    });
    sorted(json!({
        "config_schema": {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "object",
            "additionalProperties": false,
            "required": ["host", "signatures", "sidecar", "issuers", "versions"],
            "properties": {
                // The same document with `envoy` here would look for headers and paths in the wrong places.
                "host": {"enum": ["kong"]},
                "signatures": {"enum": ["portable"]},
                "sidecar": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["target"],
                    "properties": {
                        "target": {"type": "string", "pattern": "^(unix:/.+|[^/ ]+:[0-9]{1,5})$"},
                        "authority": text(),
                        "timeout_ms": integer(1, 10_000),
                        "identity_timeout_ms": integer(1, 10_000),
                    },
                },
                "issuers": list(issuer),
                "versions": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["served", "default"],
                    "properties": {"served": list(text()), "default": text()},
                },
                "principal_ttl_ms": integer(0, 300_000),
                "limiter": {"enum": ["closed", "open"]},
            },
        },
    }))
}
