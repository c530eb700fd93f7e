//! A tenant's own limits, set by the platform and read by its admin, and the warning of a quota that runs out.

use serde_json::{Value, json};

use crate::{
    access::refused,
    http::{Answer, send},
    world::{ISSUER, Tenant, World},
};

fn at(tenant: &Tenant) -> String {
    format!("/api/v1/factory/tenants/{}/limits", tenant.id)
}

fn some() -> Value {
    json!({
        "per_window": 120,
        "burst_multiplier": 0,
        "per_day": 4_294_967_295_u32,
        "endpoints": [{"method": "POST", "route": "/api/v1/registry/agents", "per_window": 0}],
    })
}

fn put(world: &World, tenant: &Tenant, limits: Value) -> Answer {
    world.as_platform("PUT", &at(tenant), "a test", Some(limits))
}

#[test]
fn the_platform_sets_a_tenants_limits_and_every_principal_of_it_has_them() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let client = world.client(&a, "viewer");
    let path = format!("/api/v1/factory/tenants/{}/api-keys", a.id);
    let body = json!({"name": "k", "roles": ["viewer"]});
    let key = world.as_platform("POST", &path, "a test", Some(body)).json();
    let of_token = json!({"kind": "subject", "issuer": ISSUER, "tenant": a.id,
        "subject": client["client_id"]});
    let of_key = json!({"kind": "api_key", "key": key["key"]});
    let theirs = || {
        [&of_token, &of_key].map(|ask| {
            let facts = world.ask_principal(ask);
            assert_eq!(facts.status, 200, "{}", facts.text);
            facts.json()["limits"].clone()
        })
    };
    assert_eq!(theirs(), [Value::Null, Value::Null]);
    assert_eq!(put(&world, &a, some()).json(), some());
    assert_eq!(theirs(), [some(), some()]);
    // Replaced as a whole.
    assert_eq!(put(&world, &a, json!({"per_window": 0})).status, 200);
    assert_eq!(theirs(), [json!({"per_window": 0}), json!({"per_window": 0})]);

    let admin = world.member(&a, "admin");
    assert_eq!(world.get(&admin, &at(&a)).json(), json!({"per_window": 0}));
    let reads = world.as_platform("GET", &at(&a), "a test", None);
    assert_eq!(reads.json(), json!({"per_window": 0}));
    assert_eq!(world.as_platform("GET", &at(&b), "a test", None).json(), json!({}));

    assert_eq!(world.as_platform("DELETE", &at(&a), "a test", None).status, 204);
    assert_eq!(theirs(), [Value::Null, Value::Null]);
    assert_eq!(world.get(&admin, &at(&a)).json(), json!({}));
    let audited = "SELECT count(*), min(reason) FROM tenant_audit WHERE action = 'tenant.limits'";
    assert_eq!(world.database.query(audited), "3|a test");
}

#[test]
fn limits_are_the_platforms_to_set_and_another_tenants_do_not_exist() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (of_a, of_b) = (world.member(&a, "admin"), world.member(&b, "admin"));
    refused(&world.call(&of_a, "PUT", &at(&a), Some(some())), 403, "permission_denied");
    refused(&world.call(&of_a, "DELETE", &at(&a), None), 403, "permission_denied");
    refused(&world.get(&world.member(&a, "developer"), &at(&a)), 403, "permission_denied");
    let nobody = Tenant { id: "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".to_owned() };
    let (theirs, missing) = (world.get(&of_b, &at(&a)), world.get(&of_b, &at(&nobody)));
    refused(&theirs, 404, "not_found");
    assert_eq!(theirs.body_but_request_id(), missing.body_but_request_id());
    for method in ["GET", "PUT", "DELETE"] {
        let body = (method == "PUT").then(some);
        refused(&world.as_platform(method, &at(&nobody), "a test", body), 404, "not_found");
        // Without a reason the platform does nothing for others.
        let body = (method == "PUT").then(some);
        refused(&world.call(&world.platform, method, &at(&a), body), 400, "header_invalid");
    }
    let set = "SELECT count(*) FROM tenant_quotas WHERE requests_per_window IS NOT NULL";
    assert_eq!(world.database.query(set), "0");
}

#[test]
fn r22_limits_beyond_what_counts_and_endpoints_that_are_none_are_refused_by_name() {
    let world = World::new();
    let a = world.tenant("tenant-a");
    let endpoint = |method: &str, route: &str, per_window: u64| json!({"method": method, "route": route, "per_window": per_window});
    let agents = "/api/v1/registry/agents";
    for (good, bad, path) in [
        (json!({"per_window": 16_777_215}), json!({"per_window": 16_777_216}), "/per_window"),
        (json!({"per_window": 0}), json!({"per_window": -1}), "/per_window"),
        (json!({"per_day": 4_294_967_295_u64}), json!({"per_day": 4_294_967_296_u64}), "/per_day"),
        (json!({"burst_multiplier": 1000}), json!({"burst_multiplier": 1001}), "/burst_multiplier"),
        (json!({}), json!({"per_hour": 1}), "/per_hour"),
        (
            json!({"endpoints": [endpoint("GET", agents, 1)]}),
            json!({"endpoints": [endpoint("PATCH", agents, 1)]}),
            "/endpoints/0/route",
        ),
        (
            json!({"endpoints": [endpoint("GET", "/api/v1/registry/agents/{agent}", 1)]}),
            json!({"endpoints": [endpoint("GET", "/api/v1/registry/agents/{id}", 1)]}),
            "/endpoints/0/route",
        ),
        (
            json!({"endpoints": [endpoint("GET", agents, 1), endpoint("POST", agents, 1)]}),
            json!({"endpoints": [endpoint("GET", agents, 1), endpoint("GET", agents, 2)]}),
            "/endpoints/1",
        ),
        (
            json!({"endpoints": [endpoint("GET", agents, 16_777_215)]}),
            json!({"endpoints": [endpoint("GET", agents, 16_777_216)]}),
            "/endpoints/0/per_window",
        ),
    ] {
        let taken = put(&world, &a, good.clone());
        assert_eq!(taken.status, 200, "{good}: {}", taken.text);
        let answer = put(&world, &a, bad.clone());
        assert_eq!(answer.status, 422, "{bad}: {}", answer.text);
        assert!(answer.text.contains(&format!("{path:?}")), "{bad}: {}", answer.text);
    }
}

#[test]
fn x7_the_service_judges_bodies_by_the_schema_that_the_gateway_has() {
    let world = World::new();
    let a = world.tenant("tenant-a");
    let headers = |more: &[(&'static str, &'static str)]| {
        let token = format!("Bearer {}", world.platform);
        [
            vec![
                ("authorization".to_owned(), token),
                ("x-gatehouse-reason".to_owned(), "a test".to_owned()),
                ("if-match".to_owned(), "*".to_owned()),
            ],
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ]
        .concat()
    };
    let put = |more: &[(&'static str, &'static str)], body: &str| {
        let headers = headers(more);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        send("PUT", &format!("{}{}", world.service.url, at(&a)), &headers, Some(body))
    };
    let json = ("content-type", "application/json");
    // Ten of what is wrong, each by its pointer, in the words that the module has for it.
    let bad: Vec<Value> = (0..20).map(|n| json!({"method": 1, "route": format!("/{n}")})).collect();
    let answer = put(&[json], &json!({"endpoints": bad, "secret-7": 1}).to_string());
    refused(&answer, 422, "body_invalid");
    let errors = answer.json()["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 10, "{}", answer.text);
    let answer = put(&[json], r#"{"per_window":true,"endpoints":[{"method":"GET","route":"/a"}]}"#);
    let mut errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.sort_by_key(ToString::to_string);
    assert_eq!(
        errors,
        [
            json!({"pointer": "/endpoints/0/per_window", "detail": "is missing"}),
            json!({"pointer": "/per_window", "detail": "is of another type than it must be"}),
        ]
    );
    for (more, body, status, code) in [
        (vec![json], "{\"per_window\":1,\"per_window\":2}".to_owned(), 400, "body_malformed"),
        (vec![json], "{".to_owned(), 400, "body_malformed"),
        (vec![json], "[".repeat(60_000), 400, "body_malformed"),
        (vec![json], " ".repeat(65_537), 413, "body_too_large"),
        (vec![], "{}".to_owned(), 415, "media_type_unsupported"),
        (
            vec![("content-type", "application/json; charset=utf-16")],
            "{}".to_owned(),
            415,
            "media_type_unsupported",
        ),
        (vec![json, ("content-encoding", "gzip")], "{}".to_owned(), 415, "media_type_unsupported"),
    ] {
        refused(&put(&more, &body), status, code);
    }
    assert_eq!(put(&[json], r#"{"per_window":1}"#).status, 200);
    // Who may not call learns nothing of what a body should be.
    let stranger = send("PUT", &format!("{}{}", world.service.url, at(&a)), &[json], Some("{"));
    refused(&stranger, 401, "credential_missing");
}

#[test]
fn r25_a_quota_that_runs_out_is_recorded_once_per_day_on_the_internal_listener_alone() {
    let world = World::new();
    let a = world.tenant("tenant-a");
    let today: u64 = {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        since.as_secs() / 86_400
    };
    let warn = |base: &str, tenant: &str, day: u64| {
        let body = json!({"tenant": tenant, "day": day, "used": 80, "limit": 100}).to_string();
        let json = [("content-type", "application/json")];
        send("POST", &format!("{base}/internal/v1/quota-warning"), &json, Some(&body))
    };
    let internal = &world.service.internal;
    for _ in 0..2 {
        assert_eq!(warn(internal, &a.id, today).status, 204, "from both sidecars");
    }
    let recorded = || {
        world.database.query(
            "SELECT (SELECT count(*) FROM quota_alerts),
                (SELECT count(*) FROM tenant_audit WHERE action = 'quota.warning')",
        )
    };
    assert_eq!(recorded(), "1|1");
    assert_eq!(warn(internal, &a.id, today + 1).status, 204, "Redis is past midnight");
    assert_eq!(recorded(), "2|2");
    for day in [today + 30, today - 30, 0] {
        refused(&warn(internal, &a.id, day), 422, "body_invalid");
    }
    let nobody = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    refused(&warn(internal, nobody, today), 404, "not_found");
    refused(&warn(&world.service.url, &a.id, today), 404, "not_found");
    refused(&warn(&world.service.admin, &a.id, today), 404, "not_found");
    assert_eq!(recorded(), "2|2");
}
