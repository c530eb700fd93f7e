//! What a role may do, and which versions there are.

use anyhow::Result;
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{http::Request, world::World};
use serde_json::json;

use super::{AGENTS, refusal, request};

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
