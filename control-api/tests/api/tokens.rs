//! Tokens and keys: what is issued, to whom, and what a rotation leaves valid.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    database::Database,
    http::{Answer, send},
    world::{AUDIENCE, ISSUER, Service, Setup, World, until},
};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn kids(world: &World) -> Vec<String> {
    let answer = send("GET", &format!("{}/.well-known/jwks.json", world.service.url), &[], None);
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    for key in &keys {
        assert!(key.get("d").is_none() && key["alg"] == "RS256" && key["use"] == "sig", "{key}");
    }
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_client_gets_a_token_that_names_its_tenant_and_no_role() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "viewer");
    let (header, claims) = (part(&token, 0), part(&token, 1));
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(kids(&world), [header["kid"].as_str().unwrap()]);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], AUDIENCE);
    assert_eq!(claims["tenant_id"], tenant.id.as_str());
    assert_eq!(claims["sub"], claims["client_id"]);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
    let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 9, "nothing beside them: {names:?}");
    let read = world.get(&token, "/api/v1/registry/agents");
    assert_eq!(read.status, 200, "{}", read.text);
}

fn oauth_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(error)));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
}

#[test]
fn wrong_clients_and_secrets_get_the_same_refusal() {
    let database = Database::migrated();
    let setup = Setup::new(&database);
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let world = World { service, setup, database, platform: String::new() };
    let id = operator["client_id"].as_str().unwrap();
    let secret = operator["client_secret"].as_str().unwrap();
    let wrong = [
        (id, "gs_wrong".to_owned()),
        (id, String::new()),
        (id, format!("{secret}x")),
        ("0191d6b0-7c3e-7aaa-8bbb-0123456789ab", secret.to_owned()),
        ("nobody", secret.to_owned()),
        // The slot of a client that does not exist is compared with zeros.
        ("0191d6b0-7c3e-7aaa-8bbb-0123456789ab", "\0".repeat(32)),
    ];
    for (id, secret) in wrong {
        oauth_error(&world.ask_token(id, &secret), 401, "invalid_client");
    }
    let url = format!("{}/oauth2/token", world.service.url);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    assert_eq!(send("POST", &url, &form, Some(&body)).status, 200);
    let password = format!("grant_type=password&client_id={id}&client_secret={secret}");
    oauth_error(&send("POST", &url, &form, Some(&password)), 400, "unsupported_grant_type");

    // Another secret ends the one before.
    let rotated = world.setup.bootstrap(&["--rotate-secret"]);
    assert_eq!(rotated["client_id"], operator["client_id"]);
    oauth_error(&world.ask_token(id, secret), 401, "invalid_client");
    world.token_of(&rotated);
    // Without being asked to rotate, it shows no secret.
    let again = world.setup.bootstrap(&[]);
    assert_eq!(again.get("client_secret"), None);
    assert_eq!(again["client_id"], operator["client_id"]);
}

#[test]
fn a_rotation_keeps_old_tokens_valid_and_publishes_both_keys() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let old = world.member(&tenant, "viewer");
    let before = kids(&world);
    let rotated = world.call(&world.platform, "POST", "/api/v1/factory/signing-keys", None);
    assert_eq!(rotated.status, 201, "{}", rotated.text);
    let new = world.member(&tenant, "viewer");
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    assert_eq!(part(&new, 0)["kid"], rotated.json()["kid"]);
    let both = kids(&world);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&before[0]));
    for token in [&old, &new] {
        assert_eq!(world.get(token, "/api/v1/registry/agents").status, 200);
    }
    // The tokens of the key before are dead: it is published no more, and opens nothing.
    world.database.query(
        "UPDATE signing_keys SET publish_until = now() - interval '1 second' WHERE retired_at IS NOT NULL",
    );
    // The service keeps its keys for a few seconds.
    let dead = until(|| {
        let asked = world.get(&old, "/api/v1/registry/agents");
        (asked.status != 200).then_some(asked)
    });
    assert_eq!((dead.status, dead.json()["code"].as_str()), (401, Some("token_invalid")));
    assert_eq!(kids(&world).len(), 1);
    assert_eq!(world.get(&new, "/api/v1/registry/agents").status, 200);
}

#[test]
fn a_key_is_published_before_it_signs_and_verifiers_are_told() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["key_publish_ahead_s"] = json!(3600);
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    assert_eq!(kids(&world).len(), 1, "the first key signs at once");
    let rotated = world.call(&world.platform, "POST", "/api/v1/factory/signing-keys", None);
    assert_eq!(rotated.status, 201, "{}", rotated.text);
    let next = rotated.json()["kid"].clone();
    let url = format!("{}/.well-known/jwks.json", world.service.url);
    let answer = send("GET", &url, &[], None);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert!(kids(&world).iter().any(|kid| *kid == next), "published at once");
    let token = world.token_of(&operator);
    assert_ne!(part(&token, 0)["kid"], next, "the one before still signs");
    let told = world.database.query("SELECT payload ->> 'issuer' FROM outbox WHERE kind = 'keys'");
    assert_eq!(told, format!("{ISSUER}\n{ISSUER}"), "the first key and the next");
    // Its time has come.
    world.database.query(
        "UPDATE signing_keys SET signs_from = signs_from - interval '2 hours',
         retired_at = retired_at - interval '1 hour', publish_until = publish_until - interval '1 hour'",
    );
    until(|| (part(&world.token_of(&operator), 0)["kid"] == next).then_some(()));
    assert_eq!(world.get(&token, "/.well-known/jwks.json").status, 200);
    assert_eq!(kids(&world).len(), 2);
}

#[test]
fn keys_survive_a_restart_and_need_their_key_file() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "viewer");
    let World { service, setup, database, .. } = world;
    assert_eq!(service.stop().code(), Some(0));
    let stored = database.query("SELECT encode(sealed_private, 'escape') FROM signing_keys");
    assert!(!stored.contains("PRIVATE KEY") && !stored.is_empty());
    let service = Service::start(&setup);
    let world = World { service, setup, database, platform: String::new() };
    assert_eq!(world.get(&token, "/api/v1/registry/agents").status, 200);
    let World { service, setup, database: _database, .. } = world;
    assert_eq!(service.stop().code(), Some(0));
    std::fs::write(setup.dir.path().join("key"), "1e".repeat(32)).unwrap();
    let out = setup.refused();
    assert_eq!(out.status.code(), Some(78));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "gatehouse-control-api: $.key_file: the sealed key cannot be opened with this key file; use the file that the stored signing key was sealed with\n"
    );
}

#[test]
fn the_discovery_document_leads_to_the_keys() {
    let world = World::new();
    let url = format!("{}/.well-known/openid-configuration", world.service.url);
    let document = send("GET", &url, &[], None).json();
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], json!(format!("{ISSUER}/.well-known/jwks.json")));
    assert_eq!(document["token_endpoint"], json!(format!("{ISSUER}/oauth2/token")));
}

#[test]
fn no_secret_and_no_token_is_in_the_log() {
    let mut world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "admin");
    world.get(&token, "/api/v1/registry/agents");
    world.get("ey.forged.token", "/api/v1/registry/agents");
    let log = world.service.log();
    assert!(log.iter().any(|line| line.contains(&tenant.id)), "the tenant is named");
    for line in &log {
        let line: Value = serde_json::from_str(line).expect("one JSON object per line");
        let text = line.to_string();
        for secret in [token.as_str(), "gs_", "forged", ":test@", "Bearer "] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
