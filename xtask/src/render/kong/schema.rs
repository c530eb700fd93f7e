//! The schema by which Kong checks the filter's configuration (JSON Schema draft 4). Says what the filter's own
//! reader says, as far as a schema can; the reader has the last word.

use serde_json::{Value, json};

use super::super::sorted;

const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
/// An address as ngx_wasm_module takes it.
const ADDRESS: &str = "^(unix:/.+|[^/ ]+:[0-9]{1,5})$";
const NAME: &str = "^[A-Za-z0-9_-]+$";
const POINTER: &str = "^/";

/// `suite.meta.json`: without it Kong takes a filter's configuration as a string only, unchecked.
pub fn meta() -> Value {
    sorted(json!({
        "config_schema": {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "object",
            "additionalProperties": false,
            "required": ["host", "signatures", "issuers", "versions"],
            "properties": {
                // The same document with `envoy` here would look for headers and paths in the wrong places.
                "host": {"enum": ["kong"]},
                "signatures": {"enum": ["portable"]},
                "sidecar": object(&["target"], json!({
                    "target": pattern(ADDRESS),
                    "authority": text(),
                    "timeout_ms": integer(1, 10_000),
                    "identity_timeout_ms": integer(1, 10_000),
                    "poll_ms": integer(50, 5000),
                    "max_silence_s": integer(0, 300),
                })),
                "issuers": list(issuer()),
                "sources": object(&[], json!({
                    "cookie": pattern(NAME),
                    "query": pattern(NAME),
                    "forward": {"type": "boolean"},
                })),
                "api_keys": {"type": "boolean"},
                "sessions": {"type": "boolean"},
                "verify_on_public": {"type": "boolean"},
                "versions": object(&["served", "default"], json!({
                    "served": list(text()),
                    "default": text(),
                })),
                "principal_ttl_ms": integer(0, 300_000),
                "limiter": {"anyOf": [
                    {"enum": ["closed", "open"]},
                    object(&["local"], json!({
                        "local": object(&["per_minute"], json!({"per_minute": integer(1, 1_000_000)})),
                    })),
                ]},
                // No `sign`: Kong gives filters no environment to take keys from.
                "context": object(&[], json!({"headers": {
                    "type": "array",
                    "items": {"enum": [
                        "x-tenant-id", "x-tenant-tier", "x-user-id", "x-user-roles", "x-auth-method",
                    ]},
                }})),
                "tenant_host_suffix": pattern(r"^\."),
                "rbac": {"enum": ["enforce", "shadow"]},
            },
        },
    }))
}

fn issuer() -> Value {
    let algorithms: Vec<&str> =
        gatehouse_authn::Algorithm::ALL.iter().map(|known| known.as_str()).collect();
    object(
        &["issuer", "algorithms"],
        json!({
            "issuer": text(),
            "audiences": {"type": "array", "items": text()},
            "algorithms": list(json!({"enum": algorithms})),
            "jwks": {"anyOf": [
                {"enum": ["sidecar"]},
                object(&["inline"], json!({"inline": {"type": "object"}})),
                object(&["target", "authority", "path"], json!({
                    "target": pattern(ADDRESS),
                    "authority": text(),
                    "path": pattern(POINTER),
                    "timeout_ms": integer(1, 10_000),
                    "refresh_s": integer(30, 86_400),
                })),
            ]},
            "secret": text(),
            "leeway_s": integer(0, 300),
            "max_lifetime_s": integer(1, 31_536_000),
            "tenants": {"anyOf": [
                {"enum": ["any", "from_record"]},
                {"type": "array", "items": pattern(UUID)},
            ]},
            "platform": {"type": "boolean"},
            "max_role": {"enum": ["admin", "developer", "operator", "viewer"]},
            "access_tokens_only": {"type": "boolean"},
            "subject_claim": pattern(POINTER),
            "tenant_claim": pattern(POINTER),
            "scope_claim": pattern(POINTER),
            "required_scopes": {"type": "array", "items": text()},
            "roles": {"anyOf": [
                {"enum": ["record"]},
                object(&["claim", "map"], json!({
                    "claim": pattern(POINTER),
                    "map": {"type": "object", "additionalProperties": {
                        "enum": ["admin", "developer", "operator", "viewer"],
                    }},
                })),
            ]},
        }),
    )
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "minItems": 1, "items": items})
}

fn integer(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

/// Draft 4 forbids an empty `required`.
fn object(required: &[&str], properties: Value) -> Value {
    let mut schema =
        json!({"type": "object", "additionalProperties": false, "properties": properties});
    if let (Some(members), false) = (schema.as_object_mut(), required.is_empty()) {
        members.insert("required".to_owned(), json!(required));
    }
    schema
}
