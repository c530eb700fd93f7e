//! Who may do what: every route against callers that must not pass, and other tenants' things that do not exist.

use gatehouse_contract::rbac::{Access, Matrix};
use serde_json::{Value, json};

use crate::{
    http::{Answer, send},
    world::World,
};

pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.text
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

/// A path of the route whose ids name nothing.
fn concrete(template: &str) -> String {
    template
        .split('/')
        .map(
            |part| {
                if part.starts_with('{') { "0191d6b0-7c3e-7aaa-8bbb-0123456789ab" } else { part }
            },
        )
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn every_route_of_the_matrix_is_served_and_wants_a_credential_of_the_right_role() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let roles = ["viewer", "operator", "developer", "admin"];
    let mut callers: Vec<(String, String)> =
        roles.iter().map(|role| ((*role).to_owned(), world.member(&tenant, role))).collect();
    callers.push(("platform".to_owned(), world.platform.clone()));
    for route in Matrix::builtin().unwrap().routes() {
        let Access::Held { roles: holders, platform, .. } = &route.access else { continue };
        let path = concrete(&route.template);
        let url = format!("{}{path}", world.service.url);
        let anonymous = send(&route.method, &url, &[], None);
        refused(&anonymous, 401, "credential_missing");
        assert_eq!(anonymous.header("www-authenticate"), Some(r#"Bearer realm="gatehouse""#));
        for (name, token) in &callers {
            let may = match name.parse() {
                Ok(role) => holders.holds(role),
                Err(_) => *platform,
            };
            let answer = world.call(token, &route.method, &path, None);
            let denied = answer.status == 403;
            assert_eq!(denied, !may, "{name} {} {path}: {}", route.method, answer.text);
            if denied {
                refused(&answer, 403, "permission_denied");
            }
            assert_ne!(answer.status, 405, "{} {path} is not served", route.method);
            assert_ne!(answer.status, 500, "{}", answer.text);
        }
    }
}

#[test]
fn a_viewer_creates_no_agent_and_a_developer_does() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let body = || json!({"name": "fuel"});
    let viewer = world.member(&tenant, "viewer");
    refused(&world.post(&viewer, "/api/v1/registry/agents", body()), 403, "permission_denied");
    let developer = world.member(&tenant, "developer");
    assert_eq!(world.post(&developer, "/api/v1/registry/agents", body()).status, 201);
    assert_eq!(world.database.query("SELECT count(*) FROM agents"), "1");
}

#[test]
fn bad_credentials_are_refused_with_a_challenge() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "viewer");
    let url = format!("{}/api/v1/registry/agents", world.service.url);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let unsigned = {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
        let claims = signed.split('.').nth(1).unwrap();
        format!("{}.{claims}.", B64.encode(r#"{"alg":"none"}"#))
    };
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    for (value, status, code) in [
        (format!("Bearer {forged}"), 401, "token_invalid"),
        (format!("Bearer {unsigned}"), 401, "token_invalid"),
        ("Bearer x".to_owned(), 401, "token_invalid"),
        ("Bearer".to_owned(), 401, "token_invalid"),
        ("Basic YTpi".to_owned(), 401, "credential_missing"),
    ] {
        let answer = send("GET", &url, &[("authorization", &value)], None);
        refused(&answer, status, code);
        let challenge = answer.header("www-authenticate").unwrap();
        assert_eq!(challenge.contains("invalid_token"), code == "token_invalid", "{challenge}");
    }
    let bearer = format!("Bearer {token}");
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    refused(&send("GET", &url, &twice, None), 400, "credential_malformed");
    // What a gateway would have set opens nothing and changes nothing.
    let claimed = [("x-tenant-id", tenant.id.as_str()), ("x-user-roles", "admin")];
    refused(&send("GET", &url, &claimed, None), 401, "credential_missing");
    let path = format!("{}/api/v1/registry/agents", world.service.url);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("x-user-roles", "admin"),
    ];
    let answer = send("POST", &path, &headers, Some(r#"{"name":"fuel"}"#));
    refused(&answer, 403, "permission_denied");
}

#[test]
fn another_tenants_things_and_missing_ones_are_one_answer() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (of_a, of_b) = (world.member(&a, "admin"), world.member(&b, "admin"));
    let agent = world.published(&a, &of_a, "fuel");
    let submit = json!({"agent": "fuel", "version": "1.0.0", "input": {}});
    let run = world.post(&of_a, "/api/v1/runtime/executions", submit.clone());
    assert_eq!(run.status, 202, "{}", run.text);
    let run = run.json()["id"].as_str().unwrap().to_owned();
    let nothing = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    let versions = world.get(&of_a, &format!("/api/v1/registry/agents/{agent}/versions"));
    let version = versions.json()["items"][0]["id"].clone();
    let client = || json!({"name": "x", "role": "admin"});
    let user = || json!({"email": "x@example.com", "role": "admin"});
    // Every route within a tenant, whichever tenant's id stands in its path.
    let tenant = "/api/v1/factory/tenants/{tenant}";
    for route in Matrix::builtin().unwrap().routes() {
        let Some(rest) = route.template.strip_prefix(tenant) else { continue };
        let Access::Held { roles, .. } = &route.access else { continue };
        if !roles.holds(gatehouse_contract::Role::Admin) {
            continue;
        }
        let rest = concrete(rest);
        let ask = |id: &str| {
            let path = format!("/api/v1/factory/tenants/{id}{rest}");
            let body = matches!(route.method.as_str(), "POST" | "PATCH" | "PUT").then(|| json!({}));
            world.call(&of_b, &route.method, &path, body)
        };
        let (theirs, missing) = (ask(&a.id), ask(nothing));
        refused(&theirs, 404, "not_found");
        assert_eq!(theirs.body_but_request_id(), missing.body_but_request_id(), "{rest}");
        // Its own tenant is another matter: what is missing there is missing alone.
        let own = ask(&b.id);
        assert!(own.status != 403, "{} {rest}: {}", route.method, own.text);
    }
    for (method, path, id, body) in [
        ("GET", "/api/v1/registry/agents/{}", &agent, None),
        ("DELETE", "/api/v1/registry/agents/{}", &agent, None),
        ("GET", "/api/v1/registry/agents/{}/versions", &agent, None),
        ("GET", "/api/v1/runtime/executions/{}", &run, None),
        ("GET", "/api/v1/factory/tenants/{}", &a.id, None),
        ("POST", "/api/v1/factory/tenants/{}/clients", &a.id, Some(client())),
        ("POST", "/api/v1/factory/tenants/{}/users", &a.id, Some(user())),
    ] {
        let ask = |id: &str| world.call(&of_b, method, &path.replace("{}", id), body.clone());
        let (theirs, missing) = (ask(id), ask(nothing));
        refused(&theirs, 404, "not_found");
        assert_eq!(theirs.body_but_request_id(), missing.body_but_request_id(), "{method} {path}");
        let names = |answer: &Answer| -> Vec<String> {
            answer.headers.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&theirs), names(&missing));
        refused(&ask("not-an-id"), 404, "not_found");
    }
    let by_id = |id: &Value| {
        let body = json!({"agent_version_id": id, "input": {}});
        world.post(&of_b, "/api/v1/runtime/executions", body)
    };
    refused(&by_id(&version), 404, "not_found");
    assert_eq!(by_id(&version).body_but_request_id(), by_id(&json!(nothing)).body_but_request_id());
    refused(&world.post(&of_b, "/api/v1/runtime/executions", submit), 404, "not_found");
    // Nothing of it left a trace, and the owner still has everything.
    assert_eq!(world.get(&of_a, &format!("/api/v1/registry/agents/{agent}")).status, 200);
    assert_eq!(world.get(&of_b, "/api/v1/registry/agents").json()["items"], json!([]));
    assert_eq!(world.get(&of_b, "/api/v1/runtime/executions").json()["items"], json!([]));
}

#[test]
fn acting_for_another_tenant_needs_the_platform_and_a_reason_and_is_audited() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let path = format!("/api/v1/factory/tenants/{}/clients", tenant.id);
    let client = json!({"name": "x", "role": "viewer"});
    refused(&world.post(&world.platform, &path, client.clone()), 400, "header_invalid");
    let admin = world.member(&tenant, "admin");
    assert_eq!(world.post(&admin, &path, client).status, 201, "its own admin needs no reason");
    let audited = world.database.query(&format!(
        "SELECT action, reason FROM tenant_audit WHERE tenant_id = '{}' ORDER BY id",
        tenant.id
    ));
    assert_eq!(
        audited,
        "tenant.create|a new tenant\nclient.create|a test's client\nclient.create|"
    );
    let uses =
        world.database.query("SELECT count(*) FROM admin_access WHERE reason LIKE '%client'");
    assert_eq!(uses, "1");
    // A tenant's admin is nobody on the platform.
    let body = json!({"name": "x", "slug": "other", "tier": "free"});
    refused(&world.post(&admin, "/api/v1/factory/tenants", body), 403, "permission_denied");
}

#[test]
fn the_record_wins_over_a_token_that_is_still_good() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let ask = || world.get(&token, "/api/v1/registry/agents");
    assert_eq!(ask().status, 200);
    world
        .database
        .query(&format!("UPDATE tenants SET status = 'suspended' WHERE id = '{}'", tenant.id));
    refused(&ask(), 403, "tenant_inactive");
    world
        .database
        .query(&format!("UPDATE tenants SET status = 'active' WHERE id = '{}'", tenant.id));
    assert_eq!(ask().status, 200);
    world.database.query("DELETE FROM memberships");
    refused(&ask(), 403, "permission_denied");
    world.database.query("DELETE FROM oauth_clients c WHERE NOT EXISTS (SELECT FROM platform_memberships p WHERE p.client_id = c.id)");
    refused(&ask(), 403, "tenant_invalid");
}

#[test]
fn the_sidecars_question_is_answered_on_the_internal_listener_alone() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "operator");
    let subject = world.database.query("SELECT client_id FROM memberships WHERE role = 'operator'");
    let ask = |base: &str, issuer: &str, tenant: &str, subject: &str| {
        let body =
            json!({"kind": "subject", "issuer": issuer, "tenant": tenant, "subject": subject});
        let body = body.to_string();
        let json = [("content-type", "application/json")];
        send("POST", &format!("{base}/internal/v1/principal"), &json, Some(&body))
    };
    let internal = &world.service.internal;
    let known = ask(internal, crate::world::ISSUER, &tenant.id, &subject);
    assert_eq!(known.status, 200, "{}", known.text);
    let facts = known.json();
    assert_eq!(facts["roles"], json!(["operator"]));
    assert_eq!((&facts["status"], &facts["tier"]), (&json!("active"), &json!("free")));
    assert_eq!(facts["platform"], json!(false));
    let nobody = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    refused(&ask(internal, "https://other", &tenant.id, &subject), 404, "not_found");
    refused(&ask(internal, crate::world::ISSUER, nobody, &subject), 404, "not_found");
    refused(&ask(internal, crate::world::ISSUER, &tenant.id, nobody), 404, "not_found");
    refused(&ask(internal, crate::world::ISSUER, &tenant.id, "x"), 404, "not_found");
    refused(&ask(&world.service.url, crate::world::ISSUER, &tenant.id, &subject), 404, "not_found");
    refused(
        &ask(&world.service.admin, crate::world::ISSUER, &tenant.id, &subject),
        404,
        "not_found",
    );
    // And the other way round.
    let api = send("GET", &format!("{internal}/api/v1/registry/agents"), &[], None);
    refused(&api, 404, "not_found");
    drop(token);
}
