//! Tokens that were revoked, one by one or all of a member's.

use gatehouse_authn::revocation::mark;
use serde_json::{Value, json};

use crate::{
    access::refused,
    http::{Answer, send},
    world::{ISSUER, World, until},
};

const AGENTS: &str = "/api/v1/registry/agents";

fn revoke(world: &World, client: &Value, form: &str) -> Answer {
    let body = format!(
        "client_id={}&client_secret={}&{form}",
        client["client_id"].as_str().unwrap(),
        client["client_secret"].as_str().unwrap()
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    send("POST", &format!("{}/oauth2/revoke", world.service.url), &form, Some(&body))
}

fn claims(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_client_revokes_its_own_token_and_no_other() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (client, other) = (world.client(&tenant, "viewer"), world.client(&tenant, "viewer"));
    let (token, second) = (world.token_of(&client), world.token_of(&client));
    let foreign = world.token_of(&other);
    let refusal = revoke(&world, &client, &format!("token={foreign}"));
    assert_eq!((refusal.status, &refusal.json()["error"]), (400, &json!("unauthorized_client")));
    assert_eq!(world.get(&foreign, AGENTS).status, 200);

    let done = revoke(&world, &client, &format!("token={token}&token_type_hint=access_token"));
    assert_eq!((done.status, done.text.as_str()), (200, ""));
    refused(&world.get(&token, AGENTS), 401, "token_invalid");
    assert_eq!(world.get(&second, AGENTS).status, 200, "the other token goes on");
    // Revoked again, or worth nothing from the start: done.
    for token in [token.as_str(), "x", "a.b.c", ""] {
        assert_eq!(revoke(&world, &client, &format!("token={token}")).status, 200, "{token}");
    }
    let mut wrong = client.clone();
    wrong["client_secret"] = json!("gs_wrong");
    let refusal = revoke(&world, &wrong, &format!("token={second}"));
    assert_eq!((refusal.status, &refusal.json()["error"]), (401, &json!("invalid_client")));
    assert_eq!(revoke(&world, &client, "").status, 400);
    assert_eq!(world.get(&second, AGENTS).status, 200);

    // What is told is the mark, until the token would have expired.
    let told = world.database.query("SELECT payload FROM outbox WHERE kind = 'deny'");
    let told: Value = serde_json::from_str(&told).unwrap();
    let claims = claims(&token);
    assert_eq!(told["token"], json!(mark(ISSUER, claims["jti"].as_str().unwrap())));
    assert!(told["until_s"].as_u64().unwrap() >= claims["exp"].as_u64().unwrap());
    let audited = "SELECT subject FROM tenant_audit WHERE action = 'token.revoke'";
    assert_eq!(json!(world.database.query(audited)), client["client_id"]);
}

#[test]
fn a_revoked_token_is_worthless_to_sidecars_too() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let token = world.token_of(&client);
    let claims = claims(&token);
    let ask = |jti: &str, issued: Option<u64>| {
        let mut ask = json!({
            "kind": "subject", "issuer": ISSUER, "tenant": tenant.id,
            "subject": client["client_id"], "token": mark(ISSUER, jti),
        });
        if let Some(at) = issued {
            ask["issued_at_s"] = json!(at);
        }
        world.ask_principal(&ask)
    };
    let (jti, issued) = (claims["jti"].as_str().unwrap(), claims["iat"].as_u64().unwrap());
    assert_eq!(ask(jti, Some(issued)).status, 200);
    assert_eq!(revoke(&world, &client, &format!("token={token}")).status, 200);
    refused(&ask(jti, Some(issued)), 401, "token_invalid");
    assert_eq!(ask("another", Some(issued)).status, 200);
    let all = format!(
        "/api/v1/factory/tenants/{}/clients/{}/revoke-tokens",
        tenant.id,
        client["client_id"].as_str().unwrap()
    );
    assert_eq!(world.as_platform("POST", &all, "it leaked", None).status, 204);
    refused(&ask("another", Some(issued)), 401, "token_invalid");
    refused(&ask("another", None), 401, "token_invalid");
    assert_eq!(ask("another", Some(issued + 3600)).status, 200);
}

#[test]
fn all_tokens_of_a_member_end_and_new_ones_open() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let client = world.client(&tenant, "viewer");
    let other = world.member(&tenant, "viewer");
    let token = world.token_of(&client);
    let id = client["client_id"].as_str().unwrap();
    let all = format!("/api/v1/factory/tenants/{}/clients/{id}/revoke-tokens", tenant.id);
    refused(&world.call(&other, "POST", &all, None), 403, "permission_denied");
    assert_eq!(world.get(&token, AGENTS).status, 200);
    assert_eq!(world.call(&admin, "POST", &all, None).status, 204);
    refused(&world.get(&token, AGENTS), 401, "token_invalid");
    assert_eq!(world.get(&other, AGENTS).status, 200);
    // `iat` has whole seconds: from the next one on a new token is a new token.
    until(|| (world.get(&world.token_of(&client), AGENTS).status == 200).then_some(()));
    refused(&world.get(&token, AGENTS), 401, "token_invalid");
    let nobody = all.replace(id, "0191d6b0-7c3e-7aaa-8bbb-0123456789ab");
    refused(&world.call(&admin, "POST", &nobody, None), 404, "not_found");
}
