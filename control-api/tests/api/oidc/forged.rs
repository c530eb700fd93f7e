//! ID tokens that an honest provider would never make, by the real key of a real provider; and providers that are away
//! or are not whom they are said to be. Beside each stands the honest sign-in that passes.

use serde_json::{Value, json};

use super::{Browser, ORIGIN, Provider, code, enter, issuer_of, refused, register, world};
use crate::http::send;

fn forged(forge: Value) -> Value {
    json!({"email": "x@example.com", "email_verified": true, "groups": ["makers"], "forge": forge})
}

#[test]
fn an_id_token_of_another_party_issuer_time_nonce_or_algorithm_signs_nobody_in() {
    let logins = [
        ("aud", json!({"aud": "somebody else"})),
        ("audiences", json!({"aud": ["gatehouse", "somebody else"]})),
        ("azp", json!({"azp": "somebody else"})),
        ("iss", json!({"iss": "https://other.test"})),
        ("nobody", json!({"iss": null})),
        ("exp", json!({"exp": 1_000_000_000})),
        ("nbf", json!({"nbf": 9_000_000_000_u64})),
        ("iat", json!({"iat": 9_000_000_000_u64})),
        ("nonce", json!({"nonce": "another"})),
        ("sub", json!({"sub": "has a space"})),
        ("cnf", json!({"cnf": {"jkt": "x"}})),
        // By a key that the provider has and publishes.
        ("alg", json!({"alg": "ES256"})),
        // By one that it does not publish.
        ("key", json!({"alg": "PS256"})),
    ];
    let mut accounts = json!({"honest": forged(json!(null))});
    for (login, forge) in &logins {
        accounts[login] = forged(forge.clone());
    }
    let provider = Provider::with(json!({"accounts": accounts, "algorithms": ["RS256", "ES256"]}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let sign_in = |login: &str| {
        let mut browser = Browser::default();
        let answer = browser.sign_in(&world, &issuer, login);
        assert_eq!(answer.status == 303, browser.session().is_some(), "{login}");
        answer
    };
    for (login, _) in &logins {
        let answer = sign_in(login);
        assert_eq!(code(&answer), (401, "token_invalid".to_owned()), "{login}: {}", answer.text);
        assert!(answer.header("www-authenticate").is_some());
        // Neither the claim nor the library's words reach the browser.
        assert!(!answer.text.contains("other.test") && !answer.text.contains("nonce"), "{login}");
    }
    assert_eq!(sign_in("honest").status, 303);
    assert_eq!(world.database.query("SELECT count(*) FROM users"), "1");
    // The same key is good where the issuer's list has its algorithm.
    let both = json!({"algorithms": ["RS256", "ES256"]});
    let path = format!("/api/v1/factory/tenants/{}/issuers/{issuer}", tenant.id);
    let changed = world.as_platform("PATCH", &path, "a test's change", Some(both));
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(sign_in("alg").status, 303);
    refused(&sign_in("key"), 401, "token_invalid");
}

#[test]
fn a_claim_that_is_required_keeps_other_directories_out() {
    let of = |hd: Value| json!({"email": "x@example.com", "email_verified": true, "hd": hd});
    let provider = Provider::start(json!({
        "ours": of(json!("example.com")), "theirs": of(json!("example.org")), "list": of(json!(["example.com"])),
        "none": {"email": "x@example.com"},
    }));
    let world = world(&[&provider]);
    let issuer = register(
        &world,
        &world.tenant("tenant-a"),
        &provider,
        json!({
            "claims": {"required": {"/hd": "example.com"}},
            "roles": {"claim": "/hd", "map": {"example.com": "viewer"}},
        }),
    );
    let sign_in = |login| Browser::default().sign_in(&world, &issuer, login);
    for login in ["theirs", "list", "none"] {
        refused(&sign_in(login), 403, "permission_denied");
    }
    assert_eq!(sign_in("ours").status, 303);
}

#[test]
fn a_provider_that_is_down_is_503_and_says_when_to_come_back() {
    let mut provider = Provider::start(json!({"ada": forged(json!(null))}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let mut browser = Browser::default();
    let back = browser.through_provider(&world, &issuer, "ada");
    provider.stop();
    let away = browser.go(&world, &back, None);
    refused(&away, 503, "identity_unavailable");
    assert_eq!(away.header("retry-after"), Some("5"));
    assert!(away.text.contains("identity provider"), "{}", away.text);
    assert_eq!(browser.session(), None);
    // A provider that never answered: registered while it was down.
    let mut gone = Provider::start(json!({}));
    let document = issuer_of(&gone, json!({}));
    gone.stop();
    let second = enter(&world, &tenant, &document);
    // The operator did not name it.
    refused(&second, 422, "body_invalid");
    // Everything else goes on.
    let agents = world.get(&world.member(&tenant, "viewer"), "/api/v1/registry/agents");
    assert_eq!(agents.status, 200);
}

#[test]
fn j39_a_discovery_document_of_another_issuer_is_not_believed() {
    let provider = Provider::start(json!({"ada": forged(json!(null))}));
    // The same listener by another name: what it says of itself is another.
    let named = provider.issuer.replace("127.0.0.1", "localhost");
    let world = super::world_with(
        json!({"public_origin": ORIGIN, "allow": [named.clone(), provider.issuer.clone()]}),
    );
    let tenant = world.tenant("tenant-a");
    let begin = |issuer: &str| {
        let url = format!("{}/oauth2/login?issuer={issuer}", world.service.url);
        send("GET", &url, &[], None)
    };
    let mut document = issuer_of(&provider, json!({}));
    document["issuer"] = json!(named);
    let made = enter(&world, &tenant, &document);
    assert_eq!(made.status, 201, "{}", made.text);
    refused(&begin(made.json()["id"].as_str().unwrap()), 503, "identity_unavailable");
    let honest = register(&world, &tenant, &provider, json!({}));
    assert_eq!(begin(&honest).status, 303);
}

#[test]
fn both_ways_of_client_authentication_work_and_a_wrong_secret_is_our_fault_and_not_the_callers() {
    let accounts = json!({"ada": forged(json!(null))});
    for auth in ["client_secret_basic", "client_secret_post"] {
        let provider = Provider::with(json!({"accounts": accounts, "auth": auth}));
        let world = world(&[&provider]);
        let tenant = world.tenant("tenant-a");
        let issuer = register(&world, &tenant, &provider, json!({"client_auth": auth}));
        assert_eq!(Browser::default().sign_in(&world, &issuer, "ada").status, 303, "{auth}");
        let path = format!("/api/v1/factory/tenants/{}/issuers/{issuer}", tenant.id);
        let wrong = json!({"client_secret": "a wrong secret"});
        assert_eq!(world.as_platform("PATCH", &path, "a test", Some(wrong)).status, 200);
        let answer = Browser::default().sign_in(&world, &issuer, "ada");
        refused(&answer, 503, "identity_unavailable");
    }
}
