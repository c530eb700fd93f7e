//! A tenant's pinned API version, set by its admin or by the platform, and told to sidecars.

use serde_json::{Value, json};

use crate::{
    access::refused,
    world::{ISSUER, Tenant, World},
};

fn at(tenant: &Tenant) -> String {
    format!("/api/v1/factory/tenants/{}/version-pin", tenant.id)
}

fn to(version: &str) -> Option<Value> {
    Some(json!({"version": version}))
}

#[test]
fn v5_an_admin_pins_its_tenant_and_every_principal_of_it_has_the_pin() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (in_a, in_b) = (world.client(&a, "viewer"), world.client(&b, "viewer"));
    let path = format!("/api/v1/factory/tenants/{}/api-keys", a.id);
    let body = json!({"name": "k", "roles": ["viewer"]});
    let key = world.as_platform("POST", &path, "a test", Some(body)).json();
    let told = |ask: Value| {
        let facts = world.ask_principal(&ask);
        assert_eq!(facts.status, 200, "{}", facts.text);
        facts.json()["version_pin"].clone()
    };
    let subject = |tenant: &Tenant, client: &Value| {
        told(json!({"kind": "subject", "issuer": ISSUER, "tenant": tenant.id,
            "subject": client["client_id"]}))
    };
    let theirs = || [subject(&a, &in_a), told(json!({"kind": "api_key", "key": key["key"]}))];
    assert_eq!(theirs(), [Value::Null, Value::Null]);
    let admin = world.member(&a, "admin");
    assert_eq!(world.get(&admin, &at(&a)).json(), json!({}));
    assert_eq!(world.call(&admin, "PUT", &at(&a), to("v1-beta")).json(), to("v1-beta").unwrap());
    assert_eq!(theirs(), ["v1-beta", "v1-beta"]);
    assert_eq!(subject(&b, &in_b), Value::Null, "another tenant's");
    let reader = world.member(&a, "viewer");
    assert_eq!(world.get(&reader, &at(&a)).json(), to("v1-beta").unwrap());

    let answer = world.as_platform("PUT", &at(&a), "a test", to("v2"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(theirs(), ["v2", "v2"]);
    for _ in 0..2 {
        assert_eq!(world.call(&admin, "DELETE", &at(&a), None).status, 204);
    }
    assert_eq!(theirs(), [Value::Null, Value::Null]);
    let audited =
        "SELECT count(*), min(reason) FROM tenant_audit WHERE action = 'tenant.version_pin'";
    assert_eq!(world.database.query(audited), "3|a test");
}

#[test]
fn a_pin_is_its_admins_or_the_platforms_and_another_tenants_does_not_exist() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let developer = world.member(&a, "developer");
    refused(&world.call(&developer, "PUT", &at(&a), to("v1")), 403, "permission_denied");
    refused(&world.call(&developer, "DELETE", &at(&a), None), 403, "permission_denied");
    let of_b = world.member(&b, "admin");
    let nobody = Tenant { id: "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".to_owned() };
    for method in ["GET", "PUT", "DELETE"] {
        let body = || (method == "PUT").then(|| to("v1").unwrap());
        let theirs = world.call(&of_b, method, &at(&a), body());
        refused(&theirs, 404, "not_found");
        let missing = world.call(&of_b, method, &at(&nobody), body());
        assert_eq!(theirs.body_but_request_id(), missing.body_but_request_id());
        refused(&world.as_platform(method, &at(&nobody), "a test", body()), 404, "not_found");
        // Without a reason the platform does nothing for others.
        refused(&world.call(&world.platform, method, &at(&a), body()), 400, "header_invalid");
    }
    let pinned = "SELECT count(*) FROM tenants WHERE version_pin IS NOT NULL";
    assert_eq!(world.database.query(pinned), "0");
}

#[test]
fn what_is_no_versions_name_is_refused_with_its_path() {
    let world = World::new();
    let a = world.tenant("tenant-a");
    let admin = world.member(&a, "admin");
    let beyond = "v".repeat(33);
    for (body, path) in [
        (json!({"version": "v 1"}), "/version"),
        (json!({"version": "v1/x"}), "/version"),
        (json!({"version": ""}), "/version"),
        (json!({"version": ".."}), "/version"),
        (json!({"version": beyond}), "/version"),
        (json!({"version": 1}), "/version"),
        (json!({"version": null}), "/version"),
        (json!({}), "/version"),
        (json!({"version": "v1", "until": "2027"}), "/until"),
    ] {
        let answer = world.call(&admin, "PUT", &at(&a), Some(body.clone()));
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
        assert!(answer.text.contains(&format!("{path:?}")), "{body}: {}", answer.text);
    }
    assert_eq!(world.call(&admin, "PUT", &at(&a), to(&"v".repeat(32))).status, 200);
}
