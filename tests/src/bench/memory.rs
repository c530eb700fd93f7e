//! Whether a VM's memory stays where the first filling of its token cache left it: Wasm memory grows and never
//! shrinks, so whatever leaks shows. Knows nothing of what is kept.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use serde_json::json;

use super::signer::Signer;
use crate::vm::{Filter, Headers, Standing, Surroundings, Vm};

/// More than the cache holds (4096): each filling replaces every entry.
const FILL: usize = 5000;
const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const ISSUER: &str = "https://idp.example";
const AUDIENCE: &str = "https://api.greenlang.local";
/// Seconds since the epoch.
const NOW_S: u64 = 1_800_000_000;

/// The VM's memory after `more` further fillings with ES256 tokens that it has never seen, ÷ after the first.
pub fn ratio(more: usize) -> Result<f64> {
    let key = Signer::es256()?;
    let around = Surroundings::at(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S));
    let mut vm = Vm::start(Filter::suite()?, &around)?;
    let document = json!({
        "host": "envoy",
        "signatures": "native",
        "issuers": [{
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["ES256"],
            "tenants": [TENANT],
            "max_role": "admin",
            "jwks": {"inline": key.jwks()?},
            "roles": {"claim": "/groups", "map": {"g": "developer"}},
        }],
        "versions": {"served": ["v1"], "default": "v1"},
        "limiter": {"local": {"per_minute": 1_000_000}},
    });
    ensure!(vm.configure(&document.to_string())?, "refused: {:?}", vm.take_log());
    let mut first = None;
    for filling in 0..=more {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "subject", "tenant_id": TENANT, "groups": ["g"],
            "iat": NOW_S - 10, "exp": NOW_S + 3000, "filling": filling,
        });
        for token in key.tokens(&claims, FILL)? {
            pass(&mut vm, &token)?;
        }
        first = first.or(Some(vm.memory_bytes()));
        vm.take_log();
    }
    // Memories are counted in pages: these numbers are exact.
    Ok(vm.memory_bytes() as f64 / first.unwrap_or(1) as f64)
}

fn pass(vm: &mut Vm, token: &str) -> Result<()> {
    let bearer = format!("Bearer {token}");
    let headers = [
        (":authority", "api.greenlang.local"),
        (":method", "GET"),
        (":path", "/api/v1/registry/agents"),
        (":scheme", "http"),
        ("authorization", bearer.as_str()),
    ];
    let stream = vm.request(Headers::new(headers), true)?;
    let standing = vm.standing(stream)?;
    ensure!(matches!(standing, Standing::Forwarded(_)), "{standing:?}");
    vm.respond(stream, Headers::new([(":status", "200")]))?;
    vm.finish(stream)
}
