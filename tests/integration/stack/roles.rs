//! What a role may do, and which versions there are.

use std::time::Duration;

use anyhow::Result;
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{http::Request, wait, world::World};
use serde_json::json;

use super::{AGENTS, refusal, request};

const UNVERSIONED: &str = "/api/registry/agents";

pub fn a_viewer_may_not_create(world: &World) -> Result<()> {
    let tenant = world.tenant(Tier::Enterprise)?;
    let executions = "/api/v1/runtime/executions";
    let table = [
        (Role::Viewer, "GET", AGENTS, "200"),
        (Role::Viewer, "POST", AGENTS, "403 permission_denied"),
        (Role::Operator, "POST", AGENTS, "403 permission_denied"),
        (Role::Developer, "POST", AGENTS, "201"),
        (Role::Viewer, "POST", executions, "403 permission_denied"),
        (Role::Operator, "POST", executions, "404 not_found"),
        (Role::Admin, "POST", "/api/v1/factory/tenants", "403 permission_denied"),
        (Role::Admin, "POST", "/api/v1/factory/signing-keys", "403 permission_denied"),
        (Role::Admin, "GET", "/api/v1/nothing", "404 not_found"),
        (Role::Admin, "PUT", AGENTS, "405 method_not_allowed"),
    ];
    for role in Role::ALL {
        let token = world.token(&world.client(&tenant, *role)?)?;
        for (_, method, path, expected) in table.iter().filter(|row| row.0 == *role) {
            let (request, id) = request(method, path);
            let body = if *path == AGENTS {
                json!({"name": "fuel"})
            } else {
                json!({"agent": "none", "version": "1.0.0", "input": {}})
            };
            let mut request = request.bearer(&token);
            if *method != "GET" {
                request = request.json(&body);
            }
            let answer = request.send(world.gateway)?;
            let got = match answer.status()? {
                status @ 200..=299 => status.to_string(),
                _ => refusal(&answer),
            };
            assert_eq!(got, *expected, "{role} {method} {path}");
            if expected.starts_with("403") {
                assert_eq!(world.upstream_saw(&id).len(), 0, "{role} {method} {path}");
                assert_eq!(answer.headers.all("www-authenticate"), [""; 0]);
            }
        }
    }
    Ok(())
}

pub fn versions_are_routed_or_named(world: &World) -> Result<()> {
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Viewer)?;
    for path in ["/api/v9/registry/agents", "/api/v10/registry/agents", "/api/v01/x", "/api/V1/x"] {
        for request in [Request::new("GET", path), Request::new("GET", path).bearer(&token)] {
            let answer = request.send(world.gateway)?;
            if path == "/api/V1/x" && answer.status()? == 401 {
                continue;
            }
            let got = refusal(&answer);
            assert!(
                got == "404 version_unknown" || (path == "/api/V1/x" && got == "404 not_found"),
                "{path}: {got}"
            );
            if got == "404 version_unknown" {
                assert_eq!(answer.json()?["supported"], json!(["v1"]), "{path}");
            }
        }
    }
    let answer = Request::new("GET", AGENTS).bearer(&token).send(world.gateway)?;
    assert_eq!((answer.status()?, answer.header("api-version").as_str()), (200, "v1"));
    Ok(())
}

/// Another pin is in force without a restart and without another token: through the control API, its outbox, the feed and the
/// sidecar, to what each worker remembers of the caller. How soon, `cargo xtask bench revocation` measures of the same way.
pub fn v5_another_pin_reaches_the_gateway_and_goes_again(world: &World) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (tenant, _, token) = world.caller(Tier::Enterprise, Role::Admin)?;
    let path = format!("/api/v1/factory/tenants/{}/version-pin", tenant.id);
    // A pin to what is not served is none, and counted where it is met.
    let met = || -> Result<bool> {
        let count = || world.envoy.stat("wasmcustom.gatehouse_version_pin_not_served");
        let before = count()?;
        let answer = Request::new("GET", UNVERSIONED).bearer(&token).send(world.gateway)?;
        assert_eq!((answer.status()?, answer.header("api-version").as_str()), (200, "v1"));
        Ok(count()? > before)
    };
    assert!(!met()?);
    let change = |method: &str| -> Result<Request> {
        let shown = Request::new("GET", &path).bearer(&token).send(world.gateway)?;
        let tag = shown.header("etag");
        Ok(Request::new(method, &path).bearer(&token).header("If-Match", &tag))
    };
    let answer = change("PUT")?.json(&json!({"version": "v9"})).send(world.gateway)?;
    assert_eq!(answer.status()?, 200, "{answer:?}");
    wait::until("the pin at the gateway", PATIENCE, || Ok(met()?.then_some(())))?;
    let answer = change("DELETE")?.send(world.gateway)?;
    assert_eq!(answer.status()?, 204, "{answer:?}");
    // Both workers: one that still had it would meet it within so many connections.
    wait::until("the default at the gateway", PATIENCE, || {
        Ok((0..16).map(|_| met()).collect::<Result<Vec<_>>>()?.iter().all(|met| !met).then_some(()))
    })
}
