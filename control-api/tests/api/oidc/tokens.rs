//! Bearer tokens of registered issuers, at the API and for the sidecars that judged them at the edge.

use serde_json::{Value, json};

use super::{Browser, Provider, provider, refused, register, world};
use crate::{
    http::{Answer, send},
    world::World,
};

const AGENTS: &str = "/api/v1/registry/agents";

/// An access token of the provider for our API.
fn access_token(world: &World, provider: &Provider, login: &str) -> String {
    tokens(world, provider, login)["access_token"].as_str().unwrap().to_owned()
}

/// What the provider's token endpoint answers: a code flow of a program that is its client.
fn tokens(world: &World, provider: &Provider, login: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    // RFC 7636, appendix B.
    let (verifier, challenge) = (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    );
    let back = "https%3A%2F%2Fconsole.test%2Foauth2%2Fcallback";
    let url = format!(
        "{}/auth?response_type=code&client_id={}&redirect_uri={back}&scope=openid&code_challenge={challenge}&code_challenge_method=S256",
        provider.issuer,
        provider::CLIENT
    );
    let answer = Browser::default().follow(world, &url, login);
    let code = answer.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri={back}&code_verifier={verifier}"
    );
    let secret: String = form_urlencoded::byte_serialize(provider::SECRET.as_bytes()).collect();
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{secret}", provider::CLIENT)));
    let headers =
        [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let answer = send("POST", &format!("{}/token", provider.issuer), &headers, Some(&form));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn ask(world: &World, issuer: &str, tenant: &str, subject: &str, vouched: bool) -> Answer {
    world.ask_principal(&json!({"kind": "subject", "issuer": issuer, "tenant": tenant,
        "subject": subject, "vouched": vouched}))
}

#[test]
fn a_registered_issuers_token_speaks_for_its_own_tenant_and_known_users() {
    let mut provider = Provider::start(json!({}));
    let world = world(&[&provider]);
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let person = |tenant: &str| {
        json!({"email": "ada@example.com", "email_verified": true, "groups": ["makers"],
            "tenant_id": tenant})
    };
    provider
        .change(&json!({"ada": person(&a.id), "bob": person(&b.id), "eve": person("not a tenant"),
        "stranger": person(&a.id)}));
    let issuer = register(&world, &a, &provider, json!({"bearer": true}));
    let one = format!("/api/v1/factory/tenants/{}/issuers/{issuer}", a.id);
    let with = |token: &str| world.get(token, AGENTS);
    let token = access_token(&world, &provider, "ada");
    // Nobody yet: the record does not know this subject.
    refused(&with(&token), 403, "tenant_invalid");
    Browser::default().sign_in(&world, &issuer, "ada");
    assert_eq!(with(&token).status, 200);
    assert_eq!(world.post(&token, AGENTS, json!({"name": "fuel"})).status, 201);
    refused(&with(&access_token(&world, &provider, "stranger")), 403, "tenant_invalid");
    // A's provider signs for B: refused, though B exists; and a claim that is no tenant.
    refused(&with(&access_token(&world, &provider, "bob")), 403, "tenant_invalid");
    refused(&with(&access_token(&world, &provider, "eve")), 403, "tenant_invalid");
    // Forged, and by nobody's issuer.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let reversed: String = signature.chars().rev().collect();
    refused(&with(&format!("{signed}.{reversed}")), 401, "token_invalid");
    // The platform membership comes from our own issuer alone.
    world.database.query(
        "INSERT INTO platform_memberships (tenant_id, user_id) SELECT tenant_id, id FROM users",
    );
    let tenants = json!({"name": "x", "slug": "other", "tier": "free"});
    refused(&world.post(&token, "/api/v1/factory/tenants", tenants), 403, "permission_denied");
    // The registration's rules.
    let change = |body: Value| {
        let answer = world.as_platform("PATCH", &one, "a test", Some(body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    for (bad, good, status, code) in [
        (
            json!({"audiences": ["other"]}),
            json!({"audiences": [provider::API]}),
            401,
            "token_invalid",
        ),
        (json!({"bearer": false}), json!({"bearer": true}), 401, "token_invalid"),
        (json!({"enabled": false}), json!({"enabled": true}), 401, "token_invalid"),
        (json!({"algorithms": ["ES256"]}), json!({"algorithms": ["RS256"]}), 401, "token_invalid"),
        (
            json!({"claims": {"required": {"/tenant_id": "x"}}}),
            json!({"claims": {"required": {"/tenant_id": null}}}),
            403,
            "tenant_invalid",
        ),
    ] {
        change(bad.clone());
        let answer = with(&token);
        assert_eq!(answer.status, status, "{bad}: {}", answer.text);
        refused(&answer, status, code);
        change(good);
        assert_eq!(with(&token).status, 200, "{bad}");
    }
    // Its highest role bounds what the record gives.
    change(json!({"max_role": "viewer", "roles": {"map": {"makers": null}}}));
    refused(&with(&token), 403, "permission_denied");
}

#[test]
fn j23_an_id_token_is_no_bearer_token() {
    let mut provider = Provider::start(json!({}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let person = |mut forge: Value| {
        forge["tenant_id"] = json!(tenant.id);
        forge["groups"] = json!(["makers"]);
        json!({"groups": ["makers"], "tenant_id": tenant.id, "forge": forge})
    };
    let api = provider::API;
    // A member that is null is as good as none.
    provider.change(&json!({
        "honest": person(json!({})),
        "nonce": person(json!({"aud": api, "nonce": "n", "at_hash": null})),
        "hash": person(json!({"aud": api, "nonce": null, "at_hash": "h"})),
        "both": person(json!({"aud": [provider::CLIENT, api], "nonce": null, "at_hash": null})),
        "bare": person(json!({"aud": api, "nonce": null, "at_hash": null})),
    }));
    let mapped = json!({"source": "token", "claim": "/groups", "map": {"makers": "developer"}});
    let issuer = register(&world, &tenant, &provider, json!({"bearer": true, "roles": mapped}));
    let id_token = |login| {
        let answer = tokens(&world, &provider, login);
        answer["id_token"].as_str().unwrap().to_owned()
    };
    let with = |token: &str| world.get(token, AGENTS);
    let logins = ["honest", "nonce", "hash", "both", "bare"];
    let id_tokens = logins.map(id_token);
    let access = access_token(&world, &provider, "honest");
    // An access token says so in its header (RFC 9068 §2.1).
    assert_eq!(with(&access).status, 200);
    for (login, token) in logins.iter().zip(&id_tokens) {
        let answer = with(token);
        assert_eq!(answer.status, 401, "{login}: {}", answer.text);
        refused(&answer, 401, "token_invalid");
    }
    // A provider that cannot say so: what has no mark of an ID token is taken.
    let path = format!("/api/v1/factory/tenants/{}/issuers/{issuer}", tenant.id);
    let change = |body: Value| world.as_platform("PATCH", &path, "a test", Some(body));
    assert_eq!(change(json!({"access_tokens_only": false})).status, 200);
    assert_eq!(with(&access).status, 200);
    for (login, token) in logins.iter().zip(&id_tokens) {
        let expected = if *login == "bare" { 200 } else { 401 };
        let answer = with(token);
        assert_eq!(answer.status, expected, "{login}: {}", answer.text);
    }
    // Its audience is then never the client that people sign in with.
    let audiences = json!({"audiences": [api, provider::CLIENT]});
    let answer = change(audiences.clone());
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.text.contains("/audiences"), "{}", answer.text);
    assert_eq!(change(json!({"access_tokens_only": true})).status, 200);
    assert_eq!(change(audiences).status, 200);
}

#[test]
fn a_tenant_that_registers_anothers_issuer_with_keys_of_its_own_opens_itself_alone() {
    let (mut honest, mut attacker) = (Provider::start(json!({})), Provider::start(json!({})));
    let world = world(&[&honest, &attacker]);
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let person = |tenant: &str| {
        json!({"email": "ada@example.com", "email_verified": true, "groups": ["makers"],
            "tenant_id": tenant})
    };
    honest.change(&json!({"ada": person(&a.id)}));
    // The attacker's provider says that it is the honest one, and signs for both tenants.
    let forge = |tenant: &str| {
        let mut account = person(tenant);
        account["forge_access"] = json!({"iss": honest.issuer});
        account
    };
    attacker.change(&json!({"ada": forge(&a.id), "eve": forge(&b.id)}));
    let of_a = register(&world, &a, &honest, json!({"bearer": true}));
    let keys = format!("{}/jwks", attacker.issuer);
    let of_b = register(
        &world,
        &b,
        &honest,
        json!({"bearer": true, "jwks_uri": keys,
        "roles": {"source": "token", "claim": "/groups", "map": {"makers": "developer"}}}),
    );
    assert_ne!(of_a, of_b);
    assert_eq!(Browser::default().sign_in(&world, &of_a, "ada").status, 303);
    let honest_token = access_token(&world, &honest, "ada");
    assert_eq!(world.get(&honest_token, AGENTS).status, 200);
    let forged = access_token(&world, &attacker, "ada");
    refused(&world.get(&forged, AGENTS), 401, "token_invalid");
    // In its own tenant it may believe whom it wants.
    let own = access_token(&world, &attacker, "eve");
    let answer = world.get(&own, AGENTS);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["items"], json!([]));
}

#[test]
fn an_issuer_that_vouches_answers_for_roles_and_never_for_standing() {
    let mut provider = Provider::start(json!({}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let groups = |groups: &[&str]| json!({"groups": groups, "tenant_id": tenant.id, "email": "x@example.com"});
    provider.change(
        &json!({"maker": groups(&["makers"]), "reader": groups(&["readers"]), "none": groups(&[])}),
    );
    let mapped = json!({"source": "token", "claim": "/groups",
        "map": {"readers": "viewer", "makers": "developer"}});
    let issuer = register(&world, &tenant, &provider, json!({"bearer": true, "roles": mapped}));
    let token = |login| access_token(&world, &provider, login);
    let (maker, reader, none) = (token("maker"), token("reader"), token("none"));
    // Nobody of them has ever signed in.
    assert_eq!(world.get(&reader, AGENTS).status, 200);
    refused(&world.post(&reader, AGENTS, json!({"name": "fuel"})), 403, "permission_denied");
    assert_eq!(world.post(&maker, AGENTS, json!({"name": "fuel"})).status, 201);
    refused(&world.get(&none, AGENTS), 403, "permission_denied");
    assert_eq!(world.database.query("SELECT count(*) FROM users"), "0");
    let who =
        world.database.query("SELECT subject FROM tenant_audit WHERE action = 'agent.create'");
    assert!(who.starts_with("ext:"), "a name that no member can have: {who}");
    // Whom the record knows, it can stop.
    assert_eq!(Browser::default().sign_in(&world, &issuer, "maker").status, 303);
    assert_eq!(world.get(&maker, AGENTS).status, 200);
    world.database.query("UPDATE users SET status = 'suspended'");
    refused(&world.get(&maker, AGENTS), 403, "principal_inactive");
    assert_eq!(world.get(&reader, AGENTS).status, 200);
    world.database.query("UPDATE tenants SET status = 'suspended' WHERE slug = 'tenant-a'");
    refused(&world.get(&reader, AGENTS), 403, "tenant_inactive");
}

#[test]
fn a_sidecar_hears_who_a_foreign_subject_is() {
    let provider =
        Provider::start(json!({"ada": {"email": "a@example.com", "groups": ["makers"]}}));
    let world = world(&[&provider]);
    let (a, b) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let issuer = register(&world, &a, &provider, json!({"bearer": true}));
    let name = provider.issuer.as_str();
    refused(&ask(&world, name, &a.id, "ada", false), 404, "not_found");
    Browser::default().sign_in(&world, &issuer, "ada");
    let known = ask(&world, name, &a.id, "ada", false);
    assert_eq!(known.status, 200, "{}", known.text);
    let user = world.database.query("SELECT id FROM users");
    assert_eq!(known.json()["subject"], json!(user));
    assert_eq!(known.json()["roles"], json!(["developer"]));
    for (issuer, tenant, subject) in [
        (name, &b.id, "ada"),
        (name, &a.id, "Ada"),
        (name, &a.id, user.as_str()),
        ("https://other.test", &a.id, "ada"),
        (&format!("{name}/"), &a.id, "ada"),
    ] {
        refused(&ask(&world, issuer, tenant, subject, false), 404, "not_found");
    }
    // Vouched: the tenant's standing and no roles, where the issuer may speak.
    let outsider = ask(&world, name, &a.id, "bob", true);
    assert_eq!(outsider.status, 200, "{}", outsider.text);
    assert_eq!(
        (&outsider.json()["roles"], &outsider.json()["status"]),
        (&json!([]), &json!("active"))
    );
    refused(&ask(&world, name, &b.id, "bob", true), 404, "not_found");
    // An issuer that the gateway's operator named and nobody registered.
    let named = ask(&world, "https://operator.test", &b.id, "bob", true);
    assert_eq!((named.status, &named.json()["roles"]), (200, &json!([])));
    let nobody = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    refused(&ask(&world, "https://operator.test", nobody, "bob", true), 404, "not_found");
    // A suspension is told, and so is the registration's end.
    world.database.query("UPDATE users SET status = 'suspended'");
    assert_eq!(ask(&world, name, &a.id, "ada", true).json()["suspended"], json!(true));
    let one = format!("/api/v1/factory/tenants/{}/issuers/{issuer}", a.id);
    assert_eq!(
        world.as_platform("PATCH", &one, "a test", Some(json!({"bearer": false}))).status,
        200
    );
    for vouched in [false, true] {
        refused(&ask(&world, name, &a.id, "ada", vouched), 404, "not_found");
    }
}
