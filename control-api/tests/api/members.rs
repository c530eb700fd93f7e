//! Users and clients: standing and roles change what they may do at once, and nobody lifts themselves.

use serde_json::{Value, json};

use crate::{
    access::refused,
    world::{Tenant, World},
};

const AGENTS: &str = "/api/v1/registry/agents";

fn path(tenant: &Tenant, rest: &str) -> String {
    format!("/api/v1/factory/tenants/{}/{rest}", tenant.id)
}

fn id(client: &Value) -> &str {
    client["client_id"].as_str().unwrap()
}

#[test]
fn a_suspended_client_is_refused_at_once_gets_no_token_and_comes_back() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let client = world.client(&tenant, "viewer");
    let token = world.token_of(&client);
    let change = |verb: &str| {
        let answer = world.call(
            &admin,
            "POST",
            &path(&tenant, &format!("clients/{}/{verb}", id(&client))),
            None,
        );
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["status"].clone()
    };
    assert_eq!(world.get(&token, AGENTS).status, 200);
    assert_eq!(change("suspend"), "suspended");
    refused(&world.get(&token, AGENTS), 403, "principal_inactive");
    let secret = client["client_secret"].as_str().unwrap();
    let asked = world.ask_token(id(&client), secret);
    assert_eq!((asked.status, asked.json()["error"].clone()), (400, json!("unauthorized_client")));
    assert_eq!(change("suspend"), "suspended", "twice is as once");
    assert_eq!(change("resume"), "active");
    assert_eq!(world.get(&token, AGENTS).status, 200);
    let audited = world
        .database
        .query("SELECT action FROM tenant_audit WHERE action ~ 'suspend|resume' ORDER BY id");
    assert_eq!(audited, "client.suspend\nclient.resume");
}

#[test]
fn a_suspended_tenant_is_closed_to_all_its_people_and_opens_again() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let other = world.member(&world.tenant("tenant-b"), "viewer");
    let token = world.member(&tenant, "admin");
    let change = |verb: &str, reason: Option<&str>| {
        let path = format!("/api/v1/factory/tenants/{}/{verb}", tenant.id);
        match reason {
            Some(reason) => world.as_platform("POST", &path, reason, None),
            None => world.call(&world.platform, "POST", &path, None),
        }
    };
    refused(&change("suspend", None), 400, "header_invalid");
    assert_eq!(world.get(&token, AGENTS).status, 200);
    let suspended = change("suspend", Some("they do not pay"));
    assert_eq!((suspended.status, &suspended.json()["kind"]), (202, &json!("tenant.suspend")));
    refused(&world.get(&token, AGENTS), 403, "tenant_inactive");
    assert_eq!(world.get(&other, AGENTS).status, 200, "nobody else");
    assert_eq!(change("resume", Some("they paid")).status, 202);
    assert_eq!(world.get(&token, AGENTS).status, 200);
    let reasons = world.database.query(
        "SELECT action || ': ' || reason FROM tenant_audit WHERE action ~ 'suspend|resume' ORDER BY id",
    );
    assert_eq!(reasons, "tenant.suspend: they do not pay\ntenant.resume: they paid");
    // Its own admin may not, and the platform does not lock itself out.
    refused(&world.post(&token, &path(&tenant, "suspend"), json!({})), 403, "permission_denied");
    let own = world.database.query("SELECT id FROM tenants WHERE slug = 'platform'");
    let own = format!("/api/v1/factory/tenants/{own}/suspend");
    refused(&world.as_platform("POST", &own, "a slip", None), 409, "conflict");
    let nobody = "/api/v1/factory/tenants/0191d6b0-7c3e-7aaa-8bbb-0123456789ab/suspend";
    refused(&world.as_platform("POST", nobody, "a slip", None), 404, "not_found");
}

#[test]
fn the_platform_changes_a_tenants_tier_and_its_people_see_it() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "admin");
    let at = format!("/api/v1/factory/tenants/{}", tenant.id);
    let tier = |body: Value| world.as_platform("PATCH", &at, "an upgrade", Some(body));
    assert_eq!(tier(json!({"tier": "pro"})).json()["tier"], "pro");
    assert_eq!(world.get(&token, &at).json()["tier"], "pro");
    refused(&tier(json!({"tier": "gold"})), 422, "body_invalid");
    refused(&tier(json!({"tier": "pro", "slug": "x"})), 422, "body_invalid");
    refused(
        &world.call(&token, "PATCH", &at, Some(json!({"tier": "pro"}))),
        403,
        "permission_denied",
    );
}

#[test]
fn a_role_change_acts_on_the_next_request() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let client = world.client(&tenant, "viewer");
    let token = world.token_of(&client);
    let role = |method: &str, role: &str| {
        let path = path(&tenant, &format!("clients/{}/roles/{role}", id(&client)));
        world.call(&admin, method, &path, None).status
    };
    let create = |name: &str| world.post(&token, AGENTS, json!({"name": name}));
    refused(&create("a"), 403, "permission_denied");
    assert_eq!(role("PUT", "developer"), 204);
    assert_eq!(create("b").status, 201);
    assert_eq!(role("PUT", "developer"), 204, "twice is as once");
    assert_eq!(role("DELETE", "developer"), 204);
    refused(&create("c"), 403, "permission_denied");
    assert_eq!(world.get(&token, AGENTS).status, 200, "the other role stays");
    assert_eq!(role("PUT", "owner"), 404);
    let shown = world.get(&admin, &path(&tenant, &format!("clients/{}", id(&client))));
    assert_eq!(shown.json()["roles"], json!(["viewer"]));
}

#[test]
fn nobody_changes_their_own_roles_or_standing() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let me = world.client(&tenant, "admin");
    world.client(&tenant, "admin");
    let token = world.token_of(&me);
    for (method, rest) in [
        ("PUT", "/roles/developer"),
        ("DELETE", "/roles/admin"),
        ("POST", "/suspend"),
        ("DELETE", ""),
    ] {
        let path = path(&tenant, &format!("clients/{}{rest}", id(&me)));
        refused(&world.call(&token, method, &path, None), 403, "permission_denied");
    }
    let shown = world.get(&token, &path(&tenant, &format!("clients/{}", id(&me))));
    assert_eq!(
        (&shown.json()["roles"], &shown.json()["status"]),
        (&json!(["admin"]), &json!("active"))
    );
}

#[test]
fn the_last_admin_of_a_tenant_stays_whoever_asks() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let last = world.client(&tenant, "admin");
    for (method, rest) in [("DELETE", "/roles/admin"), ("POST", "/suspend"), ("DELETE", "")] {
        let path = path(&tenant, &format!("clients/{}{rest}", id(&last)));
        let answer = world.as_platform(method, &path, "they asked for it", None);
        refused(&answer, 409, "conflict");
    }
    // With another one it may go.
    let user = world.user(&tenant, "admin");
    let gone = path(&tenant, &format!("clients/{}", id(&last)));
    assert_eq!(world.as_platform("DELETE", &gone, "they asked for it", None).status, 204);
    refused(&world.as_platform("GET", &gone, "is it gone", None), 404, "not_found");
    let user = path(&tenant, &format!("users/{user}"));
    refused(&world.as_platform("DELETE", &user, "the other, too", None), 409, "conflict");
}

#[test]
fn a_removed_clients_token_opens_nothing() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let client = world.client(&tenant, "viewer");
    let token = world.token_of(&client);
    let at = path(&tenant, &format!("clients/{}", id(&client)));
    assert_eq!(world.call(&admin, "DELETE", &at, None).status, 204);
    refused(&world.get(&token, AGENTS), 403, "tenant_invalid");
    assert_eq!(world.ask_token(id(&client), client["client_secret"].as_str().unwrap()).status, 401);
    refused(&world.call(&admin, "DELETE", &at, None), 404, "not_found");
}

#[test]
fn a_rotated_secret_ends_the_one_before() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let client = world.client(&tenant, "viewer");
    let at = path(&tenant, &format!("clients/{}/rotate-secret", id(&client)));
    let rotated = world.call(&admin, "POST", &at, None);
    assert_eq!((rotated.status, rotated.header("cache-control")), (200, Some("no-store")));
    assert_eq!(world.ask_token(id(&client), client["client_secret"].as_str().unwrap()).status, 401);
    world.token_of(&rotated.json());
}

/// An admin of the platform's own tenant who took over its operator's client would be the platform.
#[test]
fn a_tenant_admin_has_no_hand_on_a_holder_of_the_platform_membership() {
    let world = World::new();
    let operator = world.database.query("SELECT client_id FROM platform_memberships");
    let tenant = Tenant { id: world.database.query("SELECT tenant_id FROM platform_memberships") };
    let admin = world.client(&tenant, "admin");
    let token = world.token_of(&admin);
    for (method, rest) in [
        ("POST", "/rotate-secret"),
        ("POST", "/suspend"),
        ("POST", "/revoke-tokens"),
        ("PUT", "/roles/admin"),
        ("DELETE", ""),
    ] {
        let path = path(&tenant, &format!("clients/{operator}{rest}"));
        refused(&world.call(&token, method, &path, None), 403, "permission_denied");
    }
    assert_eq!(world.get(&token, &path(&tenant, &format!("clients/{operator}"))).status, 200);
    // The role of an admin, wherever held, is not the platform's.
    let body = json!({"name": "x", "slug": "other", "tier": "free"});
    refused(&world.post(&token, "/api/v1/factory/tenants", body), 403, "permission_denied");
}

#[test]
fn lists_show_the_tenants_own_people() {
    let world = World::new();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let admin = world.client(&a, "admin");
    let user = world.user(&a, "viewer");
    world.client(&b, "admin");
    world.user(&b, "viewer");
    let token = world.token_of(&admin);
    let ids = |kind: &str| -> Vec<String> {
        let answer = world.get(&token, &path(&a, kind));
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("clients"), [id(&admin)]);
    assert_eq!(ids("users"), [user]);
}

#[test]
fn members_have_names_that_can_be_changed_and_lists_are_narrowed() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.client(&tenant, "admin");
    let token = world.token_of(&admin);
    let made = world.post(
        &token,
        &path(&tenant, "users"),
        json!({"email": "ada@example.com", "name": "Ada", "role": "viewer"}),
    );
    assert_eq!((made.status, &made.json()["name"]), (201, &json!("Ada")), "{}", made.text);
    let user = path(&tenant, &format!("users/{}", made.json()["id"].as_str().unwrap()));
    let rename = |at: &str, body: Value| world.call(&token, "PATCH", at, Some(body));
    assert_eq!(rename(&user, json!({"name": "Ada Lovelace"})).json()["name"], "Ada Lovelace");
    assert_eq!(world.get(&token, &user).json()["name"], "Ada Lovelace");
    assert_eq!(rename(&user, json!({"name": null})).json()["name"], Value::Null);
    refused(&rename(&user, json!({"name": "a\u{7}"})), 422, "body_invalid");
    refused(&rename(&user, json!({"email": "b@example.com"})), 422, "body_invalid");
    // One's own name is one's own to change; a client has one.
    let me = path(&tenant, &format!("clients/{}", id(&admin)));
    assert_eq!(rename(&me, json!({"name": "the robot"})).json()["name"], "the robot");
    refused(&rename(&me, json!({"name": null})), 422, "body_invalid");
    let rows = world.get(&token, &path(&tenant, "audit?action=user.update"));
    let values: Vec<Value> =
        rows.json()["items"].as_array().unwrap().iter().map(|row| row["details"].clone()).collect();
    assert_eq!(
        values,
        [
            json!({"old": {"name": "Ada Lovelace"}, "new": {"name": null}}),
            json!({"old": {"name": "Ada"}, "new": {"name": "Ada Lovelace"}}),
        ]
    );
    // By standing and by role.
    let gone = world.user(&tenant, "developer");
    let suspend = path(&tenant, &format!("users/{gone}/suspend"));
    assert_eq!(world.call(&token, "POST", &suspend, None).status, 200);
    let count = |query: &str| {
        let found = world.get(&token, &path(&tenant, &format!("users{query}")));
        assert_eq!(found.status, 200, "{}", found.text);
        found.json()["items"].as_array().unwrap().len()
    };
    assert_eq!(
        [
            "",
            "?status=active",
            "?status=suspended",
            "?role=developer",
            "?role=admin",
            "?role=viewer&status=suspended"
        ]
        .map(count),
        [2, 1, 1, 1, 0, 0]
    );
    for bad in ["?status=asleep", "?role=owner", "?name=x"] {
        refused(&world.get(&token, &path(&tenant, &format!("users{bad}"))), 400, "query_invalid");
    }
}

#[test]
fn whoever_is_in_a_tenant_sees_what_its_roles_may_do() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let viewer = world.member(&tenant, "viewer");
    let roles = world.get(&viewer, &path(&tenant, "roles")).json()["roles"].clone();
    let names: Vec<&str> =
        roles.as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(names, ["viewer", "operator", "developer", "admin"]);
    let may = |role: usize, permission: &str| {
        roles[role]["permissions"].as_array().unwrap().contains(&json!(permission))
    };
    assert!(may(0, "agents:read") && !may(0, "agents:write") && !may(0, "tenant:manage"));
    assert!(may(3, "tenant:manage") && !may(3, "platform:manage"), "{roles}");
}

/// Nobody gives what is above their own: a developer has no way to members at all, and an admin gives no platform.
#[test]
fn nobody_lifts_themselves_by_another() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let developer = world.client(&tenant, "developer");
    let token = world.token_of(&developer);
    for (method, rest, body) in [
        ("POST", "users".to_owned(), Some(json!({"email": "a@example.com", "role": "admin"}))),
        ("POST", "clients".to_owned(), Some(json!({"name": "x", "role": "admin"}))),
        ("PUT", format!("clients/{}/roles/admin", id(&developer)), None),
        ("PATCH", format!("clients/{}", id(&developer)), Some(json!({"name": "x"}))),
    ] {
        refused(&world.call(&token, method, &path(&tenant, &rest), body), 403, "permission_denied");
    }
    let key = json!({"name": "k", "roles": ["admin"]});
    refused(&world.post(&token, &path(&tenant, "api-keys"), key), 403, "permission_denied");
}
