//! API keys from their making to their end, at the guard and for the sidecars.

use serde_json::{Value, json};

use crate::{
    access::refused,
    http::{Answer, send},
    world::{Tenant, World, until},
};

const AGENTS: &str = "/api/v1/registry/agents";

fn keys(tenant: &Tenant, rest: &str) -> String {
    format!("/api/v1/factory/tenants/{}/api-keys{rest}", tenant.id)
}

fn made(world: &World, token: &str, tenant: &Tenant, body: Value) -> (String, String) {
    let answer = world.post(token, &keys(tenant, ""), body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

fn ask(world: &World, key: &str) -> Answer {
    world.ask_principal(&json!({"kind": "api_key", "key": key}))
}

#[test]
fn a_key_is_shown_once_opens_what_its_roles_hold_and_ends_at_once() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"name": "ci", "environment": "test", "roles": ["viewer"]});
    let answer = world.post(&admin, &keys(&tenant, ""), body);
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")));
    let (id, key) = (answer.json()["id"].clone(), answer.json()["key"].clone());
    let (id, key) = (id.as_str().unwrap(), key.as_str().unwrap());
    assert_eq!(answer.header("location"), Some(keys(&tenant, &format!("/{id}")).as_str()));
    assert!(key.starts_with("gk_test_"), "{key}");
    // Nowhere else: not in the list, the record, the database or the log.
    let secret = key.rsplit_once('_').unwrap().1;
    for shown in [keys(&tenant, ""), keys(&tenant, &format!("/{id}"))] {
        let answer = world.get(&admin, &shown);
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains(secret) && answer.text.contains(id));
    }
    let stored = world.database.query("SELECT k::text FROM api_keys k");
    assert!(!stored.contains(secret) && stored.contains(id));

    assert_eq!(world.by_key(key, "GET", AGENTS, None).status, 200);
    let create = world.by_key(key, "POST", AGENTS, Some(json!({"name": "x"})));
    refused(&create, 403, "permission_denied");
    let facts = ask(&world, key).json();
    assert_eq!((&facts["tenant"], &facts["subject"]), (&json!(tenant.id), &json!(id)));
    assert_eq!((&facts["roles"], &facts["credential"]), (&json!(["viewer"]), &json!(id)));
    assert_eq!(facts["platform"], json!(false));

    assert_eq!(world.call(&admin, "DELETE", &keys(&tenant, &format!("/{id}")), None).status, 204);
    refused(&world.by_key(key, "GET", AGENTS, None), 401, "token_invalid");
    refused(&ask(&world, key), 401, "token_invalid");
    assert_eq!(world.call(&admin, "DELETE", &keys(&tenant, &format!("/{id}")), None).status, 204);
    let shown = world.get(&admin, &keys(&tenant, &format!("/{id}")));
    assert!(shown.json()["revoked_at"].is_string(), "its record stays");
    let actions = "SELECT action FROM tenant_audit WHERE target_kind = 'api_key' ORDER BY id";
    assert_eq!(world.database.query(actions), "api_key.create\napi_key.revoke");
    let told = "SELECT count(*) FROM outbox WHERE kind = 'credential'";
    assert_eq!(world.database.query(told), "2");
}

#[test]
fn wrong_keys_are_refused_alike() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let (_, key) = made(&world, &admin, &tenant, json!({"name": "a", "roles": ["viewer"]}));
    let (_, other) = made(&world, &admin, &tenant, json!({"name": "b", "roles": ["viewer"]}));
    // The id of one, the secret of the other, with a checksum that fits.
    let (head, tail) = (&key[..key.len() - 49], &other[other.len() - 49..other.len() - 6]);
    let mixed = format!("{head}{tail}");
    let mixed = format!("{mixed}{}", checksum(&mixed));
    let unknown = key.replacen(&key[8..40], "0191d6b07c3e7aaa8bbb0123456789ab", 1);
    let unknown =
        format!("{}{}", &unknown[..unknown.len() - 6], checksum(&unknown[..unknown.len() - 6]));
    let mut answers = Vec::new();
    for wrong in [&mixed, &unknown, &format!("{key}x"), &key[1..], "gk_", ""] {
        let answer = world.by_key(wrong, "GET", AGENTS, None);
        refused(&answer, 401, "token_invalid");
        refused(&ask(&world, wrong), 401, "token_invalid");
        answers.push(answer.body_but_request_id());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(world.by_key(&key, "GET", AGENTS, None).status, 200);
}

/// CRC-32 in base 62, by another hand than the product's.
fn checksum(text: &str) -> String {
    let mut crc = !0_u32;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = vec![b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = digits[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn one_credential_per_request() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let (_, key) = made(&world, &admin, &tenant, json!({"name": "a", "roles": ["viewer"]}));
    let url = format!("{}{AGENTS}", world.service.url);
    let bearer = format!("Bearer {admin}");
    for headers in [
        vec![("authorization", bearer.as_str()), ("x-api-key", key.as_str())],
        vec![("x-api-key", key.as_str()), ("x-api-key", key.as_str())],
        vec![("authorization", bearer.as_str()), ("authorization", bearer.as_str())],
        // An empty one is one, too.
        vec![("authorization", bearer.as_str()), ("x-api-key", "")],
    ] {
        refused(&send("GET", &url, &headers, None), 400, "credential_malformed");
    }
    // Another scheme is no credential.
    let basic = [("authorization", "Basic YTpi"), ("x-api-key", key.as_str())];
    assert_eq!(send("GET", &url, &basic, None).status, 200);
}

#[test]
fn scopes_narrow_what_the_roles_hold() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"name": "a", "roles": ["admin"], "scopes": ["agents:read"]});
    let (_, key) = made(&world, &admin, &tenant, body);
    assert_eq!(world.by_key(&key, "GET", AGENTS, None).status, 200);
    for (method, path) in [
        ("POST", AGENTS.to_owned()),
        ("GET", "/api/v1/runtime/executions".to_owned()),
        ("GET", format!("/api/v1/factory/tenants/{}/users", tenant.id)),
    ] {
        let body = (method == "POST").then(|| json!({"name": "x"}));
        refused(&world.by_key(&key, method, &path, body), 403, "permission_denied");
    }
    assert_eq!(ask(&world, &key).json()["scopes"], json!(["agents:read"]));
    // A scope gives nothing that the roles do not hold.
    let body = json!({"name": "b", "roles": ["viewer"], "scopes": ["agents:write"]});
    let (_, key) = made(&world, &admin, &tenant, body);
    refused(
        &world.by_key(&key, "POST", AGENTS, Some(json!({"name": "x"}))),
        403,
        "permission_denied",
    );
    for (field, value) in [
        ("scopes", json!(["agents:fly"])),
        ("scopes", json!([])),
        ("roles", json!([])),
        ("roles", json!(["owner"])),
        ("environment", json!("Production")),
        ("expires_at", json!("2001-01-01T00:00:00Z")),
        ("expires_at", json!("tomorrow")),
        ("key", json!("gk_mine")),
    ] {
        let mut body = json!({"name": "c", "roles": ["viewer"]});
        body[field] = value;
        refused(&world.post(&admin, &keys(&tenant, ""), body), 422, "body_invalid");
    }
}

#[test]
fn a_key_is_never_above_whoever_made_it() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let maker = world.client(&tenant, "developer");
    let token = world.token_of(&maker);
    let body = json!({"name": "a", "roles": ["admin"]});
    refused(&world.post(&token, &keys(&tenant, ""), body), 403, "permission_denied");
    let (_, key) = made(&world, &token, &tenant, json!({"name": "a", "roles": ["developer"]}));
    let create = |name: &str| world.by_key(&key, "POST", AGENTS, Some(json!({"name": name})));
    assert_eq!(create("a").status, 201);
    // Whoever made it falls, and the key with it.
    let id = maker["client_id"].as_str().unwrap();
    let at = |rest: &str| format!("/api/v1/factory/tenants/{}/clients/{id}{rest}", tenant.id);
    assert_eq!(world.call(&admin, "PUT", &at("/roles/viewer"), None).status, 204);
    assert_eq!(world.call(&admin, "DELETE", &at("/roles/developer"), None).status, 204);
    refused(&create("b"), 403, "permission_denied");
    assert_eq!(world.call(&admin, "PUT", &at("/roles/developer"), None).status, 204);
    assert_eq!(create("c").status, 201);
    assert_eq!(world.call(&admin, "POST", &at("/suspend"), None).status, 200);
    refused(&create("d"), 403, "principal_inactive");
    assert_eq!(ask(&world, &key).json()["suspended"], json!(true));
    assert_eq!(world.call(&admin, "DELETE", &at(""), None).status, 204);
    refused(&create("e"), 401, "token_invalid");
}

#[test]
fn a_key_makes_no_keys_and_others_see_their_own_alone() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let developer = world.member(&tenant, "developer");
    let (of_admin, key) = made(&world, &admin, &tenant, json!({"name": "a", "roles": ["admin"]}));
    let (of_developer, _) =
        made(&world, &developer, &tenant, json!({"name": "b", "roles": ["viewer"]}));
    let body = json!({"name": "c", "roles": ["viewer"]});
    refused(&world.by_key(&key, "POST", &keys(&tenant, ""), Some(body)), 403, "permission_denied");
    let rotate = keys(&tenant, &format!("/{of_admin}/rotate"));
    refused(&world.by_key(&key, "POST", &rotate, Some(json!({}))), 403, "permission_denied");
    let ids = |token: &str| -> Vec<String> {
        let items =
            world.get(token, &keys(&tenant, "")).json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&developer), [of_developer.as_str()]);
    assert_eq!(ids(&admin).len(), 2);
    for (method, rest, body) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", Some(json!({"name": "mine"}))),
        ("POST", "/rotate", Some(json!({}))),
    ] {
        let path = keys(&tenant, &format!("/{of_admin}{rest}"));
        refused(&world.call(&developer, method, &path, body), 404, "not_found");
    }
    assert_eq!(world.by_key(&key, "GET", AGENTS, None).status, 200);
    let at = keys(&tenant, &format!("/{of_developer}"));
    let renamed = world.call(&developer, "PATCH", &at, Some(json!({"name": "mine"})));
    assert_eq!(renamed.json()["name"], "mine");
    let widened =
        world.call(&developer, "PATCH", &at, Some(json!({"name": "x", "roles": ["admin"]})));
    refused(&widened, 422, "body_invalid");
}

#[test]
fn a_rotated_key_opens_beside_its_successor_until_the_overlap_ends() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"name": "a", "roles": ["viewer"], "scopes": ["agents:read"]});
    let (old, first) = made(&world, &admin, &tenant, body);
    let rotate =
        |id: &str, body: Value| world.post(&admin, &keys(&tenant, &format!("/{id}/rotate")), body);
    let answer = rotate(&old, json!({"overlap_s": 3600}));
    assert_eq!(answer.status, 201, "{}", answer.text);
    let second = answer.json();
    assert_eq!(second["rotated_from"], json!(old));
    assert_eq!(
        (&second["roles"], &second["scopes"]),
        (&json!(["viewer"]), &json!(["agents:read"]))
    );
    let opens = |key: &str| world.by_key(key, "GET", AGENTS, None).status;
    let next = second["key"].as_str().unwrap();
    assert_eq!((opens(&first), opens(next)), (200, 200));
    assert!(ask(&world, &first).json()["expires_at_s"].is_u64(), "sidecars learn when it ends");
    refused(&rotate(&old, json!({})), 409, "conflict");
    refused(
        &rotate(second["id"].as_str().unwrap(), json!({"overlap_s": 99_999_999})),
        422,
        "body_invalid",
    );
    world.database.query(&format!(
        "UPDATE api_keys SET overlap_until = now() - interval '1 second' WHERE id = '{old}'"
    ));
    assert_eq!((opens(&first), opens(next)), (401, 200));
    // Without an overlap the old one ends at once.
    let third = rotate(second["id"].as_str().unwrap(), json!({"overlap_s": 0}));
    let third = third.json()["key"].as_str().unwrap().to_owned();
    until(|| (opens(next) == 401).then_some(()));
    assert_eq!(opens(&third), 200);
}

#[test]
fn a_key_ends_when_it_says() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"name": "a", "roles": ["viewer"], "expires_at": "2999-01-01T00:00:00Z"});
    let (id, key) = made(&world, &admin, &tenant, body);
    assert_eq!(world.by_key(&key, "GET", AGENTS, None).status, 200);
    assert_eq!(ask(&world, &key).json()["expires_at_s"], json!(32_472_144_000_u64));
    world.database.query(&format!(
        "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = '{id}'"
    ));
    refused(&world.by_key(&key, "GET", AGENTS, None), 401, "token_invalid");
}

#[test]
fn last_use_comes_in_batches_and_goes_forward_alone() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let (id, _) = made(&world, &admin, &tenant, json!({"name": "a", "roles": ["viewer"]}));
    let report = |at_s: u64| {
        let body = json!({"seen_at_s": {&id: at_s, "no-key": at_s,
            "0191d6b0-7c3e-7aaa-8bbb-0123456789ab": at_s}});
        let url = format!("{}/internal/v1/last-used", world.service.internal);
        let json = [("content-type", "application/json")];
        send("POST", &url, &json, Some(&body.to_string())).status
    };
    let shown =
        || world.get(&admin, &keys(&tenant, &format!("/{id}"))).json()["last_used_at"].clone();
    assert_eq!(shown(), Value::Null);
    assert_eq!(report(1_000_000_000), 204);
    assert_eq!(shown(), json!("2001-09-09T01:46:40Z"));
    assert_eq!(report(999_999_999), 204);
    assert_eq!(shown(), json!("2001-09-09T01:46:40Z"));
    let outside = format!("{}/internal/v1/last-used", world.service.url);
    refused(&send("POST", &outside, &[], None), 404, "not_found");
}

#[test]
fn the_platform_makes_keys_for_a_tenant_with_a_reason() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let body = json!({"name": "a", "roles": ["admin"]});
    refused(&world.post(&world.platform, &keys(&tenant, ""), body.clone()), 400, "header_invalid");
    let made = world.as_platform("POST", &keys(&tenant, ""), "a new customer", Some(body));
    assert_eq!((made.status, &made.json()["owner"]), (201, &Value::Null));
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(world.by_key(&key, "GET", AGENTS, None).status, 200);
    // Nor is it the platform, whoever made it.
    let tenants = json!({"name": "x", "slug": "other", "tier": "free"});
    let answer = world.by_key(&key, "POST", "/api/v1/factory/tenants", Some(tenants));
    refused(&answer, 403, "permission_denied");
    let nobody = "/api/v1/factory/tenants/0191d6b0-7c3e-7aaa-8bbb-0123456789ab/api-keys";
    let answer =
        world.as_platform("POST", nobody, "x", Some(json!({"name": "a", "roles": ["viewer"]})));
    refused(&answer, 404, "not_found");
}
