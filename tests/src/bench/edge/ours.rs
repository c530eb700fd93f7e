//! Our module in the documents that the figures need, and what it is cut to. Knows no Envoy.

use std::path::Path;

use anyhow::{Context, Result};
use gatehouse_xtask::wasm::module;
use serde_json::{Value, json};

use super::{AUDIENCE, GROUP, ISSUER, TENANT};

/// When the version of [`full`] ends: after every run.
const SUNSET: &str = "2099-01-01";
/// What the document sets beside what is the product's.
pub(super) const REQUEST_HEADER: &str = "x-team";
/// The same of responses.
pub(super) const RESPONSE_HEADER: &str = "x-served-by";

/// The variable with the key of the signed context.
pub(super) const CONTEXT_KEY: &str = "GATEHOUSE_CONTEXT_KEY";

/// Callbacks after the request's headers: a module without them is not asked again.
const LATER: &[&str] = &[
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
];

/// Writes the module of `suite` without its later callbacks to `to`.
pub(super) fn request_phase(suite: &Path, to: &Path) -> Result<()> {
    let whole = std::fs::read(suite).with_context(|| format!("reading {}", suite.display()))?;
    let surface = module::surface(&whole)?;
    let keep = surface.exports.iter().map(String::as_str).filter(|name| !LATER.contains(name));
    let cut = module::cut(&whole, &keep.collect(), &std::collections::BTreeMap::new())?;
    std::fs::write(to, cut).with_context(|| format!("writing {}", to.display()))
}

/// No record behind it: keys stand in the document, roles in the token. One header for the tenant, a version in the
/// path, and a limit that this VM counts.
pub(super) fn core(jwks: &Value, algorithm: &str) -> Value {
    json!({
        "host": "envoy",
        "signatures": "native",
        "issuers": [{
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": [algorithm],
            "tenants": [TENANT],
            "max_role": "admin",
            "tenant_claim": "/tenant_id",
            "jwks": {"inline": jwks},
            "roles": {"claim": "/groups", "map": {GROUP: "developer"}},
        }],
        "versions": {"served": ["v1"], "default": "v1"},
        "context": {"headers": ["x-tenant-id"]},
        "limiter": {"local": {"per_minute": 1_000_000}},
    })
}

/// [`full`] where no version ends, and each request names its own in its path.
pub(super) fn unversioned() -> Value {
    let mut document = full();
    if let Some(versions) = document.get_mut("versions") {
        *versions = json!({"served": ["v1"], "default": "v1"});
    }
    document
}

/// [`full`] that leaves bodies as they are.
pub(super) fn bare_bodies() -> Value {
    let mut document = full();
    if let Some(members) = document.as_object_mut() {
        members.remove("envelope");
    }
    document
}

/// Everything: keys, members and the change feed of the record, every header and a signed context, limits of the sidecar on
/// passes that were taken along.
pub(super) fn full() -> Value {
    json!({
        "host": "envoy",
        "signatures": "native",
        "sidecar": {
            "target": "gatehouse-sidecar",
            "authority": "gatehouse-sidecar",
            // A machine that builds at the same time must not turn slowness into refusals.
            "timeout_ms": 2000,
            "identity_timeout_ms": 5000,
        },
        "issuers": [{
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["RS256"],
            "tenants": "any",
            "platform": true,
            "max_role": "admin",
            "tenant_claim": "/tenant_id",
        }],
        "versions": {
            "served": ["v1", "v2"],
            "default": "v1",
            "lifecycle": [{
                "version": "v1",
                "released": "2024-01-01",
                "deprecated": "2026-01-01",
                "sunset": SUNSET,
                "successor": "v2",
                "guide": "https://docs.greenlang.ai/v2",
            }],
        },
        "cors": {"origins": ["https://app.greenlang.ai"], "credentials": true},
        "transforms": {
            "request": {"headers": [{"set": REQUEST_HEADER, "value": "${tenant}"}]},
            "response": {"headers": [{"set": RESPONSE_HEADER, "value": "gatehouse"}]},
        },
        "envelope": {},
        "access_log": true,
        "context": {"sign": [{"audience": "control-api", "key_env": CONTEXT_KEY}]},
        "limiter": {
            // Whatever the sidecar cannot decide is refused, and voids the run.
            "away": "closed",
            "leases": true,
            "bypass": {"spiffe_ids": ["spiffe://mesh.local/ns/factory/sa/worker"]},
            "failed_authn_per_minute": 60,
        },
    })
}
