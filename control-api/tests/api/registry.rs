//! Agents, versions and executions as a tenant's members use them, and what is refused of their bodies.

use serde_json::{Value, json};

use crate::{http::Answer, world::World};

fn errors(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 422, "{}", answer.text);
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap().iter();
    errors
        .map(|error| {
            format!("{} {}", error["pointer"].as_str().unwrap(), error["detail"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn an_agent_is_registered_listed_read_and_deleted() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let body = json!({"name": "fuel", "description": "litres to kg"});
    let made = world.post(&token, "/api/v1/registry/agents", body.clone());
    assert_eq!(made.status, 201, "{}", made.text);
    let place = made.header("location").unwrap().to_owned();
    assert_eq!(world.get(&token, &place).json(), made.json());
    assert_eq!(world.get(&token, "/api/v1/registry/agents").json()["items"], json!([made.json()]));
    let clash = world.post(&token, "/api/v1/registry/agents", body.clone());
    assert_eq!((clash.status, clash.json()["code"].as_str()), (409, Some("conflict")));
    assert_eq!(world.call(&token, "DELETE", &place, None).status, 204);
    assert_eq!(world.get(&token, &place).status, 404);
    assert_eq!(world.call(&token, "DELETE", &place, None).status, 404);
    assert_eq!(world.post(&token, "/api/v1/registry/agents", body).status, 201);
    let audited = world.database.query(
        "SELECT string_agg(action, ' ' ORDER BY id) FROM tenant_audit WHERE target_kind = 'agent'",
    );
    assert_eq!(audited, "agent.create agent.delete agent.create");
}

#[test]
fn a_version_names_an_image_of_its_own_tenant_and_never_a_path() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (of_a, of_b) = (world.member(&a, "developer"), world.member(&b, "developer"));
    world.published(&a, &of_a, "fuel");
    let agent = world.post(&of_b, "/api/v1/registry/agents", json!({"name": "fuel"})).json();
    let path = format!("/api/v1/registry/agents/{}/versions", agent["id"].as_str().unwrap());
    let publish =
        |image: &str| world.post(&of_b, &path, json!({"version": "1.0.0", "image": image}));
    let digest = format!("sha256:{}", "a".repeat(64));
    // It exists, in the other tenant's store: not there.
    let theirs = publish(&format!("fuel@{digest}"));
    let missing = publish(&format!("nothing@{digest}"));
    assert_eq!(theirs.status, 404, "{}", theirs.text);
    assert_eq!(theirs.body_but_request_id(), missing.body_but_request_id());
    for name in [
        format!("../{}/fuel", a.id),
        "..".to_owned(),
        "/etc".to_owned(),
        "fuel/..".to_owned(),
        "fu%65l".to_owned(),
        "FUEL".to_owned(),
        "registry.example.com/fuel".to_owned(),
    ] {
        let refused = errors(&publish(&format!("{name}@{digest}")));
        assert!(refused[0].starts_with("/image"), "{refused:?}");
    }
    for image in
        ["fuel", "fuel:latest", "fuel@sha256:short", &format!("fuel@sha512:{}", "a".repeat(64))]
    {
        assert_eq!(errors(&publish(image)).len(), 1, "{image}");
    }
    // A manifest that the layout does not list, and one whose blob is gone.
    let image = world.image(&b, "fuel", 'c');
    assert_eq!(publish(&format!("fuel@{digest}")).status, 404);
    let blob = world
        .setup
        .dir
        .path()
        .join("images")
        .join(&b.id)
        .join("fuel/blobs/sha256")
        .join("c".repeat(64));
    std::fs::rename(&blob, blob.with_extension("away")).unwrap();
    assert_eq!(publish(&image).status, 404);
    std::fs::rename(blob.with_extension("away"), &blob).unwrap();
    let made = publish(&image);
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json()["image"], image.as_str());
    assert_eq!(world.get(&of_b, &path).json()["items"], json!([made.json()]));
    assert_eq!(publish(&image).status, 409);
}

#[test]
fn an_execution_is_stored_pending_under_its_tenant() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let operator = world.member(&tenant, "operator");
    world.published(&tenant, &token, "fuel");
    let input = json!({"litres": 12.5, "fuel": "diesel", "nested": [{"a": null}]});
    let body = json!({"agent": "fuel", "version": "1.0.0", "input": input});
    let made = world.post(&operator, "/api/v1/runtime/executions", body);
    assert_eq!(made.status, 202, "{}", made.text);
    assert_eq!(made.header("retry-after"), Some("1"));
    assert_eq!(made.json()["state"], "pending");
    let place = made.header("location").unwrap();
    assert_eq!(
        place,
        format!("/api/v1/runtime/executions/{}", made.json()["id"].as_str().unwrap())
    );
    let read = world.get(&operator, place);
    let shown = read.json();
    assert_eq!(shown["input"], input);
    assert_eq!(
        (&shown["output"], &shown["error"], &shown["attempt"]),
        (&Value::Null, &Value::Null, &json!(0))
    );
    assert!(shown["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(read.header("retry-after"), Some("1"), "while it goes on");
    assert_eq!(world.get(&operator, "/api/v1/runtime/executions").json()["items"], json!([shown]));
    let row =
        world.database.query("SELECT tenant_id, state, created_by IS NOT NULL FROM executions");
    assert_eq!(row, format!("{}|pending|t", tenant.id));
    let by_id = json!({"agent_version_id": shown["agent_version_id"]});
    assert_eq!(world.post(&operator, "/api/v1/runtime/executions", by_id).status, 202);
}

#[test]
fn a_body_is_refused_with_all_its_mistakes() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "admin");
    let check = |path: &str, body: Value, expected: &[&str]| {
        let mut got = errors(&world.post(&token, path, body.clone()));
        // A schema's mistakes come in the order of its words, the reader's in the order of its questions.
        got.sort();
        assert_eq!(got.len(), expected.len(), "{body}: {got:?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.starts_with(expected), "{body}: {got} is not {expected}");
        }
    };
    let agents = "/api/v1/registry/agents";
    check(agents, json!({"nmae": "fuel"}), &["/name is missing", "/nmae is no member"]);
    check(agents, json!({"name": "Fuel"}), &["/name"]);
    check(agents, json!({"name": "a", "description": "x\u{0}"}), &["/description"]);
    check(agents, json!([]), &[" is of another type"]);
    let runs = "/api/v1/runtime/executions";
    check(runs, json!({}), &["/agent_version_id missing"]);
    check(
        runs,
        json!({"agent_version_id": "x", "input": "a\u{0}"}),
        // What a schema can say is said first; the reader never sees the rest.
        &["/agent_version_id"],
    );
    check(runs, json!({"agent": "a", "version": "1", "input": {"k\u{0}": 1}}), &["/input"]);
    let users = format!("/api/v1/factory/tenants/{}/users", tenant.id);
    check(&users, json!({"email": "x", "role": "root"}), &["/email", "/role"]);
    check(&users, json!({"email": "x@y", "role": "viewer"}), &["/email not an e-mail"]);
    let large = json!({"agent": "a", "version": "1.0.0", "input": "x".repeat(256 * 1024)});
    check(runs, large, &["/input larger than 256 KiB"]);
    let whole = json!({"agent": "a", "version": "1.0.0", "input": "x".repeat(256 * 1024 - 2)});
    assert_eq!(world.post(&token, runs, whole).status, 404, "as large as allowed: no such agent");
}

#[test]
fn tenants_and_users_are_unique_and_some_names_reserved() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let make = |slug: &str| {
        let body = json!({"name": "x", "slug": slug, "tier": "pro"});
        world.post(&world.platform, "/api/v1/factory/tenants", body)
    };
    assert_eq!(make("tenant-a").status, 409);
    for slug in ["platform", "admin", "api", "A", "ab", "-ab", "ab-", "a_b", "1ab", "", "ä-slug"] {
        assert_eq!(make(slug).status, 422, "{slug}");
    }
    let admin = world.member(&tenant, "admin");
    let users = format!("/api/v1/factory/tenants/{}/users", tenant.id);
    let user = |email: &str| world.post(&admin, &users, json!({"email": email, "role": "viewer"}));
    assert_eq!(user("a@example.com").status, 201);
    assert_eq!(user("A@Example.com").status, 409);
    let record = world.get(&admin, &format!("/api/v1/factory/tenants/{}", tenant.id)).json();
    assert_eq!(record["slug"], "tenant-a");
    assert_eq!((&record["tier"], &record["status"]), (&json!("free"), &json!("active")));
}
