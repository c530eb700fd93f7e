//! Who may register an issuer, what one may say, and that its secret stays where it is.

use serde_json::{Value, json};

use super::{Browser, ORIGIN, Provider, enter, issuer_of, refused, register, world, world_with};
use crate::{
    http::Answer,
    world::{Tenant, World},
};

/// What a tenant's own admin may enter: a provider on the public internet.
pub fn public(more: Value) -> Value {
    let mut document = json!({
        "name": "Okta",
        "issuer": "https://acme.okta.example",
        "client_id": "0oa1",
        "client_secret": "a client secret",
        "max_role": "admin",
        "roles": {"claim": "/groups", "map": {"Admins": "admin"}},
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

pub fn path(tenant: &Tenant) -> String {
    format!("/api/v1/factory/tenants/{}/issuers", tenant.id)
}

fn mistakes(answer: &Answer) -> String {
    assert_eq!(answer.status, 422, "{}", answer.text);
    let errors = answer.json()["errors"].clone();
    let lines = errors.as_array().unwrap().iter().map(|error| {
        format!("{}: {}", error["pointer"].as_str().unwrap(), error["detail"].as_str().unwrap())
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub fn anyone() -> World {
    world_with(json!({"public_origin": ORIGIN}))
}

#[test]
fn a_tenants_admin_keeps_its_issuers_and_nobody_else_sees_them() {
    let world = anyone();
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (admin, other) = (world.member(&a, "admin"), world.member(&b, "admin"));
    let made = world.post(&admin, &path(&a), public(json!({})));
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(!made.text.contains("a client secret"));
    let one = made.header("location").unwrap().to_owned();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(one, format!("{}/{id}", path(&a)));
    let read = world.get(&admin, &one);
    assert_eq!(read.json(), made.json());
    assert_eq!(read.json()["scopes"], json!(["openid", "email", "profile"]));
    assert_eq!(read.json()["algorithms"], json!(["RS256"]));
    assert_eq!(world.get(&admin, &path(&a)).json()["items"], json!([read.json()]));
    let stored = "SELECT encode(sealed_client_secret, 'escape') FROM issuers";
    assert!(!world.database.query(stored).contains("a client secret"));

    // Others: no role, or no such thing.
    let developer = world.member(&a, "developer");
    refused(&world.get(&developer, &one), 403, "permission_denied");
    let denied = world.post(&developer, &path(&a), public(json!({"issuer": "https://x.example"})));
    refused(&denied, 403, "permission_denied");
    for (method, body) in [("GET", None), ("PATCH", Some(json!({}))), ("DELETE", None)] {
        let theirs = world.call(&other, method, &one, body.clone());
        refused(&theirs, 404, "not_found");
        let into_own = one.replace(&a.id, &b.id);
        refused(&world.call(&other, method, &into_own, body), 404, "not_found");
    }
    refused(&world.post(&other, &path(&a), public(json!({}))), 404, "not_found");
    assert_eq!(world.get(&other, &path(&b)).json()["items"], json!([]));
    // The platform needs a reason.
    refused(&world.post(&world.platform, &path(&a), public(json!({}))), 400, "header_invalid");

    // What is named changes, the rest stays; the secret stays, too.
    let sealed = world.database.query(stored);
    let patch = json!({"name": "Okta 2", "roles": {"map": {"Devs": "developer"}}, "bearer": true, "audiences": ["api"]});
    let changed = world.call(&admin, "PATCH", &one, Some(patch));
    assert_eq!(changed.status, 200, "{}", changed.text);
    let now = changed.json();
    assert_eq!(now["name"], "Okta 2");
    assert_eq!(now["roles"]["map"], json!({"Admins": "admin", "Devs": "developer"}));
    assert_eq!(now["client_id"], "0oa1");
    assert_eq!(world.database.query(stored), sealed);
    let gone = json!({"roles": {"map": {"Admins": null}}});
    let changed = world.call(&admin, "PATCH", &one, Some(gone));
    assert_eq!(changed.json()["roles"]["map"], json!({"Devs": "developer"}));
    let secret =
        world.call(&admin, "PATCH", &one, Some(json!({"client_secret": "another secret"})));
    assert_eq!(secret.status, 200, "{}", secret.text);
    assert_ne!(world.database.query(stored), sealed);
    refused(&world.post(&admin, &path(&a), public(json!({}))), 409, "conflict");
    assert_eq!(world.call(&admin, "DELETE", &one, None).status, 204);
    refused(&world.get(&admin, &one), 404, "not_found");
    let audited = world.database.query(&format!(
        "SELECT string_agg(action, ' ' ORDER BY id) FROM tenant_audit WHERE target_id = '{id}'"
    ));
    assert_eq!(audited, "issuer.create issuer.update issuer.update issuer.update issuer.delete");
    let told = world.database.query(
        "SELECT count(*) FROM outbox WHERE kind = 'keys' AND payload->>'issuer' LIKE '%okta%'",
    );
    assert_eq!(told, "5");
}

#[test]
fn every_mistake_of_an_issuer_is_named() {
    let world = anyone();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let post = |more: Value| world.post(&admin, &path(&tenant), public(more));
    for (more, expected) in [
        (
            json!({"issuer": "http://acme.okta.example"}),
            "/issuer: http://acme.okta.example is not https and is not named as an exception",
        ),
        (
            json!({"issuer": "https://127.0.0.1:1"}),
            "/issuer: https://127.0.0.1:1 leads to 127.0.0.1, which is not a public address",
        ),
        (
            json!({"issuer": "https://[::1]"}),
            "/issuer: https://[::1] leads to ::1, which is not a public address",
        ),
        (
            json!({"issuer": "https://169.254.169.254"}),
            "/issuer: https://169.254.169.254 leads to 169.254.169.254, which is not a public address",
        ),
        (
            json!({"issuer": "https://login.microsoftonline.com/common/v2.0"}),
            "/issuer: stands for several issuers, or has a query or fragment",
        ),
        (
            json!({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}),
            "/issuer: stands for several issuers, or has a query or fragment",
        ),
        (
            json!({"issuer": "https://a:b@acme.example"}),
            "/issuer: not an address that can be asked",
        ),
        (json!({"issuer": "https://auth.test"}), "/issuer: this is us"),
        (
            json!({"jwks_uri": "http://10.0.0.1/keys"}),
            "/jwks_uri: http://10.0.0.1 is not https and is not named as an exception",
        ),
        (
            json!({"algorithms": ["HS256"]}),
            "/algorithms: a symmetric algorithm: whoever verifies could sign",
        ),
        (json!({"algorithms": ["none"]}), "/algorithms/0: \"none\" does not fit"),
        (
            json!({"bearer": true}),
            "/audiences: empty, and \"bearer\" is true: tokens made for others would be taken",
        ),
        (
            json!({"max_role": "viewer"}),
            "/roles/map: maps a group to more than \"max_role\" (viewer)",
        ),
        (json!({"max_role": "owner"}), "/max_role: is none of the values"),
        (json!({"scopes": ["email"]}), "/scopes: without \"openid\", or with a space"),
        (json!({"client_secret": null}), "/client_secret: missing"),
        (json!({"client_auth": "none"}), "/client_secret: stands beside \"client_auth\": \"none\""),
        (json!({"roles": {"source": "token"}}), "/roles/claim: missing"),
        (json!({"roles": {"claim": "groups"}}), "/roles/claim: \"groups\" is no JSON pointer"),
        (json!({"claims": {"required": {"/hd": 1}}}), "/claims/required/~1hd: is of another type"),
        (json!({"tenants": "any"}), "/tenants: is no member"),
    ] {
        let answer = post(more.clone());
        assert!(mistakes(&answer).starts_with(expected), "{more}: {}", mistakes(&answer));
        assert!(!answer.text.contains("a client secret"), "the secret is not repeated");
    }
    // All that a schema can say at once.
    let answer = post(json!({"issuer": "", "max_role": "x", "name": ""}));
    assert_eq!(mistakes(&answer).lines().count(), 3, "{}", mistakes(&answer));
    assert_eq!(post(json!({})).status, 201);
    // Nobody lets an issuer grant what is above their own role: a narrowed admin does not exist, an operator may not
    // come here at all; the platform may.
    let made = enter(&world, &tenant, &public(json!({"issuer": "https://b.example"})));
    assert_eq!(made.status, 201, "{}", made.text);
}

#[test]
fn an_operators_exception_is_for_the_platform_and_never_for_a_tenants_address() {
    let provider =
        Provider::start(json!({"ada": {"email": "a@example.com", "groups": ["readers"]}}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let document = issuer_of(&provider, json!({}));
    let own = world.post(&admin, &path(&tenant), document.clone());
    assert!(
        mistakes(&own).contains("is not https and is not named as an exception"),
        "{}",
        own.text
    );
    let issuer = register(&world, &tenant, &provider, json!({}));
    let one = format!("{}/{issuer}", path(&tenant));
    // The tenant may change what is no address, and the platform's address stays asked.
    let renamed = world.call(&admin, "PATCH", &one, Some(json!({"name": "Ours"})));
    assert_eq!(renamed.status, 200, "{}", renamed.text);
    assert_eq!(Browser::default().sign_in(&world, &issuer, "ada").status, 303);
    // But it cannot point it elsewhere, not even at another part of what was excepted.
    let keys = format!("{}/jwks", provider.issuer);
    for moved in [json!({"jwks_uri": keys}), json!({"issuer": format!("{}/x", provider.issuer)})] {
        let answer = world.call(&admin, "PATCH", &one, Some(moved));
        assert!(
            mistakes(&answer).contains("not an address that a tenant may name"),
            "{}",
            answer.text
        );
    }
    // An address of ours is never asked, even if an operator names it.
    let own = world.service.internal.clone();
    let database = world.database;
    let mut setup = world.setup;
    assert_eq!(world.service.stop().code(), Some(0));
    setup.config["internal_listen"] = json!(own.strip_prefix("http://").unwrap());
    setup.config["sign_in"]["allow"] = json!([own]);
    let service = crate::world::Service::start(&setup);
    let world = World { service, setup, database, platform: world.platform };
    let mut document = issuer_of(&provider, json!({}));
    document["issuer"] = json!(own);
    let answer = enter(&world, &tenant, &document);
    assert!(mistakes(&answer).contains("an internal listener of ours"), "{}", answer.text);
}

#[test]
fn sessions_end_with_their_issuer() {
    let provider =
        Provider::start(json!({"ada": {"email": "a@example.com", "groups": ["readers"]}}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let one = format!("{}/{issuer}", path(&tenant));
    let agents = |browser: &Browser| browser.get(&world, "/api/v1/registry/agents");
    let change = |body: Value| {
        let answer = world.as_platform("PATCH", &one, "a test", Some(body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    for (body, back) in [
        (json!({"max_role": "viewer", "roles": {"map": {"makers": null}}}), json!({})),
        (json!({"sign_in": false}), json!({"sign_in": true})),
        (json!({"enabled": false}), json!({"enabled": true})),
    ] {
        let mut browser = Browser::default();
        assert_eq!(browser.sign_in(&world, &issuer, "ada").status, 303);
        assert_eq!(agents(&browser).status, 200);
        change(body.clone());
        refused(&agents(&browser), 401, "token_invalid");
        let begin = format!("{ORIGIN}/oauth2/login?issuer={issuer}");
        if body.get("max_role").is_none() {
            refused(&Browser::default().go(&world, &begin, None), 404, "not_found");
        }
        change(back);
        refused(&agents(&browser), 401, "token_invalid");
    }
    let mut browser = Browser::default();
    browser.sign_in(&world, &issuer, "ada");
    assert_eq!(agents(&browser).status, 200);
    assert_eq!(world.as_platform("DELETE", &one, "a test", None).status, 204);
    refused(&agents(&browser), 401, "token_invalid");
    // Entered again, it finds the user that it knew.
    let again = register(&world, &tenant, &provider, json!({}));
    assert_eq!(Browser::default().sign_in(&world, &again, "ada").status, 303);
    assert_eq!(world.database.query("SELECT count(*) FROM users"), "1");
}

#[test]
fn without_sign_in_in_the_configuration_there_is_none() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let id = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    for path in [format!("/oauth2/login?issuer={id}"), "/oauth2/callback?state=x".to_owned()] {
        let url = format!("{}{path}", world.service.url);
        refused(&crate::http::send("GET", &url, &[], None), 404, "not_found");
    }
    let cookie = format!("__Host-gatehouse={}", "A".repeat(43));
    let url = format!("{}/api/v1/registry/agents", world.service.url);
    let answer = crate::http::send("GET", &url, &[("cookie", &cookie)], None);
    refused(&answer, 401, "token_invalid");
    // Issuers can be entered in advance.
    let admin = world.member(&tenant, "admin");
    assert_eq!(world.post(&admin, &path(&tenant), public(json!({}))).status, 201);
}
